"""Print the table of docs/verdicts.md: standard deviation over seeds by family, and power.

.venv/bin/python tools/spreads.py
"""

import math
from itertools import count

from scipy import stats

from labrnn.results.statistics import LEVEL, MARGIN, POWER
from labrnn.results.table import FAMILY, TESTED, Runs
from labrnn.trials.store import PROJECT, Store

OF_REVIEWS = 0.0013  # the reviews' share of a paired difference, a standard deviation


def power(spread, seeds, gap):
    """Return the power of the two-sided test for a gap, with `seeds` seeds per setting."""
    of_seeds, of_reviews = 2 * spread.variance / seeds, OF_REVIEWS**2
    error = math.sqrt(of_seeds + of_reviews)
    freedom = error**4 / (of_seeds**2 / spread.freedom + of_reviews**2 / 10_000)
    least = stats.t.isf(LEVEL / 2, freedom)
    return stats.nct.sf(least, freedom, gap / error)


def seeds_needed(spread):
    """Return the number of seeds per setting that detects a gap of `MARGIN` with `POWER`."""
    return next(n for n in count(2) if power(spread, n, MARGIN) > POWER)


def detectable(spread, seeds):
    """Return the smallest gap, in points, that `seeds` seeds per setting detect with `POWER`."""
    return next(k for k in count(0.1, 0.1) if power(spread, seeds, k / 100) > POWER)


def main():
    runs = Runs(Store(PROJECT / "reports" / "full").trials())
    print(f"{len(runs.table)} runs in reports/full")
    print(f"| {', '.join(FAMILY)} | SD best (df) | SD last | power | seeds | detectable |")
    for family in sorted(set(runs.table["family"])):
        best, last = (runs.pooled(family, tested)[0] for tested in TESTED)
        if best:
            cells = [
                ", ".join(map(str, family)),
                f"{100 * math.sqrt(best.variance):.2f} ({best.freedom})",
                f"{100 * math.sqrt(last.variance):.2f}",
                f"{100 * power(best, 5, MARGIN):.0f} %",
                f"{seeds_needed(best)}",
                ", ".join(f"{detectable(best, n):.1f}" for n in (5, 10)),
            ]
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
