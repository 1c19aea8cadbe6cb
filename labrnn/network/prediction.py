"""What a stored model says of a text: label, probability, and the words that it read."""

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
    """A verdict: `label`, its `probability`, and the words in order: `known` were read, `dropped`
    are outside the vocabulary, `cut` known ones stood after the last token that the model reads.

    Without a known word the label says nothing of the text.
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


def choose_trial(store, data="", key=""):
    """The stored trial to ask, and the corpus that gave it its vocabulary.

    Args:
        store: a `Store`.
        data: source of the reviews, as in `text.load_corpus`.
        key: how the trial's key begins; empty for the lowest validation loss on these reviews.

    Raises:
        LabError: no trial has that key, weights and these reviews.
    """
    reviews = load_corpus(TrialConfig(), data).facts
    losses, others = {}, ""
    for trial in (t for t in store.trials() if t.has_weights and t.key.startswith(key)):
        if trial.fingerprint != reviews["fingerprint"]:
            others = "; models of other reviews are there: name those with --data"
            continue
        with suppress(LabError):  # damaged, or another version's: `trials verify` tells
            losses[trial] = min(epoch["valid_loss"] for epoch in trial.history)
    if not losses:
        cure = "see `labrnn trials`" if key else "train one: labrnn train params/quick/*.yaml"
        here = f"{reviews['name']}, {reviews['fingerprint']}"
        what = f"no trained model {key or 'is there'} of the reviews in use ({here}){others}"
        raise LabError(f"{store.root}: {what}; {cure}")
    best = min(losses, key=losses.get)
    return best, load_corpus(best.config, data)


def predict(trial, corpus, texts):
    """An `Answer` for each text, by a trial's model and the corpus that gave it its vocabulary.

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
    """The model of a trial's best epoch.

    Raises:
        LabError: the trial's weights are missing or damaged.
    """
    model = build(trial.config, corpus.vocabulary_size)
    try:
        model.load_state_dict(trial.weights())
    except RuntimeError as error:
        raise LabError(f"{trial.folder}: weights of another model ({error})") from None
    return model


def opinions(trial, corpus, answer):
    """Probability of `positive` after each known word of an `Answer`, a list as long as `known`.

    Each value is the model's answer to the text up to that word, whatever its directions and
    readout.
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
