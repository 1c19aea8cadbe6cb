"""The pairs that a part declares, tested together: which differ, which are equivalent."""

import math
from dataclasses import dataclass
from itertools import combinations

from labrnn.results import statistics
from labrnn.results.statistics import LEVEL

OUTCOMES = ("higher", "lower", "equivalent", "inconclusive", "untested")


@dataclass(frozen=True)
class Comparison:
    """The test accuracies of two models on the same test reviews.

    Attributes:
        first, second: `Setting`s or `Baseline`s.
        difference: first minus second, a `statistics.Estimate`.
        p, p_equivalent: corrected by Holm's method for the comparisons made with it; NaN where a
            single run would have to decide against a setting.
        kind: what the two differ in.
        name: how a figure names it.
    """

    first: object
    second: object
    difference: statistics.Estimate
    p: float
    p_equivalent: float
    kind: str = ""
    name: str = ""

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
    pairs = [(p.first, p.second or lead, p.kind, p.name) for p in results.part.pairs()]
    pairs = [pair for pair in pairs if pair[1] and pair[0] != pair[1]]
    pairs += [(a, b, "groups", "") for a, b in combinations(leaders(results).values(), 2)]
    return test(results, pairs)


def test(results, pairs):
    """`Comparison`s of (first, second, kind, name) of models, corrected together by Holm."""
    return corrected((pair, results.difference(*pair[:2])) for pair in pairs)


def corrected(found):
    """`Comparison`s of (first, second, kind, name) with an `Estimate` each, corrected together."""
    found = [(pair, d) for pair, d in found if not math.isnan(d.mean)]
    p = statistics.holm([d.p for _, d in found])
    equal = statistics.holm([d.p_equivalent for _, d in found])
    return [
        Comparison(a, b, d, float(p_one), float(p_equal), kind, name)
        for ((a, b, kind, name), d), p_one, p_equal in zip(found, p, equal, strict=True)
    ]


test.__test__ = False  # pytest takes it for one of its own


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
