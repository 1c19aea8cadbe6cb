"""The notebooks as lessons: their functions agree with the package, and exercises are solvable.

The code cells run in a namespace on real reviews and, if a part trains, on synthetic trials.
"""

import dataclasses
import re
from functools import cache
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from fake_results import results
from tiny import write_reviews

from labrnn import lab
from labrnn.config import TrialConfig
from labrnn.network.batches import Batches
from labrnn.network.models import Classifier
from labrnn.network.optimizers import Optimizer
from labrnn.network.prediction import predict
from labrnn.parts import PARTS, read_params
from labrnn.reviews import sources
from labrnn.reviews.text import stop_words
from labrnn.trials.store import PROJECT, Store

CPU = torch.device("cpu")
SMALL = {"train_reviews": 0, "max_tokens": 24, "batch_size": 8, "epochs": 2}


@pytest.fixture(scope="module")
def lessons(real_reviews, tmp_path_factory):
    """Return a function: notebook name -> names defined by its cells, on 250 real reviews."""
    folder = tmp_path_factory.mktemp("lessons")
    few = dataclasses.replace(
        real_reviews, texts=real_reviews.texts[::2], labels=real_reviews.labels[::2]
    )
    data = write_reviews(few, folder / "reviews.csv")

    @cache
    def run(name):
        namespace = {}
        made = results(PARTS[name](**SMALL), lambda _: 0.5, reviews=100)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LABRNN_DATA", data)
            patch.setattr("labrnn.reports.notebook.display", lambda *_, **__: None)
            patch.setattr(
                lab, "run_trials", lambda *_, **__: SimpleNamespace(trials=made.runs.trials)
            )
            for cell in nbformat.read(PROJECT / f"notebooks/{name}.ipynb", 4).cells:
                if cell.cell_type == "code":
                    exec(compile(cell.source, name, "exec"), namespace)
                if "parameters" in cell.metadata.get("tags", []):
                    namespace.update(SMALL)
        plt.close("all")
        return namespace

    run.data = data
    return run


@pytest.fixture
def lesson(lessons):
    """Names defined by a notebook; changes made by a test are undone."""
    before = {}

    def get(name):
        before[name] = dict(lessons(name))
        return lessons(name)

    yield get
    for name, names in before.items():
        lessons(name).clear()
        lessons(name).update(names)


rnn = pytest.mark.parametrize("cell", ["lstm", "gru"])


# Lab 1 a to d


def test_ids_match_the_package(lesson):
    mine = lesson("lab1_data")
    corpus, vocab = mine["corpus"], mine["vocab"]
    assert list(vocab)[2:] == corpus.words
    assert list(vocab)[:2] == ["<pad>", "<unk>"]
    for split, rows in corpus.rows.items():
        items = mine["IMDB"](mine[split], vocab, SMALL["max_tokens"])
        assert [items[k] for k in range(len(items))] == [corpus.example(row) for row in rows]


def test_review_without_known_words_is_one_unk(lesson):
    mine = lesson("lab1_data")
    assert mine["tokenize"]("zzz qqq", mine["vocab"], 5) == [1]
    assert mine["tokenize"]("<pad> <unk>", mine["vocab"], 5) == [1]


def test_vocabulary_needs_five_occurrences_and_excludes_stop_words(lesson):
    vocab = lesson("lab1_data")["build_vocab"](["The plot a"] * 4 + ["a plot b"], {"a"})
    assert vocab == {"<pad>": 0, "<unk>": 1, "plot": 2}


def test_a_batch_is_padded_with_0(lesson):
    collate = lesson("lab1_data")["collate_fn"]
    batch = collate(
        [{"ids": [4, 5, 6], "length": 3, "label": 1}, {"ids": [7], "length": 1, "label": 0}]
    )
    assert batch["ids"].tolist() == [[4, 5, 6], [7, 0, 0]]
    assert (batch["length"].tolist(), batch["label"].tolist()) == ([3, 1], [1, 0])


def test_the_loader_refuses_an_unknown_sentiment(lesson, tmp_path):
    pd.DataFrame({"review": ["a"] * 20, "sentiment": ["positive"] * 19 + ["good"]}).to_csv(
        tmp_path / "reviews.csv"
    )
    with pytest.raises(AssertionError, match="unknown sentiment"):
        lesson("lab1_data")["load_imdb"](tmp_path / "reviews.csv")


# Lab 1 e to h


@rnn
def test_one_step_matches_pytorch(lesson, cell):
    """In float64, where two orders of summation differ by about 1e-15."""
    mine = lesson(f"lab1_{cell}")
    layer = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}[cell](3, 5).double()
    x, h, c = (torch.randn(2, n, dtype=torch.float64) for n in (3, 5, 5))
    state = (h, c) if cell == "lstm" else (h,)
    ours = mine[f"{cell}_step"](x, *state, list(layer.parameters()))
    theirs = layer(x, state if cell == "lstm" else h)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@rnn
def test_initial_weights_match_the_package(lesson, cell):
    mine = lesson(f"lab1_{cell}")
    torch.manual_seed(1)
    model = mine[cell.upper()](50, 2, 10)
    torch.manual_seed(1)
    package = Classifier(TrialConfig(cell=cell, embedding_dim=2, hidden_dim=10), 50)
    mine_start = {}
    for name, module in (("mine", model), ("package", package)):
        torch.manual_seed(2)
        mine["initialise"](module) if name == "mine" else package._initialise()
        mine_start[name] = module.state_dict()
    torch.testing.assert_close(mine_start["mine"], mine_start["package"], rtol=0, atol=0)


@rnn
@pytest.mark.parametrize("layers", [1, 2])
def test_logits_and_one_training_step_match_the_package(lesson, cell, layers):
    """Same weights and batch give the same logits, and the same weights after a step of SGD."""
    mine, rows = lesson(f"lab1_{cell}"), np.arange(16)
    corpus = mine["corpus"]
    config = TrialConfig(cell=cell, embedding_dim=4, hidden_dim=12, n_layers=layers, warmup_steps=1)
    package = Classifier(config, corpus.vocabulary_size)
    model = mine[cell.upper()](corpus.vocabulary_size, 4, 12, layers)
    model.load_state_dict(package.state_dict())
    batch = mine["collate_fn"]([corpus.example(row) for row in rows])
    theirs = next(Batches(corpus, len(rows), CPU).of(rows))
    logits = package(theirs.ids, theirs.packing)
    torch.testing.assert_close(model(batch["ids"], batch["length"]), logits, rtol=0, atol=1e-5)

    before = {name: value.clone() for name, value in package.state_dict().items()}
    torch.nn.functional.cross_entropy(logits, theirs.labels).backward()
    Optimizer(config, package).step()
    sgd = torch.optim.SGD(model.parameters(), lr=config.lr, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LambdaLR(sgd, lambda _: 1.0)
    mine["train"](model, [batch], sgd, schedule, steps=1)
    torch.testing.assert_close(model.state_dict(), package.state_dict(), rtol=0, atol=1e-6)
    change = max((before[n] - v).abs().max() for n, v in model.state_dict().items())
    assert change > 1e-4  # far beyond the bound above: both have changed


@rnn
def test_training_makes_the_requested_steps_and_learns(lesson, cell):
    mine = lesson(f"lab1_{cell}")
    torch.manual_seed(3)
    model = mine[cell.upper()](len(mine["vocab"]), 8, 16)
    mine["initialise"](model)
    loader = mine["load"](mine["corpus"].rows["train"][:16], shuffle=True)
    adam = torch.optim.Adam(model.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda _: 1.0)
    losses = mine["train"](model, loader, adam, schedule, steps=60)
    assert len(losses) == 60
    loss, accuracy = mine["evaluate"](model, loader)
    assert loss < 0.2 < losses[0]
    assert accuracy == 1


@rnn
def test_evaluation_weights_each_review_equally(lesson, cell):
    """The last batch is smaller, so a mean of batch means would differ (defect 3)."""
    mine = lesson(f"lab1_{cell}")
    model, rows = mine["model"], mine["corpus"].rows["valid"][:11]
    whole, parts = (
        mine["evaluate"](model, torch.utils.data.DataLoader(items, size, collate_fn=collate))
        for items, collate in [
            ([mine["corpus"].example(row) for row in rows], mine["collate_fn"]),
        ]
        for size in (11, 8)
    )
    assert parts == pytest.approx(whole, abs=1e-6)


@rnn
def test_prediction_matches_the_package_unlike_the_published_one(lesson, cell):
    mine = lesson(f"lab1_{cell}")
    corpus, vocab = mine["corpus"], mine["vocab"]
    model = mine[cell.upper()](len(vocab), 4, 12)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    config = TrialConfig(cell=cell, embedding_dim=4, hidden_dim=12, max_tokens=24)
    trial = SimpleNamespace(config=config, weights=model.state_dict, folder="")
    known = corpus.words
    texts = [f"{known[0]} {known[5].upper()} zzz", f"{known[7]} {known[3]}", known[1], ""]
    ours = [mine["predict_sentiment"](text, model, vocab) for text in texts]
    theirs = [
        a.probability if a.label == "positive" else 1 - a.probability
        for a in predict(trial, corpus, texts)
    ]
    assert ours == pytest.approx(theirs, abs=1e-5)
    old = [mine["predict_as_published"](text, model, vocab) for text in texts]
    assert old[0] == old[1] != old[2]
    assert abs(ours[0] - ours[1]) > 1e-3


@rnn
def test_gates_reproduce_the_state_of_the_model(lesson, cell):
    mine = lesson(f"lab1_{cell}")
    model = mine[cell.upper()](len(mine["vocab"]), 2, 10)
    ids = [2, 5, 3, 2]
    *gates, state = mine["watch"](ids, model)
    with torch.no_grad():
        last = model.rnn(model.embedding(torch.tensor([ids])))[1]
    last = last[1] if cell == "lstm" else last
    torch.testing.assert_close(state[-1], last[0, 0])
    assert all(((gate > 0) & (gate < 1)).all() for gate in gates)
    words, predicted = mine["predictions"](mine["review"], mine["reader"], mine["vocab"])
    assert len(words) == len(predicted) == len(mine["ids"])
    whole = mine["predict_sentiment"](mine["review"], mine["reader"], mine["vocab"])
    assert predicted[-1] == whole


# The model that reads sentences


@pytest.fixture
def full(monkeypatch):
    """Return a function that runs a full part as in a fresh clone, without reviews and weights."""

    def handle(name, store):
        monkeypatch.delenv("LABRNN_DATA", raising=False)
        monkeypatch.setenv("LABRNN_STORE", str(store))
        part = read_params(PROJECT / f"params/full/{name}.yaml")
        handle = lab.Lab(name, part.model_dump(), train=False, fingerprint=part.fingerprint)
        handle.run()
        return handle

    return handle


@rnn
def test_a_fresh_clone_has_a_reader_of_the_full_lab(lesson, full, tmp_path, cell, monkeypatch):
    """It loads into the notebook's class, separates good from bad, and has the lab's setting.

    Finding it does not read the reviews, which would take a second per missing seed.
    """
    mine, handle = lesson(f"lab1_{cell}"), full(f"lab1_{cell}", tmp_path)
    monkeypatch.setattr(sources, "read_reviews", lambda source: pytest.fail("the reviews are read"))
    assert (handle.part.reader.optim, handle.part.reader.lr) == ("rmsprop", 0.001)
    found = handle.reader()
    vocab = found["vocab"]
    model = mine[cell.upper()](len(vocab))
    model.load_state_dict(found["weights"])
    good, bad = (
        mine["predict_sentiment"](text, model, vocab)
        for text in ("A wonderful film, superb and moving.", "The worst film. Awful and boring.")
    )
    assert bad < 0.3 < 0.7 < good
    review, label = found["review"]
    assert label in ("negative", "positive")
    assert all(vocab[word] > 1 for word in review.split())
    assert list(handle.store.damaged()) == []


@rnn
def test_reader_is_kept_for_copies_without_its_weights(
    lesson, lessons, cell, tmp_path, monkeypatch
):
    monkeypatch.setenv("LABRNN_DATA", lessons.data)
    mine = lesson(f"lab1_{cell}")
    handle, model = mine["lab"], mine[cell.upper()](len(mine["vocab"]), 2, 12)
    monkeypatch.setattr(handle, "store", Store(tmp_path))
    assert handle.reader() is None
    config = handle.part.reader.replace(seed=handle.part.seeds[0])
    trial = SimpleNamespace(has_weights=True, weights=model.state_dict)
    monkeypatch.setitem(handle.results.runs.trials, config, trial)
    first = handle.reader()
    trial.has_weights = False
    again = handle.reader()
    assert first["vocab"] == again["vocab"] == mine["vocab"]
    assert first["review"] == again["review"]
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(first["weights"][name], tensor, rtol=1e-3, atol=1e-6)
        assert torch.equal(first["weights"][name], again["weights"][name])
    (path,) = tmp_path.glob("*/reader-*.json")
    path.write_text(path.read_text().replace("positive", "excellent").replace("negative", "bad"))
    assert handle.reader() is None


# Exercises, solved as docs/assistants.md solves them


def solution(name, number):
    """Return the code of an exercise on the page for assistants."""
    page = (PROJECT / "docs/assistants.md").read_text("utf-8")
    part = page.split(f"### `{name}`")[1].split("\n### ")[0]
    text = re.split(r"^\*\*\d+\.", part, flags=re.M)[number]
    return re.search(r"```python\n(.*?)```", text, re.S)[1]


def solve(namespace, name, number):
    exec(solution(name, number), namespace)
    return namespace


def test_data_1_every_word(lesson):
    mine = solve(lesson("lab1_data"), "lab1_data", 1)
    words = {word for review in mine["train"]["review"] for word in review.lower().split()}
    assert set(mine["larger"]) == (words - stop_words()) | {"<pad>", "<unk>"}


def test_data_2_without_punctuation(lesson):
    mine = lesson("lab1_data")
    before = mine["vocab"]
    mine = solve(mine, "lab1_data", 2)
    assert any(word.endswith(".") for word in before)
    assert not any(word.endswith((".", ",")) for word in mine["stripped"])


def test_data_5_padding(lesson):
    mine = solve(lesson("lab1_data"), "lab1_data", 5)
    assert 0 <= mine["shares"][1] < mine["shares"][0] < 1


@pytest.mark.parametrize(("name", "gates"), [("lab1_lstm", 4), ("lab1_gru", 3)])
def test_rnn_1_parameters(lesson, name, gates):
    mine = solve(lesson(name), name, 1)
    found = sum(weight.numel() for weight in mine["wide"].parameters())
    words = len(mine["vocab"])
    assert found == mine["by_hand"] == 8 * words + gates * 20 * (8 + 20) + 2 * gates * 20 + 42


@pytest.mark.parametrize("name", ["lab1_lstm", "lab1_gru"])
def test_solutions_that_draw_weights_set_the_seed(name):
    """Otherwise the values in brackets would depend on the cells that ran before."""
    for code in (solution(name, number) for number in range(1, 6)):
        draws = "initialise(" in code or "train(" in code
        assert code.startswith("torch.manual_seed(5)") == draws


def test_lstm_4_negation_is_ignored(lesson):
    mine = solve(lesson("lab1_lstm"), "lab1_lstm", 4)
    assert mine["plain"] == mine["negated"]


def test_lstm_5_attention(lesson):
    """The readout is a weighted mean of the real steps, so padding has no effect."""
    mine = solve(lesson("lab1_lstm"), "lab1_lstm", 5)
    torch.manual_seed(4)
    model = mine["Attention"](len(mine["vocab"]), 4, 12)
    ids, length = torch.tensor([[2, 3, 4, 5], [6, 7, 0, 0]]), torch.tensor([4, 2])
    logits = model(ids, length)
    torch.testing.assert_close(logits[1], model(torch.tensor([[6, 7]]), torch.tensor([2]))[0])
    with torch.no_grad():
        model.score.weight.zero_()
        states = model.rnn(model.embedding(ids[1:, :2]))[0]
        torch.testing.assert_close(model(ids, length)[1], model.output(states.mean(dim=1))[0])


def test_gru_3_the_gradient_is_too_small_to_clip(lesson):
    assert 0 < solve(lesson("lab1_gru"), "lab1_gru", 3)["norm"] < 0.5


def test_gru_4_bidirectional(lesson):
    mine = solve(lesson("lab1_gru"), "lab1_gru", 4)
    config = TrialConfig(cell="gru", bidirectional=True)
    corpus, rows = mine["corpus"], np.arange(6)
    package = Classifier(config, corpus.vocabulary_size)
    model = mine["both"]
    model.load_state_dict(package.state_dict())
    batch = mine["collate_fn"]([corpus.example(row) for row in rows])
    theirs = next(Batches(corpus, len(rows), CPU).of(rows))
    logits = package(theirs.ids, theirs.packing)
    torch.testing.assert_close(model(batch["ids"], batch["length"]), logits, rtol=0, atol=1e-5)


# The exercises of Lab 2 do not need their notebooks


def solved(name, *numbers):
    namespace = {}
    for number in numbers:
        exec(solution(name, number), namespace)
    return namespace


def test_2a_steps_of_the_optimisers():
    mine = solved("lab2a_lstm_optimizers", 1, 2)
    by_hand = {
        "sgd": 0.01 * 1e-4,
        "adagrad": 0.001 * 1e-4 / (1e-4 + 1e-6),
        "adam": 0.001 * 1e-4 / (1e-4 + 1e-6),
        "rmsprop": 0.001 * 1e-4 / (0.1 * 1e-4 + 1e-6),
    }
    assert mine["moved"](1) == pytest.approx(by_hand)
    assert [round(mine["far"][n], 3) for n in by_hand] == [0.01, 0.062, 0.99, 11.001]


def test_2b_gates():
    mine = solved("lab2b_gru_optimizers", 1, 2)
    assert (mine["lstm"], mine["gru"]) == (98_131, 87_831)  # the published counts
    assert (mine["cell"], mine["state"]) == (50, pytest.approx(1))


def test_2c_layers():
    mine = solved("lab2c_depth", 1, 2, 3)
    assert mine["added"] == [80_800] * 3
    assert mine["norms"][1] < mine["norms"][0] / 100
    assert mine["norms"][0] == pytest.approx(4e-5, rel=0.5)
    assert mine["per_gate"] == pytest.approx(5e-3, rel=0.5)


def test_2d_widths():
    mine = solved("lab2d_width", 1, 2)
    assert mine["width"] == 118
    assert "hidden_dim = 321" in mine["refused"]


def test_2e_embeddings():
    mine = solved("lab2e_embedding", 1, 2)
    assert [round(mine["shares"][k], 2) for k in (0, -1)] == [0.58, 0.99]
    assert mine["lengths"] == pytest.approx([0.0047, 0.0947], rel=0.02)


def test_2f_grid():
    mine = solved("lab2f_compound", 1, 2, 3)
    assert (len(mine["grid"]), mine["dropped"]) == (48, 44)
    assert "60 trials" in mine["refused"]
    assert mine["best"] == pytest.approx(0.8775, abs=0.0005)


def test_2g_directions():
    mine = solved("lab2g_bidirectional", 1, 2)
    assert mine["added"] == 1_905_030
    assert torch.equal(*mine["backward"])
    assert not torch.equal(*mine["forward"])


def test_every_lab_notebook_ends_with_solved_exercises():
    for path in sorted((PROJECT / "notebooks").glob("lab*.ipynb")):
        last = nbformat.read(path, 4).cells[-1]
        assert last.metadata.get("tags") == ["exercises"], path.name
        asked = re.findall(r"^\d+\.", last.source, flags=re.M)
        assert 3 <= len(asked) <= 5, path.name
        page = (PROJECT / "docs/assistants.md").read_text("utf-8")
        part = page.split(f"### `{path.stem}`")[1].split("\n### ")[0]
        assert re.findall(r"^\*\*(\d+\.)", part, flags=re.M) == asked, path.name
        assert part.count("*Common mistakes.*") == len(asked), path.name
