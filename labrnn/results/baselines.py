"""Baselines, models without a network, on the lab's split: majority, bag of words, NB-SVM.

Each is linear in the words, or pairs of neighbouring words, that occur in a review. It is fitted on
the training reviews in use, the validation reviews choose its regularisation, and the test reviews
are classified once, after that. NB-SVM (Wang and Manning 2012) scales words by log-count ratios.
"""

import time
from dataclasses import dataclass

import numpy as np

from labrnn.errors import LabError
from labrnn.reviews.description import kept_as, remembered
from labrnn.reviews.text import load_corpus, log_ratios, stop_words, words_of

KIND = "baselines"
FORMAT = 1  # of what is kept; another one when a change here changes figures
# liblinear's C, to choose from: what a training review on the wrong side costs.
STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3)


@dataclass(frozen=True)
class Baseline:
    """A fitted model's outcome.

    Attributes:
        name: as the reports call it.
        strength: the chosen C; None where there is nothing to choose.
        parameters: weights and bias.
        seconds: processor time of all it took, reading texts and the choice of C included.
        validation: accuracy on the validation reviews.
        correct: whether it is right on each test review, in the order of the trials' predictions.
    """

    name: str
    strength: float | None
    parameters: int
    seconds: float
    validation: float
    correct: np.ndarray

    @property
    def accuracy(self):
        """On the test reviews."""
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
            f" {part.base.train_reviews}): both classes are needed, and a word, stop words aside, that"
            " two of them have; raise train_reviews"
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
    labels = _bits(stored["labels"], stored["reviews"])
    found = []
    for model in map(dict, stored["models"]):
        correct = _bits(model.pop("test"), len(labels)) == labels
        found.append(Baseline(**model, correct=correct))
    return found


def measure(reviews, rows):
    """Fit, choose and test every baseline.

    Args:
        reviews: `sources.Reviews`.
        rows: split -> row numbers, as in `Corpus`.

    Returns:
        plain values: the number of test reviews, their labels and each model's predictions as bits.
        The majority is the only one where the training reviews are too few for a linear model.
    """
    texts = {split: [reviews.texts[row] for row in rows[split]] for split in rows}
    labels = {split: reviews.labels[rows[split]] for split in rows}
    models = [_majority(labels)]
    fits = _can_be_fitted(texts["train"], labels["train"])
    for policy, words in (("keep", "all words"), ("drop", "no stop words")) if fits else ():
        for name, fit, longest in (
            ("bag of words", logistic_regression, 1),
            ("NB-SVM", nb_svm, 1),
            ("NB-SVM, word pairs", nb_svm, 2),
        ):
            model = _choose(fit, occurrences(policy, longest), texts, labels)
            models.append({"name": f"{name}, {words}", **model})
    return {"reviews": len(rows["test"]), "labels": _packed(labels["test"]), "models": models}


def _can_be_fitted(texts, labels):
    """Whether there are both classes, and a word other than a stop word that two reviews have."""
    seen, stop = set(), stop_words()
    for words in (set(words_of(text)) - stop for text in texts):
        if words & seen:
            return len(set(labels.tolist())) == 2
        seen |= words
    return False


def occurrences(policy, longest):
    """Make the vectoriser of words and of runs of up to `longest` words.

    Words that only one training review has are left out: they are most of all pairs, and teach
    little. Neighbours are those that remain once the stop words are gone.

    Args:
        policy: of stop words, see `stop_words`.
        longest: words of the longest run.

    Returns:
        a scikit-learn vectoriser: texts -> sparse 0/1 [texts, n].
    """
    from sklearn.feature_extraction.text import CountVectorizer

    stop = stop_words(policy)
    return CountVectorizer(
        tokenizer=lambda text: [word for word in words_of(text) if word not in stop],
        token_pattern=None,
        lowercase=False,
        ngram_range=(1, longest),
        min_df=2,
        binary=True,
        dtype=np.float64,
    )


def _choose(fit, features, texts, labels):
    """Fit with every strength; the one with the best validation accuracy is tested."""
    start = time.process_time()
    train, valid = features.fit_transform(texts["train"]), features.transform(texts["valid"])
    fitted = {strength: fit(train, labels["train"], strength) for strength in STRENGTHS}
    scores = {
        strength: float(((valid @ weights + bias > 0) == labels["valid"]).mean())
        for strength, (weights, bias) in fitted.items()
    }
    best = max(scores, key=scores.get)
    weights, bias = fitted[best]
    verdicts = features.transform(texts["test"]) @ weights + bias > 0
    return {
        "strength": best,
        "parameters": len(weights) + 1,
        "validation": scores[best],
        "seconds": round(time.process_time() - start, 2),
        "test": _packed(verdicts),
    }


def _majority(labels):
    """What the training reviews are more often, for every review."""
    positive = 2 * labels["train"].mean() > 1
    return {
        "name": "majority",
        "strength": None,
        "parameters": 1,
        "seconds": 0.0,
        "validation": float((labels["valid"] == positive).mean()),
        "test": _packed(np.full(len(labels["test"]), positive)),
    }


def logistic_regression(present, labels, strength):
    """Return weights and bias of a logistic regression on a bag of words."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, solver="liblinear").fit(present, labels)
    return model.coef_[0], model.intercept_[0]


def nb_svm(present, labels, strength):
    """Return weights and bias of a linear SVM on log-count ratios, without the paper's mixing."""
    from sklearn.svm import LinearSVC

    ratios = log_count_ratios(present, labels)
    scaled = present.multiply(ratios).tocsr()
    model = LinearSVC(C=strength, tol=0.01, random_state=0).fit(scaled, labels)
    return ratios * model.coef_[0], model.intercept_[0]


def log_count_ratios(present, labels):
    """Return how much larger a feature's share is among positive reviews' features, as a log.

    Args:
        present: sparse 0/1 [reviews, features].
        labels: 1 = positive, [reviews].

    Returns:
        array [features].
    """
    return log_ratios(*(np.asarray(present[labels == kind].sum(axis=0)).ravel() for kind in (0, 1)))


def _packed(bits):
    return np.packbits(np.asarray(bits, bool)).tobytes().hex()


def _bits(packed, count):
    raw = np.frombuffer(bytes.fromhex(packed), np.uint8)
    return np.unpackbits(raw, count=count).astype(bool)
