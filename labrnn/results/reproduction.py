"""Our trainings beside the published ones, trial by trial: what agrees within the noise."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from labrnn.network.models import count_parameters
from labrnn.parts import OPTIMIZERS
from labrnn.results.published import TEST_REVIEWS, VOCABULARY_SIZE, published

NORMAL_95 = 1.959964


@dataclass(frozen=True)
class Row:
    """One published training and ours of the same setting.

    Attributes:
        published: the row of the published table.
        setting: ours, trained the published way.
        parameters: at the published vocabulary.
        seeds: how many of ours were run; 0 where none was.
        last: our mean test accuracy after the last epoch, the published choice.
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
    spread = seed_spread(results)
    for known, setting in zip(published().itertuples(), results.settings, strict=True):
        parameters = count_parameters(setting.config, VOCABULARY_SIZE)
        trials = list(results.trials(setting).values())
        if not trials:
            rows.append(Row(known, setting, parameters, 0))
            continue
        right = results.trials_of(setting.config.but(readout="final_state"))
        last = float(np.mean([trial.metrics["last"]["accuracy"] for trial in trials]))
        best = [trial.metrics["best"]["accuracy"] for trial in right.values()]
        reviews = len(trials[0].predictions)
        variance = last * (1 - last) * (1 / reviews + 1 / TEST_REVIEWS)
        variance += spread**2 * (1 + 1 / len(trials))
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


def seed_spread(results):
    """Standard deviation of the last epoch's test accuracy over seeds, pooled; 0 if not known.

    Settings of which no seed trained are left out: they do not vary at all.
    """
    squares, freedom = 0.0, 0
    for setting in results.settings:
        values = [t.metrics["last"]["accuracy"] for t in results.trials(setting).values()]
        if len(values) > 1 and max(values) > 0.6:
            squares += np.var(values) * len(values)
            freedom += len(values) - 1
    return math.sqrt(squares / freedom) if freedom else 0.0


def table(rows):
    """The comparison, a line a training; trainings that were not run say so."""
    lines = []
    for row in rows:
        known = row.published
        lines.append(
            {
                "figure": known.figure or "–",
                "setting": _setting(row.setting.config),
                "parameters": f"{row.parameters:,}",
                "published": f"{known.test_acc:.3f}",
                "last epoch": f"{row.last:.3f}" if row.seeds else "not run",
                "n": row.seeds or "",
                "gap": f"{row.gap:+.3f}" if row.seeds else "",
                "± noise": f"{row.noise:.3f}" if row.seeds else "",
                "within": {True: "yes", False: "no"}[row.agrees] if row.seeds else "",
                "best epoch": "" if math.isnan(row.best) else f"{row.best:.3f}",
            }
        )
    return pd.DataFrame(lines)


def summary(rows, results):
    """How many were run, how many agree, and which do not."""
    run = [row for row in rows if row.seeds]
    wrong = [row for row in rows if row.parameters != row.published.num_params]
    text = [
        f"All {len(rows)} parameter counts equal the published ones."
        if not wrong
        else f"{len(wrong)} of {len(rows)} parameter counts differ from the published ones."
    ]
    if not run:
        return " ".join([*text, "None of the published trainings was run at this setting."])
    agreeing = [row for row in run if row.agrees]
    text.append(
        f"{len(run)} of the {len(rows)} trainings were run. In {len(agreeing)} of them our "
        "last epoch's test accuracy lies within the noise of the published one."
    )
    others = sorted((row for row in run if not row.agrees), key=lambda row: -abs(row.gap))
    if others:
        named = ", ".join(f"{row.setting.name} ({100 * row.gap:+.1f} points)" for row in others)
        text.append(f"It does not in {len(others)}: {named}.")
    spread = seed_spread(results)
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


def _setting(config):
    """A configuration in one short line."""
    words = f"{config.cell.upper()} {OPTIMIZERS[config.optim]}"
    size = f"E{config.embedding_dim} H{config.hidden_dim} L{config.n_layers}"
    more = [f"dropout {config.dropout_rate:g}"] if config.dropout_rate else []
    return ", ".join([words, size, *more, *(["both ways"] if config.bidirectional else [])])
