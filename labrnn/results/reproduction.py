"""Compare our runs with the published ones, and quantify what their agreement shows."""

from dataclasses import dataclass, replace

import numpy as np

from labrnn.network.registry import OPTIMIZERS, count_parameters
from labrnn.published import TEST_REVIEWS, VOCABULARY_SIZE, published
from labrnn.results import statistics
from labrnn.results.prose import percent, points, render
from labrnn.results.statistics import CONFIDENCE, NOT_RUN, Estimate, Share
from labrnn.results.table import ABOVE
from labrnn.results.tables import accuracy_cell, printed


@dataclass(frozen=True)
class Row:
    """One published run and our runs of the same setting.

    Attributes:
        published: row of the published table.
        setting: our setting, with the published readout.
        parameters: number of parameters with the published vocabulary.
        runs: how many of our runs trained, a `Share`.
        gap: our mean test accuracy after the last epoch (mean over batches) minus the published
            one; its error is that of predicting a single run on other test reviews.
        best: our test accuracy after the best epoch with the corrected readout.
    """

    published: object
    setting: object
    parameters: int
    runs: Share
    gap: Estimate
    best: Estimate

    @property
    def compared(self):
        """Whether a run trained in both studies, and the prediction interval is known."""
        return self.gap.known and self.both

    @property
    def both(self):
        """Whether a run trained in both studies."""
        return self.runs.count > 0 and self.published.test_acc >= ABOVE

    @property
    def agrees(self):
        return self.gap.low <= 0 <= self.gap.high

    @property
    def section(self):
        """The part of the lab; Lab 1 counts as one part."""
        return "1" if self.published.part.startswith("1") else self.published.part


def compare(results):
    """Return a `Row` for each published run, in their order."""
    last, rows = results.at("last"), []
    for known, setting in zip(published().itertuples(), results.settings, strict=True):
        gap, best = NOT_RUN, results.accuracy(results.part.corrected(setting))
        if results.able([setting]):
            predicted = statistics.prediction(
                last.accuracy(setting), last.spread(setting), TEST_REVIEWS
            )
            mean = results.mean(setting, "last_accuracy_batch_mean") - known.test_acc
            gap = replace(predicted, mean=float(mean), bounds=(-1.0, 1.0))
        parameters = count_parameters(setting.config, VOCABULARY_SIZE)
        rows.append(Row(known, setting, parameters, results.trained(setting), gap, best))
    return rows


def table(rows):
    """Return one table row per published run that was repeated, or of all if none was."""
    lines = []
    shown = [row for row in rows if row.runs.n] or rows
    # Figure 3b before 10a; the grid has no figures and is last.
    for row in sorted(shown, key=lambda row: row.published.figure.rjust(3).replace("   ", "~")):
        line = {
            "lab figure": row.published.figure,
            "setting": setting_name(row.setting.config),
            "parameters": f"{row.parameters:,}",
            "published, %": f"{100 * row.published.test_acc:.1f}",
            "trained": f"{row.runs.count} of {row.runs.n}" if row.runs.n else "not run",
        }
        if row.gap.n:
            ours = row.gap.mean + row.published.test_acc
            # With the corrected readout these are other runs.
            n = f" (n = {row.best.n})" * (row.best.n not in (0, row.runs.count))
            line |= {
                "last epoch, %": f"{100 * ours:.1f}",
                "best epoch, %": accuracy_cell(row.best) + n,
            }
        if row.compared:
            line |= {
                "Δ points": points(row.gap.mean),
                "± prediction": f"{100 * row.gap.half_width:.1f}",
                "contains 0": "yes" if row.agrees else "no",
            }
        lines.append(line)
    return printed(
        lines,
        "Lab figure: its number in the lab sheet. Trained: our runs that trained, of all. Δ: ours "
        "minus published; ± prediction: half of the 95 % prediction interval of Δ. Parameters: with "
        "the published vocabulary. –: not compared, since no run of one study trained (published: at "
        f"least {percent(ABOVE, 0)}) or since the prediction interval is too wide.",
    )


def summary(rows, results):
    """Describe how many runs agree, and what this shows."""
    run = [row for row in rows if row.runs.n]
    both = [row for row in run if row.both]
    shown = distinct(rows)
    return render(
        "reproduction",
        power=statistics.POWER,
        rows=rows,
        run=run,
        shown=shown,
        single=[row for row in shown if row.runs.count == 1],
        both=both,
        absent=[row for row in rows if not row.runs.n],
        wide=[row for row in both if not row.compared],
        distinct=len({row.setting.config for row in rows}),
        others=sorted((r for r in shown if not r.agrees), key=lambda r: -abs(r.gap.mean)),
        wrong=sum(row.parameters != row.published.num_params for row in rows),
        words=VOCABULARY_SIZE,
        ours=results.vocabulary_size,
        agreement=agreement_means(shown, results.at("last")) if len(shown) > 2 else None,
        reduced=results.part.train_reviews,
        level=100 * CONFIDENCE,
    )


def distinct(rows):
    """Return the compared rows; a published run that two figures of the lab show counts once."""
    return [*{row.setting.config: row for row in rows if row.compared}.values()]


def agreement_means(shown, last):
    """Quantify the agreement of rows.

    Args:
        shown: `Row`s, three or more.
        last: `Results` after the last epoch.

    Returns:
        dict of `constant`, the one accuracy that agrees with most published values if guessed for
        all, and `guessed`, with how many; `correlation`, Pearson's; `correlations`, its range if
        one row is left out; `gap`, the mean gap; `joint_p` of the test that all gaps are prediction
        errors; `detectable`, the rows' smallest detectable gaps.
    """
    known = np.array([row.published.test_acc for row in shown])
    gaps = np.array([row.gap.mean for row in shown])
    half_widths = np.array([row.gap.half_width for row in shown])
    guesses = np.arange(0.80, 0.92, 0.0005)
    agreeing = [(np.abs(guess - known) <= half_widths).sum() for guess in guesses]
    sides = [(last.correct(row.setting), last.spread(row.setting)) for row in shown]
    gap, joint_p = statistics.joint_gaps(gaps, sides, TEST_REVIEWS)
    others = ~np.eye(len(shown), dtype=bool)
    without = [_correlation((known + gaps)[rest], known[rest]) for rest in others]
    return {
        "constant": float(guesses[int(np.argmax(agreeing))]),
        "guessed": int(max(agreeing)),
        "correlation": _correlation(known + gaps, known),
        "correlations": (min(without), max(without)),
        "gap": gap,
        "joint_p": joint_p,
        "detectable": sorted(row.gap.detectable for row in shown),
    }


def _correlation(ours, known):
    """Return Pearson's r; NaN if one side is constant."""
    varies = np.ptp(known) > 0 and np.ptp(ours) > 0
    return float(np.corrcoef(ours, known)[0, 1]) if varies else np.nan


def setting_name(config):
    """Return a short name of a configuration: E dimensions, H units, L layers, D dropout."""
    words = f"{config.cell.upper()} {OPTIMIZERS[config.optim].name}"
    size = f"E{config.embedding_dim} H{config.hidden_dim} L{config.n_layers}"
    dropout = f" D{config.dropout_rate:g}" if config.dropout_rate else ""
    return f"{words}, {size}{dropout}" + ", bidirectional" * config.bidirectional
