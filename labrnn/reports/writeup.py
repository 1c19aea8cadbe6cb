"""The write-up of the lab: front matter, the parts' answers, and the notebooks as appendix."""

import ast
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat

from labrnn.config import TrialConfig
from labrnn.errors import LabError
from labrnn.parts import PARTS
from labrnn.published import published
from labrnn.reports.document import REFERENCES, Block, Document, Part, assignments, part
from labrnn.reports.exporter import to_html, to_pdf
from labrnn.reports.notebook import finding_of, verdicts_of
from labrnn.results import statistics, table
from labrnn.results.beyond import standard_split
from labrnn.results.prose import counted, listing, page
from labrnn.results.verdicts import CONFIRMED, INCONCLUSIVE, REFUTED

STARTS = {"Questions": "questions", "Lab 1": "lab1", "Lab 2": "lab2"}
SECTIONS = {title: [n for n in PARTS if n.startswith(start)] for title, start in STARTS.items()}
APPENDIX = "Executed notebooks"
VERBS = {CONFIRMED: "confirm", REFUTED: "refute", INCONCLUSIVE: "are inconclusive on"}
LEFT_OUT = {"exercises", "repeated"}  # tags of cells that are omitted


def build(notebooks, title, authors):
    """Render the write-up of executed notebooks: the contents of its PDF and of its HTML page.

    Args:
        notebooks: paths of notebooks named after their parts. A part of the lab without one is
            printed as not run; notebooks with other names follow as further parts. Other parts
            refer to a label `fig-x` of part `lab1_data` as `lab1_data.fig-x`.
        title: Markdown.
        authors: names.

    Raises:
        LabError: a notebook cannot be read or rendered.
    """
    paths = {Path(path).stem: Path(path) for path in notebooks}
    known = {name for names in SECTIONS.values() for name in names}
    further = [name for name in paths if name not in known]
    sections = {**SECTIONS, "Beyond the lab": further} if further else SECTIONS

    notebooks = {name: read(path) for name, path in paths.items() if path.exists()}
    before, after = _frame(notebooks)
    body, pictures = [], {}
    introduced = f"# {APPENDIX}\n\n{page('appendix')}"
    appendix = [Part("", [Block("appendix"), Block("computed", introduced, level=1)])]
    for section, names in sections.items():
        body.append(_section(f"# {section}"))
        for name in names:
            if name in notebooks:
                whole = part(notebooks[name], name, pictures, paths[name].parent, prefix=f"{name}.")
                whole.blocks = [b for b in whole.blocks if not LEFT_OUT & set(b.tags)]
                body.append(_answers(whole))
                appendix.append(_executed(whole))
            else:
                body.append(_section(f"## `{name}`\n\n*This part was not run.*", 2))
    body = before + body + after + appendix + _commits(notebooks)
    date = max((nb.metadata.get("date", "") for nb in notebooks.values()), default="")
    doc = Document(body, pictures, title, list(authors), date, cover=True)
    with ThreadPoolExecutor(1) as other:  # in parallel: pandoc and Typst use one core each
        html = other.submit(to_html, doc)
        return [to_pdf(doc), html.result().encode()]


def _answers(whole):
    """Return the text, figures, tables and answers (tag `answer`) of a part."""
    kinds = ("markdown", "computed", "error")
    kept = [b for b in whole.blocks if b.kind in kinds or b.label or "answer" in b.tags]
    return Part(whole.name, kept, top=3, prefix=whole.prefix, heading=2)


def _executed(whole):
    """Return the other code and printed outputs of a part, with references to its figures."""
    blocks, heading = [Block("computed", f"# `{whole.name}.ipynb`", level=2)], []
    for block in whole.blocks:
        if block.kind == "markdown":
            if "\n#" in "\n" + block.text:
                heading = [Block("headings", block.text, block.where, level=4)]
        elif block.kind != "computed" and "answer" not in block.tags:
            shown = Block("reference", block.label, block.where) if block.label else block
            blocks += [*heading, shown]
            heading = []
    return Part(whole.name, blocks if len(blocks) > 1 else [], prefix=whole.prefix)


def _commits(notebooks):
    """Return a list with the table of the commits that trained the runs; empty without runs."""
    counts = Counter(run["commit"] or "not recorded" for run in _runs(notebooks).values())
    if not counts:
        return []
    return [Part("", [Block("computed", page("commits", counts=counts), "the write-up", level=2)])]


def _runs(notebooks):
    """Return key -> seconds and commit of every run that a notebook reads."""
    return {k: v for nb in notebooks.values() for k, v in nb.metadata.get("runs", {}).items()}


def _section(markdown, level=1):
    return Part("", [Block("computed", markdown, "the write-up", level=level)])


def read(path):
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # nbformat's converters of old versions raise any kind
        reason = str(error).strip().partition("\n")[0]
        raise LabError(f"{path}: not a readable notebook ({reason}); run its part again") from error
    return notebook


def _frame(notebooks):
    """Return the parts before the lab's sections, and those after them.

    The sentences are in `labrnn/results/templates`. Their numbers come from the notebooks:
    parameters, findings, verdicts, and the seconds of the training runs.

    Args:
        notebooks: name of a part -> its executed notebook, for those that were run.
    """
    values = _values(notebooks)

    def text(name, label="", caption=""):
        return Block("front", page(name, **values), "the write-up", label, caption)

    claimed = "Conclusions, and our verdicts. E: embedding dimensions; H: units; L: layers."
    before = [text("abstract"), Block("contents"), text("summary")]
    before += [text("claims", "tbl-claims", claimed)] if values["verdicts"] else []
    before += [text("effort"), text("setup")]
    before.append(text("settings", "tbl-setup", "Data, defaults, limits and computation."))
    before.append(text("methods"))
    before.append(text("rules", "tbl-rules", "What supports or contradicts a statement."))
    after = [
        Block("computed", page("related", **values), "the write-up", level=0),
        text("others", "tbl-related", "Published test accuracies on the fixed split, and ours."),
        Block("computed", page("end", **values), "the write-up", level=0),
    ]
    return [Part("", before)], [Part("", after), REFERENCES]


def _values(notebooks):
    """Return the values for the templates."""
    given = {name: parameters(notebook) for name, notebook in notebooks.items()}
    shared = ("train_reviews", "max_tokens", "batch_size", "epochs")
    first = next((v for v in given.values() if set(shared) <= v.keys()), {})
    facts = [notebook.metadata.get("labrnn", {}) for notebook in notebooks.values()]
    runs = _runs(notebooks)
    devices = {device for fact in facts for device in fact.get("device", "").split("; ")}
    verdicts = {
        verdict["published"]: {**verdict, "title": notebook.metadata.get("title", name)}
        for name, notebook in notebooks.items()
        for verdict in verdicts_of(notebook)
    }
    return {
        "config": TrialConfig(**{name: first[name] for name in shared if name in first}),
        "data": "".join(dict(Counter(f["data"] for f in facts if f.get("data")).most_common(1))),
        "devices": listing(sorted(device.removeprefix("cpu: ") for device in devices if device)),
        "finding": defaultdict(str, {name: finding_of(nb) for name, nb in notebooks.items()}),
        "hours": sum(run["seconds"] for run in runs.values()) / 3600,
        "limits": {name: _limits(name) for name in ("embedding_dim", "hidden_dim", "n_layers")},
        "published": len(published()),
        "rates": given.get("lab2a_lstm_optimizers", {}),
        "runs": len(runs),
        "seeds": sorted({len(v["seeds"]) for v in given.values() if "seeds" in v}),
        "standard": standard_split().to_dict("records"),
        "statistics": statistics,
        "table": table,
        "tally": tally((v["outcome"], v["at_last"]) for v in verdicts.values()),
        "verdicts": verdicts,
        "uncommitted": sum(run["commit"].endswith("+") for run in runs.values()),
        "versions": next((f["versions"] for f in facts if f.get("versions")), {}),
    }


def tally(outcomes):
    """Count the verdicts in a sentence without its full stop.

    Args:
        outcomes: (outcome, outcome at the last epoch) of each verdict.
    """
    outcomes = list(outcomes)
    best, last = (Counter(pair[k] for pair in outcomes) for k in (0, 1))
    total = counted(len(outcomes), "conclusion")
    text = f"Of {total} of the original study, our runs {_counts(best)}"
    if last == best:
        return text
    return f"{text}; at the last epoch, which the original study tested, they {_counts(last)}"


def _counts(found):
    return listing(f"{verb} {found[outcome]}" for outcome, verb in VERBS.items() if found[outcome])


def parameters(notebook):
    """Return the values of the cells tagged `parameters` and `injected-parameters`."""
    tags = {"parameters", "injected-parameters"}
    cells = [cell for cell in notebook.cells if tags & set(cell.metadata.get("tags", []))]
    found = (item for cell in cells for item in assignments(cell.source).items())
    return {name: ast.literal_eval(value) for name, value in found}


def _limits(field):
    """Return the limits of a field of `TrialConfig` as `1 to 256`."""
    bounds = {type(m).__name__: m for m in TrialConfig.model_fields[field].metadata}
    return f"{bounds['Ge'].ge} to {bounds['Le'].le}"
