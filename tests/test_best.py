"""The best classifier: its components, their report, and insight into its model."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from fake_results import baseline, results
from tiny import train, write_reviews

from labrnn import cli
from labrnn.network import shipped
from labrnn.network.prediction import predict
from labrnn.parts import BeyondBest
from labrnn.results import beyond, insight
from labrnn.results.comparison import compare
from labrnn.results.insight import Insight
from labrnn.reviews.text import load_corpus
from labrnn.trials.store import PROJECT, Store
from labrnn.trials.trial import Trial
from tools import ship

WHOLE, SINGLE = (setting.name for setting in BeyondBest().networks())


def test_each_ablation_removes_exactly_one_component():
    part = BeyondBest()
    whole, single, *ablated = part.settings()
    assert part.networks() == [whole, single]
    assert single.config == whole.config.replace(members=1)
    assert len(ablated) == len(part.components()) == len(part.pairs()) - 1
    lab, all_ = part.base.model_dump(), single.config.model_dump()
    for setting, fields in zip(ablated, part.components().values(), strict=True):
        mine = setting.config.model_dump()
        changed = {name for name in mine if mine[name] != all_[name]}
        assert changed == set(fields)
        assert all(mine[name] == lab[name] for name in changed)


def components_text(accuracies, seeds=(5, 6, 7)):
    found = results(BeyondBest(seeds=list(seeds)), accuracies)
    return beyond.on_components(found, compare(found))


def test_text_names_components_that_matter():
    text = components_text(
        {WHOLE: 0.9, SINGLE: 0.9, "without trigrams": 0.8, "without punctuation": 0.9}
    )
    assert text.startswith(
        "Our best recurrent classifier is an ensemble of three LSTMs that also read"
    )
    assert re.search(
        r"A network is significantly less accurate without trigrams \(−(9|10)\.\d points \[.*\)\.",
        text,
    )
    assert "without punctuation." in text
    assert "more accurate" not in text
    two = components_text(
        {WHOLE: 0.9, SINGLE: 0.9, "without trigrams": 0.8, "without punctuation": 0.8}
    )
    assert re.search(
        r"less accurate without \w+ \(.*\) and, by smaller amounts, without \w+\.", two
    )
    turned = components_text({WHOLE: 0.8, SINGLE: 0.8, "without trigrams": 0.9})
    assert "It is significantly more accurate without trigrams." in turned


@pytest.mark.parametrize(
    ("accuracy", "says"),
    [(0.8, "significantly more accurate than"), (0.95, "significantly less accurate than")],
)
def test_the_ensemble_is_compared_with_the_best_baseline(accuracy, says):
    found = results(BeyondBest(seeds=[5, 6, 7]), {WHOLE: 0.9, SINGLE: 0.88})
    models = [baseline("NB-SVM, trigrams", accuracy), baseline("majority", 0.5)]
    bars = beyond.baseline_comparisons(models, found, [found.part.networks()[0]])
    text = beyond.on_components(found, compare(found), bars)
    assert f"The ensemble is {says} *NB-SVM, trigrams* (" in text.partition("\n\n")[0]


def test_single_run_is_not_tested():
    text = components_text({WHOLE: 0.9, SINGLE: 0.9, "without trigrams": 0.8}, seeds=(5,))
    assert "significantly" not in text
    assert "Settings with a single run are not tested: without trigrams" in text


def test_missing_settings_are_counted():
    assert "11 of 11 settings were not run" in components_text({})


# ------------------------------------------------------------------------- insight into the model


def insight_of(positive, label, lengths=None):
    table = pd.DataFrame({"best": positive, "label": label})
    return Insight(table, np.arange(len(table)) if lengths is None else lengths, [], [])


def test_calibration_matches_hand_computation():
    table = pd.DataFrame({"best": [0.05, 0.05, 0.95, 0.92, 1.0], "label": [0, 1, 1, 1, 0]})
    points, error = insight.calibration(table)
    assert points == [
        (pytest.approx(0.05), 0.5, 2),
        (pytest.approx((0.95 + 0.92 + 1) / 3), pytest.approx(2 / 3), 3),
    ]
    assert error == pytest.approx((2 * 0.45 + 3 * (2.87 / 3 - 2 / 3)) / 5)


def test_length_groups_contain_each_review_once():
    random = np.random.default_rng(0)
    lengths = random.integers(1, 50, 1000)
    label = random.integers(0, 2, 1000)
    right = random.random(1000) < 0.8
    view = insight_of(np.where(right == (label == 1), 0.9, 0.1), label, lengths)
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
    assert insight.by_length(insight_of([0.9], [1], np.array([3]))) == []


def test_text_follows_the_predictions():
    label = np.arange(1000) % 2
    lengths = np.arange(1000) // 2
    longer_is_worse = np.where(lengths < 250, 1, np.arange(1000) % 3 > 0)
    positive = np.where(longer_is_worse == label, 0.999, 0.001)
    pairs = [[0.9, 0.2], [0.1, 0.4], [0.6, 0.7]]
    view = Insight(pd.DataFrame({"best": positive, "label": label}), lengths, [], pairs)
    text = insight.discussion(view)
    assert "effect of the length is significant (χ² test over five groups, p < 0.001)" in text
    assert "The model is overconfident" in text
    assert "in 2 of 3 constructed pairs and changes the class in 1" in text
    even = Insight(view.predictions.assign(best=np.where(label == 1, 0.8, 0.2)), lengths, [], pairs)
    text = insight.discussion(even)
    assert "is not significant (χ² test over five groups, p > 0.99)" in text
    assert "The model is underconfident" in text
    right = np.arange(1000) % 10 > 0
    fair = even.predictions.assign(best=np.where(right == label, 0.9, 0.1))
    text = insight.discussion(Insight(fair, lengths, [], pairs))
    assert "well calibrated on average" in text
    assert "missing" in insight.discussion(None)


@pytest.fixture
def stored(reviews, tmp_path):
    """A part, its trial of two epochs on the generated reviews, and the store."""
    data = write_reviews(reviews, tmp_path / "reviews.csv")
    small = {"train_reviews": 0, "hidden_dim": 10, "embedding_dim": 4, "min_bigram_count": 2}
    small |= {"min_trigram_count": 2}
    part = BeyondBest(data=data, epochs=2, batch_size=16, lr=0.01, **small)
    store = Store(tmp_path / "store")
    return part, train(part.settings()[0].config, data, store), store


def test_insight_uses_the_model_and_reviews_of_its_trial(stored, reviews):
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


def test_insight_is_kept_without_weights_and_reviews(stored, tmp_path):
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


# ---------------------------------------------------------------- the shipped network


def test_shipped_network_classifies_plain_sentences():
    """The sentences were written before any prediction and selected no model."""
    path = PROJECT / "tests" / "data" / "sentences.csv"
    sentences = pd.read_csv(path)
    assert len(sentences) == 40
    answers = predict(*shipped.read(), sentences["sentence"].tolist())
    right = [a.label for a in answers] == sentences["label"]
    assert right.sum() >= 36
    assert shipped.FILE.stat().st_size <= 10_000_000


def test_shipped_network_matches_its_training_run(stored, tmp_path, monkeypatch):
    part, trial, _ = stored
    corpus = load_corpus(trial.config, part.data)
    texts = ["A great film, not bad.", "word w1 w2", "awful"]
    monkeypatch.setattr(shipped, "FILE", tmp_path / "best.safetensors")
    expected = [a.positive for a in predict(trial, corpus, texts)]
    codes = np.concatenate([corpus.bigrams, corpus.trigrams])
    for most in (len(codes), 5):
        shipped.FILE.write_bytes(ship.ship(trial, corpus, most))
        found, words = shipped.read()
        assert (found.key, found.config) == (trial.key, trial.config)
        assert words.words == corpus.words
        kept = [np.isin(getattr(corpus, n), getattr(words, n)) for n in ("bigrams", "trigrams")]
        kept = np.concatenate(kept)
        assert kept.sum() == len(words.bigrams) + len(words.trigrams) == most
        size = len(corpus.words) + 2
        for name, table in ((n, t) for n, t in trial.weights().items() if "embedding" in n):
            rows = torch.cat([table[:size], table[size:][torch.from_numpy(kept)]])
            allowed = (
                rows.abs().amax(1, keepdim=True) / 200 + 1e-6
            )  # half a quantisation step of 1/127, plus float16
            assert ((found.tensors[name] - rows).abs() <= allowed).all()
        lengths = sum(
            t[size:].square().sum(1) for n, t in trial.weights().items() if "embedding" in n
        ).numpy()
        assert most == len(kept) or lengths[kept].min() >= lengths[~kept].max()
        answers = predict(found, words, texts)
        if most > 5:
            assert [a.positive for a in answers] == pytest.approx(expected, abs=0.01)


def test_predict_works_without_a_stored_run(tmp_path, monkeypatch):
    monkeypatch.delenv("LABRNN_DATA", raising=False)
    monkeypatch.setenv("LABRNN_STORE", str(tmp_path / "none"))
    done = CliRunner().invoke(
        cli.main, ["predict", "Wonderful, a delight.", "Two hours of boredom."]
    )
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[0].startswith("positive")
    assert any(line.startswith("negative") for line in done.output.splitlines())


def test_an_excerpt_is_plain_and_short():
    text = "A <br /><br />film " + "word " * 100
    excerpt = insight._excerpt(text)
    assert excerpt.startswith("A film word")
    assert excerpt.endswith(" …")
    assert len(excerpt) <= insight.EXCERPT + 2


def test_slurs_are_masked():
    assert insight.SLURS.sub("[…]", "then you are a retard, or a Retarded fag") == (
        "then you are a […], or a […] […]"
    )
    assert (
        insight.SLURS.sub("[…]", "spicy, flag, a despicable chin")
        == "spicy, flag, a despicable chin"
    )


def test_the_standard_split_is_reported_from_its_table():
    table = beyond.standard_split()
    assert (table[["train", "valid", "test"]].sum(axis=1) == 50_000).all()
    text = beyond.on_standard_split()
    for row in table.itertuples():
        assert f"{row.model}" in text
        assert f"{100 * row.test_correct / row.test:.1f} %" in text
