"""Errors of a stored model: by length, by confidence, in hand-made sentences."""

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise

import numpy as np
import pandas as pd
from scipy import stats

from labrnn.errors import LabError
from labrnn.network.prediction import predict
from labrnn.results import prose, statistics
from labrnn.reviews.description import remembered
from labrnn.reviews.text import MARKUP, load_corpus

FORMAT = 1  # of what is kept; another one when a change here changes figures
# Slurs that reviews contain; no table prints them.
SLURS = re.compile(r"\b(retard|fag|nigg|trann|spic\b|chink|kike)\w*", re.I)
MISTAKES, EXCERPT = 8, 220  # how many are shown, and how many characters of each
# A sentence and its negation, written for this: each pair differs in what turns the meaning.
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
    """One trial's test reviews seen more closely; made by `find`.

    Attributes:
        predictions: as in `Trial.predictions`; `best` is the probability of `positive`.
        lengths: tokens that the model read of each test review, in the same order.
        mistakes: its most confident ones: `text` (the beginning), `label`, `probability` of it.
        pairs: probability of `positive` for the two sentences of each of `PAIRS`.
    """

    predictions: pd.DataFrame
    lengths: np.ndarray
    mistakes: list
    pairs: list

    @cached_property
    def correct(self):
        """Whether the model is right on each test review."""
        return ((self.predictions["best"] > 0.5) == (self.predictions["label"] == 1)).to_numpy()


def find(part, trial, store):
    """The `Insight` into a trial's best epoch, made now or earlier; None where neither is possible.

    It takes the reviews and the trial's weights to make it.
    """
    if trial is None:
        return None

    def make(reviews):
        return _look(trial, reviews, load_corpus(trial.config, part.data))

    try:
        seen = remembered("insight", [FORMAT, trial.key], part.data, trial.fingerprint, store, make)
    except LabError:
        return None
    return Insight(trial.predictions, np.array(seen["lengths"]), seen["mistakes"], seen["pairs"])


def _look(trial, reviews, corpus):
    """The values of an `Insight`, plain."""
    table = trial.predictions
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
    """Accuracy in groups of about equally many test reviews, from short to long.

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
    """How often a review is positive where the model predicts so with some probability.

    Returns:
        a list of (mean probability, share of positive reviews, reviews), one a tenth of the range
        that holds any; and the expected calibration error, the gap between the first two averaged
        over reviews (Guo et al. 2017).
    """
    said, label = predictions["best"].to_numpy(), predictions["label"].to_numpy()
    place = np.minimum((said * bins).astype(int), bins - 1)
    groups = [(said[place == k], label[place == k]) for k in range(bins) if (place == k).any()]
    points = [(float(p.mean()), float(y.mean()), len(p)) for p, y in groups]
    error = sum(n * abs(p - y) for p, y, n in points) / len(said)
    return points, error


def mistakes_table(insight):
    """The most confident mistakes, a line each."""
    rows = [
        (
            SLURS.sub("[…]", m["text"]),
            ("negative", "positive")[m["label"]],
            f"{m['probability']:.3f}",
        )
        for m in insight.mistakes
    ]
    return pd.DataFrame(rows, columns=["review", "labelled", "probability of that"])


def negation_table(insight):
    """Each hand-made sentence and its negation with the probability of `positive`."""
    rows = []
    for (plain, negated), (before, after) in zip(PAIRS, insight.pairs, strict=True):
        shift = prose.points((after - before) / 100, 2)
        rows.append((plain, f"{before:.2f}", negated, f"{after:.2f}", shift))
    columns = ["sentence", "P(positive)", "negated", "P(positive), negated", "shift"]
    return pd.DataFrame(rows, columns=columns)


def discussion(insight):
    """Lengths, calibration and negation in sentences."""
    if insight is None:
        return "The reviews and the weights of the model are needed for this section, but missing."
    return prose.paragraphs(_on_lengths(insight), _on_confidence(insight), _on_negation(insight))


def _on_lengths(insight):
    groups = by_length(insight)
    if len(groups) < 2:
        return ""
    (_, short, first), (long, _, last) = groups[0], groups[-1]
    right = [round(group.mean * group.reviews) for *_, group in groups]
    wrong = [group.reviews - hits for (*_, group), hits in zip(groups, right, strict=True)]
    p = stats.chi2_contingency([right, wrong]).pvalue if any(wrong) else 1.0
    return (
        f"The model classifies {prose.percent(first.mean)} of the reviews of up to {short} tokens "
        f"correctly, and {prose.percent(last.mean)} of those of {long} and more. The effect of the "
        f"length is {'' if p < statistics.LEVEL else 'not '}significant (χ² test over "
        f"{prose.counted(len(groups), 'group')}, {prose.p_value(p)})."
    )


def _on_confidence(insight):
    _, error = calibration(insight.predictions)
    said = np.maximum(insight.predictions["best"], 1 - insight.predictions["best"]).to_numpy()
    gap = statistics.mean_of(said - insight.correct)
    manner = "overconfident" if gap.mean > 0 else "underconfident"
    manner = "well calibrated on average" if gap.low <= 0 <= gap.high else manner
    text = (
        f"The model is {manner}: its mean confidence is {prose.percent(said.mean())}, its accuracy "
        f"{prose.percent(insight.correct.mean())}; the expected calibration error is "
        f"{100 * error:.1f} points."
    )
    sure = said > 0.99
    if sure.sum() > 1:
        right = statistics.accuracy(insight.correct[None, sure], statistics.EXACT)
        text += (
            f" It is more than 99 % confident on {100 * sure.mean():.0f} % of the reviews; of "
            f"these, {prose.percent(right.mean)} {prose.interval(right)} are correct."
        )
    return text


def _on_negation(insight):
    turned = sum((before > 0.5) != (after > 0.5) for before, after in insight.pairs)
    moved = sum(
        (after < before) == (before > 0.5) for before, after in insight.pairs if after != before
    )
    total = len(insight.pairs)
    return (
        f"Negation moves the prediction towards the other class in {moved} of {total} hand-made "
        f"pairs and changes the class in {turned}. These short sentences are not a sample of "
        "reviews: they show what the model can distinguish, not how often it does."
    )
