"""Intervals and tests: against closed forms, by simulation, by hand."""

import numpy as np
import pytest
from scipy import stats

from labrnn.results import statistics
from labrnn.results.prose import APART
from labrnn.results.statistics import accuracy, difference, holm, mcnemar, reseeding

REVIEWS = 400


def verdicts(random, seeds, reviews=REVIEWS, mean=0.87, between=0.0):
    """bool [seeds, reviews]: reviews share a difficulty, and seeds may differ in ability."""
    threshold = stats.norm.ppf(mean) * np.sqrt(1 + between**2)
    difficulty = np.sqrt(0.5) * random.normal(size=reviews)
    luck = np.sqrt(0.5) * random.normal(size=(seeds, reviews))
    return difficulty + luck + between * random.normal(size=(seeds, 1)) < threshold


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("between", [0.0, 0.1])
def test_intervals_of_accuracies_cover(seeds, between):
    """New seeds and new reviews each time: 95 % of the intervals hold the true accuracy."""
    random = np.random.default_rng(0)
    estimates = [accuracy(verdicts(random, seeds, between=between)) for _ in range(1500)]
    assert 0.93 <= np.mean([e.low <= 0.87 <= e.high for e in estimates]) <= 0.97


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("between", [0.0, 0.1])
def test_intervals_of_differences_cover(seeds, between):
    random, hits, p_values = np.random.default_rng(1), [], []
    for _ in range(3000):
        both = verdicts(random, 2 * seeds, between=between)  # the same reviews, other seeds
        d = difference(both[:seeds], both[seeds:])
        hits.append(d.low <= 0 <= d.high)
        p_values.append(d.p)
    assert 0.93 <= np.mean(hits) <= 0.97
    assert np.mean(hits) == pytest.approx(1 - np.mean(np.array(p_values) < 0.05))
    assert np.mean(np.array(p_values) < 0.005) < 0.01  # Holm looks there


def test_counting_only_the_seeds_would_not_cover():
    """The reviews' part is needed: without it intervals for new reviews are too short."""
    random, hits = np.random.default_rng(2), []
    for _ in range(1000):
        per_seed = verdicts(random, 5).mean(axis=1)
        reach = stats.t.ppf(0.975, 4) * per_seed.std(ddof=1) / np.sqrt(5)
        hits.append(abs(per_seed.mean() - 0.87) < reach)
    assert np.mean(hits) < 0.9


def test_one_seed_is_the_binomial_interval():
    correct = np.arange(1000) % 8 > 0
    estimate = accuracy([correct])
    share = correct.mean()
    reach = stats.t.ppf(0.975, 999) * np.sqrt(share * (1 - share) / 999)
    assert (estimate.mean, estimate.low, estimate.high) == pytest.approx(
        (share, share - reach, share + reach)
    )
    assert (estimate.seeds, estimate.reviews) == (1, 1000)


def test_the_variance_is_that_of_a_two_way_layout():
    """Mean squares of seeds and reviews, less that of their interaction, by explicit loops."""
    values = verdicts(np.random.default_rng(3), 4, 50).astype(float)
    seeds, reviews = values.shape
    grand = values.mean()
    rows = [values[s].mean() for s in range(seeds)]
    columns = [values[:, r].mean() for r in range(reviews)]
    of_seeds = reviews * sum((m - grand) ** 2 for m in rows) / (seeds - 1)
    of_reviews = seeds * sum((m - grand) ** 2 for m in columns) / (reviews - 1)
    rest = sum(
        (values[s, r] - rows[s] - columns[r] + grand) ** 2
        for s in range(seeds)
        for r in range(reviews)
    ) / ((seeds - 1) * (reviews - 1))
    variance = (of_seeds + of_reviews - rest) / (seeds * reviews)
    freedom = (seeds - 1) * (of_seeds + of_reviews - rest) / of_seeds
    reach = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    assert accuracy(values).low == pytest.approx(grand - reach)


def test_without_noise_of_reviews_it_is_the_paired_t_test():
    """Each seed gains on the same number of reviews at other places: only seeds vary."""
    gains = [3, 5, 4, 9]
    first, second = np.zeros((4, 10_000), bool), np.zeros((4, 10_000), bool)
    for seed, gain in enumerate(gains):
        first[seed, 1000 * seed : 1000 * seed + gain] = True
    d = difference(first, second)
    t = stats.ttest_1samp(np.array(gains) / 10_000, 0)
    assert d.mean == pytest.approx(np.mean(gains) / 10_000)
    # The reviews' part adds to it, so the test can only be more careful.
    assert d.p >= t.pvalue


def test_mcnemar_is_the_sign_test_of_the_reviews_they_disagree_on():
    first = np.array([1] * 9 + [0] * 2 + [1] * 50, bool)
    second = np.array([0] * 9 + [1] * 2 + [1] * 50, bool)
    by_hand = 2 * sum(stats.binom.pmf(k, 11, 0.5) for k in (0, 1, 2))
    assert mcnemar(first, second) == pytest.approx(by_hand)
    assert difference([first], [second]).p == pytest.approx(by_hand)
    assert mcnemar(first, first) == 1.0


def test_holm_by_hand():
    """0.01 x 4, 0.02 x 3, 0.03 x 2 raised to what came before, 0.5 x 1; in the order given."""
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert len(holm([])) == 0


def test_identical_models_do_not_differ():
    correct = verdicts(np.random.default_rng(5), 3)
    d = difference(correct, correct)
    assert (d.mean, d.low, d.high, d.p) == (0, 0, 0, 1)


def test_a_side_with_more_seeds_is_cut():
    many = verdicts(np.random.default_rng(6), 5)
    assert difference(many, many[:3]).seeds == 3
    assert difference(many, many[:3]).mean == 0


def test_intervals_stay_within_what_is_possible():
    assert accuracy([[True] * 30 + [False]]).high == 1.0
    assert accuracy([[True] * 30]).low == 1.0


def test_reseeding_is_what_independent_errors_of_a_calibrated_ensemble_give():
    """Reviews with a chance p each of being right, such that disagreement equals the error."""
    random = np.random.default_rng(7)
    chances = random.beta(0.5, 0.5, 2000)
    chances = np.where(random.random(2000) < chances, chances, 1 - chances)  # calibrated
    runs = (random.random((400, 2000)) < chances).mean(axis=1)
    gaps = np.abs(runs[:200] - runs[200:])
    apart = APART * reseeding(chances.mean(), 2000)
    assert np.mean(gaps < apart) == pytest.approx(0.95, abs=0.035)


def test_level_is_the_one_that_reports_name():
    assert statistics.CONFIDENCE == 0.95
