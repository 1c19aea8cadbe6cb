"""Fit the linear baselines of `labrnn.results.baselines` with scikit-learn."""

import time
from functools import partial

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from labrnn.reviews.text import log_count_ratios, spaced, words_of
from labrnn.trials.kept import hex_of

# Candidates for liblinear's C, the cost of a misclassified training review.
STRENGTHS = (0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.1, 0.3)


def measure(reviews, rows):
    """Fit, select and test every baseline.

    Args:
        reviews: `sources.Reviews`.
        rows: split -> row numbers, as in `Corpus`.

    Returns:
        dict of plain values, arrays as hexadecimal digits: labels of the validation and test
        reviews, whether a test review repeats a training review, and the models with their margins.
        If the training reviews are too few for a linear model, the only model is the majority.
    """
    texts = {split: [reviews.texts[row] for row in rows[split]] for split in rows}
    labels = {split: reviews.labels[rows[split]] for split in rows}
    models = [_majority(labels)]
    if _can_be_fitted(texts["train"], labels["train"]):
        models.append(_choose("bag of words", 1, texts, labels, scaled=False))
        for longest, name in enumerate(("unigrams", "bigrams", "trigrams"), 1):
            models.append(_choose(f"NB-SVM, {name}", longest, texts, labels))
    train = set(texts["train"])
    return {
        "labels": [hex_of(labels[split], np.int8) for split in ("valid", "test")],
        "repeated": hex_of([text in train for text in texts["test"]], np.int8),
        "models": models,
    }


def _can_be_fitted(texts, labels):
    """Whether both classes occur, and a token in two reviews."""
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
    """Make a vectoriser of n-grams of up to `longest` tokens: texts -> 0/1, sparse.

    N-grams that occur in one training review only are left out: they are the majority, and carry
    little information.
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


def ratios(present, labels):
    """Compute the log-count ratio of each feature, [features] (Wang and Manning 2012).

    Args:
        present: 0/1, sparse [reviews, features].
        labels: 1 = positive, [reviews].
    """
    counts = (np.asarray(present[labels == kind].sum(axis=0)).ravel() for kind in (0, 1))
    return log_count_ratios(*counts)


def _choose(name, longest, texts, labels, scaled=True):
    """Fit a model for each C of `STRENGTHS`, and test the one with the best validation accuracy.

    With `scaled` features the model is an NB-SVM, without the paper's interpolation of weights.
    """
    start = time.process_time()
    features = occurrences(longest)
    present = {"train": features.fit_transform(texts["train"])}
    present |= {split: features.transform(texts[split]) for split in ("valid", "test")}
    kind = partial(LogisticRegression, solver="liblinear")
    if scaled:
        factors = ratios(present["train"], labels["train"])
        present = {split: rows.multiply(factors).tocsr() for split, rows in present.items()}
        kind = partial(LinearSVC, tol=0.01, random_state=0)
    models = [kind(C=strength).fit(present["train"], labels["train"]) for strength in STRENGTHS]
    best = max(models, key=lambda model: model.score(present["valid"], labels["valid"]))
    margins = [best.decision_function(present[split]) for split in ("valid", "test")]
    return {
        "name": name,
        "strength": best.C,
        "parameters": present["train"].shape[1] + 1,
        "seconds": round(time.process_time() - start, 2),
        "margins": [hex_of(values, np.float16) for values in margins],
    }


def _majority(labels):
    """Predict the more frequent class of the training reviews for every review."""
    side = 1.0 if 2 * labels["train"].mean() > 1 else -1.0
    return {
        "name": "majority",
        "strength": None,
        "parameters": 1,
        "seconds": 0.0,
        "margins": [hex_of([side] * len(labels[split]), np.float16) for split in ("valid", "test")],
    }
