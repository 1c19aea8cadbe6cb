"""The best classifier: what its levers are, what is said of them, and what its model sees."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from test_beyond import results
from tiny import train, write_reviews

from labrnn.network.prediction import predict
from labrnn.parts import BeyondBest
from labrnn.results import comparison, insight, levers
from labrnn.results.insight import Insight
from labrnn.reviews.text import load_corpus
from labrnn.trials.store import Store
from labrnn.trials.trial import Trial

BEST = "classifier with every lever"


def test_each_setting_lacks_one_lever_and_nothing_else():
    part = BeyondBest()
    best, *lacking = part.settings()
    assert best.name == BEST
    assert len(lacking) == len(part.levers())
    lab, whole = part.base.model_dump(), best.config.model_dump()
    for setting, fields in zip(lacking, part.levers().values(), strict=True):
        mine = setting.config.model_dump()
        changed = {name for name in mine if mine[name] != whole[name]}
        assert changed == set(fields)
        assert all(mine[name] == lab[name] for name in changed)


def said(accuracies, seeds=(5, 6, 7)):
    found = results(BeyondBest, accuracies, seeds)
    compared = comparison.against(found, found[BEST])
    return levers.discussion(found, compared)


def test_a_lever_that_carries_and_one_that_does_not():
    text = said({BEST: 0.9, "Without bigrams": 0.8, "Without pooling": 0.9})
    assert "With every lever the test accuracy is 0.900" in text
    assert re.search(r"It is clearly worse without bigrams, −10\.0 points", text)
    assert re.search(r"Within noise of the whole: without pooling, [+−]\d\.\d points", text)
    assert "Better than the whole" not in text
    turned = said({BEST: 0.8, "Without bigrams": 0.9})
    assert "Better than the whole: without bigrams, +10.0 points" in turned


def test_one_seed_decides_nothing():
    assert "leaves the levers open" in said({BEST: 0.9, "Without bigrams": 0.8}, seeds=(5,))


def test_nothing_was_run():
    assert "None of this part's settings was run" in said({})


# ------------------------------------------------------------------------- what the model sees


def seen(positive, label, lengths=None):
    table = pd.DataFrame({"best": positive, "label": label})
    return Insight(table, np.arange(len(table)) if lengths is None else lengths, [], [])


def test_calibration_by_hand():
    table = pd.DataFrame({"best": [0.05, 0.05, 0.95, 0.92, 1.0], "label": [0, 1, 1, 1, 0]})
    points, error = insight.calibration(table)
    assert points == [
        (pytest.approx(0.05), 0.5, 2),
        (pytest.approx((0.95 + 0.92 + 1) / 3), pytest.approx(2 / 3), 3),
    ]
    assert error == pytest.approx((2 * 0.45 + 3 * (2.87 / 3 - 2 / 3)) / 5)


def test_groups_of_length_hold_each_review_once():
    random = np.random.default_rng(0)
    lengths = random.integers(1, 50, 1000)
    label = random.integers(0, 2, 1000)
    right = random.random(1000) < 0.8
    view = seen(np.where(right == (label == 1), 0.9, 0.1), label, lengths)
    groups = insight.by_length(view)
    assert sum(estimate.reviews for *_, estimate in groups) == 1000
    assert groups[0][0] == lengths.min()
    assert groups[-1][1] == lengths.max()
    total = sum(estimate.mean * estimate.reviews for *_, estimate in groups)
    assert total == pytest.approx(right.sum())
    for k, (low, high, estimate) in enumerate(groups):
        inside = (lengths <= high) & (lengths >= low)
        assert k == 0 or low == groups[k - 1][1] + 1
        assert estimate.mean == pytest.approx(right[inside].mean())
    assert insight.by_length(seen([0.9], [1], np.array([3]))) == []


def test_sentences_follow_the_predictions():
    label = np.arange(1000) % 2
    lengths = np.arange(1000) // 2
    longer_is_worse = np.where(lengths < 250, 1, np.arange(1000) % 3 > 0)
    positive = np.where(longer_is_worse == label, 0.999, 0.001)
    pairs = [[0.9, 0.2], [0.1, 0.4], [0.6, 0.7]]
    view = Insight(pd.DataFrame({"best": positive, "label": label}), lengths, [], pairs)
    text = insight.discussion(view)
    assert "the length makes a difference (chi-squared test, p < 0.001)" in text
    assert "too sure of itself" in text
    assert "in 2 of 3 hand-made pairs and beyond even odds in 1" in text
    even = Insight(view.predictions.assign(best=np.where(label == 1, 0.8, 0.2)), lengths, [], pairs)
    text = insight.discussion(even)
    assert "makes no clear difference (chi-squared test, p = 1.000)" in text
    assert "less sure than it could be" in text
    right = np.arange(1000) % 10 > 0
    fair = even.predictions.assign(best=np.where(right == label, 0.9, 0.1))
    text = insight.discussion(Insight(fair, lengths, [], pairs))
    assert "about as sure as it is right" in text
    assert "not at hand" in insight.discussion(None)


@pytest.fixture
def stored(reviews, tmp_path):
    """A part and a trial of two epochs on the generated reviews, and its store."""
    data = write_reviews(reviews, tmp_path / "reviews.csv")
    part = BeyondBest(
        data=data,
        epochs=2,
        train_reviews=0,
        batch_size=16,
        hidden_dim=10,
        embedding_dim=4,
        lr=0.01,
        min_bigram_count=2,
    )
    store = Store(tmp_path / "store")
    return part, train(part.settings()[0].config, data, store), store


def test_an_insight_is_of_the_trials_own_model_and_reviews(stored, reviews):
    part, trial, store = stored
    view = insight.find(part, trial, store)
    corpus = load_corpus(trial.config, part.data)
    assert view.lengths.tolist() == corpus.lengths[trial.predictions["row"]].tolist()
    for sentences, found in zip(insight.PAIRS, view.pairs, strict=True):
        for answer, positive in zip(predict(trial, corpus, list(sentences)), found, strict=True):
            assert positive == pytest.approx(
                answer.probability if answer.label == "positive" else 1 - answer.probability
            )
    table = trial.predictions
    given = np.where(table["label"] == 1, table["best"], 1 - table["best"])
    wrong = np.sort(given[given < 0.5])[: insight.MISTAKES]
    assert [m["probability"] for m in view.mistakes] == wrong.tolist()
    assert all(any(text.startswith(m["text"]) for text in reviews.texts) for m in view.mistakes)
    assert len(insight.mistakes_table(view)) == len(wrong)
    assert len(insight.negation_table(view)) == len(insight.PAIRS)
    assert insight.discussion(view)


def test_an_insight_outlives_weights_and_reviews(stored, tmp_path):
    part, trial, store = stored
    fresh = Store(tmp_path / "fresh")
    expected = insight.find(part, trial, store)
    (trial.folder / "model.safetensors").unlink()
    trial = Trial(trial.folder)
    assert insight.find(part, trial, fresh) is None
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    (tmp_path / "reviews.csv").unlink()
    again = insight.find(part, trial, store)
    assert again.pairs == expected.pairs
    assert again.mistakes == expected.mistakes
    assert insight.find(part, None, store) is None


def test_an_excerpt_is_plain_and_short():
    text = "A <br /><br />film " + "word " * 100
    excerpt = insight._excerpt(text)
    assert excerpt.startswith("A film word")
    assert excerpt.endswith(" …")
    assert len(excerpt) <= insight.EXCERPT + 2
