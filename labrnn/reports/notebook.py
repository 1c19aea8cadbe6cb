"""Display figures, tables and sentences in a notebook, with captions as metadata.

Captions, labels and figure numbers are stored in the display metadata of an output (key `report`),
so they can contain computed values, and papermill keeps them. `labrnn.reports.exporter` prints
them. In Markdown, `[Figure](#fig-x)`, `[Figure 3c](#fig-x-c)` and `[Table](#tbl-x)` refer to them;
the reports insert the number.
"""

import base64
import html
import io
import re

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

from labrnn.errors import LabError
from labrnn.reports.describe import description
from labrnn.reports.document import drawn

PNG_DPI = 144.0


def show(obj, label, caption, number=None, alt=None):
    """Display a figure or a table with its caption.

    Args:
        obj: a matplotlib figure, which is closed afterwards, or a pandas DataFrame, whose index is
            shown if it has a name. The figure's label or `attrs["key"]` is added to the caption.
        label: `fig-` or `tbl-` and lowercase letters, digits and hyphens.
        caption: Markdown.
        number: number of the figure in the lab (3, or "8a"), which the caption names.
        alt: alternative text; if None, a description of the panels, axes and values.

    Raises:
        LabError: the label is malformed, or `obj` is neither a figure nor a table.
    """
    if isinstance(obj, pd.DataFrame):
        entry = _entry(label, "tbl-", caption, obj.attrs.get("key"))
        display(_table(obj, entry["caption"]), raw=True, metadata={"report": entry})
    else:
        entry = _entry(label, "fig-", caption, _key(obj), number=number, alt=alt)
        _figure(obj, entry)
        _print_caption(label, entry["caption"], number)


def show_grid(parts, label, caption, columns=2, number=None):
    """Display sub-figures (a), (b), ... with one caption; `parts`: (figure, subcaption) pairs."""
    key = _key(parts[0][0]) if parts else ""
    entry = _entry(label, "fig-", caption, key, number=number, columns=columns)
    for k, (figure, sub) in enumerate(parts):
        _figure(figure, {**entry, "group": k, "sub": sub})
        _print_caption(label, f"({chr(97 + k)}) {sub}")
    _print_caption(label, entry["caption"], number)


def say(markdown, verdicts=None):
    """Display computed sentences, which the report prints as body text.

    Args:
        markdown: the sentences.
        verdicts: for the discussion of a part, its `Verdict`s, possibly (). The metadata then store
            them and the first paragraph, see `verdicts_of` and `finding_of`.
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
    """Return the verdicts that an executed notebook displays, as dicts."""
    return [verdict for report in _reports(notebook) for verdict in report.get("verdicts", ())]


def finding_of(notebook):
    """Return the finding of an executed notebook, the first paragraph of its discussion, or ''."""
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
    vector, small = io.BytesIO(), io.BytesIO()
    with plt.rc_context({"svg.hashsalt": entry["label"], "svg.fonttype": "path"}):
        figure.savefig(vector, format="svg", bbox_inches=box, metadata={"Date": None})
    plt.close(figure)
    # Typst draws the SVG faster than Matplotlib would draw the figure once more.
    pixels = drawn(vector.getvalue(), "svg", format="png", ppi=PNG_DPI)
    picture = Image.open(io.BytesIO(pixels)).convert("RGB")
    picture.save(small, "png")
    width, height = picture.size
    size = {"width": round(width * 96 / PNG_DPI), "height": round(height * 96 / PNG_DPI)}
    data = {
        "image/svg+xml": vector.getvalue().decode(),
        "image/png": base64.b64encode(small.getvalue()).decode(),
        "text/plain": entry["caption"],
    }
    display(data, raw=True, metadata={"image/png": size, "report": entry})


def _table(frame, caption):
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    with pd.option_context("display.max_colwidth", None):
        # With these classes MathJax ignores dollar signs in reviews.
        page = frame.to_html(index=False, border=0, classes="mathjax_ignore tex2jax_ignore")
        plain = frame.to_string(index=False)
    page = page.replace(">", f"><caption>{html.escape(caption)}</caption>", 1)
    return {"text/html": page, "text/plain": plain}


def _print_caption(label, caption, number=None):
    """Display the caption in Jupyter; the reports omit this output."""
    name = f"*Lab figure {number}.* " if number else ""
    texts = dict.fromkeys(("text/markdown", "text/plain"), name + caption)
    display(texts, raw=True, metadata={"report": {"repeats": label}})
