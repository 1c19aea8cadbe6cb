"""The ten checks: each holds, and each can fail; the notebook that makes them runs."""

import dataclasses
import json
import re
from itertools import pairwise
from types import SimpleNamespace

import nbformat
import numpy as np
import papermill
import pytest
import torch
from tiny import write_reviews
from torch import nn
from torch.nn import functional as F

from labrnn.config import TrialConfig
from labrnn.errors import LabError
from labrnn.network.models import Classifier
from labrnn.parts import read_params
from labrnn.results import questions
from labrnn.results.questions import STATEMENTS, Reader
from labrnn.reviews.text import load_corpus
from labrnn.trials.store import PROJECT, Store

NOTEBOOK = PROJECT / "notebooks" / "questions.ipynb"


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(1)


# Attention


@pytest.mark.parametrize("mask", [None, torch.ones(6, 6).tril().bool()], ids=["free", "causal"])
def test_attention_is_torchs(mask):
    query, key, value = torch.randn(3, 6, 16)
    ours, weights = questions.attention(query, key, value, mask)
    theirs = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(weights.sum(-1), torch.ones(6))
    assert mask is None or (weights[~mask] == 0).all()


def test_three_projections():
    layer, tokens = nn.MultiheadAttention(16, 1, bias=False), torch.randn(6, 16)
    ours = questions.attention(*F.linear(tokens, layer.in_proj_weight).chunk(3, dim=1))[0]
    finding = questions.same_attention(layer, tokens, ours, ours + 1e-7)
    assert finding.holds
    assert "48 × 16" in finding.text
    assert not questions.same_attention(layer, tokens, ours, 1.1 * ours).holds


def cosines_and_weights(query, keys):
    weights = [questions.attention(n * query, keys, keys)[1] for n in (1, 2, 4)]
    return F.cosine_similarity(query[:, None], keys, dim=2), weights


def test_weights_are_no_cosines():
    query, keys = torch.randn(200, 16), torch.randn(8, 16)
    cosines, weights = cosines_and_weights(query, keys)
    assert questions.against_cosine(cosines, weights).holds
    torch.testing.assert_close(cosines, cosines_and_weights(4 * query, keys)[0])
    assert not torch.allclose(weights[0], weights[1], atol=0.1)
    alike = cosines_and_weights(query, F.normalize(keys, dim=1))  # keys of one length rank alike
    assert not questions.against_cosine(*alike).holds


def test_rows_sum_to_one():
    scores = torch.randn(50, 8)
    weights = scores.softmax(-1)
    finding = questions.row_sums(weights, F.layer_norm(weights, (8,)))
    assert finding.holds
    assert "sum to 0," in finding.text
    assert not questions.row_sums(scores, weights).holds


def test_only_an_encoder_sees_what_comes_later():
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0, batch_first=True)
    stack = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    pair = torch.randn(8, 16).repeat(2, 1, 1)
    pair[1, 5] = torch.randn(16)
    both_sides = questions.influence(stack, pair)
    left_only = questions.influence(stack, pair, torch.ones(8, 8).tril().bool())
    assert (both_sides > 1e-3).all()
    assert (left_only[:5] == 0).all()
    assert (left_only[5:] > 1e-3).all()
    assert questions.sees_later(both_sides, left_only, 5).holds
    assert not questions.sees_later(left_only, left_only, 5).holds


def test_only_bert_attends_to_later_words():
    query, key, value = torch.randn(3, 7, 16)
    bert, gpt = (
        questions.attention(query, key, value, mask)[1]
        for mask in (None, torch.ones(7, 7).tril().bool())
    )
    finding = questions.looks_ahead(bert, gpt)
    assert finding.holds
    assert "49 of 49" in finding.text
    assert "28 are left" in finding.text
    assert not questions.looks_ahead(bert, bert).holds


# Pre-training


def test_pretraining_pair():
    rng, successors = np.random.default_rng(2), []
    following = [pair for text in questions.TEXTS for pair in pairwise(text)]
    for _ in range(200):
        follows, rows = questions.pretraining_pair(rng)
        first, second = (
            " ".join(rows[(rows.segment == side) & ~rows.token.str.startswith("[")].token)
            for side in "AB"
        )
        assert follows == ((first, second) in following)
        masked, untouched = rows.treatment == "masked", rows.treatment.isin(["", "kept"])
        assert ((rows.input == "[MASK]") == masked).all()
        assert (rows.input == rows.token)[untouched].all()
        assert rows.treatment[rows.token.str.startswith("[")].eq("").all()
        successors.append(follows)
    assert 60 < sum(successors) < 140
    assert questions.pretraining_rates(rng, 500).holds


def test_cloze_needs_no_label(corpus):
    told = questions.cloze(corpus, "great", "awful")
    assert told.mean() > 0.85
    labels = corpus.labels.copy()
    labels[corpus.rows["train"]] = 0
    blind = dataclasses.replace(corpus, labels=labels)
    assert (questions.cloze(blind, "great", "awful") == told).all()
    assert questions.cloze(corpus, "awful", "great").mean() < 0.15
    assert questions.cloze(corpus, "great", "unheard-of") is None


def test_zero_shot_text_follows_the_data(corpus):
    right = questions.without_labels(corpus, (("great", "awful"), ("lovely", "awful")))
    wrong = questions.without_labels(corpus, (("awful", "great"), ("lovely", "awful")))
    assert right.holds
    assert not wrong.holds
    assert ", better than a coin" in right.text
    assert "not surely better" in wrong.text
    assert questions.without_labels(None).holds is None
    assert questions.without_labels(corpus, (("great", "unheard-of"),) * 2).holds is None


# Clipping


def test_clipping_bounds_but_never_revives():
    norms = {gain: questions.gradient_norms(gain, steps=256) for gain in (0.9, 1.0, 1.1)}
    for gain, (before, after) in norms.items():
        np.testing.assert_allclose(before, gain ** np.arange(255, -1, -1.0), rtol=1e-9)
        assert (after <= before).all()
        np.testing.assert_allclose(after / after[-1], before / before[-1], rtol=1e-9)
    assert norms[0.9][1][0] == norms[0.9][0][0] < 1e-11
    assert np.linalg.norm(norms[1.1][0]) > 1e10
    assert np.linalg.norm(norms[1.1][1]) == pytest.approx(5)
    assert questions.clipped(norms).holds
    assert not questions.clipped({g: (before, before) for g, (before, _) in norms.items()}).holds


# Trained models


def models(corpus):
    configs = {"LSTM": TrialConfig(hidden_dim=20), "GRU": TrialConfig(cell="gru", hidden_dim=20)}
    return {n: Classifier(c, corpus.vocabulary_size).eval() for n, c in configs.items()}


def readers(corpus, trained=True):
    return {name: Reader(model, trained) for name, model in models(corpus).items()}


def test_signs(corpus):
    found = readers(corpus)
    weight = found["GRU"].model.embedding.weight.data
    weight[2:] = torch.linspace(-3, 1, len(weight) - 2)[:, None]
    finding = questions.signs(questions.measured(found, corpus))
    assert finding.holds
    assert f"75 % of its {len(weight) - 2:,} words; they reach from -3.00 to 1.00" in finding.text
    assert f"*{corpus.words[0]}*" in finding.text
    weight.abs_()
    assert not questions.signs(questions.measured(found, corpus)).holds


def test_signs_of_random_weights_show_nothing(corpus):
    finding = questions.signs(questions.measured(readers(corpus, trained=False), None))
    assert finding.holds is None
    assert "trained LSTM and GRU are not at hand" in finding.text
    assert "At the lower end" not in finding.text


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_memory_is_torchs(cell):
    rnn = {"lstm": nn.LSTM, "gru": nn.GRU}[cell](3, 20)
    x = torch.randn(4, 9, 3)
    found, hidden = questions.memory(rnn, x)
    states, last = rnn(x.transpose(0, 1))
    torch.testing.assert_close(hidden, states[-1])
    torch.testing.assert_close(found.state[-1], (last[1] if cell == "lstm" else last)[0])
    torch.testing.assert_close(found.keep * found.old + found.take * found.new, found.state)
    assert found.between == 1 if cell == "gru" else found.between < 1


def test_gates(corpus):
    found = readers(corpus)
    lstm = found["LSTM"].model.rnn
    for weight in lstm.parameters():
        nn.init.normal_(weight, std=0.5)
    seen = questions.measured(found, corpus)
    assert json.loads(json.dumps(seen)) == seen
    finding = questions.gate_sums(seen)
    assert finding.holds
    ids = questions.longest_reviews(corpus, corpus.vocabulary_size)
    rows = {n: questions.memory(m.rnn, m.embedding(ids).detach())[0] for n, (m, _) in found.items()}
    sums = rows["LSTM"].keep + rows["LSTM"].take
    assert f"sum to {sums.min():.2f} to {sums.max():.2f}" in finding.text
    assert sum(seen["gates"]["histogram"]) == pytest.approx(100)
    gru = rows["GRU"]
    torch.testing.assert_close(gru.keep + gru.take, torch.ones_like(gru.keep))
    for weight in lstm.parameters():  # forget gate = 1 - input gate: the statement would be true
        weight.data[20:40] = -weight.data[:20]
    coupled = questions.measured(found, corpus)
    assert coupled["gates"]["between"]["LSTM"] == 1
    assert not questions.gate_sums(coupled).holds


def test_reader_takes_stored_weights_or_says_so(corpus):
    model = models(corpus)["LSTM"]
    trial = SimpleNamespace(vocabulary_size=corpus.vocabulary_size, weights=model.state_dict)
    stored = {"LSTM": trial}
    lab = SimpleNamespace(
        trial=stored.get,
        results={"LSTM": SimpleNamespace(config=model.config)},
        part=SimpleNamespace(seeds=[5]),
    )
    taken, trained = questions.reader(lab, "LSTM", None)
    assert trained
    torch.testing.assert_close(taken.state_dict(), model.state_dict())

    def missing():
        raise LabError("this copy of the trial has no weights")

    trial.weights = missing
    bare, trained = questions.reader(lab, "LSTM", None)
    assert not trained
    assert bare.embedding.weight.shape == model.embedding.weight.shape
    stored.clear()
    assert not questions.reader(lab, "LSTM", corpus).trained


def test_a_look_at_trained_models_is_kept_for_copies_without_weights(reviews, tmp_path):
    data = write_reviews(reviews, tmp_path / "reviews.csv")
    corpus = load_corpus(TrialConfig(), data)
    found = models(corpus)
    trials = {
        name: SimpleNamespace(
            key=name,
            fingerprint=corpus.fingerprint,
            vocabulary_size=corpus.vocabulary_size,
            weights=w,
        )
        for name, w in ((name, model.state_dict) for name, model in found.items())
    }
    settings = [SimpleNamespace(name=name, config=m.config) for name, m in found.items()]
    results = type("Results", (dict,), {"settings": settings})({s.name: s for s in settings})
    part = SimpleNamespace(seeds=[5], data=data)
    lab = SimpleNamespace(trial=trials.get, results=results, part=part, store=Store(tmp_path))
    seen = questions.look(lab, corpus)
    assert seen == questions.measured({n: Reader(m, True) for n, m in found.items()}, corpus)

    def missing():
        raise LabError("this copy of the trial has no weights")

    for trial in trials.values():
        trial.weights = missing
    assert questions.look(lab, None) == seen
    trials["GRU"].key = "another"
    assert not any(words["trained"] for words in questions.look(lab, corpus)["words"].values())


@pytest.mark.parametrize("kind", ["quick", "full"])
def test_models_are_those_of_lab_2(kind):
    names = ("questions", "lab2a_lstm_optimizers", "lab2b_gru_optimizers")
    mine, lstm, gru = (read_params(PROJECT / f"params/{kind}/{n}.yaml").trials() for n in names)
    assert [trial.cell for trial in mine] == ["lstm", "gru"]
    assert set(mine) <= {*lstm, *gru}


# Table and notebook


def test_summary_counts_what_holds():
    yes, no, open_ = (questions.Finding("", "", holds) for holds in (True, False, None))
    assert (
        questions.summary({1: yes, 2: yes}) == "In this run all 2 checks agree with their verdicts."
    )
    text = questions.summary({1: yes, 2: no, 3: open_})
    assert "1 of the 3 checks" in text
    assert "Not so: 2." in text
    assert "Not made: 3." in text


def test_notebook_gives_the_verdicts_and_its_sources():
    cells = nbformat.read(NOTEBOOK, 4).cells
    prose = " ".join(" ".join(c.source for c in cells if c.cell_type == "markdown").split())
    for number, (_, verdict) in enumerate(STATEMENTS, 1):
        said = re.search(rf"\*\*Statement {number}\.\*\* \*.+?\* \*\*(True|False)\b", prose)
        assert said, number
        assert said[1] == verdict.split(",")[0]
    text, _, sources = prose.partition("## Sources")
    names = r"([A-Z][\wü]+)(?: et al\.| and [\wü]+)? \(?(\d{4})"
    cited = set(re.findall(names, text))
    listed = set(re.findall(r"- ([A-Z][\wü]+)[^(]*? \((\d{4})\)", sources))
    assert cited == listed


def test_notebook_runs(reviews, tmp_path):
    lines = ["review,sentiment"]
    for text, label in zip(reviews.texts, reviews.labels, strict=True):
        text = text.replace("awful", "bad").replace("superb", "good")
        lines.append(f"{text},{'positive' if label else 'negative'}")
    data = tmp_path / "reviews.csv"
    data.write_text("\n".join(lines) + "\n")
    small = {"data": str(data), "train_reviews": 0, "epochs": 1, "jobs": 1}
    done = papermill.execute_notebook(
        NOTEBOOK, tmp_path / "done.ipynb", small, kernel_name="python3", progress_bar=False
    )
    reports = [out.metadata.get("report", {}) for c in done.cells for out in c.get("outputs", [])]
    labels = {report["label"] for report in reports if "label" in report}
    assert labels == {
        "fig-cosine", "fig-influence", "fig-masks", "fig-clipping", "fig-embedding", "fig-gates",
        "tbl-pretraining", "tbl-verdicts",
    }  # fmt: skip
    table, said = done.cells[-2].outputs[0].data, done.cells[-2].outputs[-1].data
    assert table["text/html"].count("<tr") == 11
    assert re.search(r"(all|\d of the) 10 checks", said["text/markdown"])
    assert "random" not in str(done.cells[-8:])
