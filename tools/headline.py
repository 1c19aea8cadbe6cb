"""Write the README's headline, its table and picture, from the committed results.

.venv/bin/python tools/headline.py
"""

import json
import re
from pathlib import Path

import matplotlib as mpl

from labrnn import lab
from labrnn.files import replace_file
from labrnn.parts import read_params
from labrnn.reports.writeup import tally
from labrnn.results import baselines, beyond, combined
from labrnn.results.figures import agreement
from labrnn.results.prose import comparisons, counted, listing, named
from labrnn.results.reproduction import compare, summary, table
from labrnn.results.tables import accuracy_cell
from labrnn.results.verdicts import CONFIRMED, INCONCLUSIVE, REFUTED, verdicts
from labrnn.trials.plan import plan_trials
from labrnn.trials.store import PROJECT, Store

README = PROJECT / "README.md"
PICTURE = PROJECT / "docs" / "headline.svg"
MACHINES = PROJECT / "benchmarks" / "machines"
STORE = Store(PROJECT / "reports" / "full")
SHOWN = ("1", "3a", "3b", "3c", "4a", "4b", "4c", "5b", "5c", "6h", "7d", "10a")
COLUMNS = ["setting", "parameters", "published, %", "last epoch, %", "best epoch, %", "trained"]
OLDER = " (measured before our own matrix kernel)"
BLOCK = re.compile(r"(<!-- headline:.*?-->\n).*?(<!-- /headline -->)", re.S)


def results(name="reproduction"):
    """Return the committed `Results` of a part."""
    part = read_params(PROJECT / "params" / "full" / f"{name}.yaml")
    plan = plan_trials(part.trials(), "", part.fingerprint, STORE, train=False)
    return lab.results(part, plan.trials.values(), STORE)


def block(found):
    """Return the Markdown between the README's two headline marks."""
    rows = compare(found)
    finding = summary(rows, found).partition("\n\n")[0]
    judged = verdicts(found)
    counts = tally((v.outcome, v.at_last) for v in judged)
    lines = [f"{counts}. {finding}", ""]
    for outcome in (CONFIRMED, REFUTED, INCONCLUSIVE):
        claims = [
            v.claim.published + f" ({v.at_last} at the last epoch)" * (v.at_last != outcome)
            for v in judged
            if v.outcome == outcome
        ]
        lines += [f"- **{outcome.capitalize()}:** {'; '.join(claims)}."] * bool(claims)
    lines += [
        "",
        "![The difference of each of our test accuracies from the published one](docs/headline.svg)",
        "",
        "| setting | parameters | published, % | ours, last epoch, % | ours, best epoch, % [95 % CI] "
        "| runs that trained |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    found = table(rows)
    found = found[found["lab figure"].isin(SHOWN)]
    lines += [f"| {' | '.join(cells)} |" for cells in found[COLUMNS].to_numpy()]
    lines += [
        "",
        "E: embedding dimensions, H: hidden units, L: layers; parameters with the published vocabulary. "
        "–: no run trained. *a to b*: the range of the runs, if an interval would extend more than 10 "
        "points to one side ([verdicts](docs/verdicts.md)). n: number of other runs, with the corrected "
        "readout of bidirectional models.",
    ]
    return "\n".join([*lines, "", best(), "", speed(), ""])


def best():
    """Describe the accuracies of the best network, the best baseline, and their combination."""
    found = results("beyond_best")
    networks, models = found.part.networks(), baselines.find(found.part, STORE)
    network = networks[0]
    linear = baselines.preferred(models)
    both = combined.find(found, network, linear, STORE)
    compared = beyond.baseline_comparisons(models, found, networks, both)
    c = next(c for c in compared if (c.first, c.second) == (both, linear))
    reached = [f"{accuracy_cell(found.accuracy(m))} %" for m in (network, linear, both)]
    return (
        "Beyond the lab, the best recurrent classifier is an ensemble. It reaches "
        f"{reached[0]} on the test reviews ({counted(found.accuracy(network).n, 'run')}). The best "
        f"linear baseline is {named(linear)}, with {reached[1]}. Their combination reaches "
        f"{reached[2]}. "
        f"{comparisons([c], 'the baseline')}"
    )


def speed():
    """Describe the time of packed sequences as a multiple of ours, for each benchmarked machine."""
    sentences = []
    for path in sorted(MACHINES.glob("*.json")):
        kept = json.loads(path.read_text("utf-8"))
        times = {
            model: rows["packed sequences"]["times_ours"]
            for model, rows in kept["races"].items()
            if "packed sequences" in rows
        }
        ratios = listing(f"{ratio:.0f} ({model})" for model, ratio in times.items())
        older = OLDER if "before" in kept["machine"]["products"] else ""
        sentences.append(
            f"on one core of an {kept['machine']['cpu']}{older} by factors of {ratios}"
        )
    return (
        "The original study trains with packed sequences in plain PyTorch. Our kernels make a "
        f"training step faster: {'; '.join(sentences)}. More in "
        "[benchmarks](benchmarks/README.md)."
    )


def main():
    found = results()
    text = README.read_text("utf-8")
    replace_file(README, BLOCK.sub(lambda m: m[1] + block(found) + m[2], text).encode())
    with mpl.rc_context({"svg.hashsalt": "headline"}):
        agreement(compare(found)).savefig(Path(PICTURE), metadata={"Date": None})


if __name__ == "__main__":
    main()
