"""Estimates, intervals and tests of accuracies that vary over seeds and over test reviews.

A measured accuracy varies with the seed and with the sample of test reviews. Every interval
includes both shares of the variance. The variance over seeds is pooled over the settings of a
family, for more degrees of freedom; those of the total follow Satterthwaite (1946).
docs/verdicts.md describes the methods.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import scipy

CONFIDENCE = 0.95
LEVEL = 0.05
MARGIN = 0.01  # margin of the equivalence tests
POWER = 0.8  # power that defines the smallest detectable difference
WIDE = 0.1  # an interval that extends further to one side is not reported
DOUBTLESS = 1e-6  # McNemar's p-values below this on all runs decide alone
UNSTABLE = 0.001  # level of the F test for settings with a larger variance


@dataclass(frozen=True)
class Spread:
    """The variance over seeds of a setting's accuracy on fixed test reviews.

    Attributes:
        variance: variance of a run's accuracy.
        freedom: degrees of freedom of that variance.
        within: variance over seeds of the correctness of one review, mean over reviews.
    """

    variance: float
    freedom: float
    within: float


EXACT = Spread(0.0, math.inf, 0.0)  # for a model without a seed


@dataclass(frozen=True)
class Estimate:
    """An accuracy or a difference of accuracies, with its interval and tests.

    Attributes:
        mean: a fraction, not per cent; NaN without runs.
        error: standard error of the mean; NaN if the variance over seeds is unknown.
        freedom: degrees of freedom of the error.
        n: number of runs; for a difference the smaller number.
        reviews: number of test reviews.
        bounds: smallest and largest possible value.
        mcnemar: for the difference of a model without a seed and three runs or more, the largest
            of the exact McNemar p-values; NaN unless all agree and are below `DOUBTLESS`.
        lone: whether the lower side of a difference is a single run of a setting. Such a run may
            have failed by chance, so p-values that would decide against the setting are NaN.
        runs: accuracy of each run, if the estimate is of a setting.
    """

    mean: float
    error: float
    freedom: float
    n: int
    reviews: int
    bounds: tuple = (-1.0, 1.0)
    mcnemar: float = math.nan
    lone: bool = False
    runs: tuple = ()

    @property
    def half_width(self):
        """Half of the interval's width, before it is clipped to the bounds; NaN if above `WIDE`."""
        half = self._quantile((1 + CONFIDENCE) / 2) * self.error
        return half if half <= WIDE else math.nan

    @property
    def low(self):
        return max(self.mean - self.half_width, self.bounds[0]) if self.known else math.nan

    @property
    def high(self):
        return min(self.mean + self.half_width, self.bounds[1]) if self.known else math.nan

    @property
    def known(self):
        """Whether an interval is reported."""
        return not math.isnan(self.half_width)

    @property
    def ranges(self):
        """Whether the range of the runs is reported, since they differ too much for an interval."""
        return not self.known and len(self.runs) > 1

    def p_above(self, value):
        """One-sided p-value of the hypothesis that the true mean is at most `value`."""
        return self._p(self.mean - value, self.lone and self.mean > 0)

    def p_below(self, value):
        """One-sided p-value of the hypothesis that the true mean is at least `value`."""
        return self._p(value - self.mean, self.lone and self.mean < 0)

    def _p(self, gap, lone):
        if lone:
            return math.nan
        if self.error == 0:
            return float(gap <= 0)
        return float(scipy.special.stdtr(self.freedom, -gap / self.error))

    @property
    def p(self):
        """Two-sided p-value of the hypothesis that the true mean is 0."""
        one_sided = self.p_above(0.0) if self.mean > 0 else self.p_below(0.0)
        return float(np.fmin(np.minimum(2 * one_sided, 1.0), self.mcnemar))

    @property
    def p_equivalent(self):
        """p-value of two one-sided tests; hypothesis: the mean is `MARGIN` or further from 0."""
        return float(np.maximum(self.p_above(-MARGIN), self.p_below(MARGIN)))

    @property
    def detectable(self):
        """The smallest true difference from 0 that the two-sided test detects with `POWER`."""
        return (self._quantile((1 + CONFIDENCE) / 2) + self._quantile(POWER)) * self.error

    def _quantile(self, share):
        return float(scipy.special.stdtrit(self.freedom, share))


NOT_RUN = Estimate(math.nan, math.nan, math.nan, 0, 0)


def spread(groups):
    """Return the `Spread` pooled over settings; None if no setting has two runs.

    Args:
        groups: for each setting the correctness of each test review in each run, [runs, reviews];
            or its change between two checkpoints: 1, 0 or -1.
    """
    squares, interaction, freedom = 0.0, 0.0, 0
    for correct in groups:
        runs, reviews = correct.shape
        if runs < 2:
            continue
        squared = np.count_nonzero(correct) - runs * np.square(correct.mean(axis=0)).sum()
        between = np.square(correct.mean(axis=1) - correct.mean()).sum()
        rest = squared - reviews * between
        squares += between
        interaction += rest / (reviews - 1)
        freedom += runs - 1
    return Spread(squares / freedom, freedom, interaction / freedom) if freedom else None


def pool(groups):
    """Return the pooled `Spread` of a family, and a separate one for each unstable setting.

    The setting with the most significantly larger variance (F test) is removed, one at a time, down
    to half of the degrees of freedom. All settings up to the last p-value below `UNSTABLE` are
    unstable (generalised outlier test of Rosner 1983). Testing continues after a larger p-value,
    since two unstable settings mask each other: the pool of each contains the other.

    Args:
        groups: setting -> bool [runs, reviews].

    Returns:
        the pooled `Spread` or None, and setting -> `Spread` of each unstable setting.
    """
    own = {name: spread([runs]) for name, runs in groups.items() if len(runs) > 1}
    left, removed, unstable = dict(own), [], []
    half = sum(s.freedom for s in own.values()) / 2
    while len(left) > 1:
        name, p = _least_stable(left)
        del left[name]
        removed.append(name)
        if sum(s.freedom for s in left.values()) < half:
            break
        if p < UNSTABLE:
            unstable = removed.copy()
    stable = [groups[name] for name in own if name not in unstable]
    return spread(stable), {name: own[name] for name in unstable}


def _least_stable(spreads):
    """Return the setting with the most significantly larger variance, and its p-value."""
    freedom = sum(s.freedom for s in spreads.values())
    squares = sum(s.variance * s.freedom for s in spreads.values())
    p_values = {}
    for name, own in spreads.items():
        rest = (squares - own.variance * own.freedom) / (freedom - own.freedom)
        ratio = own.variance / rest if rest > 0 else 0.0
        p_values[name] = scipy.special.fdtrc(own.freedom, freedom - own.freedom, ratio)
    least = min(p_values, key=p_values.get)
    return least, p_values[least]


def accuracy(correct, over_seeds, bounds=(0.0, 1.0)):
    """Estimate the accuracy of a setting, an `Estimate`.

    Args:
        correct: correctness of each test review in each run, bool [runs, reviews].
        over_seeds: the setting's `Spread`, or None if unknown.
        bounds: range of the mean; (-1, 1) if `correct` contains changes.
    """
    runs, reviews = correct.shape
    shares = _shares([(over_seeds, runs)]) + _of_reviews(correct.mean(axis=0), [(over_seeds, runs)])
    estimate = combined(correct.mean(), shares, runs, reviews, bounds)
    return replace(estimate, runs=tuple(correct.mean(axis=1)))


def difference(correct, other, over_seeds, others, paired=True):
    """Estimate the accuracy of one setting minus that of another, an `Estimate`.

    Reviews are paired. Seeds are not: equal seeds do not make two settings more alike.

    Args:
        correct, other: bool [runs, reviews]; the numbers of runs may differ.
        over_seeds, others: the `Spread` of each: `EXACT` for a model without a seed, None if
            unknown.
        paired: whether both are tested on the same reviews.
    """
    sides = [(over_seeds, len(correct)), (others, len(other))]
    mine, theirs = correct.mean(axis=0), other.mean(axis=0)
    decided = math.nan
    if paired:
        gaps = mine - theirs
        mean, of_reviews = gaps.mean(), _of_reviews(gaps, sides)
        if EXACT in (over_seeds, others):
            decided = _on_every_run(correct, other)
    else:
        mean = mine.mean() - theirs.mean()
        of_reviews = _of_reviews(mine, sides[:1]) + _of_reviews(theirs, sides[1:])
    reviews = min(len(mine), len(theirs))
    runs = min((n for s, n in sides if s is not EXACT), default=1)
    estimate = combined(mean, _shares(sides) + of_reviews, runs, reviews, mcnemar=decided)
    lower, n = sides[0] if mean < 0 else sides[1]
    return replace(estimate, lone=n == 1 and lower is not EXACT)


def welch(values, other):
    """Estimate the mean of some values minus that of others (Welch's t-test), an `Estimate`."""
    mine, theirs = mean_of(values), mean_of(other)
    shares = [(side.error**2, side.freedom) for side in (mine, theirs)]
    runs = min(mine.n, theirs.n)
    return combined(mine.mean - theirs.mean, shares, runs, 0, (-math.inf, math.inf))


def mean_of(values):
    """Estimate the mean of some values with a t interval, an `Estimate`."""
    values = np.asarray(values, dtype=float)
    n = len(values)
    share = (values.var(ddof=1) / n, n - 1) if n > 1 else (math.nan, 1)
    return combined(values.mean(), [share], n, 0, (-math.inf, math.inf))


def prediction(estimate, over_seeds, reviews):
    """Predict the accuracy of one further run on other test reviews, an `Estimate`.

    Args:
        estimate: `Estimate` of the setting's accuracy.
        over_seeds: its `Spread`, or None.
        reviews: number of test reviews of the further run.
    """
    if over_seeds is None:
        return Estimate(estimate.mean, math.nan, 1, estimate.n, reviews, (0.0, 1.0))
    sample = max(0.0, estimate.mean * (1 - estimate.mean) - over_seeds.within) / reviews
    shares = [(estimate.error**2, estimate.freedom), (over_seeds.variance, over_seeds.freedom)]
    shares.append((sample, reviews - 1))
    return combined(estimate.mean, shares, estimate.n, reviews, (0.0, 1.0))


def joint_gaps(gaps, models, reviews):
    """Test the gaps between models and one further run of each on other test reviews.

    All models share their test reviews, and all further runs share theirs, so gaps are correlated.

    Args:
        gaps: for each model its accuracy minus that of the further run.
        models: for each model (bool [runs, test reviews], `Spread`).
        reviews: number of test reviews of the further runs; the models' errors on them are assumed
            to be correlated as on ours.

    Returns:
        the mean gap, an `Estimate`, and the F test's p-value that all gaps are prediction errors.
    """
    means = np.array([correct.mean(axis=0) for correct, _ in models])
    runs = np.array([len(correct) for correct, _ in models])
    within = np.array([over_seeds.within for _, over_seeds in models])
    variances = np.array([over_seeds.variance for _, over_seeds in models])
    shared = (np.cov(means) - np.diag(within / runs)) * (1 / means.shape[1] + 1 / reviews)
    sides = [(s, n) for (_, s), k in zip(models, runs, strict=True) for n in (k, 1)]
    shares = [(variance / len(gaps) ** 2, freedom) for variance, freedom in _shares(sides)]
    shares.append((max(0.0, shared.mean()), means.shape[1] - 1))
    covariance = shared + np.diag(variances * (1 + 1 / runs))
    freedom = sum(over_seeds.freedom for over_seeds in {s for _, s in models})
    ratio = gaps @ np.linalg.solve(covariance, gaps) / len(gaps)
    mean = combined(np.mean(gaps), shares, int(runs.min()), reviews)
    return mean, float(scipy.special.fdtrc(len(gaps), freedom, ratio))


@dataclass(frozen=True)
class Share:
    """The number of runs that trained, with the exact interval of Clopper and Pearson."""

    count: int
    n: int

    @property
    def low(self):
        return _bound(self.count, self.n - self.count + 1, (1 - CONFIDENCE) / 2, 0.0)

    @property
    def high(self):
        return _bound(self.count + 1, self.n - self.count, (1 + CONFIDENCE) / 2, 1.0)

    @property
    def p_fewer(self):
        """One-sided p-value of the hypothesis that at least half of all seeds train."""
        return float(scipy.stats.binom.cdf(self.count, self.n, 0.5))

    @property
    def p_more(self):
        """One-sided p-value of the hypothesis that at most half of all seeds train."""
        return float(scipy.stats.binom.sf(self.count - 1, self.n, 0.5))


def _bound(a, b, share, end):
    """Return a quantile of a beta distribution, or `end` if it is undefined."""
    return float(scipy.special.betaincinv(a, b, share)) if a and b else end


def fisher(first, second, alternative="two-sided"):
    """Return Fisher's exact p-value for a difference of two `Share`s; `greater`: the first is."""
    table = [(share.count, share.n - share.count) for share in (first, second)]
    return float(scipy.stats.fisher_exact(table, alternative=alternative).pvalue)


def trend(values, trained):
    """Return the p-value of a permutation test that runs with larger values train less often.

    Args:
        values, trained: value and success of each run.
    """
    if len(values) < 2:
        return 1.0
    ranks = scipy.stats.rankdata(values, "dense")

    def weight(trained, axis):
        return (ranks * trained).sum(axis=axis)

    result = scipy.stats.permutation_test(
        (np.asarray(trained),),
        weight,
        permutation_type="pairings",
        vectorized=True,
        alternative="less",
        n_resamples=1999,
        rng=0,
    )
    return float(result.pvalue)


def mcnemar(correct, other):
    """Return McNemar's exact p-value for two models, bool [reviews] each, on the same reviews."""
    only_one = int((correct & ~other).sum()), int((~correct & other).sum())
    return min(1.0, 2 * float(scipy.special.bdtr(min(only_one), sum(only_one), 0.5)))


def holm(p_values):
    """Correct p-values by Holm's step-down method; return them in the same order.

    NaN, for a comparison that cannot be tested, stays NaN and does not count.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    order = order[~np.isnan(p[order])]
    corrected = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1))
    result = np.full_like(p, math.nan)
    result[order] = np.minimum(corrected, 1.0)
    return result


def _on_every_run(correct, other):
    """Return the largest McNemar p-value of three pairs of runs or more; NaN if not `DOUBTLESS`."""
    pairs = [(a, b) for a in correct for b in other]
    signs = {np.sign(a.sum(dtype=int) - b.sum(dtype=int)) for a, b in pairs}
    worst = max(mcnemar(a, b) for a, b in pairs)
    return worst if len(pairs) >= 3 and len(signs) == 1 and worst < DOUBTLESS else math.nan


def _shares(sides):
    """Return the seeds' shares of a variance as (variance, degrees of freedom) pairs."""
    total = {}
    for over_seeds, runs in sides:
        known = over_seeds or Spread(math.nan, 1, math.nan)
        variance, freedom = known.variance, known.freedom
        so_far, _ = total.get(over_seeds, (0.0, freedom))
        total[over_seeds] = (so_far + variance / runs, freedom)
    return list(total.values())


def _of_reviews(values, sides):
    """Return the reviews' share: the variance of a mean over reviews, less the seeds' part."""
    reviews = len(values)
    from_seeds = sum(s.within / runs for s, runs in sides if s)
    return [(max(0.0, values.var(ddof=1) - from_seeds) / reviews, reviews - 1)]


def combined(mean, shares, runs, reviews, bounds=(-1.0, 1.0), mcnemar=math.nan):
    """Return an `Estimate` from its shares of variance; degrees of freedom as in Satterthwaite.

    Args:
        shares: (variance of the mean, its degrees of freedom) of each source of variance.
    """
    variance = sum(v for v, _ in shares)
    squares = sum(v**2 / freedom for v, freedom in shares)
    freedom = variance**2 / squares if squares > 0 else math.inf
    return Estimate(float(mean), math.sqrt(variance), freedom, runs, reviews, bounds, mcnemar)
