"""What the published defects cost: the right way and the published way in pairs."""

import pandas as pd

from labrnn.parts import Setting
from labrnn.results import prose, statistics
from labrnn.results.comparison import accuracy_cell, compared_cells, corrected, trained


def pairs(results):
    """Every pair that was run.

    The first pairs are the same trainings, tested after their best epoch and after their last;
    those that stayed at chance are left out there.

    Yields:
        the right way's `Setting`, the published way's, and for the seeds that both have whether
        each is right on each test review, bool [seeds, reviews].
    """
    last, best = results.at("last"), results.at("best")
    for old in dict.fromkeys(old for _, old in results.part.pairs()):
        if any(trained(results, old).values()):
            names = (f"{which} epoch ({old.name})" for which in ("Best", "Last"))
            settings = (Setting(name, old.config) for name in names)
            yield *settings, best.correct(old), last.correct(old)
    for right, old in results.part.pairs():
        if seeds := [seed for seed in results.trials(right) if seed in results.trials(old)]:
            yield right, old, results.correct(right, seeds), results.correct(old, seeds)


def comparisons(results):
    """The right way minus the published way, one family under Holm's correction.

    Without duplicates the split is drawn from fewer rows and the test reviews are others: that
    pair is compared as two samples, all others review by review.
    """
    return corrected(
        [(right, old, _difference(right, old)(*sides)) for right, old, *sides in pairs(results)]
    )


def _difference(right, old):
    same_split = right.config.duplicates == old.config.duplicates
    return statistics.difference if same_split else statistics.unpaired


def table(results, compared):
    """A line a pair."""
    return pd.DataFrame(
        [
            {
                "right way": right.name,
                "accuracy": accuracy_cell(statistics.accuracy(mine)),
                "published way": old.name,
                "accuracy ": accuracy_cell(statistics.accuracy(theirs)),
                "n": str(len(mine)),
                **compared_cells(c),
            }
            for (right, old, mine, theirs), c in zip(pairs(results), compared, strict=True)
        ]
    )


FORMS = {
    "better": "The right way is better: {}.",
    "worse": "The published way is better than what is called right: {}.",
    "undecided": "With one seed each the models differ, which leaves the settings open: {}.",
    "not clear": prose.NOT_CLEAR,
    "within noise": "Within noise of the published way: {}.",
}


def _listed(group):
    """Differences one by one; of more than three that decide nothing the names and the range."""
    if len(group) > 3 and group[0].verdict == "within noise":
        low, high = (prose.points(f(c.difference.mean for c in group)) for f in (min, max))
        return f"{prose.listing(c.first.name for c in group)}, between {low} and {high} points"
    return "; ".join(f"{c.first.name}, {prose.gap(c)}" for c in group)


def _batch_means(results):
    tests = [m for trial in results.outcome.trials.values() for m in trial.metrics.values()]
    moved = max((abs(m["accuracy"] - m["accuracy_batch_mean"]) for m in tests), default=0.0)
    return (
        "To average over batches instead of reviews moves a test accuracy of these trainings by "
        f"up to {100 * moved:.2f} points."
    )


def discussion(results, compared):
    """Which of the published defects cost anything."""
    groups = {verdict: [c for c in compared if c.verdict == verdict] for verdict in FORMS}
    told = [FORMS[verdict].format(_listed(group)) for verdict, group in groups.items() if group]
    changed = {
        field
        for c in compared
        for field in ("stop_words", "duplicates")
        if getattr(c.first.config, field) != getattr(c.second.config, field)
    }
    cautions = {
        "stop_words": "With stop words kept the same number of tokens, "
        f"{results.part.max_tokens}, covers less of a review.",
        "duplicates": "Without duplicates the test reviews are other ones, so two samples are "
        "compared and the interval is wide.",
    }
    return prose.paragraphs(
        *told,
        prose.room(compared),
        prose.idle(results, results.settings),
        " ".join(text for field, text in cautions.items() if field in changed),
        _batch_means(results),
        prose.footing(results, compared),
    )
