"""The published conclusions, and the one rule by which each is held against trainings.

A rule reads the settings of any part that has what it speaks of: the part on the reproduction, or
the lab's own. It gives True (confirmed), False (not confirmed) or None (undecided) and a reason.
Undecided is also what needs a training that was not run, and what rests on one seed, a difference
or a failure: that tells models from each other, not settings. Equality takes intervals that leave
no room for a point. The pace of trainings is compared by mean epochs over several seeds, untested.
"""

import re
from functools import partial

import pandas as pd

from labrnn.config import TrialConfig
from labrnn.network.models import count_parameters
from labrnn.parts import OPTIMIZERS, Setting
from labrnn.results.comparison import (
    ENOUGH,
    SMALL,
    WEAK,
    by_validation,
    compare,
    equal,
    mean_epoch,
    pace,
    trained,
)
from labrnn.results.prose import capital, number, part_of, points, span, were
from labrnn.results.published import VOCABULARY_SIZE

VERDICTS = {True: "confirmed", False: "not confirmed", None: "undecided"}
PLAIN = {  # what a setting is unless a rule says otherwise
    "cell": "lstm",
    "optim": "rmsprop",
    "n_layers": 1,
    "hidden_dim": 100,
    "embedding_dim": 1,
    "bidirectional": False,
}
UNITS = {"n_layers": "layers", "hidden_dim": "units", "embedding_dim": "dimensions"}


def conclusions(results):
    """A table: published conclusion, verdict, evidence."""
    lines = [(capital(claim), *judge(results, claim)) for claim in CLAIMS]
    table = pd.DataFrame(lines, columns=["published conclusion", "verdict", "evidence"])
    table = table.assign(verdict=[VERDICTS[holds] for _, holds, _ in lines])
    table.attrs["key"] = "Trainings are named by the lab's figures: 3c is that of figure 3c."
    return table


def told(results, *claims):
    """Sentences on some published conclusions and what a part's trainings make of them."""
    text = []
    for claim in claims:
        holds, reason = judge(results, claim)
        opening = "It also concludes" if text else "The published report concludes"
        text.append(f"{opening} that {claim}. **{capital(VERDICTS[holds])}** here: {reason}.")
    return " ".join(text)


def judge(results, claim):
    """Whether a published conclusion holds, True, False or None, and the reason."""
    try:
        return CLAIMS[claim](_Trainings(results))
    except _NotRun as missing:
        return None, str(missing)


class _NotRun(Exception):
    """A rule lacks what this says."""


class _Trainings:
    """A part's settings, read at the final states, found by what they are."""

    def __init__(self, results):
        rivals = results.part.rivals() if hasattr(results.part, "rivals") else []
        names = {}
        for s in [*results.settings, *rivals]:
            names.setdefault(s.config.but(readout="final_state"), s.name.removeprefix("figure "))
        self.results = results
        self.settings = [Setting(name, config) for config, name in names.items()]

    def along(self, field, **others):
        """Value of a field -> the plain setting with it, those that were run."""
        same = {name: value for name, value in (PLAIN | others).items() if name != field}
        return {
            getattr(s.config, field): s
            for s in self.settings
            if all(getattr(s.config, name) == value for name, value in same.items())
            and self.results.trials(s)
        }

    def __call__(self, field, *values, **others):
        """The plain settings with these values of a field; raises `_NotRun` where one is missing."""
        found = self.along(field, **others)
        names = {v: f"{v} {UNITS[field]}" if field in UNITS else OPTIMIZERS[v] for v in values}
        if missing := [Setting(name, None) for v, name in names.items() if v not in found]:
            raise _NotRun(f"{were(missing)} not run")
        return [found[value] for value in values]

    def grid(self):
        """The compound settings, all of them run."""
        every = [s for s in self.settings if re.match(r"E\d+ H", s.name)]
        run = [s for s in every if self.results.trials(s)]
        if not every or len(run) < len(every):
            raise _NotRun(f"{len(run)} of {len(every)} compound trainings were run")
        return run

    def accuracies(self, settings):
        measured = [(s.name, self.results.accuracy(s)) for s in settings]
        return ", ".join(f"{name} {e.mean:.3f} (n = {e.seeds})" for name, e in measured)

    def epochs(self, settings):
        return [mean_epoch(self.results, s) for s in settings]

    def several_seeds(self, settings):
        return all(len(self.results.trials(s)) > 1 for s in settings)


def _together(verdicts):
    """False if one is, True if all are."""
    verdicts = set(verdicts)
    return False if False in verdicts else True if verdicts == {True} else None


def _gaps(compared):
    return "; ".join(
        f"{c.first.name} − {c.second.name} {points(c.difference.mean)} points "
        f"({span(c.difference)})"
        for c in compared
    )


# The rules


def _at_chance(lab, cell):
    [setting] = lab("optim", "sgd", cell=cell)
    learnt = list(trained(lab.results, setting).values())
    measured = lab.results.accuracy(setting)
    share = part_of(learnt.count(False), len(learnt), "training")
    return (
        {0: True, len(learnt): False}.get(sum(learnt)),
        f"{share} stayed at chance: {measured.mean:.3f} (n = {measured.seeds})",
    )


def _fail(lab, field, *values):
    settings = lab(field, *values)
    failed = [[a < WEAK for a in lab.results.metric(s, "accuracy").values()] for s in settings]
    holds = _together({0: False, len(seeds): True}.get(sum(seeds)) for seeds in failed)
    holds = holds if lab.several_seeds(settings) else None  # the next seed may do otherwise
    return holds, f"test accuracy {lab.accuracies(settings)}"


def _equal(lab, field, reference, *values):
    first, *others = lab(field, reference, *values)
    found = compare(lab.results, [(other, first) for other in others])
    return equal(found), _gaps(found)


def _best(lab, cell):
    best, *rivals = lab("optim", "rmsprop", "adagrad", "adam", cell=cell)
    found = compare(lab.results, [(best, rival) for rival in rivals])
    return _together({"better": True, "worse": False}.get(c.verdict) for c in found), _gaps(found)


def _slow(lab, cell):
    settings = lab("optim", "adagrad", "adam", "rmsprop", cell=cell)
    slow, *others = epochs = lab.epochs(settings)
    several = lab.several_seeds(settings) and slow != max(others)
    holds = slow > max(others) if several else None
    paces = [f"{s.name} {pace(e)}" for s, e in zip(settings, epochs, strict=True)]
    return holds, f"epochs to {ENOUGH} on validation: {', '.join(paces)}"


def _faster(lab):
    optims = ("adagrad", "adam", "rmsprop")
    cells = [lab("optim", *optims, cell=cell) for cell in ("gru", "lstm")]
    gru, lstm = map(lab.epochs, cells)
    holds = None
    if gru != lstm and all(map(lab.several_seeds, cells)):
        pairs = list(zip(gru, lstm, strict=True))
        holds = all(a <= b for a, b in pairs) or (False if all(a >= b for a, b in pairs) else None)
    paces = [
        f"{OPTIMIZERS[optim]} {pace(a)} against {pace(b)}"
        for optim, a, b in zip(optims, gru, lstm, strict=True)
    ]
    return holds, f"epochs to {ENOUGH} on validation, GRU against LSTM: {', '.join(paces)}"


def _smaller(_):
    gru, lstm = (
        count_parameters(TrialConfig(**PLAIN | {"cell": cell}), VOCABULARY_SIZE)
        for cell in ("gru", "lstm")
    )
    return gru < lstm, f"{gru:,} against {lstm:,} with the published vocabulary"


def _wins_grid(lab, name):
    lead, *others = by_validation(lab.results, lab.grid())
    found = compare(lab.results, [(s, lead) for s in others])
    if name == lead.name:
        rivals = sum(not c.clear for c in found)
        reason = f"it is first on validation, and {number(rivals)} others may equal it"
        return None if rivals else True, reason
    gap = next((c for c in found if c.first.name == name), None)
    if gap is None:
        raise _NotRun(f"{name} is not in this grid; the first on validation is {lead.name}")
    reason = f"the validation reviews put {lead.name} first; on the test {_gaps([gap])}"
    return False if gap.verdict == "worse" else None, reason


def _wins_economy(lab, name):
    grid, results = lab.grid(), lab.results
    if name not in {s.name for s in grid}:
        raise _NotRun(f"{name} is not in this grid")
    best = max(grid, key=lambda s: results.accuracy(s).mean / results.parameters(s))
    return best.name == name if lab.several_seeds(grid) else None, (
        f"{best.name} with {results.parameters(best):,} parameters; a smaller model wins this "
        "ranking almost whatever its accuracy"
    )


def _no_gain(lab):
    both = [s for s in lab.settings if s.config.bidirectional]
    ways = {s.config: s for s in lab.settings}
    one_way = [s.config.but(bidirectional=False) for s in both]
    pairs = [(a, ways[b]) for a, b in zip(both, one_way, strict=True) if b in ways]
    found = compare(lab.results, pairs)
    if not found:
        raise _NotRun("no pair was run")
    was = "was" if len(found) == 1 else "were"
    reason = f"{number(len(found))} of {number(len(both))} pairs {was} run: {_gaps(found)}"
    if any(c.verdict == "better" for c in found):
        return False, reason
    narrow = all(c.difference.high < SMALL and c.difference.seeds > 1 for c in found)
    return (True if narrow and len(found) == len(both) else None), reason


CLAIMS = {
    "the LSTM does not train with SGD at 0.01 in five epochs": partial(_at_chance, cell="lstm"),
    "the GRU does not train with SGD at 0.01 in five epochs": partial(_at_chance, cell="gru"),
    "RMSprop is the best optimiser of the LSTM": partial(_best, cell="lstm"),
    "RMSprop is the best optimiser of the GRU": partial(_best, cell="gru"),
    "Adagrad is slow for the LSTM": partial(_slow, cell="lstm"),
    "Adagrad is slow for the GRU": partial(_slow, cell="gru"),
    "GRUs train faster than LSTMs": _faster,
    "GRUs have fewer parameters than LSTMs": _smaller,
    "two layers equal one": lambda lab: _equal(lab, "n_layers", 1, 2),
    "three layers hardly train and four do not": lambda lab: _fail(lab, "n_layers", 3, 4),
    "widths of 10 to 285 units are about equal": lambda lab: _equal(
        lab, "hidden_dim", 100, 10, 20, 150, 200, 260, 285
    ),
    "a width of 319 units fails": lambda lab: _fail(lab, "hidden_dim", 319),
    "the size of the embedding hardly matters": lambda lab: _equal(
        lab, "embedding_dim", 1, 2, 8, 32, 64, 128, 188, 256
    ),
    "the best compound model is E32 H305 L2": partial(_wins_grid, name="E32 H305 L2"),
    "the best by accuracy per parameter is E32 H20 L1": partial(_wins_economy, name="E32 H20 L1"),
    "reading both ways is not better": _no_gain,
}
