"""Numbers and lists as words, and the sentences that several discussions share."""

import re
from collections import defaultdict

import numpy as np

from labrnn.results import statistics
from labrnn.results.comparison import LN2, SMALL, WEAK, by_validation, seed_spread, trained

WORDS = ["no", "one", "two", "three", "four", "five", "six"]
WORDS += ["seven", "eight", "nine", "ten", "eleven", "twelve"]
NOT_CLEAR = "Not clear, once corrected for the number of comparisons: {}."
WIDE = 0.1  # an interval that reaches further from 0 says nothing, as where some seeds failed
FAR = 15  # points of training accuracy: more than an optimiser or a dimension usually costs
# No character of this set may reach a renderer: controls, lone surrogates, direction overrides.
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
APART = 2.77  # two draws of a normal distribution differ by less standard deviations, 95 %


def quote(text):
    """Text from outside, such as a review, as Markdown that prints it literally on one line.

    Dollar signs and backslashes stand in elements of their own: MathJax, which Jupyter runs
    over the finished page, looks for pairs of them within one element only.
    """
    text = " ".join(UNPRINTABLE.sub("\ufffd", str(text)).split())
    text = re.sub(r"[!-/:-@\[-`{-~]", lambda hit: f"&#{ord(hit[0])};", text)
    return re.sub(r"&#(36|92);", r"<span>\g<0></span>", text)


def number(n):
    """A count in words up to twelve, in digits above."""
    return WORDS[n] if n < len(WORDS) else f"{n:,}"


def counted(n, noun):
    return f"{number(n)} {noun}{'s' * (n != 1)}"


def capital(text):
    return text[:1].upper() + text[1:]


def listing(words):
    """`a, b and c`."""
    words = list(words)
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def names(settings):
    """Settings in running text; `2 layers` and `4 layers` become `two and four layers`."""
    known = [s.name for s in settings]
    sizes = [re.fullmatch(r"(\d+) (\w+?)s?", name) for name in known]
    if known and all(sizes):
        values = [int(size[1]) for size in sizes]
        words = map(number, values) if max(values) < len(WORDS) else map(str, values)
        return f"{listing(words)} {sizes[0][2]}{'s' * (values != [1])}"
    return listing(f"the {name}" if name[:1].islower() else name for name in known)


def plural(settings):
    """Whether `names` of these takes a verb in the plural."""
    return len(settings) > 1 or bool(re.match(r"\d+ \w+s$", settings[0].name))


def were(settings):
    """`names` and the verb: Adam was, two layers were."""
    return f"{names(settings)} {'were' if plural(settings) else 'was'}"


def part_of(n, total, noun):
    """`two of three trainings`; of a single one `the one training` or `no training`."""
    if total == 1:
        return f"the one {noun}" if n else f"no {noun}"
    return f"{number(n) if n else 'none'} of {counted(total, noun)}"


def points(fraction, digits=1):
    """A difference of accuracies in percentage points, with its sign and without the unit."""
    return f"{100 * fraction:+.{digits}f}".replace("-", "−")


def span(estimate, digits=1):
    return f"{points(estimate.low, digits)} to {points(estimate.high, digits)}"


def distance(estimate, p):
    """A difference without its sign, interval and p-value in brackets."""
    low, high = sorted(
        100 * bound * (-1 if estimate.mean < 0 else 1) for bound in (estimate.low, estimate.high)
    )
    bounds = f"{low:.1f} to {high:.1f}".replace("-", "−")
    return f"{abs(100 * estimate.mean):.1f} points ({bounds}, {p_value(p)})"


def gap(comparison):
    """A difference with its interval and corrected p-value."""
    d = comparison.difference
    return f"{points(d.mean)} points ({span(d)}, {p_value(comparison.p)})"


def measured(accuracy):
    return f"{accuracy.mean:.3f} (95 % interval {accuracy.low:.3f} to {accuracy.high:.3f})"


def p_value(p):
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def paragraphs(*texts):
    return "\n\n".join(" ".join(text.split()) for text in texts if text.strip())


def explanation(text):
    """Why things may be so, as far as nothing in the part measures it."""
    return f"*An explanation, not a finding.* {text}"


# What several parts say


def by_verdict(compared, partner=""):
    """Sentences on comparisons, those of one verdict together.

    Args:
        partner: what each is compared with, if not all with the same setting.
    """
    groups = defaultdict(list)
    for c in compared:
        groups[c.verdict, c.clear and c.difference.mean > 0].append(c)
    text = [_same_verdict(group, partner) for group in groups.values()]
    open_ones = [c for c in compared if c.verdict == "undecided"]
    if open_ones:
        text.append("One seed on either side tells models apart and leaves the settings undecided.")
    return " ".join(text)


def _same_verdict(group, partner):
    settings, verdict = [c.first for c in group], group[0].verdict
    reference = names([group[0].second])
    if partner:
        reference = f"their {partner}s" if len(group) > 1 else f"its {partner}"
    who, verb = capital(names(settings)), "are" if plural(settings) else "is"
    if verdict == "within noise":
        gaps = _range(group) or "; ".join(
            f"{points(c.difference.mean)} points ({span(c.difference)}, p = {c.p:.2f})"
            for c in group
        )
        return f"{who} {verb} within noise of {reference}: {gaps}. {room(group)}"
    gaps = _range(group) or listing(distance(c.difference, c.p) for c in group)
    if verdict == "not clear":
        differ = "differ" if plural(settings) else "differs"
        signed = _range(group) or listing(map(gap, group))
        return (
            f"{who} {differ} from {reference} by {signed}; corrected for the number of comparisons "
            "that is not clear."
        )
    if verdict == "undecided":
        where = "above" if group[0].difference.mean > 0 else "below"
        ends = "end" if plural(settings) else "ends"
        return f"With this seed {names(settings)} {ends} {where} {reference}, by {gaps}."
    return f"{who} {verb} {verdict} than {reference}, by {gaps}."


def _range(group):
    """The extremes of more than three differences; empty for fewer."""
    if len(group) < 4:
        return ""
    by_size = sorted(group, key=lambda c: c.difference.mean)
    ends = [(c.difference.mean, names([c.first])) for c in (by_size[0], by_size[-1])]
    if group[0].clear:
        ends = sorted((abs(gap), name) for gap, name in ends)
        return "{:.1f} ({}) to {:.1f} points ({})".format(
            *(part for gap, name in ends for part in (100 * gap, name))
        )
    return f"{points(ends[0][0])} ({ends[0][1]}) to {points(ends[1][0])} points ({ends[1][1]})"


def idle(results, settings):
    """Sentences on the settings, or seeds of them, that stayed at chance or near it."""
    verdicts = {s: list(trained(results, s).values()) for s in settings if results.trials(s)}
    never = [s for s, seeds in verdicts.items() if not any(seeds)]
    partly = [s for s, seeds in verdicts.items() if any(seeds) and not all(seeds)]
    weak = [s for s, seeds in verdicts.items() if all(seeds) and results.accuracy(s).mean < WEAK]
    learnt = {s: last_epoch(results, s)[0] for s in weak}
    text = []
    if never:
        lowest = min(min(c) for s in never for c in results.curves(s, "train_loss"))
        text.append(
            f"{capital(names(never))} did not train: the training loss never went below "
            f"{lowest:.4f}, and even odds cost ln 2 = {LN2:.4f}."
        )
    text += [
        f"Of {names([s])}, {number(sum(verdicts[s]))} of {counted(len(verdicts[s]), 'seed')} "
        "left chance."
        for s in partly
    ]
    text += _behind(results, [s for s, seeds in verdicts.items() if all(seeds)])
    for setting, training in learnt.items():
        tested = f"{results.accuracy(setting).mean:.3f}"
        text.append(
            f"{capital(names([setting]))} hardly trained, with a test accuracy of {tested}."
            if training < 100 * WEAK
            else f"{capital(names([setting]))} had {training:.0f} % of the training reviews right in "
            f"the last epoch, but a test accuracy of {tested}: little of that holds for others."
        )
    return " ".join(text)


def _behind(results, settings):
    """Those whose models were far from what others reached on the training reviews themselves."""
    reached = {s: last_epoch(results, s)[0] for s in settings if results.accuracy(s).mean >= WEAK}
    usual = np.median(list(reached.values())) if reached else 0
    far = {s: f"{training:.0f}" for s, training in reached.items() if training < usual - FAR}
    if not far:
        return []
    which = "the training" if len(far) == 1 else "these trainings"
    return [
        f"{capital(names(far))} had {listing(far.values())} % of the training reviews right in the "
        f"last epoch, where {usual:.0f} % are usual here: {which} went badly, whatever the setting "
        "is worth."
    ]


def last_epoch(results, setting):
    """Accuracy on the training and on the validation reviews at the end, per cent over seeds."""
    return [
        100 * np.mean([c[-1] for c in results.curves(setting, f"{kind}_accuracy")])
        for kind in ("train", "valid")
    ]


def past_best(results, settings):
    """A sentence on the setting that loses most by going on after its best epoch."""

    def rise(setting):
        return float(np.mean([c[-1] - min(c) for c in results.curves(setting, "valid_loss")]))

    worst = max(settings, key=rise, default=None)
    if worst is None or rise(worst) < 0.02:
        return ""
    training, validation = last_epoch(results, worst)
    return (
        f"Going on has its price: in its last epoch {names([worst])} is right on {training:.0f} % "
        f"of the training and {validation:.0f} % of the validation reviews, and the loss on the "
        f"latter has risen by {rise(worst):.2f} since its best. Hence the best epoch is tested and "
        "not the last."
    )


def seed_noise(several, accuracy):
    """How much seeds alone move a test accuracy: standard deviation, and on what that rests.

    Args:
        several: `Results`; the trials of settings with several seeds are the measure.
        accuracy: an `Estimate`, for the rule of thumb where there are too few of them.
    """
    spread = seed_spread(several, several[0].checkpoint)
    if spread > 0:
        return spread, "measured where several seeds were run"
    rule = "at least, by the rule of thumb of [Jordan 2023](https://arxiv.org/abs/2304.01910)"
    return statistics.reseeding(accuracy.mean, accuracy.reviews), rule


def room(compared):
    """What `within noise` leaves open."""
    quiet = [c.difference for c in compared if c.verdict == "within noise"]
    if not quiet or min(d.seeds for d in quiet) == 1:
        return ""
    reach = max(max(-d.low, d.high) for d in quiet)
    if reach < SMALL:
        return "What is within noise leaves no room for a whole point: equal, for any use."
    if reach > WIDE:
        return f"One interval reaches {100 * reach:.0f} points: it says next to nothing."
    return f"Within noise is not equal: the intervals leave room for {100 * reach:.1f} points."


def footing(results, compared=()):
    """What the sentences stand on: seeds, reviews, what is missing."""
    run = results.run
    if not run:
        return "None of this part's settings was run, so there is nothing to discuss yet."
    seeds = sorted({len(results.trials(s)) for s in run})
    each = number(seeds[0]) + (f" to {number(seeds[-1])}" if len(seeds) > 1 else "")
    each = f"{each} seed{'s' * (seeds[-1] > 1)}{' each' * (len(run) > 1)}"
    reviews = f"{results.accuracy(run[0]).reviews:,}"
    text = [
        f"This rests on {counted(len(run), 'setting')} with {each}, tested on {reviews} reviews."
    ]
    if len(run) > 1 and seeds == [1]:
        text.append(_one_seed(results))
    elif len(run) > 1:
        alone = ", where n is 1 for the latter only" if seeds[0] == 1 else ""
        text.append(
            f"Intervals and tests allow for the choice of seeds and of test reviews{alone}."
        )
    if len(compared) > 1:
        text.append(
            "The p-values are corrected by Holm's method for "
            f"{counted(len(compared), 'comparison')}; each interval stands for itself."
        )
    if results.part.train_reviews:
        text.append(_reduced(results.part))
    if len(results.missing) > 8:
        text.append(f"{len(results.missing)} of {len(results.settings)} settings were not run.")
    elif results.missing:
        text.append(f"{capital(were(results.missing))} not run.")
    return " ".join(text)


def _one_seed(results):
    spread, basis = seed_noise([results], results.accuracy(by_validation(results)[0]))
    return (
        "With one seed McNemar's test compares two models and not two settings, and the intervals "
        "allow for the choice of test reviews only. Seeds alone set two runs of one setting up to "
        f"{100 * APART * spread:.1f} points apart ({basis}), and further where a training fails."
    )


def _reduced(part):
    return (
        f"All of it is a reduced setting, {part.train_reviews:,} training reviews of at most "
        f"{part.max_tokens} known words, where the published conclusions are about 35,000: what "
        "holds in one need not hold in the other."
    )
