"""What a report is made of: an executed notebook as a list of blocks, numbered and converted.

`labrnn.reports.exporter` writes a document as PDF or HTML; `labrnn.reports.writeup` joins several notebooks.
"""

import ast
import base64
import itertools
import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pypandoc
from bs4 import BeautifulSoup

from labrnn.errors import LabError
from labrnn.results.prose import UNPRINTABLE

TEMPLATES = Path(__file__).parent / "templates"
MAX_LINES, KEPT_LINES, MAX_LINE = 60, 25, 2000  # of a printed output
LONG_CELL = 40  # characters; a column with longer cells wraps
PICTURES = {"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg"}
NUMERIC = re.compile(r"[-−+±<>≤≥~]?\s*\d[\d.,\s%±×/:()\[\]–−-]*(e[-+]?\d+)?|[-–—]?")


@dataclass
class Prose:
    """A piece of Markdown; `out`, `plain` and `headings` are what pandoc made of it."""

    source: str
    where: str = "the title block"
    inline: bool = True
    shift: int = 0  # of heading levels
    prefix: str = ""  # of the labels it defines and refers to
    pictures: dict = field(default_factory=dict)  # attachment address -> (suffix, bytes)
    out: str = ""
    plain: str = ""
    headings: list = field(default_factory=list)


@dataclass
class Picture:
    suffix: str
    data: bytes
    width: float | None = None  # points
    sub: Prose | None = None


@dataclass
class Table:
    """Rows of cells (text, columns spanned, rows spanned); `numeric` and `long` are columns."""

    head: list
    body: list
    columns: int
    numeric: set
    long: set


@dataclass
class Block:
    """One thing to print: prose, code, parameters, text, error, figure, table or reference."""

    kind: str
    content: Any
    label: str = ""
    caption: Prose | None = None
    short: Prose | None = None
    number: str = ""
    columns: int = 1
    tags: tuple = ()  # of its cell; the write-up goes by `answer` and `exercises`

    def part(self, k):
        """The label of sub-figure k, 0 is (a)."""
        return f"{self.label}-{chr(97 + k)}"

    def prose(self):
        """All Markdown of the block."""
        subs = [picture.sub for picture in self.content] if self.kind == "figure" else []
        found = [self.content, self.caption, self.short, *subs]
        return [piece for piece in found if isinstance(piece, Prose)]


@dataclass
class Document:
    title: Prose
    authors: list
    date: str  # ISO date or empty
    blocks: list
    cover: bool = False  # a title page and page breaks between front matter and text


def document(nb, name):
    """The report of one executed notebook. Raises LabError."""
    title, blocks = part(nb, name)
    if "title" in nb.metadata:
        title = Prose(str(nb.metadata.title))
    authors = [
        clean(author.get("name", "") if isinstance(author, dict) else author)
        for author in nb.metadata.get("authors", [])
    ]
    return Document(title, authors, str(nb.metadata.get("date", "")), blocks + made_by(nb))


def part(nb, name, top=1, prefix=""):
    """Title (Prose) and blocks of a notebook whose second-level headings shall be level `top`.

    Labels get `prefix`, so that those of several notebooks can stand in one document.
    """
    opening = next((c for c in nb.cells if c.cell_type == "markdown" and c.source.strip()), None)
    match = opening and re.match(r"\s*# +(.+)\n?", opening.source)
    title = Prose(match[1] if match else name, f"{name}, title", prefix=prefix)
    shift = top - 2 if match else top - 1
    tagged = {tag for cell in nb.cells for tag in cell.metadata.get("tags", [])}
    defaults, blocks = "", []

    def add(new, tags):
        for block in new:
            block.tags = tuple(tags)
        blocks.extend(new)

    for n, cell in enumerate(nb.cells, 1):
        tags, where = cell.metadata.get("tags", []), f"{name}, cell {n}"
        source = clean(cell.source).strip("\n")
        if {"remove-cell", "papermill-error-cell-tag"} & set(tags):
            continue
        if cell.cell_type == "markdown":
            text = source[match.end() :] if match and cell is opening else source
            pictures = {
                f"attachment:{file}": (PICTURES[kind], base64.b64decode(data))
                for file, kinds in cell.get("attachments", {}).items()
                for kind, data in kinds.items()
                if kind in PICTURES
            }
            prose = Prose(text, where, False, shift, prefix, pictures)
            add([Block("prose", prose)], tags)
        elif cell.cell_type == "code":
            if "parameters" in tags and "injected-parameters" in tagged:
                defaults = source
            elif {"parameters", "injected-parameters"} & set(tags):
                blocks.append(Block("parameters", _in_use(defaults, source)))
            elif source and "hide-input" not in tags:
                add([Block("code", source)], tags)
            add(_outputs(cell, where, shift, prefix), tags)
    return title, blocks


def made_by(nb, level=1):
    """Blocks that tell how a notebook was executed, from the dictionary `metadata.labrnn`."""
    rows = []
    for key, value in nb.metadata.get("labrnn", {}).items():
        if isinstance(value, dict):
            value = [f"{name} {inner}" for name, inner in value.items()]
        value = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        rows.append([(clean(key), 1, 1), (clean(value), 1, 1)])
    heading = Prose("#" * level + " How this report was made", inline=False)
    return rows and [Block("prose", heading), Block("table", Table([], rows, 2, set(), {1}))]


def _in_use(defaults, injected):
    """Assignments of both parameter cells, the injected value where there is one."""
    try:
        lines = {}
        for node in ast.parse(defaults).body + ast.parse(injected).body:
            if isinstance(node, (ast.Assign, ast.AnnAssign)):
                target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                lines[ast.unparse(target)] = ast.unparse(node.value)
        return "\n".join(f"{name} = {value}" for name, value in lines.items())
    except (SyntaxError, ValueError, AttributeError):
        return injected


def _outputs(cell, where, shift, prefix):
    def prose(source, **more):
        return source and Prose(source, where, prefix=prefix, **more)

    blocks = []
    for output in cell.outputs:
        if output.output_type == "stream":
            text = "" if output.name == "stderr" else output.text
            if text and blocks and blocks[-1].kind == "text":
                blocks[-1].content += text
            elif text:
                blocks.append(Block("text", text))
            continue
        if output.output_type == "error":
            trace = "\n".join(output.traceback) or f"{output.ename}: {output.evalue}"
            blocks.append(Block("error", re.sub(r"^(\x1b\S*?m)?-{9,}", "", trace).strip()))
            continue
        data, report = output.data, output.metadata.get("report", {})
        kind = next((kind for kind in PICTURES if kind in data), None)
        label = report.get("label") and prefix + report["label"]
        block = Block("", None, label, prose(report.get("caption")), prose(report.get("short")))
        block.number = str(report.get("number", ""))
        block.columns = report.get("columns", 1)
        if "repeats" in report or "application/vnd.jupyter.widget-view+json" in data:
            continue
        if kind:
            raw = data[kind].encode() if kind == "image/svg+xml" else base64.b64decode(data[kind])
            width = output.metadata.get(kind, {}).get("width")
            picture = Picture(PICTURES[kind], raw, width and width * 0.75)
            picture.sub = prose(report.get("sub"))
            if report.get("group"):
                blocks[-1].content.append(picture)
                continue
            block.kind, block.content = "figure", [picture]
        elif "<table" in data.get("text/html", ""):
            block.kind, block.content = "table", _table(data["text/html"])
        elif "text/markdown" in data or "text/latex" in data:
            text = data.get("text/markdown", data.get("text/latex"))  # empty: progress that ended
            block.kind, block.content = "prose", prose(text, inline=False, shift=shift)
        elif not data.get("text/plain", "<").startswith("<"):
            block.kind, block.content = "text", data["text/plain"]
        if block.content:
            blocks.append(block)
    for block in blocks:
        if block.kind in ("text", "error"):
            block.content = _cut(block.content)
    return blocks


def _cut(text):
    """Terminal output as paper shows it: last state of progress lines, no colours, not endless."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).rstrip().replace("\r\n", "\n")
    lines = [clean(line.rstrip("\r").rsplit("\r", 1)[-1]) for line in text.split("\n")]
    lines = [x if len(x) <= MAX_LINE else x[:MAX_LINE] + " [... line cut]" for x in lines]
    if len(lines) > MAX_LINES:
        left = len(lines) - 2 * KEPT_LINES
        lines[KEPT_LINES:-KEPT_LINES] = [f"[... {left} lines left out ...]"]
    return "\n".join(lines)


def _table(page):
    table = BeautifulSoup(page, "html.parser").find("table")
    head, body = [], []
    for row in table("tr"):
        cells = []
        for cell in row(["th", "td"]):
            spans = (re.sub(r"\D", "", cell.get(key, "")) for key in ("colspan", "rowspan"))
            cells.append((clean(cell.get_text().strip()), *(int(n or 1) or 1 for n in spans)))
        if row.find_parent("tbody") or any(text for text, *_ in cells):  # no head of blanks
            (head if row.find_parent("thead") else body).append(cells)
    if len(head) == 2 and len(head[0]) == len(head[1]):  # names of index and of columns
        pairs = list(zip(*head, strict=True))
        if not any(a[0] and b[0] for a, b in pairs):
            head = [[a if a[0] else b for a, b in pairs]]
    rows = [row for row in head + body if row]
    if not rows:
        return None
    columns = sum(cell[1] for cell in rows[0])
    texts = [[row[k][0] for row in body if len(row) == columns] for k in range(columns)]
    numeric = {k for k, t in enumerate(texts) if any(t) and all(map(NUMERIC.fullmatch, t))}
    long = {k for k, t in enumerate(texts) if any(len(x) > LONG_CELL for x in t)}
    return Table(head, body, columns, numeric, long)


def clean(text):
    """The text without characters that no page can hold."""
    return UNPRINTABLE.sub("\ufffd", str(text))


def number(blocks):
    """Number figures and tables; the text that stands for each label, such as 'Figure 3c'."""
    counters = {"figure": itertools.count(1), "table": itertools.count(1)}
    targets = {}
    for block in (b for b in blocks if b.label and b.kind in counters):
        if block.label in targets:
            raise LabError(
                f"{block.caption.where}: label {block.label!r} was used before; give each figure "
                "and table of a notebook a label of its own"
            )
        if not block.number:
            count = next(counters[block.kind])
            block.number = f"S{count}" if block.kind == "figure" else str(count)
        name = targets[block.label] = f"{block.kind.capitalize()} {block.number}"
        if block.kind == "figure" and block.content[0].sub:
            for k in range(len(block.content)):
                targets[block.part(k)] = name + chr(97 + k)
    return targets


def convert(pieces, targets, writer):
    """Fill `out`, `plain` and `headings` of all Prose in one run of pandoc. Raises LabError."""
    fragments = [
        {
            "source": clean(_mathematics(piece.source))
            + "\n",  # pandoc drops a table's last line without
            "inline": piece.inline,
            "shift": piece.shift,
            "prefix": piece.prefix,
            "files": {key: writer.store(*picture) for key, picture in piece.pictures.items()},
        }
        for piece in pieces
    ]
    job = json.dumps({"to": writer.format, "targets": targets, "fragments": fragments})
    # Some Markdown makes pandoc take all memory there is: it stops at 2 GB instead.
    command = [pypandoc.get_pandoc_path(), "+RTS", "-M2g", "-RTS"]
    command += ["lua", str(TEMPLATES / "markdown.lua")]
    done = subprocess.run(command, input=job.encode(), capture_output=True, timeout=300)
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace"))
    for piece, result in zip(pieces, json.loads(done.stdout), strict=True):
        if result["problems"]:
            raise LabError(
                f"{piece.where}: pandoc does not know this TeX: {result['problems'][0]}; write "
                "it with commands of amsmath, for example \\operatorname{...}"
            )
        piece.out, piece.plain = result["out"], " ".join(result["plain"].split())
        piece.headings = result["headings"]


def _mathematics(source):
    """Bare environments in dollar signs, labels dropped: the form that pandoc reads."""
    pieces = re.split(r"(^```.*?^```|\$\$.*?\$\$)", source, flags=re.M | re.S)
    bare = r"\\begin\{(align|gather|equation|eqnarray)\*?\}(.*?)\\end\{\1\*?\}"
    for k, piece in enumerate(pieces):
        if piece.startswith("$$"):
            pieces[k] = re.sub(r"\\label\{[^}]*\}", "", piece)
        elif not piece.startswith("```"):
            pieces[k] = re.sub(bare, _dollars, piece, flags=re.S)
    return "".join(pieces)


def _dollars(match):
    inner = re.sub(r"\\label\{[^}]*\}|\\nonumber\b", "", match[2]).strip()
    if match[1] in ("align", "eqnarray"):
        inner = rf"\begin{{aligned}}{inner}\end{{aligned}}"
    elif match[1] == "gather":
        inner = rf"\begin{{gathered}}{inner}\end{{gathered}}"
    return f"$${inner}$$"
