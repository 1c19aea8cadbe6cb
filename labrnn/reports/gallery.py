"""The gallery: one page for all reports of a folder, `index.html`, that needs no network."""

import re
from urllib.parse import quote

from jinja2 import Template
from nbformat import NotebookNode
from pypandoc import convert_text

from labrnn.reports.document import TEMPLATES, clean, part
from labrnn.reports.exporter import address
from labrnn.reports.notebook import finding_of, verdicts_of
from labrnn.reports.writeup import read, tally
from labrnn.results.prose import counted

LINKS = {".pdf": "PDF", ".html": "Web page", ".ipynb": "Notebook"}


def page(title, root, reports):
    """Return the page as text for the notebooks in `reports` (folder -> paths) below `root`.

    Raises:
        LabError: a notebook cannot be read.
    """

    def links(stem):
        """Return kind -> address of the existing files with this stem."""
        found = {kind: stem.with_name(stem.name + suffix) for suffix, kind in LINKS.items()}
        return {k: quote(p.relative_to(root).as_posix()) for k, p in found.items() if p.exists()}

    sections = []
    for folder, paths in reports.items():
        cards = [_card(path) for path in paths]
        sections.append({"folder": folder, "cards": cards, "said": _headline(cards)})
    template = Template((TEMPLATES / "gallery.html").read_text("utf-8"), autoescape=True)
    return template.render(title=title, sections=sections, links=links)


def _headline(cards):
    """Return the tally of the verdicts, and the finding of the reproduction."""
    found = {v["published"]: v for card in cards for v in card["verdicts"]}.values()
    counts = tally((v["outcome"], v["at_last"]) for v in found)
    distance = [card["said"] for card in cards if card["stem"].name == "reproduction"]
    return " ".join([f"{counts}."] * bool(found) + distance)


def _card(path):
    """Return a notebook's first single figure, and its finding or else its introduction."""
    nb, pictures = read(path), {}
    runs = nb.metadata.get("labrnn", {}).get("runs read", 0)
    facts = [nb.metadata.get("date"), runs and counted(runs, "training run")]
    intro = next((c.source for c in nb.cells if c.cell_type == "markdown"), "")
    about = finding_of(nb) or "".join(re.split(r"\n\s*\n", intro)[1:2])
    about = re.sub(r"\s*\[@[\w;@]+\]", "", clean(about))  # without citations
    said = convert_text(about, "plain", "commonmark", ["--wrap=none"]).strip()
    sentences = re.split(r"(?<=[.!?]) (?=[A-Z0-9])", said)
    card = {
        "stem": path.with_suffix(""),
        "title": str(nb.metadata.get("title", path.stem)),
        "facts": " · ".join(filter(None, facts)),
        "verdicts": verdicts_of(nb),
        "said": said,
        "brief": " ".join(sentences[: 1 + (len(sentences[0]) < 80)]),
    }
    figures = []
    for cell in (cell for cell in nb.cells if cell.cell_type == "code"):
        blocks = part(NotebookNode(nb, cells=[cell]), path.stem, pictures).blocks
        figures += [block for block in blocks if block.kind == "figure"]
        if figures and not figures[-1].pictures[0]["sub"]:
            break
    if figures:
        figure = min(figures, key=lambda block: bool(block.pictures[0]["sub"]))
        (shown, *_) = figure.pictures
        card["picture"] = address(pictures, shown["file"])
        card["alt"] = shown["alt"] or figure.caption
    return card
