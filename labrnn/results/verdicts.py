"""Verdicts on the published conclusions: confirmed, refuted or inconclusive.

docs/verdicts.md defines them. A claim is a statement about pairs of settings. For each pair a rule
returns p-values for the evidence for and against the statement. The claim is confirmed if the
evidence for it is significant in every pair (an intersection-union test, which needs no
correction). It is refuted if the evidence against it is significant in one pair after Holm's
correction. Otherwise it is inconclusive.
"""

import math
from dataclasses import dataclass, replace

import pandas as pd

from labrnn.network.registry import count_parameters
from labrnn.parts import Claim
from labrnn.published import VOCABULARY_SIZE
from labrnn.results import statistics
from labrnn.results.prose import capital, difference, p_value, percent, share, trained
from labrnn.results.statistics import LEVEL, MARGIN, NOT_RUN

CONFIRMED, REFUTED, INCONCLUSIVE = "confirmed", "refuted", "inconclusive"
FEW = 3  # an inconclusive claim with at most as many pairs prints all of them


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim.

    Attributes:
        claim: the `labrnn.parts.Claim`.
        outcome: confirmed, refuted or inconclusive.
        evidence: text on the pair that decides, or that prevents a confirmation.
        at_last: the outcome at the last epoch, which the original study tested.
    """

    claim: Claim
    outcome: str
    evidence: str
    at_last: str


@dataclass(frozen=True)
class _Evidence:
    """The evidence of one pair: p-values for and against the statement, and a text.

    `shows` is False if a side did not train; the text then prefers other pairs.
    """

    support: float
    against: list
    text: str
    shows: bool = True


def verdicts(results):
    """Return the `Verdict` on each claim of a part."""
    return [judge(results, claim) for claim in results.part.claims()]


def judge(results, claim):
    """Return the `Verdict` on one claim."""
    outcome, evidence = _judged(results, claim)
    return Verdict(claim, outcome, evidence, _judged(results.at("last"), claim)[0])


def _judged(results, claim):
    """Return the outcome of a claim and the text of its evidence."""
    rule = RULES[claim.rule]
    needed = NEEDED.get(rule, 2)
    run = [p for p in claim.pairs if all(len(results.rows(s)) for s in p[:needed] if s)]
    found = [rule(results, *pair) for pair in run]
    missing = len(claim.pairs) - len(run)
    note = f"; {missing} of {len(claim.pairs)} comparisons were not run" if missing else ""
    if not found:
        return INCONCLUSIVE, "not run"
    against = iter(statistics.holm([p for e in found for p in e.against]))
    corrected = [_least([next(against) for _ in e.against]) for e in found]
    measure = MEASURES.get(claim.rule, "")
    if min(corrected) < LEVEL:
        return REFUTED, measure + min(found, key=lambda e: _least(e.against)).text
    weakest = max(found, key=_weakness)
    alone = f"least clear of {len(found)} comparisons: " if len(found) > 1 else ""
    if all(e.support < LEVEL for e in found) and not missing:
        return CONFIRMED, measure + alone + weakest.text
    texts = [
        f"{e.text}, evidence against the conclusion with {p_value(p)} after correction"
        * (_least(e.against) < LEVEL)
        or e.text
        for e, p in zip(found, corrected, strict=True)
        if e is weakest or (e.shows and len(found) <= FEW)
    ]
    return INCONCLUSIVE, measure + alone * (len(texts) == 1) + "; ".join(texts) + note


def _weakness(evidence):
    """Return a sort key: how much a pair prevents a confirmation, an untestable one less."""
    untested = math.isnan(evidence.support)
    return evidence.shows, untested or evidence.support >= LEVEL, not untested, evidence.support


def _least(p_values):
    return min([p for p in p_values if not math.isnan(p)], default=1.0)


def table(found):
    """Return one row per verdict."""
    names = ["original study", "tested statement", "verdict", "evidence", "at the last epoch"]
    lines = [
        (capital(v.claim.published), v.claim.statement, v.outcome, v.evidence, v.at_last)
        for v in found
    ]
    return pd.DataFrame(lines, columns=names)


# The rules. Each takes the results and a pair of settings, and returns an `_Evidence`.


def _rarely_trains(results, setting, _):
    runs = results.trained(setting)
    few = runs.p_more >= LEVEL
    text = (
        f"{setting.name}: {trained(runs)}; {'fewer' if few else 'more'} than "
        f"half: {p_value(runs.p_fewer if few else runs.p_more)}"
    )
    return _Evidence(runs.p_fewer, [runs.p_more], text)


def _within(results, first, second):
    """Equivalence of the runs that trained; that the first rarely trains is evidence against."""
    d, runs = results.difference(first, second), results.trained(first)
    beyond = min(1.0, 2 * min(d.p_below(-MARGIN), d.p_above(MARGIN)))
    return _Evidence(d.p_equivalent, [beyond, runs.p_fewer], _text(results, first, second, d))


def _among_best(results, first, rival):
    """No rival is more accurate; for a confirmation the setting is less than 1 point below each."""
    d, runs, others = results.difference(first, rival), *map(results.trained, (first, rival))
    support = d.p_above(-MARGIN) if others.count else others.p_fewer
    text = _text(results, first, rival, d)
    return _Evidence(support, [d.p_below(0.0), runs.p_fewer], text, not math.isnan(d.mean))


def _not_better(results, first, second):
    d, runs = results.difference(first, second), results.trained(first)
    support = d.p_below(MARGIN) if runs.count else runs.p_fewer
    return _Evidence(support, [d.p_above(MARGIN)], _text(results, first, second, d))


def _slower(results, slow, fast):
    """Compare the validation accuracies of all runs, mean over the epochs."""
    d = statistics.welch(*(results.rows(setting)["mean_validation"] for setting in (fast, slow)))
    names = [f"{s.config.cell.upper()} with {s.name}" for s in (fast, slow)]
    text = f"{names[0]} − {names[1]}: {difference(d)}"
    return _Evidence(d.p_above(MARGIN), [d.p_below(MARGIN)], text)


def _smaller(_, first, second):
    sizes = [count_parameters(s.config, VOCABULARY_SIZE) for s in (first, second)]
    text = f"{sizes[0]:,} against {sizes[1]:,} with the published vocabulary"
    return _Evidence(*((0.0, [1.0]) if sizes[0] < sizes[1] else (1.0, [0.0])), text)


def _highest_ratio(results, first, rival):
    """Compare the accuracy of `first` with the one that gives it the rival's ratio.

    A rival that was not run is decided if even an accuracy of 100 % would not be enough.
    """
    sizes = [count_parameters(s.config, results.vocabulary_size or 1) for s in (first, rival)]
    scale = sizes[0] / sizes[1]
    mine, theirs = results.correct(first), results.correct(rival)
    if not len(mine):
        return _Evidence(math.nan, [math.nan], _text(results, first, rival, NOT_RUN))
    if not len(theirs) or scale < results.accuracy(first).low:
        text = f"{rival.name} has {1 / scale:.1f} times the parameters of {first.name}"
        return _Evidence(results.accuracy(first).p_above(scale), [1.0], text)
    s = results.spread(rival)
    scaled = s and replace(s, variance=scale**2 * s.variance, within=scale**2 * s.within)
    d = statistics.difference(mine, scale * theirs, results.spread(first), scaled)
    needed = percent(min(1.0, scale * theirs.mean()))
    text = f"{first.name} needs more than {needed} for a higher ratio than {rival.name}"
    if d.mean > -1:
        text += f"; its accuracy minus {needed}: {difference(d)}"
    return _Evidence(d.p_above(0.0), [d.p_below(0.0)], text)


def _text(results, first, second, d):
    """Return the difference as text, or the shares of runs that trained if one side is 0."""
    if math.isnan(d.mean):
        return "; ".join(f"{s.name}: {share(results.trained(s))}" for s in (first, second))
    return f"{first.name} − {second.name}: {difference(d)}"


RULES = {
    "rarely trains": _rarely_trains,
    "within 1 point": _within,
    "among the best": _among_best,
    "not better by 1 point": _not_better,
    "slower": _slower,
    "smaller": _smaller,
    "highest ratio": _highest_ratio,
}
MEASURES = {"slower": "mean validation accuracy over all epochs; "}
NEEDED = {_smaller: 0, _highest_ratio: 1}  # how many settings of a pair must have runs; default 2
