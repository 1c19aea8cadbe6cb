"""Intervals and tests against closed forms, statsmodels and simulation."""

import math
from functools import cache

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as oracle_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW, ttost_ind

from labrnn.results.statistics import (
    CONFIDENCE,
    DOUBTLESS,
    EXACT,
    LEVEL,
    MARGIN,
    NOT_RUN,
    POWER,
    UNSTABLE,
    WIDE,
    Estimate,
    Share,
    Spread,
    accuracy,
    difference,
    holm,
    joint_gaps,
    mcnemar,
    mean_of,
    pool,
    prediction,
    spread,
    trend,
    welch,
)

REVIEWS = 10_000
ACCURACY = 0.87
# Standard deviations of a run's accuracy over seeds in reports/full, see docs/verdicts.md.
WIDEST, USUAL = 0.0096, 0.0047  # the LSTM with RMSprop; the LSTM with Adam, the GRU
SETTINGS = 8  # settings of a family, as many as in Lab 2 d and e
RIGHT, OPEN = 0.745, 0.25  # shares of reviews: correct in every run; different between runs


def family(random, runs, gap=0.0, settings=SETTINGS, spread=WIDEST):
    """Return runs of a family on new test reviews, bool [settings, runs, reviews].

    Every run is correct on about three quarters of the reviews. The difficulty of the others is
    common to all settings, varies by setting (0.12 points of a difference, 0.13 in reports/full),
    and depends on chance and the ability of a run, so that accuracies vary by `spread` over seeds.
    The first setting is better by `gap`.
    """
    right, open_, wrong = random.multinomial(REVIEWS, [RIGHT, OPEN, 1 - RIGHT - OPEN])
    chance = OPEN * (0.25 - 0.3**2 / 12 - 0.6**2 / 12) / REVIEWS
    ability = random.normal(scale=math.sqrt(spread**2 - chance), size=(settings, runs, 1))
    ability[0] += gap
    probability = random.uniform(0.35, 0.65, open_) + ability / OPEN
    probability += random.uniform(-0.3, 0.3, (settings, 1, open_))
    luck = random.random((settings, runs, open_), dtype=np.float32)
    sure = [np.full((settings, runs, n), kind) for n, kind in ((right, True), (wrong, False))]
    return np.concatenate([sure[0], luck < probability, sure[1]], axis=2)


@cache
def simulated(runs, spread_, gap=0.0, times=1000):
    """Return (accuracy of the second setting, first minus second, spread) of many families."""
    random, found = np.random.default_rng([runs, round(1e4 * gap), round(1e4 * spread_)]), []
    for _ in range(times):
        first, second, *others = family(random, runs, gap, spread=spread_)
        over_seeds = spread([first, second, *others])
        found.append(
            (
                accuracy(second, over_seeds),
                difference(first, second, over_seeds, over_seeds),
                over_seeds,
            )
        )
    return found


@pytest.mark.simulation
@pytest.mark.parametrize(("runs", "deviation"), [(2, WIDEST), (3, USUAL), (5, WIDEST)])
def test_accuracies_cover_and_differences_keep_their_level(runs, deviation):
    estimates, differences, spreads = zip(*simulated(runs, deviation), strict=True)
    assert 0.93 <= np.mean([e.low <= ACCURACY <= e.high for e in estimates]) <= 0.97
    assert 0.03 <= np.mean([d.p < 0.05 for d in differences]) <= 0.06
    assert np.mean([d.low <= 0 <= d.high for d in differences]) == pytest.approx(
        1 - np.mean([d.p < 0.05 for d in differences])
    )
    assert math.sqrt(np.mean([s.variance for s in spreads])) == pytest.approx(deviation, rel=0.05)


@pytest.mark.simulation
@pytest.mark.parametrize(
    ("runs", "deviation", "gap"), [(5, USUAL, 0.01), (17, WIDEST, 0.01), (5, WIDEST, 0.019)]
)
def test_power_is_above_80_per_cent(runs, deviation, gap):
    """One point needs five runs per side, and 17 for the LSTM with RMSprop."""
    assert np.mean([d.p < 0.05 for _, d, _ in simulated(runs, deviation, gap, 400)]) > 0.8


@pytest.mark.simulation
def test_five_seeds_cannot_detect_one_point_at_the_widest_spread():
    """Even a z-test with known variance over seeds, and no other variance, has too little power."""
    error = WIDEST * math.sqrt(2 / 5)
    best = stats.norm.sf(1.96 - 0.01 / error)
    assert best < 0.4
    found = np.mean([d.p < 0.05 for _, d, _ in simulated(5, WIDEST, 0.01, 400)])
    assert best - 0.1 < found < best + 0.05


@pytest.mark.simulation
def test_smallest_detectable_difference_has_80_per_cent_power():
    stated = np.mean([d.detectable for _, d, _ in simulated(5, WIDEST)])
    found = simulated(5, WIDEST, round(float(stated), 4), 500)
    assert np.mean([d.p < 0.05 for _, d, _ in found]) == pytest.approx(0.8, abs=0.04)


@pytest.mark.simulation
def test_equivalence_test_keeps_its_level_at_the_margin():
    """The true gap is exactly one point; without a gap, ten runs show equivalence."""
    wrong = np.mean([d.p_equivalent < 0.05 for _, d, _ in simulated(8, USUAL, MARGIN, 500)])
    assert 0.03 <= wrong <= 0.07
    right = np.mean([d.p_equivalent < 0.05 for _, d, _ in simulated(10, USUAL, 0.0, 300)])
    assert right > 0.85


@pytest.mark.simulation
def test_intervals_from_reviews_or_seeds_alone_do_not_cover():
    random, by_reviews, by_seeds = np.random.default_rng(2), [], []
    for _ in range(400):
        runs = family(random, 5, settings=1, spread=0.0069)[0]
        means = runs.mean(axis=1)
        seeds = stats.t.ppf(0.975, 4) * means.std(ddof=1) / math.sqrt(5)
        by_seeds.append(abs(means.mean() - ACCURACY) < seeds)
        by_reviews.append(abs(accuracy(runs[:1], EXACT).mean - ACCURACY) < 1.96 * 0.0034)
    assert np.mean(by_reviews) < 0.8
    assert np.mean(by_seeds) < 0.93


@pytest.mark.simulation
def test_prediction_interval_covers_a_single_run_on_new_reviews():
    random, held = np.random.default_rng(3), []
    for _ in range(600):
        made = family(random, 3)
        over_seeds = spread(made)
        predicted = prediction(accuracy(made[0], over_seeds), over_seeds, REVIEWS)
        single = family(random, 1, settings=1)[0].mean()
        held.append(predicted.low <= single <= predicted.high)
    assert 0.93 <= np.mean(held) <= 0.97


@pytest.mark.simulation
def test_joint_test_of_gaps_that_share_reviews():
    """Interval and joint test are valid; treating gaps as independent is not."""
    random, held, taken_alone, joint = np.random.default_rng(4), [], [], []
    for _ in range(600):
        made, other = family(random, 3), family(random, 1)
        over_seeds = spread(made)
        gaps = made.mean(axis=(1, 2)) - other.mean(axis=(1, 2))
        mean, p = joint_gaps(gaps, [(runs, over_seeds) for runs in made], REVIEWS)
        held.append(mean.low <= 0 <= mean.high)
        alone = mean_of(gaps)
        taken_alone.append(alone.low <= 0 <= alone.high)
        joint.append(p < 0.05)
    assert 0.93 <= np.mean(held) <= 0.97
    assert 0.03 <= np.mean(joint) <= 0.07
    assert np.mean(taken_alone) < 0.90


@pytest.mark.simulation
def test_unpaired_intervals_cover():
    random, held = np.random.default_rng(4), []
    for _ in range(600):
        mine, theirs = family(random, 3), family(random, 3)
        over_seeds = spread([*mine, *theirs])
        d = difference(mine[0], theirs[0], over_seeds, over_seeds, paired=False)
        held.append(d.low <= 0 <= d.high)
    assert 0.93 <= np.mean(held) <= 0.97


@pytest.mark.simulation
def test_comparison_with_a_baseline_keeps_its_level():
    """The baseline is as good as the setting; the t-test or McNemar on every run rarely errs."""
    random, wrong = np.random.default_rng(5), []
    for _ in range(600):
        made = family(random, 3)
        shares = made.mean(axis=(0, 1))  # 1 or 0 on reviews where all runs agree
        coin = random.random(REVIEWS) < 0.5
        single = ((shares == 1) | ((shares > 0) & coin))[None]
        over_seeds = spread(made)
        wrong.append(difference(single, made[0], EXACT, over_seeds).p < 0.05)
    assert np.mean(wrong) < 0.06


def test_mcnemar_decides_only_if_clear_on_every_run():
    random = np.random.default_rng(6)
    runs = family(random, 3, settings=1)[0]
    better = runs[0] | (random.random(REVIEWS) < 0.4)
    d = difference(better[None], runs, EXACT, None)
    assert math.isnan(d.error)
    assert d.p == max(mcnemar(better, run) for run in runs) < 1e-10
    assert math.isnan(difference(better[None], runs[:1], EXACT, None).p)  # one seed is not tested
    runs[2] = better
    runs[2, np.flatnonzero(better)[:10]] = False  # significant, p = 0.002, but not clear
    assert math.isnan(difference(better[None], runs, EXACT, None).p)


# ------------------------------------------------------------------------------ closed forms


def test_one_model_has_the_binomial_interval():
    correct = np.arange(1000) % 8 > 0
    estimate, share = accuracy(correct[None], EXACT), correct.mean()
    half = stats.t.ppf(0.975, 999) * np.sqrt(share * (1 - share) / 999)
    assert (estimate.mean, estimate.low, estimate.high) == pytest.approx(
        (share, share - half, share + half)
    )
    assert (estimate.n, estimate.reviews) == (1, 1000)


def test_spread_matches_a_two_way_layout():
    """Mean squares of runs and of the interaction with reviews, computed with loops."""
    values = family(np.random.default_rng(7), 4, settings=1)[0][:, ::50].astype(float)
    runs, reviews = values.shape
    grand = values.mean()
    of_runs = sum((values[s].mean() - grand) ** 2 for s in range(runs)) / (runs - 1)
    rest = sum(
        (values[s, r] - values[s].mean() - values[:, r].mean() + grand) ** 2
        for s in range(runs)
        for r in range(reviews)
    ) / ((runs - 1) * (reviews - 1))
    found = spread([values.astype(bool)])
    assert min(of_runs, rest) > 1e-6
    assert (found.variance, found.freedom, found.within) == pytest.approx((of_runs, 3, rest))


def test_difference_without_review_variance_is_the_two_sample_t_test():
    """Each run is correct on its own reviews, so only the seeds vary; from statsmodels."""
    right = [[30, 52, 41, 47], [63, 70, 55, 66]]
    sides = np.zeros((2, 4, 100_000), bool)
    for side, run in np.ndindex(2, 4):
        start = 20_000 * side + 1000 * run
        sides[side, run, start : start + right[side][run]] = True
    over_seeds = spread(sides)
    d = difference(*sides, over_seeds, over_seeds)
    means = CompareMeans(*(DescrStatsW(np.array(r) / 100_000) for r in right))
    assert d.p == pytest.approx(means.ttest_ind()[1], rel=1e-6)
    assert (d.low, d.high) == pytest.approx(means.tconfint_diff(), rel=1e-6)
    assert d.p_equivalent == pytest.approx(
        ttost_ind(*(np.array(r) / 100_000 for r in right), -MARGIN, MARGIN)[0], abs=1e-12
    )


def test_degrees_of_freedom_match_satterthwaite():
    random = np.random.default_rng(8)
    runs = random.random((2, 400)) < 0.8
    seeds = Spread(0.0004, 3, 0.1)
    estimate = accuracy(runs, seeds)
    of_seeds = 0.0004 / 2
    of_reviews = (runs.mean(axis=0).var(ddof=1) - 0.1 / 2) / 400
    assert estimate.error**2 == pytest.approx(of_seeds + of_reviews)
    expected = (of_seeds + of_reviews) ** 2 / (of_seeds**2 / 3 + of_reviews**2 / 399)
    assert estimate.freedom == pytest.approx(expected)


def satterthwaite(*shares):
    """Return standard error and degrees of freedom of a sum of (variance, freedom) pairs."""
    variance = sum(v for v, _ in shares)
    return math.sqrt(variance), variance**2 / sum(v**2 / freedom for v, freedom in shares)


def test_constants_match_the_methods():
    constants = (CONFIDENCE, LEVEL, MARGIN, POWER, UNSTABLE, WIDE, DOUBTLESS)
    assert constants == (0.95, 0.05, 0.01, 0.8, 0.001, 0.1, 1e-6)
    assert (EXACT.variance, EXACT.freedom, EXACT.within) == (0, math.inf, 0)
    assert (NOT_RUN.n, NOT_RUN.reviews, NOT_RUN.known) == (0, 0, False)
    assert math.isnan(NOT_RUN.mean)


def test_p_values_and_detectable_difference_match_the_t_distribution():
    estimate = Estimate(0.02, 0.008, 7.5, 3, 400)
    t = stats.t(7.5)
    assert estimate.p_above(0.0) == pytest.approx(t.sf(2.5))
    assert estimate.p_above(0.01) == pytest.approx(t.sf(1.25))
    assert estimate.p_below(0.03) == pytest.approx(t.sf(1.25))
    assert estimate.p == pytest.approx(2 * t.sf(2.5))
    assert Estimate(-0.02, 0.008, 7.5, 3, 400).p == pytest.approx(estimate.p)
    assert Estimate(0.0, 0.008, 7.5, 3, 400).p == 1.0
    assert Estimate(0.02, 0.008, 7.5, 3, 400, mcnemar=1e-9).p == 1e-9
    assert estimate.p_equivalent == pytest.approx(t.cdf(1.25))
    assert Estimate(-0.02, 0.008, 7.5, 3, 400).p_equivalent == pytest.approx(t.cdf(1.25))
    assert estimate.detectable == pytest.approx((t.ppf(0.975) + t.ppf(0.8)) * 0.008)
    assert estimate.half_width == pytest.approx(t.ppf(0.975) * 0.008)
    assert estimate.bounds == (-1, 1)
    exact = Estimate(0.02, 0.0, math.inf, 1, 400)
    assert [exact.p_above(v) for v in (0.0, 0.02, 0.03)] == [0, 1, 1]


def test_single_run_cannot_decide_against_its_setting():
    """If the single run is the lower side, p-values that would count against it are NaN."""
    below = Estimate(-0.02, 0.008, 7.5, 1, 400, lone=True)
    assert math.isnan(below.p_below(0.0))
    assert below.p_above(0.0) == pytest.approx(stats.t.sf(-2.5, 7.5))
    above = Estimate(0.02, 0.008, 7.5, 1, 400, lone=True)
    assert math.isnan(above.p_above(0.0))
    assert above.p_below(0.0) == pytest.approx(stats.t.sf(-2.5, 7.5))
    assert math.isnan(above.p)
    runs = np.random.default_rng(13).random((3, 400)) < 0.8
    high, low = runs.copy(), runs[:1] & (np.arange(400) % 9 > 0)
    seeds = Spread(0.0001, 4, 0.1)
    assert difference(low, high, seeds, seeds).lone
    assert difference(high, low, seeds, seeds).lone
    assert not difference(low, high, EXACT, seeds).lone
    assert not difference(high, low, seeds, EXACT).lone
    assert not difference(high[:1], np.repeat(low, 2, 0), seeds, seeds).lone
    assert not difference(np.repeat(low, 2, 0), high[:1], seeds, seeds).lone


def test_difference_adds_the_variances_of_both_sides():
    random = np.random.default_rng(14)
    first, second = random.random((3, 500)) < 0.8, random.random((2, 500)) < 0.7
    mine, theirs = Spread(0.0004, 3, 0.1), Spread(0.0009, 5, 0.12)
    gaps = first.mean(axis=0) - second.mean(axis=0)
    of_reviews = (gaps.var(ddof=1) - 0.1 / 3 - 0.12 / 2) / 500
    d = difference(first, second, mine, theirs)
    expected = satterthwaite((0.0004 / 3, 3), (0.0009 / 2, 5), (of_reviews, 499))
    assert (d.error, d.freedom) == pytest.approx(expected)
    assert (d.mean, d.n, d.reviews, d.bounds) == (pytest.approx(gaps.mean()), 2, 500, (-1, 1))
    assert math.isnan(d.mcnemar)
    # A common spread of both sides is one variance component.
    d = difference(first, second, mine, mine)
    of_reviews = (gaps.var(ddof=1) - 0.1 / 3 - 0.1 / 2) / 500
    expected = satterthwaite((0.0004 / 3 + 0.0004 / 2, 3), (of_reviews, 499))
    assert (d.error, d.freedom) == pytest.approx(expected)
    # A model without a seed does not count as a run.
    assert difference(first, second[:1], mine, EXACT).n == 3
    assert difference(first[:1], second, EXACT, theirs).n == 2
    assert difference(first[:1], second[:1], EXACT, EXACT).n == 1


def test_unpaired_difference_adds_the_review_variance_of_each_side():
    random = np.random.default_rng(15)
    first, second = random.random((3, 500)) < 0.8, random.random((2, 700)) < 0.7
    mine, theirs = Spread(0.0004, 3, 0.1), Spread(0.0009, 5, 0.12)
    of_first = (first.mean(axis=0).var(ddof=1) - 0.1 / 3) / 500
    of_second = (second.mean(axis=0).var(ddof=1) - 0.12 / 2) / 700
    shares = [(0.0004 / 3, 3), (0.0009 / 2, 5), (of_first, 499), (of_second, 699)]
    for sign, sides in ((1, (first, second, mine, theirs)), (-1, (second, first, theirs, mine))):
        d = difference(*sides, paired=False)
        assert (d.error, d.freedom) == pytest.approx(satterthwaite(*shares))
        assert d.mean == pytest.approx(sign * (first.mean() - second.mean()))
        assert (d.n, d.reviews, d.bounds) == (2, 500, (-1, 1))
    assert math.isnan(difference(first, second[:1], mine, EXACT, paired=False).mcnemar)


def test_prediction_adds_the_variance_of_a_single_run():
    estimate, seeds = Estimate(0.87, 0.004, 9.0, 3, 500, (0, 1)), Spread(0.0004, 6, 0.05)
    predicted = prediction(estimate, seeds, 250)
    shares = [(0.004**2, 9), (0.0004, 6), ((0.87 * 0.13 - 0.05) / 250, 249)]
    assert (predicted.error, predicted.freedom) == pytest.approx(satterthwaite(*shares))
    assert (predicted.mean, predicted.n, predicted.reviews) == (0.87, 3, 250)
    assert predicted.bounds == (0, 1)
    certain = prediction(estimate, Spread(0.0004, 6, 0.5), 250)  # more than the binomial variance
    assert (certain.error, certain.freedom) == pytest.approx(satterthwaite(*shares[:2]))
    unknown = prediction(estimate, None, 250)
    assert (unknown.mean, unknown.n, unknown.reviews, unknown.bounds) == (0.87, 3, 250, (0, 1))
    assert unknown.freedom == 1
    assert math.isnan(unknown.error)


def test_accuracy_holds_runs_reviews_and_bounds():
    runs = np.random.default_rng(16).random((3, 500)) < 0.8
    estimate = accuracy(runs, Spread(0.0004, 3, 0.1))
    assert (estimate.n, estimate.reviews, estimate.bounds) == (3, 500, (0, 1))
    assert estimate.mean == pytest.approx(runs.mean())
    assert accuracy(runs, None).bounds == (0, 1)
    assert accuracy(runs, EXACT, (-1.0, 1.0)).bounds == (-1, 1)
    steady = accuracy(runs, Spread(0.0004, 3, 1.0))  # the reviews vary less than the runs explain
    assert steady.error == pytest.approx(math.sqrt(0.0004 / 3))


def test_welch_matches_statsmodels():
    values, other = [0.8, 0.81, 0.84], [0.7, 0.78, 0.75, 0.79]
    means = CompareMeans(DescrStatsW(values), DescrStatsW(other))
    d = welch(values, other)
    assert d.p == pytest.approx(means.ttest_ind(usevar="unequal")[1])
    assert (d.low, d.high) == pytest.approx(means.tconfint_diff(usevar="unequal"))
    assert math.isnan(welch([0.8], other).low)
    assert math.isnan(welch(other, [0.8]).low)
    assert welch([0.8], other).mean == pytest.approx(0.8 - 0.755)
    mean = mean_of(values)
    assert (mean.low, mean.high) == pytest.approx(DescrStatsW(values).tconfint_mean())
    assert mean_of([1, 1]).low == 1
    for estimate in (d, mean):
        assert (estimate.n, estimate.reviews) == (3, 0)
        assert estimate.bounds == (-math.inf, math.inf)
        assert math.isnan(estimate.mcnemar)
        assert not estimate.lone


def test_shares_match_clopper_pearson():
    for count, n in ((0, 1), (8, 10), (10, 10), (0, 5)):
        share = Share(count, n)
        assert (share.low, share.high) == pytest.approx(
            proportion_confint(count, n, method="beta"), abs=1e-9
        )
    assert Share(1, 10).p_fewer == pytest.approx(11 / 1024)
    assert Share(9, 10).p_more == pytest.approx(11 / 1024)
    assert (Share(0, 0).low, Share(0, 0).high) == (0, 1)


def test_mcnemar_is_exact():
    first = np.array([1] * 9 + [0] * 2 + [1] * 50, bool)
    second = np.array([0] * 9 + [1] * 2 + [1] * 50, bool)
    assert mcnemar(first, second) == pytest.approx(oracle_mcnemar([[50, 9], [2, 0]]).pvalue)
    assert mcnemar(first, first) == 1.0


def test_holm_matches_hand_computation_and_statsmodels():
    """0.01 x 4, 0.02 x 3, 0.03 x 2 raised to the previous value, 0.5 x 1; in input order."""
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    many = np.random.default_rng(9).uniform(0, 0.1, 30)
    assert holm(many) == pytest.approx(multipletests(many, method="holm")[1])
    assert holm([math.nan, 0.02, 0.01]) == pytest.approx([math.nan, 0.02, 0.02], nan_ok=True)
    assert holm([1, 0]).tolist() == [1, 0]
    assert len(holm([])) == 0


# ------------------------------------------------------------------------------------ corners


def test_unstable_settings_keep_their_own_spread():
    random = np.random.default_rng(10)
    groups = dict(enumerate(family(random, 4)))
    calm, unstable = pool(groups)
    assert unstable == {}
    assert calm == spread(groups.values())
    groups[3] = groups[3].copy()
    groups[3][0] &= random.random(REVIEWS) < 0.9
    calm, unstable = pool(groups)
    assert list(unstable) == [3]
    assert unstable[3].freedom == 3
    assert calm.variance < 2 * WIDEST**2
    assert pool({1: groups[1][:1]}) == (None, {})
    pairs = {name: runs[:2] for name, runs in groups.items()}
    assert list(pool(pairs)[1]) == [3]
    groups[3][0] &= random.random(REVIEWS) < 0.3  # two settings leave the pool, one after the other
    groups[4][0] &= random.random(REVIEWS) < 0.9
    assert sorted(pool(groups)[1]) == [3, 4]
    hidden = {name: groups[name][:3] for name in range(5)}  # each one masks the other
    hidden[3] &= random.random((3, REVIEWS)) < [[0.3], [0.9], [1]]
    hidden[4] = hidden[3].copy()
    assert sorted(pool(hidden)[1]) == [3, 4]
    still = np.tile(groups[0][:1], (3, 1))
    many = {5: groups[5], 6: groups[6]} | hidden  # 3 of 7, with most of the degrees of freedom left
    many[2] = hidden[3].copy()
    assert sorted(pool(many)[1]) == [2, 3, 4]
    with np.errstate(all="raise"):
        assert pool({0: still, 1: still}) == (Spread(0, 4, 0), {})


def test_unknown_spread_gives_no_interval():
    runs = family(np.random.default_rng(11), 1, settings=2)
    assert spread(runs) is None
    for estimate in (accuracy(runs[0], None), difference(*runs, None, None)):
        assert math.isnan(estimate.low)
        assert not estimate.known
        assert not estimate.p < 0.05
        assert not estimate.p_equivalent < 0.05
    assert not prediction(accuracy(runs[0], None), None, REVIEWS).known


def test_uninformative_interval_is_omitted_but_tested():
    runs = np.zeros((2, 3, REVIEWS), bool)
    for side, run in np.ndindex(2, 3):
        runs[side, run, : (8000, 8700, 7000)[run] + 1000 * side] = True
    wide, narrow = Spread(0.0096, 2, 0.1), Spread(0.0001, 2, 0.1)
    estimate, d = accuracy(runs[0], wide), difference(*runs, wide, wide)
    assert not estimate.known
    assert math.isnan(estimate.low)
    assert estimate.mean == pytest.approx(0.79)
    assert 0.1 < d.p < 0.9
    assert d.detectable > 0.2
    assert accuracy(runs[0], narrow).high - accuracy(runs[0], narrow).low < 2 * WIDE


def test_identical_models_do_not_differ():
    correct = family(np.random.default_rng(12), 3, settings=1)[0]
    d = difference(correct, correct, EXACT, EXACT)
    assert (d.mean, d.p) == (0, 1)


def test_intervals_stay_within_bounds():
    assert accuracy(np.array([[True] * 30 + [False]]), EXACT).high == 1.0
    assert accuracy(np.array([[True] * 30]), EXACT).low == 1.0
    assert Estimate(0.5, 0.0, math.inf, 1, 10).p_above(0.4) == 0.0


def test_trend_of_the_share_of_trained_runs():
    """With equal shares few samples show a trend; with falling shares most do."""
    layers, random = np.repeat([1, 2, 3, 4], [10, 10, 10, 5]), np.random.default_rng(13)
    level = np.mean([trend(layers, random.random(35) < 0.5) < 0.05 for _ in range(400)])
    assert 0.015 < level < 0.08
    falling = np.array([0.95, 0.8, 0.5, 0.2])[layers - 1]
    power = np.mean([trend(layers, random.random(35) < falling) < 0.05 for _ in range(100)])
    assert power > 0.9
    rising = trend(layers, random.random(35) < 1 - falling)
    assert rising > 0.9
    assert trend(layers, np.ones(35, bool)) == 1.0  # nothing failed
    assert trend([1], [True]) == 1.0  # a single run
