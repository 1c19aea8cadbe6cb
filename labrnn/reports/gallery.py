"""The gallery: one page over all reports of a folder, `index.html`, that needs no network."""

import hashlib
import re
import string
from html import escape
from pathlib import Path
from urllib.parse import quote

from labrnn.errors import LabError
from labrnn.files import replace_file
from labrnn.parts import PARTS
from labrnn.reports.frame import tally
from labrnn.reports.notebook import finding_of, verdicts_of
from labrnn.reports.report import package_digest
from labrnn.results.prose import counted
from labrnn.trials.store import PROJECT

TITLE = "Recurrent networks for review sentiment: a reproduction"
LINKS = {".pdf": "PDF", ".html": "Web page", ".ipynb": "Notebook"}


def root_of(out):
    """The folder of the gallery: the parent of a configuration's folder if that is `reports`."""
    out, reports = Path(out).resolve(), PROJECT / "reports"
    return reports if out.parent == reports else out


def build(root):
    """Write `root/index.html` over the reports in `root` and its folders; its path.

    The page carries a digest of what it was made from: as long as that holds it stays.

    Raises:
        LabError: a notebook cannot be shown, or the page there is not labrnn's.
    """
    page = Path(root) / "index.html"
    if page.exists() and b'content="labrnn ' not in page.read_bytes()[:1000]:
        raise LabError(f"{page}: not a page of labrnn; move it, or name another folder with --out")
    if not is_current(root):
        replace_file(page, _page(Path(root)).encode())
    return page


def is_current(root):
    """Whether the page is there and made from the reports as they are."""
    page = Path(root) / "index.html"
    sign = f'content="labrnn {_digest(_reports(root))}"'
    return page.exists() and sign.encode() in page.read_bytes()[:1000]


def _reports(root):
    """Folder -> its notebooks, for the folders that have any."""
    root = Path(root)
    folders = [root, *sorted(p for p in root.iterdir() if p.is_dir() and p.name[0] != ".")]
    return {folder: notebooks for folder in folders if (notebooks := _notebooks(folder))}


def _notebooks(folder):
    """The executed notebooks of a folder, those with a PDF, in the order of the lab's parts."""
    order = {name: k for k, name in enumerate(PARTS)}
    found = (path for path in folder.glob("*.ipynb") if path.with_suffix(".pdf").exists())
    return sorted(found, key=lambda path: (order.get(path.stem, len(order)), path.stem))


def _digest(reports):
    digest = hashlib.sha256(package_digest())
    for folder, notebooks in reports.items():
        names = {path.name for path in folder.iterdir() if path.suffix in LINKS} - {"index.html"}
        digest.update(repr((folder.name, sorted(names))).encode())
        for path in notebooks:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _page(root):
    from labrnn.reports.document import TEMPLATES

    reports, menu, sections = _reports(root), "", ""
    key = _digest(reports)
    for k, (folder, paths) in enumerate(reports.items()):
        name, row = escape(folder.name), [_Card(path) for path in paths]
        whole = _links(root, folder / "write_up", f"all parts, {folder.name}")
        menu += f'<li><a href="#part-{k}">{name}</a></li>'
        whole = whole and f"<p>All parts in one document:</p>{whole}"
        body = "".join(card.html(root) for card in row)
        sections += f'<section aria-labelledby="part-{k}"><h2 id="part-{k}">{name}</h2>'
        sections += f"{_headline(row)}{whole}"
        sections += f'<div class="cards">{body}</div></section>\n'
    template = string.Template((TEMPLATES / "gallery.html").read_text("utf-8"))
    return template.substitute(key=key, title=escape(TITLE), menu=menu, sections=sections)


def _headline(cards):
    """What the original study's conclusions turned out to be, and how far its figures are from ours."""
    outcomes = {v["published"]: v["outcome"] for card in cards for v in card.verdicts}
    distance = [card.said for card in cards if card.path.stem == "reproduction"]
    said = [f"{tally(outcomes.values())}."] * bool(outcomes) + distance
    return f"<p><strong>{escape(' '.join(said))}</strong></p>" if said else ""


class _Card:
    """Of an executed notebook the first single figure and the finding, else what it is about."""

    def __init__(self, path):
        from pypandoc import convert_text

        from labrnn.reports.document import clean, part
        from labrnn.reports.writeup import read

        self.path, nb, self.pictures = path, read(path), {}
        self.title = str(nb.metadata.get("title", path.stem))
        runs = nb.metadata.get("labrnn", {}).get("trials", 0)
        self.facts = " · ".join(
            filter(None, [nb.metadata.get("date"), runs and counted(runs, "training run")])
        )
        self.verdicts = verdicts_of(nb)
        intro = next((c.source for c in nb.cells if c.cell_type == "markdown"), "")
        about = finding_of(nb) or "".join(re.split(r"\n\s*\n", intro)[1:2])
        nb.cells = [cell for cell in nb.cells if cell.cell_type == "code"]
        outputs = part(nb, path.stem, self.pictures)
        figures = [block for block in outputs.blocks if block.kind == "figure"]
        figures.sort(key=lambda block: bool(block.pictures[0]["sub"]))
        self.figure = next(iter(figures), None)
        about = re.sub(r"\s*\[@[\w;@]+\]", "", clean(about))  # without citations
        self.said = convert_text(about, "plain", "commonmark", ["--wrap=none"]).strip()

    def html(self, root):
        from labrnn.reports.exporter import address

        page = f"<article><h3>{escape(self.title)}</h3>"
        if self.figure:
            shown = self.figure.pictures[0]
            alt = shown["alt"] or self.figure.caption
            page += f'<img src="{address(self.pictures, shown["file"])}" alt="{escape(alt)}">'
        if self.said:
            sentences = re.split(r"(?<=[.!?]) (?=[A-Z0-9])", self.said)
            page += f"<p>{escape(' '.join(sentences[: 1 + (len(sentences[0]) < 80)]))}</p>"
        links = _links(root, self.path.with_suffix(""), self.title)
        return page + f'<p class="facts">{escape(self.facts)}</p>{links}</article>\n'


def _links(root, stem, title):
    """A list of links to the files of that stem that are there."""
    rows = ""
    for suffix, kind in LINKS.items():
        if (path := stem.with_name(stem.name + suffix)).exists():
            address = quote(path.relative_to(root).as_posix())
            rows += f'<li><a href="{address}" aria-label="{kind}: {escape(title)}">{kind}</a></li>'
    return rows and f"<ul>{rows}</ul>"
