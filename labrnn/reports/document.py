"""The content of a report: an executed notebook as a list of blocks.

`templates/report.lua` turns the blocks into one pandoc tree and writes it as Typst or HTML.
`labrnn.reports.exporter` calls it; `labrnn.reports.writeup` joins several notebooks.
"""

import ast
import base64
import binascii
import hashlib
import html
import json
import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes

import pypandoc
import typst
from traitlets.log import get_logger

from labrnn.errors import LabError
from labrnn.files import read_file
from labrnn.results.prose import UNPRINTABLE

MAX_LINES, KEPT_LINES, MAX_LINE = 60, 25, 2000  # limits for a printed output
PATIENCE = 120  # seconds for pandoc; the whole write-up takes three
PICTURES = {  # picture types that Typst draws, the preferred one first
    "image/svg+xml": "svg",
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "image/gif": "gif",
    "application/pdf": "pdf",
}
TEMPLATES = Path(__file__).parent / "templates"
# Typst's own fonts lack Arabic; with these every machine prints the same. The folder's LastResort
# font is left out: it has a box for every letter, so no letter would be reported as missing.
FONTS = sorted(Path(find_spec("matplotlib").origin).parent.glob("mpl-data/fonts/ttf/DejaVuSans*"))
# A text/plain that only names the displayed object.
PLACEHOLDER = re.compile(
    r"\s*(<(IPython\.\S+ object|Figure size .+ Axes|[\w.]+( object)? at 0x\w+)>)?\s*"
)
INTERACTIVE = re.compile(r"<(script|input|button|canvas|video|audio|iframe|object|embed)\b", re.I)
TAG = re.compile(r"(?:remove|hide)[-_](input|output|cell)")


@dataclass
class Block:
    """One block of a report.

    Kinds: markdown (a cell), computed (Markdown of an output), front (the same, with unnumbered
    headings), html, code, parameters, print, error, note, figure, headings (only those of `text`),
    reference (to the label `text`), references (the works cited), contents, appendix.
    `label`, `caption` and `number` are those of `labrnn.reports.notebook.show`; `files` maps the
    addresses of pictures in `text` to files of the document.
    """

    kind: str
    text: str = ""
    where: str = ""
    label: str = ""
    caption: str = ""
    number: str = ""
    columns: int = 1
    level: int = 0
    language: str = "python"
    pictures: list = field(default_factory=list)  # dicts: file, alt, width (points), sub
    tags: list = field(default_factory=list)  # of its cell
    files: dict = field(default_factory=dict)
    attached: dict = field(default_factory=dict)


@dataclass
class Part:
    """The blocks of one notebook; headings begin at level `top`, labels with `prefix`.

    `heading` is the level of the title; with 0 it becomes the title of the document.
    """

    name: str
    blocks: list
    top: int = 1
    prefix: str = ""
    heading: int = 0


REFERENCES = Part("", [Block("references", "# References", level=1)])


@dataclass
class Document:
    parts: list
    pictures: dict  # file name -> bytes
    title: str = ""  # Markdown; empty: the title of the first part
    authors: list = field(default_factory=list)
    date: str = ""  # ISO date or any text
    cover: bool = False  # whether it has the large title of the write-up


def document(nb, name, folder="."):
    """Return the `Document` of one executed notebook; `folder` contains its pictures."""
    doc = Document([], {}, str(nb.metadata.get("title", "")), date=str(nb.metadata.get("date", "")))
    for author in nb.metadata.get("authors", []):
        doc.authors.append(clean(author.get("name", "") if isinstance(author, dict) else author))
    doc.parts = [part(nb, name, doc.pictures, folder), REFERENCES, *made_by(nb)]
    return doc


def part(nb, name, pictures, folder=".", **more):
    """Return the `Part` of a notebook, and add its pictures to `pictures`."""
    source_folder = Path(nb.metadata.get("papermill", {}).get("input_path") or "").parent
    reader = _Reader(pictures, [Path(folder), source_folder])
    language = nb.metadata.get("kernelspec", {}).get("language") or "python"
    tagged = {tag for cell in nb.cells for tag in cell.metadata.get("tags", [])}
    defaults, blocks = "", []
    for n, cell in enumerate(nb.cells, 1):
        tags, where, first = cell.metadata.get("tags", []), f"{name}, cell {n}", len(blocks)
        hidden = {match[1] for tag in tags if (match := TAG.fullmatch(str(tag)))}
        jupyter = cell.metadata.get("jupyter", {})
        source = clean(cell.source).strip("\n")
        gone = cell.metadata.get("transient", {}).get("remove_source")  # nbconvert's settings
        if "cell" in hidden or "papermill-error-cell-tag" in tags:
            continue
        if gone and cell.cell_type != "code":
            continue
        if cell.cell_type == "markdown":
            attached = cell.get("attachments", {})
            blocks.append(Block("markdown", source, where, attached=attached))
        elif cell.cell_type == "raw":
            kind = {"": "print", "text/html": "html", "text/markdown": "computed"}
            kind = kind.get(cell.metadata.get("raw_mimetype", cell.metadata.get("format", "")))
            if kind and source:
                blocks.append(Block(kind, source, where))
        else:
            shown = not ("input" in hidden or gone or jupyter.get("source_hidden"))
            if "parameters" in tags and "injected-parameters" in tagged:
                defaults = source
            elif {"parameters", "injected-parameters"} & set(tags):
                source = _in_use(defaults, source)
                blocks += shown * [Block("parameters", source, where, language=language)]
            elif source and shown:
                blocks.append(Block("code", source, where, language=language))
            if not ("output" in hidden or jupyter.get("outputs_hidden")):
                blocks += reader.outputs(cell, where)
        for block in blocks[first:]:
            block.tags = list(tags)
    reader.embed(blocks)
    return Part(name, blocks, **more)


def made_by(nb):
    """Return a list with the `Part` on how the report was made, or an empty list."""
    rows = ""
    for key, value in nb.metadata.get("labrnn", {}).items():
        if isinstance(value, dict):
            value = [f"{name} {inner}" for name, inner in value.items()]
        value = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        rows += f"<tr><td>{html.escape(clean(key))}</td><td>{html.escape(clean(value))}</td></tr>"
    if not rows:
        return []
    heading = Block("computed", "# How this report was made")
    return [Part("", [heading, Block("html", f"<table>{rows}</table>")])]


def assignments(source):
    """Return name -> syntax tree node of the value, for the assignments of a cell."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value:
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            found[ast.unparse(target)] = node.value
    return found


def _in_use(defaults, injected):
    """Join the assignments of both parameter cells; injected values replace defaults."""
    try:
        values = assignments(defaults) | assignments(injected)
    except (SyntaxError, ValueError):
        return injected
    return "\n".join(f"{name} = {ast.unparse(value)}" for name, value in values.items())


class _Reader:
    """Reads the outputs and pictures of a notebook as blocks."""

    def __init__(self, pictures, folders):
        self.pictures, self.folders = pictures, folders

    def outputs(self, cell, where):
        """Return the blocks of a cell's outputs."""
        blocks = []
        for output in cell.outputs:
            if output.output_type == "stream":
                text = "" if output.name == "stderr" else output.text
                if text and blocks and blocks[-1].kind == "print":
                    blocks[-1].text += text
                elif text:
                    blocks.append(Block("print", text, where))
            elif output.output_type == "error":
                trace = "\n".join(output.traceback) or f"{output.ename}: {output.evalue}"
                trace = re.sub(r"^(\x1b\S*?m)?-{9,}", "", trace).strip()
                blocks.append(Block("error", trace, where))
            elif "repeats" not in output.metadata.get("report", {}):
                shown = self._shown(output, where, blocks)
                blocks += [shown] if shown else []
        for block in blocks:
            if block.kind in ("print", "error"):
                block.text = _cut(as_terminal(block.text))
        return [block for block in blocks if block.text or block.pictures]

    def _shown(self, output, where, before):
        """Return the block of a displayed object; further sub-figures join the last block."""
        data, report = output.data, output.metadata.get("report", {})
        report = report if isinstance(report, dict) else {}  # metadata of another program
        own = {key: str(report.get(key) or "") for key in ("label", "caption", "number")}
        block = Block("", where=where, columns=int(_number(report.get("columns"))) or 1, **own)
        plain, page = data.get("text/plain", ""), data.get("text/html", "")
        for kind in filter(data.get, PICTURES):
            if not (file := self._store(_decoded(data[kind]), PICTURES[kind])):
                get_logger().warning("%s: the %s picture is damaged", where, PICTURES[kind].upper())
                continue
            size = output.metadata.get(kind, {})
            size = size if isinstance(size, dict) else {}
            picture = {"file": file, "sub": report.get("sub")}
            picture["alt"] = report.get("alt") or size.get("alt")
            picture["width"] = 0.75 * _number(size.get("width")) or None
            if report.get("group") and before:
                before[-1].pictures.append(picture)
                return None
            block.kind, block.pictures = "figure", [picture]
            return block
        widget = "application/vnd.jupyter.widget-view+json" in data
        said = not PLACEHOLDER.fullmatch(plain) and plain
        if "text/markdown" in data or "text/latex" in data:
            # Empty text: a progress display that has ended.
            block.kind, block.text = "computed", data.get("text/markdown", data.get("text/latex"))
        elif "<table" in page.lower() and not (said and INTERACTIVE.search(page)):
            block.kind, block.text, block.level = "html", page, 4
        elif widget:
            return None
        elif said:
            block.kind, block.text = "print", plain
        elif page and re.search(r"\w", _text(page)):
            block.kind, block.text, block.level = "html", page, 4
            if INTERACTIVE.search(page):
                get_logger().warning("%s: the report shows the text of an interactive page", where)
        elif "application/json" in data:
            block.kind, block.text = "print", json.dumps(data["application/json"], indent=1)
        elif kinds := sorted({*data} - {"text/plain"}):
            block.kind, block.text = "note", f"[Output not shown here: {', '.join(kinds)}]"
            get_logger().warning("%s: the report cannot show %s", where, ", ".join(kinds))
        else:
            block.kind, block.text = "print", plain
        return block

    def embed(self, blocks):
        """Store the pictures that texts refer to, and warn of missing ones."""
        textual = [b for b in blocks if b.kind in ("markdown", "computed", "html")]
        textual = [b for b in textual if re.search(r"!\[|<(img|svg)\b", b.text, re.I)]
        if not textual:
            return
        images = pandoc(["images"], parts=[Part("", textual)])["out"]
        for block, addresses in zip(textual, images, strict=True):
            for address in addresses:
                if re.match("https?://", address):
                    continue
                try:
                    raw, suffix = self._fetch(address, block.attached)
                    file = self._store(raw, suffix)
                    problem = "is damaged, or of a kind that Typst does not draw"
                except (OSError, ValueError) as error:
                    file, problem = None, getattr(error, "strerror", None) or str(error)
                if file:
                    block.files[address] = file
                else:
                    get_logger().warning(
                        "%s: the picture %r is left out: %s", block.where, address[:200], problem
                    )

    def _fetch(self, address, attached):
        """Return bytes and suffix of a picture. Raises OSError or ValueError if it is missing."""
        if match := re.match(r"data:([\w/+.-]*)[^,]*?(;base64)?,(.*)", address, re.S | re.I):
            raw = unquote_to_bytes(match[3])
            raw = base64.b64decode(raw) if match[2] else raw
            return raw, PICTURES.get(match[1].lower(), "")
        if address.startswith("attachment:"):
            name = address.removeprefix("attachment:")
            kinds = attached.get(name) or attached.get(unquote(name)) or {}
            for kind in filter(kinds.get, PICTURES):
                return _decoded(kinds[kind]), PICTURES[kind]
            raise ValueError("the cell has no such attachment")
        address = address.removeprefix("file://")
        for name in (address, unquote(address), unquote(re.sub(r"[?#].*", "", address))):
            for folder in self.folders:
                if (folder / name).is_file():
                    return read_file(folder / name), Path(name).suffix[1:].lower()
        raise ValueError(f"no such file in {self.folders[0].resolve()}")

    def _store(self, raw, suffix):
        """Add a picture to the document and return its file name; None if it cannot be drawn."""
        suffix = {"jpeg": "jpg", "svgz": "svg"}.get(suffix, suffix)
        name = hashlib.sha256(raw).hexdigest()[:16]
        for known in (f"{name}.svg", f"{name}.{suffix}"):
            if known in self.pictures:
                return known
        if suffix not in PICTURES.values():
            return None
        try:
            shown = drawn(raw, suffix, format="svg")
        except typst.TypstError:
            return None
        if suffix == "pdf":  # browsers do not show a PDF as an image
            suffix, raw = "svg", shown
        self.pictures[f"{name}.{suffix}"] = raw
        return f"{name}.{suffix}"


def _decoded(data):
    """Return the bytes of a picture, given as SVG text or base64; empty if damaged."""
    try:
        return data.encode() if "<" in data else base64.b64decode(data)
    except binascii.Error:
        return b""


def _text(page):
    return re.sub(r"(?s)<(script|style)\b.*?</\1>|<[^>]*>", " ", page)


CONTROL = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\|$)"  # titles, links
    r"|\x1b[PX^_].*?(?:\x1b\\|$)"  # strings for devices
    r"|\x1b\[([0-?]*)[ -/]*([@-~])"  # cursor movements, colours, erasing
    r"|\x1b[ -/]*[0-~]?|[\x00-\x1f\x7f]",
    re.S,
)


def as_terminal(text):
    """Return the text as a terminal would show it, without colours."""
    if not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text):
        return text
    text = text.replace("\r\n", "\n")
    lines, row, column, at = [[]], 0, 0, 0
    for match in [*CONTROL.finditer(text), None]:
        written = text[at : match.start() if match else None]
        if written:
            lines[row] += " " * (column - len(lines[row]))
            lines[row][column : column + len(written)] = written
            column += len(written)
        if match is None:
            break
        at, code = match.end(), match[2] or match[0]
        n = min(int(re.sub(r"\D.*", "", match[1] or "") or 0), 1000)
        if code in "\n\v\f" or code in "AB":
            row = max(0, row + (-max(1, n) if code == "A" else max(1, n)))
            column = column if code in "AB" else 0
            lines += [[] for _ in range(row + 1 - len(lines))]
        elif code in "\r\b\tCDG":
            moved = {"\r": 0, "\b": column - 1, "\t": column // 8 * 8 + 8, "G": n - 1}
            moved |= {"C": column + max(1, n), "D": column - max(1, n)}
            column = max(0, moved[code])
        elif code in "KJ":
            start, stop = (0 if n else column), (column if n == 1 else None)
            lines[row][start:stop] = " " * column if n == 1 else ""
            if code == "J":
                lines[:row] = [[] for _ in range(row)] if n else lines[:row]
                lines[row + 1 :] = lines[row + 1 :] if n == 1 else []
        elif code in "Hf" and match[2]:
            row, column = max(0, n - 1), max(0, int((match[1] or ";1").split(";")[-1] or 1) - 1)
            lines += [[] for _ in range(row + 1 - len(lines))]
    return "\n".join("".join(line).rstrip() for line in lines)


def _number(value):
    """Return a positive number from a notebook's metadata; 0 if invalid, as the width `50%`."""
    try:
        number = float(str(value).removesuffix("px"))
    except ValueError:
        return 0.0
    return number if 0 < number < MAX_LINE else 0.0


def _cut(text):
    """Shorten long lines, and long outputs in their middle."""
    lines = [clean(line) for line in text.rstrip().split("\n")]
    lines = [x if len(x) <= MAX_LINE else x[:MAX_LINE] + " [... line cut]" for x in lines]
    if len(lines) > MAX_LINES:
        left = len(lines) - 2 * KEPT_LINES
        lines[KEPT_LINES:-KEPT_LINES] = [f"[... {left} lines left out ...]"]
    return "\n".join(lines)


def clean(text):
    """Replace the characters of a text that no page can show."""
    return UNPRINTABLE.sub("\ufffd", str(text))


def pandoc(to, parts, **more):
    """Run `templates/report.lua`, log its warnings, return its result. Raises RuntimeError."""
    job = {"to": to, "as_source": {}, "parts": [_slim(asdict(part)) for part in parts], **more}
    # Some Markdown makes pandoc use all memory; this limits it to 2 GB.
    command = [pypandoc.get_pandoc_path(), "+RTS", "-M2g", "-RTS"]
    command += ["lua", str(TEMPLATES / "report.lua")]
    try:
        done = subprocess.run(
            command, input=json.dumps(_slim(job)).encode(), capture_output=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        raise LabError(
            f"pandoc does not end within {PATIENCE} s; look in the Markdown for a footnote that "
            "refers to itself, or a very long word of underscores or asterisks"
        ) from None
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace"))
    result = json.loads(done.stdout)
    for message in result["warnings"] if to != ["images"] else []:
        get_logger().warning("%s", message)
    return result


def compiled(files, system_fonts=False, **options):
    """Run Typst on main.typ of `files` (name -> bytes, with fonts). Raises TypstError."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            Path(folder, name).write_bytes(data)
        fonts = typst.Fonts(include_system_fonts=system_fonts, font_paths=[folder])
        return typst.compile(Path(folder, "main.typ"), root=folder, font_paths=fonts, **options)


def drawn(raw, suffix, **options):
    """Draw a picture in another format with Typst and return its bytes. Raises TypstError."""
    page = f'#set page(width: auto, height: auto, margin: 0pt)\n#image("picture.{suffix}")'
    return compiled({"main.typ": page.encode(), f"picture.{suffix}": raw}, **options)


def _slim(entry):
    """Clean texts; drop attachments and empty values, which are true in Lua."""
    if isinstance(entry, dict):
        kept = {k: _slim(v) for k, v in entry.items() if k not in ("attached", "tags")}
        return {k: v for k, v in kept.items() if v or k in ("prefix", "text")}
    if isinstance(entry, list):
        return [_slim(x) for x in entry]
    return clean(entry) if isinstance(entry, str) else entry
