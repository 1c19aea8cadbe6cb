"""Writes the README's headline table and picture from the committed results.

.venv/bin/python tools/headline.py
"""

import re
from pathlib import Path

import matplotlib as mpl

from labrnn.files import replace_file
from labrnn.lab import Results
from labrnn.parts import read_params
from labrnn.results import baselines, beyond
from labrnn.results.comparison import WEAK
from labrnn.results.figures import agreement, percent
from labrnn.results.reproduction import compare
from labrnn.results.statistics import accuracy
from labrnn.trials.plan import plan_trials
from labrnn.trials.store import PROJECT, Store

README = PROJECT / "README.md"
PICTURE = PROJECT / "docs" / "headline.svg"
BENCHMARKS = PROJECT / "benchmarks" / "README.md"
STORE = Store(PROJECT / "reports" / "full" / "trials")
SHOWN = ("1", "3a", "3b", "3c", "4a", "4b", "4c", "5b", "5c", "6h", "7d", "10a")
BLOCK = re.compile(r"(<!-- headline:.*?-->\n).*?(<!-- /headline -->)", re.S)


def results(name="reproduction"):
    """The committed results of a part."""
    part = read_params(PROJECT / "params" / "full" / f"{name}.yaml")
    return Results(part, plan_trials(part.trials(), "", part.fingerprint, STORE, train=False))


def block(found):
    """The Markdown between the README's two marks."""
    rows = [row for row in compare(found) if row.seeds]
    agreeing = sum(row.agrees for row in rows)
    lines = [
        f"{len(rows)} of the 79 published trainings have been rerun so far on the 50,000 reviews. "
        f"In {agreeing} the test accuracy after the last epoch lies within the noise of the "
        "published one:",
        "",
        "![Each published training and ours](docs/headline.svg)",
        "",
        "| training | parameters | published | ours, last epoch | ours, best epoch [95 %] | n |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        if row.published.figure in SHOWN:
            lines.append(_line(found, row))
    return "\n".join([*lines, "", best(), "", speed(), ""])


def best():
    """The best classifier beside the best model without a network."""
    found = results("beyond_best")
    leader, network = found.settings[0], found["Without a linear path beside the network"]
    models = baselines.find(found.part, STORE)
    bar = baselines.preferred(models)
    ours, theirs = found.accuracy(leader), accuracy([bar.correct])
    pairs = beyond.comparisons(models, found.only(leader, network))
    compared = next(pair for pair in pairs if pair.first is bar and pair.second == leader)
    alone = found.accuracy(network)
    return (
        f"The best recurrent classifier found, with a linear path beside its network, reaches "
        f"{_with_interval(ours)} on the test reviews (n = {ours.seeds}); its network alone "
        f"{_with_interval(alone)} (n = {alone.seeds}), the best linear model "
        f"{_with_interval(theirs)}. The difference of the first to the last is "
        f"{'clear' if compared.clear else compared.verdict}."
    )


def _with_interval(accuracy):
    return f"{percent(accuracy.mean)} [{100 * accuracy.low:.1f}, {100 * accuracy.high:.1f}]"


def speed():
    """How long the published way takes, from the last table of the benchmarks."""
    text = BENCHMARKS.read_text("utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    times = {row[0]: float(row[3]) for row in rows if "packed sequences" in row[1:2]}
    told = ", ".join(f"{ratio:.0f} times ({model})" for model, ratio in times.items())
    return (
        "A training step the published way, packed sequences in plain PyTorch on one core, takes "
        f"{told} as long as ours. More in [benchmarks](benchmarks/README.md)."
    )


def _line(found, row):
    known, config = row.published, row.setting.config
    name = f"{known.cell.upper()} {known.optimizer}, E{config.embedding_dim} "
    name += f"H{config.hidden_dim} L{config.n_layers}" + ", both ways" * config.bidirectional
    right = row.setting.__class__(name, config.but(readout="final_state"))
    ours, trials = found.accuracy(right), found.trials(right).values()
    cells = [percent(row.last), _with_interval(ours)]
    if len({trial.metrics["best"]["accuracy"] < WEAK for trial in trials}) > 1:
        # Some seeds trained and others did not: a mean would be an accuracy that none has.
        tests = [sorted(t.metrics[which]["accuracy"] for t in trials) for which in ("last", "best")]
        cells = [", ".join(f"{100 * accuracy:.1f}" for accuracy in one) + " %" for one in tests]
    return (
        f"| {name} | {row.parameters:,} | {percent(known.test_acc)} | {cells[0]} | {cells[1]} | "
        f"{ours.seeds} |"
    )


def main():
    found = results()
    text = README.read_text("utf-8")
    replace_file(README, BLOCK.sub(lambda m: m[1] + block(found) + m[2], text).encode())
    with mpl.rc_context({"svg.hashsalt": "headline"}):
        agreement(compare(found)).savefig(Path(PICTURE), metadata={"Date": None})


if __name__ == "__main__":
    main()
