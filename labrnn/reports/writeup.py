"""The write-up of the lab: frame, sections with the parts' answers, and the notebooks as appendix."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat

from labrnn.errors import LabError
from labrnn.parts import PARTS
from labrnn.reports.document import Block, Document, Part, made_by, part
from labrnn.reports.exporter import to_html, to_pdf
from labrnn.reports.frame import frame

STARTS = {"Questions": "questions", "Lab 1": "lab1", "Lab 2": "lab2"}
SECTIONS = {title: [n for n in PARTS if n.startswith(start)] for title, start in STARTS.items()}
APPENDIX = "Executed notebooks"


def build(notebooks, title, authors):
    """Render the write-up of executed notebooks: the contents of its PDF and of its HTML page.

    `notebooks` are paths named like the parts; a part of the lab without one is said to be not
    run, and notebooks of other names follow as further parts. The date is the newest notebook's. A
    label `fig-x` of part `lab1_data` is known to the other parts as `lab1_data.fig-x`. Raises
    LabError.
    """
    paths = {Path(path).stem: Path(path) for path in notebooks}
    known = {name for names in SECTIONS.values() for name in names}
    further = [name for name in paths if name not in known]
    sections = {**SECTIONS, "Beyond the lab": further} if further else SECTIONS

    notebooks = {name: read(path) for name, path in paths.items() if path.exists()}
    before, after = frame(notebooks)
    body, pictures = [], {}
    appendix = [Part("", [Block("appendix"), Block("computed", f"# {APPENDIX}", level=1)])]
    for section, names in sections.items():
        body.append(_section(f"# {section}"))
        for name in names:
            if name in notebooks:
                whole = part(notebooks[name], name, pictures, paths[name].parent, prefix=f"{name}.")
                body.append(_answers(whole))
                appendix += [_executed(whole), *made_by(notebooks[name], level=3)]
            else:
                body.append(_section(f"## `{name}`\n\n*This part was not run.*", 2))
    body = before + body + after + appendix
    date = max((nb.metadata.get("date", "") for nb in notebooks.values()), default="")
    doc = Document(body, pictures, title, list(authors), date, cover=True)
    with ThreadPoolExecutor(1) as other:  # pandoc and Typst leave the other core idle
        page = other.submit(to_html, doc)
        return [to_pdf(doc), page.result().encode()]


def _answers(whole):
    """Text, figures and tables of a part without its exercises; of its code what answers."""
    kinds = ("markdown", "computed", "error")
    kept = [b for b in whole.blocks if b.kind in kinds or b.label or "answer" in b.tags]
    kept = [b for b in kept if "exercises" not in b.tags]
    return Part(whole.name, kept, top=3, prefix=whole.prefix, heading=2)


def _executed(whole):
    """The other code and printed outputs of a part; figures and tables are referred to."""
    blocks = [Block("computed", f"# `{whole.name}.ipynb`", level=2)]
    for block in whole.blocks:
        if "exercises" in block.tags:
            continue
        if block.label:
            blocks.append(Block("reference", block.label, block.where))
        elif block.kind == "markdown":
            blocks.append(Block("headings", block.text, block.where, level=4))
        elif block.kind != "computed" and "answer" not in block.tags:
            blocks.append(block)
    return Part(whole.name, blocks, prefix=whole.prefix)


def _section(markdown, level=1):
    return Part("", [Block("computed", markdown, "the write-up", level=level)])


def read(path):
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # nbformat lets through whatever its old converters stumble on
        reason = str(error).strip().partition("\n")[0]
        raise LabError(f"{path}: not a readable notebook ({reason}); run its part again") from error
    return notebook
