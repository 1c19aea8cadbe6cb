"""What the trials of a part say when they are held against each other: which trained, which differ.

Differences are tested on the test reviews and corrected for their number within the part. The
setting that others are compared with is named by the lab or chosen on the validation reviews,
never on the test reviews.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from labrnn.network.models import count_parameters
from labrnn.parts import Setting
from labrnn.results import statistics

LN2 = math.log(2)
LEFT = 0.03  # the training loss of a model that left chance fell below ln 2 by more than this
LEVEL = 0.05
ENOUGH = 0.85  # validation accuracy by which the pace of a training is told
WEAK = 0.7  # test accuracy below which a model that left chance has hardly trained
SMALL = 0.01  # two accuracies less than a point apart count as equal


@dataclass(frozen=True)
class Comparison:
    """Two settings on the same test reviews.

    Attributes:
        difference: first minus second, a `statistics.Estimate`.
        p: corrected by Holm's method for the comparisons made with it.
    """

    first: Setting
    second: Setting
    difference: statistics.Estimate
    p: float

    @property
    def clear(self):
        """Whether chance alone hardly gives such a difference."""
        return self.p < LEVEL

    @property
    def verdict(self):
        """`better`, `worse`, `within noise`; `not clear` where the interval leaves out 0 and the
        corrected p-value is too large; `undecided` where models differ but one seed each cannot
        tell a setting from its seed."""
        if not self.clear:
            return "within noise" if self.difference.holds_zero else "not clear"
        if self.difference.seeds == 1:
            return "undecided"
        return "better" if self.difference.mean > 0 else "worse"


def compare(results, pairs):
    """`Comparison`s of the pairs of settings that were both run, corrected together by Holm."""
    run = [(a, b) for a, b in pairs if results.trials(a) and results.trials(b)]
    return corrected([(a, b, results.difference(a, b)) for a, b in run])


def corrected(found):
    """`Comparison`s of (first, second, difference) triples, corrected together by Holm."""
    p_values = statistics.holm([difference.p for *_, difference in found])
    return [Comparison(*one, float(p)) for one, p in zip(found, p_values, strict=True)]


def against(results, reference):
    """The other settings compared with one of them."""
    return compare(results, [(s, reference) for s in results.settings if s != reference])


def equal(compared):
    """Whether all first settings equal the second: True, False, or None where that is open.

    Equality takes intervals that leave no room for a point, its contrary a clear difference of a
    point or more, and either takes several seeds.
    """
    sure = [c for c in compared if c.difference.seeds > 1]
    if any(c.clear and abs(c.difference.mean) >= SMALL for c in sure):
        return False
    narrow = [c for c in sure if max(-c.difference.low, c.difference.high) < SMALL]
    return True if compared and len(narrow) == len(compared) else None


def trained(results, setting):
    """Whether each seed's model left chance, by seed: in training loss and on the test reviews."""
    verdicts = {}
    for (seed, trial), row in zip(
        results.trials(setting).items(), results.correct(setting), strict=True
    ):
        accuracy = statistics.accuracy([row])
        fell = LN2 - min(epoch["train_loss"] for epoch in trial.history) > LEFT
        verdicts[seed] = bool(fell and not accuracy.low <= 0.5 <= accuracy.high)
    return verdicts


def successful(results, settings=None):
    """The settings of which at least one seed trained."""
    settings = results.settings if settings is None else settings
    return [s for s in settings if any(trained(results, s).values())]


def tested(results, setting, name):
    """A quantity of the history at the tested epoch, e.g. `valid_accuracy`: mean over seeds."""
    values = [
        trial.history[trial.metrics[results.checkpoint]["epoch"] - 1][name]
        for trial in results.trials(setting).values()
    ]
    return float(np.mean(values))


def seed_spread(several, checkpoint):
    """Standard deviation of the test accuracy over seeds, pooled; NaN below two degrees of freedom.

    Settings count of which several seeds were run and all of them trained: whether a training
    fails altogether is another question than how far apart two lie that did not.

    Args:
        several: `Results`, of several parts.
        checkpoint: whose test: `best` or `last`.
    """
    known = {}
    for results in several:
        for setting in results.settings:
            tests = [t.metrics[checkpoint]["accuracy"] for t in results.trials(setting).values()]
            if len(tests) > 1 and min(tests) >= WEAK:
                known[setting.config] = tests
    freedom = sum(len(tests) - 1 for tests in known.values())
    squares = sum(len(tests) * np.var(tests) for tests in known.values())
    return math.sqrt(squares / freedom) if freedom > 1 else math.nan


def by_validation(results, settings=None):
    """The settings that were run, best validation accuracy of the tested epoch first."""
    settings = results.settings if settings is None else settings
    run = [s for s in settings if results.trials(s)]
    return sorted(run, key=lambda s: -tested(results, s, "valid_accuracy"))


def mean_epoch(results, setting):
    """The epoch that reaches `ENOUGH` on validation, mean over seeds; infinite if one never does."""
    histories = [trial.history for trial in results.trials(setting).values()]
    reached = [
        next((e["epoch"] for e in h if e["valid_accuracy"] >= ENOUGH), math.inf) for h in histories
    ]
    return float(np.mean(reached))


def pace(epoch):
    """A `mean_epoch` in words."""
    return f"{epoch:.3g}" if epoch < math.inf else "never"


def trend(results, settings, size):
    """A line through the test accuracies of all trials that trained, against log2 of their size.

    Every trial counts once, so that single seeds serve: the scatter round the line holds the
    seeds' noise. Needs three sizes and more trials than that, or returns None.

    Args:
        size: setting -> a positive number.

    Returns:
        a `statistics.Estimate` of the change of accuracy for each doubling; its `seeds` are the
        trials that count.
    """
    points = []
    for setting in settings:
        measured = results.metric(setting, "accuracy")
        points += [
            (math.log2(size(setting)), measured[seed])
            for seed, learnt in trained(results, setting).items()
            if learnt and measured[seed] >= WEAK
        ]
    x, y = np.array(points).T if points else ([], [])
    if len(set(x)) < 3 or len(x) < 4:
        return None
    line = stats.linregress(x, y)
    reach = stats.t.ppf((1 + statistics.CONFIDENCE) / 2, len(x) - 2) * line.stderr
    low, high = line.slope - reach, line.slope + reach
    return statistics.Estimate(
        float(line.slope), float(low), float(high), len(x), 0, float(line.pvalue)
    )


KEY = "n: seeds; epoch: the tested ones; s/epoch: seconds of one"
KEY_COMPARED = "; Δ: difference, with its 95 % interval; p: corrected by Holm's method"
COLUMNS = ("parameters", "test accuracy", "n", "epoch", "s/epoch", "Δ points", "p")


def results_table(results, compared=(), name="setting"):
    """A line a setting: size, test accuracy with its interval, epoch, time, difference.

    Args:
        compared: `Comparison`s; a setting's own difference is that in which it stands first.
        name: heading of the first column.
    """
    found = {c.first: c for c in compared if c.second in results.settings}
    lines = []
    for setting in results.settings:
        line = dict.fromkeys(COLUMNS, "–")
        if results.trials(setting):
            line |= _measured(results, setting)
        if setting in found:
            line |= compared_cells(found[setting])
        remark = "" if results.trials(setting) else " (not run)"
        lines.append({name: setting.name + remark} | line)
    table = pd.DataFrame(lines)
    if not found:
        table = table.drop(columns=list(COLUMNS[-2:]))
    table.attrs["key"] = f"{KEY}{KEY_COMPARED if found else ''}."
    return table


def _measured(results, setting):
    accuracy = results.accuracy(setting)
    epochs = results.metric(setting, "epoch").values()
    return {
        "parameters": f"{results.parameters(setting):,}",
        "test accuracy": accuracy_cell(accuracy),
        "n": str(accuracy.seeds),
        "epoch": ", ".join(str(epoch) for epoch in sorted(set(epochs))),
        "s/epoch": seconds_cell(results, setting),
    }


def seconds_cell(results, setting):
    """Seconds of an epoch in a table."""
    seconds = results.seconds(setting)
    return "–" if math.isnan(seconds) else f"{seconds:.1f}"


def accuracy_cell(estimate):
    """An accuracy and its interval in a table."""
    return f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def compared_cells(comparison):
    """The cells of a table's line that tell a difference and its corrected p-value."""
    d = comparison.difference
    points = f"{100 * d.mean:+.1f} [{100 * d.low:.1f}, {100 * d.high:.1f}]"
    return {
        "Δ points": points.replace("-", "−"),
        "p": "< 0.001" if comparison.p < 0.001 else f"{comparison.p:.3f}",
    }


def cells_table(results, compared):
    """GRU beside LSTM under each optimiser, from those `Comparison`s that cross the cells."""
    lines = []
    for c in compared:
        gru, lstm = c.first, c.second
        if gru.config.cell == lstm.config.cell:
            continue
        lines.append(
            {
                "optimiser": gru.name,
                "LSTM": f"{results.accuracy(lstm).mean:.3f}",
                "GRU": f"{results.accuracy(gru).mean:.3f}",
                "n": str(c.difference.seeds),
                **compared_cells(c),
                "s/epoch": f"{seconds_cell(results, lstm)} / {seconds_cell(results, gru)}",
                f"epochs to {ENOUGH}": f"{pace(mean_epoch(results, lstm))} / "
                f"{pace(mean_epoch(results, gru))}",
            }
        )
    return pd.DataFrame(lines)


def ranking(results, by="accuracy"):
    """Every setting that was run, best first by test `accuracy` or by accuracy `per parameter`."""
    per_million = {s: 1e6 * results.accuracy(s).mean / results.parameters(s) for s in results.run}
    key = per_million.get if by == "per parameter" else lambda s: results.accuracy(s).mean
    lines = []
    for place, setting in enumerate(sorted(results.run, key=key, reverse=True), 1):
        accuracy = results.accuracy(setting)
        lines.append(
            {
                "": str(place),
                "setting": setting.name,
                "parameters": f"{results.parameters(setting):,}",
                "test accuracy": accuracy_cell(accuracy),
                "validation": f"{tested(results, setting, 'valid_accuracy'):.3f}",
                "per million": f"{per_million[setting]:.3f}",
            }
        )
    return pd.DataFrame(lines)


def parameter_table(results, setting):
    """Where a model's parameters are, by the lab's formula at the vocabulary of the trials."""
    config, words = setting.config, results.vocabulary_size
    if words is None:
        return pd.DataFrame({"part": ["not run, so the vocabulary's size is not known"]})
    table, total = words * config.embedding_dim, count_parameters(config, words)
    output = 2 * ((1 + config.bidirectional) * config.hidden_dim + 1)
    rows = [
        ("embedding", f"{words:,} × {config.embedding_dim}", f"{table:,}"),
        (
            f"{config.cell.upper()}, {config.n_layers} × {config.hidden_dim} units",
            "weights and biases",
            f"{total - table - output:,}",
        ),
        ("linear layer", f"2 × ({config.hidden_dim} + 1)", f"{output:,}"),
        ("all", "", f"{total:,}"),
    ]
    return pd.DataFrame(rows, columns=["part", "size", "parameters"])
