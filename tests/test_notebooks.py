"""The committed notebooks: their source, their cells on synthetic trials, and papermill."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import papermill
import pytest
import yaml
from fake_results import results
from tiny import write_reviews

from labrnn import lab
from labrnn.parts import PARTS
from labrnn.reports.document import TEMPLATES
from labrnn.reports.report import execute

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LABS = [
    "lab1_lstm",
    "lab1_gru",
    "lab2a_lstm_optimizers",
    "lab2b_gru_optimizers",
    "lab2c_depth",
    "lab2d_width",
    "lab2e_embedding",
    "lab2f_compound",
    "lab2g_bidirectional",
]
# Numbers allowed in prose: an accuracy in exercises, a confidence level, BERT's masking, ln 2
FACTS = ["0.85", "0.999", "95 %", "15 %", "80 %", "10 %", "0.6931"]
every = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, 4)


def code(path):
    """Return the source of the code cells except the parameters."""
    return [
        c.source
        for c in read(path).cells
        if c.cell_type == "code" and "parameters" not in c.metadata.get("tags", [])
    ]


def parameters(path):
    cells = [c for c in read(path).cells if "parameters" in c.metadata.get("tags", [])]
    assert len(cells) == 1
    return cells[0].source


def written(annotation):
    """Return the type of a field as notebooks write it; a choice of words is a `str`."""
    text = str(annotation)
    if annotation in (str, int, float, bool):
        return annotation.__name__
    if text in ("list[int]", "list[float]", "list[str]"):
        return text
    return "list[str]" if text.startswith("list[") else "str"


def test_every_part_of_the_lab_has_a_notebook():
    assert set(LABS) < {path.stem for path in NOTEBOOKS}
    assert {path.stem for path in NOTEBOOKS} <= set(PARTS)


@every
def test_parameters_are_the_fields_of_the_part(path):
    found = []
    for line in parameters(path).splitlines():
        statement, _, comment = line.partition("  # ")
        (node,) = ast.parse(statement).body
        value = ast.literal_eval(node.value)
        found.append((node.target.id, ast.unparse(node.annotation), value, comment))
    part = PARTS[path.stem]
    fields = [(name, part.model_fields[name]) for name in part.own_fields()]
    assert found == [(n, written(f.annotation), f.default, f.description) for n, f in fields]


@every
def test_papermill_sees_every_parameter(path):
    assert list(papermill.inspect_notebook(path)) == PARTS[path.stem].own_fields()


@every
def test_notebook_is_stripped_and_uses_a_generic_kernel(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec == {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@every
def test_cells_are_short_and_fit_the_page(path):
    for source in code(path):
        lines = source.splitlines()
        assert len(lines) <= (25 if source.startswith("class ") else 15), source
        assert max(map(len, lines), default=0) <= 79, source


@every
def test_no_accuracy_is_typed_by_hand(path):
    """Prose, captions and code contain no number that looks like an accuracy."""
    prose = [
        c.source
        for c in read(path).cells
        if c.cell_type == "markdown" and "exercises" not in c.metadata.get("tags", [])
    ]
    for source in prose + code(path):
        found = re.findall(r"(?<![\d.])(?:0\.[5-9]\d+|\d+(?:\.\d+)?\s?%)", source)
        assert set(found) <= set(FACTS)


@every
def test_notebook_begins_with_its_only_title(path):
    sources = [c.source for c in read(path).cells if c.cell_type == "markdown"]
    assert re.match(r"# \S.*\n\n", sources[0])
    assert sum(bool(re.match("# ", line)) for s in sources for line in s.splitlines()) == 1


@every
def test_every_figure_and_table_is_referenced(path):
    sources = "\n".join(c.source for c in read(path).cells)
    labels = re.findall(r'"((?:fig|tbl)-[a-z0-9-]+)",', "\n".join(code(path)))
    references = re.findall(r"\]\(#((?:fig|tbl)-[a-z0-9-]+)\)", sources)
    assert len(labels) == len(set(labels))
    assert set(labels) <= set(references), "figures and tables that no sentence names"
    assert set(references) <= set(labels), "references to what the notebook does not show"


@pytest.mark.parametrize(("name", "other"), [("lab1_lstm", "lab1_data"), ("lab1_gru", "lab1_lstm")])
def test_cells_tagged_repeated_occur_in_another_part(name, other):
    """The write-up omits cells tagged `repeated`, see `labrnn.reports.writeup`."""
    cells = [
        c for c in read(FOLDER / f"{name}.ipynb").cells if "repeated" in c.metadata.get("tags", [])
    ]
    known = "\n".join(code(FOLDER / f"{other}.ipynb") + code(FOLDER / "lab1_data.ipynb"))
    assert cells
    for cell in cells:
        assert cell.cell_type == "markdown" or cell.source in known


@pytest.mark.parametrize("name", LABS)
def test_notebook_ends_with_a_computed_discussion(name):
    heads = [c.source for c in read(FOLDER / f"{name}.ipynb").cells if c.cell_type == "markdown"]
    assert any(re.match("## Discussion", head) for head in heads)
    assert any("say(discussion." in source for source in code(FOLDER / f"{name}.ipynb"))


@pytest.mark.parametrize("amount", ["all", "some", "none"])
@pytest.mark.parametrize("name", LABS)
def test_every_cell_runs_with_all_some_or_no_trials(name, amount, monkeypatch, reviews, tmp_path):
    """Run on synthetic trials: all of them, only those with one layer, or none.

    Cells that use the reviews get generated ones.
    """
    monkeypatch.setenv("LABRNN_DATA", write_reviews(reviews, tmp_path / "reviews.csv"))

    def accuracy(config):
        if amount == "none" or (amount == "some" and config.n_layers > 1):
            return None
        return 0.5 if config.optim == "sgd" or config.n_layers == 4 else 0.87

    shown, open_before = [], plt.get_fignums()
    monkeypatch.setattr(
        lab, "run_trials", lambda *_, **__: SimpleNamespace(trials=made.runs.trials)
    )
    monkeypatch.setattr(
        "labrnn.reports.notebook.display",
        lambda data, metadata={}, **_: shown.append(data | metadata),
    )
    namespace = {}
    exec(parameters(FOLDER / f"{name}.ipynb"), namespace)
    small = {"train_reviews": 0} if name.startswith("lab1") else {}
    namespace.update(small)
    made = results(PARTS[name](**small), accuracy, reviews=500)
    for source in code(FOLDER / f"{name}.ipynb"):
        exec(compile(source, name, "exec"), namespace)
    assert plt.get_fignums() == open_before
    said = "\n".join(data["text/markdown"] for data in shown if "text/markdown" in data)
    assert ("was run, so there is nothing" in said) == (amount == "none")
    claims = [
        v["published"] for metadata in shown for v in metadata.get("report", {}).get("verdicts", [])
    ]
    assert set(claims) == {claim.published for claim in PARTS[name]().claims()}


@pytest.mark.parametrize("name", LABS)
def test_figures_have_the_labs_numbers(name):
    numbers = [[1], [2], [3], [4], [5, "8a"], [6, "8b"], [7, "8c"], [], [9, 10, 11]]
    found = re.findall(r'number=(\d+|"\w+")', "\n".join(code(FOLDER / f"{name}.ipynb")))
    assert [ast.literal_eval(n) for n in found] == numbers[LABS.index(name)]


# Papermill by itself, without this package's command line


def mill(name, values, folder, reviews):
    """Run `papermill NOTEBOOK OUT -f FILE`; return the finished process and the output path."""
    (folder / "tiny.yaml").write_text(
        yaml.safe_dump({"data": write_reviews(reviews, folder / "reviews.csv"), **values})
    )
    out = folder / "out.ipynb"
    command = [
        sys.executable,
        "-m",
        "papermill",
        FOLDER / f"{name}.ipynb",
        out,
        "-f",
        folder / "tiny.yaml",
        "--no-progress-bar",
    ]
    return subprocess.run(command, capture_output=True, text=True), out


def test_plain_papermill(tmp_path, reviews):
    values = {"optimizers": ["adam", "sgd"], "train_reviews": 200, "max_tokens": 16, "epochs": 2}
    process, out = mill("lab2a_lstm_optimizers", values, tmp_path, reviews)
    assert process.returncode == 0, process.stderr
    outputs = [o for cell in read(out).cells for o in cell.get("outputs", [])]
    pictures = [o.metadata["report"] for o in outputs if "image/svg+xml" in o.get("data", {})]
    assert [p["label"] for p in pictures] == ["fig-optimizers", "fig-together"]
    said = "\n".join(o.data.get("text/markdown", "") for o in outputs if "data" in o)
    assert "This is a reduced setting: 200 training reviews" in said


def test_prints_that_arrive_in_pieces_are_one_output(tmp_path):
    printing = nbformat.v4.new_code_cell("for k in range(3):\n    print(k, flush=True)")
    parameters = nbformat.v4.new_code_cell("a = 1", metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[parameters, printing])
    nbformat.write(notebook, tmp_path / "pieces.ipynb")
    done = execute(tmp_path / "pieces.ipynb", {})
    assert [output.text for output in done.cells[-1].outputs] == ["0\n1\n2\n"]


def test_a_misspelt_parameter_is_refused(tmp_path, reviews):
    process, _ = mill("lab2d_width", {"width": [10]}, tmp_path, reviews)
    assert process.returncode != 0
    assert "width: unknown parameter; did you mean `widths`?" in process.stderr


def test_a_bad_value_is_refused(tmp_path, reviews):
    process, _ = mill("lab1_lstm", {"lr": "1e-3x"}, tmp_path, reviews)
    assert process.returncode != 0
    assert "lr = '1e-3x'" in process.stderr


def test_bibliography_matches_the_citations():
    entries = set(
        re.findall(r"^@\w+\{(\w+),", (TEMPLATES / "references.bib").read_text("utf-8"), re.M)
    )
    texts = [c.source for path in NOTEBOOKS for c in read(path).cells if c.cell_type == "markdown"]
    folder = FOLDER.parent / "labrnn" / "results" / "templates"
    texts += [path.read_text("utf-8") for path in folder.glob("*.md")]
    assert set(re.findall(r"@([a-z]+\d{4})", "\n".join(texts))) == entries
