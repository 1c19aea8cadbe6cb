"""Baselines without a neural network on the lab's split: majority, bag of words, NB-SVM.

Each is linear in the words and n-grams (n ≤ 3) that occur in a review. It is fitted to the
training reviews, its regularisation is selected on the validation reviews, and the test reviews are
classified once, at the end. NB-SVM (Wang and Manning 2012) scales features by log-count ratios. The
tokens are words and punctuation, as for the best network.
"""

from dataclasses import dataclass

import numpy as np

from labrnn.errors import LabError
from labrnn.reviews.description import kept_as, remembered
from labrnn.reviews.text import load_corpus
from labrnn.trials.kept import array_of

KIND = "baselines"
FORMAT = 2  # of the stored data; raise it if a change here changes figures


TITLES = {f"NB-SVM, {n}s": f"the {n} NB-SVM" for n in ("unigram", "bigram", "trigram")}


@dataclass(frozen=True, eq=False)
class Baseline:
    """A fitted model other than a setting: a baseline, or its combination with a network.

    Attributes:
        name: its name in tables.
        title: its name in a sentence.
        parameters: number of weights and biases.
        seconds: processor time, with reading the texts and the selection of C.
        validation: accuracy on the validation reviews.
        correct: whether each test review is classified correctly, in the order of the runs'
            predictions, bool [test]; for a combination [runs, test].
        strength: the selected C; None if there is none.
        labels: labels of the validation and of the test reviews, 1 = positive, [valid], [test].
        margins: decision values of the same reviews, above 0 for `positive`.
        repeated: whether a test review's text also occurs in the training reviews, [test].
    """

    name: str
    title: str
    parameters: int
    seconds: float
    validation: float
    correct: np.ndarray
    strength: float | None = None
    labels: tuple = ()
    margins: tuple = ()
    repeated: np.ndarray | None = None

    @property
    def accuracy(self):
        """Accuracy on the test reviews, a fraction."""
        return float(self.correct.mean())


def find(part, store):
    """Return the `Baseline`s of a part's reviews, stored or fitted now.

    The list is empty if the part names a fingerprint, and neither its reviews nor stored baselines
    are available.

    Raises:
        LabError: the reviews are missing and the part names no fingerprint; or the training reviews
            are too few for a linear model.
    """

    def fit(reviews):
        from labrnn.results.linear import measure  # scikit-learn is imported only if needed

        return measure(reviews, load_corpus(part.base, part.data).rows)

    try:
        stored = remembered(KIND, _identity(part), part.data, part.fingerprint, store, fit)
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

    Nothing is fitted: the result is None if no baseline is stored.
    """
    fingerprint = next((trial.fingerprint for trial in trials), None)
    stored = fingerprint and store.recall(fingerprint, kept_file(part))
    return preferred(_unpacked(stored)) if stored else None


def preferred(models):
    """Return the `Baseline` with the best validation accuracy."""
    return max(models, key=lambda model: model.validation)


def kept_file(part):
    """Return the name of the derived data with the part's baselines."""
    return kept_as(KIND, _identity(part))


def _identity(part):
    return [FORMAT, sorted(part.base.model_dump(include={"train_reviews", "duplicates"}).items())]


def _unpacked(stored):
    labels = tuple(array_of(text, np.int8) == 1 for text in stored["labels"])
    repeated = array_of(stored["repeated"], np.int8) == 1
    return [_baseline(labels=labels, repeated=repeated, **model) for model in stored["models"]]


def _baseline(name, margins, labels, **more):
    margins = tuple(array_of(text, np.float16).astype(float) for text in margins)
    valid, test = (m > 0 for m in margins)
    return Baseline(
        name,
        TITLES.get(name, f"the {name}"),
        validation=float((valid == labels[0]).mean()),
        correct=test == labels[1],
        labels=labels,
        margins=margins,
        **more,
    )
