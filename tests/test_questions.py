"""The ten checks agree with their verdicts and can fail; the notebook that makes them."""

import dataclasses
import json
import re
from types import SimpleNamespace

import nbformat
import numpy as np
import papermill
import pytest
import torch
from fake_results import results
from tiny import write_reviews
from torch import nn

from labrnn import lab
from labrnn.config import TrialConfig
from labrnn.errors import LabError
from labrnn.network.models import Classifier
from labrnn.parts import PARTS, read_params
from labrnn.results import questions
from labrnn.reviews.text import load_corpus
from labrnn.trials.store import PROJECT, Store

NOTEBOOK = PROJECT / "notebooks" / "questions.ipynb"
CELLS = nbformat.read(NOTEBOOK, 4).cells
CODE = [c.source for c in CELLS if c.cell_type == "code"]
SMALL = {"train_reviews": 0, "epochs": 1}
SHIPPED_LOOK = questions.look


@pytest.fixture(scope="module")
def data(reviews, tmp_path_factory):
    """The generated reviews, with *bad* and *good* among their words."""
    texts = [text.replace("awful", "bad").replace("superb", "good") for text in reviews.texts]
    changed = SimpleNamespace(texts=texts, labels=reviews.labels)
    return write_reviews(changed, tmp_path_factory.mktemp("data") / "reviews.csv")


def models(corpus):
    torch.manual_seed(1)
    configs = {"LSTM": TrialConfig(hidden_dim=20), "GRU": TrialConfig(cell="gru", hidden_dim=20)}
    found = {n: Classifier(c, corpus.vocabulary_size).eval() for n, c in configs.items()}
    for weight in found["LSTM"].rnn.parameters():
        nn.init.normal_(weight, std=0.5)
    return found


@pytest.fixture(scope="module")
def ran(data, tmp_path_factory):
    """Names defined by the notebook's cells, on generated reviews and random models."""
    made = results(PARTS["questions"](**SMALL), lambda _: 0.5, reviews=50)
    namespace = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABRNN_DATA", data)
        patch.setenv("LABRNN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(lab, "run_trials", lambda *_, **__: SimpleNamespace(trials=made.runs.trials))
        install_fakes(patch, data)
        for cell in CELLS:
            if cell.cell_type == "code":
                exec(cell.source, namespace)
            if "parameters" in cell.metadata.get("tags", []):
                namespace.update(SMALL)
    return namespace


def install_fakes(patch, data):
    """Display nothing, and inspect random models."""
    patch.setattr("labrnn.reports.notebook.display", lambda *_, **__: None)
    corpus = load_corpus(TrialConfig(max_tokens=128), data)
    patch.setattr(questions, "look", lambda _, measure: measure(models(corpus), corpus))


@pytest.fixture
def done(ran, data, monkeypatch):
    """The same names; changes made by a test are undone."""
    install_fakes(monkeypatch, data)
    before = {**ran, "checks": dict(ran["checks"])}
    yield ran
    ran.clear()
    ran.update(before)


def check_agrees(namespace, number, old="", new="", **names):
    """Run the cell of a check with other names or another line; return whether it agrees."""
    (source,) = (source for source in CODE if f"check({number}," in source)
    assert old in source
    namespace.update(names)
    exec(source.replace(old, new) if old else source, namespace)
    return namespace["checks"][number][0]


def test_every_check_agrees_with_its_verdict(done):
    assert {number: agrees for number, (agrees, _) in done["checks"].items()} == dict.fromkeys(
        range(1, 11), True
    )


def swapped(query, key, value, mask=None):
    scores = query @ value.T / query.shape[-1] ** 0.5
    return scores.softmax(-1) @ key, scores.softmax(-1)


def cosine(query, key, value, mask=None):
    weights = torch.nn.functional.cosine_similarity(query[:, None], key, dim=2).softmax(1)
    return weights @ value, weights


def test_check_1_fails_where_key_and_value_are_exchanged(done):
    assert not check_agrees(done, 1, attention=swapped)


def test_check_2_fails_where_weights_are_cosines(done):
    assert not check_agrees(done, 2, attention=cosine)


def test_check_3_fails_without_the_softmax(done):
    assert not check_agrees(done, 3, weights={1: torch.randn(50, 8)})


def test_check_4_fails_where_the_decoder_sees_later_tokens(done):
    assert not check_agrees(done, 4, ".triu(1).bool()", ".triu(8).bool()")


def test_check_5_fails_without_the_mask(done):
    assert not check_agrees(done, 5, ".tril()", "")


def test_check_6_fails_at_other_rates(done):
    rates = {"masked": 0.3, "replaced": 0.0, "kept": 0.0, "": 0.7}
    assert not check_agrees(done, 6, rates=rates)


def test_check_7_fails_for_the_opposite_words(done):
    assert not check_agrees(done, 7, 'cloze("great", "bad")', 'cloze("bad", "great")')


def test_check_7_uses_no_label_of_the_training_reviews(done):
    before, corpus = done["checks"][7], done["corpus"]
    labels = corpus.labels.copy()
    labels[corpus.rows["train"]] = 0
    check_agrees(done, 7, corpus=dataclasses.replace(corpus, labels=labels))
    assert done["checks"][7] == before


def test_check_8_fails_where_clipping_enlarges(done):
    def enlarging(gain):
        before = gain ** np.arange(255, -1, -1.0)
        return before, np.full(256, 0.3)  # norm 4.8: bounded, but vanished gradients are enlarged

    assert not check_agrees(done, 8, gradient_norms=enlarging)


def test_check_9_fails_without_negative_numbers(done):
    look = done["look"]

    def positive(found, corpus):
        with torch.no_grad():
            found["GRU"].embedding.weight.abs_()
        return look(found, corpus)

    assert not check_agrees(done, 9, "questions.look(lab, look)", "questions.look(lab, positive)",
                     positive=positive)  # fmt: skip


def test_check_10_fails_where_the_gates_are_coupled(done):
    look = done["look"]

    def coupled(found, corpus):
        for weight in found["LSTM"].rnn.parameters():  # forget gate = 1 - input gate
            weight.data[20:40] = -weight.data[:20]
        return look(found, corpus)

    seen = questions.look(None, coupled)
    assert seen["gates"]["between"]["LSTM"] == 1
    assert not check_agrees(done, 10, seen=seen)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_memory_matches_pytorch(done, cell):
    layer = {"lstm": nn.LSTM, "gru": nn.GRU}[cell](3, 20).double()
    x = torch.randn(4, 9, 3, dtype=torch.float64)
    (keep, take, old, new, state), h = done[f"{cell}_memory"](layer, x)
    states, last = layer(x.transpose(0, 1))
    torch.testing.assert_close(h, states[-1])
    torch.testing.assert_close(state[-1], (last[1] if cell == "lstm" else last)[0])
    torch.testing.assert_close(keep * old + take * new, state)


def test_pretraining_pair(done):
    random, texts = np.random.default_rng(2), done["texts"]
    following = [tuple(text[k : k + 2]) for text in texts for k in (0, 1)]
    for _ in range(100):
        follows, rows = done["pretraining_pair"](random)
        plain = rows[~rows["token"].str.startswith("[")]
        first, second = (" ".join(plain.token[plain.segment == side]) for side in "AB")
        assert follows == ((first, second) in following)
        assert ((rows.input == "[MASK]") == (rows.treatment == "masked")).all()
        untouched = rows.treatment.isin(["", "kept"])
        assert (rows.input == rows.token)[untouched].all()


def test_look_result_is_kept_for_copies_without_weights(done, data, tmp_path):
    corpus = load_corpus(TrialConfig(max_tokens=128), data)
    found = models(corpus)
    trials = {
        name: SimpleNamespace(
            key=name, fingerprint=corpus.fingerprint, config=model.config,
            vocabulary_size=corpus.vocabulary_size, weights=model.state_dict,
        )
        for name, model in found.items()
    }  # fmt: skip
    settings = [SimpleNamespace(name=name) for name in found]
    part = SimpleNamespace(data=data, base=TrialConfig(max_tokens=128))
    handle = SimpleNamespace(
        trial=trials.get,
        part=part,
        store=Store(tmp_path),
        results=SimpleNamespace(settings=settings),
    )
    look = SHIPPED_LOOK  # the fixture replaced it
    seen = look(handle, done["look"])
    assert json.loads(json.dumps(seen)) == seen == done["look"](found, corpus)

    def missing():
        raise LabError("this copy of the trial has no weights")

    for trial in trials.values():
        trial.weights = missing
    assert look(handle, done["look"]) == seen
    trials["GRU"].key = "another"
    assert look(handle, done["look"]) is None
    trials.clear()
    assert look(handle, done["look"]) is None


@pytest.mark.parametrize("kind", ["quick", "full"])
def test_models_come_from_lab_2(kind):
    names = ("questions", "lab2a_lstm_optimizers", "lab2b_gru_optimizers")
    mine, lstm, gru = (read_params(PROJECT / f"params/{kind}/{n}.yaml").trials() for n in names)
    assert {trial.cell for trial in mine} == {"lstm", "gru"}
    assert set(mine) <= {*lstm, *gru}


def test_notebook_gives_the_verdicts_and_its_sources():
    prose = " ".join(" ".join(c.source for c in CELLS if c.cell_type == "markdown").split())
    table = {}
    exec(next(source for source in CODE if source.startswith("statements = [")), table)
    for number, (_, verdict) in enumerate(table["statements"], 1):
        said = re.search(rf"\*\*Statement {number}\.\*\* \*.+?\* \*\*(True|False)\b", prose)
        assert said, number
        assert said[1] == verdict.split(",")[0]
    text, _, sources = prose.partition("## Sources")
    names = r"([A-Z][\wü]+)(?: et al\.| and [\wü]+)? \(?(\d{4})"
    cited = set(re.findall(names, text))
    listed = set(re.findall(r"- ([A-Z][\wü]+)[^(]*? \((\d{4})\)", sources))
    assert cited == listed


def test_notebook_runs(data, tmp_path):
    small = {"data": data, "train_reviews": 0, "epochs": 1, "jobs": 1}
    finished = papermill.execute_notebook(
        NOTEBOOK, tmp_path / "done.ipynb", small, kernel_name="python3", progress_bar=False
    )
    outputs = [out for c in finished.cells for out in c.get("outputs", [])]
    labels = {out.metadata["report"]["label"] for out in outputs
              if "label" in out.get("metadata", {}).get("report", {})}  # fmt: skip
    assert labels == {
        "fig-cosine", "fig-influence", "fig-masks", "fig-clipping", "fig-embedding", "fig-gates",
        "tbl-pretraining", "tbl-verdicts",
    }  # fmt: skip
    table, said = finished.cells[-1].outputs[0].data, finished.cells[-1].outputs[-1].data
    assert table["text/html"].count("<tr") == 11
    assert re.search(r"\d+ of 7 checks that test an answer agree", said["text/markdown"])
    assert table["text/plain"].count("illustrates") == 3
    assert "Not checked" not in str(outputs)
