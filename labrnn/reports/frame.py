"""The frame of the write-up: what comes before and after the parts, from their executed notebooks.

The sentences are in `labrnn/results/templates`; their numbers come from what the notebooks carry:
parameters, findings, verdicts, and the seconds of the training runs.
"""

import ast
from collections import Counter, defaultdict

from labrnn.config import TrialConfig
from labrnn.published import published
from labrnn.reports.document import REFERENCES, Block, Part, assignments
from labrnn.reports.notebook import finding_of, verdicts_of
from labrnn.results import statistics, table
from labrnn.results.beyond import standard_split
from labrnn.results.prose import counted, listing, page
from labrnn.results.verdicts import CONFIRMED, INCONCLUSIVE, REFUTED


def frame(notebooks):
    """Parts before the lab's sections, and parts after them.

    Args:
        notebooks: name of a part -> its executed notebook, for those that were run.
    """
    values = _values(notebooks)

    def text(name, **table):
        return Block("front", page(name, **values), "the write-up", **table)

    claims = {"label": "tbl-claims"}
    claims["caption"] = "The conclusions of the original study and our verdicts."
    settings = {"label": "tbl-setup", "caption": "Data, defaults, limits and computation."}
    before = [text("abstract"), text("summary")]
    before += [text("claims", **claims)] if values["verdicts"] else []
    before += [text("effort"), text("setup"), text("settings", **settings), text("methods")]
    after = [Block("computed", page("end", **values), "the write-up", level=0)]
    return [Part("", before)], [Part("", after), REFERENCES]


def _values(notebooks):
    """What the templates are filled with."""
    given = {name: parameters(notebook) for name, notebook in notebooks.items()}
    shared = ("train_reviews", "max_tokens", "batch_size", "epochs")
    first = next((v for v in given.values() if set(shared) <= v.keys()), {})
    facts = [notebook.metadata.get("labrnn", {}) for notebook in notebooks.values()]
    runs = {k: v for nb in notebooks.values() for k, v in nb.metadata.get("runs", {}).items()}
    devices = {device for fact in facts for device in fact.get("device", "").split("; ")}
    verdicts = {
        verdict["published"]: {**verdict, "title": notebook.metadata.get("title", name)}
        for name, notebook in notebooks.items()
        for verdict in verdicts_of(notebook)
    }
    return {
        "config": TrialConfig(**{name: first[name] for name in shared if name in first}),
        "data": max((fact.get("data", "") for fact in facts), key=len, default=""),
        "devices": listing(sorted(device.removeprefix("cpu: ") for device in devices if device)),
        "finding": defaultdict(str, {name: finding_of(nb) for name, nb in notebooks.items()}),
        "hours": sum(runs.values()) / 3600,
        "limits": {name: _limits(name) for name in ("embedding_dim", "hidden_dim", "n_layers")},
        "published": len(published()),
        "rates": given.get("lab2a_lstm_optimizers", {}),
        "runs": len(runs),
        "seeds": sorted({len(v["seeds"]) for v in given.values() if "seeds" in v}),
        "standard": standard_split().to_dict("records"),
        "statistics": statistics,
        "table": table,
        "tally": tally(verdict["outcome"] for verdict in verdicts.values()),
        "verdicts": verdicts,
        "versions": next((f["versions"] for f in facts if f.get("versions")), {}),
    }


def tally(outcomes):
    """How many conclusions our runs confirm, refute and leave open, as the rest of a sentence."""
    counts = Counter(outcomes)
    verbs = {CONFIRMED: "confirm", REFUTED: "refute", INCONCLUSIVE: "are inconclusive on"}
    words = [f"{verb} {counts[outcome]}" for outcome, verb in verbs.items() if counts[outcome]]
    return f"Of {counted(counts.total(), 'conclusion')} of the original study, our runs {listing(words)}"


def parameters(notebook):
    """The values of the cells tagged `parameters` and `injected-parameters`."""
    tags = {"parameters", "injected-parameters"}
    cells = [cell for cell in notebook.cells if tags & set(cell.metadata.get("tags", []))]
    found = (item for cell in cells for item in assignments(cell.source).items())
    return {name: ast.literal_eval(value) for name, value in found}


def _limits(field):
    """`1 to 256` for a field of `TrialConfig`."""
    bounds = {type(m).__name__: m for m in TrialConfig.model_fields[field].metadata}
    return f"{bounds['Ge'].ge} to {bounds['Le'].le}"
