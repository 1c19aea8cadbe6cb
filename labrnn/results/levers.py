"""What each lever of the best classifier is worth: it beside one that lacks the lever."""

from labrnn.results import prose

FORMS = {
    "worse": "It is clearly worse {}.",
    "not clear": prose.NOT_CLEAR,
    "within noise": "Within noise of the whole: {}.",
    "undecided": "With one seed each the models differ, which leaves the levers open: {}.",
    "better": "Better than the whole: {}.",
}


def discussion(results, compared):
    """Which levers carry the accuracy.

    Args:
        compared: the settings that lack a lever against the one that has them all.
    """
    if not compared:
        return prose.footing(results)
    best = results.accuracy(compared[0].second)
    told = [f"With every lever the test accuracy is {prose.measured(best)}."]
    for verdict, form in FORMS.items():
        group = [c for c in compared if c.verdict == verdict]
        group.sort(key=lambda c: c.difference.mean)
        if group:
            gaps = (f"{c.first.name[:1].lower()}{c.first.name[1:]}, {prose.gap(c)}" for c in group)
            told.append(form.format("; ".join(gaps)))
    return prose.paragraphs(
        " ".join(told),
        prose.room(compared),
        prose.idle(results, results.settings),
        prose.footing(results, compared),
    )
