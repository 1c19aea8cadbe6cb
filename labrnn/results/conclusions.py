"""The published conclusions, each held against the trainings at hand.

A verdict is `confirmed`, `not confirmed` or `undecided`; the last also where a training that it
needs was not run, or where one seed each cannot tell settings from seeds. Equality is confirmed
only if the whole interval of the difference is small.
"""

import pandas as pd

from labrnn.network.models import count_parameters
from labrnn.parts import Setting
from labrnn.results.comparison import by_validation, compare, epochs_to, trained, trend

SMALL = 0.01  # a difference below one point is called equal
YES, NO, OPEN = "confirmed", "not confirmed", "undecided"


def conclusions(results):
    """A table: published conclusion, verdict, evidence.

    Args:
        results: of the part `reproduction`.
    """
    lab = _Named(results)
    lines = [(claim, *check(lab)) for claim, check in CLAIMS.items()]
    return pd.DataFrame(lines, columns=["published conclusion", "verdict", "evidence"])


class _Named:
    """The published trainings by figure or place in the grid, read the right way."""

    def __init__(self, results):
        self.results = results
        self.settings = {
            s.name.removeprefix("figure "): Setting(s.name, s.config.but(readout="final_state"))
            for s in results.settings
        }

    def __call__(self, *names):
        """The settings of these names, or None if one was not run."""
        found = [self.settings[name] for name in names]
        return found if all(self.results.trials(s) for s in found) else None


def _missing(*names):
    return OPEN, f"not run: one of {', '.join(names)}"


def _accuracies(lab, settings):
    estimates = [lab.results.accuracy(s) for s in settings]
    return ", ".join(
        f"{_short(s)} {e.mean:.3f} (n = {e.seeds})"
        for s, e in zip(settings, estimates, strict=True)
    )


def _short(setting):
    return setting.name.removeprefix("figure ")


def _gap(comparison):
    d = comparison.difference
    return (
        f"{_short(comparison.first)} − {_short(comparison.second)}: {100 * d.mean:+.1f} points "
        f"[{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
    )


def _share(lab, settings):
    """How many of the settings' trainings left chance, and of how many."""
    verdicts = [v for s in settings for v in trained(lab.results, s).values()]
    return sum(verdicts), len(verdicts)


def _sgd(lab):
    if not (settings := lab("1", "2")):
        return _missing("1", "2")
    learnt, of = _share(lab, settings)
    return (
        YES if learnt == 0 else NO,
        f"{of - learnt} of {of} trainings stay at chance: {_accuracies(lab, settings)}",
    )


def _best(lab, best, rivals):
    """Whether one setting is clearly better than each of its rivals."""
    if not lab(best, *rivals):
        return _missing(best, *rivals)
    found = compare(lab.results, [(lab.settings[best], lab.settings[r]) for r in rivals])
    verdicts = {c.verdict for c in found}
    verdict = NO if "worse" in verdicts else YES if verdicts == {"better"} else OPEN
    return verdict, "; ".join(map(_gap, found))


def _adagrad(lab):
    if not lab("3a", "3b", "3c"):
        return _missing("3a", "3b", "3c")
    reached = {n: _epochs(lab, n, 0.8) for n in ("3a", "3b", "3c")}
    slow = reached["3a"] > max(reached["3b"], reached["3c"])
    return YES if slow else NO, "epochs to 0.80 validation accuracy: " + _listed(reached)


def _epochs(lab, name, accuracy):
    """Mean epoch at which a setting reaches an accuracy; one beyond the last where it does not."""
    setting = lab.settings[name]
    values = epochs_to(lab.results, setting, accuracy).values()
    return sum(v or setting.config.epochs + 1 for v in values) / len(values)


def _listed(reached):
    return ", ".join(f"{name} {value:.1f}" for name, value in reached.items())


def _gru_faster(lab):
    pairs = [("3a", "4a"), ("3b", "4b"), ("3c", "4c")]
    if not lab(*[name for pair in pairs for name in pair]):
        return _missing("3a to 3c", "4a to 4c")
    gaps = [_epochs(lab, lstm, 0.85) - _epochs(lab, gru, 0.85) for lstm, gru in pairs]
    reached = {n: _epochs(lab, n, 0.85) for pair in pairs for n in pair}
    verdict = OPEN
    if max(gaps) > 0 and min(gaps) >= 0:
        verdict = YES
    elif min(gaps) < 0 and max(gaps) <= 0:
        verdict = NO
    return verdict, "epochs to 0.85 validation accuracy: " + _listed(reached)


def _gru_smaller(lab):
    lstm, gru = (count_parameters(lab.settings[n].config, 56_729) for n in ("3c", "4c"))
    return YES if gru < lstm else NO, f"{gru:,} against {lstm:,} at the published vocabulary"


def _equal(lab, reference, others):
    """Whether settings lie within one point of a reference."""
    if not lab(reference, *others):
        return _missing(reference, *others)
    found = compare(lab.results, [(lab.settings[o], lab.settings[reference]) for o in others])
    if any(c.verdict in ("better", "worse") and abs(c.difference.mean) > SMALL for c in found):
        verdict = NO
    else:
        small = all(max(-c.difference.low, c.difference.high) < SMALL for c in found)
        verdict = YES if small else OPEN
    return verdict, "; ".join(map(_gap, found))


def _fail(lab, *names):
    if not (settings := lab(*names)):
        return _missing(*names)
    estimates = [lab.results.accuracy(s).mean for s in settings]
    verdict = YES if max(estimates) < 0.75 else NO
    return verdict, f"test accuracy {_accuracies(lab, settings)}"


def _embedding(lab):
    names = ["3c", "7b", "7c", "7d", "7e", "7f", "7g", "7h"]
    if not (settings := lab(*names)):
        return _missing(*names)
    slope = trend(lab.results, settings, lambda s: s.config.embedding_dim)
    if slope is None:
        return OPEN, "too few trainings for a trend"
    reach = max(-slope.low, slope.high)
    verdict = YES if reach < SMALL / 2 else NO if slope.p < 0.05 else OPEN
    return verdict, (
        f"{100 * slope.mean:+.2f} points a doubling "
        f"[{100 * slope.low:+.2f}, {100 * slope.high:+.2f}]; "
        f"{_accuracies(lab, settings)}"
    )


def _grid_best(lab):
    grid = [s for n, s in lab.settings.items() if n.startswith("E")]
    run = by_validation(lab.results, grid)
    if len(run) < len(grid):
        return OPEN, f"{len(run)} of {len(grid)} compound trainings were run"
    best = run[0]
    return (
        YES if _short(best) == "E32 H305 L2" else NO,
        f"best on validation: {_accuracies(lab, run[:3])}",
    )


def _economical(lab):
    grid = [s for n, s in lab.settings.items() if n.startswith("E") and lab.results.trials(s)]
    small = [s for s in grid if s.config.hidden_dim == 20]
    if len(small) < 12:
        return OPEN, f"{len(small)} of the 12 narrow compound trainings were run"
    ratio = {s: lab.results.accuracy(s).mean / lab.results.parameters(s) for s in grid}
    best = max(grid, key=ratio.get)
    return (
        YES if _short(best) == "E32 H20 L1" else NO,
        f"{_short(best)}, {lab.results.parameters(best):,} parameters; a smaller model wins "
        "this ranking almost whatever its accuracy",
    )


def _both_ways(lab):
    pairs = [("9a", "E32 H305 L2"), ("9b", "E32 H305 L1"), ("10a", "10b"), ("11a", "11b")]
    run = [(a, b) for a, b in pairs if lab(a, b)]
    found = compare(lab.results, [(lab.settings[a], lab.settings[b]) for a, b in run])
    if any(c.verdict == "better" for c in found):
        verdict = NO
    else:
        small = len(run) == len(pairs) and all(c.difference.high < SMALL for c in found)
        verdict = YES if small else OPEN
    gaps = "; ".join(map(_gap, found)) or "none was run"
    return verdict, f"final-state readout, {len(run)} of {len(pairs)} pairs run: {gaps}"


CLAIMS = {
    "SGD at 0.01 does not train in five epochs, LSTM and GRU alike": _sgd,
    "RMSprop is the best optimiser (LSTM)": lambda lab: _best(lab, "3c", ["3a", "3b"]),
    "RMSprop is the best optimiser (GRU)": lambda lab: _best(lab, "4c", ["4a", "4b"]),
    "Adagrad is slow": _adagrad,
    "GRUs train faster than LSTMs": _gru_faster,
    "GRUs have fewer parameters": _gru_smaller,
    "Two layers equal one": lambda lab: _equal(lab, "3c", ["5b"]),
    "Three layers hardly train, four do not": lambda lab: _fail(lab, "5c", "5d"),
    "Widths of 10 to 285 are about equal": lambda lab: _equal(
        lab, "3c", ["6a", "6b", "6d", "6e", "6f", "6g"]
    ),
    "A width of 319 fails": lambda lab: _fail(lab, "6h"),
    "The embedding's size hardly matters": _embedding,
    "The best compound training is E32 H305 L2": _grid_best,
    "By accuracy per parameter the best is E32 H20 L1": _economical,
    "Bidirectional is not better": _both_ways,
}
