"""Describe the reviews (Lab 1 a-d) as plain values, which are stored beside the runs.

The part on the data can then be rendered without the reviews.
"""

import hashlib
import json
from contextlib import suppress
from itertools import chain

import numpy as np

from labrnn.errors import LabError
from labrnn.reviews import sources
from labrnn.reviews.text import DATA_FIELDS, SPLITS, load_corpus, stop_words, words_of

FORMAT = 1


def describe_data(config, data, fingerprint, store):
    """Describe the reviews under a configuration's data fields.

    Args:
        config: a `TrialConfig`; only its data fields are used.
        data, fingerprint, store: see `remembered`.

    Returns:
        dict of plain values, with the keys of `kept.KINDS["data"]`.

    Raises:
        LabError: neither the expected reviews nor their description are available.
    """
    # As in `trial_key`: a new field with a neutral default leaves stored files valid.
    fields = config.model_dump(include=set(DATA_FIELDS), exclude_defaults=True)
    identity = [FORMAT, sorted(fields.items())]

    def make(reviews):
        return _describe(reviews, load_corpus(config, data), config)

    return remembered("data", identity, data, fingerprint, store, make)


def remembered(kind, identity, data, fingerprint, store, make):
    """Return derived data: from a file in the store, or computed by `make` and stored.

    Args:
        kind: start of the file's name.
        identity: plain values that distinguish files of a kind.
        data: source of the reviews.
        fingerprint: the reviews' expected fingerprint, or empty.
        store: the `Store` that contains the file.
        make: `Reviews` -> plain values; None if only a stored file can be used.

    Raises:
        LabError: neither the expected reviews nor a stored file is available.
    """
    name = kept_as(kind, identity)
    reviews = None if fingerprint else sources.read_reviews(sources.find_source(data))
    wanted = fingerprint or reviews.fingerprint
    if (value := store.recall(wanted, name)) is not None:
        return value
    if not make:
        raise LabError(f"{name}: not stored beside the runs, and cannot be computed here")
    reviews = reviews or sources.read_reviews(sources.find_source(data))
    sources.require_fingerprint(reviews.name, reviews.fingerprint, wanted)
    value = make(reviews)
    with suppress(LabError):  # a read-only store
        store.keep(wanted, name, value)
    return value


def kept_as(kind, identity):
    """Return the name of the file in which `remembered` stores a value."""
    return f"{kind}-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]}.json"


def _describe(reviews, corpus, config):
    from nltk import FreqDist  # takes more than a second, so imported only if needed

    train = corpus.rows["train"]
    counts = FreqDist(chain.from_iterable(words_of(reviews.texts[row]) for row in train))
    stop = stop_words(config.stop_words)
    return {
        "facts": sources.describe(reviews),
        "splits": {
            name: [len(corpus.rows[name]), int(corpus.labels[corpus.rows[name]].sum())]
            for name in SPLITS
        },
        "vocabulary_size": corpus.vocabulary_size,
        "frequent": [[word, n, word in stop] for word, n in counts.most_common(40)],
        "distinct_words": counts.B(),
        "kept_share": sum(counts[word] for word in corpus.words) / counts.N(),
        "word_counts": _compact(list(counts.values())),
        "lengths": {
            "all words": _compact([len(text.split()) for text in reviews.texts]),
            "known words": _compact(corpus.lengths),
        },
        "cut": float((corpus.lengths == config.max_tokens).mean()),
        "without_known_words": corpus.facts["without_known_words"],
    }


def _compact(values):
    """Return the distinct values and how often each occurs."""
    distinct, times = np.unique(np.asarray(values), return_counts=True)
    return [distinct.tolist(), times.tolist()]


def expand(compact):
    """Return the sorted values of a result of `_compact`."""
    return np.repeat(*map(np.asarray, compact))
