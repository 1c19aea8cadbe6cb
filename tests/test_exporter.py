"""Render reports and read them back: text with pypdfium2, pages as images."""

import base64
import ctypes
import io
import re
import unicodedata

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pypdfium2
import pypdfium2.raw as raw
import pytest
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from nbconvert.exporters import get_exporter
from nbformat import v4
from PIL import Image
from traitlets.config import Config

from labrnn.errors import LabError
from labrnn.reports import notebook as module
from labrnn.reports.document import Block, Document, Part, as_terminal, document
from labrnn.reports.exporter import LabHTMLExporter, LabPDFExporter, to_html, to_pdf, write
from labrnn.results.prose import UNPRINTABLE, quote

HOSTILE = (
    '<script>alert("1")</script> #eval("1+1") $5 and $6 \\begin{x} \\\\ *bold* _it_ `code` '
    "[a](http://b.c) @ref <lab> // no comment /* \" ' ``` ~ ^ = | {y} &lt; 1."
)


@pytest.fixture
def shown(monkeypatch):
    """Outputs displayed by a cell, collected without a kernel."""
    outputs = []

    def display(data, raw, metadata=None):
        assert raw
        outputs.append(v4.new_output("display_data", data, metadata=metadata or {}))

    monkeypatch.setattr(module, "display", display)
    return outputs


def curve(width=3.3, height=2.2):
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.plot([1, 2, 3], [0.5, 0.7, 0.8], marker="o")
    return figure


def cell(source="pass", outputs=(), tags=()):
    return v4.new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)})


def notebook(*cells, **metadata):
    cells = [v4.new_markdown_cell(c) if isinstance(c, str) else c for c in cells]
    return v4.new_notebook(cells=cells, metadata={"date": "2026-11-24", **metadata})


def stream(text, name="stdout"):
    return v4.new_output("stream", text=text, name=name)


def pdf(nb):
    return LabPDFExporter().from_notebook_node(nb)[0]


def html(nb):
    return LabHTMLExporter().from_notebook_node(nb)[0]


def pages(data):
    """Return the text of each page with whitespace collapsed."""
    found = pypdfium2.PdfDocument(data)
    texts = (found[k].get_textpage().get_text_range() for k in range(len(found)))
    return [re.sub(r"\s+", " ", text.replace("\u200b", "")) for text in texts]


def squeezed(data):
    return re.sub(r"\s", "", "".join(pages(data)))


def test_figures_and_tables_are_numbered_and_cross_referenced(shown):
    table = pd.DataFrame({"gate": ["input"], "sum": ["0.5"]})
    module.show(curve(), "fig-extra", "Our own figure.")
    module.show_grid([(curve(), f"sub {k}") for k in "xyz"], "fig-grid", "Three.", number=3)
    module.show(curve(), "fig-part", "A part of the lab's eighth.", number="8a")
    module.show(curve(), "fig-more", "Another.")
    module.show(table, "tbl-one", "Gates.")
    nb = notebook(
        "# Title\n\nSee [Figure](#fig-grid), [](#fig-grid-c), [](#fig-part), [Figure](#fig-more),"
        " [Table 9](#tbl-one), [the first](#fig-extra), [](#fig-gone), [Figure 5](#fig-five)"
        " and [Table](#tbl-gone). [Figure](#fig-off) comes first.",
        cell(outputs=shown),
    )
    said = (
        "See Figure 2, Figure 2c, Figure 3, Figure 4, Table 1, the first, "
        "a figure not shown here, Figure 5 and a table not shown here. "
        "A figure not shown here comes first."
    )
    text = " ".join(pages(pdf(nb)))
    assert said in text
    assert "Figure 1. Our own figure." in text
    assert "Figure 2. Lab figure 3. Three." in text
    assert "Figure 3. Lab figure 8a. A part of the lab’s eighth." in text
    assert all(f"({letter}) sub {name}" in text for letter, name in zip("abc", "xyz", strict=True))

    page = BeautifulSoup(html(nb), "html.parser")
    assert said in " ".join(page.get_text().split())
    ids = [tag["id"] for tag in page.find_all(id=True)]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in page.find_all("a")} <= set(ids)
    said = "Panel: line from 0.5 to 0.8."
    assert {img["alt"] for img in page.find_all("img")} == {said}
    assert page.find("th", scope="col").get_text() == "gate"


def test_empty_contents_and_lists_are_omitted():
    text = " ".join(pages(pdf(notebook("Only a sentence."))))
    assert not re.search("Contents|List of", text)


def test_a_long_table_breaks_across_pages_and_repeats_its_header(shown):
    names = [f"DROPOUT_RATE=0.2,EMBEDDING_DIM=32,HIDDEN_DIM={k},OPTIM=rmsprop" for k in range(100)]
    frame = pd.DataFrame({"trial": names, "accuracy": "0.8802"}, index=range(1, 101))
    module.show(frame.rename_axis("rank"), "tbl-rank", "Ranking.")
    found = pages(pdf(notebook("# T", cell(outputs=shown))))
    assert len(found) > 1
    assert all("rank trial accuracy" in page for page in found)
    whole = re.sub(r"\s", "", "".join(found))
    assert all(whole.count(name) == 1 for name in names)


def test_nothing_is_wider_than_the_text(shown):
    module.show(curve(14, 3), "fig-wide", "Wide.")
    wide = pd.DataFrame({f"column {k}": ["0.123456"] * 3 for k in range(18)})
    module.show(wide, "tbl-wide", "Many columns.")
    module.show(pd.DataFrame({"review": ["x" * 500, HOSTILE * 5]}), "tbl-long", "Long.")
    source = "call(" + ", ".join(f"argument_{k}={k}" for k in range(20)) + ")"
    nb = notebook("# T\n\n`" + "y" * 60 + "`", cell(source, [*shown, stream("z" * 300)]))
    for page in pypdfium2.PdfDocument(pdf(nb)):
        ink = np.asarray(page.render(scale=1).to_numpy()).min(axis=(0, 2)) < 200
        left, right = np.flatnonzero(ink)[[0, -1]]
        assert left >= 66  # points: slightly less than 2.4 cm
        assert right <= 595 - 66


def test_untrusted_text_is_printed_not_executed(shown):
    module.say("A review said: " + quote(HOSTILE))
    module.show(pd.DataFrame({"review": [HOSTILE]}), "tbl-x", "A review: " + quote(HOSTILE))
    module.show_grid([(curve(), quote(HOSTILE))], "fig-x", quote(HOSTILE))
    error = v4.new_output("error", ename="E", evalue=HOSTILE, traceback=[HOSTILE])
    nb = notebook("# " + quote(HOSTILE), cell(HOSTILE, [stream(HOSTILE), error, *shown]))
    nb.metadata.update(authors=[HOSTILE], labrnn={HOSTILE: HOSTILE})
    data = pdf(nb)
    # title, page header, prose, 2 captions, sub-caption, cell, code, print, ...
    assert squeezed(data).count(re.sub(r"\s", "", HOSTILE)) >= 9

    page = html(nb)
    assert not re.search(r"<script|<lab>|href=.http", page)
    assert page.count("&lt;script&gt;") >= 9
    for sandboxed in ("default-src 'none'", "img-src data:"):
        assert sandboxed in page


def test_unprintable_characters_do_not_stop_a_report(shown):
    odd = "A\x00\x1b[31m\x07\u202e\ud800 漢字 😄 \ufeff\u2028 Z"
    module.say(quote(odd) + " " + odd)
    pandas_takes = odd.replace("\ud800", "")
    module.show(pd.DataFrame({"review": [pandas_takes]}), "tbl-x", odd)
    nb = notebook("# T " + odd, cell(f"'{odd}'", [stream(odd), *shown]), authors=[odd])
    text = squeezed(pdf(nb))
    assert text.count("字") >= 8
    assert "\x1b" not in html(nb)


@settings(max_examples=40, deadline=None)
@given(st.text(st.sampled_from("#$*_`@<>\\='\"[](){}/|^&!.:;-+1a \n~\x07é") | st.characters()))
def test_quoted_text_is_preserved(text):
    block = Block("markdown", "| " + quote(text) + " |")
    page = to_html(Document([Part("T", [block])], {}))
    shown = BeautifulSoup(page, "html.parser").find("main").get_text()
    expected = f"| {UNPRINTABLE.sub(chr(0xFFFD), text)} |"
    # Pandoc composes characters with their marks (NFC); they print the same.
    words = [unicodedata.normalize("NFC", said).split() for said in (shown, expected)]
    assert words[0] == words[1]


def test_raw_html_and_typst_in_markdown_are_disabled():
    nb = notebook(
        '# T\n\nA <b onclick="x()">bold</b> word<br>and [bad](javascript:alert(1)).\n\n'
        '<div onmouseover="x()">kept <script>gone()</script></div>\n\n'
        '```{=typst}\n#panic("run")\n```\n\n`#panic("run")`{=typst}\n\n'
        "![a picture](https://example.org/a.png)"
    )
    page = html(nb)
    assert not re.search(r"onclick|onmouseover|<script|javascript:|<img", page)
    assert '<a href="https://example.org/a.png">a picture</a>' in page
    said = 'bold word and bad. kept #panic("run") #panic("run"){=typst} a picture'
    assert said in pages(pdf(nb))[0]


def test_same_bytes_for_the_same_notebook(shown):
    module.show(curve(), "fig-x", "One.")
    first, shown[:] = list(shown), []
    module.show(curve(), "fig-x", "One.")
    assert first == shown
    nb = notebook("# T", cell(outputs=first))
    assert pdf(nb) == pdf(nb)
    assert b"D:20261124" in pdf(nb)
    assert html(nb) == html(nb)


def test_both_formats_written_at_once_equal_each_written_alone(shown):
    """Neither changes what the other reads, in whichever order they are written."""
    module.show(curve(), "fig-one", "A caption of $x$, see [Table](#tbl-one).", number=1)
    module.show(pd.DataFrame({"a": [1], "b": ["x"]}), "tbl-one", "Values.")
    short = "# T\n\n## Section\n\nShort.\n\n$$\nx = 1\n$$\n\nAs [@hochreiter1997] say:"
    doc = document(notebook(short, cell("x = 1", shown)), "T")
    alone = {to: write(doc, to)["out"][to] for to in ("typst", "html")}
    assert write(doc, "typst", "html")["out"] == alone
    assert write(doc, "html", "typst")["out"] == alone


def test_parameters_in_use_are_shown_once():
    defaults = "epochs: int = 5  # passes over the data\nseed = 7"
    text = " ".join(pages(pdf(notebook("# T", cell(defaults, tags=["parameters"])))))
    assert "Parameters of this run" in text
    injected = cell("# Parameters\nepochs = 2\n", tags=["injected-parameters"])
    nb = notebook("# T", cell(defaults, tags=["parameters"]), injected)
    text = " ".join(pages(pdf(nb)))
    assert "epochs = 2 seed = 7" in text
    assert "epochs: int = 5" not in text
    assert "Parameters of this run" not in " ".join(pages(no_input().from_notebook_node(nb)[0]))


def no_input():
    return LabPDFExporter(config={"TemplateExporter": {"exclude_input": True}})


def test_screen_only_output_is_omitted():
    widget = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "HBox(...)"}
    outputs = [
        stream("warned\n", "stderr"),
        stream(" 10%|#\r 50%|##\r100%|###\nafter\x1b[31m red\x1b[0m\n"),
        stream("\x1b]8;;http://a.b\x07go\x1b]8;;\x07 1\b2\n"),
        v4.new_output("display_data", widget),
        v4.new_output("display_data", {"text/markdown": "", "text/plain": "progress"}),
        stream("".join(f"line {k}.\n" for k in range(1000))),
    ]
    nb = notebook(
        "# T",
        cell("hidden = 1", [stream("shown")], tags=["hide-input"]),
        cell("removed = 1", [stream("removed too")], tags=["remove-cell"]),
        cell("kept = 1", outputs),
    )
    text = " ".join(pages(pdf(nb)))
    for absent in (
        "warned",
        "50%",
        "HBox",
        "progress",
        "hidden",
        "removed",
        "line 500.",
        "[31m",
        "a.b",
    ):
        assert absent not in text
    for present in (
        "shown",
        "100%|###",
        "after red",
        "go 2",
        "kept = 1",
        "line 999.",
        "lines left out",
    ):
        assert present in text


def test_an_error_is_shown():
    error = v4.new_output("error", ename="ValueError", evalue="no", traceback=["-" * 75, "Trace 7"])
    text = " ".join(pages(pdf(notebook("# T", cell("f()", [error])))))
    assert "This cell stopped with an error. Trace 7" in text


def test_mathematics_is_typeset():
    source = r"""# T

Inline $\hat y = \operatorname{softmax}(z)$, $c \odot f \; \! \langle a \rangle$ and
\begin{align}
h &= o \odot \tanh(c) \label{eq:h}\\
L &= 1
\end{align}
and $$\label{eq:x} \begin{cases} 1 & a \\ 2 & b \end{cases} \boxed{x}$$ costs $5 or $6."""
    nb = notebook(source)
    text = " ".join(pages(pdf(nb)))
    assert not re.search(r"\\|align|label|eq:", text)
    assert "costs $5 or $6." in text
    page = html(nb)
    assert page.count("<math") == 4
    assert "\\(" not in page


def test_png_output_without_caption_keeps_its_size(shown):
    module.show(curve(), "fig-x", "x")
    output = v4.new_output("display_data", {"image/png": shown[0].data["image/png"]})
    output.metadata = {"image/png": shown[0].metadata["image/png"]}
    (page,) = pypdfium2.PdfDocument(pdf(notebook("# T", cell(outputs=[output]))))
    (image,) = (item for item in page.get_objects() if item.type == 3)
    left, _, right, _ = image.get_bounds()
    assert right - left == pytest.approx(3.3 * 72, abs=1)


def test_figures_keep_their_size(shown):
    figure = Figure(figsize=(2, 1), facecolor="black", layout="constrained")
    module.show(figure, "fig-x", "Two inches.")
    (page,) = pypdfium2.PdfDocument(pdf(notebook("# T", cell(outputs=shown))))
    black = (page.render(scale=1).to_numpy() < 60).all(axis=2)
    assert (black.sum(axis=0) > 50).sum() == pytest.approx(
        144, abs=2
    )  # columns of pixels in the figure


def test_the_png_of_a_figure_shows_what_its_svg_shows(shown):
    """Typst draws it from the SVG, without the transparent background of this figure."""
    figure = curve()
    figure.patch.set_alpha(0)
    pixels = io.BytesIO()
    figure.savefig(pixels, dpi=module.PNG_DPI, facecolor="white")
    module.show(figure, "fig-one", "Caption.")
    found = Image.open(io.BytesIO(base64.b64decode(shown[0].data["image/png"])))
    expected = Image.open(pixels).convert("RGB")
    assert found.mode == "RGB"
    assert np.abs(np.subtract(found.size, expected.size)).max() <= 1  # Typst rounds up
    box = (0, 0, *np.minimum(found.size, expected.size))
    blocks = [picture.crop(box).reduce(8) for picture in (found, expected)]
    gap = np.abs(np.subtract(*blocks, dtype=float))  # of 255
    assert gap.mean() < 4  # text is smoothed differently; an empty picture differs by 9


def test_a_grid_of_eight_fits_a_page(shown):
    module.show_grid([(curve(4, 3), f"width {k}") for k in range(8)], "fig-8", "Eight.")
    (page,) = [page for page in pages(pdf(notebook("# T", cell(outputs=shown)))) if "(a)" in page]
    assert "(h) width 7" in page
    assert "Figure 1. Eight." in page


def test_pandas_tables_are_preserved():
    frame = pd.DataFrame({"n": [1, 2], "text": ["<b>", "x"]}, index=pd.Index([5, 6], name="seed"))
    many = pd.DataFrame(np.zeros((2, 4)), columns=pd.MultiIndex.from_product([["p", "q"], [1, 2]]))
    outputs = [
        v4.new_output("execute_result", {"text/html": x.to_html(), "text/plain": "plain"})
        for x in (frame, many)
    ]
    nb = notebook("# T", cell(outputs=outputs))
    text = " ".join(pages(pdf(nb)))
    assert "n text seed 5 1 <b> 6 2 x" in text
    assert "p q 1 2 1 2 0 0.0" in text
    assert "plain" not in text
    assert BeautifulSoup(html(nb), "html.parser").find_all("table")[1].find(colspan="2")


def test_blank_table_header_is_dropped():
    frame = pd.DataFrame({"": ["rows"], " ": [25]})
    output = v4.new_output("display_data", {"text/html": frame.to_html(index=False)})
    table = BeautifulSoup(html(notebook("# T", cell(outputs=[output]))), "html.parser").table
    assert not table.thead
    assert table.tbody.th.text == "rows"


def test_headings_stay_with_the_following_content(shown):
    module.show(curve(), "fig-a", "The figure.")
    for lines in range(32, 50, 6):  # the figure needs the next page; its code not always
        text = cell("filled = 1", [stream("line\n" * lines)])
        found = pages(pdf(notebook("# T", text, "## Head", cell("drawn = 1", shown[:1]))))
        assert len(found) == 2
        assert any("1 Head drawn = 1" in page for page in found)
        assert "Figure 1. " in found[1]


def test_reading_key_is_added_to_the_caption(shown):
    figure = curve()
    figure.set_label("Dotted is chance.")
    module.show(figure, "fig-a", "The figure.")
    frame = pd.DataFrame({"n": [3]})
    frame.attrs["key"] = "n: seeds."
    module.show(frame, "tbl-a", "The table.")
    text = " ".join(pages(pdf(notebook("# T", cell("x", shown)))))
    assert text.count("Figure 1. The figure. Dotted is chance.") == 1
    assert text.count("Table 1. The table. n: seeds.") == 1
    assert text.count("Dotted is chance") == 1


def test_provenance_lists_device_versions_and_seeds():
    made = {"device": "cpu", "versions": {"torch": "2.9", "numpy": "2.4"}, "seeds": [1, 2]}
    text = " ".join(pages(pdf(notebook("# T", labrnn=made))))
    assert "How this report was made device cpu versions torch 2.9, numpy 2.4 seeds 1, 2" in text


def test_title_authors_and_date():
    nb = notebook("# From the cell\n\n## Section", authors=[{"name": "A. B."}, "C. D."])
    assert "From the cell A. B., C. D. · 24 November 2026 Contents 1 Section" in pages(pdf(nb))[0]
    nb.metadata.update(title="From *metadata*", authors=["E. F."], date="autumn")
    assert "From metadata E. F. · autumn" in pages(pdf(nb))[0]
    page = to_html(document(notebook("no heading"), "lab9"))
    assert BeautifulSoup(page, "html.parser").title.text == "lab9"


@pytest.mark.parametrize("label", ["curves", "fig-", "fig-A", "fig x", "tbl-x", None])
def test_bad_labels_are_refused(label):
    with pytest.raises(LabError, match="'fig-curves'"):
        module.show(curve(), label, "x")


def test_unsupported_objects_are_refused():
    with pytest.raises(LabError, match=r"'fig-x'.*found list"):
        module.show([1], "fig-x", "x")


def test_duplicate_label_is_refused(shown):
    module.show(curve(), "fig-x", "x")
    module.show(curve(), "fig-x", "x")
    with pytest.raises(LabError, match=r"Notebook, cell 2: label 'fig-x'"):
        pdf(notebook("# T", cell(outputs=shown)))


@pytest.mark.parametrize("data", [b"", b"<svg", b"\x89PNG no", b"%PDF-1.4"])
def test_a_damaged_picture_leaves_a_note_and_a_warning(data, caplog):
    kind = {b"<svg": "image/svg+xml", b"%PDF-1.4": "application/pdf"}.get(data, "image/png")
    shown = data.decode() if data == b"<svg" else base64.b64encode(data).decode() or "===="
    output = v4.new_output(
        "display_data", {kind: shown, "text/plain": "<Figure size 1x1 with 1 Axes>"}
    )
    text = " ".join(pages(pdf(notebook("# T", cell(outputs=[output]), "Further."))))
    assert f"[Output not shown here: {kind}] Further." in text
    assert "Notebook, cell 2: the" in caplog.text


def test_jupyter_shows_the_caption_and_closes_the_figure(shown):
    figure = curve()
    module.show(figure, "fig-x", "A *caption*.", number=3)
    assert not plt.fignum_exists(figure.number)
    assert next(iter(shown[0].data)) == "image/svg+xml"
    assert shown[1].data["text/markdown"] == "*Lab figure 3.* A *caption*."
    module.show(pd.DataFrame({"a<b": ["<i>"]}), "tbl-x", "1 < 2")
    page = shown[2].data["text/html"]
    assert "<caption>1 &lt; 2</caption>" in page
    assert "<td>&lt;i&gt;</td>" in page


def test_html_needs_no_network(shown):
    module.show(curve(), "fig-x", "x")
    page = html(notebook("# T\n\n$x$ and https://example.org", cell("x = 1", shown)))
    page = page[page.index("<title>") :]
    loads = re.findall(r"""(?:src|@import|url\()\s*=?\s*["']?([^"'>]{0,30})""", page)
    assert loads
    assert all(load.startswith("data:") for load in loads)
    assert "<link" not in page


def test_nbconvert_finds_both_exporters_by_name():
    assert get_exporter("labpdf") is LabPDFExporter
    assert get_exporter("labhtml") is LabHTMLExporter


def test_table_of_500_trials_is_complete(shown):
    frame = pd.DataFrame({"trial": [f"LR=0.001,SEED={k}" for k in range(500)], "test": "0.8750"})
    module.show(frame, "tbl-x", "All trials.")
    nb = notebook("# T", cell(outputs=shown))
    text = squeezed(pdf(nb))
    assert all(text.count(f"SEED={k}0.8750") == 1 for k in range(500))


def test_a_document_can_be_rendered_twice(shown):
    module.show(curve(), "fig-x", "x")
    doc = document(notebook("# T\n\n[](#fig-x)", cell(outputs=shown)), "x")
    first = to_pdf(doc)
    assert "Figure 1" in to_html(doc)
    assert to_pdf(doc) == first


def texts_of(nb, **config):
    """Return the text of the PDF and of the HTML body, whitespace collapsed."""
    config = Config(config)
    page = BeautifulSoup(LabHTMLExporter(config=config).from_notebook_node(nb)[0], "html.parser")
    text = " ".join(pages(LabPDFExporter(config=config).from_notebook_node(nb)[0]))
    return text, " ".join(page.find("main").get_text(" ").split())


def images(data):
    """Return the number of pictures on each page of a PDF."""
    found = pypdfium2.PdfDocument(data)
    return [sum(item.type == 3 for item in page.get_objects(max_depth=3)) for page in found]


def png(colour="navy"):
    held = io.BytesIO()
    Image.new("RGB", (40, 20), colour).save(held, "PNG")
    return held.getvalue()


@pytest.mark.parametrize(
    "source",
    [
        "![x](img/cell.png)",
        "![x](./img/../img/cell.png)",
        "![x](img/a%20b.png)",
        "![x](<img/a b.png>)",
        "In a line ![x][a] of text.\n\n[a]: img/cell.png",
        '<img src="img/cell.png" width="200" height=30 alt="x">',
        "<p align='center'>\n  <IMG SRC='img/a b.png' style='width: 50%'>\n</p>",
        "<center><figure><img src=img/cell.png><figcaption>Text</figcaption></figure></center>",
        "| a |\n|---|\n| ![x](img/cell.png) |",
        "[![x](img/cell.png)](https://example.org)",
        f"![x](data:image/png;base64,{base64.b64encode(png()).decode()})",
        "![x](attachment:a%20b.png)",
        '<img src="attachment:a b.png">',
    ],
)
def test_pictures_in_markdown_are_embedded(source, tmp_path, monkeypatch, caplog):
    folder = tmp_path / "a folder"
    (folder / "img").mkdir(parents=True)
    for name in ("cell.png", "a b.png"):
        (folder / "img" / name).write_bytes(png())
    nb = notebook("# T", source)
    data = base64.b64encode(png()).decode()
    nb.cells[1]["attachments"] = {"a b.png": {"image/png": data}}
    nbformat.write(nb, folder / "nb.ipynb")
    monkeypatch.chdir(tmp_path)  # nbconvert may be called from anywhere
    made = LabPDFExporter().from_filename("a folder/nb.ipynb")[0]
    assert images(made) == [1]
    page = LabHTMLExporter().from_filename("a folder/nb.ipynb")[0]
    assert BeautifulSoup(page, "html.parser").img["src"] == f"data:image/png;base64,{data}"
    assert not caplog.text


def test_img_tags_keep_their_size(tmp_path):
    (tmp_path / "c.png").write_bytes(png())
    nb = notebook('# T\n\n<img src="c.png" width="200" height="40">\n\n<img src="c.png" width=50%>')
    facts = {"metadata": {"path": str(tmp_path)}}
    (page,) = pypdfium2.PdfDocument(LabPDFExporter().from_notebook_node(nb, facts)[0])
    boxes = [item.get_bounds() for item in page.get_objects(max_depth=3) if item.type == 3]
    sizes = [(right - left, top - bottom) for left, bottom, right, top in boxes]
    assert sizes[0] == (pytest.approx(150, abs=1), pytest.approx(30, abs=1))
    assert sizes[1][0] == pytest.approx(0.5 * (595 - 2 * 68), abs=2)


@pytest.mark.parametrize(
    "source", ["![](gone.png)", "<img src='gone.png'>", "![x](attachment:gone.png)", "![](nb.txt)"]
)
def test_missing_picture_is_reported(source, caplog, tmp_path):
    (tmp_path / "nb.txt").write_text("no picture")
    facts = {"metadata": {"path": str(tmp_path), "name": "nb"}}
    LabPDFExporter().from_notebook_node(notebook("# T", "Before. " + source), facts)
    address = re.search(r"[\w:]+\.\w+", source)[0]
    assert f"nb, cell 2: the picture '{address}' is left out" in caplog.text


def test_huge_picture_is_left_out(caplog, tmp_path):
    """The file is sparse and is not read."""
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(1 << 40)
    nb = notebook("# T", "Before ![p](large.png) after.")
    page = LabHTMLExporter().from_notebook_node(nb, {"metadata": {"path": str(tmp_path)}})[0]
    assert "the picture 'large.png' is left out: it is larger than" in caplog.text
    assert "after." in page


HIDDEN = [
    ("remove_input", {}, "output"), ("remove-input", {}, "output"), ("hide_input", {}, "output"),
    ("hide-output", {}, "source"), ("remove_output", {}, "source"),
    ("remove_cell", {}, ""), ("hide-cell", {}, ""),
    ("mine", {"TagRemovePreprocessor": {"remove_input_tags": {"mine"}}}, "output"),
    ("mine", {"TagRemovePreprocessor": {"remove_all_outputs_tags": {"mine"}}}, "source"),
    ("mine", {"TagRemovePreprocessor": {"remove_cell_tags": {"mine"}}}, ""),
    ("", {"TemplateExporter": {"exclude_input": True}}, "output"),
    ("", {"TemplateExporter": {"exclude_output": True}}, "source"),
    ("", {"TemplateExporter": {"exclude_code_cell": True}}, ""),
    ("", {"LabPDFExporter": {"exclude_output": True}}, "source"),
    ("", {"RegexRemovePreprocessor": {"patterns": ["the_source"]}}, ""),
    ("", {"ClearOutputPreprocessor": {"enabled": True}}, "source"),
    ("", {"TemplateExporter": {"exclude_input_prompt": True}}, "source output"),
]  # fmt: skip


@pytest.mark.parametrize(("tag", "config", "kept"), HIDDEN)
def test_hiding_options_of_nbconvert_are_respected(tag, config, kept):
    tags = [tag] if tag else []
    nb = notebook("# T\n\nProse.", cell("the_source = 1", [stream("the output")], tags))
    for text in texts_of(nb, **config):
        found = [
            word for word in ("source", "output") if f"the{'_ '[word == 'output']}{word}" in text
        ]
        assert " ".join(found) == kept
        assert "Prose." in text


def test_papermill_report_mode_and_excluded_markdown():
    hidden = cell("the_source = 1", [stream("the output")])
    hidden.metadata["jupyter"] = {"source_hidden": True}  # as `papermill --report-mode` sets it
    for text in texts_of(notebook("# T", "Prose.", hidden, v4.new_raw_cell("raw text"))):
        assert "Prose. the output raw text" in text
        assert "the_source" not in text
    for text in texts_of(
        notebook("# T", "Prose.", hidden), TemplateExporter={"exclude_markdown": True}
    ):
        assert "Prose." not in text
        assert "the output" in text


MATHS = [
    r"$$f_t = \sigma(W x_t) \tag{7}$$ (7)",
    "\\begin{equation}\\label{c}\nc = 1\n\\end{equation}\n\n$\\eqref{c}$ and \\eqref{c}. (1) and (1).",
    "\\begin{align}\na &= b \\label{one} \\\\\nc &= d \\label{two}\n\\end{align}\nSee \\ref{two}. See 2.",
    r"$\newcommand{\hid}{\mathbf{h}}$ $$\def\sq#1{#1^2}$$ $\hid_t \sq{x}$",
    r"$\DeclareMathOperator{\sm}{softmax}$ $\sm(x)$ softmax",
    "\\begin{multline}\na + b \\\\\n+ d + e\n\\end{multline}",
    "\\begin{alignat}{2}\na &= b &\\quad c &= d \\\\\ne &= f & g &= h\n\\end{alignat}",
    "\\begin{bmatrix}\n1 & 2 \\\\ 3 & 4\n\\end{bmatrix}",
    "\\begin{vmatrix} 1 & 2 \\\\ 3 & 4 \\end{vmatrix} and \\begin{gather*} x \\end{gather*}",
    r"$\begin{pmatrix} 1 \\ 2 \end{pmatrix}$ within a line",
    r"Old style \\(x^2\\) and \\[y^2\\].",
    r"$\color{red}{x}\textcolor{blue}{y}$",
    r"$\require{cancel}\cancel{x} {\rm a} \cfrac{1}{2} \mathbb{1} \bm{W}$",
    "> \\begin{align}\n> a &= b \\\\\n> c &= d\n> \\end{align}",
    "$$\na = b % why\n\n+ c\n$$",
    "1. First:\n\n   $$\n   x = y\n   $$",
]  # fmt: skip


@pytest.mark.parametrize("source", MATHS)
def test_mathjax_syntax_is_typeset(source, caplog):
    for text in texts_of(notebook("# T", source)):
        assert not re.search(r"\\|label|newcommand|\$|&|why", text)
        for said in re.findall(r"(?:\. |\$ )([\w() ]+\.?)$", source):
            assert said.replace(" ", "") in text.replace(" ", "")
    assert not caplog.text


@pytest.mark.parametrize(
    "source",
    [
        "`\\begin{align} a &= b \\end{align}`",
        "```\n\\begin{align} a &= b \\end{align}\n```",
        "~~~tex\n\\begin{align} a &= b \\end{align}\n~~~",
        "1. x\n\n   ```\n   \\begin{align} a &= b \\end{align}\n   ```",
        "    \\begin{align} a &= b \\end{align}",
        "> ```\n> \\begin{align} a &= b \\end{align}\n> ```",
        "$$x$$ and `` \\begin{align} a &= b \\end{align} `` $$y$$",
        "<pre>\\begin{align} a &amp;= b \\end{align}</pre>",
    ],
)
def test_code_that_looks_like_mathematics_is_unchanged(source):
    for text in texts_of(notebook("# T", source)):
        assert r"\begin{align}a&=b\end{align}" in text.replace(" ", "")
        assert "$" not in text


@pytest.mark.parametrize("tex", [r"\ce{H2O}", r"\begin{CD}A\end{CD}", r"\foo"])
def test_unsupported_mathematics_is_shown_as_source(tex, caplog):
    for text in texts_of(notebook("# T", "Fine $x$.", f"$${tex}$$ after")):
        assert "".join(tex.split()) in "".join(text.split())
        assert "after" in text
    assert caplog.text.count("Notebook, cell 3: the formula") == 2
    assert "cell 2" not in caplog.text


def test_formula_rejected_by_typst_does_not_stop_the_report(monkeypatch, caplog):
    from labrnn.reports import exporter

    def spoilt(to, parts, **more):
        result = pandoc(to, parts, **more)
        for piece in result["formulas"]:
            if "q" in piece["tex"] and piece["out"]:
                broken = piece["out"].replace("q", "qqqq")
                result["out"]["typst"] = result["out"]["typst"].replace(piece["out"], broken)
                piece["out"] = broken
        return result

    pandoc = exporter.pandoc
    monkeypatch.setattr(exporter, "pandoc", spoilt)
    text = " ".join(pages(pdf(notebook("# T", "Good $x$, bad $q + 1$, end."))))
    assert "bad q + 1, end." in text
    assert "Notebook, cell 2: the formula q + 1" in caplog.text


A, B = (
    f"<table><tr><th>{x}</th></tr><tr><td>{y}</td></tr></table>"
    for x, y in (("T1", "T2"), ("T3", "T4"))
)
TABLES = [
    A + B, f"<table><tr><td>{A}</td><td>{B}</td></tr></table>", f"<h4>T1</h4><p>T2</p>{B}<p>T5</p>",
    f"<div>{A}<ul><li>T3<li>T4</ul></div>", f"<details><summary>T5</summary>{A}</details>",
    "<table><tr><td>T1</td></tr><tr><td>T2</td><td>T3</td><td>T4</td></tr></table>",
    "<table><tr><td>T1</td><td>T2</td><td>T3</td></tr><tr><td>T4</td></tr></table>",
    "<table><thead><tr><th>T1<th>T2</thead><tr><td>T3</td><td colspan='2'>T4</td></tr></table>",
    "<table><tr><td rowspan=5>T1</td><td>T2</td></tr><tr><td>T3</td></tr></table>",
    "<table><tr><td COLSPAN = '99999999'>T1<td rowspan='99999999'>T2<tr><td>T3</td></tr></table>",
    "<table><tr><td colspan=0 rowspan=-1>T1<td colspan=x>T2</table>",
    "<table><tr><th>T1</th></tr><tfoot><tr><td>T2</td></tr></tfoot></table>",
    "<table><caption>T1</caption><tr><td>T2</td></tr></table>",
    "<table><tr><td>T1<br>T2</td><td><ul><li>T3</li><li>T4</li></ul></td></tr></table>",
    pd.DataFrame({"x": ["T1", "T2"]}, index=pd.MultiIndex.from_product([["T3"], ["T4", "T5"]])).to_html(),
    pd.crosstab(pd.Series(["T1", "T2"], name="T3"), pd.Series(["T4", "T5"], name="T6")).to_html(),
]  # fmt: skip


@pytest.mark.parametrize("page", TABLES)
def test_every_table_cell_appears_once(page):
    wanted = sorted(re.findall(r"T\d", page))
    output = v4.new_output("display_data", {"text/html": page, "text/plain": "<object>"})
    notebooks = [notebook("# T", cell(outputs=[output]))]
    notebooks += (
        [notebook("# T", page)] if "<h4>" not in page else []
    )  # otherwise it also appears in the contents
    for nb in notebooks:
        for text in texts_of(nb):
            assert sorted(re.findall(r"T\d", text)) == wanted


def test_table_spans_are_preserved():
    page = "<table><tr><td rowspan=2>a</td><td colspan=2>b</td></tr><tr><td>c</td><td>d</td></tr></table>"
    output = v4.new_output("display_data", {"text/html": page})
    table = BeautifulSoup(html(notebook("# T", cell(outputs=[output]))), "html.parser").table
    spans = [(c.text.strip(), c.get("rowspan"), c.get("colspan")) for c in table(["td", "th"])]
    assert spans == [("a", "2", None), ("b", None, "2"), ("c", None, None), ("d", None, None)]


@pytest.mark.parametrize("columns", [14, 20, 30, 60])
def test_wide_tables_are_split_without_loss(columns):
    numbers = 1000 + np.arange(2 * columns).reshape(2, columns) + 0.125
    frame = pd.DataFrame(numbers, ["first", "second"], [f"column_{k}x" for k in range(columns)])
    output = v4.new_output("display_data", {"text/html": frame.to_html()})
    data = pdf(notebook("# T", cell(outputs=[output])))
    text = squeezed(data)
    for word in [*frame.columns, *map(str, numbers.ravel())]:
        assert text.count(word) == 1
    assert "Columns2to" in text
    assert text.count("first") == text.count("Columns") > 1
    for page in pypdfium2.PdfDocument(data):
        ink = np.asarray(page.render(scale=1).to_numpy()).min(axis=(0, 2)) < 200
        assert np.flatnonzero(ink)[[0, -1]].tolist() == pytest.approx([68, 526], abs=3)


HTML, NOT_SHOWN = "<IPython.core.display.HTML object>", "[Output not shown here: {}]"
OUTPUTS = [
    ({"text/plain": "<Compressed Sparse Row matrix>"}, "<Compressed Sparse Row matrix>"),
    ({"text/plain": "<re.Match object; span=(0, 4)>"}, "<re.Match object; span=(0, 4)>"),
    ({"text/html": "<h3>R</h3><p>It is <b>better</b>.</p>", "text/plain": HTML}, "R It is better"),
    ({"text/html": "<style>a{}</style><script>x()</script>R", "text/plain": "Pipe()"}, "Pipe()"),
    ({"application/json": {"a": "RESULT"}, "text/plain": HTML}, "RESULT"),
    (
        {"application/vnd.plotly.v1+json": {}, "text/html": "<p><script>draw()</script></p>"},
        NOT_SHOWN.format("application/vnd.plotly.v1+json, text/html"),
    ),
    ({"application/geo+json": {}, "text/plain": HTML}, NOT_SHOWN.format("application/geo+json")),
    ({"text/html": "<audio src='data:audio/wav,A'></audio>", "text/plain": HTML}, "not shown here"),
    ({"text/html": "<iframe src='/etc/passwd'></iframe>", "text/plain": HTML}, "not shown here"),
    ({"image/bmp": "AAAA", "text/plain": HTML}, NOT_SHOWN.format("image/bmp")),
]


@pytest.mark.parametrize(("data", "said"), OUTPUTS)
def test_outputs_are_shown_as_text_or_a_note(data, said, caplog):
    nb = notebook("# T", cell("value", [v4.new_output("display_data", data)]), "END")
    for text in texts_of(nb):
        assert said.replace(" ", "") in text.replace(" ", "")
        assert "END" in text
        assert not re.search(r"draw\(|root:|x\(\)", text)
    assert bool(caplog.text) == ("not shown" in said)


def test_pdf_gif_and_webp_figures_are_drawn():
    held = {kind: io.BytesIO() for kind in ("gif", "webp", "pdf")}
    for kind in ("gif", "webp"):
        Image.new("RGB", (40, 20), "navy").save(held[kind], kind)
    curve().savefig(held["pdf"], format="pdf")
    kinds = {"gif": "image/gif", "webp": "image/webp", "pdf": "application/pdf"}
    for kind, mime in kinds.items():
        data = {mime: base64.b64encode(held[kind].getvalue()).decode(), "text/plain": "<Figure>"}
        nb = notebook("# T", cell("x", [v4.new_output("display_data", data)]))
        (page,) = pypdfium2.PdfDocument(pdf(nb))
        assert len([item for item in page.get_objects(max_depth=9) if item.type in (2, 3)]) > 1
        assert BeautifulSoup(html(nb), "html.parser").img["src"].startswith("data:image/")
        assert "<Figure>" not in " ".join(texts_of(nb))


TERMINAL = [
    ("\x1b]8;;https://x.org\x1b\\link\x1b]8;;\x1b\\ and \x1b]8;;u\x07other\x1b]8;;\x07", "link and other"),
    ("\x1b]0;title\x07after\x1b]2;cut", "after"),
    ("abc\b\bXY", "aXY"), ("ab\b\b\b\bX", "Xb"), ("over_\b_", "over_"),
    ("100%\r5", "500%"), ("one\r\ntwo\r\n", "one\ntwo\n"), (" 10%|#\r100%|##\nend", "100%|##\nend"),
    ("wi\x1b[2Kpe\rnew", "newe"), ("gone\r\x1b[Kleft", "left"), ("abcdef\x1b[3D\x1b[1K!", "   !ef"),
    ("a\nb\n\x1b[1A\x1b[2Kup\n", "a\nup\n"), ("a: 1\nb: 1\x1b[A\r\x1b[Ca: 2", "aa: 2\nb: 1"),
    ("\x1b[1;31mred\x1b[0m \x1b[38;2;1;2;3mx\x1b[m \x1b(Bset\x1b7\x1b8 \x1b[?25lhid", "red x set hid"),
    ("\x07bell\x00 a\tb", "bell a  b"), ("x\x1b[2J\x1b[Hnew", "new"),
    ("a\x1b[99999999Cb", "a" + " " * 1000 + "b"),
    ("\x1bP1$r\x1b\\dcs \x1b_apc\x1b\\end", "dcs end"), ("plain é 漢\n", "plain é 漢\n"),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "seen"), TERMINAL)
def test_streams_are_rendered_like_a_terminal(sent, seen):
    assert as_terminal(sent) == seen


def test_numbers_and_units_do_not_break_across_lines():
    text = "Of 95 % (p < 0.01, n = 3, r = 0.4) in 2.5 s or ln 2, 3 of 4 runs = all."
    page = BeautifulSoup(html(notebook(f"# T\n\n{text}")), "html.parser").main.p.text
    kept = text.replace("95 %", "95\xa0%").replace("2.5 s", "2.5\xa0s").replace("ln 2", "ln\xa02")
    for statistic in ("p < 0.01", "n = 3", "r = 0.4"):
        kept = kept.replace(statistic, statistic.replace(" ", "\xa0"))
    assert page == kept


def test_internal_links_resolve(caplog):
    nb = notebook(
        "# Doc Title\n\n[a](#Second-Section) [b](#second-section) [c](#anchor) [d](#Doc-Title) "
        "[e](#nowhere) [f](#Caf%C3%A9-&-Co.) [g](#named) [](#Second-Section)\n\n## Second Section",
        '<a id="anchor"></a>\n\nText.<a name="named"></a>\n\n## Café & Co.\n\nNote[^1].\n\n[^1]: N.',
    )
    page = BeautifulSoup(html(nb), "html.parser")
    targets = {link.text: link["href"][1:] for link in page.main.p("a")}
    assert list(targets) == ["a", "b", "c", "d", "f", "g", "Second Section"]
    assert set(targets.values()) <= {tag["id"] for tag in page.find_all(id=True)}
    page = pypdfium2.PdfDocument(pdf(nb))[0]
    place, link, found = ctypes.c_int(0), raw.FPDF_LINK(), 0
    while raw.FPDFLink_Enumerate(page.raw, ctypes.byref(place), ctypes.byref(link)):
        found += 1
    assert found >= 7 + 2  # plus the table of contents
    assert not caplog.text


@pytest.mark.parametrize(
    ("cells", "title"),
    [
        (
            ["[![Colab](https://a.b/c.svg)](https://a.b)", "# The *title*\n\n## A", "## B"],
            "The title",
        ),
        (["[![Colab](https://a.b/c.svg)](https://a.b)\n\n# The title"], "The title"),
        (
            ['<a href="https://a.b"><img src="https://a.b/c.svg"></a>', "The title\n=====\n\nx"],
            "The title",
        ),
        (["<h1>The title</h1>\n\nText.\n\n## A"], "The title"),
        (["Text.", "## The title\n\n### A", "### B"], "The title"),
        (["```\n# no title\n```", "# The title"], "The title"),
        (["## A", "## B"], "lab9"),
    ],
)
def test_the_first_heading_is_the_title(cells, title):
    doc = document(notebook(*cells), "lab9")
    page = BeautifulSoup(to_html(doc), "html.parser")
    assert (page.title.text, page.header.h1.text) == (title, title)
    assert title not in page.main.get_text()
    assert not page.main("h3")


def test_hebrew_and_arabic_run_from_right_to_left(caplog):
    hebrew, arabic = "שלום עולם ושוב שלום", "مرحبا بالعالم"
    nb = notebook(f"# T\n\n{hebrew}\n\n{arabic} word.", authors=["אבי כהן", "Ann Lee", "سارا"])
    textpage = pypdfium2.PdfDocument(pdf(nb))[0].get_textpage()
    text = textpage.get_text_range()

    def left(letter):
        return textpage.get_charbox(text.index(letter))[0]

    assert left("ש") > 500  # at the right margin
    assert left("ש") > left("ע") > left("ב")
    assert left("א") < left("A") < left("س")  # order of the authors
    assert 'dir="auto"' in html(nb)
    assert not caplog.text


def test_missing_glyph_is_reported(caplog):
    text = " ".join(pages(pdf(notebook("# T", "Odd \U000f1234 letter."))))
    assert "Odd" in text
    assert "no font has the letter" in caplog.text


def test_reports_are_accessible(shown):
    module.show(curve(), "fig-x", "The caption.", alt="A line that rises.")
    module.show(pd.DataFrame({"n": [3]}), "tbl-a", "The table.")
    nb = notebook("# T\n\nSee $x^2$ and\n\n$$y$$\n\n### Deep\n\n[Figure](#fig-x)", cell("x", shown))
    data = pdf(nb)
    assert b"pdfuaid:part" in data
    assert BeautifulSoup(html(nb), "html.parser").img["alt"] == "A line that rises."


def test_notebook_is_executed_in_its_own_folder(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    source = "from PIL import Image\nImage.new('RGB', (9, 9)).save('made.png')"
    nb = notebook("# T", v4.new_code_cell(source), "![made](made.png)")
    nbformat.write(nb, tmp_path / "deep" / "nb.ipynb")
    monkeypatch.chdir(tmp_path)
    config = {"ExecutePreprocessor": {"enabled": True}}
    assert images(LabPDFExporter(config=config).from_filename("deep/nb.ipynb")[0]) == [1]


def test_citations_are_formatted_and_listed(shown, caplog):
    module.say("Said of Adam [@kingma2015].")
    nb = notebook(
        "# T\n\nAs in [@maas2011;@wang2012]. @holm1979 corrects; @nobody2020 and [@nobody2020] do "
        "not. `[@holm1979]` is code.",
        cell("x", shown),
        labrnn={"device": "cpu"},
    )
    said = [
        "As in (Maas et al. 2011; Wang and Manning 2012). Holm (1979) corrects; @nobody2020 and "
        "[@nobody2020] do not. [@holm1979] is code.",
        "Said of Adam (Kingma and Ba 2015).",
    ]
    for text in texts_of(nb):
        assert all(x.replace(" ", "") in text.replace(" ", "") for x in said)
        listed = text.split("References")[-1]
        names = ["Holm, Sture", "Kingma, Diederik", "Maas, Andrew", "Wang, Sida", "How this report"]
        places = [listed.index(name) for name in names]
        assert places == sorted(places)
        assert "Platt" not in text
    page = BeautifulSoup(html(nb), "html.parser")
    targets = {link["href"][1:] for link in page.main.find_all("a")}
    assert (
        {"ref-holm1979", "ref-maas2011"} <= targets <= {tag["id"] for tag in page.find_all(id=True)}
    )
    assert "References" not in " ".join(texts_of(notebook("# T", "Nothing is cited.")))
    assert not caplog.text


@pytest.mark.parametrize("size", ["50%", "200px", "wide", -5, float("nan")])
def test_invalid_picture_width_does_not_fail(size):
    output = v4.new_output("display_data", {"image/png": base64.b64encode(png()).decode()})
    output.metadata = {"image/png": {"width": size}, "report": "yes"}
    nb = notebook("# T", v4.new_code_cell("x", outputs=[output]))
    assert "<img" in LabHTMLExporter().from_notebook_node(nb)[0]
    assert LabPDFExporter().from_notebook_node(nb)[0].startswith(b"%PDF")


def test_blank_first_heading_does_not_fail():
    assert LabPDFExporter().from_notebook_node(notebook("# ", "text"))[0].startswith(b"%PDF")


def test_pandoc_timeout_is_reported(monkeypatch):
    monkeypatch.setattr("labrnn.reports.document.PATIENCE", 3)
    with pytest.raises(LabError, match="pandoc does not end within 3 s"):
        LabHTMLExporter().from_notebook_node(notebook("# T\n\ntext[^1]\n\n[^1]: see [^1]"))
