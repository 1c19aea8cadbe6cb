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
from labrnn.results.tables import ACCURACY, COMPARED, REFERENCE, accuracy_cell, compared_cells, printed

# Linear baselines beside networks


def baseline_comparisons(baselines, results, networks=None, combined=None):
    """Every baseline against the network with the highest validation accuracy; then the best baseline, by
    validation, against the other networks and the other baselines; then the combination `combined`,
    if there is one, against both leaders.

    A baseline has no seed. One family under Holm's correction.
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
    """A line a model: size, accuracies, seconds, difference from the leading network."""
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
    """Are the networks better than linear baselines?"""
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
    """Of `baseline_comparisons` that of the best baseline with the leading network; none without both."""
    found = of_kind(compared, "baseline")
    best = preferred([c.first for c in found]) if found else None
    return [c for c in found if c.first is best]


def _without_repeated(baseline, results, network):
    """Test reviews that are training reviews too, and the network's accuracy without them minus that
    with them.
    """
    correct = results.correct(network).mean(axis=0)
    return int(baseline.repeated.sum()), correct[~baseline.repeated].mean() - correct.mean()


# The published choices


def choice_comparisons(results):
    """Corrected minus published choice, one family under Holm's correction.

    The first pairs are the same runs, tested after their best epoch and after their last, so they
    are paired by run as well.
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
    """Which of the published choices cost accuracy?"""
    columns = [f"{tested}_accuracy" for tested in ("best", "last")]
    rows = [results.rows(setting) for setting in results.run()]
    moved = [(r[c] - r[f"{c}_batch_mean"]).abs().max() for r in rows for c in columns]
    return discuss(
        "choices",
        results,
        compared,
        changed={field for c in compared for field in _fields(c)},
        moved=max(moved, default=0.0),
        shares=_shares_that_train(results),
        level=statistics.LEVEL,
    )


def _shares_that_train(results):
    """Corrected p-values for pairs of settings that differ in the share of runs that train, sorted."""
    sides = [(results.trained(p.first), results.trained(p.second)) for p in results.part.pairs()]
    p = [statistics.fisher(*pair) for pair in sides if min(s.n for s in pair)]
    return sorted(statistics.holm(p))


def _fields(c):
    """What the two settings differ in."""
    mine, theirs = c.first.config.model_dump(), c.second.config.model_dump()
    return [name for name in mine if mine[name] != theirs[name]]


# The best classifier


def search():
    """A row a trial of the search for the best network, in their order: settings, epochs,
    accuracies and loss on the validation reviews, processor seconds.
    """
    return _recorded("search.csv")


def standard_split():
    """A row a model on the split of Maas et al. (2011): numbers of reviews, those classified
    correctly, processor seconds. `tools/standard_split.py` makes it.
    """
    return _recorded("standard_split.csv")


def _recorded(name):
    with (files("labrnn.results") / name).open(encoding="utf-8") as file:
        return pd.read_csv(file)


def on_standard_split():
    """The best classifier on the split of the published figures, in words."""
    return render("standard", rows=standard_split().to_dict("records"), share=statistics.Share)


def on_components(results, compared, baselines=()):
    """Which components carry the accuracy? `baselines` are those of `baseline_comparisons`."""
    against = [c.turned for c in _of_best(baselines)]
    return discuss("components", results, compared, against=against)
