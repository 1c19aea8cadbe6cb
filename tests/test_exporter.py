"""Reports are really rendered here, and read back: text with pypdfium2, pages as pictures."""

import base64
import re
import unicodedata

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pypdfium2
import pytest
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from nbconvert.exporters import get_exporter
from nbformat import v4

from labrnn.errors import LabError
from labrnn.reports import notebook as module
from labrnn.reports.document import Block, Document, Part, document
from labrnn.reports.exporter import LabHTMLExporter, LabPDFExporter, to_html, to_pdf
from labrnn.results.prose import UNPRINTABLE, quote

HOSTILE = (
    '<script>alert("1")</script> #eval("1+1") $5 and $6 \\begin{x} \\\\ *bold* _it_ `code` '
    "[a](http://b.c) @ref <lab> // no comment /* \" ' ``` ~ ^ = | {y} &lt; 1."
)


@pytest.fixture
def shown(monkeypatch):
    """Outputs of what a cell shows, made without a kernel."""
    outputs = []

    def display(data, raw, metadata=None):
        assert raw
        outputs.append(v4.new_output("display_data", data, metadata=metadata or {}))

    monkeypatch.setattr(module, "display", display)
    return outputs


def curve(width=3.3, height=2.2):
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.plot([1, 2, 3], [0.5, 0.7, 0.8])
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
    """The text of each page; soft hyphens and line ends as blanks."""
    found = pypdfium2.PdfDocument(data)
    texts = (found[k].get_textpage().get_text_range() for k in range(len(found)))
    return [re.sub(r"\s+", " ", text.replace("\u200b", "")) for text in texts]


def squeezed(data):
    return re.sub(r"\s", "", "".join(pages(data)))


def test_figures_and_tables_are_numbered_listed_and_referred_to(shown):
    table = pd.DataFrame({"gate": ["input"], "sum": ["0.5"]})
    module.show(curve(), "fig-extra", "Our own figure.")
    module.show_grid([(curve(), f"sub {k}") for k in "xyz"], "fig-grid", "Three.", number=3)
    module.show(curve(), "fig-part", "A part of the lab's eighth.", short="Eighth", number="8a")
    module.show(curve(), "fig-more", "Another.")
    module.show(table, "tbl-one", "Gates.")
    nb = notebook(
        "# Title\n\nSee [Figure](#fig-grid), [](#fig-grid-c), [](#fig-part), [Figure](#fig-more),"
        " [Table 9](#tbl-one), [the first](#fig-extra), [](#fig-gone), [Figure 5](#fig-five)"
        " and [Table](#tbl-gone). [Figure](#fig-off) comes first.",
        cell(outputs=shown),
    )
    said = (
        "See Figure 3, Figure 3c, Figure 8a, Figure S2, Table 1, the first, "
        "a figure not shown here, Figure 5 and a table not shown here. "
        "A figure not shown here comes first."
    )
    text = " ".join(pages(pdf(nb)))
    assert said in text
    assert re.search(r"List of figures Figure S1 Our own figure[ .]+\d Figure 3 Three[ .]+\d", text)
    assert re.search(r"Figure 8a Eighth[ .]+\d .*List of tables Table 1 Gates[ .]+\d", text)
    assert "Figure 8a. A part of the lab’s eighth." in text
    assert all(f"({letter}) sub {name}" in text for letter, name in zip("abc", "xyz", strict=True))

    page = BeautifulSoup(html(nb), "html.parser")
    assert said in " ".join(page.get_text().split())
    ids = [tag["id"] for tag in page.find_all(id=True)]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in page.find_all("a")} <= set(ids)
    assert [img["alt"] for img in page.find_all("img")][:2] == ["Our own figure.", "sub x"]
    assert page.find("th", scope="col").get_text() == "gate"


def test_lists_and_contents_are_left_out_where_there_is_nothing_to_list():
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
        assert left >= 66  # points: 2.4 cm less a hair
        assert right <= 595 - 66


def test_text_from_outside_is_printed_and_never_run(shown):
    module.say("A review said: " + quote(HOSTILE))
    module.show(pd.DataFrame({"review": [HOSTILE]}), "tbl-x", "A review: " + quote(HOSTILE))
    module.show_grid([(curve(), quote(HOSTILE))], "fig-x", quote(HOSTILE))
    error = v4.new_output("error", ename="E", evalue=HOSTILE, traceback=[HOSTILE])
    nb = notebook("# " + quote(HOSTILE), cell(HOSTILE, [stream(HOSTILE), error, *shown]))
    nb.metadata.update(authors=[HOSTILE], labrnn={HOSTILE: HOSTILE})
    data = pdf(nb)
    # title, title in the head of pages, prose, 2 captions, sub-caption, cell, code, print, ...
    assert squeezed(data).count(re.sub(r"\s", "", HOSTILE)) >= 9

    page = html(nb)
    assert not re.search(r"<script|<lab>|href=.http", page)
    assert page.count("&lt;script&gt;") >= 9
    for sandboxed in ("default-src 'none'", "img-src data:"):
        assert sandboxed in page


def test_characters_without_a_glyph_or_a_meaning_do_not_stop_a_report(shown):
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
def test_quoted_text_comes_out_as_it_went_in(text):
    block = Block("markdown", "| " + quote(text) + " |")
    page = to_html(Document([Part("T", [block])], {}))
    shown = BeautifulSoup(page, "html.parser").find("main").get_text()
    expected = f"| {UNPRINTABLE.sub(chr(0xFFFD), text)} |"
    # Pandoc composes characters and their marks (NFC), which print the same.
    words = [unicodedata.normalize("NFC", said).split() for said in (shown, expected)]
    assert words[0] == words[1]


def test_raw_html_and_raw_typst_of_a_markdown_cell_lose_their_power():
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


def test_what_paper_does_not_want_is_left_out():
    widget = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "HBox(...)"}
    outputs = [
        stream("warned\n", "stderr"),
        stream(" 10%|#\r 50%|##\r100%|###\nafter\x1b[31m red\x1b[0m\n"),
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
    for absent in ("warned", "50%", "HBox", "progress", "hidden", "removed", "line 500.", "[31m"):
        assert absent not in text
    for present in ("shown", "100%|###", "after red", "kept = 1", "line 999.", "lines left out"):
        assert present in text


def test_an_error_is_shown():
    error = v4.new_output("error", ename="ValueError", evalue="no", traceback=["-" * 75, "Trace 7"])
    text = " ".join(pages(pdf(notebook("# T", cell("f()", [error])))))
    assert "This cell stopped with an error. Trace 7" in text


def test_mathematics_is_set():
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


def test_unknown_tex_is_shown_as_its_source_with_a_warning(caplog):
    nb = notebook("# T", "fine $x$ but $\\nonsense{x}$ here")
    assert r"but \nonsense{x} here" in " ".join(pages(pdf(nb)))
    assert "<code>\\nonsense{x}</code>" in html(nb)
    assert caplog.text.count("Notebook, cell 2: the formula \\nonsense{x}") == 2


def test_attached_pictures_are_embedded(shown):
    module.show(curve(), "fig-x", "x")
    attached = v4.new_markdown_cell("![gates](attachment:a.png) ![none](attachment:b.png)")
    attached["attachments"] = {"a.png": {"image/png": shown[0].data["image/png"]}}
    nb = notebook("# T", attached)
    image = BeautifulSoup(html(nb), "html.parser").find("img")
    assert image["alt"] == "gates"
    assert image["src"] == "data:image/png;base64," + shown[0].data["image/png"]
    (page,) = pypdfium2.PdfDocument(pdf(nb))
    assert sum(item.type == 3 for item in page.get_objects()) == 1  # 3: image
    assert "none" in pages(pdf(nb))[0]


def test_pictures_without_a_caption_and_without_svg(shown):
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
    assert black.sum(axis=1).max() == pytest.approx(144, abs=2)


def test_a_grid_of_eight_fits_a_page(shown):
    module.show_grid([(curve(4, 3), f"width {k}") for k in range(8)], "fig-8", "Eight.")
    (page,) = [page for page in pages(pdf(notebook("# T", cell(outputs=shown)))) if "(a)" in page]
    assert "(h) width 7" in page
    assert "Figure S1. Eight." in page


def test_tables_of_pandas_are_read_as_they_are():
    frame = pd.DataFrame({"n": [1, 2], "text": ["<b>", "x"]}, index=pd.Index([5, 6], name="seed"))
    many = pd.DataFrame(np.zeros((2, 4)), columns=pd.MultiIndex.from_product([["p", "q"], [1, 2]]))
    outputs = [
        v4.new_output("execute_result", {"text/html": x.to_html(), "text/plain": "plain"})
        for x in (frame, many)
    ]
    nb = notebook("# T", cell(outputs=outputs))
    text = " ".join(pages(pdf(nb)))
    assert "seed n text 5 1 <b> 6 2 x" in text
    assert "p q 1 2 1 2 0 0.0" in text
    assert "plain" not in text
    assert BeautifulSoup(html(nb), "html.parser").find_all("table")[1].find(colspan="2")


def test_a_head_of_blanks_is_no_head():
    frame = pd.DataFrame({"": ["rows"], " ": [25]})
    output = v4.new_output("display_data", {"text/html": frame.to_html(index=False)})
    table = BeautifulSoup(html(notebook("# T", cell(outputs=[output]))), "html.parser").table
    assert not table.thead
    assert table.tbody.th.text == "rows"


def test_code_and_headings_stay_with_what_follows_them(shown):
    module.show(curve(), "fig-a", "The figure.")
    for lines in (26, 44):  # the figure needs the next page; its code would not
        text = cell("filled = 1", [stream("line\n" * lines)])
        found = pages(pdf(notebook("# T", text, "## Head", cell("drawn = 1", shown[:1]))))
        assert len(found) == 2
        assert "1 Head drawn = 1" in found[1]
        assert "Figure S1. " in found[1]


def test_how_to_read_a_thing_is_added_to_its_caption_and_not_to_the_lists(shown):
    figure = curve()
    figure.set_label("Dotted is chance.")
    module.show(figure, "fig-a", "The figure.")
    frame = pd.DataFrame({"n": [3]})
    frame.attrs["key"] = "n: seeds."
    module.show(frame, "tbl-a", "The table.")
    text = " ".join(pages(pdf(notebook("# T", cell("x", shown)))))
    assert text.count("Figure S1. The figure. Dotted is chance.") == 1
    assert text.count("Table 1. The table. n: seeds.") == 1
    assert text.count("Dotted is chance") == 1


def test_how_the_report_was_made():
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


def test_other_objects_are_refused():
    with pytest.raises(LabError, match=r"'fig-x'.*found list"):
        module.show([1], "fig-x", "x")


def test_a_label_used_twice_is_refused(shown):
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
    assert shown[1].data["text/markdown"] == "**Figure 3.** A *caption*."
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


def test_nbconvert_knows_both_by_name():
    assert get_exporter("labpdf") is LabPDFExporter
    assert get_exporter("labhtml") is LabHTMLExporter


def test_five_hundred_trials(shown):
    frame = pd.DataFrame({"trial": [f"LR=0.001,SEED={k}" for k in range(500)], "test": "0.8750"})
    module.show(frame, "tbl-x", "All trials.")
    nb = notebook("# T", cell(outputs=shown))
    text = squeezed(pdf(nb))
    assert all(text.count(f"SEED={k}0.8750") == 1 for k in range(500))


def test_a_document_can_be_rendered_twice(shown):
    module.show(curve(), "fig-x", "x")
    doc = document(notebook("# T\n\n[](#fig-x)", cell(outputs=shown)), "x")
    first = to_pdf(doc)
    assert "Figure S1" in to_html(doc)
    assert to_pdf(doc) == first
