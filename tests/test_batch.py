"""From params files to reports, and what becomes of a notebook that fails."""

import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest
from tiny import PATIENCE, until, write_reviews

from labrnn.errors import LabError
from labrnn.lab import Lab
from labrnn.parts import Lstm, read_params
from labrnn.reports import batch
from labrnn.reports.batch import plan

QUICK = {"train_reviews": 60, "max_tokens": 16, "epochs": 1, "batch_size": 32}


def params(folder, part="lab1_lstm", **values):
    path = folder / f"{part}.yaml"
    path.write_text("".join(f"{k}: {v}\n" for k, v in (QUICK | values).items()))
    return str(path)


@pytest.fixture
def data(reviews, tmp_path, monkeypatch):
    monkeypatch.setenv("LABRNN_DATA", write_reviews(reviews, tmp_path / "reviews.csv"))


def report(*arguments):
    command = [sys.executable, "-c", "from labrnn.cli import main; main()", "report", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"NO_COLOR": "1"}
    )


def made(out):
    return {p.name: p.stat().st_mtime_ns for p in out.iterdir() if p.suffix in (".pdf", ".ipynb")}


def test_a_report_is_made_once_and_again_only_where_its_inputs_changed(tmp_path, data):
    out = tmp_path / "reports"
    files = [params(tmp_path), params(tmp_path, "lab1_gru")]
    first = report(*files, "--out", str(out), "--jobs", "2")
    assert first.returncode == 0, first.stderr
    assert str(out / "lab1_lstm.pdf") in first.stdout
    names = {f"{n}.{s}" for n in ("lab1_lstm", "lab1_gru") for s in ("pdf", "ipynb")}
    before = made(out)
    assert set(before) == names | {"write_up.pdf"}

    again = report(*files, "--out", str(out), "--jobs", "2")
    assert again.returncode == 0
    assert "2 of 2 reports are up to date" in again.stdout
    assert made(out) == before

    params(tmp_path, "lab1_gru", lr=0.02)
    third = report(*files, "--out", str(out), "--jobs", "2")
    assert third.returncode == 0, third.stderr
    changed = {name for name, when in made(out).items() if when != before[name]}
    assert changed == {"lab1_gru.pdf", "lab1_gru.ipynb", "write_up.pdf"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("hiden_dim: 3", ["hiden_dim", "unknown parameter"]),
        ("epochs: five", ["epochs", "five", "integer"]),
        ("seeds: []", ["seeds", "at least 1"]),
        ("lr: .nan", ["lr", "finite"]),
    ],
)
def test_a_bad_params_file_stops_before_anything_runs(tmp_path, data, line, words):
    path = tmp_path / "lab1_lstm.yaml"
    path.write_text(line + "\n")
    done = report(str(path), "--out", str(tmp_path / "reports"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr for word in [str(path), *words])
    assert not (tmp_path / "reports").exists()


def test_a_file_that_is_named_after_no_part(tmp_path):
    path = tmp_path / "lab9.yaml"
    path.write_text("epochs: 1\n")
    with pytest.raises(LabError, match=r"no part is called 'lab9'; known: questions"):
        read_params(path)


def job(tmp_path, *cells, name="lab1_lstm"):
    """A job whose notebook has these code cells after its parameters."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    source = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
    tagged = nbformat.v4.new_code_cell("epochs: int = 1", metadata={"tags": ["parameters"]})
    source.cells = [tagged, *map(nbformat.v4.new_code_cell, cells)]
    folder = tmp_path / "notebooks"
    folder.mkdir(exist_ok=True)
    nbformat.write(source, folder / f"{name}.ipynb")
    return Job(Lstm(), [], tmp_path / "out", "tests", folder)


def test_an_error_in_a_cell_is_told_with_the_cell_and_its_last_words(tmp_path):
    failing = job(tmp_path, "x = 1", "raise ValueError('no such film')")
    with pytest.raises(LabError, match=r"cell 4 failed\s+ValueError: no such film"):
        failing.run()
    assert not any(path.exists() for path in failing.outputs())
    assert not failing.is_done()


def test_a_kernel_that_dies_is_a_failure(tmp_path):
    dying = job(tmp_path, "import os; os._exit(9)")
    with pytest.raises(LabError, match="its kernel died"):
        dying.run()
    assert not dying.is_done()


def test_a_cell_that_hangs_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "CELL_SECONDS", 2)
    with pytest.raises(LabError, match="took longer than 2 s"):
        job(tmp_path, "import time; time.sleep(9999)").run()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
def test_nothing_outlives_a_report_that_is_ended(tmp_path, number):
    """Neither its process nor the notebook's kernel, and no further notebook is begun."""
    cell = "import os, time; open('{}', 'w').write(f'{{os.getpid()}} {{os.getppid()}}\\n')\ntime.sleep(9999)"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        job(tmp_path / name, cell.format(tmp_path / f"{name}.pids"))
    script = (
        "import signal\nfrom pathlib import Path\nfrom labrnn.parts import Lstm\n"
        "from labrnn.reports.batch import Job, run_all\nif __name__ == '__main__':\n"
        "    signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
        f"    folders = [Path({str(tmp_path)!r}) / name for name in ('one', 'two')]\n"
        "    run_all([Job(Lstm(), [], f / 'out', 'tests', f / 'notebooks') for f in folders], 1)\n"
    )
    (tmp_path / "script.py").write_text(script)
    process = subprocess.Popen([sys.executable, tmp_path / "script.py"], stderr=subprocess.DEVNULL)
    pids = tmp_path / "one.pids"
    until(lambda: pids.exists() and pids.read_text().endswith("\n"))
    process.send_signal(number)
    process.wait(PATIENCE)
    until(lambda: not any(map(alive, pids.read_text().split())))
    assert not (tmp_path / "two.pids").exists()


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("tags", [[], ["parameters", "parameters"]])
def test_a_notebook_without_one_cell_of_parameters_is_refused(tmp_path, tags):
    made = job(tmp_path, "raise SystemExit")
    notebook = nbformat.read(made.source, 4)
    notebook.cells = [
        nbformat.v4.new_code_cell("epochs: int = 1", metadata={"tags": [tag]} if tag else {})
        for tag in tags or [""]
    ]
    nbformat.write(notebook, made.source)
    with pytest.raises(
        LabError, match=rf"{len(tags)} cells are tagged `parameters`.*give the cell"
    ):
        made.run()
    assert not any(path.exists() for path in made.outputs())


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"cells": 3}', b"<html>"])
def test_what_is_no_notebook_is_refused(tmp_path, content):
    made = job(tmp_path)
    made.source.write_bytes(content)
    with pytest.raises(LabError, match=r"^lab1_lstm: "):
        made.run()
    assert not any(path.exists() for path in made.outputs())


def test_a_folder_that_cannot_be_made_is_told_before_anything_runs(tmp_path, data):
    (tmp_path / "file").touch()
    done = report(params(tmp_path), "--out", str(tmp_path / "file" / "reports"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "file/reports: Not a directory; correct the path" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "trials").exists()


def test_other_reviews_make_a_report_without_trainings_anew(tmp_path, reviews, monkeypatch):
    path = params(tmp_path, "lab1_data", train_reviews=0)
    keys = set()
    for count in (100, 120, 120):
        some = SimpleNamespace(texts=reviews.texts[:count], labels=reviews.labels[:count])
        monkeypatch.setenv("LABRNN_DATA", write_reviews(some, tmp_path / f"{count}.csv"))
        [planned] = plan([path], tmp_path / "out")
        keys.add(planned.key())
    assert len(keys) == 2


def test_a_notebook_that_names_no_part_is_told_the_parts():
    with pytest.raises(
        LabError, match=r"Lab\('typo', ...\): no part is called 'typo'; known: ques"
    ):
        Lab("typo", {})


def test_a_full_disk_fails_one_report_and_keeps_the_old_one(tmp_path, capsys):
    made = job(tmp_path, "print('fine')")
    made.run()
    before = [path.read_bytes() for path in made.outputs()]
    other = Job(made.part, [], made.out, "another author", made.notebooks)
    (tmp_path / "out" / ".work").rmdir()
    (tmp_path / "out" / ".work").touch()  # a file where it wants its folder
    (failure,) = run_all([other], at_once=1, tell=print)
    assert failure.startswith("lab1_lstm: ")
    assert "/.work" in failure
    assert [path.read_bytes() for path in made.outputs()] == before
    assert made.is_done()


def test_one_that_fails_does_not_stop_the_others(tmp_path, capsys):
    failing = job(tmp_path, "1 / 0")
    (tmp_path / "good").mkdir()
    good = job(tmp_path / "good", "print('fine')")
    told = []
    failures = run_all([failing, good], at_once=2, tell=told.append)
    assert len(failures) == 1
    assert "ZeroDivisionError" in failures[0]
    assert good.is_done()
    assert not failing.is_done()


def test_a_changed_or_missing_output_is_made_again(tmp_path):
    good = job(tmp_path, "print('fine')")
    good.run()
    assert good.is_done()
    pdf = good.outputs()[1]
    pdf.write_bytes(pdf.read_bytes() + b"x")
    assert not good.is_done()
    record = good.record.path
    record.write_text("{", "utf-8")
    assert not good.is_done()
    record.write_text(json.dumps([]), "utf-8")
    assert not good.is_done()


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    good = job(tmp_path, "print('fine')")
    good.run()
    first = [path.read_bytes() for path in good.outputs()]
    good.run()
    assert [path.read_bytes() for path in good.outputs()] == first


def test_the_plan_names_the_folder_after_the_configuration(tmp_path, data):
    folder = tmp_path / "mine"
    folder.mkdir()
    [planned] = plan([params(folder)])
    assert planned.out.parts[-2:] == ("reports", "mine")
