"""Our trainings beside the published ones, trial by trial: what agrees within the noise."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from labrnn.network.models import count_parameters
from labrnn.parts import OPTIMIZERS
from labrnn.results.comparison import WEAK, seed_spread
from labrnn.results.prose import points, span
from labrnn.results.published import TEST_REVIEWS, VOCABULARY_SIZE, published
from labrnn.results.statistics import CONFIDENCE, mean_of

NORMAL_95 = stats.norm.ppf((1 + CONFIDENCE) / 2)


@dataclass(frozen=True)
class Row:
    """One published training and ours of the same setting.

    Attributes:
        published: the row of the published table.
        setting: ours, trained the published way.
        parameters: at the published vocabulary.
        seeds: how many of ours were run; 0 where none was.
        last: our mean test accuracy after the last epoch, a mean over batches: the published way.
        best: our mean test accuracy of the best epoch, final-state readout: the right way.
        noise: by how much `last` and the published accuracy may differ by chance, 95 %.
    """

    published: object
    setting: object
    parameters: int
    seeds: int
    last: float = math.nan
    best: float = math.nan
    noise: float = math.nan

    @property
    def gap(self):
        return self.last - self.published.test_acc

    @property
    def agrees(self):
        return abs(self.gap) <= self.noise


def compare(results):
    """A `Row` for each of the published trainings, in their order.

    Args:
        results: of the part `reproduction`.
    """
    rows = []
    spread = _spread(results)
    for known, setting in zip(published().itertuples(), results.settings, strict=True):
        parameters = count_parameters(setting.config, VOCABULARY_SIZE)
        trials = list(results.trials(setting).values())
        if not trials:
            rows.append(Row(known, setting, parameters, 0))
            continue
        right = results.trials_of(setting.config.but(readout="final_state"))
        tests = [trial.metrics["last"]["accuracy_batch_mean"] for trial in trials]
        last, own = float(np.mean(tests)), float(np.std(tests, ddof=1)) if len(tests) > 1 else 0.0
        best = [trial.metrics["best"]["accuracy"] for trial in right.values()]
        reviews = len(trials[0].predictions)
        variance = last * (1 - last) * (1 / reviews + 1 / TEST_REVIEWS)
        # Where some seeds train and others do not, theirs is the spread that counts.
        variance += max(spread, own) ** 2 * (1 + 1 / len(trials))
        rows.append(
            Row(
                known,
                setting,
                parameters,
                len(trials),
                last,
                float(np.mean(best)) if best else math.nan,
                NORMAL_95 * math.sqrt(variance),
            )
        )
    return rows


def _spread(results):
    """Standard deviation of the last epoch's test accuracy over seeds; 0 if not known."""
    spread = seed_spread([results], "last")
    return 0.0 if math.isnan(spread) else spread


def table(rows):
    """The comparison, a line a training; trainings that were not run say so."""
    lines = []
    for row in rows:
        known = row.published
        lines.append(
            {
                "figure": known.figure or "",
                "setting": _setting(row.setting.config),
                "parameters": f"{row.parameters:,}",
                "published": f"{known.test_acc:.3f}",
                "last epoch": f"{row.last:.3f}" if row.seeds else "–",
                "n": row.seeds or "",
                "gap, points": points(row.gap) if row.seeds else "",
                "± noise": f"{100 * row.noise:.1f}" if row.seeds else "",
                "within": {True: "yes", False: "no"}[row.agrees] if row.seeds else "",
                "best epoch": "" if math.isnan(row.best) else f"{row.best:.3f}",
            }
        )
    table = pd.DataFrame(lines)
    table.attrs["key"] = "A dash: not run yet."
    return table


def summary(rows, results):
    """How many were run, how many agree, and which do not."""
    run = [row for row in rows if row.seeds]
    wrong = [row for row in rows if row.parameters != row.published.num_params]
    text = [
        f"At the published vocabulary of {VOCABULARY_SIZE:,} words "
        + (
            f"all {len(rows)} parameter counts equal the published ones."
            if not wrong
            else f"{len(wrong)} of {len(rows)} parameter counts differ from the published ones."
        )
    ]
    if not run:
        return " ".join([*text, "None of the published trainings was run at this setting."])
    if results.vocabulary_size != VOCABULARY_SIZE:
        text.append(
            f"Ours hold {results.vocabulary_size:,}: our file has the reviews in another order, so "
            "split, vocabulary and test reviews are others."
        )
    agreeing = [row for row in run if row.agrees]
    text.append(
        f"{len(run)} of the {len(rows)} trainings were run. In {len(agreeing)} of them our "
        "last epoch's test accuracy lies within the noise of the published one."
    )
    others = sorted((row for row in run if not row.agrees), key=lambda row: -abs(row.gap))
    if others:
        named = ", ".join(f"{row.setting.name} ({points(row.gap)} points)" for row in others)
        text.append(f"It does not in {len(others)}: {named}.")
    text.append(_systematic(run, results))
    spread = _spread(results)
    text.append(
        f"The noise counts both samples of test reviews and, twice, the spread over seeds, "
        f"{100 * spread:.2f} points where it could be measured."
        if spread
        else "The noise counts both samples of test reviews only: no setting was run with several "
        "seeds, so the spread over seeds is not known and the band is too narrow."
    )
    if results.part.train_reviews:
        text.append(
            f"This is the quick setting, {results.part.train_reviews:,} training reviews: a "
            "difference here says how much the lab's size matters, not whether it was right."
        )
    return " ".join(text)


def _systematic(run, results):
    """What the trainings that succeeded on both sides tell together."""
    both = [row for row in run if min(row.last, row.published.test_acc) >= WEAK]
    if len(both) < 3:
        return ""
    gap = mean_of([row.gap for row in both])
    text = (
        f"Over the {len(both)} trainings that succeeded on both sides ours are {points(gap.mean, 2)} "
        f"points from the published ones ({span(gap, 2)}); all share two samples of test reviews, "
        "so they may all be off the same way."
    )
    tests = [[t.metrics for t in results.trials(row.setting).values()] for row in both]
    choice = mean_of(
        [np.mean([t["best"]["accuracy"] - t["last"]["accuracy"] for t in one]) for one in tests]
    )
    return (
        f"{text} To test the best epoch instead of the last is worth {points(choice.mean, 2)} "
        f"points on average ({span(choice, 2)})."
    )


def _setting(config):
    """A configuration in one short line."""
    words = f"{config.cell.upper()} {OPTIMIZERS[config.optim]}"
    size = f"E{config.embedding_dim} H{config.hidden_dim} L{config.n_layers}"
    more = [f"dropout {config.dropout_rate:g}"] if config.dropout_rate else []
    return ", ".join([words, size, *more, *(["both ways"] if config.bidirectional else [])])
