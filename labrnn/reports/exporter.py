"""Executed notebooks as printed reports: `jupyter nbconvert --to labpdf` and `--to labhtml`.

A writer for each format turns the blocks of a document (`labrnn.reports.document`) into text. What a
notebook holds can only become text: Markdown goes through `templates/markdown.lua`, everything
else becomes a string literal of Typst or is escaped for HTML.
"""

import base64
import datetime
import html
import re
import string
import tempfile
from pathlib import Path

import typst
from nbconvert.exporters import Exporter
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from traitlets import Bool

from labrnn.errors import LabError
from labrnn.reports.document import TEMPLATES, clean, convert, document, number

MIMES = {"svg": "image/svg+xml", "png": "image/png", "jpg": "image/jpeg"}
FONTS = typst.Fonts(include_system_fonts=False)  # every machine prints the same


def to_pdf(doc):
    """The document as PDF (bytes, the same for the same document). Raises LabError."""
    writer = TypstWriter()
    main = writer.write(doc).encode()
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name, data in {"main.typ": main, **writer.files}.items():
                Path(folder, name).write_bytes(data)
            return typst.compile(Path(folder, "main.typ"), root=folder, font_paths=FONTS)
    except typst.TypstError as error:
        raise LabError(
            f"report {doc.title.plain!r}: no PDF, because Typst says: {error.message}; look for "
            "a damaged picture, or take the HTML report"
        ) from error


def to_html(doc):
    """The document as one HTML page without scripts that needs no network. Raises LabError."""
    return HtmlWriter().write(doc)


class Writer:
    """Numbers and converts a document; writes its blocks with the method named like their kind."""

    def blocks(self, doc):
        self.targets = number(doc.blocks)
        pieces = [doc.title, *(piece for block in doc.blocks for piece in block.prose())]
        convert(pieces, self.targets, self)
        day = _day(doc.date)
        self.shown_date = f"{day.day} {day:%B %Y}" if day else clean(doc.date)
        return "\n\n".join(getattr(self, block.kind)(block) for block in doc.blocks)


class TypstWriter(Writer):
    format = "typst"

    def __init__(self):
        theme = (TEMPLATES / "code.tmTheme").read_bytes()
        self.files = {"report.typ": (TEMPLATES / "report.typ").read_bytes(), "code.tmTheme": theme}

    def write(self, doc):
        body = self.blocks(doc)
        day = _day(doc.date)
        date = day and f"datetime(year: {day.year}, month: {day.month}, day: {day.day})"
        return "\n".join(
            [
                '#import "report.typ": *',
                f"#show: report.with(title: [{doc.title.out}], plain: {literal(doc.title.plain)},",
                f"  authors: {_array(map(literal, doc.authors))},",
                f"  shown-date: {literal(self.shown_date)}, cover: {str(doc.cover).lower()},",
                f"  date: {date or 'none'})",
                body,
            ]
        )

    def store(self, suffix, data):
        name = f"{len(self.files)}.{suffix}"
        self.files[name] = data
        return name

    def prose(self, block):
        return block.content.out

    def code(self, block):
        return f'#raw(block: true, lang: "python", {literal(block.content, 90)})'

    def parameters(self, block):
        return "#note(sticky: true)[Parameters of this run]\n" + self.code(block)

    def text(self, block):
        return f"#raw(block: true, {literal(block.content, 90)})"

    def error(self, block):
        return f"#trouble(raw(block: true, {literal(block.content, 90)}))"

    def appendix(self, block):
        return "#show: appendix"

    def reference(self, block):
        return f"#place-of({literal(block.content)}, {literal(self.targets[block.content])})"

    def figure(self, block):
        parts = []
        for k, picture in enumerate(block.content):
            alt = picture.sub or block.caption
            file = literal(self.store(picture.suffix, picture.data))
            width = f"{picture.width}pt" if picture.width else "auto"
            part = [file, literal(alt.plain if alt else "picture"), width]
            if picture.sub:
                part += [f"[{picture.sub.out}]", literal(block.part(k))]
            parts.append(part)
        if block.content[0].sub:
            body = f"panels({int(block.columns)}, {_array(map(_array, parts))})"
        else:
            body = "picture({}, {}, width: {})".format(*parts[0])
        return self._numbered("image", block, body)

    def table(self, block):
        table = block.content
        align = _array("right" if k in table.numeric else "left" for k in range(table.columns))
        head, body = (
            _array(self._cell(cell, table.columns) for row in rows for cell in row)
            for rows in (table.head, table.body)
        )
        long = _array(map(str, sorted(table.long)))
        body = f"ruled({table.columns}, {long}, {align}, {head}, {body})"
        return self._numbered("table", block, body)

    def _cell(self, cell, columns):
        text, wide, high = cell
        text = literal(text, 24)
        spans = f"colspan: {min(wide, columns)}, rowspan: {high}"
        return text if wide == high == 1 else f"table.cell({spans}, {text})"

    def _numbered(self, kind, block, body):
        if not block.label:
            return "#" + body
        name = block.kind.capitalize()
        short = re.sub(r"\.$", "", (block.short or block.caption).out)
        return (
            f'#numbered({kind}, "{name}", {literal(block.number)}, {literal(block.label)}, '
            f"[{short}], [{block.caption.out}], {body})"
        )


class HtmlWriter(Writer):
    format = "html"

    def write(self, doc):
        self.counters, self.letters = [], False
        body = self.blocks(doc)
        contents, lists = self._contents(doc.blocks), ""
        for kind in ("figure", "table"):
            rows = "".join(
                f'<li><a href="#{html.escape(b.label)}">{kind.capitalize()} {html.escape(b.number)}'
                f"</a> {(b.short or b.caption).out}</li>\n"
                for b in doc.blocks
                if b.kind == kind and b.label
            )
            head = f"<summary>List of {kind}s</summary>"
            lists += rows and f"<details>{head}<ul>{rows}</ul></details>"
        by = " · ".join(filter(None, [", ".join(doc.authors), self.shown_date]))
        page = string.Template((TEMPLATES / "report.html").read_text())
        return page.substitute(
            name=html.escape(doc.title.plain),
            title=doc.title.out,
            by=html.escape(by),
            contents=contents,
            lists=lists,
            body=body,
            code_style=HtmlFormatter().get_style_defs(".code"),
        )

    def store(self, suffix, data):
        return f"data:{MIMES[suffix]};base64,{base64.b64encode(data).decode()}"

    def _contents(self, blocks):
        rows = [
            f'<li class="level{h["level"]}">'
            f'<a href="#{html.escape(h["id"])}">{h["number"]} {h["title"]}</a></li>'
            for block in blocks
            if block.kind == "prose"
            for h in block.content.headings
            if h["level"] < 3
        ]
        return "<ol>" + "\n".join(rows) + "</ol>" if rows else ""

    def prose(self, block):
        out = block.content.out
        for heading in block.content.headings:
            level = heading["level"]
            counts = (self.counters + [0] * level)[:level]
            self.counters = [*counts[:-1], counts[-1] + 1]
            first = chr(64 + self.counters[0]) if self.letters else str(self.counters[0])
            heading["number"] = ".".join([first, *map(str, self.counters[1:])])
            place = f'id="{heading["id"]}">'
            if level < 4:
                out = out.replace(place, f"{place}{heading['number']} ", 1)
        return f"<div>{out}</div>"

    def code(self, block):
        return highlight(block.content, PythonLexer(), HtmlFormatter(cssclass="code"))

    def parameters(self, block):
        return '<p class="note">Parameters of this run</p>' + self.code(block)

    def text(self, block):
        return f'<pre class="print">{html.escape(block.content)}</pre>'

    def error(self, block):
        text = html.escape(block.content)
        return f'<div class="error"><b>This cell stopped with an error.</b><pre>{text}</pre></div>'

    def appendix(self, block):
        self.counters, self.letters = [], True
        return "<hr>"

    def reference(self, block):
        target = html.escape(block.content)
        return f'<p class="note"><a href="#{target}">{self.targets[block.content]}</a></p>'

    def figure(self, block):
        parts = []
        for k, picture in enumerate(block.content):
            alt = html.escape((picture.sub or block.caption).plain if block.caption else "picture")
            width = f' style="width:{picture.width}pt"' if picture.width else ""
            source = self.store(picture.suffix, picture.data)
            part = f'<img src="{source}" alt="{alt}"{width}>'
            if picture.sub:
                sub = f"({chr(97 + k)}) {picture.sub.out}"
                part = f'<div id="{html.escape(block.part(k))}">{part}<p>{sub}</p></div>'
            parts.append(part)
        body = "".join(parts)
        if block.content[0].sub:
            body = f'<div class="panels" style="--columns:{int(block.columns)}">{body}</div>'
        if not block.label:
            return f"<figure>{body}</figure>"
        return (
            f'<figure id="{html.escape(block.label)}">{body}'
            f"<figcaption>{self._caption(block)}</figcaption></figure>"
        )

    def table(self, block):
        table = block.content
        head, body = (
            "".join(f"<tr>{self._row(row, tag, table)}</tr>\n" for row in rows)
            for tag, rows in (('th scope="col"', table.head), ("td", table.body))
        )
        name, caption, about = "", "", "table"
        if block.label:
            name, about = f' id="{html.escape(block.label)}"', html.escape(block.caption.plain)
            caption = f"<caption>{self._caption(block)}</caption>"
        return (
            f'<div class="wide" tabindex="0" role="group" aria-label="{about}"><table{name}>'
            f"{caption}<thead>{head}</thead><tbody>{body}</tbody></table></div>"
        )

    def _row(self, row, tag, table):
        cells = []
        for k, (text, wide, high) in enumerate(row):
            kind = 'th scope="row"' if k == 0 and not table.head else tag
            style = ' class="number"' if k in table.numeric else ""
            style = ' class="long"' if k in table.long else style
            span = f' colspan="{wide}" rowspan="{high}"' if wide > 1 or high > 1 else ""
            text = re.sub(r",(?=\S)", ",<wbr>", html.escape(text))
            cells.append(f"<{kind}{style}{span}>{text}</{kind[:2]}>")
        return "".join(cells)

    def _caption(self, block):
        return f"<b>{block.kind.capitalize()} {html.escape(block.number)}.</b> {block.caption.out}"


class LabPDFExporter(Exporter):
    """nbconvert exporter `labpdf`; `--no-input` leaves the code out."""

    export_from_notebook = "Lab report (PDF)"
    output_mimetype = "application/pdf"
    file_extension = ".pdf"
    exclude_input = Bool(False, help="Leave code and parameters out.").tag(config=True)
    render = staticmethod(to_pdf)

    def from_notebook_node(self, nb, resources=None, **kw):
        """The report (bytes or text) and nbconvert's resources. Raises LabError."""
        nb, resources = super().from_notebook_node(nb, resources, **kw)
        doc = document(nb, resources["metadata"].get("name") or "notebook")
        if self.exclude_input or self.config.TemplateExporter.get("exclude_input"):
            doc.blocks = [b for b in doc.blocks if b.kind not in ("code", "parameters")]
        return self.render(doc), resources


class LabHTMLExporter(LabPDFExporter):
    """nbconvert exporter `labhtml`: the same report as one page."""

    export_from_notebook = "Lab report (HTML)"
    output_mimetype = "text/html"
    file_extension = ".html"
    render = staticmethod(to_html)


def literal(text, longest=None):
    """A Typst string; runs of more than `longest` characters without a blank may be broken."""
    text = clean(text).replace("\r", "")
    if longest:
        piece = rf"[^,;/=&?]{{0,{longest - 1}}}[,;/=&?]|\S{{{longest}}}"
        run = rf"\S{{{longest + 1},}}"
        text = re.sub(run, lambda found: re.sub(piece, "\\g<0>\u200b", found[0]), text)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _array(items):
    return "(" + "".join(f"{item}, " for item in items) + ")"


def _day(text):
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        return None
