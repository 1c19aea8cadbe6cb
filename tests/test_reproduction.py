"""The published trainings beside ours: counts, noise and verdicts follow the trials."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from labrnn.results.conclusions import CLAIMS, conclusions, judge
from labrnn.results.published import VOCABULARY_SIZE, published

from labrnn.lab import Results
from labrnn.parts import (
    Bidirectional,
    Compound,
    Depth,
    EmbeddingSize,
    Gru,
    GruOptimizers,
    Lstm,
    LstmOptimizers,
    Part,
    Reproduction,
    Width,
)
from labrnn.results import reproduction
from labrnn.results.comparison import seed_spread
from labrnn.results.figures import agreement
from labrnn.trials.running import Outcome

REVIEWS = 2000


def trial(accuracy, seed=5):
    """A trial whose models are right on this share of the test reviews, at random places."""
    right = np.zeros(REVIEWS, bool)
    right[: round(accuracy * REVIEWS)] = True
    np.random.default_rng([seed, round(accuracy * 1e6)]).shuffle(right)
    labels = np.arange(REVIEWS) % 2
    probability = np.where(right == (labels == 1), 0.9, 0.1)
    learnt = accuracy > 0.55
    history = [
        {
            "epoch": e,
            "train_loss": 0.3 if learnt else 0.693,
            "valid_accuracy": accuracy,
            "train_seconds": 1.0,
        }
        for e in range(1, 6)
    ]
    metrics = {"epoch": 3, "accuracy": right.mean(), "accuracy_batch_mean": right.mean()}
    return SimpleNamespace(
        metrics={"best": metrics, "last": metrics | {"epoch": 5}},
        history=history,
        vocabulary_size=VOCABULARY_SIZE,
        predictions=pd.DataFrame({"label": labels, "best": probability, "last": probability}),
    )


def results(seeds=(5,), accuracies=None, **changes):
    """Results of which every published training was run, with its published accuracy."""
    part = Reproduction(seeds=list(seeds), train_reviews=0, max_tokens=256, batch_size=96, lr=0.001)
    known = published().test_acc.tolist() if accuracies is None else accuracies
    outcome = Outcome()
    for setting, accuracy in zip(part.settings(), known, strict=True):
        accuracy = changes.get(setting.name.removeprefix("figure ").replace(" ", "_"), accuracy)
        for readout in ("last_step", "final_state"):
            for seed in seeds:
                config = setting.config.but(seed=seed, readout=readout)
                if accuracy is not None:
                    outcome.trials[config] = trial(accuracy, seed)
                else:
                    outcome.trials.pop(config, None)
    return Results(part, outcome)


def test_every_training_has_its_published_size():
    rows = reproduction.compare(results())
    assert len(rows) == 79
    assert [row.parameters for row in rows] == published().num_params.tolist()


def test_the_published_figures_agree_with_themselves():
    found = results()
    rows = reproduction.compare(found)
    assert all(row.agrees for row in rows)
    text = reproduction.summary(rows, found)
    assert "79 of the 79 trainings were run. In 79 of them" in text
    assert len(reproduction.table(rows)) == 79


def test_a_training_that_differs_is_named():
    found = results(**{"3c": 0.80})
    rows = reproduction.compare(found)
    [other] = [row for row in rows if not row.agrees]
    assert other.setting.name == "figure 3c"
    assert "figure 3c (−7.0 points)" in reproduction.summary(rows, found)


def test_what_was_not_run_is_shown_as_not_run():
    found = results(**{"3c": None})
    rows = reproduction.compare(found)
    line = reproduction.table(rows).query("figure == '3c'").iloc[0]
    assert line["last epoch"] == "–"
    assert line["gap, points"] == ""
    assert "78 of the 79" in reproduction.summary(rows, found)
    assert judge(found, "RMSprop is the best optimiser of the LSTM") == (
        None,
        "RMSprop was not run",
    )


def test_several_seeds_widen_the_noise_by_their_spread():
    one = results(seeds=(5,))
    assert np.isnan(seed_spread([one], "last"))
    several = results(seeds=(5, 6))
    for seed, shift in ((5, 0.02), (6, -0.02)):
        for setting in several.settings:
            config = setting.config.but(seed=seed)
            several.outcome.trials[config] = trial(0.86 + shift, seed)
    assert seed_spread([several], "last") == pytest.approx(0.02 * 2**0.5, rel=0.01)
    assert reproduction.compare(several)[3].noise > reproduction.compare(one)[3].noise


def test_seeds_that_fail_widen_the_noise_of_their_own_setting_only():
    found = results(seeds=(5, 6))
    before = reproduction.compare(found)
    failed = found.settings[3].config.but(seed=6)
    found.outcome.trials[failed] = trial(0.5, 6)
    after = reproduction.compare(found)
    assert after[3].noise > 0.3
    assert after[4].noise == pytest.approx(before[4].noise, rel=0.05)


def test_what_all_trainings_tell_together():
    found = results(accuracies=[a + 0.01 for a in published().test_acc])
    for trials in found.outcome.trials.values():
        trials.metrics["best"] = trials.metrics["best"] | {
            "accuracy": trials.metrics["last"]["accuracy"] + 0.02
        }
    text = reproduction.summary(reproduction.compare(found), found)
    assert "ours are +1.00 points from the published ones" in text
    assert "instead of the last is worth +2.00 points on average" in text


def test_the_published_way_is_a_mean_over_batches():
    found = results()
    config = found.settings[3].config.but(seed=5)
    found.outcome.trials[config].metrics["last"]["accuracy_batch_mean"] = 0.75
    assert reproduction.compare(found)[3].last == 0.75


SGD = "the LSTM does not train with SGD at 0.01 in five epochs"
DEEP, WIDE = "three layers hardly train and four do not", "a width of 319 units fails"
EQUAL, BEST = "two layers equal one", "RMSprop is the best optimiser of the LSTM"
GRID = "the best compound model is E32 H305 L2"


def test_verdicts_on_the_published_figures_themselves():
    table = conclusions(results())
    assert table["published conclusion"].str.lower().tolist() == [c.lower() for c in CLAIMS]
    found = dict(zip(CLAIMS, table["verdict"], strict=True))
    assert found[SGD] == "confirmed"
    # One seed each: the published report could not know this.
    assert {found[claim] for claim in (DEEP, WIDE, BEST, EQUAL, GRID)} == {"undecided"}
    several = results(seeds=(5, 6, 7))
    assert [judge(several, claim)[0] for claim in (SGD, DEEP, WIDE)] == [True] * 3


def test_verdicts_change_with_the_trials():
    found = results(seeds=(5, 6), **{"1": 0.85, "6h": 0.87, "5d": 0.86})
    assert [judge(found, claim)[0] for claim in (SGD, DEEP, WIDE)] == [False] * 3


def test_three_seeds_decide_what_one_leaves_open():
    lead = {"3c": 0.93, "5b": 0.80, "E32_H280_L1": 0.95}
    for seeds, verdicts in (((5,), [None] * 3), ((5, 6, 7), [True, False, False])):
        found = results(seeds=seeds, **lead)
        assert [judge(found, claim)[0] for claim in (BEST, EQUAL, GRID)] == verdicts
    assert judge(results(seeds=(5, 6, 7), **{"3c": 0.80}), BEST)[0] is False


def test_a_part_judges_as_the_reproduction_does():
    """On the same trainings: there is one rule."""
    found, judged = results(seeds=(5, 6, 7), **{"3c": 0.93, "E32_H305_L2": 0.95, "4a": 0.9}), set()
    same = {name: getattr(found.part, name) for name in Part.model_fields if name != "train"}
    same |= {"lr": 0.001}
    sgd = same | {"lr": 0.01}
    studies = {"widths": [10, 20, 100, 150, 200, 260, 285, 319]}
    parts = [Lstm(**sgd), Gru(**sgd), LstmOptimizers(**same), GruOptimizers(**same), Depth(**same)]
    parts += [
        Width(**same, **studies),
        EmbeddingSize(**same, sizes=[1, 2, 8, 32, 64, 128, 188, 256]),
    ]
    parts += [Compound(**same, widths=[20, 280, 290, 305], sizes=[32, 188, 256])]
    parts += [Bidirectional(**same, wide=305)]
    for part in parts:
        own = Results(part, found.outcome)
        for claim in CLAIMS:
            holds, reason = judge(own, claim)
            if not re.search("not run|^0 of 0|no pair|too few", reason):
                assert holds is judge(found, claim)[0], claim
                judged.add(claim)
    assert judged == set(CLAIMS)


def test_the_figure_draws_what_was_run():
    axes = agreement(reproduction.compare(results(**{"3c": 0.80}))).axes[0]
    assert [len(c.lines[0].get_xdata()) for c in axes.containers] == [78, 1]
