"""The gallery: one page over all reports of a folder, `index.html`, that needs no network."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from labrnn.errors import LabError
from labrnn.parts import PARTS
from labrnn.reports.frame import tally
from labrnn.reports.notebook import finding_of, verdicts_of
from labrnn.reports.report import TITLE, Target, scratch
from labrnn.results.prose import counted
from labrnn.trials.store import PROJECT

LINKS = {".pdf": "PDF", ".html": "Web page", ".ipynb": "Notebook"}


@dataclass(frozen=True)
class Gallery(Target):
    """The page over the reports in a folder and in its folders."""

    out: Path
    name, says = "gallery", "all reports at a glance"

    @classmethod
    def of(cls, folder):
        """The gallery of a configuration's folder; `reports` has one for all of its folders."""
        folder, reports = Path(folder).resolve(), PROJECT / "reports"
        return cls(reports if folder.parent == reports else folder)

    def outputs(self):
        return [self.out / "index.html"]

    def inputs(self):
        pieces = []
        for folder, notebooks in self.reports().items():
            names = {path.name for path in folder.iterdir() if path.suffix in LINKS}
            pieces.append(repr((folder.name, sorted(names - {"index.html"}))).encode())
            pieces += [path.read_bytes() for path in notebooks]
        return pieces

    def reports(self):
        """Folder -> its notebooks, for the folders that have any."""
        inner = sorted(p for p in self.out.iterdir() if p.is_dir() and p.name[0] != ".")
        found = {folder: _notebooks(folder) for folder in [self.out, *inner]}
        return {folder: notebooks for folder, notebooks in found.items() if notebooks}

    def make(self):
        """Write the page.

        Raises:
            LabError: a notebook cannot be shown, or the page there is not labrnn's.
        """
        (page,) = self.outputs()
        if page.exists() and b'content="labrnn' not in page.read_bytes()[:1000]:
            raise LabError(
                f"{page}: not a page of labrnn; move it, or name another folder with --out"
            )
        key, content = self.key(), self._page().encode()
        with scratch(self.out / ".work") as work:
            self.put([content], work)
        self.write_record(key, [content])

    def _page(self):
        from jinja2 import Template

        from labrnn.reports.document import TEMPLATES

        sections = []
        for folder, paths in self.reports().items():
            cards = [_card(path) for path in paths]
            sections.append({"name": folder.name, "cards": cards, "said": _headline(cards)})
            sections[-1]["whole"] = folder / "write_up"
        template = Template((TEMPLATES / "gallery.html").read_text("utf-8"), autoescape=True)
        return template.render(title=TITLE, sections=sections, links=self._links)

    def _links(self, stem):
        """Kind -> address of the files of that stem that are there."""
        found = {kind: stem.with_name(stem.name + suffix) for suffix, kind in LINKS.items()}
        return {
            kind: quote(path.relative_to(self.out).as_posix())
            for kind, path in found.items()
            if path.exists()
        }


def _notebooks(folder):
    """The executed notebooks of a folder, those with a PDF, in the order of the lab's parts."""
    order = {name: k for k, name in enumerate(PARTS)}
    found = (path for path in folder.glob("*.ipynb") if path.with_suffix(".pdf").exists())
    return sorted(found, key=lambda path: (order.get(path.stem, len(order)), path.stem))


def _headline(cards):
    """What the original study's conclusions turned out to be, and how far its figures are from ours."""
    outcomes = {v["published"]: v["outcome"] for card in cards for v in card["verdicts"]}
    distance = [card["said"] for card in cards if card["stem"].name == "reproduction"]
    return " ".join([f"{tally(outcomes.values())}."] * bool(outcomes) + distance)


def _card(path):
    """Of an executed notebook the first single figure and the finding, else what it is about."""
    from pypandoc import convert_text

    from labrnn.reports.document import clean, part
    from labrnn.reports.exporter import address
    from labrnn.reports.writeup import read

    nb, pictures = read(path), {}
    runs = nb.metadata.get("labrnn", {}).get("trials", 0)
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
    nb.cells = [cell for cell in nb.cells if cell.cell_type == "code"]
    figures = [b for b in part(nb, path.stem, pictures).blocks if b.kind == "figure"]
    if figures:
        figure = min(figures, key=lambda block: bool(block.pictures[0]["sub"]))
        (shown, *_) = figure.pictures
        card["picture"] = address(pictures, shown["file"])
        card["alt"] = shown["alt"] or figure.caption
    return card
