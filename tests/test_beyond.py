"""Models without a network, and the defects in pairs: what is fitted on what, and what is said."""

import dataclasses
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from tiny import write_reviews

from labrnn.errors import LabError
from labrnn.lab import Results
from labrnn.parts import BeyondBaselines, BeyondDefects, Depth
from labrnn.reports import batch
from labrnn.results import baselines, beyond, defects, statistics
from labrnn.results.baselines import Baseline
from labrnn.reviews.sources import read_reviews
from labrnn.reviews.text import split_rows
from labrnn.trials.plan import Outcome
from labrnn.trials.store import Store

REVIEWS = 2000


def hits(accuracy, seed=0, reviews=REVIEWS):
    """Right on this share of the reviews, at random places."""
    right = np.arange(reviews) < round(accuracy * reviews)
    return np.random.default_rng([seed, round(accuracy * 1e6)]).permutation(right)


def trial(best, last=None, seed=5, reviews=REVIEWS):
    """A trial of these accuracies after the best epoch and after the last."""
    last = best if last is None else last
    labels = np.arange(reviews) % 2
    table = {
        which: np.where(hits(accuracy, seed, reviews) == (labels == 1), 0.9, 0.1)
        for which, accuracy in (("best", best), ("last", last))
    }
    loss = 0.3 if best > 0.55 else 0.693
    history = [{"epoch": 1, "train_loss": loss, "valid_loss": loss}]
    history[0] |= {"train_accuracy": best, "valid_accuracy": best}
    metrics = {
        which: {"epoch": 1, "accuracy": value, "accuracy_batch_mean": value - 0.001}
        for which, value in (("best", best), ("last", last))
    }
    return SimpleNamespace(
        metrics=metrics,
        history=history,
        vocabulary_size=100,
        environment={"seconds": 60.0},
        predictions=pd.DataFrame({"label": labels, **table}),
    )


def results(part, accuracies, seeds=(5,), otherwise=None):
    """Results of which the named settings were run, each seed with the accuracy given."""
    found = Results(part(seeds=list(seeds)), Outcome())
    for setting in found.settings:
        value = accuracies.get(setting.name, otherwise)
        if value is not None:
            for config in setting.trials(seeds):
                given = value if isinstance(value, tuple) else (value,)
                found.outcome.trials[config] = trial(*given, seed=config.seed)
    return found


def baseline(name, accuracy):
    return Baseline(name, 0.1, 1000, 2.0, accuracy, hits(accuracy, 1))


# Models without a network


def test_log_count_ratios_by_hand():
    # The positive reviews hold "good" twice and "film" once, the negative ones "film" and "bad".
    present = sparse.csr_matrix([[1, 1, 0], [1, 0, 0], [0, 1, 1]])  # good, film, bad
    found = baselines.log_count_ratios(present, np.array([1, 1, 0]))
    positive, negative = np.array([3, 2, 1]) / 6, np.array([1, 2, 2]) / 5
    assert found == pytest.approx(np.log(positive / negative))


def test_words_and_pairs_are_those_that_two_reviews_have():
    features = baselines.occurrences("keep", 2)
    matrix = features.fit_transform(["Not good  at", "not good.", "a not GOOD good"])
    names = features.get_feature_names_out()
    assert set(names) == {"not", "good", "not good"}
    assert matrix.toarray()[:, names == "good"].ravel().tolist() == [1, 0, 1]
    dropped = baselines.occurrences("drop", 2).fit(["not good film", "good or film"])
    assert set(dropped.get_feature_names_out()) == {"good", "film", "good film"}


def test_linear_models_learn_what_the_majority_cannot(reviews, corpus):
    found = baselines.measure(reviews, corpus.rows)
    validation = {model["name"]: model["validation"] for model in found["models"]}
    assert validation["majority"] < 0.7
    assert all(v > 0.9 for name, v in validation.items() if name != "majority")


def test_nothing_of_the_test_reviews_reaches_fitting_or_choice(reviews, corpus):
    def without_test(found):
        return [
            {k: v for k, v in m.items() if k not in ("test", "seconds")} for m in found["models"]
        ]

    texts, labels = list(reviews.texts), reviews.labels.copy()
    for row in corpus.rows["test"]:
        texts[row], labels[row] = "great unheard words unheard words", 1 - labels[row]
    other = dataclasses.replace(reviews, texts=texts, labels=labels)
    before, after = (baselines.measure(r, corpus.rows) for r in (reviews, other))
    assert without_test(before) == without_test(after)
    assert before["labels"] != after["labels"]
    assert before["models"][1]["test"] != after["models"][1]["test"]

    for split in ("train", "valid"):  # and the comparison above would notice
        texts = list(reviews.texts)
        for row in corpus.rows[split][::2]:
            texts[row] = "great unheard words unheard words"
        other = dataclasses.replace(reviews, texts=texts)
        assert without_test(baselines.measure(other, corpus.rows)) != without_test(before)


@pytest.mark.parametrize(("count", "classes"), [(1, 1), (2, 1), (2, 2), (5, 1), (5, 2)])
def test_too_few_training_reviews_for_a_linear_model(count, classes, reviews, tmp_path):
    """One review, or one class, is refused; two reviews that share a word are enough."""
    first = split_rows(np.arange(len(reviews.texts)))["train"][:count]
    labels = reviews.labels.copy()
    labels[first] = np.arange(count) % classes
    texts = [f"{text} film " * 5 for text in reviews.texts]
    few = dataclasses.replace(reviews, texts=texts, labels=labels)
    data, store = write_reviews(few, tmp_path / "reviews.csv"), Store(tmp_path / "trials")
    part = BeyondBaselines(data=data, train_reviews=count)
    if classes == 2:
        assert len(baselines.find(part, store)) == 7
        return
    with pytest.raises(
        LabError, match=rf"no linear baseline .* \(train_reviews = {count}\).*; raise"
    ):
        baselines.find(part, store)


def test_training_reviews_without_a_common_word_or_of_one_class(reviews, corpus):
    """Stop words are no words here: half of the models drop them."""
    for texts, labels in (
        ([f"the w{i}" for i in range(len(reviews.texts))], reviews.labels),
        (reviews.texts, np.ones_like(reviews.labels)),
    ):
        other = dataclasses.replace(reviews, texts=texts, labels=labels)
        found = baselines.measure(other, corpus.rows)
        assert [model["name"] for model in found["models"]] == ["majority"]


def test_results_are_kept_and_read_without_the_reviews(reviews, tmp_path):
    data, store = write_reviews(reviews, tmp_path / "reviews.csv"), Store(tmp_path / "trials")
    part = BeyondBaselines(data=data, train_reviews=150)
    found = baselines.find(part, store)
    assert len(found) == 7
    print_ = read_reviews(data).fingerprint
    assert len(list((store.root / print_).glob("baselines-*.json"))) == 1
    gone = {"data": str(tmp_path / "gone.csv"), "fingerprint": print_}
    away = BeyondBaselines(train_reviews=150, **gone)
    for before, after in zip(found, baselines.find(away, store), strict=True):
        assert before.name == after.name
        assert before.correct.tolist() == after.correct.tolist()
        assert before.correct.dtype == bool
    assert baselines.find(BeyondBaselines(train_reviews=100, **gone), store) == []


def test_other_parts_find_the_best_and_their_reports_follow_it(reviews, tmp_path, monkeypatch):
    data, store = write_reviews(reviews, tmp_path / "reviews.csv"), Store(tmp_path / "trials")
    part, kept = Depth(data=data, train_reviews=150), tmp_path / "trials"
    trials = [SimpleNamespace(fingerprint=read_reviews(data).fingerprint, folder=tmp_path)]
    (tmp_path / "DONE").touch()

    params = tmp_path / "lab2c_depth.yaml"
    params.write_text(f"data: {data}\nstore: {kept}\ntrain_reviews: 150\n")
    fingerprint = trials[0].fingerprint
    report = replace(batch.plan([params])[0], trials=trials, reviews=fingerprint)
    before = report.kept()
    assert baselines.best(part, trials, store) is None
    baselines.find(BeyondBaselines(data=data, train_reviews=150, store=str(kept)), store)
    bar = baselines.best(part, trials, store)
    found = {model.name: model for model in baselines.find(part, store)}
    assert bar.validation == max(model.validation for model in found.values())
    assert bar.accuracy == found[bar.name].correct.mean()
    name = baselines.kept_file(part)
    assert before[name] != report.kept()[name]
    assert baselines.best(Depth(data=data, train_reviews=100), trials, store) is None
    assert baselines.best(part, [], store) is None


BARS = {
    0.80: "a bar that these networks stay under",
    0.898: "within noise of each other",
    0.95: "it passes this bar",
}


@pytest.mark.parametrize(("network", "says"), BARS.items())
def test_the_bar_is_one_only_where_networks_stay_under_it(network, says):
    found = results(BeyondBaselines, {"LSTM": network, "GRU": network - 0.01}, seeds=(5, 6, 7))
    models = [
        baseline("majority", 0.5),
        baseline("NB-SVM, all words", 0.9),
        baseline("NB-SVM, no stop words", 0.85),
    ]
    compared = beyond.comparisons(models, found)
    text = beyond.discussion(models, found, compared)
    assert [bar for bar in BARS.values() if bar in text] == [says]
    assert "To keep the stop words, negations among them, helps NB-SVM, +5.0 points" in text
    assert re.search(r"linear model's lead over \*GRU\*, which has 0\.\d+ \(.*\), is [+−]\d", text)
    table = beyond.table(models, found, compared)
    assert table["model"].tolist() == [*(m.name for m in models), "LSTM", "GRU"]
    assert table["n"].tolist() == ["1", "1", "1", "3", "3"]


def test_one_seed_is_compared_by_mcnemar():
    found = results(BeyondBaselines, {"LSTM": 0.8})
    model = baseline("NB-SVM, word pairs", 0.83)
    [c] = beyond.comparisons([model], found)
    [network] = found.correct(c.second)
    assert c.p == statistics.mcnemar(model.correct, network)


def test_missing_models_and_networks_are_said_to_be_missing():
    none = results(BeyondBaselines, {})
    assert "were not run" in beyond.discussion([], none, [])
    models = [baseline("NB-SVM, all words", 0.9), baseline("NB-SVM, no stop words", 0.9)]
    text = beyond.discussion(models, none, beyond.comparisons(models, none))
    assert "None of this part's settings was run" in text
    assert "makes no clear difference to NB-SVM" in text


# Defects


def test_each_pair_differs_in_one_field():
    for right, old in BeyondDefects().pairs():
        mine, theirs = right.config.model_dump(), old.config.model_dump()
        assert sum(mine[name] != theirs[name] for name in mine) == 1


def test_texts_follow_the_trials():
    seeds = (5, 6, 7)
    found = results(
        BeyondDefects,
        {"Forget bias 1 (3 layers)": 0.86, "3 layers": 0.5, "Negations kept": 0.9},
        seeds,
        otherwise=0.85,
    )
    text = defects.discussion(found, defects.comparisons(found))
    better = text.split("Within noise")[0]
    assert "The right way is better:" in better
    assert "moves a test accuracy of these trainings by up to 0.10 points" in text
    assert "Forget bias 1 (3 layers), +36.0 points" in better
    assert "Negations kept, +5.0 points" in better
    assert "Forget bias 1 (1 layer)" in text.split("Within noise")[1]
    assert "between +0.0 and +0.0 points" in text
    assert "three layers did not train" in text.lower()

    found = results(BeyondDefects, {"Negations kept": 0.8}, seeds, otherwise=0.85)
    text = defects.discussion(found, defects.comparisons(found))
    assert "The published way is better than what is called right: Negations kept" in text
    assert "The right way is better" not in text


def test_best_and_last_epoch_are_two_tests_of_one_training():
    found = results(BeyondDefects, {"1 layer": (0.88, 0.84)}, (5, 6, 7))
    [c] = defects.comparisons(found)
    assert (c.first.name, c.second.name) == ("Best epoch (1 layer)", "Last epoch (1 layer)")
    assert c.difference.mean == pytest.approx(0.04)
    [line] = defects.table(found, [c]).to_dict("records")
    assert line["accuracy"].startswith("0.880")
    assert line["accuracy "].startswith("0.840")


def test_duplicates_are_compared_as_two_samples():
    found = results(BeyondDefects, {"1 layer": 0.85, "Duplicates dropped": 0.83}, (5,))
    config = found["Duplicates dropped"].config.but(seed=5)
    found.outcome.trials[config] = trial(0.83, seed=9, reviews=1500)  # other test reviews
    c = next(c for c in defects.comparisons(found) if c.first.name == "Duplicates dropped")
    assert c.difference.mean == pytest.approx(-0.02)

    # With one seed it is Welch's t-test on the hits.
    mine, theirs = (found.correct(s)[0].astype(float) for s in (c.first, c.second))
    welch = stats.ttest_ind(mine, theirs, equal_var=False)
    interval = welch.confidence_interval(0.95)
    plain = statistics.unpaired([mine], [theirs])
    assert plain.p == pytest.approx(welch.pvalue)
    assert (plain.low, plain.high) == pytest.approx(tuple(interval))
    assert (c.difference.low, c.difference.high) == (plain.low, plain.high)
    assert plain.reviews == 1500


def test_unpaired_intervals_cover():
    """Reviews, seeds and their meetings vary; each side has reviews and seeds of its own."""
    random = np.random.default_rng(3)
    per_review, per_seed, rest = 0.5, 0.1, 1.0
    total = (per_review**2 + per_seed**2 + rest**2) ** 0.5
    covered = []
    for _ in range(400):
        sides = []
        for accuracy, reviews in ((0.85, 400), (0.82, 300)):
            ease = random.normal(0, per_review, reviews)
            skill = random.normal(stats.norm.ppf(accuracy) * total, per_seed, (3, 1))
            sides.append(random.normal(skill + ease, rest) > 0)
        estimate = statistics.unpaired(*sides)
        covered.append(estimate.low <= 0.03 <= estimate.high)
    assert 0.92 < np.mean(covered) < 0.98
