"""Export executed notebooks as reports: `jupyter nbconvert --to labpdf` and `--to labhtml`.

`templates/report.lua` writes a document (`labrnn.reports.document`) as Typst or HTML. This module
runs Typst to make the PDF, and embeds the pictures in the HTML page.
"""

import base64
import datetime
import html
import re
from contextlib import suppress

import typst
from nbconvert.exporters import Exporter, TemplateExporter
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound
from traitlets.log import get_logger

from labrnn.errors import LabError
from labrnn.reports.document import FONTS, PICTURES, TEMPLATES, clean, compiled, document, pandoc

MIMES = {suffix: mime for mime, suffix in PICTURES.items()}
CODE = HtmlFormatter(cssclass="code")
DARK = HtmlFormatter(cssclass="code", style="github-dark").get_style_defs(".code")
STYLE = f"{CODE.get_style_defs('.code')}\n@media (prefers-color-scheme: dark) {{ {DARK} }}"


def to_pdf(doc, written=None):
    """Return a document as PDF, equal bytes for equal documents; `written`: result of `write`."""
    known = {name: (TEMPLATES / name).read_bytes() for name in ("report.typ", "code.tmTheme")}
    known |= {path.name: path.read_bytes() for path in FONTS} | doc.pictures
    written = written or write(doc, "typst")
    try:
        return _compiled({**known, "main.typ": written["out"]["typst"].encode()})
    except typst.TypstError as error:
        broken = {
            str(k): piece["tex"]
            for k, piece in enumerate(written["formulas"], 1)
            if piece["out"] and not _compiles(piece["out"])
        }
        if not broken:
            raise LabError(
                f"report {written['name']!r}: Typst cannot make a PDF ({error.message}); use the "
                "HTML report (--to labhtml)"
            ) from error
    written = write(doc, "typst", as_source=broken)
    return _compiled({**known, "main.typ": written["out"]["typst"].encode()})


def _compiles(formula):
    try:
        compiled({"main.typ": formula.encode()})
    except typst.TypstError:
        return False
    return True


def _compiled(files):
    """Return a tagged PDF, PDF/UA-1 if possible. Raises TypstError.

    System fonts are used only for letters that our fonts lack."""
    options = {"system_fonts": False, "pdf_standards": ["ua-1"]}
    while True:
        try:
            return compiled(files, **options)
        except typst.TypstError as error:
            missing = re.match(r"PDF/UA-1 error: the text (.*) could not be", error.message)
            if not error.message.startswith("PDF/UA-1 error"):
                raise
            if missing and not options["system_fonts"]:
                options["system_fonts"] = True
                continue
            if missing:
                get_logger().warning(
                    "no font has the letter %s: install one that has it, for example the Debian "
                    "package fonts-noto-cjk for Chinese; the HTML report shows it",
                    missing[1],
                )
            options["pdf_standards"] = []


def to_html(doc, written=None):
    """Return a document as one page without scripts or files; `written`: result of `write`."""
    page = (written or write(doc, "html"))["out"]["html"]
    page = re.sub(r'<pre class="([\w+-]+)"><code>(.*?)</code></pre>', _coloured, page, flags=re.S)
    return re.sub(
        r'src="picture:([0-9a-f]+\.\w+)"', lambda m: f'src="{address(doc.pictures, m[1])}"', page
    )


def _coloured(match):
    try:
        lexer = get_lexer_by_name(match[1])
    except ClassNotFound:
        return match[0]
    return highlight(html.unescape(match[2]), lexer, CODE)


def address(pictures, file):
    """Return a picture as a data URL."""
    data = base64.b64encode(pictures[file]).decode()
    return f"data:{MIMES[file.rpartition('.')[2]]};base64,{data}"


def write(doc, *to, **more):
    """Return the result of `report.lua` for `typst`, `html` or both. Raises LabError."""
    more |= {"template": (TEMPLATES / "report.html").read_text("utf-8"), "code_style": STYLE}
    more["shown_date"] = clean(doc.date)
    with suppress(ValueError):
        day = datetime.date.fromisoformat(doc.date)
        more["shown_date"] = f"{day.day} {day:%B %Y}"
        more["date"] = f"datetime(year: {day.year}, month: {day.month}, day: {day.day})"
    more["references"] = (TEMPLATES / "references.bib").read_text("utf-8")
    result = pandoc(to, doc.parts, title=doc.title, authors=doc.authors, cover=doc.cover, **more)
    if result["problems"]:
        raise LabError(result["problems"][0])
    return result


class LabPDFExporter(TemplateExporter):
    """nbconvert exporter `labpdf`, with the settings of nbconvert's own exporters."""

    export_from_notebook = "Lab report (PDF)"
    output_mimetype = "application/pdf"
    file_extension = ".pdf"
    render = staticmethod(to_pdf)

    def read(self, nb, resources=None, **kw):
        """Return the notebook's `Document` and nbconvert's resources."""
        nb, resources = Exporter.from_notebook_node(self, nb, resources, **kw)
        facts = resources["metadata"]
        left_out = {"code": self.exclude_code_cell, "markdown": self.exclude_markdown}
        left_out["raw"] = self.exclude_raw
        nb.cells = [cell for cell in nb.cells if not left_out.get(cell.cell_type)]
        hidden = ["remove_input"] * self.exclude_input + ["remove_output"] * self.exclude_output
        for cell in nb.cells:
            cell.metadata.tags = [*cell.metadata.get("tags", []), *hidden]
        return document(nb, facts.get("name") or "notebook", facts.get("path") or "."), resources

    def from_notebook_node(self, nb, resources=None, **kw):
        """Return the report (bytes or text) and nbconvert's resources. Raises LabError."""
        doc, resources = self.read(nb, resources, **kw)
        return self.render(doc), resources


class LabHTMLExporter(LabPDFExporter):
    """nbconvert exporter `labhtml`: the same report as one page."""

    export_from_notebook = "Lab report (HTML)"
    output_mimetype = "text/html"
    file_extension = ".html"
    render = staticmethod(to_html)
