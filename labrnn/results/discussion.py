"""The discussions: one template per part, filled from the table of results.

Each public function takes a part's `Results` and returns Markdown. The templates in
`labrnn/results/templates` contain the sentences; this module computes their values.
"""

from dataclasses import replace
from functools import wraps
from itertools import pairwise

import numpy as np
import pandas as pd
import scipy

from labrnn.results import comparison, prose, statistics
from labrnn.results.comparison import of_kind
from labrnn.results.prose import render
from labrnn.results.statistics import WIDE
from labrnn.results.table import FALL, LN2
from labrnn.results.tables import front
from labrnn.results.verdicts import verdicts

RISE = 0.02  # increase of the validation loss from which overfitting is reported


def discuss(template, results, compared=None, settings=None, **more):
    """Render a part's template with the values of every discussion and with `more`.

    Args:
        compared: `Comparison`s; those of the part's pairs if None.
        settings: settings to discuss; the part's if None.
    """
    return render(
        template,
        results=results,
        part=results.part,
        compared=comparison.compare(results) if compared is None else compared,
        able=results.by_validation(settings),
        training=training(results, settings),
        verdicts=prose.verdicts(verdicts(results)),
        notes=notes(results),
        **more,
    )


def _of_runs(discussion):
    """Decorate a part's discussion: return a fixed sentence if nothing was run."""

    @wraps(discussion)
    def function(results):
        if not results.run():
            return "None of this part's settings was run, so there is nothing to discuss yet."
        return discussion(results)

    return function


@_of_runs
def sgd(results):
    """Discuss Lab 1 f and h: does the loss fall steadily with SGD, and if not, why?"""
    setting, probes = results.settings[0], results.run(results.part.probes())
    losses, _ = results.curves(setting, "train_loss")
    falls = [sum(b < a for a, b in pairwise(curve)) for curve in losses]
    ending = int((losses.argmin(axis=1) == losses.shape[1] - 1).sum())
    one_sided = [statistics.fisher(*map(results.trained, (s, setting)), "greater") for s in probes]
    corrected = statistics.holm(one_sided)
    helped = {s: p for s, p in zip(probes, corrected, strict=True) if p < statistics.LEVEL}
    return discuss(
        "sgd",
        results,
        setting=setting,
        cell=setting.config.cell.upper(),
        runs=results.trained(setting),
        probes=probes,
        helped=helped,
        ending=ending,
        by_chance=float(scipy.stats.binom.sf(ending - 1, len(losses), 1 / losses.shape[1])),
        level=statistics.LEVEL,
        first=losses[:, 0].mean(),
        last=losses[:, -1].mean(),
        width=np.ceil(1000 * np.ptp(losses, axis=1).max()) / 1000,
        steady=min(falls) == losses.shape[1] - 1,
        ln2=LN2,
        words=results.vocabulary_size,
    )


@_of_runs
def optimizers(results):
    """Discuss Lab 2 a and b: which optimiser is best?"""
    able, rates = results.by_validation(), results.part.rates
    return discuss(
        "optimizers",
        results,
        cell=results.settings[0].config.cell.upper(),
        first_epoch=sorted(
            results.run(), key=lambda s: -results.rows(s)["first_validation"].mean()
        ),
        unfinished=[s for s in able if _improves(results, s)],
        overfitted=overfitted(results, able),
        tuned=(tuned := comparison.leaders(results)),
        edge=[s for s in tuned.values() if s.config.lr in (min(rates), max(rates))],
    )


def cells(results):
    """Discuss Lab 2 b: GRU and LSTM compared in accuracy and cost."""
    found = of_kind(comparison.compare(results), "cells")
    ratios = [results.seconds(c.first) / results.seconds(c.second) for c in found]
    rivals = results.run(results.part.rivals()[0])
    return render(
        "cells",
        compared=[
            replace(c, first=replace(c.first, title=f"the GRU with {c.first.name}")) for c in found
        ],
        sizes=[results.parameters(s) for s in rivals] if len(rivals) == 2 else [],
        ratio=np.median([r for r in ratios if r > 0] or [np.nan]),
    )


@_of_runs
def sweep(results):
    """Discuss Lab 2 c to e: is a model that is larger in one dimension more accurate?"""
    able = results.able()
    reference = results.part.reference() or next(iter(results.by_validation()), None)
    rows = pd.concat([results.rows(s) for s in results.run()])
    return discuss(
        "sweep",
        results,
        trend=statistics.trend(rows[results.part.field], rows["trained"]),
        level=statistics.LEVEL,
        reference=reference if reference in able else None,
    )


depth = width = embedding = sweep


@_of_runs
def compound(results):
    """Discuss Lab 2 f: does compound scaling beat a single dimension, and which setting is best?"""
    compared, best = comparison.compare(results), comparison.leaders(results)
    grid = best.get("the grid")
    others = {s.config: s for s in [*results.settings, *results.part.others()]}
    return discuss(
        "compound",
        results,
        compared,
        best=best,
        groups=[
            c if c.second == grid else c.turned
            for c in of_kind(compared, "groups")
            if grid in (c.first, c.second)
        ],
        front=front(results, results.able(list(others.values()))),
    )


@_of_runs
def bidirectional(results):
    """Discuss Lab 2 g: are bidirectional models better, and which readout is?"""
    return discuss("bidirectional", results)


# Shared by several parts


def training(results, settings=None):
    """Discuss the settings of which some or all runs did not train."""
    run, able = results.run(settings), results.able(settings)
    never = [s for s in run if s not in able]
    flat = [s for s in never if LN2 - results.rows(s)["lowest_loss"].min() <= FALL]
    wide = [s for s in run if results.accuracy(s).ranges]
    own = [s for s in run if results.runs.has_own_spread(s.config, results.tested)]
    return render(
        "training",
        results=results,
        able=able,
        flat=flat,
        fell=[s for s in never if s not in flat],
        some=[s for s in able if results.trained(s).count < results.trained(s).n],
        apart=[s for s in own if s not in wide],
        lone=[s for s in able if np.isnan(results.accuracy(s).error)],
        wide=wide,
        most=100 * WIDE,
    )


def notes(results):
    """Note the settings that were not run, and a reduced setting."""
    return render("notes", part=results.part, results=results, missing=results.missing())


def overfitted(results, settings):
    """Return (setting, rise of its validation loss) for the largest rise; None if below `RISE`."""

    def rise(setting):
        losses, able = results.curves(setting, "valid_loss")
        return float((losses[able][:, -1] - losses[able].min(axis=1)).mean())

    worst = max(settings, key=rise, default=None)
    return (worst, rise(worst)) if worst and rise(worst) >= RISE else None


def _improves(results, setting):
    losses, able = results.curves(setting, "valid_loss")
    return bool((losses[able].argmin(axis=1) == losses.shape[1] - 1).all())
