"""A stored model asked about texts: the same answers as in its test, and whatever it is given."""

import json
import os
import shutil

import pytest
from click.testing import CliRunner
from exact import rounding
from tiny import TINY, train, write_reviews

from labrnn.cli import main
from labrnn.errors import LabError
from labrnn.network.prediction import choose_trial, predict
from labrnn.reviews.text import load_corpus
from labrnn.trials.store import Store

WORSE = TINY.but(epochs=1, lr=0.0001)


@pytest.fixture(scope="module")
def data(reviews, tmp_path_factory):
    return write_reviews(reviews, tmp_path_factory.mktemp("data") / "reviews.csv")


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A store with a trained model and one that has hardly begun."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABRNN_CACHE", str(folder / "cache"))
        store = Store(folder / "trials")
        for config in (WORSE, TINY):
            train(config, data, store)
        return store


@pytest.fixture
def store(trained, data, monkeypatch, tmp_path):
    """A copy of it, where the command looks."""
    shutil.copytree(trained.root, tmp_path / "trials")
    monkeypatch.setenv("LABRNN_DATA", data)
    return Store(os.environ["LABRNN_STORE"])


@pytest.fixture
def ask(store):
    trial, corpus = choose_trial(store)
    return lambda *texts: predict(trial, corpus, texts)


def run(*arguments, lines=""):
    """Exit code, what a command prints, what it complains of."""
    result = CliRunner().invoke(main, arguments, input=lines)
    return result.exit_code, result.stdout, result.stderr


def test_the_same_verdicts_as_in_the_models_own_test(store, reviews):
    """Ids are looked up once: looked up again, as words, all would be unknown (defect 4)."""
    trial, corpus = choose_trial(store)
    stored = trial.predictions
    answers = predict(trial, corpus, [reviews.texts[row] for row in stored["row"]])
    positive = [a.probability if a.label == "positive" else 1 - a.probability for a in answers]
    four_decimals = 1e-4  # beside one half a stored probability is moved by a whole one
    allowed = four_decimals + rounding(4 * TINY.hidden_dim)
    assert positive == pytest.approx(stored["best"].tolist(), abs=allowed)
    assert stored["best"].max() - stored["best"].min() > 0.5
    assert all(answer.known for answer in answers)


def test_words_read_dropped_and_cut(ask):
    dull, great = ask("word1 DULL unheard of\tboring", "great " * 40 + "word2")
    assert (dull.label, great.label) == ("negative", "positive")
    assert dull.probability > 0.8
    assert (dull.known, dull.dropped) == (["word1", "dull", "boring"], ["unheard", "of"])
    assert (len(great.known), great.cut) == (32, ["great"] * 8 + ["word2"])


@pytest.mark.parametrize("text", ["", " \n ", "unheard of", "<unk> <pad>", "\0 \u2028", "\udc80"])
def test_nothing_known(ask, text):
    (answer,) = ask(text)
    assert (answer.known, answer.dropped) == ([], text.lower().split())
    assert answer.probability == ask("")[0].probability


def test_the_lowest_validation_loss_is_chosen_unless_a_key_is_named(store, data):
    keys = {trial.config: trial.key for trial in store.trials()}
    assert choose_trial(store)[0].key == keys[TINY]
    chosen, corpus = choose_trial(store, key=keys[WORSE][:5])
    assert chosen.config == WORSE
    assert corpus.words == load_corpus(WORSE, data).words


def test_a_model_that_cannot_serve_is_passed_over(store):
    best = choose_trial(store)[0]
    (best.folder / "history.json").write_text("[]")
    assert choose_trial(store)[0].config == WORSE
    shutil.rmtree(best.folder)
    (choose_trial(store)[0].folder / "model.safetensors").unlink()
    with pytest.raises(LabError, match="no trained model is there of the reviews in use"):
        choose_trial(store)


def test_damaged_weights_are_not_used(store):
    trial, corpus = choose_trial(store)
    (trial.folder / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(LabError, match="is not what was written"):
        predict(trial, corpus, ["great"])


def test_command(store):
    code, out, complaint = run("predict", "superb \x1b[31mword1", "")
    assert (code, complaint) == (0, "")
    first, known, dropped, second, note, model = out.splitlines()
    assert first.startswith("positive 0.")
    assert first.endswith("superb \ufffd[31mword1")
    assert (known, dropped) == ("  known (1): superb", "  dropped (1): \ufffd[31mword1")
    assert second.split()[0] in ("positive", "negative")
    assert "no word of it is known" in note
    assert choose_trial(store)[0].key in model


def test_command_on_lines(store):
    code, out, _ = run("predict", "--json", lines=b"\xef\xbb\xbfgreat\r\n\nawful dull")
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [answer["text"] for answer in answers] == ["great", "", "awful dull"]
    assert [answer["known"] for answer in answers] == [["great"], [], ["awful", "dull"]]
    assert run("predict", "--json") == (0, "", "")


def test_command_without_a_model(store, monkeypatch, tmp_path):
    code, out, complaint = run("predict", "--trial", "zz", "great")
    assert (code, out) == (2, "")
    assert "no trained model zz" in complaint
    assert "`labrnn trials`" in complaint
    monkeypatch.delenv("LABRNN_DATA")
    code, _, complaint = run("predict", "great")
    assert code == 2
    assert "name those with --data" in complaint
    assert "labrnn train params/quick/*.yaml" in complaint
