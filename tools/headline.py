"""Writes the README's headline table and picture from the committed results.

.venv/bin/python tools/headline.py
"""

import json
import re
from pathlib import Path

import matplotlib as mpl

from labrnn import lab
from labrnn.files import replace_file
from labrnn.parts import read_params
from labrnn.results import baselines, beyond, combined
from labrnn.results.figures import agreement
from labrnn.results.prose import counted, difference, named
from labrnn.results.reproduction import compare, setting_name, tally
from labrnn.results.tables import accuracy_cell
from labrnn.trials.plan import plan_trials
from labrnn.trials.store import PROJECT, Store

README = PROJECT / "README.md"
PICTURE = PROJECT / "docs" / "headline.svg"
MACHINES = PROJECT / "benchmarks" / "machines"
STORE = Store(PROJECT / "reports" / "full")
SHOWN = ("1", "3a", "3b", "3c", "4a", "4b", "4c", "5b", "5c", "6h", "7d", "10a")
BLOCK = re.compile(r"(<!-- headline:.*?-->\n).*?(<!-- /headline -->)", re.S)


def results(name="reproduction"):
    """The committed results of a part."""
    part = read_params(PROJECT / "params" / "full" / f"{name}.yaml")
    plan = plan_trials(part.trials(), "", part.fingerprint, STORE, train=False)
    return lab.results(part, plan.trials.values(), STORE)


def block(found):
    """The Markdown between the README's two marks."""
    rows = compare(found)
    run, shown = [r for r in rows if r.runs.n], [r for r in rows if r.compared]
    agreeing = sum(row.agrees for row in shown)
    counts, _ = tally(found)
    outcomes = ", ".join(f"{counts[o]} {o}" for o in ("confirmed", "refuted", "inconclusive"))
    lines = [
        f"Of {sum(counts.values())} conclusions of the original study, our runs leave {outcomes}. We "
        f"repeated {len(run)} of its 79 runs on the 50,000 reviews; in {len(shown)} of them a run "
        "trained on both sides, and the prediction interval of the difference contains 0 in "
        f"{agreeing}:",
        "",
        "![Each published run and ours](docs/headline.svg)",
        "",
        "| setting | parameters | published, % | ours, last epoch, % | ours, best epoch, % [95 % CI] "
        "| runs that trained |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [_line(row) for row in run if row.published.figure in SHOWN]
    return "\n".join([*lines, "", best(), "", speed(), ""])


def _line(row):
    known = row.published.test_acc
    last = f"{100 * (row.gap.mean + known):.1f}" if row.gap.n else "–"
    return (
        f"| {setting_name(row.setting.config)} | {row.parameters:,} | {100 * known:.1f} | {last} | "
        f"{accuracy_cell(row.best)} | {row.runs.count} of {row.runs.n} |"
    )


def best():
    """The best network, the best linear baseline, and both together."""
    found = results("beyond_best")
    network, models = found.part.whole(), baselines.find(found.part, STORE)
    linear = baselines.preferred(models)
    both = combined.find(found, network, linear, STORE)
    compared = beyond.baseline_comparisons(models, found, [network], both)
    c = next(c for c in compared if (c.first, c.second) == (both, linear))
    reached = [f"{accuracy_cell(found.accuracy(m))} %" for m in (network, linear, both)]
    return (
        f"The best recurrent network reaches {reached[0]} on the test reviews "
        f"({counted(found.accuracy(network).n, 'run')}), the best linear baseline, {named(linear)}, "
        f"{reached[1]}, and both together {reached[2]}. The sum is {difference(c.difference, c.p)} "
        f"from the baseline ({c.outcome})."
    )


def speed():
    """How long packed sequences take beside ours, on each machine that the benchmarks have kept."""
    sentences = []
    for path in sorted(MACHINES.glob("*.json")):
        kept = json.loads(path.read_text("utf-8"))
        times = {
            model: rows["packed sequences"]["times_ours"]
            for model, rows in kept["races"].items()
            if "packed sequences" in rows
        }
        ratios = ", ".join(f"{ratio:.0f} times ({model})" for model, ratio in times.items())
        sentences.append(f"{ratios} on one core of an {kept['machine']['cpu']}")
    return (
        "A training step as published, with packed sequences in plain PyTorch, takes as many times "
        f"as long as ours: {'; '.join(sentences)}. More in [benchmarks](benchmarks/README.md)."
    )


def main():
    found = results()
    text = README.read_text("utf-8")
    replace_file(README, BLOCK.sub(lambda m: m[1] + block(found) + m[2], text).encode())
    with mpl.rc_context({"svg.hashsalt": "headline"}):
        agreement(compare(found)).savefig(Path(PICTURE), metadata={"Date": None})


if __name__ == "__main__":
    main()
