"""Tables of results, and tables and sentences on the data (Lab 1 a-d)."""

import math

import pandas as pd

from labrnn.network.registry import OPTIMIZERS, count_parameters
from labrnn.results import comparison
from labrnn.results.comparison import of_kind
from labrnn.results.prose import capital, interval, p_value, points, render, typical

ACCURACY = "test accuracy, %"
KEY = (
    "Trained: runs that trained, of all; accuracy and 95 % CI of those, or their range. s/epoch: "
    "processor seconds per epoch (–: not recorded), which vary with the machine and its load."
)
REFERENCE = {"Δ points": "–", "p": "–", "result": "reference"}
COMPARED = (
    " Δ: difference in points with its 95 % CI; p: corrected by Holm's method; lower, higher: "
    "significant; equivalent: within 1 point."
)


# The cells


def accuracy_cell(estimate):
    """Format an accuracy with its interval, in per cent."""
    mean = "–" if math.isnan(estimate.mean) else typical(estimate)
    return f"{mean} {interval(estimate)}".rstrip()


def columns(results, setting, *names):
    """Return the named cells for a setting that was run."""
    runs, estimate = results.trained(setting), results.accuracy(setting)
    seconds, rows = results.seconds(setting), results.rows(setting)
    cells = {
        "parameters": f"{results.parameters(setting):,}",
        "trained": f"{runs.count} of {runs.n}",
        "n": str(estimate.n),
        ACCURACY: accuracy_cell(estimate),
        "validation, %": f"{100 * results.validation(setting):.1f}",
        "s/epoch": "–" if math.isnan(seconds) else f"{float(f'{seconds:.2g}'):g}",
        "epoch 1, %": f"{100 * rows['first_validation'].mean():.1f}",
    }
    return {name: cells[name] for name in names}


def compared_cells(c):
    """Return the cells of a `Comparison`: difference, corrected p-value and outcome."""
    return {
        "Δ points": f"{points(c.difference.mean)} {interval(c.difference)}".rstrip(),
        "p": "–" if math.isnan(c.p) else p_value(c.p).removeprefix("p ").removeprefix("= "),
        "result": c.outcome,
    }


def printed(lines, key=""):
    """Return rows as a DataFrame of text, with a dash for missing values and a key."""
    table = pd.DataFrame(lines).fillna("–").astype(str)
    table.attrs["key"] = key
    return table


# Settings and comparisons


def results_table(results, compared=(), name="setting"):
    """Return one row per setting: size, runs that trained, test accuracy, time, difference.

    Args:
        compared: `Comparison`s; a setting's row shows the one in which it is the first.
        name: heading of the first column.
    """
    found = {c.second: REFERENCE for c in compared}
    found |= {c.first: compared_cells(c) for c in compared}
    lines = []
    for s in results.settings:
        line = {name: s.name, "parameters": "not run"}
        if results.run([s]):
            line |= columns(results, s, "parameters", "trained", ACCURACY, "s/epoch")
        lines.append(line | found.get(s, {}))
    return printed(lines, KEY + (COMPARED if found else ""))


def pairs_table(results, compared, first="first", second="second"):
    """Return one row per comparison, with the accuracies of both sides."""
    lines = []
    for c in compared:
        mine = results.accuracy(c.first)
        tested = results.at("last") if c.kind == "checkpoint" else results
        sides = {first: capital(c.first.name), ACCURACY: accuracy_cell(mine)}
        sides |= {second: capital(c.second.name)}
        sides[f"{ACCURACY} "] = accuracy_cell(tested.accuracy(c.second))
        runs = f"{mine.n}, {results.accuracy(c.second).n}"
        lines.append({**sides, "n": runs, **compared_cells(c)})
    return printed(lines, f"n: runs that trained ({first}, {second})." + COMPARED)


def cells_table(results, compared):
    """Return one row per optimiser: LSTM and GRU."""
    lines = []
    for c in of_kind(compared, "cells"):
        gru, lstm = (
            columns(results, s, ACCURACY, "s/epoch", "epoch 1, %") for s in (c.first, c.second)
        )
        line = {"optimiser": c.first.name, "LSTM, %": lstm[ACCURACY], "GRU, %": gru[ACCURACY]}
        costs = {name: f"{lstm[name]} / {gru[name]}" for name in ("s/epoch", "epoch 1, %")}
        lines.append(line | compared_cells(c) | costs)
    return printed(lines, "Epoch 1: validation accuracy after it." + COMPARED)


def ranking(results, settings, compared=()):
    """Return one row per setting that trained, best test accuracy first.

    A setting is on the Pareto front if no setting of the part with at most as many parameters has a
    higher test accuracy.
    """
    ranked = sorted(settings, key=lambda s: -results.accuracy(s).mean)
    best = front(results, [*settings, *results.able(results.part.others())])
    found = {c.second: "selected" for c in compared} | {c.first: c.outcome for c in compared}
    lines = [
        {"": str(place), "setting": s.name}
        | columns(results, s, "parameters", "n", ACCURACY, "validation, %")
        | {"Pareto": "yes" if s in best else "", "result": found.get(s, "–")}
        for place, s in enumerate(ranked, 1)
    ]
    return printed(
        lines,
        "Pareto: no setting of the grid or of Labs 2 c to e with as many parameters or fewer is more "
        "accurate. Result: against the selected setting.",
    )


def ranking_by_ratio(results, settings):
    """Rank settings by test accuracy divided by parameters, as the lab asks."""

    def ratio(setting):
        return results.accuracy(setting).mean / results.parameters(setting)

    lines = [
        {"": str(place), "setting": s.name}
        | columns(results, s, "parameters", ACCURACY)
        | {"% per 1,000 parameters": f"{1e5 * ratio(s):.4f}"}
        for place, s in enumerate(sorted(settings, key=ratio, reverse=True), 1)
    ]
    return printed(lines)


def rates_table(results, settings):
    """Return one row per optimiser and learning rate, with the selected rate."""
    best = comparison.leaders(results).values()
    lines = [
        {"optimiser": s.name}
        | columns(results, s, "trained", "validation, %", ACCURACY)
        | {"chosen": "yes" if s in best else ""}
        for s in results.run(settings)
    ]
    return printed(lines, "Chosen: the rate with the highest validation accuracy of its optimiser.")


def front(results, settings):
    """Return the Pareto front of parameters and test accuracy, smallest setting first."""
    best, chosen = -math.inf, []
    for s in sorted(settings, key=lambda s: (results.parameters(s), -results.accuracy(s).mean)):
        if results.accuracy(s).mean > best:
            best = results.accuracy(s).mean
            chosen.append(s)
    return chosen


def settings_of(part):
    """Return one row per parameter of the part's own: description and value."""
    fields = type(part).model_fields
    names = [name for name in type(part).__annotations__ if name in fields and name != "seeds"]
    config = part.networks()[0].config
    kind = OPTIMIZERS[config.optim]
    optimiser = f"{kind.dense}; {kind.name} for the vectors"
    rows = [("optimiser", optimiser), ("layers", f"{config.n_layers}")]
    rows += [(fields[n].description, f"{getattr(part, n):g}") for n in [*names, "batch_size"]]
    return pd.DataFrame(rows, columns=["parameter", "value"])


def parameter_table(results, setting):
    """Count a model's parameters by layer with the lab's formula, for the runs' vocabulary."""
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


# The data


def source(data):
    """Return name, size and balance of the reviews in use."""
    facts, words = data["facts"], data["facts"]["words"]
    rows = {
        "source": facts["name"],
        "fingerprint": facts["fingerprint"],
        "reviews": f"{facts['rows']:,}",
        "positive": f"{facts['positives']:,}",
        "negative": f"{facts['negatives']:,}",
        "distinct texts": f"{facts['distinct_texts']:,}",
        "words in a review": f"{words['min']} to {words['max']:,}, median {words['median']:.0f}",
    }
    return pd.DataFrame({"": rows.keys(), " ": rows.values()})


def frequent(data):
    """Return the most frequent words, stop words in brackets."""
    cells = [
        f"({word}) {count:,}" if stop else f"{word} {count:,}"
        for word, count, stop in data["frequent"]
    ]
    rows = len(cells) // 4
    table = pd.DataFrame(
        {
            f"ranks {c * rows + 1} to {(c + 1) * rows}": cells[c * rows : (c + 1) * rows]
            for c in range(4)
        }
    )
    table.attrs["key"] = "The tokenizer drops stop words, printed in brackets."
    return table


def splits(data):
    """Return the sizes of the splits, the reviews in use, and their share of positive ones."""
    rows, lines = data["facts"]["rows"], []
    cut = rows - sum(used for used, _ in data["splits"].values())  # only training reviews are cut
    for name, (used, positive) in data["splits"].items():
        size = used + cut * (name == "train")
        lines.append(
            {
                "split": {"train": "training", "valid": "validation"}.get(name, name),
                "reviews": f"{size:,}",
                "share": f"{100 * size / rows:.0f} %",
                "in use": f"{used:,}",
                "positive": f"{100 * positive / used:.1f} %",
            }
        )
    return pd.DataFrame(lines)


def on(topic, data, part=None):
    """Discuss the data's `duplicates`, `splits`, `vocabulary` or `lengths`."""
    return render("data", topic=topic, data=data, part=part)
