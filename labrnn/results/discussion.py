"""The discussions: sentences whose numbers, comparisons and verdicts are computed from results.

Each public function takes a part's `Results` and returns Markdown. Explanations that nothing in
the part measures are kept apart from findings and say so.
"""

import math
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
from scipy import stats

from labrnn.results.comparison import (
    ENOUGH,
    LN2,
    WEAK,
    against,
    by_validation,
    compare,
    mean_epoch,
    pace,
    successful,
    tested,
    trained,
    trend,
)
from labrnn.results.conclusions import told
from labrnn.results.prose import (
    by_verdict,
    capital,
    counted,
    explanation,
    footing,
    idle,
    last_epoch,
    listing,
    measured,
    names,
    number,
    paragraphs,
    part_of,
    past_best,
    plural,
    points,
    seed_noise,
    span,
    were,
)

# Lab 1 f and h


def sgd(results):
    """Does the loss fall steadily under SGD?"""
    setting = results.settings[0]
    if not results.run:
        return footing(results)
    learnt = trained(results, setting)
    accuracy = measured(results.accuracy(setting))
    cell = setting.config.cell.upper()
    if any(learnt.values()):
        test = f"On the test reviews the {cell} has an accuracy of {accuracy}."
        test += " " + idle(results, [setting])
    else:
        test = (
            f"The test reviews agree: {accuracy}, an interval that holds one half. What the {cell} "
            f"has learnt in {counted(setting.config.epochs, 'epoch')}, a coin knows too."
        )
    return paragraphs(
        _fall(results.curves(setting, "train_loss"), learnt),
        test,
        "" if all(learnt.values()) else explanation(_why_sgd(results, setting)),
        told(results, f"the {cell} does not train with SGD at 0.01 in five epochs"),
        footing(results),
    )


def _fall(losses, learnt):
    steps = len(losses[0]) - 1
    falls = np.mean([sum(b < a for a, b in pairwise(c)) for c in losses])
    first, last = np.mean([c[0] for c in losses]), np.mean([c[-1] for c in losses])
    many = f"on average {falls:.1f} of {counted(steps, 'step')}"
    many = many if falls % 1 else part_of(int(falls), steps, "step")
    if not any(learnt.values()):
        reach = max(max(c) - min(c) for c in losses)
        return (
            f"No. The training loss is {first:.4f} after the first epoch and {last:.4f} after "
            f"the last, and ln 2 = {LN2:.4f} is what a model pays that gives every review even "
            f"odds. In {many} from epoch to epoch it went down, but "
            f"all its values lie within {reach:.4f} of each other: that is no descent."
        )
    if falls == steps:
        return (
            f"Yes. It falls in every epoch, from {first:.3f} to {last:.3f}, where even odds cost "
            f"{LN2:.3f}."
        )
    return (
        f"It falls from {first:.3f} to {last:.3f}, where even odds cost {LN2:.3f}, but not "
        f"steadily: in {many}."
    )


def _why_sgd(results, setting):
    words, size = results.vocabulary_size, setting.config.embedding_dim
    if setting.config.cell == "gru":
        return (
            "The GRU starts on the same plateau as the LSTM. Its update gate is near one half, "
            "so each step keeps half of the old state and the first words of a review are gone "
            "long before its end; the error that comes back is halved in the same way. The "
            "gradient of the embedding is small on top of that, and SGD takes steps in "
            "proportion to it."
        )
    return (
        f"A word enters as {counted(size, 'number')}, drawn with a standard deviation of "
        f"{np.sqrt(2 / (words + size)):.4f}, because Xavier's rule divides by the size of the "
        "vocabulary. The biases start at 0, which puts the forget gate near one half: what a "
        "word leaves in the cell is halved at every step, and of a review's first words nothing "
        "arrives at its end, nor does their share of the error come back. The gradient is a "
        "product of these small things. SGD multiplies it by a fixed rate, where Adagrad, Adam "
        "and RMSprop first divide it by its own size; so they leave the plateau on which SGD "
        "sits."
    )


# Lab 2 a and b


def optimizer_comparisons(results):
    """The optimisers against the one that is best on validation; in part b the cells as well."""
    lead = by_validation(results, successful(results) or results.run)[:1]
    pairs = [(s, other) for other in lead for s in results.settings if s != other]
    if hasattr(results.part, "rivals"):
        pairs += zip(results.settings, results.part.rivals(), strict=True)
    return compare(results, pairs)


def optimizers(results):
    """Which optimiser is best, and why?"""
    learnt = successful(results)
    if not learnt:
        return paragraphs(idle(results, results.settings), footing(results))
    lead, cell = by_validation(results, learnt)[0], learnt[0].config.cell
    compared = optimizer_comparisons(results)
    mine = [c for c in compared if c.second == lead and c.first in learnt]
    return paragraphs(
        f"The validation reviews put {lead.name} first, with "
        f"{tested(results, lead, 'valid_accuracy'):.3f} in the epoch that is tested; on the test "
        f"reviews it reaches {measured(results.accuracy(lead))}. {by_verdict(mine)} "
        f"{idle(results, results.settings)} {_which(mine, lead)}",
        f"{_pace(results)} {_unfinished(results, learnt)} {past_best(results, learnt)}",
        told(
            results,
            f"RMSprop is the best optimiser of the {cell.upper()}",
            f"Adagrad is slow for the {cell.upper()}",
        ),
        footing(results, compared),
    )


def _which(compared, lead):
    close = [c.first for c in compared if not c.clear]
    if len(close) == len(compared):
        return f"So these trials do not tell {names([lead, *close])} apart." if close else ""
    if close:
        return f"So which is best is open between {names([lead, *close])}; the others are behind."
    if any(c.verdict == "undecided" for c in compared):
        return f"So {lead.name} wins as trained here; whether it would again, other seeds must say."
    return f"So {lead.name} is the best of those that were run."


def _pace(results):
    """In which epoch the validation accuracy first reaches `ENOUGH`."""
    first = defaultdict(list)
    for setting in results.run:
        first[mean_epoch(results, setting)].append(setting)
    never = first.pop(math.inf, [])
    if not first:
        return f"None reaches {ENOUGH} on the validation reviews."
    groups = [f"in epoch {pace(epoch)} by {names(some)}" for epoch, some in sorted(first.items())]
    groups += [f"not at all by {names(never)}"] if never else []
    average = ", on average over seeds," if len(results.part.seeds) > 1 else ""
    return f"A validation accuracy of {ENOUGH} is reached{average} {listing(groups)}."


def _unfinished(results, learnt):
    late = [s for s in learnt if all(min(c) == c[-1] for c in results.curves(s, "valid_loss"))]
    return (
        ""
        if not late
        else (
            f"{capital(were(late))} still improving when the training ended: what is measured there "
            "is the pace, not the goal."
        )
    )


def cells(results):
    """The GRU against the LSTM, in performance and in efficiency."""
    crossing = [
        c for c in optimizer_comparisons(results) if c.first.config.cell != c.second.config.cell
    ]
    if not crossing:
        return "The two cells were not both run, so they cannot be compared here."
    able = [c for c in crossing if successful(results, [c.first, c.second])]
    return paragraphs(
        _cells_accuracy(able or crossing),
        _cells_cost(results, crossing),
        told(results, "GRUs train faster than LSTMs", "GRUs have fewer parameters than LSTMs"),
    )


def _cells_accuracy(compared):
    forms = {
        "better": "the GRU is better under {}",
        "worse": "the GRU is worse under {}",
        "within noise": "the cells are within noise of each other under {}",
        "not clear": "the difference is not clear, after correction, under {}",
        "undecided": "the two models differ under {}, though one seed each does not make that a "
        "difference of the cells",
    }
    clauses = []
    for verdict in dict.fromkeys(c.verdict for c in compared):
        group = [c for c in compared if c.verdict == verdict]
        who = listing(
            f"{c.first.name} ({points(c.difference.mean)} points, {span(c.difference)})"
            for c in group
        )
        clauses.append(forms[verdict].format(who))
    return f"GRU minus LSTM, optimiser by optimiser: {', and '.join(clauses)}."


def _cells_cost(results, compared):
    gru, lstm = compared[0].first, compared[0].second
    few, many = results.parameters(gru), results.parameters(lstm)
    table = results.vocabulary_size * gru.config.embedding_dim
    ratios = [results.seconds(c.first) / results.seconds(c.second) for c in compared]
    timed = [ratio for ratio in ratios if ratio > 0]
    text = (
        f"The GRU has {few:,} parameters to the LSTM's {many:,}. The embedding takes {table:,} "
        f"of both; the rest is in the ratio {(few - table) / (many - table):.2f}, three blocks "
        "of weights against four."
    )
    if not timed:
        return text
    return (
        f"{text} An epoch takes the GRU {np.median(timed):.2f} times as long, the median over "
        f"{counted(len(timed), 'optimiser')}. On a CPU that compares our kernels for the two cells "
        "more than the cells."
    )


# Lab 2 c to e


def depth(results):
    """Does a deeper LSTM do better?"""
    return _sweep(
        results,
        "n_layers",
        1,
        "doubling the depth",
        "",
        "two layers equal one",
        "three layers hardly train and four do not",
    )


def width(results):
    """Does a wider LSTM do better?"""
    return _sweep(
        results,
        "hidden_dim",
        100,
        "doubling the width",
        "The recurrent weights grow with the square of the width, from {parameters[0]:,} "
        "parameters in all to {parameters[1]:,}.",
        "widths of 10 to 285 units are about equal",
        "a width of 319 units fails",
    )


def embedding(results):
    """Does a larger embedding do better?"""
    return _sweep(
        results,
        "embedding_dim",
        1,
        "doubling the embedding",
        "Nearly all parameters sit in the table: {parameters[0]:,} in the model of {small}, "
        "{parameters[1]:,} in that of {large}. By the last epoch accuracy on the training reviews "
        "is {gaps[0]:.0f} points above that on the validation reviews with {small} and "
        "{gaps[1]:.0f} with {large}.",
        "the size of the embedding hardly matters",
    )


def _sweep(results, field, reference, doubling, price, *claims):
    """One dimension of the model changed; `reference` is the lab's own value of it."""
    if not results.run:
        return footing(results)
    base = next((s for s in results.settings if getattr(s.config, field) == reference), None)
    compared = against(results, base) if base else []
    line = trend(results, successful(results), lambda s: getattr(s.config, field))
    return paragraphs(
        f"{_opening(results, base, compared)} {idle(results, results.settings)}",
        _line(line, doubling),
        _price(results, field, price),
        told(results, *claims),
        footing(results, compared),
    )


def _opening(results, base, compared):
    if not base or not results.trials(base):
        return "The lab's own value was not run, so there is nothing to hold the others against."
    able = by_verdict([c for c in compared if results.accuracy(c.first).mean >= WEAK])
    own = f"{capital(names([base]))}, the lab's own value,"
    if not any(trained(results, base).values()):
        return f"{own} stayed at chance, so that a difference to it says little. {able}"
    verb = "give" if plural([base]) else "gives"
    return f"{own} {verb} {measured(results.accuracy(base))}. {able}"


def _line(line, doubling):
    if line is None:
        return ""
    finding = (
        f"That slope is more than chance (p = {line.p:.2g})."
        if line.p < 0.05
        else "A slope of 0 would fit as well."
    )
    return (
        f"A line through all {number(line.seeds)} trials that trained uses the series as a "
        f"whole, and the scatter round it holds the seeds' noise: {doubling} goes with "
        f"{points(line.mean, 2)} points ({span(line, 2)}). {finding}"
    )


def _price(results, field, price):
    run = sorted(results.run, key=lambda s: getattr(s.config, field))
    if len(run) < 2:
        return ""
    ends = (run[0], run[-1])
    words = {"small": names(ends[:1]), "large": names(ends[1:])}
    first, last = (results.seconds(s) for s in ends)
    clock = (
        f" An epoch takes {first:.1f} s with {words['small']}, {last:.1f} s with {words['large']}."
    )
    return price.format(
        **words,
        parameters=[results.parameters(s) for s in ends],
        gaps=[np.subtract(*last_epoch(results, s)) for s in ends],
    ) + (clock if first + last > 0 else "")


# Lab 2 f


def compound(results, studies):
    """Depth, width and embedding together: which combination is best?

    Args:
        studies: name -> `Results` of a single-dimension study on the same data.
    """
    learnt = successful(results)
    if len(learnt) < 3:
        return paragraphs(idle(results, results.settings), footing(results))
    lead = by_validation(results, learnt)[0]
    compared, pairs = grid_comparisons(results, studies)
    return paragraphs(
        _who_trained(results, learnt),
        _leader(results, learnt, lead, compared),
        _scatter(results, learnt, studies),
        _economy(results, learnt),
        _alone(results, studies, pairs),
        told(
            results,
            "the best compound model is E32 H305 L2",
            "the best by accuracy per parameter is E32 H20 L1",
        ),
        footing(results, compared + pairs),
    )


def _who_trained(results, learnt):
    never = [s for s in results.run if s not in learnt]
    if not never and results.missing:
        return (
            f"{len(results.run)} of {len(results.settings)} combinations were run; all left chance."
        )
    if not never:
        return f"All {number(len(learnt))} combinations left chance."
    failed, run = (Counter(s.config.n_layers for s in group) for group in (never, results.run))
    shares = [
        f"{number(failed[n])} of {number(run[n])} with {counted(n, 'layer')}"
        for n in sorted(failed)
    ]
    return (
        f"Of the {number(len(results.run))} combinations that were run, {number(len(never))} "
        f"stayed at chance: {listing(shares)}. What follows is about the {number(len(learnt))} "
        "others."
    )


def _leader(results, learnt, lead, compared):
    ranked = sorted(learnt, key=lambda s: -results.accuracy(s).mean)
    place = ranked.index(lead) + 1
    on_test = "which is the highest there as well"
    if place > 1:
        on_test = (
            f"number {place} there. The highest is {ranked[0].name} with "
            f"{results.accuracy(ranked[0]).mean:.3f}, but to choose it for that would be to choose "
            "on the test"
        )
    close = sum(not c.clear for c in compared)  # those of one seed too: models, not settings
    return (
        f"The validation reviews choose {lead.name}, with "
        f"{tested(results, lead, 'valid_accuracy'):.3f}. On the test reviews it has "
        f"{measured(results.accuracy(lead))}, {on_test}. Of the {number(len(compared))} others "
        f"that trained, {number(close) if close else 'none'} {'is' if close < 2 else 'are'} not "
        "clearly different from it on these reviews."
    )


def _scatter(results, learnt, studies):
    measured_ones = [results.accuracy(s) for s in learnt]
    accuracies = np.array([a.mean for a in measured_ones])
    spread, basis = seed_noise([results, *studies.values()], measured_ones[0])
    expected = spread / np.sqrt(np.mean([a.seeds for a in measured_ones]))
    found = accuracies.std(ddof=1)
    excess = stats.chi2.sf((len(learnt) - 1) * (found / expected) ** 2, len(learnt) - 1)
    meaning = "so the whole list could come from one setting and many seeds"
    if excess < 0.05:
        meaning = "so there is more in the list than luck with seeds"
    lucky = stats.norm.ppf((len(learnt) - 0.375) / (len(learnt) + 0.25)) * expected  # Blom
    return (
        f"Their test accuracies range from {accuracies.min():.3f} to {accuracies.max():.3f}, "
        f"with a standard deviation of {100 * found:.2f} points. Seeds alone are expected to "
        f"give {100 * expected:.2f} ({basis}), {meaning}. The top of such a list "
        f"flatters: the best of {number(len(learnt))} equal ones looks about {100 * lucky:.1f} "
        "points better than it is."
    )


def _economy(results, learnt):
    size = np.array([results.parameters(s) for s in learnt])
    accuracies = np.array([results.accuracy(s).mean for s in learnt])
    first = learnt[int(np.argmax(accuracies / size))]
    rank = stats.spearmanr(accuracies / size, -size).statistic
    line = trend(results, learnt, results.parameters)
    more = ""
    if line:
        more = (
            f" Accuracy by itself changes by {points(line.mean, 2)} points for each doubling of "
            f"the parameters ({span(line, 2)}), which is {'' if line.p < 0.05 else 'not '}more "
            "than chance."
        )
    return (
        f"By accuracy per parameter {first.name} wins. That ranking is little but a list by size "
        f"(rank correlation {rank:.2f}): the largest model has {size.max() / size.min():.1f} "
        "times the parameters of the smallest, the best one "
        f"{accuracies.max() / accuracies.min():.2f} times the accuracy of the worst.{more}"
    )


def grid_comparisons(results, studies):
    """The grid against its best on validation, and against the studies: corrected together.

    The latter are compound minus single, where the two have equal parameters to a quarter.
    """
    grid, pairs = successful(results), {}
    for study in studies.values():
        for single in successful(study):
            size = study.parameters(single)
            apart = {s: abs(math.log(results.parameters(s) / size)) for s in grid}
            near = min(apart, key=apart.get, default=None)
            if near and apart[near] < math.log(1.25):
                pairs.setdefault(single.config, (near, single))  # studies share the lab's own value
    lead = by_validation(results, grid)[:1]
    others = [(s, best) for best in lead for s in grid if s != best]
    found = compare(results, others + list(pairs.values()))
    return found[: len(others)], found[len(others) :]


def _alone(results, studies, compared):
    smallest = min(map(results.parameters, results.run))
    below = [
        name
        for name, study in studies.items()
        if study.run and max(map(study.parameters, study.run)) < smallest / 1.25
    ]
    text = ""
    if below:
        text = (
            f"The studies of {listing(below)} alone have no partner of equal size, since all their "
            f"models are smaller than the smallest of the grid ({smallest:,} parameters). "
        )
    if not compared:
        return text + "No other single-dimension trial was run that equals a compound one in size."
    ends = sorted(c.difference.mean for c in compared)
    signs = [c.clear * np.sign(c.difference.mean) for c in compared]
    places = {"clearly above 0": 1, "clearly below 0": -1, "not clearly different": 0}
    shares = {where: signs.count(sign) for where, sign in places.items()}
    parts = listing(
        f"{number(k) if k < len(compared) else 'all'} {where}" for where, k in shares.items() if k
    )
    return text + (
        f"At equal parameters, to a quarter, {counted(len(compared), 'pair')} can be formed. "
        f"Compound minus single is {points(ends[0])} to {points(ends[-1])} points: {parts}."
    )


# Lab 2 g


def both_ways(results):
    """Bidirectional models, read at the final states, against one way and against the last step."""
    by_name = {s.name: s for s in results.settings}
    both = [name for name in by_name if name.endswith("both ways")]
    ways = [(by_name[n], by_name[n.replace("both ways", "one way")]) for n in both]
    readouts = [(by_name[n], by_name[f"{n} at the last step"]) for n in both]
    found = compare(results, ways + readouts)
    crossing = [c for c in found if c.first.config.bidirectional != c.second.config.bidirectional]
    return crossing, [c for c in found if c not in crossing]


def bidirectional(results):
    """Does it help to read both ways, and where is the backward direction to be read?"""
    ways, readouts = both_ways(results)
    if not results.run:
        return footing(results)
    return paragraphs(
        idle(results, results.settings),
        by_verdict(ways, "one-way partner"),
        _readouts(readouts),
        told(results, "reading both ways is not better"),
        footing(results, ways + readouts),
    )


def _readouts(compared):
    if not compared:
        return ""
    gaps = sorted(c.difference.mean for c in compared)
    ends = dict.fromkeys(map(points, (gaps[0], gaps[-1])))
    unclear = "none of it clear" if len(compared) > 1 else "which is not clear"
    clear = [
        f"a clear {word} for {names(group)}"
        for word, sign in (("gain", 1), ("loss", -1))
        if (group := [c.first for c in compared if c.clear and sign * c.difference.mean > 0])
    ]
    alone = [c.difference.seeds == 1 for c in compared]
    some = f", {number(sum(alone))} of them with one seed," if any(alone) else ""
    kind = "models, one seed each," if all(alone) else f"settings{some}"
    return (
        "The published solution read the backward direction at the last step. To read it at its "
        f"final state instead changes accuracy by {' to '.join(ends)} points, "
        f"{', '.join(clear) or unclear}. That is in {counted(len(compared), 'pair')} of "
        f"{kind} that differ in nothing else."
    )
