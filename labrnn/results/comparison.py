"""The pairs that a part declares, tested together: which differ, which are equivalent."""

import math
from dataclasses import dataclass, replace
from itertools import combinations

from labrnn.parts import Pair
from labrnn.results import statistics
from labrnn.results.statistics import LEVEL

OUTCOMES = ("higher", "lower", "equivalent", "inconclusive", "untested")


@dataclass(frozen=True)
class Comparison(Pair):
    """The test accuracies of two models, `Setting`s or others, on the same test reviews.

    Attributes:
        difference: first minus second, a `statistics.Estimate`.
        p, p_equivalent: corrected by Holm's method for the comparisons made with it; NaN where a
            single run would have to decide against a setting.
    """

    difference: statistics.Estimate = statistics.NOT_RUN
    p: float = math.nan
    p_equivalent: float = math.nan

    @property
    def turned(self):
        """The same comparison with its sides exchanged."""
        difference = replace(self.difference, mean=-self.difference.mean)
        return replace(self, first=self.second, second=self.first, difference=difference)

    @property
    def significant(self):
        return self.p < LEVEL

    @property
    def equivalent(self):
        return self.p_equivalent < LEVEL

    @property
    def outcome(self):
        """One of `OUTCOMES`; a significant difference may be below a point all the same."""
        if self.significant:
            return "higher" if self.difference.mean > 0 else "lower"
        if self.equivalent:
            return "equivalent"
        return "untested" if math.isnan(self.p) else "inconclusive"


def compare(results):
    """`Comparison`s of all pairs of a part that have trained runs, corrected together.

    Where a pair names no second setting it is the one that the validation reviews prefer, never
    the test reviews. The best settings of the part's groups are chosen the same way.
    """
    lead = next(iter(results.by_validation()), None)
    pairs = [replace(pair, second=pair.second or lead) for pair in results.part.pairs()]
    pairs = [pair for pair in pairs if pair.second and pair.first != pair.second]
    pairs += [Pair(*two, "groups") for two in combinations(leaders(results).values(), 2)]
    return tested(results, pairs)


def tested(results, pairs):
    """`Comparison`s of `Pair`s of models, corrected together by Holm."""
    return corrected((pair, results.difference(pair.first, pair.second)) for pair in pairs)


def corrected(found):
    """`Comparison`s of `Pair`s with an `Estimate` each, corrected together."""
    found = [(pair, d) for pair, d in found if not math.isnan(d.mean)]
    p = statistics.holm([d.p for _, d in found])
    equal = statistics.holm([d.p_equivalent for _, d in found])
    return [
        Comparison(**vars(pair), difference=d, p=float(p_one), p_equivalent=float(p_equal))
        for (pair, d), p_one, p_equal in zip(found, p, equal, strict=True)
    ]


def leaders(results):
    """Name of a group -> its best setting on validation, the best of all first."""
    best = {
        name: chosen[0]
        for name, group in results.part.groups().items()
        if (chosen := results.by_validation(group))
    }
    order = sorted(best, key=lambda name: -results.validation(best[name]))
    return {name: best[name] for name in order}


def of_kind(compared, kind):
    """Those comparisons that are of a kind."""
    return [c for c in compared if c.kind == kind]


def outcomes(compared):
    """Outcome -> the comparisons that have it, those that occur."""
    groups = {name: [c for c in compared if c.outcome == name] for name in OUTCOMES}
    return {name: group for name, group in groups.items() if group}
