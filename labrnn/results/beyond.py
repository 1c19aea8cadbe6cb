"""Models without a network beside two of the lab's networks: comparisons, table, discussion."""

import numpy as np
import pandas as pd

from labrnn.parts import Setting
from labrnn.results import prose, statistics
from labrnn.results.baselines import Baseline, preferred
from labrnn.results.comparison import (
    accuracy_cell,
    by_validation,
    compared_cells,
    corrected,
    tested,
)


def reached(baselines, results):
    """(Name, test accuracy, whether it is a network) of every model, for the figure."""
    return [
        (model.name, _accuracy(model, results), isinstance(model, Setting))
        for model in [*baselines, *results.run]
    ]


def _accuracy(model, results):
    return statistics.accuracy(_correct(model, results))


def _correct(model, results):
    return [model.correct] if isinstance(model, Baseline) else results.correct(model)


def comparisons(baselines, results):
    """All models against the network that is best on validation; then the best model without a
    network against the other networks, and stop words kept against dropped.

    Paired by test review: McNemar's exact test where a network has one seed and between models
    without a network. One family under Holm's correction.
    """
    lead = by_validation(results)[:1]
    others = [s for s in results.run if s not in lead]
    pairs = [(model, lead[0]) for model in [*baselines, *others] if lead]
    pairs += [(preferred(baselines), other) for other in others if baselines]
    named = {model.name: model for model in baselines}
    pairs += [
        (model, named[name.replace("all words", "no stop words")])
        for name, model in named.items()
        if name.endswith("all words")
    ]
    return corrected([(a, b, _difference(a, b, results)) for a, b in pairs])


def _difference(first, second, results):
    if isinstance(first, Setting):
        return results.difference(first, second)
    theirs = _correct(second, results)
    return statistics.difference([first.correct] * len(theirs), theirs)  # it has no seed


def table(baselines, results, compared):
    """A line a model: size, accuracies, seconds, difference from the leading network."""
    found = {c.first.name: compared_cells(c) for c in _to_lead(compared)}
    lines = []
    for model in [*baselines, *results.run]:
        if isinstance(model, Setting):
            size, valid = results.parameters(model), tested(results, model, "valid_accuracy")
            trials = results.trials(model).values()
            seconds = np.median([trial.environment["seconds"] for trial in trials])
        else:
            size, valid, seconds = model.parameters, model.validation, model.seconds
        lines.append(
            {
                "model": model.name,
                "parameters": f"{size:,}",
                "validation": f"{valid:.3f}",
                "test accuracy": accuracy_cell(_accuracy(model, results)),
                "n": str(len(_correct(model, results))),
                "s": f"{seconds:.0f}",
                **found.get(model.name, {"Δ points": "–", "p": "–"}),
            }
        )
    return pd.DataFrame(lines)


def _to_lead(compared):
    """The comparisons with the leading network."""
    return [c for c in compared if c.second == compared[0].second and isinstance(c.second, Setting)]


def discussion(baselines, results, compared):
    """What models without a network say about the networks."""
    if not baselines:
        return (
            "The models without a network were not run: neither their earlier results nor the "
            "reviews are at hand."
        )
    best = preferred(baselines)
    text = (
        f"Of the models without a network the validation reviews prefer *{best.name}*: test "
        f"accuracy {prose.measured(_accuracy(best, results))}, {best.parameters:,} parameters, "
        f"{best.seconds:.0f} s of one processor."
    )
    bars = _to_lead(compared)
    rest = [c for c in compared if isinstance(c.second, Setting) and c not in bars]
    words = [c for c in compared if isinstance(c.second, Baseline)]
    if bars:
        lead = bars[0].second
        text += (
            f" Of the networks they prefer the {lead.name}, with "
            f"{prose.measured(results.accuracy(lead))}. {_bar(best, bars)}"
        )
    text += "".join(
        f" The linear model's lead over *{c.second.name}*, which has "
        f"{prose.measured(results.accuracy(c.second))}, is {prose.gap(c)}."
        for c in rest
    )
    return prose.paragraphs(
        text,
        _stop_words(words),
        _why(bars[0].second.config if bars else results.part.base),
        prose.footing(results, compared),
    )


def _why(config):
    """What a linear model may have over a network of this configuration, or it over the model."""
    if config.linear_path:
        return prose.explanation(
            "This classifier holds a linear model of the same kind beside its network, so what it "
            "is ahead of the bar is what the network adds: the words' order, and the vote of a "
            "second model, which most often helps."
        )
    less = [
        "no stop words" if config.stop_words == "drop" else "",
        f"at most {config.max_tokens} known words of a review that linear models see in full",
    ]
    return prose.explanation(
        'To a linear model a pair of neighbours such as "not good" is a feature like any '
        "other, weighed by the reviews that hold it; a network has to learn from the same "
        "reviews how words combine. The network also sees less: "
        f"{', and '.join(filter(None, less))}."
    )


def _bar(best, bars):
    """Whether the best linear model is a bar that the networks stay under."""
    bar = next(c for c in bars if c.first is best)
    network, gap = bar.second.name, prose.distance(bar.difference, bar.p)
    if bar.verdict == "within noise":
        verdict = f"The two are within noise of each other: {prose.gap(bar)}. {prose.room([bar])}"
    elif not bar.clear:
        verdict = (
            f"They differ by {prose.gap(bar)}, which is not clear once corrected for the number of "
            "comparisons."
        )
    elif bar.difference.mean < 0:
        verdict = f"The {network} is ahead by {gap}: it passes this bar."
    else:
        others = [c.difference.mean for c in bars if isinstance(c.first, Setting)]
        who = "these networks stay" if others and max(others) <= 0 else "this network stays"
        verdict = f"The linear model is ahead by {gap}: a bar that {who} under."
    signs = [np.sign(c.difference.mean) for c in bars if c.clear and isinstance(c.first, Baseline)]
    count = sum(isinstance(c.first, Baseline) for c in bars)
    above, below = (prose.number(n) if n else "none" for n in map(signs.count, (1, -1)))
    return (
        f"{verdict} Of {prose.counted(count, 'model')} without a network {above} "
        f"{'is' if signs.count(1) < 2 else 'are'} clearly above the {network}, {below} clearly below."
    )


def _stop_words(compared):
    """Does it pay to keep the words that the lab drops?"""
    told = {"helps": [], "hurts": [], "makes no clear difference to": []}
    for c in compared:
        verdict = ("helps" if c.difference.mean > 0 else "hurts") if c.clear else list(told)[2]
        name = c.first.name.removesuffix(", all words").replace(", ", " with ")
        told[verdict].append(f"{name}, {prose.gap(c)}")
    clauses = [f"{verdict} {'; '.join(models)}" for verdict, models in told.items() if models]
    return f"To keep the stop words, negations among them, {'. It '.join(clauses)}."
