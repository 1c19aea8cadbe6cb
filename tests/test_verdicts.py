"""The rule for verdicts: each outcome of every claim, on synthetic runs."""

import math
from functools import partial

import numpy as np
import pytest
from fake_results import results

from labrnn.parts import (
    Bidirectional,
    Compound,
    Depth,
    EmbeddingSize,
    Gru,
    GruOptimizers,
    Lstm,
    LstmOptimizers,
    Reproduction,
    Width,
)
from labrnn.results import prose
from labrnn.results.comparison import compare
from labrnn.results.verdicts import RULES, _Evidence, _weakness, judge, table, verdicts

FULL = {"train_reviews": 0, "max_tokens": 256, "batch_size": 96}
TEN = list(range(10))
ALL_SIZES = [1, 2, 8, 32, 64, 128, 188, 256]
GRID = {"widths": [20, 280, 290, 305], "sizes": [32, 188, 256]}


def outcome(part, accuracies, published, seeds=TEN, **options):
    """Return the verdict on one claim of a part."""
    options = {"reviews": 5000} | options
    found = results(part(seeds=seeds, **FULL), accuracies, **options)
    [claim] = [c for c in found.part.claims() if published in c.published]
    return judge(found, claim).outcome


def trains(count, n):
    return [0.87] * count + [0.5] * (n - count)


@pytest.mark.parametrize(
    ("count", "n", "expected"),
    [
        (0, 5, "confirmed"),
        (1, 10, "confirmed"),
        (2, 10, "inconclusive"),
        (5, 10, "inconclusive"),
        (9, 10, "refuted"),
        (0, 1, "inconclusive"),
        (1, 1, "inconclusive"),
    ],
)
@pytest.mark.parametrize(("part", "name"), [(Lstm, "LSTM"), (Gru, "GRU")])
def test_rarely_trains(part, name, count, n, expected):
    seeds = list(range(n))
    assert outcome(part, {name: trains(count, n)}, "does not train", seeds) == expected


def test_rarely_trains_covers_every_setting():
    def depths(three, four):
        return {"1 layer": 0.87, "3 layers": trains(three, 10), "4 layers": trains(four, 10)}

    claim = "three layers hardly train"
    assert outcome(Depth, depths(1, 0), claim) == "confirmed"
    assert outcome(Depth, depths(10, 0), claim) == "refuted"
    assert outcome(Depth, depths(5, 0), claim) == "inconclusive"


@pytest.mark.parametrize(
    ("two", "expected"),
    [(0.87, "confirmed"), (0.84, "refuted"), (0.90, "refuted"), (0.861, "inconclusive")],
)
def test_within_a_point(two, expected):
    assert outcome(Depth, {"1 layer": 0.87, "2 layers": two}, "two layers equal one") == expected


def test_rarely_training_setting_is_not_equivalent():
    claim = "two layers equal one"
    assert outcome(Depth, {"1 layer": 0.87, "2 layers": trains(1, 10)}, claim) == "refuted"
    assert outcome(Depth, {"1 layer": 0.87, "2 layers": trains(0, 10)}, claim) == "refuted"


def test_within_a_point_covers_every_setting():
    level = {f"{n} dimensions": 0.87 for n in ALL_SIZES} | {"1 dimension": 0.87}
    claim = "size of the embedding"

    part = partial(EmbeddingSize, sizes=ALL_SIZES)

    assert outcome(part, level, claim, spread=0.002) == "confirmed"
    assert outcome(part, level | {"256 dimensions": 0.89}, claim) == "refuted"
    assert outcome(part, level | {"256 dimensions": None}, claim, spread=0.002) == "inconclusive"


@pytest.mark.parametrize(
    ("rmsprop", "adam", "expected"),
    [
        (0.88, 0.87, "confirmed"),
        (0.875, 0.875, "confirmed"),
        (0.86, 0.87, "refuted"),
        (0.865, 0.87, "inconclusive"),
    ],
)
@pytest.mark.parametrize("part", [LstmOptimizers, GruOptimizers])
def test_among_the_best(part, rmsprop, adam, expected):
    accuracies = {"RMSprop": rmsprop, "Adam": adam, "Adagrad": 0.82, "SGD": 0.5}
    # With three widely spread seeds, half a point is inconclusive.
    seeds, spread = (TEN[:3], 0.009) if expected == "inconclusive" else (TEN, 0.003)
    got = outcome(part, accuracies, "RMSprop is at least", seeds, spread=spread)
    assert got == expected


def test_among_the_best_of_the_grid():
    def grid(best, others):
        return lambda c: (
            best if (c.n_layers, c.hidden_dim, c.embedding_dim) == (2, 305, 32) else others
        )

    part = partial(Compound, **GRID)

    claim, seeds = "best compound model", [0, 1, 2]
    assert outcome(part, grid(0.90, 0.87), claim, seeds, reviews=2000) == "confirmed"
    assert outcome(part, grid(0.80, 0.87), claim, seeds, reviews=2000) == "refuted"
    assert outcome(part, grid(0.87, 0.87), claim, [0], reviews=2000) == "inconclusive"


def test_last_epoch_verdict_is_reported_beside_the_main_one():
    """RMSprop is a point lower at the best epoch and equal at the last one."""
    part = LstmOptimizers(seeds=TEN, **FULL)
    accuracies = {"RMSprop": 0.86, "Adam": 0.87, "Adagrad": 0.82, "SGD": 0.5}
    found = results(part, accuracies, spread=0.003, last=0.86, reviews=5000)
    [verdict] = [v for v in verdicts(found) if "RMSprop" in v.claim.published]
    assert (verdict.outcome, verdict.at_last) == ("refuted", "confirmed")
    line = table([verdict]).iloc[0]
    assert (line["verdict"], line["at the last epoch"]) == ("refuted", "confirmed")
    assert prose.verdicts([verdict]).endswith("), and confirmed if the last epoch is tested.")


def evidence(accuracies):
    """Return the evidence on RMSprop among the best optimisers of the LSTM, inconclusive."""
    found = results(LstmOptimizers(seeds=TEN[:5], **FULL), accuracies, reviews=5000)
    [claim] = [c for c in found.part.claims() if "RMSprop" in c.published]
    verdict = judge(found, claim)
    assert verdict.outcome == "inconclusive"
    return verdict.evidence


def test_every_pair_of_a_small_claim_is_shown():
    """Contrary evidence comes with its corrected p-value; an untrained setting is shown once."""
    spread = np.array([-0.015, -0.005, 0.0, 0.005, 0.015])
    near = {"RMSprop": list(0.85 + spread), "Adam": list(0.855 + spread), "SGD": 0.5}
    text = evidence(near | {"Adagrad": list(0.84 + spread)})
    assert text.count("RMSprop − ") == 2
    assert "SGD" not in text
    assert "against it" not in text
    text = evidence(near | {"Adam": list(0.865 + spread), "Adagrad": list(0.855 + spread)})
    assert "RMSprop − Adam: −1.5 points" in text
    assert "evidence against the conclusion with p = 0.17 after correction" in text
    text = evidence({"RMSprop": 0.5, "Adam": 0.87, "Adagrad": 0.87, "SGD": 0.5})
    assert text.count("RMSprop: 0 of 5 runs trained") == 1


def test_weakest_pair_of_a_claim_is_shown():
    """Of two untested pairs and a tested, not significant one, the latter is shown."""
    found = [_Evidence(p, [0.5], "") for p in (math.nan, 0.3, math.nan, 0.01)]
    assert max(found, key=_weakness).support == 0.3
    assert math.isnan(max(found[2:], key=_weakness).support)
    hidden = [_Evidence(0.9, [0.5], "", shows=False), _Evidence(0.01, [0.5], "")]
    assert max(hidden, key=_weakness).shows


@pytest.mark.parametrize(
    ("deeper", "expected"),
    [(0.85, "confirmed"), (0.89, "refuted"), (0.8878, "inconclusive"), (None, "inconclusive")],
)
def test_accuracy_per_parameter(deeper, expected):
    """Settings with many parameters lose without a run; E32 H20 L2 has hardly more than L1."""

    def accuracy(c):
        if (c.hidden_dim, c.embedding_dim) != (20, 32):
            return None
        return 0.87 if c.n_layers == 1 else deeper

    part = partial(Compound, **GRID)

    got = outcome(part, accuracy, "accuracy per parameter", [0, 1, 2], reviews=2000, spread=0.001)
    assert got == expected


@pytest.mark.parametrize(
    ("gain", "expected"),
    [(-0.01, "confirmed"), (0.0, "confirmed"), (0.03, "refuted"), (0.009, "inconclusive")],
)
def test_not_better(gain, expected):
    def accuracy(c):
        return 0.86 + gain * c.bidirectional

    assert outcome(Bidirectional, accuracy, "not better") == expected


def test_single_run_does_not_decide_a_verdict():
    """One outlier run is not a difference between settings."""

    def accuracy(c):
        return 0.70 if c.bidirectional else 0.86

    assert outcome(Bidirectional, accuracy, "not better", [5]) == "inconclusive"
    width = results(
        Width(widths=[20, 100], seeds=TEN, **FULL), {"20 units": [0.7], "100 units": 0.87}
    )
    [compared] = compare(width)
    assert compared.outcome == "untested"
    assert np.isnan(compared.p)


def paces(gru, lstm):
    """Return accuracies by cell, which hold for validation in every epoch, too."""
    return lambda c: gru if c.cell == "gru" else lstm


@pytest.mark.parametrize(
    ("gru", "lstm", "expected"),
    [(0.88, 0.84, "confirmed"), (0.86, 0.86, "refuted"), (0.87, 0.859, "inconclusive")],
)
def test_slower(gru, lstm, expected):
    assert outcome(GruOptimizers, paces(gru, lstm), "GRUs learn in fewer epochs") == expected
    optimizers = {"Adagrad": lstm, "Adam": gru, "RMSprop": gru}
    assert outcome(LstmOptimizers, optimizers, "Adagrad is slow") == expected


def test_smaller():
    claim = "fewer parameters"
    assert outcome(GruOptimizers, {}, claim) == "confirmed"
    found = results(GruOptimizers(**FULL), {})
    [claim] = [c for c in found.part.claims() if claim in c.published]
    reversed_ = claim.__class__(claim.published, "", claim.rule, (claim.pairs[0][::-1],))
    assert judge(found, reversed_).outcome == "refuted"
    # Only claims about facts, which need no run, are never inconclusive.
    assert {c.rule for c in Reproduction(**FULL, lr=0.001).claims()} == set(RULES)


def test_missing_runs_are_inconclusive():
    found = results(Reproduction(**FULL, lr=0.001), {})
    decided = {v.claim.rule: v for v in verdicts(found) if v.outcome != "inconclusive"}
    assert set(decided) == {"smaller"}
    lines = table(verdicts(found))
    assert len(lines) == 16
    assert set(lines["evidence"][lines["verdict"] == "inconclusive"]) == {"not run"}


def test_part_and_reproduction_give_the_same_verdicts():
    """The same runs give the same verdict in every part."""
    part = Reproduction(seeds=TEN[:3], **FULL, lr=0.001)
    everything = [s for p in part.lab() for s in [*p.settings(), *p.others()]]

    class All(Reproduction):
        def others(self):
            return everything

    found = results(All(seeds=TEN[:3], **FULL, lr=0.001), lambda c: 0.87 - 0.05 * c.bidirectional)
    known = {v.claim: v for v in verdicts(found)}
    judged = [v for own in part.lab() for v in verdicts(found.of(own))]
    assert len(judged) == len(known) == 16
    assert all(known[v.claim] == v for v in judged)
    assert len({v.outcome for v in judged}) == 3
