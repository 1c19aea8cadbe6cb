"""Run every command of README and docs in a copy of the tree with tiny parts and reviews.

A command that is added to a page must be listed in this module; otherwise its first test fails.
"""

import re
import shlex
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pypdfium2
import pytest
import yaml
from packaging.requirements import Requirement
from tiny import write_reviews
from tree import copy_project, fenced, lock, run

from labrnn.trials.store import PROJECT

PAGES = ["README.md", "docs/how-to.md", "docs/structure.md", "docs/decisions.md"]
PAGES += ["benchmarks/README.md"]
TINY = {"train_reviews": 100, "max_tokens": 16, "epochs": 1, "batch_size": 32}
PARTS = {  # the copy has only these params files
    "quick/lab2c_depth": {**TINY, "depths": [1]},
    "full/lab2c_depth": {**TINY, "depths": [1], "train": False},
}
DASK = find_spec("dask_jobqueue") is not None
REGISTRIES = "python -m pytest tests/test_registries.py"
LEARN = "python -m pytest tests/test_notebooks.py tests/test_commands.py"

FIRST = 'labrnn report lab2c --author "Ada Lovelace"'

# Copies of the quick files for few reviews; each line needs the preceding ones.
SMALL = [
    "cp -r params/quick /tmp/small",
    "sed -i 's/^train_reviews: .*/train_reviews: 0/' /tmp/small/*.yaml",
    "labrnn report /tmp/small/*.yaml --data my_reviews.csv --out /tmp/mine",
]

# Run literally: the command, and its output or the file that it creates.
LITERALLY = {
    "make report": Path("reports/quick/lab2c_depth.pdf"),
    "labrnn report params/quick/lab2c_depth.yaml": "/reports/quick/write_up.pdf",
    "make tidy": "schemas in params/schema",
    "labrnn report params/quick/*.yaml --data my_reviews.csv --out /tmp/mine": "/mine/write_up.pdf",
    "labrnn report /tmp/lab2c_depth.yaml --out /tmp/reports": Path("tmp/reports/lab2c_depth.html"),
    "cp params/quick/lab2c_depth.yaml /tmp/lab2c_depth.yaml": Path("tmp/lab2c_depth.yaml"),
    "papermill notebooks/lab2c_depth.ipynb out.ipynb -f params/quick/lab2c_depth.yaml": Path(
        "out.ipynb"
    ),
    "jupyter nbconvert --execute --to labpdf notebooks/lab2c_depth.ipynb "
    "--output-dir /tmp/reports --no-input": Path("tmp/reports/lab2c_depth.pdf"),
    'labrnn train params/full/*.yaml --data "IMDB Dataset.csv"': "1 trials stored, 0 failed",
    "labrnn trials": "TRAIN_REVIEWS=100",
    "labrnn trials export reports/full params/full/*.yaml": "1 added",
    'labrnn predict "A waste of two hours."': "A waste of two hours.",
    "labrnn data --data my_reviews.csv": "my_reviews.csv",
    SMALL[0]: Path("tmp/small/lab2c_depth.yaml"),
}
# Reduced for the given reason: the command, what is run instead, and its output.
REDUCED = {
    # No server listens at the address that `in_tree` sets; test_download.py tests the rest.
    "labrnn data --download": ("! labrnn data --download", "get aclImdb_v1.tar.gz elsewhere"),
    # A cluster plan needs Dask; if it is missing, the message says how to install it.
    "labrnn train params/full/*.yaml --scheduler params/cluster/slurm.yaml --dry-run": (
        ("" if DASK else "! ")
        + "labrnn train params/full/*.yaml --scheduler params/cluster/slurm.yaml --dry-run",
        "#SBATCH" if DASK else "is missing; run `make setup EXTRAS=cluster`",
    ),
    # test_jupyterlab.py starts it with the arguments that make prints here.
    "make lab": ("make -n lab", "jupyter lab --LabApp.default_url=/lab/tree/notebooks"),
    # This is the command that runs these tests.
    "make test": ("make -n test", "python -m pytest -n auto"),
    # It would install packages; test_ground.py tests set-up.
    "make setup": ("make -n setup", "tools/bootstrap.py"),
    SMALL[1]: (f"{SMALL[0]}; {SMALL[1]}; cat /tmp/small/lab2c_depth.yaml", "train_reviews: 0"),
    SMALL[2]: ("; ".join(SMALL), "/mine/write_up.pdf"),
    # Like `make report`, with other files.
    "make full-report": ("make -n full-report", "labrnn report params/full/*.yaml"),
    # The compared packages take a gigabyte and minutes: only check that it starts with --full.
    "make bench": ("make -n bench", "benchmarks/bench.py"),
    "make bench BENCH=--full": (
        "make -n bench BENCH=--full; python benchmarks/bench.py --help",
        "--full      time whole training runs too",
    ),
}
# Run or checked by another function of this module.
ELSEWHERE = {
    FIRST: "tree",
    "make setup EXTRAS=cluster": "test_the_extra_can_be_installed",
    "conda env create -f environment.yml": "test_conda_reads_the_environment",
    "conda activate labrnn": "test_conda_reads_the_environment",
    "labrnn report lab2c": "tree",
    "cp notebooks/lab2c_depth.ipynb notebooks/dropout.ipynb": "test_new_part_follows_the_page",
    REGISTRIES: "test_additions_follow_the_page",
    LEARN: "test_new_part_follows_the_page",
    "labrnn report params/quick/dropout.yaml": "test_new_part_follows_the_page",
}


def commands(text):
    """Return the commands in a page's shell blocks and inline code, without comments."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    lines = [x for word, block in fenced(text) if not word for x in block.splitlines()]
    text = re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)
    lines += re.findall(r"`((?:make|labrnn|conda|jupyter|\.venv/bin/\w+) [^`]+)`", text)
    lines = [re.sub(r"\s+# .*|^\.venv/bin/", "", line).strip() for line in lines]
    return [line for line in lines if line]


def test_every_documented_command_is_listed():
    found = {c for page in PAGES for c in commands((PROJECT / page).read_text("utf-8"))}
    assert found == {*LITERALLY, *REDUCED, *ELSEWHERE}
    assert set(ELSEWHERE.values()) <= set(globals())


def test_commands_are_found_in_blocks_and_inline_code():
    page = (
        "Try `labrnn x`.\n\n```\nmake y  # why\n```\n\n1. So\n\n   ```\n   .venv/bin/z -a\n   ```\n"
    )
    assert commands(page + "`code`, `make`\n```python\nprint()\n```") == [
        "make y",
        "z -a",
        "labrnn x",
    ]


@pytest.fixture(scope="module")
def tree(reviews, tmp_path_factory):
    """The copy: two tiny params files, reviews under the names on the pages, one stored trial."""
    tree = copy_project(tmp_path_factory.mktemp("tree"))
    for path in tree.glob("params/*/*.yaml"):
        name = f"{path.parent.name}/{path.stem}"
        if name in PARTS:
            path.write_text(path.read_text().splitlines()[0] + "\n" + yaml.safe_dump(PARTS[name]))
        elif path.parent.name != "cluster":
            path.unlink()
    for name in ("my_reviews.csv", "IMDB Dataset.csv", "tiny.csv"):
        write_reviews(reviews, tree / name)
    notebook = tree / "notebooks/lab2c_depth.ipynb"
    notebook.write_text(tiny(notebook.read_text(), PARTS["quick/lab2c_depth"]))
    (tree / "tmp").mkdir()
    code, shown = in_tree(FIRST, tree)
    assert code == 0, shown
    assert "lab2c_depth.pdf" in shown
    return tree


def tiny(notebook, values):
    """Return a notebook's text with other values in its parameters cell."""
    for name, value in values.items():
        notebook, count = re.subn(rf'("{name}: [\w\[\]]+ = ).*?(  #)', rf"\g<1>{value}\2", notebook)
        assert count == 1
    return notebook


def in_tree(command, tree):
    """Run a command as on the pages, with `.venv/bin` on the path and another /tmp."""
    return run(
        f"PATH=$PWD/.venv/bin:$PATH; {command.replace('/tmp', str(tree / 'tmp'))}",
        tree,
        LABRNN_DATA=str(tree / "tiny.csv"),
        LABRNN_DOWNLOAD_URL="http://127.0.0.1:9/a.tar.gz",
        NO_PROXY="127.0.0.1",
    )


@pytest.mark.parametrize("command", [*LITERALLY, *REDUCED])
def test_command(command, tree):
    executed, shows = REDUCED.get(command) or (command, LITERALLY[command])
    if command.startswith("labrnn report /tmp"):
        in_tree("cp params/quick/lab2c_depth.yaml /tmp/lab2c_depth.yaml", tree)
    if isinstance(shows, Path):
        (tree / shows).unlink(missing_ok=True)  # an earlier command may have created it
    code, shown = in_tree(executed, tree)
    assert code == 0, shown
    if isinstance(shows, Path):
        assert (tree / shows).exists(), shown
    else:
        assert shows in shown


def test_the_copy_runs_its_own_sources(tree):
    _, shown = in_tree("python -c 'import labrnn; print(labrnn.__file__)'", tree)
    assert shown.strip() == str(tree / "labrnn/__init__.py")


def test_the_extra_can_be_installed():
    wanted = [
        Requirement(line) for line in requires("labrnn") if line.endswith('extra == "cluster"')
    ]
    pinned = {package.name for package, _ in lock().select(extras=["cluster"])}
    assert wanted
    assert {requirement.name for requirement in wanted} <= pinned


def test_conda_reads_the_environment():
    found = yaml.safe_load((PROJECT / "environment.yml").read_text())
    assert {"name", "channels", "dependencies"} <= set(found)


# Additions


def apply_diffs(section, tree):
    """Apply the diffs of a section of the page to the tree; return the changed files."""
    page = (PROJECT / "docs/how-to.md").read_text("utf-8")
    text = page[page.index(f"## {section}\n") :]
    text = text[: text.find("\n## ", 1)]
    steps = [
        (re.findall(r"`(labrnn/[\w/]+\.py)`", text[: found.start()])[-1], found[1])
        for found in re.finditer(r"```diff\n(.*?)```", text, re.S)
    ]
    for file, diff in steps:
        lines = [(line[:1], line[1:] + "\n") for line in diff.splitlines()]
        before, after = ("".join(x for sign, x in lines if sign != other) for other in "+-")
        code = (tree / file).read_text()
        assert code.count(before) == 1, (file, before)
        (tree / file).write_text(code.replace(before, after))
    return [file for file, _ in steps]


@pytest.fixture
def sources(reviews, tmp_path):
    """A copy of the tree for additions."""
    tree = copy_project(tmp_path)
    write_reviews(reviews, tree / "tiny.csv")
    (tree / "trains.py").write_text(TRAINS)
    return tree


TRAINS = """
import sys, torch
from labrnn.config import TrialConfig
from labrnn.errors import LabError
from labrnn.network.training import train
from labrnn.reviews.text import load_corpus
from labrnn.trials.trial import trial_key
usual = TrialConfig(train_reviews=100, max_tokens=16, epochs=1, batch_size=32, hidden_dim=10,
                    optim="adam", warmup_steps=1)
loss = lambda config: train(config, load_corpus(config)).history[0]["train_loss"]
print(trial_key(usual), usual_loss := loss(usual))
for change in sys.argv[1:]:
    name, value = change.split()
    try:
        print(change, loss(usual.replace(**{name: value})) != usual_loss)
    except LabError as error:
        print(change, "is refused")
"""


def test_additions_follow_the_page(sources):
    """Make the additions one after another in one copy; then run the tests of the registries."""
    additions = {
        "Add an optimiser": ("optim nadam", 1),
        "Add a cell": ("cell rnn", 1),
        "Add a hyperparameter": ("clip_norm 0.001", 2),
    }
    changes = [change for change, _ in additions.values()]
    trains = f"python trains.py {shlex.join(changes)}"
    code, before = in_tree(trains, sources)
    assert code == 0, before
    assert before.splitlines()[1:] == [f"{change} is refused" for change in changes]
    for section, (_, most) in additions.items():
        files = apply_diffs(section, sources)
        assert len(files) == len(set(files)) == most
    code, now = in_tree(trains, sources)
    assert code == 0, now
    assert now.splitlines()[0] == before.splitlines()[0]  # same key, same loss without the change
    assert now.splitlines()[1:] == [f"{change} True" for change in changes]

    code, shown = in_tree(REGISTRIES, sources)
    assert code == 0, shown
    path = "params/quick/lab2a_lstm_optimizers.yaml"
    (sources / path).write_text("optimizers: [adam, nadam]\n")
    _, shown = in_tree(
        f"python -c 'from labrnn.parts import *; print(read_params(\"{path}\").settings())'",
        sources,
    )
    assert "NAdam" in shown, shown


def test_new_part_follows_the_page(tree):
    """Follow the steps of docs/how-to.md, with smaller numbers in the params."""
    page = (PROJECT / "docs/how-to.md").read_text("utf-8")
    steps = fenced(page[page.index("## Add a part") : page.index("## Change the look")])
    (_, part), (_, copy), *cells, (_, params), (_, check), (_, report) = steps

    parts = tree / "labrnn/parts.py"
    text = parts.read_text().replace("\n\ndef part_named", f"\n\n{part}\n\ndef part_named")
    parts.write_text(text)
    assert in_tree(copy, tree)[0] == 0
    notebook = nbformat.read(
        PROJECT / copy.split()[1], 4
    )  # the copy in the tree has tiny parameters
    new = {"markdown": nbformat.v4.new_markdown_cell, "python": nbformat.v4.new_code_cell}
    own = notebook.cells[1]
    kept = own.source[own.source.index("checkpoint: ") :]
    assert kept.splitlines()[-1].startswith("batch_size: ")
    notebook.cells = [new[word](text.rstrip()) for word, text in cells]
    own.source = f"{notebook.cells[1].source}\n{kept}"
    notebook.cells[1] = own
    nbformat.write(notebook, tree / "notebooks/dropout.ipynb")
    (tree / "params/quick/dropout.yaml").write_text(params)

    tidy, tests, report = commands(f"```\n{check}{report}```")
    for command in (tidy, f"{tests} -k 'dropout or schemas'", report):
        if command == report:
            small = yaml.safe_load(params) | TINY
            (tree / "params/quick/dropout.yaml").write_text(yaml.safe_dump(small))
        code, shown = in_tree(command, tree)
        assert code == 0, shown
    pages = pypdfium2.PdfDocument(tree / "reports/quick/dropout.pdf")
    text = " ".join(pages[k].get_textpage().get_text_range() for k in range(len(pages)))
    assert "Dropout, more or less" in text
    assert "rate 0.5" in text
    assert "This is a reduced setting: 100 training reviews" in " ".join(text.split())
