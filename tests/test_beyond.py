"""Linear baselines and paired comparisons of the published choices: fitting and reports."""

import dataclasses
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from fake_results import baseline, results, run
from scipy import sparse
from tiny import write_reviews

from labrnn.errors import LabError
from labrnn.parts import BeyondBaselines, BeyondDefects, Depth, Setting, read_params
from labrnn.reports import batch
from labrnn.results import baselines, beyond, linear, statistics
from labrnn.results.comparison import compare
from labrnn.results.table import Results, Runs, stored
from labrnn.results.tables import pairs_table
from labrnn.reviews.sources import read_reviews
from labrnn.reviews.text import split_rows
from labrnn.trials.store import PROJECT, Store

SEEDS = [5, 6, 7]


# Linear baselines


def test_log_count_ratios_match_hand_computation():
    # The positive reviews contain "good" twice and "film" once, the negative one "film" and "bad".
    present = sparse.csr_matrix([[1, 1, 0], [1, 0, 0], [0, 1, 1]])  # good, film, bad
    found = linear.ratios(present, np.array([1, 1, 0]))
    positive, negative = np.array([3, 2, 1]) / 6, np.array([1, 2, 2]) / 5
    ratios = np.log(positive / negative)
    assert found == pytest.approx(ratios)


def test_features_are_ngrams_shared_by_two_reviews():
    """Punctuation is a token; markup is not."""
    features = linear.occurrences(3)
    matrix = features.fit_transform(
        ["Not good at all!<br />", "not good.<br />At last!", "NOT good at: good good"]
    )
    names = features.get_feature_names_out()
    assert set(names) == {"not", "good", "at", "!", "not good", "good at", "not good at"}
    assert matrix.toarray()[:, names == "good"].ravel().tolist() == [1, 1, 1]


def test_linear_models_beat_the_majority_baseline(reviews, corpus):
    found = linear.measure(reviews, corpus.rows)
    validation = {model.name: model.validation for model in baselines._unpacked(found)}
    assert validation.pop("majority") < 0.7
    assert len(validation) == 4
    assert min(validation.values()) > 0.9


def test_test_reviews_do_not_affect_fitting_or_selection(reviews, corpus):
    def without_test(found):
        return [
            {**model, "seconds": 0.0, "margins": model["margins"][0]} for model in found["models"]
        ]

    texts, labels = list(reviews.texts), reviews.labels.copy()
    for row in corpus.rows["test"]:
        texts[row], labels[row] = "great unheard words unheard words", 1 - labels[row]
    other = dataclasses.replace(reviews, texts=texts, labels=labels)
    before, after = (linear.measure(r, corpus.rows) for r in (reviews, other))
    assert without_test(before) == without_test(after)
    assert before["labels"] != after["labels"]
    assert before["models"][1]["margins"] != after["models"][1]["margins"]

    for split in ("train", "valid"):  # the comparison above detects changes here
        texts = list(reviews.texts)
        for row in corpus.rows[split][::2]:
            texts[row] = "great unheard words unheard words"
        other = dataclasses.replace(reviews, texts=texts)
        assert without_test(linear.measure(other, corpus.rows)) != without_test(before)


@pytest.mark.parametrize(("count", "classes"), [(1, 1), (2, 1), (2, 2), (5, 1), (5, 2)])
def test_linear_baseline_needs_training_reviews_of_both_classes(count, classes, reviews, tmp_path):
    """One review or one class is refused; two reviews that share a word are enough."""
    first = split_rows(np.arange(len(reviews.texts)))["train"][:count]
    labels = reviews.labels.copy()
    labels[first] = np.arange(count) % classes
    texts = [f"{text} film " * 5 for text in reviews.texts]
    few = dataclasses.replace(reviews, texts=texts, labels=labels)
    data, store = write_reviews(few, tmp_path / "reviews.csv"), Store(tmp_path / "trials")
    part = BeyondBaselines(data=data, train_reviews=count)
    if classes == 2:
        assert len(baselines.find(part, store)) == 5
        return
    with pytest.raises(
        LabError, match=rf"no linear baseline .* \(train_reviews = {count}\).*; raise"
    ):
        baselines.find(part, store)


def test_degenerate_training_reviews_leave_only_the_majority_baseline(reviews, corpus):
    for texts, labels in (
        ([f"w{i}" for i in range(len(reviews.texts))], reviews.labels),
        (reviews.texts, np.ones_like(reviews.labels)),
    ):
        other = dataclasses.replace(reviews, texts=texts, labels=labels)
        found = linear.measure(other, corpus.rows)
        assert [model["name"] for model in found["models"]] == ["majority"]


def test_baselines_are_read_from_the_store_without_the_reviews(reviews, tmp_path):
    data, store = write_reviews(reviews, tmp_path / "reviews.csv"), Store(tmp_path / "trials")
    part = BeyondBaselines(data=data, train_reviews=150)
    found = baselines.find(part, store)
    assert len(found) == 5
    print_ = read_reviews(data).fingerprint
    assert len(list((store.root / print_).glob("baselines-*.json"))) == 1
    gone = {"data": str(tmp_path / "gone.csv"), "fingerprint": print_}
    away = BeyondBaselines(train_reviews=150, **gone)
    for before, after in zip(found, baselines.find(away, store), strict=True):
        assert before.name == after.name
        assert before.correct.tolist() == after.correct.tolist()
        assert before.correct.dtype == bool
    assert baselines.find(BeyondBaselines(train_reviews=100, **gone), store) == []


def test_other_parts_find_the_best_baseline_and_depend_on_it(reviews, tmp_path):
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
    best = baselines.best(part, trials, store)
    found = {model.name: model for model in baselines.find(part, store)}
    assert best.validation == max(model.validation for model in found.values())
    assert best.accuracy == found[best.name].correct.mean()
    name = baselines.kept_file(part)
    assert before[name] != report.kept()[name]
    assert baselines.best(Depth(data=data, train_reviews=100), trials, store) is None
    assert baselines.best(part, [], store) is None


NETWORKS = {
    0.80: "The baseline is significantly more accurate than the LSTM with RMSprop (+10.0 points",
    0.95: "significantly less accurate than the LSTM",
    0.895: "The baseline does not differ significantly from the LSTM with RMSprop (+0.5 points",
}


@pytest.mark.parametrize(("network", "says"), NETWORKS.items())
def test_a_baseline_is_compared_with_the_networks(network, says):
    accuracies = {"LSTM": [network] * 3, "GRU": [network - 0.01] * 3}
    found = results(BeyondBaselines(seeds=SEEDS), accuracies)
    models = [
        baseline("majority", 0.5),
        baseline("NB-SVM, trigrams", 0.9),
        baseline("NB-SVM, unigrams", 0.85),
    ]
    compared = beyond.baseline_comparisons(models, found)
    text = beyond.on_baselines(models, found, compared)
    assert text.startswith("Of the linear baselines, *NB-SVM, trigrams* has the highest validation")
    assert says in text
    assert (
        "Among the baselines, *NB-SVM, trigrams* is significantly more accurate than every other one"
        in text
    )
    table = beyond.baseline_table(models, found, compared)
    assert table["model"].tolist() == [*(m.name for m in models), "LSTM", "GRU"]
    assert table["n"].tolist() == ["1", "1", "1", "3", "3"]
    assert table["result"].tolist()[-2:] == ["reference", "–"]


def test_mcnemar_on_every_run_can_decide_a_comparison():
    """Three widely spread runs; McNemar's test finds the baseline better than each of them."""
    found = results(BeyondBaselines(seeds=SEEDS), {"LSTM": [0.80, 0.84, 0.88]})
    [c] = beyond.baseline_comparisons([baseline("NB-SVM", 0.92)], found)
    runs = found.correct(c.second)
    assert c.difference.mcnemar == max(statistics.mcnemar(c.first.correct, r) for r in runs) < 1e-9
    assert c.outcome == "higher"
    assert c.p == pytest.approx(min(c.difference.p, c.difference.mcnemar))


def test_single_network_run_is_not_tested():
    found = results(BeyondBaselines(), {"LSTM": [0.8]})
    [c] = beyond.baseline_comparisons([baseline("NB-SVM", 0.83)], found)
    assert c.outcome == "untested"


def test_missing_baselines_and_networks_are_reported():
    none = results(BeyondBaselines(), {})
    assert "were not run" in beyond.on_baselines([], none, [])
    models = [baseline("NB-SVM, trigrams", 0.9), baseline("NB-SVM, unigrams", 0.9)]
    text = beyond.on_baselines(models, none, beyond.baseline_comparisons(models, none))
    assert text.startswith("Of the linear baselines, *NB-SVM, trigrams* has the highest validation")
    assert "The LSTM with RMSprop and the GRU with RMSprop were not run" in text


def test_committed_baseline_is_better_than_committed_networks():
    """McNemar's test is clear on every run; this was once reported as inconclusive."""
    store = Store(PROJECT / "reports" / "full")
    part = read_params(PROJECT / "params" / "full" / "beyond_baselines.yaml")
    found = Results(part, Runs(stored(part, store, [])))
    models = baselines.find(part, store)
    best = baselines.preferred(models)
    compared = beyond.baseline_comparisons(models, found)
    networks = {c.second.name: c for c in compared if c.first is best and c.kind != "baselines"}
    assert set(networks) == {"LSTM", "GRU"}
    for c in networks.values():
        assert c.outcome == "higher"
        assert c.difference.mcnemar < 1e-20


# The published choices


def test_each_pair_differs_in_one_field():
    for pair in BeyondDefects().pairs():
        mine, theirs = pair.first.config.model_dump(), pair.second.config.model_dump()
        assert sum(mine[name] != theirs[name] for name in mine) == 1


def choices(accuracies, otherwise=0.85, **options):
    part = BeyondDefects(seeds=SEEDS)
    given = {s.name: otherwise for s in part.settings()} | accuracies
    found = results(part, given, **options)
    return found, beyond.choice_comparisons(found)


def test_texts_follow_the_runs():
    found, compared = choices(
        {"3 layers and forget bias 1": 0.90, "3 layers": 0.85, "negations kept": 0.9}
    )
    text = beyond.on_choices(found, compared)
    assert re.match(
        r"The accuracy differs significantly in two of \w+ comparisons\. The alternative is "
        r"better: 3 layers and forget bias 1 \(\+.*; negations kept \(\+[^)]*\)\.",
        text,
    )
    assert re.search(r"Equivalent within 1 point: .*1 layer and forget bias 1|The other comp", text)
    assert "changes a test accuracy by up to 0.10 points" in text

    found, compared = choices({"negations kept": 0.8})
    text = beyond.on_choices(found, compared)
    assert "The published choice is better: negations kept" in text
    assert "alternative is better" not in text
    found, compared = choices({}, spread=0.03)
    text = beyond.on_choices(found, compared)
    assert re.match(r"None of the \w+ comparisons of accuracy is significant\.", text)
    assert re.search(r"are inconclusive; the smallest detectable difference is [\d.]+ points", text)


def test_untrained_settings_are_not_compared():
    found, compared = choices({"3 layers": 0.5})
    assert not any("3 layers" in (c.first.name + c.second.name) for c in compared)
    assert "0 of 3 runs trained with 3 layers" in beyond.on_choices(found, compared)
    nothing = results(BeyondDefects(), {})
    assert "not run" in beyond.on_choices(nothing, beyond.choice_comparisons(nothing))


def test_best_and_last_epoch_are_paired_by_run():
    part = BeyondDefects(seeds=SEEDS)
    flat = part.pairs()[1].second
    trials = [
        run(c, 0.88 + 0.01 * k, last=0.84 + 0.01 * k) for k, c in enumerate(flat.trials(SEEDS))
    ]
    found = Results(part, Runs(trials))
    [c] = beyond.choice_comparisons(found)
    assert (c.first.name, c.second.name) == ("best epoch, 1 layer", "last epoch, 1 layer")
    assert c.difference.mean == pytest.approx(0.04)
    # Runs differ by a point, but each loses the same four points: clear if paired by run.
    assert c.significant
    assert c.difference.error < 0.005
    [line] = pairs_table(found, [c], "corrected", "as published").to_dict("records")
    assert line["test accuracy, %"].startswith("89.0")
    assert line["test accuracy, % "].startswith("85.0")


def test_dropped_duplicates_are_compared_as_two_samples():
    part = BeyondDefects(seeds=SEEDS)
    dropped = next(p for p in part.pairs() if p.first.name == "duplicates dropped")
    trials = [run(c, 0.85) for c in dropped.second.trials(SEEDS)]
    trials += [run(c, 0.83, reviews=1500) for c in dropped.first.trials(SEEDS)]
    found = Results(part, Runs(trials))
    c = next(c for c in beyond.choice_comparisons(found) if c.first.name == "duplicates dropped")
    assert c.difference.mean == pytest.approx(-0.02, abs=1e-3)
    assert c.difference.reviews == 1500
    sides = found.correct(c.first), found.correct(c.second)
    spreads = found.spread(c.first), found.spread(c.second)
    assert c.difference == statistics.difference(*sides, *spreads, paired=False)
    assert len(sides[0][0]) != len(sides[1][0])


def test_compare_covers_the_pairs_of_a_part():
    found, _ = choices({})
    assert {c.kind for c in compare(found)} == {"readout", "start", "text"}
    assert isinstance(compare(found)[0].first, Setting)
