"""PDF pages: how full they are, where headings are, and their accessibility."""

import ctypes
import re
from itertools import product

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pypdfium2
import pypdfium2.raw as raw
import pytest
from nbformat import v4

from labrnn.reports import notebook as module
from labrnn.reports.exporter import LabHTMLExporter, LabPDFExporter
from labrnn.reports.writeup import build
from labrnn.trials.store import PROJECT

REPORTS = sorted((PROJECT / "reports" / "full").glob("*.pdf"))
TOP, BOTTOM = 71, 842 - 66  # points from the top: begin and end of the text
GAP = 48  # points: larger white runs are empty space, smaller ones separate paragraphs
LINE = 40  # points: a heading and one line of text; more must follow
EMPTY = 1 / 3
CM = 72 / 2.54


def inked(page):
    """Return whether each point of the height between header and footer has ink."""
    image = np.asarray(page.render(scale=1).to_numpy())
    return (image.min(axis=(1, 2)) < 200)[TOP:BOTTOM]


def empty(page):
    """Return the share of a page's height taken by long white runs."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], inked(page), [True]]).astype(int)))
    runs = np.diff(edges)[::2]
    return runs[runs > GAP].sum() / (BOTTOM - TOP)


def headings(document):
    """Yield (title, page, points from the top) of every bookmark."""
    for mark in document.get_toc():
        place = mark.get_dest()
        page = place.get_index()
        yield mark.get_title(), page, document[page].get_height() - place.get_view()[1][1]


def stranded(document):
    """Return the headings with nothing below them on their page."""
    return [
        title
        for title, page, top in headings(document)
        if not inked(document[page])[int(top) - TOP + LINE :].any()
    ]


def body(document):
    """Return the pages from the first heading to the appendix, without the last one."""
    places = {title: page for title, page, _ in headings(document)}
    last = next((p for t, p in places.items() if "Executed notebooks" in t), len(document)) - 1
    return range(min(places.values()), last)


def collected(monkeypatch):
    """Return a list to which `show` then adds its outputs."""
    outputs = []

    def display(data, raw, metadata=None):
        outputs.append(v4.new_output("display_data", data, metadata=metadata or {}))

    monkeypatch.setattr(module, "display", display)
    return outputs


def rendered(monkeypatch, figures, paragraphs, height=3.5, exporter=LabPDFExporter):
    """Render a report with a sentence, a figure and a table under each heading."""
    outputs = collected(monkeypatch)
    equation = "$$" + " + ".join(f"W_{{{k}}} x_{{{k}}}" for k in range(40)) + "$$"
    cells = [v4.new_markdown_cell(f"# A report\n\n{equation}")]
    for k in range(figures):
        figure, axes = plt.subplots(figsize=(6, height), layout="constrained")
        axes.plot([1, 2, 3], [0.5, 0.25 + k, 0.8], marker="o", label="validation")
        axes.set(xlabel="epoch", ylabel="loss", title=f"run {k}")
        outputs.clear()
        module.show(figure, f"fig-{k}", f"Caption {k}.")
        module.show(pd.DataFrame({"n": range(8)}), f"tbl-{k}", f"Table {k}.")
        text = f"## Heading {k}\n\n[Figure](#fig-{k}) shows it."
        cells += [v4.new_markdown_cell(text), v4.new_code_cell("x = 1", outputs=list(outputs))]
        words = "Further words follow. " * 60
        cells += [v4.new_markdown_cell(words) for _ in range(paragraphs)]
    nb = v4.new_notebook(cells=cells, metadata={"date": "2026-11-24"})
    return exporter().from_notebook_node(nb)[0]


@pytest.mark.parametrize(("figures", "paragraphs", "height"), [(7, 2, 3.5), (5, 3, 5.5), (6, 1, 2)])
def test_figures_float_so_that_pages_are_full(monkeypatch, figures, paragraphs, height):
    document = pypdfium2.PdfDocument(rendered(monkeypatch, figures, paragraphs, height))
    assert len(document) > 3
    shares = [empty(document[k]) for k in range(1, len(document) - 1)]
    assert max(shares) <= EMPTY
    assert not stranded(document)


def test_the_write_up_has_no_empty_pages_and_no_stranded_headings():
    with pypdfium2.PdfDocument(PROJECT / "reports" / "full" / "write_up.pdf") as document:
        shares = {page + 1: round(empty(document[page]), 2) for page in body(document)}
        assert len(shares) > 30
        assert {page: share for page, share in shares.items() if share > EMPTY} == {}
        assert stranded(document) == []


def test_page_headers_name_the_section_at_the_top_of_the_page():
    with pypdfium2.PdfDocument(PROJECT / "reports" / "full" / "write_up.pdf") as document:
        levels = [mark.level for mark in document.get_toc()]
        sections = [h for h, level in zip(headings(document), levels, strict=True) if level == 0]
        assert len(sections) > 8
        for page in range(1, len(document)):
            begun = [t for t, at, top in sections if at < page or (at == page and top < 3.2 * CM)]
            header = document[page].get_textpage().get_text_range().splitlines()[0]
            assert header.endswith(re.sub(r"^(\d+|A) ", "", begun[-1])), page


NAMES = ("one", "two", "three", "four")


def long_write_up(folder, figures, height, discussion, offset):
    """Return the PDF of a write-up with code, figures and varying amounts of text.

    Args:
        figures, height: number of figures per part, and their height in points.
        discussion: paragraphs at the end of each part.
        offset: paragraphs before the first cell; None: no code or text between figures.
    """
    words, paths, count = "Words that fill a line or two of the page. " * 6, [], offset or 0
    for name in NAMES:
        cells = [v4.new_markdown_cell(f"# Part {name}\n\n## Results\n\nBegin {name}. {words}")]
        cells += [v4.new_code_cell("from labrnn.lab import Lab")]
        for k in range(figures):
            size = f'width="400pt" height="{height}pt"'
            picture = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><path d="M0 0h9v9z"/></svg>'
            data = {"image/svg+xml": picture}
            entry = {"report": {"label": f"fig-{k}", "caption": f"Caption {name} {k}."}}
            shown = [v4.new_output("display_data", data, metadata=entry)]
            printed = [v4.new_output("stream", text=f"printed_{name}_{k}")]
            lines = [f"first_{name}_{k} = 1", *["x = 2"] * 18, f"last_{name}_{k} = 3"]
            tags, code = {"tags": ["answer"]}, "\n".join(lines)
            if offset is not None:
                count += 1
                cells += [v4.new_markdown_cell(words) for _ in range(count % 4)]
                cells += [v4.new_code_cell(code.replace("t_", "t_silent_"), metadata=tags)]
                cells += [v4.new_markdown_cell(f"The lead of {name} {k}, a line:")]
                cells += [v4.new_code_cell(code, outputs=printed, metadata=tags)]
            cells += [
                v4.new_markdown_cell(f"[](#fig-{k}) is shown."),
                v4.new_code_cell("y", outputs=shown),
            ]
        cells += [v4.new_markdown_cell(words) for _ in range(discussion)]
        path = folder / f"{name}.ipynb"
        nbformat.write(v4.new_notebook(cells=cells), path)
        paths.append(path)
    return build(paths, "Long", [])[0]


def found(document, text):
    """Return (page, points from the top) of the first occurrence of a text."""
    places = []
    for page in range(len(document)):
        words = document[page].get_textpage()
        search = words.search(text, match_case=True)
        while hit := search.get_next():
            places.append((page, document[page].get_height() - words.get_charbox(hit[0])[3]))
    return places[0]


@pytest.mark.parametrize(
    ("figures", "height", "discussion", "offset"),
    [(1, 300, 5, 0), (1, 180, 9, 1), (2, 180, 9, 1), (3, 180, 0, 3), (3, 450, 10, None)],
)
def test_write_up_keeps_code_output_and_figures_together(
    tmp_path, figures, height, discussion, offset
):
    """Figures stay in their part and in order; introduction, code and output share a page."""
    data = long_write_up(tmp_path, figures, height, discussion, offset)
    with pypdfium2.PdfDocument(data) as document:
        shown = []
        for name in NAMES:
            shown += [found(document, f"Begin {name}.")]
            shown += [found(document, f"Caption {name} {k}.") for k in range(figures)]
        assert shown == sorted(shown)
        for name, k in product(NAMES, range(figures if offset is not None else 0)):
            texts = (f"The lead of {name} {k}", f"first_{name}_{k}", f"last_{name}_{k}")
            pages = {found(document, text)[0] for text in (*texts, f"printed_{name}_{k}")}
            assert len(pages) == 1, (name, k)
            silent = [found(document, f"{end}_silent_{name}_{k}") for end in ("first", "last")]
            assert silent[0][0] == silent[1][0], (name, k)
        assert stranded(document) == []


def test_figures_keep_their_order_after_a_heading_low_on_a_page(monkeypatch):
    outputs = collected(monkeypatch)
    for k, height in enumerate((2.2, 3.8)):
        module.show(plt.subplots(figsize=(6, height))[0], f"fig-{k}", f"Caption {k}.")
    text = "Words that fill a line or two of the page. " * 12
    words = [v4.new_markdown_cell(text) for _ in range(32)]
    low = v4.new_markdown_cell("## Heading\n\nLow on the page: [Figure](#fig-0), [Figure](#fig-1).")
    cells = [
        v4.new_markdown_cell("# A report"),
        *words[:16],
        low,
        v4.new_code_cell("x", outputs=outputs),
        *words[16:],
    ]
    nb = v4.new_notebook(cells=cells, metadata={"date": "2026-11-24"})
    with pypdfium2.PdfDocument(LabPDFExporter().from_notebook_node(nb)[0]) as document:
        places = [found(document, text) for text in ("Low on the page", "Caption 0.", "Caption 1.")]
    assert places[0][1] > 20 * CM, places  # no room for the first figure below it
    assert places == sorted(places)


def test_tables_begin_with_several_rows_and_end_in_their_part(monkeypatch, tmp_path):
    """A table of 40 rows breaks after some rows; one of 12 rows at the end of a part does not float."""
    outputs, paths = collected(monkeypatch), []
    text = "Words that fill a line or two of the page. " * 6
    for name, paragraphs in zip("abcdef", [11, 10, 9, 9, 10, 14], strict=True):
        outputs.clear()
        for rows in (40, 12):
            table = pd.DataFrame({"row": [f"{name} {rows} {k}." for k in range(rows)]})
            module.show(table, f"tbl-{rows}", f"Caption {name} {rows}.")
        cells = [v4.new_markdown_cell(f"# Part\n\nBegin {name}.")]
        cells += [v4.new_markdown_cell(text) for _ in range(paragraphs)]
        cells += [v4.new_code_cell("x", outputs=outputs)]
        paths.append(tmp_path / f"{name}.ipynb")
        nbformat.write(v4.new_notebook(cells=cells), paths[-1])
    places = []
    with pypdfium2.PdfDocument(build(paths, "Long", [])[0]) as document:
        for name in "abcdef":
            places += [found(document, f"Begin {name}.")]
            for rows, together in ((40, 4), (12, 11)):
                ends = [found(document, f"{name} {rows} {k}.") for k in (0, together, rows - 1)]
                places += [found(document, f"Caption {name} {rows}."), *ends]
                assert places[-4][0] == ends[1][0], (name, rows)
    assert places == sorted(places)


def test_long_code_breaks_between_functions():
    body = ["    x += 1"] * 9
    functions = [
        "\n".join([f"def first_{k}(x):", *body, f"    return last_{k}"]) for k in range(12)
    ]
    cells = [v4.new_markdown_cell("# A report"), v4.new_code_cell("\n\n\n".join(functions))]
    nb = v4.new_notebook(cells=cells, metadata={"date": "2026-11-24"})
    with pypdfium2.PdfDocument(LabPDFExporter().from_notebook_node(nb)[0]) as document:
        ends = [[found(document, f"{end}_{k}")[0] for end in ("first", "last")] for k in range(12)]
    assert ends.count([0, 0]) >= 4  # the code begins on the first page and fills it
    assert ends[-1][0] > 0
    assert all(first == last for first, last in ends)


def alternatives(page):
    """Return (kind, alternative text) of the page's figures and formulas."""
    tree = raw.FPDF_StructTree_GetForPage(page.raw)
    stack = [
        raw.FPDF_StructTree_GetChildAtIndex(tree, k)
        for k in range(raw.FPDF_StructTree_CountChildren(tree))
    ]
    found = []
    while stack:
        element = stack.pop()
        if not element:
            continue
        kind = _text(raw.FPDF_StructElement_GetType, element)
        if kind in ("Figure", "Formula"):
            found.append((kind, _text(raw.FPDF_StructElement_GetAltText, element)))
        children = raw.FPDF_StructElement_CountChildren(element)
        stack += [raw.FPDF_StructElement_GetChildAtIndex(element, k) for k in range(children)]
    raw.FPDF_StructTree_Close(tree)
    return found


def _text(function, handle):
    size = function(handle, None, 0)
    buffer = (ctypes.c_ushort * (size // 2))()
    function(handle, buffer, size)
    return bytes(buffer).decode("utf-16-le").rstrip("\0")


def accessible(data):
    """Check requirements of PDF/UA-1; return the alternative texts of the figures."""
    assert re.search(rb"pdfuaid:part>1<|pdfuaid:part=.1", data)
    with pypdfium2.PdfDocument(data) as document:
        assert document.get_metadata_value("Title")
        assert _text(raw.FPDFCatalog_GetLanguage, document.raw).startswith("en")
        pages = [document[k].get_textpage().get_text_range() for k in range(len(document))]
        found = [pair for k in range(len(document)) for pair in alternatives(document[k])]
    assert all(text.strip() for _, text in found)
    whole = re.sub(r"\s+", " ", " ".join(pages))
    figures = [text for kind, text in found if kind == "Figure"]
    assert not [text for text in figures if re.sub(r"\s+", " ", text) in whole]
    return figures


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_committed_reports_are_accessible(path):
    figures = accessible(path.read_bytes())
    assert figures or path.stem in ("lab1_data", "questions")


def test_a_rendered_report_is_accessible(monkeypatch):
    assert sorted(accessible(rendered(monkeypatch, 2, 1))) == [
        f"run {k}: loss against epoch: validation from 0.5 to 0.8." for k in range(2)
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone(monkeypatch, browser, tmp_path, scheme):
    """The page does not scroll sideways; text contrasts with the background."""
    path = tmp_path / "page.html"
    path.write_text(rendered(monkeypatch, 2, 1, exporter=LabHTMLExporter), "utf-8")
    with browser.new_context(
        viewport={"width": 390, "height": 844}, color_scheme=scheme
    ) as context:
        page = context.new_page()
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        colours = "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        text, behind = (
            sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in page.evaluate(colours)
        )
        assert (behind < 150, text > 600) == ((scheme == "dark"),) * 2
        assert all(image.get_attribute("alt") for image in page.locator("img").all())
