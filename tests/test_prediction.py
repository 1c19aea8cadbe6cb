"""Predictions of a stored model: agreement with its test, and any kind of text."""

import json
import os
import shutil

import pytest
from bs4 import BeautifulSoup
from exact import rounding
from PIL import Image
from tiny import TINY, run, train

from labrnn.errors import LabError
from labrnn.network.prediction import choose_trial, opinions, predict
from labrnn.reviews.text import load_corpus
from labrnn.trials.store import Store

WORSE = TINY.replace(epochs=1, lr=0.0001)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A store with a trained model and a barely trained one."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABRNN_CACHE", str(folder / "cache"))
        store = Store(folder / "trials")
        for config in (WORSE, TINY):
            train(config, data, store)
        return store


@pytest.fixture
def store(trained, data, monkeypatch, tmp_path):
    """A copy of it as the default store."""
    shutil.copytree(trained.root, tmp_path / "trials")
    monkeypatch.setenv("LABRNN_DATA", data)
    return Store(os.environ["LABRNN_STORE"])


@pytest.fixture
def ask(store):
    trial, corpus = choose_trial(store)
    return lambda *texts: predict(trial, corpus, texts)


def test_predictions_match_the_stored_test(store, reviews):
    """Words are looked up once; a second look-up of ids would find no known word (defect 4)."""
    trial, corpus = choose_trial(store)
    stored = trial.predictions
    answers = predict(trial, corpus, [reviews.texts[row] for row in stored["row"]])
    positive = [a.probability if a.label == "positive" else 1 - a.probability for a in answers]
    four_decimals = (
        1e-4  # a whole unit: near one half, stored probabilities are not rounded to nearest
    )
    allowed = four_decimals + rounding(4 * TINY.hidden_dim)
    assert positive == pytest.approx(stored["best"].tolist(), abs=allowed)
    assert stored["best"].max() - stored["best"].min() > 0.5
    assert all(answer.known for answer in answers)


def test_known_dropped_and_truncated_words_are_reported(ask):
    dull, great = ask("word1 DULL unheard of\tboring", "great " * 40 + "word2")
    assert (dull.label, great.label) == ("negative", "positive")
    assert dull.probability > 0.8
    assert (dull.known, dull.dropped) == (["word1", "dull", "boring"], ["unheard", "of"])
    assert (len(great.known), great.cut) == (32, ["great"] * 8 + ["word2"])


@pytest.mark.parametrize("text", ["", " \n ", "unheard of", "<unk> <pad>", "\0 \u2028", "\udc80"])
def test_text_without_known_words(ask, text):
    (answer,) = ask(text)
    assert (answer.known, answer.dropped) == ([], text.lower().split())
    assert answer.probability == ask("")[0].probability


def test_model_with_lowest_validation_loss_is_chosen_unless_a_key_is_given(store, data):
    keys = {trial.config: trial.key for trial in store.trials()}
    assert choose_trial(store)[0].key == keys[TINY]
    chosen, corpus = choose_trial(store, key=keys[WORSE][:5])
    assert chosen.config == WORSE
    assert corpus.words == load_corpus(WORSE, data).words


def test_unusable_model_is_skipped(store):
    best = choose_trial(store)[0]
    (best.folder / "history.json").write_text("[]")
    assert choose_trial(store)[0].config == WORSE
    shutil.rmtree(best.folder)
    (choose_trial(store)[0].folder / "model.safetensors").unlink()
    with pytest.raises(LabError, match="no trained model found for the reviews in use"):
        choose_trial(store)


def test_damaged_weights_are_not_used(store):
    trial, corpus = choose_trial(store)
    (trial.folder / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(LabError, match="does not match its stored SHA-256"):
        predict(trial, corpus, ["great"])


def test_command(store):
    code, out, err = run("predict", "superb \x1b[31mword1", "")
    assert (code, err[:6]) == (0, "next: ")
    first, known, dropped, second, note, model = out.splitlines()
    assert first.startswith("positive 0.")
    assert first.endswith("superb \ufffd[31mword1")
    assert (known, dropped) == ("  known (1): superb", "  dropped (1): \ufffd[31mword1")
    assert second.split()[0] in ("positive", "negative")
    assert "contains no known word" in note
    assert choose_trial(store)[0].key in model


def test_command_reads_lines_from_standard_input(store):
    code, out, _ = run("predict", "--json", lines=b"\xef\xbb\xbfgreat\r\n\nawful dull")
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [answer["text"] for answer in answers] == ["great", "", "awful dull"]
    assert [answer["known"] for answer in answers] == [["great"], [], ["awful", "dull"]]
    assert run("predict", "--json") == (0, "", "")


def test_opinions_match_predictions_of_prefixes(store, ask):
    """Each opinion is the prediction for the text up to that word."""
    trial, corpus = choose_trial(store)
    (answer,) = ask("word1 dull unheard word2 great lovely superb")
    found = opinions(trial, corpus, answer)
    prefixes = [ask(text)[0].positive for text in ("word1", "word1 dull", "word1 dull word2")]
    assert found[:3] == pytest.approx(prefixes, abs=1e-6)
    assert found[-1] == pytest.approx(answer.positive, abs=1e-6)
    assert len(found) == len(answer.known) == 6
    assert found[1] < 0.5 < found[-1]
    assert opinions(trial, corpus, ask("unheard")[0]) == []


def test_explanation_is_written_as_html_and_png(store, tmp_path, ask):
    text = "great <b>word1</b> dull unheard awful $x$"
    code, out, err = run("predict", text, "--explain", str(tmp_path / "new/opinion.html"))
    assert (code, err) == (0, f"next: open {tmp_path / 'new/opinion.html'}\n")
    names = [tmp_path / "new" / name for name in ("opinion.html", "opinion.png")]
    assert f"explained in {names[0]} and {names[1]}" in out
    page = BeautifulSoup(names[0].read_bytes(), "html.parser")
    items = page.select("ol.words li")
    trial, corpus = choose_trial(store)
    (answer,) = ask(text)
    assert [item.contents[0] for item in items] == answer.known == ["great", "dull", "awful"]
    numbers = [float(item.small.get_text()) for item in items]
    assert numbers == pytest.approx(opinions(trial, corpus, answer), abs=0.006)
    colors = {p > 0.5: item["style"] for p, item in zip(numbers, items, strict=True)}
    assert len(set(colors.values())) == len(colors)
    assert page.find("b") is None
    assert "unheard" in page.get_text()
    with Image.open(names[1]) as picture:
        assert picture.width > 500
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


@pytest.mark.parametrize("text", ["", "unheard", "\udc80 \0 😀 great", "great " * 60])
def test_any_text_can_be_explained(store, tmp_path, text):
    code, _, err = run("predict", "--json", text, "--explain", str(tmp_path / "opinion"))
    assert code == 0
    assert "explained in" in err
    assert (tmp_path / "opinion.png").stat().st_size > 1000


@pytest.mark.parametrize("path", ["", "/"])
def test_explanation_needs_a_file_name(path, store):
    code, _, err = run("predict", "great", "--explain", path)
    assert code == 2
    assert "without a name for the files; add one" in err


def test_one_text_is_explained_at_a_time(store, tmp_path):
    code, _, err = run("predict", "great", "dull", "--explain", str(tmp_path / "opinion"))
    assert code == 2
    assert "--explain takes one text, 2 were given" in err
    assert not (tmp_path / "opinion.html").exists()


def test_command_without_a_model(store):
    code, out, err = run("predict", "--trial", "zz", "great")
    assert (code, out) == (2, "")
    assert "no trained model zz" in err
    assert "`labrnn trials`" in err


def test_standard_input_has_a_limit(monkeypatch):
    monkeypatch.setattr("labrnn.cli.MOST_TEXT", 100)
    assert run("predict", lines="good\n" * 20)[0] == 0
    code, out, err = run("predict", lines="good\n" * 21)
    assert (code, out) == (2, "")
    assert "standard input: more than 100 bytes; pass fewer reviews per call" in err
