"""The discussions: a template a part, filled from the table of results.

Each public function takes a part's `Results` and returns Markdown. The templates in
`labrnn/results/templates` contain the sentences; this module computes what they are filled with.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from labrnn.results import comparison, prose
from labrnn.results.comparison import of_kind
from labrnn.results.prose import capital, listing, named, names, percent, render, share, verb
from labrnn.results.statistics import WIDE
from labrnn.results.table import FALL, LN2
from labrnn.results.tables import front
from labrnn.results.verdicts import verdicts

RISE = 0.02  # of the validation loss after its best epoch, from which overfitting is reported


def _filled(template, results, compared=(), **more):
    """A template with what every discussion needs."""
    if not results.run():
        return "None of this part's settings was run, so there is nothing to discuss yet."
    return render(
        template,
        results=results,
        part=results.part,
        compared=compared,
        training=training(results),
        verdicts=prose.verdicts(verdicts(results)),
        notes=notes(results),
        **more,
    )


def sgd(results):
    """Lab 1 f and h: does the loss fall steadily under SGD?"""
    setting = results.settings[0]
    if not results.run():
        return _filled("sgd", results)
    losses, _ = results.curves(setting, "train_loss")
    falls = [sum(b < a for a, b in pairwise(curve)) for curve in losses]
    return _filled(
        "sgd",
        results,
        setting=setting,
        cell=setting.config.cell.upper(),
        runs=results.trained(setting),
        first=losses[:, 0].mean(),
        last=losses[:, -1].mean(),
        width=np.ptp(losses, axis=1).max(),
        steady=min(falls) == losses.shape[1] - 1,
        ln2=LN2,
        words=results.vocabulary_size,
    )


def optimizers(results):
    """Lab 2 a and b: which optimiser is best?"""
    compared, able = comparison.compare(results), results.by_validation()
    groups = of_kind(compared, "groups")
    return _filled(
        "optimizers",
        results,
        compared,
        cell=(results.settings[0].config.cell if results.settings else "").upper(),
        lead=able[0] if able else None,
        against_lead=of_kind(compared, ""),
        first_epoch=sorted(
            results.run(), key=lambda s: -results.rows(s)["first_validation"].mean()
        ),
        unfinished=[s for s in able if _improves(results, s)],
        overfitted=overfitted(results, able),
        tuned=comparison.leaders(results),
        groups=groups,
    )


def cells(results):
    """Lab 2 b: the GRU against the LSTM, in accuracy and in cost."""
    found = of_kind(comparison.compare(results), "cells")
    ratios = [results.seconds(c.first) / results.seconds(c.second) for c in found]
    gru, lstm = results.part.rivals()[0]
    sizes = [results.parameters(s) for s in (gru, lstm)] if results.run([gru, lstm])[1:] else []
    ways = [replace(c, first=replace(c.first, title=f"the GRU with {c.first.name}")) for c in found]
    if not found:
        return "The two cells were not both trained, so they cannot be compared here."
    return render(
        "cells",
        compared=ways,
        sizes=sizes,
        ratio=np.median([r for r in ratios if r > 0] or [np.nan]),
    )


def sweep(results):
    """Lab 2 c to e: does a larger model do better, in one dimension?"""
    compared, able = comparison.compare(results), results.able()
    run = sorted(results.run(), key=lambda s: getattr(s.config, results.part.field))
    reference = results.part.reference() or next(iter(results.by_validation()), None)
    return _filled(
        "sweep",
        results,
        compared,
        reference=reference if reference in able else None,
        ends=(run[0], run[-1]) if len(run) > 1 else (),
        overfitted=overfitted(results, able),
    )


depth = width = embedding = sweep


def compound(results):
    """Lab 2 f: does compound scaling beat a single dimension, and which setting is best?"""
    compared = comparison.compare(results)
    able, lead = results.by_validation(), next(iter(results.by_validation()), None)
    against = of_kind(compared, "")
    alone = [s for name, g in results.part.groups().items() if name != "the grid" for s in g]
    everything = results.able(list({s.config: s for s in [*results.settings, *alone]}.values()))
    best = comparison.leaders(results)
    grid = [c for c in of_kind(compared, "groups") if best.get("the grid") in (c.first, c.second)]
    return _filled(
        "compound",
        results,
        compared,
        lead=lead,
        able=able,
        same=[c.first for c in against if c.outcome in ("equivalent", "inconclusive")],
        untested=sum(c.outcome == "untested" for c in against),
        worse=[c for c in against if c.outcome == "lower"],
        better=[c for c in against if c.outcome == "higher"],
        detectable=sorted(c.difference.detectable for c in against if c.difference.known),
        best=best,
        groups=[c if c.second == best["the grid"] else _turned(c) for c in grid],
        front=front(results, everything),
    )


def _turned(c):
    """The same comparison with its sides exchanged."""
    d = replace(c.difference, mean=-c.difference.mean)
    return replace(c, first=c.second, second=c.first, difference=d)


def bidirectional(results):
    """Lab 2 g: are bidirectional models better, and where are they to be read?"""
    compared = comparison.compare(results)
    return _filled(
        "bidirectional",
        results,
        compared,
        ways=of_kind(compared, "direction"),
        readouts=of_kind(compared, "readout"),
    )


# What several parts say


def training(results, settings=None):
    """Sentences on the settings of which some runs, or all, did not train."""
    run, text = results.run(settings), []
    never = [s for s in run if not results.trained(s).count]
    flat = [s for s in never if LN2 - results.rows(s)["lowest_loss"].min() <= FALL]
    if flat:
        counts = [f"{s.name} (n = {results.trained(s).n})" for s in flat]
        text.append(
            f"{capital(listing(counts))}: no run trained; the training loss stayed at ln 2, that of a "
            "guess."
        )
    for s in never:
        if s not in flat:
            best = percent(results.rows(s)["best_accuracy"].max())
            text.append(
                f"{capital(s.name)} (n = {results.trained(s).n}): no run trained; the training loss "
                f"fell, but the test accuracy is at most {best}."
            )
    some = [s for s in run if 0 < results.trained(s).count < results.trained(s).n]
    if some:
        text.append(
            f"{capital('; '.join(f'{named(s)}: {share(results.trained(s))}' for s in some))}. Accuracies "
            "are those of the runs that trained."
        )
    wide = [s for s in run if (e := results.accuracy(s)).error > 0 and not e.known]
    apart = [
        s for s in run if s not in wide and results.runs.has_own_spread(s.config, results.tested)
    ]
    if apart:
        text.append(
            f"The runs of {names(apart)} differ much more than those of other settings, so their "
            f"interval{'s use their own variances' if len(apart) > 1 else ' uses their own variance'}."
        )
    able = results.able(settings)
    lone = [s for s in able if np.isnan(results.accuracy(s).error)]
    if lone:
        who = "" if len(lone) == len(able) else f" for {names(lone)}"
        text.append(
            f"No interval is printed{who}: single runs do not show how far seeds lie apart."
        )
    if wide:
        text.append(
            f"No interval is printed for {names(wide)}: the few runs differ so much that it would "
            f"extend more than {100 * WIDE:.0f} points to either side."
        )
    return " ".join(text)


def notes(results):
    """What was not run, and that a quick run is a reduced one."""
    text, missing, part = [], results.missing(), results.part
    if len(missing) > 6:
        text.append(f"{len(missing)} of {len(results.settings)} settings were not run.")
    elif missing:
        text.append(f"{capital(names(missing))} {verb(missing, 'was', 'were')} not run.")
    if part.train_reviews:
        text.append(
            f"This is a reduced setting: {part.train_reviews:,} training reviews of at most "
            f"{part.max_tokens} known words, where the original study used 35,000."
        )
    return " ".join(text)


def overfitted(results, settings):
    """(Setting, rise of its validation loss after the best epoch) where that is largest; or None."""

    def rise(setting):
        losses, able = results.curves(setting, "valid_loss")
        return float((losses[able][:, -1] - losses[able].min(axis=1)).mean())

    worst = max(settings, key=rise, default=None)
    return (worst, rise(worst)) if worst and rise(worst) >= RISE else None


def _improves(results, setting):
    losses, able = results.curves(setting, "valid_loss")
    return bool((losses[able].argmin(axis=1) == losses.shape[1] - 1).all())
