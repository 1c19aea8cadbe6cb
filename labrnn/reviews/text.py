"""Encode reviews as token ids (Lab 1 a-d): split, vocabulary, tokenizer, corpus, cache."""

import hashlib
import json
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.resources import files
from itertools import chain
from pathlib import Path

import numpy as np
from filelock import FileLock
from safetensors.numpy import load, save

from labrnn.errors import LabError
from labrnn.files import replace_file
from labrnn.folders import absolute
from labrnn.reviews import sources

PAD, UNK = "<pad>", "<unk>"
NEGATIONS = frozenset({"no", "nor", "not", "against", "don't", "ain"})
SPLITS = ("train", "valid", "test")
MIN_REVIEWS = 10  # the fewest distinct reviews for a 7:1:2 split


@lru_cache
def stop_words(policy="drop"):
    """Return the stop words to remove, in lower case: NLTK's 179 English ones as of 2022.

    NLTK's corpus is not read: later releases have other words, so the same trial key would mean a
    different vocabulary.

    Args:
        policy: `drop` for all, `keep_negations` for all but `no`, `nor`, `not`, `against` and every
            `...n't`, `keep` for none.
    """
    if policy == "keep":
        return frozenset()
    words = frozenset((files("labrnn.reviews") / "stop_words.txt").read_text("utf-8").split())
    if policy == "keep_negations":
        contracted = {w for w in words if w.endswith("n't") or w + "'t" in words}
        return words - NEGATIONS - contracted
    return words


MARKUP = re.compile(r"<br\s*/?>", re.IGNORECASE)
WORDS_AND_PUNCTUATION = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[^\w\s]")


def spaced(text, words):
    """Put whitespace between the tokens of a text, for `words_of`.

    Args:
        words: field of `TrialConfig`: `blanks` leaves the text unchanged, `marks` removes markup
            and separates words from punctuation.
    """
    if words == "blanks":
        return text
    return " ".join(WORDS_AND_PUNCTUATION.findall(MARKUP.sub(" ", text)))


def words_of(text):
    """Return the lower-case words of a review, split at whitespace."""
    # Lowering before the split is faster and gives the same words: the only context that
    # `str.lower` uses, that of a final sigma, ends at whitespace.
    return text.lower().split()


def split_rows(rows):
    """Split row numbers [n] 7:1:2 as in the lab: `train_test_split` with random state 1002.

    Returns:
        dict of `train`, `valid` and `test`: row numbers in the lab's order.
    """
    from sklearn.model_selection import train_test_split  # slow import: most of a second

    options = {"random_state": 1002, "shuffle": True}
    train, rest = train_test_split(rows, test_size=0.3, **options)
    valid, test = train_test_split(rest, test_size=2 / 3, **options)
    return {"train": train, "valid": valid, "test": test}


class Vocabulary:
    """Words and their indices; `<pad>` is 0, `<unk>` is 1.

    Args:
        words: list of the words from index 2 on.
    """

    def __init__(self, words):
        self.words = [PAD, UNK, *words]
        self.index = {word: i for i, word in enumerate(self.words)}

    @classmethod
    def build(cls, texts, min_count=5, stop=None):
        """Build the vocabulary of training texts, in order of first appearance (Lab 1 b).

        Args:
            texts: iterable of str.
            min_count: fewest occurrences of a word in all texts.
            stop: words to leave out; the lab's stop words if None.
        """
        stop = stop_words() if stop is None else stop
        # Python's string hash is seeded, so no text can make counting slow.
        counts = Counter(chain.from_iterable(map(words_of, texts)))
        return cls([w for w, n in counts.items() if n >= min_count and w not in stop])

    def __len__(self):
        return len(self.words)

    def tokenize(self, text, max_tokens=256):
        """Look up the known words of a text; unknown words are dropped (Lab 1 c).

        Returns:
            list of 1 to `max_tokens` ids; a text without a known word becomes one `<unk>`.
        """
        found = map(self.index.get, words_of(text))
        return [i for i in found if i and i > 1][:max_tokens] or [1]

    def words_at(self, ids):
        """Return the words of ids: the inverse of `tokenize` for known words."""
        return [self.words[i] for i in ids]


@dataclass(frozen=True)
class Corpus:
    """All reviews of a source as token ids, and their split.

    Attributes:
        ids: tokens of all reviews, concatenated, int32 [tokens].
        offsets: index of each review's first token, int64 [reviews + 1].
        labels: 1 = positive, int8 [reviews].
        rows: split -> row numbers in the lab's order.
        words: the vocabulary's words from index 2 on.
        facts: name, fingerprint and counts of the source.
        bigrams, trigrams: known n-grams of two and three tokens as sorted codes, see
            `code_ngrams`, int64 [P] and [Q].
    """

    ids: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    rows: dict
    words: list
    facts: dict
    bigrams: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    trigrams: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def fingerprint(self):
        return self.facts["fingerprint"]

    @cached_property
    def vocabulary(self):
        return Vocabulary(self.words)

    @cached_property
    def rows_read(self):
        """Embedding rows of every token, int32 [tokens]; with n-grams [tokens, 2 or 3]: the word's,
        and those of the n-grams that end with it, 0 if unknown.
        """
        words = first = len(self.words) + 2
        columns = [self.ids]
        for n, known in ((2, self.bigrams), (3, self.trigrams)):
            if len(known):
                codes = code_ngrams(self.ids, self.offsets, words, n)
                found = np.searchsorted(known, codes).clip(max=len(known) - 1)
                columns.append(np.where(known[found] == codes, found + first, 0).astype(np.int32))
                first += len(known)
        return np.stack(columns, axis=1) if len(columns) > 1 else self.ids

    @property
    def vocabulary_size(self):
        """Rows of an embedding: `<pad>`, `<unk>`, the words, the bigrams, the trigrams."""
        return len(self.words) + 2 + len(self.bigrams) + len(self.trigrams)

    @cached_property
    def lengths(self):
        """Tokens of each review, [reviews]."""
        return np.diff(self.offsets)

    def example(self, row):
        """Return one item of the data set, a dict of `ids`, `length` and `label` (Lab 1 d)."""
        ids = self.ids[self.offsets[row] : self.offsets[row + 1]]
        return {"ids": ids.tolist(), "length": len(ids), "label": int(self.labels[row])}


def encode(reviews, config, rows=None):
    """Encode `sources.Reviews` as a `Corpus` with the data fields of a `TrialConfig`.

    Args:
        rows: split -> row numbers; the lab's split if None.

    Raises:
        LabError: too few reviews remain, or no word is frequent enough.
    """
    rows = _rows(reviews, config) if rows is None else rows
    texts = [spaced(text, config.words) for text in reviews.texts]
    train, stop = (texts[row] for row in rows["train"]), stop_words(config.stop_words)
    vocabulary = Vocabulary.build(train, config.min_count, stop)
    words = vocabulary.words[2:]
    if not words:
        raise LabError(
            f"{reviews.name}: no word occurs {config.min_count} times (stop words aside) in "
            f"its {len(rows['train'])} training reviews; raise train_reviews, lower min_count, or "
            "use more reviews"
        )
    tokens = [vocabulary.tokenize(text, config.max_tokens) for text in texts]
    offsets = np.cumsum([0, *map(len, tokens)])
    ids = np.fromiter(chain.from_iterable(tokens), np.int32, offsets[-1])
    facts = {
        "name": reviews.name,
        "fingerprint": reviews.fingerprint,
        "reviews": len(reviews.texts),
        "without_known_words": int((ids[offsets[:-1]] == 1).sum()),
    }
    ngrams = [np.empty(0, np.int64)] * 2
    for n, least in ((2, config.min_bigram_count), (3, config.min_trigram_count)):
        if least:
            codes = code_ngrams(ids, offsets, len(vocabulary), n)
            ngrams[n - 2] = _frequent(codes, offsets, rows["train"], least, n)
    return Corpus(ids, offsets, reviews.labels, rows, words, facts, *ngrams)


def _rows(reviews, config):
    """Return the rows of each split, as `duplicates` and `train_reviews` of the config say."""
    total, pool = len(reviews.texts), np.arange(len(reviews.texts))
    if config.duplicates == "drop":
        first = {}
        pool = np.array([i for i, t in enumerate(reviews.texts) if first.setdefault(t, i) == i])
    if len(pool) < MIN_REVIEWS:
        raise LabError(
            f"{reviews.name}: `duplicates: drop` leaves {len(pool)} of {total} reviews, at least "
            f"{MIN_REVIEWS} are needed; use other reviews, or keep the duplicates"
        )
    rows = split_rows(pool)
    if config.train_reviews > len(rows["train"]):
        raise LabError(
            f"{reviews.name}: its training set has {len(rows['train'])} reviews, but `train_reviews` "
            f"of the params file or notebook is {config.train_reviews}; set at most that, or 0 for all"
        )
    if config.train_reviews:
        rows["train"] = rows["train"][: config.train_reviews]
    return rows


def code_ngrams(ids, offsets, words, n):
    """Code each token and the n - 1 tokens before it as one number, int64 [tokens].

    For n = 2 the code is `before * words + token`, where `words` is the number of word rows in the
    embedding. The first n - 1 tokens of a review have code 0.
    """
    codes = ids.astype(np.int64)
    for k in range(1, n):
        codes[k:] += ids[:-k].astype(np.int64) * words**k
    starts = offsets[:-1, None] + np.arange(n - 1)
    codes[starts[starts < offsets[1:, None]]] = 0
    return codes


def log_count_ratios(negative, positive):
    """Return the log-count ratio of each feature, [features] (Wang and Manning 2012).

    The arguments count the reviews of a class with each feature, [features]. They are raised by 1
    and normalised; the ratio is log(positive / negative).
    """
    shares = [(counts + 1) / (counts + 1).sum() for counts in (negative, positive)]
    return np.log(shares[1]) - np.log(shares[0])


def _frequent(codes, offsets, rows, least, n):
    """Return the sorted codes of n-grams that occur at least `least` times in the rows."""
    seen = np.concatenate([codes[offsets[row] + n - 1 : offsets[row + 1]] for row in rows])
    found, counts = np.unique(seen, return_counts=True)
    return found[counts >= least]


# --- the cache ---------------------------------------------------------------------------------

CACHE_FORMAT = 6
DATA_FIELDS = ("train_reviews", "max_tokens", "min_count", "stop_words", "duplicates", "words")
DATA_FIELDS += ("min_bigram_count", "min_trigram_count")


def cache_folder():
    """Return the folder of encoded corpora: `LABRNN_CACHE`, else in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "labrnn"
    return absolute(os.environ.get("LABRNN_CACHE") or default)


def load_corpus(config, data=None, fingerprint=""):
    """Return the `Corpus` of a source, from the disk cache if it was encoded before.

    Args:
        config: a `TrialConfig`; only its data fields are used.
        data: the parameter `data`; `LABRNN_DATA` takes precedence (see `sources.find_source`).
        fingerprint: the reviews' expected fingerprint; empty for any.

    Raises:
        LabError: the source is missing or unreadable, or has another fingerprint.
    """
    corpus = _cached(config, sources.find_source(data))
    sources.require_fingerprint(corpus.facts["name"], corpus.fingerprint, fingerprint)
    return corpus


def _cached(config, path):
    fields = config.model_dump(include=set(DATA_FIELDS))
    identity = [CACHE_FORMAT, sources.source_digest(path), sorted(fields.items())]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{key}.lock"):
            cached = folder / f"corpus-{key}.safetensors"
            corpus = _load(cached)
            if corpus is None:
                corpus = encode(sources.read_reviews(path), config)
                _save(corpus, cached)
            return corpus
    except OSError:  # no space or no permission for the cache
        return encode(sources.read_reviews(path), config)


def _save(corpus, path):
    names = ("ids", "offsets", "labels", "bigrams", "trigrams")
    arrays = {name: getattr(corpus, name) for name in names} | corpus.rows
    texts = json.dumps([corpus.words, corpus.facts]).encode()
    content = save(arrays | {"texts": np.frombuffer(texts, np.uint8)})
    replace_file(path, content + hashlib.sha256(content).digest())


def _load(path):
    """Return the corpus of a cache file; None if the file is missing or damaged."""
    stored = path.read_bytes() if path.exists() else b""
    content, digest = stored[:-32], stored[-32:]
    if hashlib.sha256(content).digest() != digest:
        return None
    arrays = load(content)
    words, facts = json.loads(arrays.pop("texts").tobytes())
    rows = {name: arrays.pop(name) for name in SPLITS}
    return Corpus(**arrays, rows=rows, words=words, facts=facts)
