"""Format numbers, estimates and comparisons as text, and render the templates of discussions."""

import math
import re
from functools import lru_cache

from labrnn.results.comparison import of_kind, outcomes
from labrnn.results.statistics import CONFIDENCE, WIDE

WORDS = ["no", "one", "two", "three", "four", "five", "six"]
WORDS += ["seven", "eight", "nine", "ten", "eleven", "twelve"]
MANY = 4  # comparisons: from this number on, only the table shows their figures
# Characters that are replaced before rendering: controls, surrogates, direction overrides.
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)


def quote(text):
    """Quote untrusted text, such as a review, as Markdown that prints it literally on one line.

    Each dollar sign and backslash gets its own HTML element: MathJax, which Jupyter runs on the
    page, looks for pairs only within an element.
    """
    text = " ".join(UNPRINTABLE.sub("\ufffd", str(text)).split())
    text = re.sub(r"[!-/:-@\[-`{-~]", lambda sign: f"&#{ord(sign[0])};", text)
    return re.sub(r"&#(36|92);", r"<span>\g<0></span>", text)


def render(template, **values):
    """Render a template of `labrnn/results/templates` as paragraphs, separated by blank lines."""
    texts = re.split(r"\n\s*\n", page(template, **values))
    return "\n\n".join(" ".join(text.split()) for text in texts if text.strip())


def page(template, **values):
    """Render a template that has headings, lists and tables."""
    text = templates().get_template(f"{template}.md").render(**values)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


@lru_cache
def templates():
    """Return the environment of the templates; HTML templates escape their values."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("labrnn.results"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=jinja2.select_autoescape(["html"]),
    )
    filters = (names, listing, counted, number, capital, percent, points, accuracy, difference)
    filters += (comparisons, share, p_value, verb, interval, quote)
    filters += (detectable, of_kind, outcomes)
    environment.filters.update({function.__name__: function for function in filters})
    return environment


# Numbers and lists


def number(n):
    """Format a count: in words up to twelve, in digits above."""
    return WORDS[n] if n < len(WORDS) else f"{n:,}"


def counted(n, noun):
    return f"{number(n)} {noun}{'s' * (n != 1)}"


def capital(text):
    """Capitalise the first letter, also after an asterisk."""
    start = 1 if text[:1] == "*" else 0
    return text[:start] + text[start : start + 1].upper() + text[start + 1 :]


def listing(words):
    """Join words as `a, b and c`; with semicolons if one has a comma outside parentheses."""
    words = list(words)
    bare = [re.sub(r"\(.*?\)|\[.*?\]", "", word) for word in words]
    comma = "; " if any(", " in word for word in bare) else ", "
    return " and ".join([comma.join(words[:-1]), words[-1]] if len(words) > 1 else words)


def named(model):
    """Return the name of a setting or baseline in running text."""
    return model.title or model.name


def names(models):
    return listing(map(named, models))


def verb(settings, one, many):
    """Return the singular or plural verb form for some settings."""
    return many if len(settings) > 1 or getattr(settings[0], "many", False) else one


def percent(value, digits=1):
    """Format a fraction as per cent."""
    return f"{100 * value:.{digits}f} %"


def points(fraction, digits=1):
    """Format a difference of accuracies in percentage points, with sign and without unit."""
    text = f"{100 * fraction:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def p_value(p):
    """Format a p-value with two decimals, or three if it is small."""
    if p < 0.001 or p > 0.99:
        return "p < 0.001" if p < 0.001 else "p > 0.99"
    return f"p = {p:.{2 if p >= 0.0095 else 3}f}"


# Estimates, comparisons, verdicts


def interval(estimate, sign=""):
    """Format an interval as `[87.6, 88.4]`, in per cent or points; empty if unknown or too wide."""
    if not estimate.known:
        return ""
    bounds = (f"{100 * bound:.1f}".replace("-", "−") for bound in (estimate.low, estimate.high))
    return "[{}, {}]".format(*("0.0" if bound == "−0.0" else bound for bound in bounds))


def typical(estimate):
    """Format a mean in per cent as `88.0`, or a range as `70.0 to 88.6` if runs differ too much."""
    if estimate.ranges:
        return f"{100 * min(estimate.runs):.1f} to {100 * max(estimate.runs):.1f}"
    return f"{100 * estimate.mean:.1f}"


def accuracy(estimate):
    """Format an accuracy as `88.0 % (95 % CI [87.6, 88.4], n = 10)`."""
    kinds = [f"{100 * CONFIDENCE:.0f} % CI {interval(estimate)}"] if estimate.known else []
    return f"{typical(estimate)} % ({', '.join([*kinds, f'n = {estimate.n}'])})"


def difference(estimate, p=None):
    """Format a difference as `+0.9 points [0.2, 1.6], p = 0.01`."""
    text = f"{points(estimate.mean)} points {interval(estimate)}".rstrip()
    return text if p is None or math.isnan(p) else f"{text}, {p_value(p)}"


def share(runs, where=""):
    """Format a `Share` as `8 of 10 runs trained (95 % CI [44 %, 97 %])`; `where` follows trained."""
    bounds = f"[{100 * runs.low:.0f} %, {100 * runs.high:.0f} %]"
    return trained(runs) + where + f" ({100 * CONFIDENCE:.0f} % CI {bounds})" * (runs.n > 1)


def trained(runs):
    """Format a `Share` as `8 of 10 runs trained`; a single run trained or failed."""
    single = "the single run " + ("trained" if runs.count else "failed")
    return single if runs.n == 1 else f"{runs.count} of {runs.n} runs trained"


def comparisons(compared, to=None, one=None, figures=True):
    """Describe comparisons in sentences, one for each outcome.

    Args:
        compared: `Comparison`s.
        to: the name of what all are compared with; the second setting's name if None.
        one: the name of the first setting, if all share it; the sentences list the second ones.
        figures: whether to print the differences; False if a table shows them.
    """
    groups = outcomes(compared).values()
    return " ".join(_same_outcome(group, to, one, figures, len(groups) == 1) for group in groups)


def _same_outcome(group, to, one, figures, every):
    many, outcome, after = [c.second if one else c.first for c in group], group[0].outcome, ""
    shown = [difference(c.difference, None if outcome == "equivalent" else c.p) for c in group]
    if not figures:
        listed = "the others" if every and len(group) >= MANY and not to else names(many)
    elif len(group) >= MANY:
        ends = [points(f(c.difference.mean for c in group)) for f in (min, max)]
        listed = f"{names(many)} ({' to '.join(dict.fromkeys(ends))} points)"
    elif len(group) == 1 and not one:
        listed, after = named(many[0]), f" ({shown[0]})"
    else:
        listed = listing(f"{named(s)} ({text})" for s, text in zip(many, shown, strict=True))
    who, to = (one, listed) if one else (listed, to or named(group[0].second))
    who, to, subjects = capital(who), to + after, [group[0].first] if one else many
    are = verb(subjects, "is", "are")
    if outcome in ("higher", "lower"):
        kind = "more" if outcome == "higher" else "less"
        small = [s for s, c in zip(many, group, strict=True) if c.equivalent]
        which = f"{'than ' * bool(one)}{names(small)} " if len(group) > 1 else ""
        but = f", though {which}by less than 1 point" if small else ""
        return f"{who} {are} significantly {kind} accurate than {to}{but}."
    if outcome == "equivalent":
        return f"{who} {are} equivalent to {to} within 1 point."
    if outcome == "untested":
        return f"{who} {are} not tested against {to}: the less accurate side is a single run."
    text = f"{who} {verb(subjects, 'does', 'do')} not differ significantly from {to}"
    return f"{text}; {detectable([c.turned if one else c for c in group])}."


def detectable(compared):
    """Describe the smallest detectable differences; of those above `WIDE` name the first setting."""
    least = sorted(c.difference.detectable for c in compared if c.difference.detectable < WIDE)
    if not least:
        return f"no difference below {100 * WIDE:.0f} points could have been detected"
    ends = " to ".join(dict.fromkeys(f"{100 * x:.1f}" for x in (least[0], least[-1])))
    rest = [c.first for c in compared if c.difference.detectable >= WIDE]
    return (
        f"the smallest detectable {'differences are' if ' to ' in ends else 'difference is'} "
        f"{ends} points{f', and more than {100 * WIDE:.0f} points for {names(rest)}' * bool(rest)}"
    )


def verdicts(found):
    """Describe `Verdict`s, one sentence each."""
    return " ".join(
        f"The {'' if k else 'published '}conclusion that {v.claim.published} is "
        f"**{v.outcome}** ({v.evidence})"
        + (f", and {v.at_last} if the last epoch is tested" * (v.at_last != v.outcome) + ".")
        for k, v in enumerate(found)
    )
