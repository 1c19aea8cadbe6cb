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
TOLD = re.compile(r"concludes that (.+?)\. \*\*(.+?)\*\* here")  # by `results.conclusions.told`


def build(notebooks, out_dir, title, authors, date):
    """Write write_up.pdf and .html from executed notebooks; the paths written, in that order.

    `notebooks` are paths named like the parts; a part of the lab without one is said to be not
    run, and notebooks of other names follow as further parts. A label `fig-x` of part `lab1_data`
    is known to the other parts as `lab1_data.fig-x`. What the parts say of the published
    conclusions stands in short before them. Raises LabError.
    """
    paths = {Path(path).stem: Path(path) for path in notebooks}
    known = {name for names in SECTIONS.values() for name in names}
    further = [name for name in paths if name not in known]
    sections = {**SECTIONS, "Further parts": further} if further else SECTIONS

    verdicts, body, appendix = {}, [], [Block("appendix", None), _prose(f"# {APPENDIX}")]
    for section, names in sections.items():
        body.append(_prose(f"# {section}"))
        for name in names:
            if name in paths and paths[name].exists():
                notebook = read(paths[name])
                answers = _answers(notebook, name)
                verdicts |= _verdicts(answers)
                body += answers
                appendix += _executed(notebook, name)
            else:
                body.append(_prose(f"## `{name}`\n\n*This part was not run.*"))
    body = _in_short(verdicts) + body + appendix
    doc = Document(Prose(title), list(authors), str(date), body, cover=True)

    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    pages = {".pdf": to_pdf(doc), ".html": to_html(doc).encode()}
    for suffix, data in pages.items():
        replace_file(out_dir / f"write_up{suffix}", data)
    return [out_dir / f"write_up{suffix}" for suffix in pages]


def _answers(notebook, name):
    """Text, figures and tables of a part without its exercises; of its code what answers."""
    title, blocks = part(notebook, name, top=3, prefix=f"{name}.")
    blocks = [block for block in blocks if "exercises" not in block.tags]
    kept = [b for b in blocks if b.kind in ("prose", "error") or b.label or "answer" in b.tags]
    return [_prose(f"## {title.source}", title.where), *kept]


def _verdicts(blocks):
    """Published conclusion -> (what a part's trainings say of it, the part's title in short)."""
    title = re.split("[,:]", blocks[0].content.source.removeprefix("## "))[0]
    texts = (block.content.source for block in blocks if block.kind == "prose")
    return {claim: (verdict, title) for text in texts for claim, verdict in TOLD.findall(text)}


def _in_short(verdicts):
    if not verdicts:
        return []
    lines = [f"| {claim} | {said.lower()} | {title} |" for claim, (said, title) in verdicts.items()]
    return [
        _prose(
            "#### In short\n\nWhat the published report concludes, and what the trainings here say "
            "of it; the reasons stand in the parts.\n\n| published | here | part |\n|---|---|---|\n"
            + "\n".join(lines)
        )
    ]


def _executed(notebook, name):
    """The other code and printed outputs of a part; figures and tables are referred to."""
    blocks = [_prose(f"## `{name}.ipynb`")]
    for block in part(notebook, name, top=3, prefix=f"{name}.")[1]:
        if block.label:
            blocks.append(Block("reference", block.label))
        elif {"answer", "exercises"} & set(block.tags):
            continue  # the sections show the one and leave the other out
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
