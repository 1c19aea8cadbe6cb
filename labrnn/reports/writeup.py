"""The one document of the lab: sections with the parts' answers, and the notebooks as appendix."""

import os
import re
from pathlib import Path

import nbformat

from labrnn.files import replace_file
from labrnn.errors import LabError
from labrnn.parts import PARTS
from labrnn.reports.document import Block, Document, Prose, made_by, part
from labrnn.reports.exporter import to_html, to_pdf

STARTS = {"Questions": "questions", "Lab 1": "lab1", "Lab 2": "lab2"}
SECTIONS = {title: [n for n in PARTS if n.startswith(start)] for title, start in STARTS.items()}
APPENDIX = "Executed notebooks"


def build(notebooks, out_dir, title, authors, date, stem="write_up"):
    """Write `stem`.pdf and `stem`.html from executed notebooks; the paths written, in that order.

    `notebooks` are paths named like the parts; a part of the lab without one is said to be not
    run, and notebooks of other names follow as further parts. A label `fig-x` of part `lab1_data`
    is known to the other parts as `lab1_data.fig-x`. Raises LabError.
    """
    paths = {Path(path).stem: Path(path) for path in notebooks}
    known = {name for names in SECTIONS.values() for name in names}
    further = [name for name in paths if name not in known]
    sections = {**SECTIONS, "Further parts": further} if further else SECTIONS

    body, appendix = [], [Block("appendix", None), _prose(f"# {APPENDIX}")]
    for section, names in sections.items():
        body.append(_prose(f"# {section}"))
        for name in names:
            if name in paths and paths[name].exists():
                notebook = read(paths[name])
                body += _answers(notebook, name)
                appendix += _executed(notebook, name)
            else:
                body.append(_prose(f"## `{name}`\n\n*This part was not run.*"))
    doc = Document(Prose(title), list(authors), str(date), body + appendix, cover=True)

    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    pages = {".pdf": to_pdf(doc), ".html": to_html(doc).encode()}
    paths = [out_dir / (stem + suffix) for suffix in pages]
    for path, data in zip(paths, pages.values(), strict=True):
        replace_file(path, data)
    return paths


def _answers(notebook, name):
    """Text, figures and tables of a part, without its code."""
    title, blocks = part(notebook, name, top=3, prefix=f"{name}.")
    kept = [b for b in blocks if b.kind in ("prose", "error") or b.label]
    return [_prose(f"## {title.source}", title.where), *kept]


def _executed(notebook, name):
    """Code and printed outputs of a part; what the sections show is referred to."""
    blocks = [_prose(f"## `{name}.ipynb`")]
    for block in part(notebook, name, top=3, prefix=f"{name}.")[1]:
        if block.label:
            blocks.append(Block("reference", block.label))
        elif block.kind == "prose":
            headings = re.findall(r"^#{2,} +(.+)", block.content.source, flags=re.M)
            blocks += [_prose(f"#### {heading}", block.content.where) for heading in headings]
        else:
            blocks.append(block)
    return blocks + made_by(notebook, level=3)


def _prose(markdown, where="the write-up"):
    return Block("prose", Prose(markdown, where, inline=False))


def read(path):
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # nbformat lets through whatever its old converters stumble on
        reason = str(error).strip().partition("\n")[0]
        raise LabError(f"{path}: not a readable notebook ({reason}); run its part again") from error
    return notebook
