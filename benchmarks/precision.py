"""Compare the accuracy of `precision: bf16` with float32: four settings, ten seeds each.

    .venv/bin/python benchmarks/precision.py [--data "IMDB Dataset.csv" --store FOLDER]

With --data the script trains the runs missing in the store, one at a time, and writes their
accuracies to `precision.csv`. It then writes the table of README.md from that file. The float32
runs are those of `reports/full`. Settings, seeds and the margin of 0.5 points were fixed when the
first two settings had five runs each and the last two none.
"""

import argparse
import re
from pathlib import Path

import pandas as pd
from scipy import stats

from labrnn.config import TrialConfig
from labrnn.results.statistics import LEVEL, combined, welch
from labrnn.trials.job import train_and_store
from labrnn.trials.store import PROJECT, Store

FOLDER = Path(__file__).parent
RUNS, PAGE = FOLDER / "precision.csv", FOLDER / "README.md"
MARK = re.compile(r"(<!-- precision -->\n).*?(<!-- /precision -->)", re.S)
MARGIN = 0.005
SEEDS = range(5, 15)
SETTINGS = {
    "LSTM, RMSprop": {"optim": "rmsprop"},
    "LSTM, RMSprop, E32 H20": {"optim": "rmsprop", "embedding_dim": 32, "hidden_dim": 20},
    "LSTM, Adam": {"optim": "adam"},
    "GRU, RMSprop": {"cell": "gru", "optim": "rmsprop"},
}
ALL = "mean of the four differences"


def config(name, seed, precision="float32"):
    return TrialConfig(lr=0.001, seed=seed, precision=precision, **SETTINGS[name])


def train(data, store):
    """Train the missing bf16 runs; return a DataFrame of setting, seed and accuracy."""
    rows = []
    for seed in SEEDS:
        for name in SETTINGS:
            trial = train_and_store(config(name, seed, "bf16"), data, store, "cpu")
            rows.append(
                {"setting": name, "seed": seed, "accuracy": trial.metrics["best"]["accuracy"]}
            )
            print(rows[-1], flush=True)
    return pd.DataFrame(rows).sort_values(["setting", "seed"], kind="stable")


def compare(runs):
    """Return name -> bf16 accuracies, float32 accuracies, `Estimate` of their difference."""
    stored = {
        t.config: t.metrics["best"]["accuracy"] for t in Store(PROJECT / "reports/full").trials()
    }
    found = {}
    for name in SETTINGS:
        half = runs.loc[runs["setting"] == name, "accuracy"]
        single = pd.Series([stored[config(name, seed)] for seed in SEEDS])
        found[name] = half, single, welch(half, single)
    return found


def mean_of(differences):
    """Return the mean of independent differences, an `Estimate`."""
    n = len(differences)
    shares = [((d.error / n) ** 2, d.freedom) for d in differences]
    mean = sum(d.mean for d in differences) / n
    return combined(mean, shares, min(d.n for d in differences), 0)


def row(name, cells, difference):
    """Return a row of the table."""
    half = stats.t.ppf(1 - LEVEL, difference.freedom) * difference.error
    low, high = (100 * (difference.mean + sign * half) for sign in (-1, 1))
    p = max(difference.p_above(-MARGIN), difference.p_below(MARGIN))
    outcome = "equivalent" if p < LEVEL else "inconclusive"
    gap = f"{100 * difference.mean:+.2f} points [{low:+.2f}, {high:+.2f}]"
    return " | ".join(["", name, *cells, gap, f"{p:.3f}", outcome, ""]).strip()


def table(runs):
    """Return the table of README.md."""
    lines = [
        "| setting | bf16: mean, SD, n | float32: mean, SD, n | difference [90 % CI] | p | outcome |"
    ]
    lines.append("|---|---|---|---|--:|---|")
    found = compare(runs)
    for name, (*sides, difference) in found.items():
        cells = [f"{100 * s.mean():.1f} %, {100 * s.std():.2f}, {len(s)}" for s in sides]
        lines.append(row(name, cells, difference))
    lines.append(row(ALL, ["", ""], mean_of([d for *_, d in found.values()])))
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="the 50,000 reviews: train what is missing")
    parser.add_argument("--store", help="folder of the bf16 runs")
    options = parser.parse_args()
    if options.data:
        train(options.data, Store(Path(options.store))).to_csv(
            RUNS, index=False, lineterminator="\n"
        )
    text = MARK.sub(lambda m: m[1] + table(pd.read_csv(RUNS)) + m[2], PAGE.read_text("utf-8"))
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
