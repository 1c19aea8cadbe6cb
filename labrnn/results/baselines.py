"""Baselines, models without a network, on the lab's split: majority, bag of words, NB-SVM.

Each is linear in the words, or runs of up to three neighbouring words, that occur in a review. It
is fitted on the training reviews in use, the validation reviews choose its regularisation, and the
test reviews are classified once, after that. NB-SVM (Wang and Manning 2012) scales features by
log-count ratios. Tokens are words and punctuation, as the best network reads them.
"""

import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC

from labrnn.errors import LabError
from labrnn.reviews.description import kept_as, remembered
from labrnn.reviews.text import load_corpus, spaced, words_of

KIND = "baselines"
FORMAT = 2  # of what is kept; another one when a change here changes figures
# liblinear's C, to choose from: what a training review on the wrong side costs.
STRENGTHS = (0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.1, 0.3)


@dataclass(frozen=True)
class Baseline:
    """A fitted model's outcome.

    Attributes:
        name: as the reports call it.
        strength: the chosen C; None where there is nothing to choose.
        parameters: weights and bias.
        seconds: processor time of all it took, reading texts and the choice of C included.
        labels: 1 = positive, of the validation and of the test reviews, [valid], [test].
        margins: above 0 for `positive`, of the same reviews.
        repeated: whether a test review's text is also among the training reviews, [test].
    """

    name: str
    strength: float | None
    parameters: int
    seconds: float
    labels: tuple
    margins: tuple
    repeated: np.ndarray

    @cached_property
    def correct(self):
        """Whether it is right on each test review, in the order of the runs' predictions."""
        return (self.margins[1] > 0) == self.labels[1]

    @property
    def validation(self):
        """Accuracy on the validation reviews."""
        return float(((self.margins[0] > 0) == self.labels[0]).mean())

    @property
    def accuracy(self):
        """Accuracy on the test reviews."""
        return float(self.correct.mean())


def find(part, store):
    """Return the `Baseline`s of a part's reviews, stored or fitted now.

    Args:
        part: a `Part`.
        store: a `Store`.

    Returns:
        list of `Baseline`, empty where the part names a fingerprint and neither its reviews nor
        their stored outcome are available.

    Raises:
        LabError: the reviews are missing, and no fingerprint says which stored outcome to use; or
            no linear model can be fitted to so few training reviews.
    """
    try:
        stored = remembered(
            KIND,
            _identity(part),
            part.data,
            part.fingerprint,
            store,
            lambda reviews: measure(reviews, load_corpus(part.base, part.data).rows),
        )
    except LabError:
        if part.fingerprint:
            return []
        raise
    found = _unpacked(stored)
    if len(found) == 1:
        raise LabError(
            f"{part.name}: no linear baseline can be fitted to these training reviews (train_reviews ="
            f" {part.base.train_reviews}): both classes are needed, and a word that two of"
            " them have; raise train_reviews"
        )
    return found


def best(part, trials, store):
    """Return the stored `Baseline` with the best validation accuracy on the trials' reviews.

    None where none is stored; it fits nothing, so that any part's figures may ask.
    """
    fingerprint = next((trial.fingerprint for trial in trials), None)
    stored = fingerprint and store.recall(fingerprint, kept_file(part))
    return preferred(_unpacked(stored)) if stored else None


def preferred(models):
    """Return the `Baseline` with the best validation accuracy."""
    return max(models, key=lambda model: model.validation)


def kept_file(part):
    """The name of the file, beside the trials, that holds the part's baselines."""
    return kept_as(KIND, _identity(part))


def _identity(part):
    fields = part.base.model_dump(include={"train_reviews", "duplicates"})
    return [FORMAT, sorted(fields.items())]


def _unpacked(stored):
    labels = tuple(array_of(text, np.int8) == 1 for text in stored["labels"])
    repeated = array_of(stored["repeated"], np.int8) == 1
    found = []
    for model in map(dict, stored["models"]):
        margins = tuple(array_of(text, np.float16).astype(float) for text in model.pop("margins"))
        found.append(Baseline(**model, margins=margins, labels=labels, repeated=repeated))
    return found


def measure(reviews, rows):
    """Fit, choose and test every baseline.

    Args:
        reviews: `sources.Reviews`.
        rows: split -> row numbers, as in `Corpus`.

    Returns:
        plain values: labels of the validation and test reviews, which of these are training reviews
        too, and each model with its margins; arrays as hexadecimal digits. The majority stands
        alone where the training reviews are too few for a linear model.
    """
    texts = {split: [reviews.texts[row] for row in rows[split]] for split in rows}
    labels = {split: reviews.labels[rows[split]] for split in rows}
    models = [_majority(labels)]
    if _can_be_fitted(texts["train"], labels["train"]):
        models += [
            _choose(name, model, longest, texts, labels)
            for name, model, longest in (
                ("bag of words", Pipeline([("linear", LogisticRegression(solver="liblinear"))]), 1),
                ("NB-SVM, words", nb_svm(), 1),
                ("NB-SVM, pairs", nb_svm(), 2),
                ("NB-SVM, triples", nb_svm(), 3),
            )
        ]
    train = set(texts["train"])
    return {
        "labels": [hex_of(labels[split], np.int8) for split in ("valid", "test")],
        "repeated": hex_of([text in train for text in texts["test"]], np.int8),
        "models": models,
    }


def _can_be_fitted(texts, labels):
    """Whether there are both classes, and a token that two reviews have."""
    seen = set()
    for words in (set(tokens(text)) for text in texts):
        if words & seen:
            return len(set(labels.tolist())) == 2
        seen |= words
    return False


def tokens(text):
    """Return the words and the punctuation of a review, in lower case."""
    return words_of(spaced(text, "marks"))


def occurrences(longest):
    """Make the vectoriser of tokens and of runs of up to `longest` tokens: texts -> 0/1, sparse.

    Those that only one training review has are left out: they are most of all runs, and teach
    little.
    """
    return CountVectorizer(
        tokenizer=tokens,
        token_pattern=None,
        lowercase=False,
        ngram_range=(1, longest),
        min_df=2,
        binary=True,
        dtype=np.float64,
    )


class LogCountRatios(TransformerMixin, BaseEstimator):
    """Scale features by the log of how much larger their share is in positive reviews.

    Each count is raised by 1, so that none is 0 (Wang and Manning 2012).
    """

    def fit(self, present, labels):
        """Learn the ratios from 0/1 [reviews, features], sparse, and labels, 1 = positive."""
        counts = [np.asarray(present[labels == kind].sum(axis=0)).ravel() + 1 for kind in (0, 1)]
        negative, positive = (np.log(count / count.sum()) for count in counts)
        self.ratios_ = positive - negative
        return self

    def transform(self, present):
        """Return the scaled features, sparse."""
        return present.multiply(self.ratios_).tocsr()


def nb_svm():
    """Make an NB-SVM, without the paper's mixing of weights."""
    return Pipeline([("ratios", LogCountRatios()), ("linear", LinearSVC(tol=0.01, random_state=0))])


def _choose(name, model, longest, texts, labels):
    """Fit a model with every strength; the one with the best validation accuracy is tested."""
    start = time.process_time()
    features = occurrences(longest)
    train, valid = features.fit_transform(texts["train"]), features.transform(texts["valid"])
    models = {
        strength: clone(model).set_params(linear__C=strength).fit(train, labels["train"])
        for strength in STRENGTHS
    }
    best = max(models, key=lambda strength: models[strength].score(valid, labels["valid"]))
    test = features.transform(texts["test"])
    margins = [models[best].decision_function(some) for some in (valid, test)]
    return {
        "name": name,
        "strength": best,
        "parameters": train.shape[1] + 1,
        "seconds": round(time.process_time() - start, 2),
        "margins": [hex_of(values, np.float16) for values in margins],
    }


def _majority(labels):
    """What the training reviews are more often, for every review."""
    side = 1.0 if 2 * labels["train"].mean() > 1 else -1.0
    return {
        "name": "majority",
        "strength": None,
        "parameters": 1,
        "seconds": 0.0,
        "margins": [hex_of([side] * len(labels[split]), np.float16) for split in ("valid", "test")],
    }


def hex_of(values, kind):
    """Return an array's bytes, little-endian, as hexadecimal digits."""
    return np.asarray(values).astype(np.dtype(kind).newbyteorder("<")).tobytes().hex()


def array_of(digits, kind):
    """Return the array that `hex_of` wrote."""
    return np.frombuffer(bytes.fromhex(digits), np.dtype(kind).newbyteorder("<"))
