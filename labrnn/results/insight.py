"""Analyse the errors of a stored model: by length, by confidence, on hand-made sentences."""

import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, pairwise

import numpy as np
import pandas as pd
from scipy import stats

from labrnn.errors import LabError
from labrnn.network.prediction import predict
from labrnn.results import prose, statistics
from labrnn.reviews.description import remembered
from labrnn.reviews.text import MARKUP, load_corpus

FORMAT = 1  # of the stored data; raise it if a change here changes figures
# Slurs in reviews, which tables do not print.
SLURS = re.compile(r"\b(retard|fag|nigg|trann|spic\b|chink|kike)\w*", re.I)
MISTAKES, EXCERPT = 8, 220  # number of mistakes shown, and characters of each
# Sentences and their negations, written for this purpose.
PAIRS = [
    ("The film is good.", "The film is not good."),
    ("The film is bad.", "The film is not bad."),
    ("I liked this film.", "I didn't like this film."),
    ("It is worth your time.", "It isn't worth your time."),
    ("It is boring.", "It is never boring."),
    ("A film with a story.", "A film without a story."),
    ("Everyone should see it.", "No one should see it."),
    ("You will enjoy this film.", "You will hardly enjoy this film."),
]


@dataclass(frozen=True)
class Insight:
    """An analysis of one trial's test predictions, made by `find`.

    Attributes:
        predictions: as in `Trial.predictions`; `best` is the probability of `positive`.
        lengths: tokens that the model read of each test review, in the same order.
        mistakes: the most confident ones: `text` (its beginning), `label`, `probability` of it.
        pairs: probabilities of `positive` for the two sentences of each of `PAIRS`.
    """

    predictions: pd.DataFrame
    lengths: np.ndarray
    mistakes: list
    pairs: list

    @cached_property
    def correct(self):
        """Whether each test review is classified correctly, bool [reviews]."""
        return ((self.predictions["best"] > 0.5) == (self.predictions["label"] == 1)).to_numpy()


def find(part, trial, store):
    """Return the `Insight` into a trial's best epoch, stored or made now; None if not possible.

    Making it needs the reviews and the trial's weights.
    """
    if trial is None:
        return None
    look = partial(_look, trial, part.data)
    with suppress(LabError):
        seen = remembered("insight", [FORMAT, trial.key], part.data, trial.fingerprint, store, look)
        return Insight(
            trial.predictions, np.array(seen["lengths"]), seen["mistakes"], seen["pairs"]
        )
    return None


def _look(trial, data, reviews):
    """Return the stored values of an `Insight`."""
    corpus, table = load_corpus(trial.config, data), trial.predictions
    given = np.where(table["label"] == 1, table["best"], 1 - table["best"])
    rows, mistakes = table["row"], []
    for k in np.argsort(given, kind="stable")[:MISTAKES]:
        if given[k] < 0.5:
            text, label = _excerpt(reviews.texts[rows[k]]), int(table["label"][k])
            mistakes.append({"text": text, "label": label, "probability": float(given[k])})
    positive = [answer.positive for answer in predict(trial, corpus, list(chain(*PAIRS)))]
    pairs = [positive[k : k + 2] for k in range(0, len(positive), 2)]
    return {"lengths": corpus.lengths[rows].tolist(), "mistakes": mistakes, "pairs": pairs}


def _excerpt(text):
    text = " ".join(MARKUP.sub(" ", text).split())
    return text if len(text) <= EXCERPT else text[:EXCERPT].rsplit(" ", 1)[0] + " …"


def by_length(insight, groups=5):
    """Compute the accuracy in groups of about equal size, from short to long reviews.

    Returns:
        a list of (fewest tokens, most tokens, `statistics.Estimate`).
    """
    bounds = np.unique(np.quantile(insight.lengths, np.linspace(0, 1, groups + 1)).astype(int))
    found = []
    for low, high in pairwise(bounds):
        inside = (insight.lengths <= high) & (insight.lengths > low - (low == bounds[0]))
        if inside.sum() > 1:
            fewest = int(low) + (low > bounds[0])
            estimate = statistics.accuracy(insight.correct[None, inside], statistics.EXACT)
            found.append((fewest, int(high), estimate))
    return found


def calibration(predictions, bins=10):
    """Compare the predicted probability of `positive` with the share of positive reviews.

    Returns:
        a list of (mean probability, share of positive reviews, number of reviews) for each
        non-empty bin; and the expected calibration error, the mean gap of the first two over
        reviews (Guo et al. 2017).
    """
    said, label = predictions["best"].to_numpy(), predictions["label"].to_numpy()
    place = np.minimum((said * bins).astype(int), bins - 1)
    groups = [(said[place == k], label[place == k]) for k in range(bins) if (place == k).any()]
    points = [(float(p.mean()), float(y.mean()), len(p)) for p, y in groups]
    return points, sum(n * abs(p - y) for p, y, n in points) / len(said)


def mistakes_table(insight):
    """Return the most confident mistakes, one row each."""
    rows = [
        (
            SLURS.sub("[…]", m["text"]),
            ("negative", "positive")[m["label"]],
            f"{m['probability']:.3f}",
        )
        for m in insight.mistakes
    ]
    return pd.DataFrame(rows, columns=["review", "labelled", "probability of the label"])


def negation_table(insight):
    """Return each hand-made sentence and its negation with their probabilities of `positive`."""
    rows = []
    for (plain, negated), (before, after) in zip(PAIRS, insight.pairs, strict=True):
        shift = prose.points((after - before) / 100, 2)
        rows.append((plain, f"{before:.2f}", negated, f"{after:.2f}", shift))
    columns = ["sentence", "P(positive)", "negated", "P(positive), negated", "shift"]
    return pd.DataFrame(rows, columns=columns)


def discussion(insight):
    """Discuss lengths, calibration and negation."""
    if insight is None:
        return "The reviews and the weights of the model are needed for this section, but missing."
    groups, correct = by_length(insight), insight.correct
    right = [round(group.mean * group.reviews) for *_, group in groups]
    wrong = [group.reviews - hits for (*_, group), hits in zip(groups, right, strict=True)]
    varies = len(groups) > 1 and any(wrong)
    said = np.maximum(insight.predictions["best"], 1 - insight.predictions["best"]).to_numpy()
    sure = said > 0.99
    pairs = [(before, after) for before, after in insight.pairs if after != before]
    return prose.render(
        "insight",
        groups=groups,
        p=stats.chi2_contingency([right, wrong]).pvalue if varies else 1.0,
        said=said.mean(),
        correct=correct.mean(),
        gap=statistics.mean_of(said - correct),
        error=calibration(insight.predictions)[1],
        level=statistics.LEVEL,
        sure=sure.mean(),
        right=statistics.accuracy(correct[None, sure], statistics.EXACT)
        if sure.sum() > 1
        else None,
        moved=sum((after < before) == (before > 0.5) for before, after in pairs),
        turned=sum((before > 0.5) != (after > 0.5) for before, after in pairs),
        total=len(insight.pairs),
    )
