"""Test the pairs of a part together: which differ, and which are equivalent."""

import math
from dataclasses import dataclass, replace
from itertools import combinations

from labrnn.parts import Pair
from labrnn.results import statistics
from labrnn.results.statistics import LEVEL

OUTCOMES = ("higher", "lower", "equivalent", "inconclusive", "untested")


@dataclass(frozen=True)
class Comparison(Pair):
    """The comparison of two models' test accuracies; the models are `Setting`s or `Baseline`s.

    Attributes:
        difference: first minus second, a `statistics.Estimate`.
        p, p_equivalent: p-values corrected by Holm's method for all comparisons made together; NaN
            if a single run would decide against a setting.
    """

    difference: statistics.Estimate = statistics.NOT_RUN
    p: float = math.nan
    p_equivalent: float = math.nan

    @property
    def turned(self):
        """The same comparison with the two sides swapped."""
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
        """One of `OUTCOMES`; a significant difference can also be smaller than 1 point."""
        if self.significant:
            return "higher" if self.difference.mean > 0 else "lower"
        if self.equivalent:
            return "equivalent"
        return "untested" if math.isnan(self.p) else "inconclusive"


def compare(results):
    """Return the `Comparison`s of a part's pairs that have trained runs, corrected together.

    A pair without a second setting is compared with the best setting on validation, never on the
    test reviews. The best settings of the part's groups are selected in the same way.
    """
    lead = next(iter(results.by_validation()), None)
    pairs = [replace(pair, second=pair.second or lead) for pair in results.part.pairs()]
    pairs = [pair for pair in pairs if pair.second and pair.first != pair.second]
    pairs += [Pair(*two, "groups") for two in combinations(leaders(results).values(), 2)]
    return tested(results, pairs)


def tested(results, pairs):
    """Return the `Comparison`s of `Pair`s of models, corrected together by Holm's method."""
    return corrected((pair, results.difference(pair.first, pair.second)) for pair in pairs)


def corrected(found):
    """Return the `Comparison`s of (`Pair`, `Estimate`), corrected together by Holm's method."""
    found = [(pair, d) for pair, d in found if not math.isnan(d.mean)]
    p = statistics.holm([d.p for _, d in found])
    equal = statistics.holm([d.p_equivalent for _, d in found])
    return [
        Comparison(**vars(pair), difference=d, p=float(p_one), p_equivalent=float(p_equal))
        for (pair, d), p_one, p_equal in zip(found, p, equal, strict=True)
    ]


def leaders(results):
    """Return group name -> its best setting on validation, the best group first."""
    best = {
        name: chosen[0]
        for name, group in results.part.groups().items()
        if (chosen := results.by_validation(group))
    }
    order = sorted(best, key=lambda name: -results.validation(best[name]))
    return {name: best[name] for name in order}


def of_kind(compared, kind):
    """Return the comparisons of one kind."""
    return [c for c in compared if c.kind == kind]


def outcomes(compared):
    """Return outcome -> its comparisons, for the outcomes that occur."""
    groups = {name: [c for c in compared if c.outcome == name] for name in OUTCOMES}
    return {name: group for name, group in groups.items() if group}
