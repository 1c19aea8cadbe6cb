"""Intervals and tests for accuracies of trainings: over seeds and over test reviews at once.

A measured accuracy varies for two reasons: another seed gives another model, and another sample of
reviews gives another score. Both parts enter every interval here. With one seed only the second
is known, and whoever prints such an interval has to say so (`Estimate.seeds`).
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval.

    Attributes:
        mean, low, high: as fractions, not per cent.
        seeds: trainings behind it.
        reviews: test reviews behind it.
        spread: standard deviation over seeds, NaN for one seed.
        p: two-sided p-value of "no difference"; NaN where the estimate is no difference.
    """

    mean: float
    low: float
    high: float
    seeds: int
    reviews: int
    spread: float
    p: float = float("nan")


def accuracy(correct):
    """Accuracy of one setting.

    Args:
        correct: whether each seed's model is right on each test review, bool [seeds, reviews].
    """
    return _estimate(np.asarray(correct, dtype=float), bounds=(0.0, 1.0))


def difference(correct, other):
    """Accuracy of one setting minus another's, on the same reviews.

    Paired by review, and by seed where both were trained with the same seeds in the same order.
    One seed each: McNemar's exact test; more: a t-test on the mean difference whose variance has a
    part from the seeds and a part from the reviews (Satterthwaite's degrees of freedom).

    Args:
        correct, other: bool [seeds, reviews]; they may differ in the number of seeds.
    """
    a, b = np.asarray(correct, dtype=float), np.asarray(other, dtype=float)
    if len(a) == len(b):
        estimate = _estimate(a - b, bounds=(-1.0, 1.0))
    else:
        estimate = _unpaired(a, b)
    if min(len(a), len(b)) == 1:
        p = mcnemar(a[0], b[0])
        return Estimate(**{**estimate.__dict__, "p": p})
    return estimate


def mcnemar(correct, other):
    """McNemar's exact p-value for two models on the same reviews."""
    only_first = int(((correct > 0) & (other == 0)).sum())
    only_second = int(((correct == 0) & (other > 0)).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)


def holm(p_values):
    """p-values corrected for their number by Holm's step-down method, in the same order."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    corrected = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    result = np.empty_like(p)
    result[order] = np.minimum(corrected, 1.0)
    return result


def _estimate(values, bounds):
    """Mean of [seeds, reviews] values with an interval for new seeds and new reviews."""
    seeds, reviews = values.shape
    per_seed = values.mean(axis=1)
    from_seeds = per_seed.var(ddof=1) / seeds if seeds > 1 else 0.0
    from_reviews = values.mean(axis=0).var(ddof=1) / reviews
    spread = per_seed.std(ddof=1) if seeds > 1 else float("nan")
    return _interval(per_seed.mean(), [(from_seeds, seeds - 1)], from_reviews, seeds, reviews,
                     spread, bounds)


def _unpaired(a, b):
    """As `_estimate`, where the seeds of the two sides do not correspond."""
    parts = [(x.mean(axis=1).var(ddof=1) / len(x), len(x) - 1) for x in (a, b) if len(x) > 1]
    gap = a.mean(axis=0) - b.mean(axis=0)
    return _interval(gap.mean(), parts, gap.var(ddof=1) / len(gap), min(len(a), len(b)), len(gap),
                     float("nan"), (-1.0, 1.0))


def _interval(mean, from_seeds, from_reviews, seeds, reviews, spread, bounds):
    variance = from_reviews + sum(part for part, _ in from_seeds)
    if variance == 0:
        p = 1.0 if mean == 0 else 0.0
        return Estimate(float(mean), float(mean), float(mean), seeds, reviews, spread, p)
    weight = sum(part**2 / freedom for part, freedom in from_seeds if part > 0)
    freedom = variance**2 / weight if weight else 1e9
    error = np.sqrt(variance)
    reach = stats.t.ppf((1 + LEVEL) / 2, freedom) * error
    low, high = np.clip([mean - reach, mean + reach], *bounds)
    p = float(2 * stats.t.sf(abs(mean) / error, freedom))
    return Estimate(float(mean), float(low), float(high), seeds, reviews, float(spread), p)
