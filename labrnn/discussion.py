"""The discussions: sentences whose numbers, comparisons and verdicts are computed from results.

Each function takes a part's `Results` and returns Markdown. Explanations that nothing here
measures are kept apart from findings and say so.
"""

import numpy as np
from scipy import stats

from labrnn import statistics
from labrnn.comparison import (
    LN2,
    SMALL,
    against,
    by_validation,
    compare,
    epochs_to,
    equal,
    successful,
    tested,
    trained,
    trend,
)

ENOUGH = 0.85  # validation accuracy that counts as trained, for the pace of a training
WEAK = 0.7  # test accuracy under which a model that left chance has hardly trained
WORDS = "no one two three four five six seven eight nine ten eleven twelve".split()


# Words for numbers


def number(n):
    """A count in words up to twelve."""
    return WORDS[n] if n < len(WORDS) else f"{n:,}"


def counted(n, noun):
    return f"{number(n)} {noun}{'s' * (n != 1)}"


def capital(text):
    return text[:1].upper() + text[1:]


def listing(words):
    words = list(words)
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def points(fraction, sign=True):
    """A difference of accuracies in percentage points, without the unit."""
    return f"{100 * fraction:{'+' if sign else ''}.1f}".replace("-", "−")


def span(estimate, sign=True):
    return f"{points(estimate.low, sign)} to {points(estimate.high, sign)}"


def measured(accuracy):
    return f"{accuracy.mean:.3f} ({accuracy.low:.3f} to {accuracy.high:.3f})"


def p_value(p):
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def names(settings):
    return listing(s.name for s in settings)


# What every discussion stands on


def footing(results, compared=()):
    """Seeds, reviews, what is missing, and how far that lets anyone conclude."""
    run = results.run
    if not run:
        return "None of this part's settings was run, so there is nothing to discuss yet."
    seeds = sorted({len(results.trials(s)) for s in run})
    estimate = results.accuracy(run[0])
    text = [
        f"{capital(counted(len(run), 'setting'))}, {_seeds_each(seeds)}, judged on the same "
        f"{estimate.reviews:,} test reviews."
    ]
    if seeds == [1] and len(run) > 1:
        text.append(_one_seed(results))
    elif compared:
        text.append(
            "Intervals hold both sources of chance, the seeds and the sample of reviews; p-values "
            f"are corrected by Holm for the {counted(len(compared), 'comparison')} of this part."
        )
    if results.part.train_reviews:
        text.append(
            f"This is a reduced setting, {results.part.train_reviews:,} training reviews of at "
            f"most {results.part.max_tokens} words, and the published conclusions are about "
            "35,000: what holds here need not hold there."
        )
    if results.missing:
        text.append(f"Not run: {names(results.missing)}.")
    return " ".join(text)


def _seeds_each(seeds):
    if len(seeds) > 1:
        return f"with {number(seeds[0])} to {counted(seeds[-1], 'seed')} each"
    return f"with {counted(seeds[0], 'seed')} each"


def _one_seed(results):
    typical = results.accuracy((by_validation(results, successful(results)) or results.run)[0])
    reach = statistics.reseeding(typical.mean, typical.reviews)
    return (
        "With one seed a test compares two models, not two settings, and an interval holds only "
        "the sampling of reviews. As a rule of thumb (Jordan 2023) two runs of one setting differ "
        f"by up to {points(reach, sign=False)} points at this accuracy, seed alone."
    )


VERDICTS = {True: "confirmed", False: "not confirmed", None: "undecided"}


def claim(published, holds, reason=""):
    """The published conclusion and what these trials make of it; `holds` is None if open."""
    return f"*Published:* {published} *Here:* **{VERDICTS[holds]}**{reason and ', ' + reason}."


def paragraphs(*texts):
    return "\n\n".join(text for text in texts if text)


def explanation(text):
    """Why things may be so, as far as nothing here measures it."""
    return f"*An explanation, not a finding.* {text}"


# Parts of sentences about settings


def by_verdict(compared):
    """Sentences on the comparisons with one reference, those of one verdict together."""
    groups = {}
    for c in compared:
        groups.setdefault(c.verdict, []).append(c)
    reference = compared[0].second.name if compared else ""
    forms = {
        "better": "{} better than {}",
        "worse": "{} worse than {}",
        "within noise": "{} within noise of {}",
        "undecided": "{} of another accuracy than {} as trained here",
    }
    return " ".join(
        capital(forms[verdict].format(f"{names(c.first for c in group)} {_is(group)}", reference))
        + f": {_gaps(group)}" + (_one_model_only(group) if verdict == "undecided" else "") + "."
        for verdict, group in groups.items()
    )


def _is(group):
    return "are" if len(group) > 1 else "is"


def _gaps(group):
    if len(group) > 3:
        low = min(group, key=lambda c: c.difference.mean)
        high = max(group, key=lambda c: c.difference.mean)
        least = min(c.p for c in group)
        return (
            f"between {points(low.difference.mean)} ({low.first.name}) and "
            f"{points(high.difference.mean)} points ({high.first.name}), the smallest "
            f"{p_value(least)}"
        )
    return "; ".join(
        f"{points(c.difference.mean)} points ({span(c.difference)}, {p_value(c.p)})" for c in group
    )


def _one_model_only(group):
    them = "these models" if len(group) > 1 else "the two models"
    return f". That is a difference between {them}; one seed each cannot say whether it is one of the settings"


def idle(results, settings):
    """A sentence on the settings, or seeds of them, that stayed at chance; empty if none did."""
    verdicts = {s: trained(results, s) for s in settings if results.trials(s)}
    never = [s for s, seeds in verdicts.items() if not any(seeds.values())]
    partly = [s for s, seeds in verdicts.items() if any(seeds.values()) and not all(seeds.values())]
    weak = [
        s for s, seeds in verdicts.items()
        if any(seeds.values()) and results.accuracy(s).mean < WEAK and s not in partly
    ]
    text = []
    if never:
        losses = [min(c) for s in never for c in results.curves(s, "train_loss")]
        text.append(
            f"{capital(names(never))} did not train: the training loss never went below "
            f"{min(losses):.3f}, and even odds cost ln 2 = {LN2:.3f}."
        )
    for s in partly:
        good = sum(verdicts[s].values())
        text.append(f"Of {s.name}, {number(good)} of {counted(len(verdicts[s]), 'seed')} trained.")
    if weak:
        text.append(
            f"{capital(names(weak))} hardly trained, with a test accuracy of "
            f"{listing(f'{results.accuracy(s).mean:.3f}' for s in weak)}."
        )
    return " ".join(text)


def pace(results, settings):
    """Which epoch first has a validation accuracy of `ENOUGH`, setting by setting."""
    reached = {s: list(epochs_to(results, s, ENOUGH).values()) for s in settings}
    told = [
        f"{s.name} in {_epochs(e)}" for s, e in reached.items() if e and None not in e
    ]
    never = [s for s, e in reached.items() if e and set(e) == {None}]
    some = [s for s, e in reached.items() if None in e and set(e) != {None}]
    text = [f"{ENOUGH} on the validation reviews is reached by {listing(told)}"] if told else []
    if some:
        text.append(f"by {names(some)} with some seeds only")
    if never:
        text.append(
            f"never by {names(never)}" if text
            else f"{capital(names(never))} never reach {ENOUGH} on the validation reviews"
        )
    return "; ".join(text) + "." if text else ""


def _epochs(reached):
    low, high = min(reached), max(reached)
    return f"epoch {low}" if low == high else f"epochs {low} to {high}"


def past_best(results, settings):
    """On the settings whose last epoch is worse than their best: the price of going on."""
    worst, gap = None, 0.0
    for s in settings:
        rise = np.mean([c[-1] - min(c) for c in results.curves(s, "valid_loss")])
        if rise > gap:
            worst, gap = s, float(rise)
    if worst is None or gap < 0.01:
        return ""
    training = np.mean([c[-1] for c in results.curves(worst, "train_accuracy")])
    validation = np.mean([c[-1] for c in results.curves(worst, "valid_accuracy")])
    return (
        f"After its best epoch {worst.name} learns its training reviews by heart: in the last one it "
        f"is right on {100 * training:.0f} % of them and on {100 * validation:.0f} % of the validation "
        f"reviews, whose loss has risen by {gap:.2f}. That is why the best epoch is tested and not "
        "the last."
    )


# The parts


def sgd(results):
    """Lab 1 f and h: does the loss fall steadily?"""
    setting = results.settings[0]
    if setting in results.missing:
        return footing(results)
    cell = setting.config.cell.upper()
    learnt = trained(results, setting)
    losses = results.curves(setting, "train_loss")
    text = [_fall(losses, learnt), _coin(results, setting, learnt, cell)]
    if not all(learnt.values()):
        text.append(explanation(_why_sgd(results, setting)))
    holds = None if any(learnt.values()) and not all(learnt.values()) else not any(learnt.values())
    text.append(
        claim("with SGD at 0.01 nothing is learnt in five epochs, whichever the cell.", holds,
              f"for the {cell} in {counted(len(learnt), 'training')}")
    )
    return paragraphs(*text, footing(results))


def _fall(losses, learnt):
    falls = [sum(b < a for a, b in zip(c, c[1:], strict=False)) for c in losses]
    steps = len(losses[0]) - 1
    first, last = np.mean([c[0] for c in losses]), np.mean([c[-1] for c in losses])
    width = max(max(c) - min(c) for c in losses)
    mean_falls = f"{np.mean(falls):.0f}" if len(losses) == 1 else f"on average {np.mean(falls):.1f}"
    if not any(learnt.values()):
        return (
            f"The loss does not fall in any useful sense. It begins at {first:.4f} and ends at "
            f"{last:.4f}, and ln 2 = {LN2:.4f} is what a model pays that gives every review even "
            f"odds. From epoch to epoch it went down in {mean_falls} of {counted(steps, 'step')}, "
            f"but all its values lie within {width:.4f} of each other."
        )
    steady = all(f == steps for f in falls)
    opening = "Yes, it falls in every epoch" if steady else (
        f"It falls, though not steadily: in {mean_falls} of {counted(steps, 'step')}"
    )
    return f"{opening}, from {first:.3f} to {last:.3f}; even odds would cost ln 2 = {LN2:.3f}."


def _coin(results, setting, learnt, cell):
    accuracy = results.accuracy(setting)
    if any(learnt.values()):
        good = "" if all(learnt.values()) else (
            f" {capital(number(sum(learnt.values())))} of {number(len(learnt))} seeds left chance."
        )
        return f"On the test reviews the {cell} is right with {measured(accuracy)}.{good}"
    return (
        f"The test reviews agree: {measured(accuracy)}, an interval that holds one half. What the "
        f"{cell} has learnt in {counted(setting.config.epochs, 'epoch')} a coin knows too."
    )


def _why_sgd(results, setting):
    trial = next(iter(results.trials(setting).values()))
    size = np.sqrt(2 / (trial.vocabulary_size + setting.config.embedding_dim))
    gates = {
        "lstm": "The biases start at 0, so the forget gate stands near one half: what a word leaves "
        "in the cell is halved at each step, and of the first words of a long review nothing "
        "arrives at the end, forwards or backwards",
        "gru": "The biases start at 0, so the update gate stands near one half: each step keeps "
        "half of the old state, and of the first words of a long review nothing arrives at the end",
    }
    return (
        f"A word enters as {counted(setting.config.embedding_dim, 'number')}, drawn by Xavier's "
        f"rule with a standard deviation of {size:.4f}, because that rule divides by the size of the "
        f"vocabulary. {gates[setting.config.cell]}. The gradient is a product of these small "
        "things; SGD multiplies it by a fixed rate, where Adam, RMSprop and Adagrad divide it "
        "by its own size first. So SGD creeps over the plateau on which every start lies."
    )


def optimizers(results):
    """Lab 2 a, and the first half of b: which optimiser is best, and why?"""
    learnt = successful(results)
    if not learnt:
        return paragraphs(footing(results), idle(results, results.settings))
    lead = by_validation(results, learnt)[0]
    compared = optimizer_comparisons(results)
    mine = [c for c in compared if c.second == lead and c.first in learnt]
    return paragraphs(
        f"The validation reviews put {lead.name} first, with {tested(results, lead, 'valid_accuracy'):.3f}"
        f" in the epoch that is tested; on the test reviews it has {measured(results.accuracy(lead))}. "
        + by_verdict(mine) + " " + idle(results, results.settings),
        _which(mine, lead),
        pace(results, results.run) + " " + past_best(results, learnt) + _unfinished(results, learnt),
        explanation(_why_optimizers(results)),
        claim("RMSprop is best, Adam close to it, Adagrad slow.", _rmsprop_best(results, compared)),
        footing(results, compared),
    )


def optimizer_comparisons(results):
    """The optimisers against the one that is best on validation; in part b the cells as well."""
    learnt = successful(results)
    lead = by_validation(results, learnt or None)[:1]
    pairs = [(s, lead[0]) for s in results.settings if s not in lead] if lead else []
    if hasattr(results.part, "rivals"):
        pairs += list(zip(results.settings, results.part.rivals(), strict=True))
    return compare(results, pairs)


def _which(compared, lead):
    close = [c.first for c in compared if not c.clear]
    if any(c.verdict == "undecided" for c in compared) and not close:
        return f"As trained here {lead.name} wins; more seeds have to say whether it would again."
    if close:
        return (
            f"So which is best? Not decided between {names([lead, *close])}; the rest is behind."
            if len(close) < len(compared)
            else f"So which is best? These trials do not tell {names([lead, *close])} apart."
        )
    return f"So {lead.name} is the best of those that were run." if compared else ""


def _unfinished(results, learnt):
    late = [
        s for s in learnt
        if all(min(c) == c[-1] for c in results.curves(s, "valid_loss"))
    ]
    if not late:
        return ""
    verb = "are" if len(late) > 1 else "is"
    return f" {capital(names(late))} {verb} still getting better in the last epoch: too few, not too many."


def _why_optimizers(results):
    return (
        "All four start on the plateau at ln 2, where gradients are tiny. Those that divide by the "
        "gradient's size take steps of the order of the learning rate from the beginning. "
        "RMSprop's running mean of squares starts at 0 and forgets slowly, so its first steps are "
        "up to ten times larger, and its momentum of 0.9 adds up to ten times more: it "
        "leaves quickly, and overshoots as easily. Adam corrects the first and averages the second. "
        "Adagrad sums all squares it has seen and so slows down as it goes. These are different "
        "effective step sizes at one learning rate, and a comparison at one rate measures them along."
    )


def _rmsprop_best(results, compared):
    best = next((s for s in results.run if s.config.optim == "rmsprop"), None)
    if best is None or len(results.run) < 3:
        return None
    rivals = [s for s in successful(results) if s != best]
    found = compare(results, [(best, s) for s in rivals])
    if any(c.verdict == "worse" for c in found):
        return False
    return True if found and all(c.verdict == "better" for c in found) else None


def cells(results):
    """Lab 2 b: the GRU against the LSTM, in performance and in efficiency."""
    pairs = [
        (c, c.first, c.second) for c in optimizer_comparisons(results)
        if c.second.config.cell != c.first.config.cell
    ]
    if not pairs:
        return "The two cells were not both run, so they cannot be compared here."
    return paragraphs(
        _cells_accuracy(results, pairs), _cells_cost(results, pairs),
        explanation(
            "Where the GRU is ahead in the first epochs, its shape offers a reason: old and new "
            "state are mixed with weights that sum to 1, so the gradient has a path that is scaled "
            "by the update gate alone, and there is one gate less to open. In the LSTM what "
            "is read out passes an output gate as well, which also starts half closed."
        ),
        _cells_claim(results, pairs),
    )


def _cells_accuracy(results, pairs):
    groups = {}
    for c, gru, _ in pairs:
        groups.setdefault(c.verdict, []).append((gru.name, c))
    forms = {
        "better": "With {} the GRU is better",
        "worse": "With {} the GRU is worse",
        "within noise": "With {} the cells are within noise of each other",
        "undecided": "With {} the two models differ, which one seed each does not make a "
        "difference of the cells",
    }
    return " ".join(
        forms[verdict].format(listing(name for name, _ in group))
        + f": {'; '.join(f'{points(c.difference.mean)} points ({span(c.difference)})' for _, c in group)}."
        for verdict, group in groups.items()
    )


def _cells_cost(results, pairs):
    _, gru, lstm = pairs[0]
    few, many = results.parameters(gru), results.parameters(lstm)
    table = next(iter(results.trials(gru).values())).vocabulary_size * gru.config.embedding_dim
    ratio = np.median([results.seconds(g) / results.seconds(lstm) for _, g, lstm in pairs])
    first = [
        (name.name, _first(results, name), _first(results, other)) for _, name, other in pairs
    ]
    told = [f"{name} {_or_never(g)} against {_or_never(other)}" for name, g, other in first if g or other]
    return (
        f"The GRU has {few:,} parameters and the LSTM {many:,}. The embedding takes {table:,} "
        f"of either; what is left stands in the ratio {(few - table) / (many - table):.2f}, three gates' "
        f"blocks against four. An epoch takes the GRU {ratio:.2f} times as long (median over "
        "the optimisers, each the median of its epochs). Read that with care: the clock runs on "
        "a machine that may have had other work, and on a CPU it compares our two kernels more "
        "than the two cells. "
        + (f"Epochs until {ENOUGH} on the validation reviews, GRU against LSTM: {', '.join(told)}."
           if told else f"Neither cell reaches {ENOUGH} on the validation reviews.")
    )


def _first(results, setting):
    reached = [e for e in epochs_to(results, setting, ENOUGH).values()]
    return float(np.mean(reached)) if None not in reached else None


def _or_never(epoch):
    return f"{epoch:g}" if epoch else "never"


def _cells_claim(results, pairs):
    gaps = []
    for _, gru, lstm in pairs:
        g, other = _first(results, gru), _first(results, lstm)
        if g or other:
            gaps.append((other or gru.config.epochs + 1) - (g or gru.config.epochs + 1))
    holds = None
    if gaps and (min(gaps) >= 0) != (max(gaps) <= 0):
        holds = max(gaps) > 0
    return claim("GRUs train faster than LSTMs, with fewer parameters.", holds,
                 "counted in epochs; the parameters follow from the formula")


def depth(results):
    """Lab 2 c: deeper."""
    return _dimension(
        results, "n_layers", 1,
        why="The published start makes the stacked recurrent matrix of all gates orthogonal, so "
        "that each gate's own block shrinks what passes through it, and a forget gate at one half "
        "forgets fast. Each layer more multiplies these factors again; a deep stack therefore has "
        "further to go before its output depends on the input at all, and with a fixed number "
        "of epochs some never get there. `beyond_defects` tries the better start.",
        published="two layers equal one, three hardly train, four do not.", holds=_depth_holds,
    )


def width(results):
    """Lab 2 d: wider."""
    return _dimension(
        results, "hidden_dim", 100,
        why="A word is a single number here, so the state is fed through a keyhole: ten units can "
        "hold what comes through it, and more have little to add. A wide layer has larger sums to "
        "its gates and, at one learning rate, larger steps of its output: it can be thrown off "
        "more easily.",
        published="widths of 10 to 285 are about equal, 319 fails.", holds=_width_holds,
    )


def embedding(results):
    """Lab 2 e: larger embeddings."""
    return _dimension(
        results, "embedding_dim", 1,
        why="For a verdict of good or bad one number a word, its polarity, goes a long way. "
        "A larger embedding has room for more, and as much room to store the training "
        "reviews: nearly all parameters are in the table, and rare words have few examples.",
        published="the size of the embedding hardly matters.", holds=_embedding_holds,
    )


def _dimension(results, field, reference, why, published, holds):
    settings = {getattr(s.config, field): s for s in results.settings}
    base = settings.get(reference)
    compared = against(results, base) if base else []
    learnt = successful(results)
    if not results.run:
        return footing(results)
    return paragraphs(
        _opening(results, base, compared) + " " + idle(results, results.settings),
        _trend(results, field, learnt),
        _price(results, field) + " " + past_best(results, learnt),
        explanation(why),
        claim(published, *holds(results, settings, compared)),
        footing(results, compared),
    )


def _opening(results, base, compared):
    if not base or not results.trials(base):
        return "The lab's own value was not run, so there is nothing to compare the others with."
    if not any(trained(results, base).values()):
        return (
            f"{capital(base.name)}, the lab's own value, did not train here, so a difference to it says "
            f"little. {by_verdict([c for c in compared if any(trained(results, c.first).values())])}"
        )
    able = [c for c in compared if any(trained(results, c.first).values())]
    start = f"{capital(base.name)}, the lab's own value, gives {measured(results.accuracy(base))}. "
    return start + by_verdict(able) + _room(able)


def _room(compared):
    """What 'within noise' leaves open."""
    quiet = [c.difference for c in compared if not c.clear]
    if not quiet:
        return ""
    reach = max(max(-d.low, d.high) for d in quiet)
    if reach < SMALL:
        return " These intervals leave no room for a whole point: equal, for any use."
    return f" Within noise is not equal: the intervals leave room for {points(reach, sign=False)} points."


def _trend(results, field, learnt):
    line = trend(results, learnt, lambda s: getattr(s.config, field))
    if line is None:
        return ""
    what = {"n_layers": "depth", "hidden_dim": "width", "embedding_dim": "embedding"}[field]
    slope = f"{points(line.mean)[:1]}{abs(100 * line.mean):.2f}"
    ends = f"{100 * line.low:+.2f} to {100 * line.high:+.2f}".replace("-", "−")
    finding = (
        f"The slope is clear (p = {line.p:.2g})" if line.p < 0.05 else "A slope of 0 fits as well"
    )
    return (
        f"A line through all {number(line.seeds)} trials that trained uses the sweep as a whole: each "
        f"doubling of the {what} goes with {slope} points (95 % interval {ends}). {finding}."
    )


def _price(results, field):
    run = sorted(results.run, key=lambda s: getattr(s.config, field))
    small, large = run[0], run[-1]
    return (
        f"The price: from {small.name} to {large.name} the parameters go from "
        f"{results.parameters(small):,} to {results.parameters(large):,}, an epoch from "
        f"{results.seconds(small):.1f} to {results.seconds(large):.1f} s."
    )


def _depth_holds(results, settings, compared):
    verdicts = {n: trained(results, s) for n, s in settings.items() if results.trials(s)}
    if not {1, 2, 3, 4} <= set(verdicts):
        return None, "not all four depths were run"
    two = [c for c in compared if c.first == settings[2]]
    same = equal(two)
    fails = {n: results.accuracy(settings[n]).mean < WEAK for n in (3, 4)}
    facts = [
        f"two layers {'equal one' if same else 'differ from one' if same is False else 'may equal one'}",
        *(f"{number(n)} {'fail' if failed else 'train'}" for n, failed in fails.items()),
    ]
    holds = same if all(fails.values()) else False
    return holds, listing(facts)


def _width_holds(results, settings, compared):
    if 319 not in settings or not results.trials(settings[319]):
        return None, "319 units were not run"
    fails = results.accuracy(settings[319]).mean < WEAK
    rest = equal([c for c in compared if c.first != settings[319]])
    if not fails:
        return False, f"319 units reach {results.accuracy(settings[319]).mean:.3f}"
    return rest, "319 units fail; for the others see the intervals above"


def _embedding_holds(results, settings, compared):
    line = trend(results, results.run, lambda s: s.config.embedding_dim)
    if line is None:
        return None, "too few trials for a line"
    if max(-line.low, line.high) < SMALL / 2:
        return True, "a doubling is worth less than half a point either way"
    return (False, "the slope is clear") if line.p < 0.05 else (None, "the slope's interval is wide")


def compound(results, studies):
    """Lab 2 f: depth, width and embedding together.

    Args:
        studies: name -> `Results` of a single-dimension study on the same data.
    """
    learnt = successful(results)
    if len(learnt) < 3:
        return paragraphs(idle(results, results.run), footing(results))
    lead = by_validation(results, learnt)[0]
    compared = against(results, lead, learnt)
    return paragraphs(
        _who_trained(results, learnt),
        _leader(results, learnt, lead, compared),
        _spread(results, learnt),
        _economy(results, learnt),
        _alone(results, studies),
        _compound_claim(results, learnt, lead, compared),
        footing(results, compared),
    )


def _who_trained(results, learnt):
    idle_ones = [s for s in results.run if s not in learnt]
    if not idle_ones:
        return f"All {number(len(learnt))} combinations that were run left chance."
    depths = sorted({s.config.n_layers for s in results.run})
    shares = [
        f"{sum(s.config.n_layers == n for s in idle_ones)} of "
        f"{sum(s.config.n_layers == n for s in results.run)} with {counted(n, 'layer')}"
        for n in depths if any(s.config.n_layers == n for s in idle_ones)
    ]
    return (
        f"Of {number(len(results.run))} combinations that were run {number(len(learnt))} left chance. "
        f"{capital(number(len(idle_ones)))} did not: {listing(shares)}. What follows is about those "
        "that trained."
    )


def _leader(results, learnt, lead, compared):
    accuracies = {s: results.accuracy(s).mean for s in learnt}
    place = sorted(accuracies.values(), reverse=True).index(accuracies[lead]) + 1
    top = max(accuracies, key=accuracies.get)
    close = sum(not c.clear for c in compared)
    on_test = (
        "and it is first on the test reviews too" if top == lead else
        f"which makes it number {place} there; the first is {top.name} with {accuracies[top]:.3f}, but "
        "to choose it for that would be to choose on the test"
    )
    return (
        f"The validation reviews choose {lead.name}, with {tested(results, lead, 'valid_accuracy'):.3f}. On "
        f"the test reviews it has {measured(results.accuracy(lead))}, {on_test}. "
        f"Of the {number(len(compared))} others {number(close)} cannot be told from it."
    )


def _spread(results, learnt):
    accuracies = np.array([results.accuracy(s).mean for s in learnt])
    first = results.accuracy(learnt[0])
    expected = np.sqrt((1 - np.median(accuracies)) / (2 * first.reviews * first.seeds))
    found = accuracies.std(ddof=1)
    excess = stats.chi2.sf((len(learnt) - 1) * (found / expected) ** 2, len(learnt) - 1)
    meaning = (
        "so the settings do differ, some of them" if excess < 0.05 else "no more than seeds alone "
        "would give if all settings were the same"
    )
    return (
        f"Their test accuracies go from {accuracies.min():.3f} to {accuracies.max():.3f}, with a standard "
        f"deviation of {points(found, False)} points. Another seed is expected to give "
        f"{100 * expected:.2f} (the rule of thumb below), {meaning}. The top of such a list is in any "
        f"case flattered: the best of {number(len(learnt))} equal ones would look about "
        f"{points(_best_of(len(learnt)) * expected, False)} points better than it is."
    )


def _best_of(n):
    """The expected largest of n standard normal numbers (Blom's approximation)."""
    return stats.norm.ppf((n - 0.375) / (n + 0.25))


def _economy(results, learnt):
    size = np.array([results.parameters(s) for s in learnt])
    accuracies = np.array([results.accuracy(s).mean for s in learnt])
    order = np.argsort(-accuracies / size)
    rank = stats.spearmanr(accuracies / size, -size).statistic
    line = trend(results, learnt, results.parameters)
    slope = ""
    if line:
        clear = "a clear slope" if line.p < 0.05 else "a slope that may as well be 0"
        slope = (
            f" In accuracy itself a doubling of the parameters goes with {100 * line.mean:+.2f} points "
            f"({100 * line.low:+.2f} to {100 * line.high:+.2f}), {clear}.".replace("-", "−")
        )
    return (
        f"By accuracy per parameter {learnt[order[0]].name} wins. That ranking is close to a list by "
        f"size (rank correlation {rank:.2f}): parameters differ by a factor of "
        f"{size.max() / size.min():.1f}, accuracies by one of {accuracies.max() / accuracies.min():.2f}.{slope}"
    )


def partners(results, studies):
    """Compound trials compared with the single-dimension trials of nearly as many parameters.

    Returns:
        `Comparison`s, compound minus single, for the studies' settings that have a partner within
        a quarter of their parameters.
    """
    grid = successful(results)
    pairs = []
    for study in studies.values():
        for single in successful(study):
            apart = {s: abs(math.log(results.parameters(s) / study.parameters(single))) for s in grid}
            near = min(apart, key=apart.get, default=None)
            if near and apart[near] < math.log(1.25):
                pairs.append((near, single))
    return compare(results, pairs)


def _alone(results, studies):
    compared = partners(results, studies)
    smallest = min((results.parameters(s) for s in results.run), default=0)
    below = [name for name, s in studies.items()
             if s.run and max(map(s.parameters, s.run)) < 0.8 * smallest]
    text = [
        f"The studies of {listing(below)} alone have no partner of equal size: all their models are "
        f"smaller than the smallest of the grid ({smallest:,} parameters)."
    ] if below else []
    if not compared:
        return " ".join([*text, "No single-dimension trial was run that a compound one equals in size."])
    better = [c for c in compared if c.clear and c.difference.mean > 0]
    worse = [c for c in compared if c.clear and c.difference.mean < 0]
    low, high = (f(c.difference.mean for c in compared) for f in (min, max))
    text.append(
        f"At equal parameters, to within a quarter, {counted(len(compared), 'pair')} can be formed; compound "
        f"minus single lies between {points(low)} and {points(high)} points, clearly above 0 in "
        f"{number(len(better))} and clearly below in {number(len(worse))}."
    )
    return " ".join(text)


def _compound_claim(results, learnt, lead, compared):
    best = next((s for s in learnt if s.name == "E32 H305 L2"), None)
    text = "the best compound model is E32 H305 L2 (0.880), by accuracy per parameter E32 H20 L1."
    if best is None:
        return claim(text, None, "E32 H305 L2 is not in the grid that was run")
    if best == lead:
        held = all(c.verdict == "worse" for c in compared)
        return claim(text, held or None, "first on validation, though others may equal it" * (not held))
    mine = compare(results, [(best, lead)])[0]
    holds = False if mine.verdict == "worse" else None
    return claim(text, holds, f"it is {points(mine.difference.mean)} points from {lead.name}")


def bidirectional(results):
    """Lab 2 g: does reading both ways help?"""
    ways, readouts = both_ways(results), both_readouts(results)
    if not ways:
        return footing(results)
    return paragraphs(
        idle(results, results.settings), _ways(ways), _readouts(readouts),
        explanation(
            "At the last step the backward direction has seen one word, the last, and knows "
            "nothing of the rest; half of what the linear layer sees is then nearly empty. Its final "
            "state stands at the first word and has read everything. For a verdict on a whole review "
            "both directions read the same words, so a second one adds capacity rather than "
            "information; it adds most where the end of a review says least."
        ),
        _ways_claim(ways),
        footing(results, ways + readouts),
    )


def _pairs_of_ways(results):
    return [(results[a], results[b]) for a, b in [
        ("LSTM, 2 layers, both ways", "LSTM, 2 layers, one way"),
        ("LSTM, 1 layer, both ways", "LSTM, 1 layer, one way"),
        ("small LSTM, both ways", "small LSTM, one way"),
        ("GRU, 2 layers, both ways", "GRU, 2 layers, one way"),
    ]]


def _pairs_of_readouts(results):
    return [(a, results[a.name + ", last step"]) for a, _ in _pairs_of_ways(results)]


def both_ways(results):
    """Bidirectional (final states) against unidirectional models."""
    return _family(results)[0]


def both_readouts(results):
    """Bidirectional models read at the final states against the last step."""
    return _family(results)[1]


def _family(results):
    ways, readouts = _pairs_of_ways(results), _pairs_of_readouts(results)
    found = compare(results, ways + readouts)
    firsts = {b for _, b in ways}
    return [c for c in found if c.second in firsts], [c for c in found if c.second not in firsts]


def _ways(ways):
    sure = [c for c in ways if c.verdict in ("better", "worse")]
    open_ones = [c for c in ways if c.verdict == "undecided"]
    quiet = [c for c in ways if c.verdict == "within noise"]
    text = [f"{capital(c.first.name)} is {c.verdict} than one way: {_gaps([c])}." for c in sure]
    if open_ones:
        text.append(
            f"{capital(names(c.first for c in open_ones))}: another accuracy than the one-way "
            f"partner, {_gaps(open_ones)}{_one_model_only(open_ones)}."
        )
    if quiet:
        text.append(
            f"For {names(c.first for c in quiet)} the gain is within noise: {_gaps(quiet)}." + _room(quiet)
        )
    return " ".join(text)


def _readouts(readouts):
    if not readouts:
        return ""
    gaps = [c.difference.mean for c in readouts]
    clear = [c for c in readouts if c.clear]
    size = f"between {points(min(gaps))} and {points(max(gaps))} points"
    kinds = "settings" if readouts[0].difference.seeds > 1 else "models, one seed each,"
    return (
        f"Where the backward direction is read matters in {number(len(clear))} of "
        f"{counted(len(readouts), 'pair')}: its final state gives {size} more than its output at the last "
        f"step, which the published solution took. These are comparisons of {kinds} that differ in "
        "nothing else."
    )


def _ways_claim(ways):
    text = "reading both ways is not better."
    if any(c.verdict == "better" for c in ways):
        return claim(text, False, f"better are {names(c.first for c in ways if c.verdict == 'better')}")
    if ways and all(c.difference.high < SMALL for c in ways):
        return claim(text, True, "no interval leaves room for a gain of a whole point")
    return claim(text, None, "the intervals leave room for a gain")
