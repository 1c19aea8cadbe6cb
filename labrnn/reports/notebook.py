"""What a notebook shows: figures, tables and sentences that carry their captions with them.

Captions, labels and published numbers travel in the display metadata of an output (key
`report`), so they can hold computed values and survive papermill. `labrnn.reports.exporter` prints them.
In Markdown, `[Figure](#fig-x)`, `[Figure 3c](#fig-x-c)` and `[Table](#tbl-x)` refer to them; the
reports put in the number that holds.
"""

import base64
import html
import io
import re

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display
from matplotlib.figure import Figure

from labrnn.errors import LabError
from labrnn.reports.describe import description

PNG_DPI = 144


def show(obj, label, caption, number=None, alt=None):
    """Display a figure or a table with its caption.

    Args:
        obj: a matplotlib figure, which is closed afterwards, or a pandas table, whose index is shown
            if it has a name. A figure's label, or a table's `attrs["key"]`, is added to the caption.
        label: begins with `fig-` or `tbl-`.
        caption: Markdown.
        number: of the figure in the lab (3, or "8a"), which the caption names.
        alt: text for readers who cannot see the figure; if None, a description of its panels, axes
            and values.

    Raises:
        LabError: the label has another form, or `obj` is neither figure nor table.
    """
    if isinstance(obj, pd.DataFrame):
        entry = _entry(label, "tbl-", caption, obj.attrs.get("key"))
        display(_table(obj, entry["caption"]), raw=True, metadata={"report": entry})
    else:
        entry = _entry(label, "fig-", caption, _key(obj), number=number, alt=alt)
        _figure(obj, entry)
        _print_caption(label, entry["caption"], number)


def show_grid(parts, label, caption, columns=2, number=None):
    """Display sub-figures (a), (b), ... under one caption; `parts` are (figure, subcaption)."""
    key = _key(parts[0][0]) if parts else ""
    entry = _entry(label, "fig-", caption, key, number=number, columns=columns)
    for k, (figure, sub) in enumerate(parts):
        _figure(figure, {**entry, "group": k, "sub": sub})
        _print_caption(label, f"({chr(97 + k)}) {sub}")
    _print_caption(label, entry["caption"], number)


def say(markdown, verdicts=None):
    """Display computed sentences; the report prints them as body text, not as an output.

    Args:
        markdown: the sentences.
        verdicts: of the discussion of a part, its `labrnn.results.verdicts.Verdict`s, () if it has
            none. They travel as data in the metadata, see `finding_of` and `verdicts_of`.
    """
    metadata = {}
    if verdicts is not None:
        found = [
            {
                "published": v.claim.published,
                "outcome": v.outcome,
                "evidence": v.evidence,
                "at_last": v.at_last,
            }
            for v in verdicts
        ]
        finding = markdown.partition("\n\n")[0]
        metadata = {"metadata": {"report": {"finding": finding, "verdicts": found}}}
    display({"text/markdown": markdown, "text/plain": markdown}, raw=True, **metadata)


def verdicts_of(notebook):
    """The verdicts that an executed notebook displays, as dicts."""
    return [verdict for report in _reports(notebook) for verdict in report.get("verdicts", ())]


def finding_of(notebook):
    """The first paragraph of an executed notebook's discussion, which is its finding; else ''."""
    return next((r["finding"] for r in _reports(notebook) if "finding" in r), "")


def _reports(notebook):
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return [output.get("metadata", {}).get("report", {}) for output in outputs]


def _key(figure):
    return figure.get_label() if isinstance(figure, Figure) else ""


def _entry(label, prefix, caption, key="", **more):
    if not re.fullmatch(prefix + r"[a-z0-9]+(-[a-z0-9]+)*", str(label)):
        raise LabError(
            f"label {label!r} of the report: expected {prefix!r} followed by lowercase letters, digits "
            f"and hyphens, for example '{prefix}curves'"
        )
    if key:
        caption = f"{caption} {key}"
    return {"label": label, "caption": caption, **{k: v for k, v in more.items() if v is not None}}


def _figure(figure, entry):
    if not isinstance(figure, Figure):
        raise LabError(
            f"label {entry['label']!r} of the report: expected a matplotlib figure or a pandas "
            f"DataFrame, found {type(figure).__name__}"
        )
    entry = {"alt": description(figure), **entry}
    # A figure with a layout engine keeps its exact size, so that grids line up.
    box = "tight" if figure.get_layout_engine() is None else None
    vector, pixels = io.BytesIO(), io.BytesIO()
    with plt.rc_context({"svg.hashsalt": entry["label"], "svg.fonttype": "path"}):
        figure.savefig(vector, format="svg", bbox_inches=box, metadata={"Date": None})
    figure.set_layout_engine("none")  # the positions stay: they need not be found twice
    figure.savefig(pixels, format="png", bbox_inches=box, dpi=PNG_DPI)
    plt.close(figure)
    width, height = (int.from_bytes(pixels.getvalue()[k : k + 4], "big") for k in (16, 20))
    size = {"width": round(width * 96 / PNG_DPI), "height": round(height * 96 / PNG_DPI)}
    data = {
        "image/svg+xml": vector.getvalue().decode(),
        "image/png": base64.b64encode(pixels.getvalue()).decode(),
        "text/plain": entry["caption"],
    }
    display(data, raw=True, metadata={"image/png": size, "report": entry})


def _table(frame, caption):
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    with pd.option_context("display.max_colwidth", None):
        # The classes keep MathJax away from the dollar signs of reviews.
        page = frame.to_html(index=False, border=0, classes="mathjax_ignore tex2jax_ignore")
        plain = frame.to_string(index=False)
    page = page.replace(">", f"><caption>{html.escape(caption)}</caption>", 1)
    return {"text/html": page, "text/plain": plain}


def _print_caption(label, caption, number=None):
    """The caption as a reader sees it in Jupyter; the reports leave this output out."""
    name = f"*Lab figure {number}.* " if number else ""
    display(
        {"text/markdown": name + caption, "text/plain": name + caption},
        raw=True,
        metadata={"report": {"repeats": label}},
    )
