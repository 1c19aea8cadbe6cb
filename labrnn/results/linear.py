"""Fits of the linear baselines, see `labrnn.results.baselines`, with scikit-learn."""

import time

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC

from labrnn.reviews.text import log_count_ratios, spaced, words_of
from labrnn.trials.kept import hex_of

# liblinear's C, to choose from: what a training review on the wrong side costs.
STRENGTHS = (0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.1, 0.3)


def measure(reviews, rows):
    """Fit, choose and test every baseline.

    Args:
        reviews: `sources.Reviews`.
        rows: split -> row numbers, as in `Corpus`.

    Returns:
        plain values: labels of the validation and test reviews, which of these are training reviews
        too, and each model with its margins; arrays as hexadecimal digits. The majority is the only
        one where the training reviews are too few for a linear model.
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
        counts = (np.asarray(present[labels == kind].sum(axis=0)).ravel() for kind in (0, 1))
        self.ratios_ = log_count_ratios(*counts)
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
