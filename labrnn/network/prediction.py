"""Predict the sentiment of texts with a stored model: label, probability, words read."""

from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch

from labrnn.config import TrialConfig
from labrnn.errors import LabError
from labrnn.network.batches import Batches
from labrnn.network.models import build
from labrnn.network.training import evaluate
from labrnn.reviews.text import UNK, load_corpus, spaced, words_of


@dataclass(frozen=True)
class Answer:
    """The prediction for a text; it is meaningless if no word is known.

    Attributes:
        label: `positive` or `negative`.
        probability: probability of the label, 0.5 to 1.
        known: words that the model read, in order.
        dropped: words outside the vocabulary, in order.
        cut: known words beyond the longest input of the model, in order.
    """

    label: str
    probability: float
    known: list
    dropped: list
    cut: list

    @property
    def positive(self):
        """The probability of `positive`."""
        return self.probability if self.label == "positive" else 1 - self.probability


def choose_trial(store, key=""):
    """Return a stored trial for predictions, and the `Corpus` with its vocabulary.

    Args:
        store: a `Store`.
        key: prefix of the trial's key; empty for the lowest validation loss on the reviews in use.

    Raises:
        LabError: no trial with this key has weights and was trained on the reviews in use.
    """
    reviews = load_corpus(TrialConfig()).facts
    losses, others = {}, ""
    for trial in (t for t in store.trials() if t.has_weights and t.key.startswith(key)):
        if trial.fingerprint != reviews["fingerprint"]:
            others = "; there are models of other reviews: name those with --data"
            continue
        with suppress(LabError):  # damaged, or of another version: `trials verify` reports it
            losses[trial] = min(epoch["valid_loss"] for epoch in trial.history)
    if not losses:
        cure = "see `labrnn trials`" if key else "train one: labrnn train params/quick/*.yaml"
        here = f"{reviews['name']}, {reviews['fingerprint']}"
        what = f"no trained model {key or 'found'} for the reviews in use ({here}){others}"
        raise LabError(f"{store.root}: {what}; {cure}")
    best = min(losses, key=losses.get)
    return best, load_corpus(best.config)


def predict(trial, corpus, texts):
    """Predict the sentiment of texts.

    Args:
        trial: a `Trial` with weights, or a `Shipped` network.
        corpus: the `Corpus` with the trial's vocabulary.
        texts: list of str.

    Returns:
        list of one `Answer` per text.

    Raises:
        LabError: the trial's weights are missing or damaged.
    """
    config, vocabulary = trial.config, corpus.vocabulary
    texts = [spaced(text, config.words) for text in texts]
    model = load(trial, corpus)
    ids = [vocabulary.tokenize(text, config.max_tokens) for text in texts]
    offsets, labels = np.cumsum([0, *map(len, ids)]), np.zeros(len(ids), np.int8)
    asked = replace(corpus, ids=np.concatenate(ids), offsets=offsets, labels=labels)
    batches = Batches(asked, config.batch_size, torch.device("cpu"))
    positive = evaluate(model, batches, range(len(ids)))[1].tolist()
    return [_answer(*case, vocabulary) for case in zip(texts, ids, positive, strict=True)]


def load(trial, corpus):
    """Return the model of a trial's best epoch; see `predict` for arguments.

    Raises:
        LabError: the trial's weights are missing or damaged, or do not fit the vocabulary.
    """
    model = build(trial.config, corpus.vocabulary_size)
    try:
        model.load_state_dict(trial.weights())
    except RuntimeError as error:
        raise LabError(f"{trial.folder}: weights of another model ({error})") from None
    return model


def opinions(trial, corpus, answer):
    """Return the predicted probability of `positive` after each known word of an `Answer`.

    Each value is the prediction for the text up to that word. See `predict` for arguments.
    """
    begun = [" ".join(answer.known[: n + 1]) for n in range(len(answer.known))]
    return [part.positive for part in predict(trial, corpus, begun)] if begun else []


def _answer(text, ids, positive, vocabulary):
    known = [word for word in vocabulary.words_at(ids) if word != UNK]
    words, index = words_of(text), vocabulary.index
    dropped = [word for word in words if index.get(word, 0) < 2]
    cut = [word for word in words if index.get(word, 0) > 1][len(known) :]
    label = "positive" if positive > 0.5 else "negative"
    return Answer(label, max(positive, 1 - positive), known, dropped, cut)
