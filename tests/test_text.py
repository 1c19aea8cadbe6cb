"""From reviews to ids: agreement with the lab for any text, and the cache."""

import dataclasses
import hashlib
import random
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labrnn.config import TrialConfig
from labrnn.errors import LabError
from labrnn.network.batches import Batches
from labrnn.reviews import text
from labrnn.reviews.sources import Reviews
from labrnn.reviews.text import (
    NEGATIONS,
    PAD,
    UNK,
    Vocabulary,
    encode,
    load_corpus,
    spaced,
    split_rows,
    stop_words,
)

SHARED = Path(__file__).parents[2] / "shared" / "data" / "IMDBDataset.csv.xz"


def reviews_of(texts, labels=None):
    labels = np.arange(len(texts)) % 2 if labels is None else labels
    return Reviews(list(texts), np.asarray(labels, np.int8), "made", None, "0" * 16)


def frequent(texts, min_count, stop):
    """Return the words of the lab: `str.split()`, lower case, in order of first appearance."""
    words = [word.lower() for review in texts for word in review.split()]
    counts = Counter(words)
    return [w for w in dict.fromkeys(words) if counts[w] >= min_count and w not in stop]


def assert_word_by_word(reviews, config):
    """Compare `encode` with the rules of the assignment, review by review."""
    corpus = encode(reviews, config)
    words = frequent(
        [reviews.texts[row] for row in corpus.rows["train"]],
        config.min_count,
        stop_words(config.stop_words),
    )
    assert corpus.words == words
    assert corpus.vocabulary_size == len(words) + 2
    number = {word: i for i, word in enumerate(words, start=2)}
    for row, review in enumerate(reviews.texts):
        known = [number[w.lower()] for w in review.split() if w.lower() in number]
        ids = known[: config.max_tokens] or [1]
        label = int(reviews.labels[row])
        assert corpus.example(row) == {"ids": ids, "length": len(ids), "label": label}
    alone = sum(corpus.example(row)["ids"] == [1] for row in range(len(reviews.texts)))
    assert corpus.facts["without_known_words"] == alone
    assert corpus.offsets[-1] == len(corpus.ids)
    return corpus


# ------------------------------------------------------------------------------------------ words


def test_stop_words_match_the_lab():
    lines = "".join(word + "\n" for word in sorted(stop_words()))
    assert len(stop_words()) == 179
    assert hashlib.sha256(lines.encode()).hexdigest() == (
        "649e2341238138974f7fc014ba2c3655dc334605136791a9d1918a41fca86143"
    )


def test_nltk_corpora_do_not_change_the_stop_words(tmp_path, monkeypatch):
    """Neither a broken corpus nor another list of 179 words is used."""
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    corpus = tmp_path / "corpora" / "stopwords" / "english"
    corpus.parent.mkdir(parents=True)
    for content in (b"\xff\xfe broken", "".join(f"zzz{i}\n" for i in range(179)).encode()):
        corpus.write_bytes(content)
        stop_words.cache_clear()
        assert {"the", "not"} < stop_words()
        assert not any(word.startswith("zzz") for word in stop_words())


def test_stop_word_policies():
    assert stop_words("keep") == frozenset()
    kept = stop_words() - stop_words("keep_negations")
    assert kept >= {"no", "nor", "not", "against", "don't", "won't", "couldn", "wasn", "ain", "don"}
    assert kept <= NEGATIONS | {w for w in stop_words() if w.endswith(("n", "n't"))}
    assert not {"in", "on", "own", "an", "then", "when", "than", "again"} & kept


def test_vocabulary_is_ordered_by_first_appearance():
    texts = ["Good film the film", "good plot PLOT odd", "Film good plot"]
    vocabulary = Vocabulary.build(texts, min_count=2)
    assert vocabulary.words == [PAD, UNK, "good", "film", "plot"]
    assert (vocabulary.index[PAD], vocabulary.index[UNK]) == (0, 1)
    assert Vocabulary.build(texts, min_count=1, stop=frozenset()).words[2:] == [
        "good",
        "film",
        "the",
        "plot",
        "odd",
    ]
    assert len(Vocabulary.build(texts, min_count=4)) == 2


def test_tokenize_drops_unknown_words_truncates_and_is_never_empty():
    vocabulary = Vocabulary(["good", "film"])
    assert vocabulary.tokenize("A GOOD bad\tfilm\n") == [2, 3]
    assert vocabulary.tokenize("good film " * 200) == [2, 3] * 128
    assert vocabulary.tokenize("good bad film good", max_tokens=2) == [2, 3]
    for nothing in ("", "   ", "bad", PAD, UNK):
        assert vocabulary.tokenize(nothing) == [1]
    assert vocabulary.words_at(vocabulary.tokenize("good film")) == ["good", "film"]


def test_words_that_look_like_pad_and_unk_are_words():
    texts = ["<unk> <pad> good"] * 6 + ["nothing"] * 6
    corpus = assert_word_by_word(reviews_of(texts), TrialConfig(min_count=1, stop_words="keep"))
    assert {PAD, UNK} <= set(corpus.words)
    lonely = Vocabulary([UNK, "good"])
    assert lonely.tokenize("bad") == [1]


# ------------------------------------------------------------------------------ encode, all at once


WHITESPACE = [c for c in map(chr, range(sys.maxunicode + 1)) if c.isspace()]
PIECES = [*WHITESPACE, "  ", "\r\n", "the", "not", "ΑΣ", "e\u0301", PAD, UNK, "<br />"]
PIECES += "aAbΣσςİIıẞßﬁǄé😀.'\x00\x01\x7f\u00ad\u0345\u200b\ufeff"
ASCII = [piece for piece in PIECES if piece.isascii()]


def made_of(pieces):
    return st.lists(st.sampled_from(pieces), max_size=12).map("".join)


any_text = made_of(PIECES) | made_of(ASCII) | st.text(st.characters(exclude_categories=["Cs"]))


@settings(deadline=None, max_examples=200)
@given(
    st.lists(any_text, min_size=10),
    st.integers(1, 3),
    st.integers(1, 6),
    st.sampled_from(["drop", "keep_negations", "keep"]),
    st.sampled_from(["drop", "keep"]),
)
def test_encode_matches_the_lab_word_by_word(texts, min_count, max_tokens, stop, duplicates):
    config = TrialConfig(
        min_count=min_count, max_tokens=max_tokens, stop_words=stop, duplicates=duplicates
    )
    if duplicates == "drop":
        texts = [*texts, *(f"{i} more" for i in range(10))]
    try:
        assert_word_by_word(reviews_of(texts), config)
    except LabError:
        rows = split_rows(np.arange(len(texts)) if duplicates == "keep" else first_of_each(texts))
        train = [texts[row] for row in rows["train"]]
        assert frequent(train, min_count, stop_words(stop)) == []


@pytest.mark.parametrize("space", WHITESPACE, ids=ascii)
def test_every_kind_of_whitespace(space):
    texts = [f"one{space}two{space}", f"{space}two ΑΣ{space}{space}Σ one"] * 10
    corpus = assert_word_by_word(reviews_of(texts), TrialConfig(min_count=1))
    assert sorted(corpus.words) == sorted(["one", "two", "ας", "σ"])


def first_of_each(texts):
    return np.array([row for row, review in enumerate(texts) if texts.index(review) == row])


@pytest.mark.parametrize(
    "fields",
    [{}, {"max_tokens": 20}, {"min_count": 1, "stop_words": "keep"}, {"train_reviews": 100}],
    ids=str,
)
def test_encode_on_real_reviews(real_reviews, fields):
    corpus = assert_word_by_word(real_reviews, TrialConfig(**fields))
    assert corpus.lengths.max() == fields.get("max_tokens", corpus.lengths.max()) <= 256
    assert (corpus.lengths >= 1).all()


def test_split_is_7_1_2_without_overlap(real_corpus):
    sizes = {name: len(rows) for name, rows in real_corpus.rows.items()}
    assert sizes == {"train": 350, "valid": 50, "test": 100}
    assert sorted(np.concatenate(list(real_corpus.rows.values()))) == list(range(500))
    again = split_rows(np.arange(500))
    assert all((real_corpus.rows[name] == again[name]).all() for name in again)


def test_duplicates():
    texts = [f"good number{i}" for i in range(20)] + ["good number3", "good number7"]
    reviews = reviews_of(texts)
    kept = encode(reviews, TrialConfig())
    dropped = encode(reviews, TrialConfig(duplicates="drop"))
    assert sum(map(len, kept.rows.values())) == 22
    assert sorted(np.concatenate(list(dropped.rows.values()))) == list(range(20))
    for name, rows in split_rows(np.arange(20)).items():
        assert (dropped.rows[name] == rows).all()


def test_fewer_training_reviews(reviews):
    config = TrialConfig(train_reviews=60)
    full, some = encode(reviews, TrialConfig()), encode(reviews, config)
    assert (some.rows["train"] == full.rows["train"][:60]).all()
    assert (some.rows["test"] == full.rows["test"]).all()
    with pytest.raises(LabError, match=r"has 210 reviews, but `train_reviews` .* is 211"):
        encode(reviews, TrialConfig(train_reviews=211))


def test_only_training_texts_reach_the_vocabulary(reviews):
    rows = split_rows(np.arange(len(reviews.texts)))
    texts = list(reviews.texts)
    for row in [*rows["valid"], *rows["test"]]:
        texts[row] = "unheard of words " * 20
    original, changed = (
        encode(r, TrialConfig()) for r in (reviews, dataclasses.replace(reviews, texts=texts))
    )
    assert changed.words == original.words
    for row in rows["train"]:
        assert changed.example(row) == original.example(row)
    for row in [*rows["valid"], *rows["test"]]:
        assert changed.example(row)["ids"] == [1]


def test_empty_vocabulary_is_refused():
    with pytest.raises(LabError, match=r"no word occurs 5 times .* lower min_count"):
        encode(reviews_of([f"word{i}" for i in range(20)]), TrialConfig())


def test_full_csv_gives_the_vocabulary_and_split_of_the_lab(monkeypatch):
    if not SHARED.is_file():
        pytest.skip(f"the 50,000 reviews are not available ({SHARED})")
    corpus = load_corpus(TrialConfig(), str(SHARED))
    assert corpus.vocabulary_size == 56_642
    assert [len(corpus.rows[name]) for name in text.SPLITS] == [35_000, 5_000, 10_000]
    monkeypatch.setattr(text, "encode", None)  # from here on the cache is used
    assert_equal(load_corpus(TrialConfig(), str(SHARED)), corpus)


# ------------------------------------------------------------------------------------------- cache


def assert_equal(one, other):
    for name in ("ids", "offsets", "labels"):
        found, expected = getattr(one, name), getattr(other, name)
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)
    for name in text.SPLITS:
        assert np.array_equal(one.rows[name], other.rows[name])
    assert (one.words, one.facts) == (other.words, other.facts)


@pytest.fixture
def source(reviews, tmp_path):
    path = tmp_path / "reviews.csv"
    signs = ("negative", "positive")
    lines = [f"{t},{signs[label]}" for t, label in zip(reviews.texts, reviews.labels, strict=True)]
    path.write_text("\n".join(["review,sentiment", *lines]))
    return path


def entries():
    return sorted(text.cache_folder().glob("corpus-*"))


def test_cached_corpus_equals_the_encoded_one(source, monkeypatch):
    first = load_corpus(TrialConfig(), str(source))
    assert len(entries()) == 1
    monkeypatch.setattr(text, "encode", None)
    assert_equal(load_corpus(TrialConfig(epochs=9, cell="gru"), str(source)), first)
    assert first.fingerprint == first.facts["fingerprint"]


def test_options_and_data_have_separate_cache_entries(source):
    load_corpus(TrialConfig(), str(source))
    for fields in ({"max_tokens": 10}, {"min_count": 1}, {"stop_words": "keep"},
                   {"duplicates": "drop"}, {"train_reviews": 99}):  # fmt: skip
        before = len(entries())
        load_corpus(TrialConfig(**fields), str(source))
        assert len(entries()) == before + 1
    source.write_text(source.read_text() + "\ngood,positive")
    assert len(load_corpus(TrialConfig(), str(source)).labels) == 301


def test_damaged_cache_is_rebuilt(source):
    good = load_corpus(TrialConfig(), str(source))
    (path,) = entries()
    whole = path.read_bytes()
    good = dataclasses.replace(good, ids=good.ids.copy(), words=list(good.words))
    damages = [b"", b"not arrow", whole[:100], whole[: len(whole) // 2], whole[:-1]]
    damages += [whole.replace(b"offsets", b"offsetz"), whole.replace(b"facts", b"facta")]
    damages += [whole.replace(b"fingerprint", b"fing\x00rprint")]
    for damage in damages:
        path.write_bytes(damage)
        assert_equal(load_corpus(TrialConfig(), str(source)), good)
        assert path.read_bytes() == whole


def test_flipped_bits_in_the_cache_are_detected(source):
    good = load_corpus(TrialConfig(), str(source))
    (path,) = entries()
    whole = path.read_bytes()
    expected = dataclasses.replace(good, ids=good.ids.copy())
    draw = random.Random(3)
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        assert_equal(load_corpus(TrialConfig(), str(source)), expected)


def test_unwritable_cache_is_ignored(source, monkeypatch):
    expected = load_corpus(TrialConfig(), str(source))
    monkeypatch.setenv("LABRNN_CACHE", str(source))  # a file, so the folder cannot be created
    assert_equal(load_corpus(TrialConfig(), str(source)), expected)


def test_location_of_the_cache(tmp_path, monkeypatch):
    assert text.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("LABRNN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert text.cache_folder() == tmp_path / "xdg" / "labrnn"


def test_words_and_punctuation():
    text = 'It\'s <br /><br/>GOOD--really;\x85 "5/10" na\u00efve a_b'
    assert spaced(text, "blanks") == text
    words = ["It's", "GOOD", "-", "-", "really", ";", '"', "5", "/", "10", '"', "naïve", "a", "b"]
    assert spaced(text, "marks").split() == words


def test_ngrams_are_the_frequent_runs_of_training_tokens(reviews):
    config = TrialConfig(min_bigram_count=3, min_trigram_count=2, min_count=2, words="marks")
    corpus = encode(reviews, config)
    plain = encode(reviews, config.replace(min_bigram_count=0, min_trigram_count=0))
    assert len(plain.bigrams) == len(plain.trigrams) == 0
    assert plain.rows_read is plain.ids
    examples = [corpus.example(row)["ids"] for row in range(len(reviews.texts))]
    words, rows = len(corpus.words) + 2, {}
    for n, least, codes in ((2, 3, corpus.bigrams), (3, 2, corpus.trigrams)):
        runs = [[tuple(ids[k : k + n]) for k in range(len(ids) - n + 1)] for ids in examples]
        counts = Counter(run for row in corpus.rows["train"] for run in runs[row])
        known = sorted(run for run, count in counts.items() if count >= least)
        assert 10 < len(known) < len(counts)
        assert codes.tolist() == [
            sum(word * words**k for k, word in enumerate(reversed(run))) for run in known
        ]
        first = words + len(rows)
        rows |= {run: first + k for k, run in enumerate(known)}
    assert corpus.vocabulary_size == words + len(rows)
    batch = next(Batches(corpus, 20, torch.device("cpu")).of(np.arange(20)))
    for row in range(20):
        ids = examples[row]
        expected = [
            [
                ids[k],
                *(rows.get(tuple(ids[k - n + 1 : k + 1]) if k >= n - 1 else (), 0) for n in (2, 3)),
            ]
            for k in range(len(ids))
        ]
        assert batch.ids[torch.from_numpy(batch.packing.rows == row)].tolist() == expected
