"""The parts beyond the lab: linear baselines, the published choices, the best classifier."""

from importlib.resources import files

import numpy as np
import pandas as pd

from labrnn.parts import Pair, Setting
from labrnn.results import comparison, statistics
from labrnn.results.baselines import preferred
from labrnn.results.comparison import of_kind
from labrnn.results.discussion import discuss
from labrnn.results.prose import render
from labrnn.results.tables import (
    ACCURACY,
    COMPARED,
    REFERENCE,
    accuracy_cell,
    compared_cells,
    printed,
)

# Linear baselines beside networks


def baseline_comparisons(baselines, results, networks=None, combined=None):
    """Return the `Comparison`s of baselines and networks, corrected together by Holm's method.

    Each baseline is compared with the leading network, the best baseline with the other networks
    and baselines, and `combined`, if given, with both leaders. The leaders are those on validation.
    """
    lead, *others = results.by_validation(networks) or [None]
    pairs = [Pair(model, lead, "baseline") for model in baselines if lead]
    if baselines:
        best = preferred(baselines)
        pairs += [Pair(best, network, "network") for network in others]
        pairs += [Pair(best, model, "baselines") for model in baselines if model is not best]
        pairs += [Pair(combined, one, "combined") for one in (best, lead) if combined]
    return comparison.tested(results, pairs)


def baseline_table(baselines, results, compared, networks=None, combined=None):
    """Return one row per model: size, accuracies, seconds, difference from the leading network."""
    main = of_kind(compared, "baseline")
    found = {c.second.name: REFERENCE for c in main}
    found |= {c.first.name: compared_cells(c) for c in main}
    lines = []
    for model in [*baselines, *results.able(networks), *filter(None, [combined])]:
        if isinstance(model, Setting):
            size, valid = results.parameters(model), results.validation(model)
            seconds = results.rows(model)["seconds"].median()
        else:
            size, valid, seconds = model.parameters, model.validation, model.seconds
        estimate = results.accuracy(model)
        line = {
            "model": model.name,
            "parameters": f"{size:,}",
            "validation, %": f"{100 * valid:.1f}",
            ACCURACY: accuracy_cell(estimate),
            "n": str(estimate.n),
            "s": "–" if np.isnan(seconds) else f"{seconds:.0f}",
        }
        lines.append(line | found.get(model.name, {}))
    return printed(lines, "s: seconds of processor time for training." + COMPARED)


def on_baselines(baselines, results, compared, networks=None):
    """Discuss whether the networks are more accurate than the linear baselines."""
    if not baselines:
        return (
            "The linear baselines were not run: neither stored results nor the reviews are there."
        )
    best = preferred(baselines)
    main = _of_best(compared)
    return discuss(
        "baselines",
        results,
        compared,
        networks,
        best=best,
        main=main,
        repeated=_without_repeated(best, results, main[0].second) if main else (0, 0.0),
        config=main[0].second.config if main else results.part.base,
    )


def _of_best(compared):
    """Return a list with the comparison of the best baseline and the leading network, or []."""
    found = of_kind(compared, "baseline")
    best = preferred([c.first for c in found]) if found else None
    return [c for c in found if c.first is best]


def _without_repeated(baseline, results, network):
    """Return how many test reviews repeat a training one, and the accuracy gained without them."""
    correct = results.correct(network).mean(axis=0)
    return int(baseline.repeated.sum()), correct[~baseline.repeated].mean() - correct.mean()


# The published choices


def choice_comparisons(results):
    """Return the `Comparison`s of corrected and published choices, corrected together by Holm.

    The first compare best and last epoch of the same runs, so they are also paired by run.
    """
    published = dict.fromkeys(pair.second for pair in results.part.pairs())
    changes, last, found = {}, results.at("last"), []
    for setting in results.able(list(published)):
        now, then = results.correct(setting), last.correct(setting)
        changes[setting] = now.astype(np.int8) - then.astype(np.int8)
    spread = statistics.spread(changes.values())
    for s, change in changes.items():
        sides = (Setting(f"{word} epoch, {s.name}", s.config) for word in ("best", "last"))
        estimate = statistics.accuracy(change, spread, (-1.0, 1.0))
        found.append((Pair(*sides, "checkpoint"), estimate))
    found += [(p, results.difference(p.first, p.second)) for p in results.part.pairs()]
    return comparison.corrected(found)


def on_choices(results, compared):
    """Discuss which of the published choices reduce the accuracy."""
    columns = [f"{tested}_accuracy" for tested in ("best", "last")]
    rows = [results.rows(setting) for setting in results.run()]
    moved = [(r[c] - r[f"{c}_batch_mean"]).abs().max() for r in rows for c in columns]
    sides = [(results.trained(p.first), results.trained(p.second)) for p in results.part.pairs()]
    of_shares = [statistics.fisher(*pair) for pair in sides if min(s.n for s in pair)]
    return discuss(
        "choices",
        results,
        compared,
        moved=max(moved, default=0.0),
        shares=sorted(statistics.holm(of_shares)),
        level=statistics.LEVEL,
    )


# The best classifier


def search():
    """Return one row per trial of the search for the best network, in order."""
    return _recorded("search.csv")


def standard_split():
    """Return one row per model on the split of Maas et al., see `tools/standard_split.py`."""
    return _recorded("standard_split.csv")


def _recorded(name):
    with (files("labrnn.results") / name).open(encoding="utf-8") as file:
        return pd.read_csv(file)


def on_standard_split():
    """Discuss the best classifier on the split of Maas et al. (2011)."""
    return render("standard", rows=standard_split().to_dict("records"), share=statistics.Share)


def on_components(results, compared, baselines=()):
    """Discuss the ablation; `baselines` are the results of `baseline_comparisons`."""
    against = [c.turned for c in _of_best(baselines)]
    return discuss("components", results, compared, against=against)
