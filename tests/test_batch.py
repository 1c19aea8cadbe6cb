"""From params files to reports, and the handling of failing notebooks."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from tiny import PATIENCE, until, write_reviews

from labrnn.errors import LabError
from labrnn.lab import Lab
from labrnn.parts import Data, Lstm, read_params
from labrnn.reports import batch
from labrnn.reports import report as one
from labrnn.reports.batch import make, plan, with_trials
from labrnn.reports.kernel import Processes
from labrnn.reports.report import Report, scratch
from labrnn.results.baselines import kept_file
from labrnn.trials.job import train_and_store
from labrnn.trials.store import Store

PART = Lstm(train=False, fingerprint="0" * 16)
QUICK = {"train_reviews": 60, "max_tokens": 16, "epochs": 1, "batch_size": 32}
# Parts whose notebooks run faster than those of Lab 1.
DEPTH, WIDTH = {"part": "lab2c_depth", "depths": [1]}, {"part": "lab2d_width", "widths": [10]}


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


def test_report_is_rebuilt_only_if_its_inputs_change(tmp_path, data):
    out = tmp_path / "reports"
    files = [params(tmp_path, **DEPTH), params(tmp_path, **WIDTH)]
    first = report(*files, "--out", str(out), "--jobs", "2")
    assert first.returncode == 0, first.stderr
    assert str(out / "lab2c_depth.pdf") in first.stdout
    names = {f"{n}.{s}" for n in ("lab2c_depth", "lab2d_width") for s in ("pdf", "ipynb")}
    before = made(out)
    assert set(before) == names | {"write_up.pdf"}
    page = (out / "index.html").read_text("utf-8")
    assert all(f'"{name}.pdf"' in page for name in ("lab2c_depth", "lab2d_width", "write_up"))

    again = report(*files, "--out", str(out), "--jobs", "2")
    assert again.returncode == 0
    assert "2 of 2 reports are up to date" in again.stdout
    assert made(out) == before

    params(tmp_path, **WIDTH, lr=0.02)
    third = report(*files, "--out", str(out), "--jobs", "2")
    assert third.returncode == 0, third.stderr
    changed = {name for name, when in made(out).items() if when != before[name]}
    assert changed == {"lab2d_width.pdf", "lab2d_width.ipynb", "write_up.pdf"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("hiden_dim: 3", ["hiden_dim", "unknown parameter"]),
        ("epochs: five", ["epochs", "five", "integer"]),
        ("seeds: []", ["seeds", "at least 1"]),
        ("lr: .nan", ["lr", "finite"]),
    ],
)
def test_invalid_params_file_fails_before_anything_runs(tmp_path, data, line, words):
    path = tmp_path / "lab1_lstm.yaml"
    path.write_text(line + "\n")
    done = report(str(path), "--out", str(tmp_path / "reports"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr for word in [str(path), *words])
    assert not (tmp_path / "reports").exists()


def test_params_file_with_unknown_part_name_is_refused(tmp_path):
    path = tmp_path / "lab9.yaml"
    path.write_text("epochs: 1\n")
    with pytest.raises(LabError, match=r"no part is called 'lab9'; known: questions"):
        read_params(path)


def one_report(tmp_path, *cells, author="tests"):
    """Return a report without training whose notebook has these code cells."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    source = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
    tagged = nbformat.v4.new_code_cell("epochs: int = 1", metadata={"tags": ["parameters"]})
    source.cells = [tagged, *map(nbformat.v4.new_code_cell, cells)]
    folder = tmp_path / "notebooks"
    folder.mkdir(exist_ok=True)
    nbformat.write(source, folder / "lab1_lstm.ipynb")
    return Report(PART, [], tmp_path / "out", author, folder, PART.fingerprint)


def test_cell_error_reports_cell_number_and_exception(tmp_path):
    failing = one_report(tmp_path, "x = 1", "raise ValueError('no such film')")
    with pytest.raises(LabError, match=r"cell 4 failed\s+ValueError: no such film"):
        failing.run()
    assert not any(path.exists() for path in failing.outputs())
    assert not failing.is_done()


def test_dead_kernel_is_reported(tmp_path):
    dying = one_report(tmp_path, "import os; os._exit(9)")
    with pytest.raises(LabError, match="its kernel died"):
        dying.run()
    assert not dying.is_done()


def test_hanging_cell_times_out(tmp_path, monkeypatch):
    monkeypatch.setattr(one, "CELL_SECONDS", 2)
    with pytest.raises(LabError, match="took longer than 2 s"):
        one_report(tmp_path, "import time; time.sleep(9999)").run()


SCRIPT = """
import signal, sys
from pathlib import Path
from labrnn.parts import Lstm
from labrnn.reports.batch import make
from labrnn.reports.kernel import Processes
from labrnn.reports.report import Report
if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    part = Lstm(train=False, fingerprint="0" * 16)
    folders = map(Path, sys.argv[1:])
    reports = [Report(part, [], f / "out", "tests", f / "notebooks") for f in folders]
    make(reports, Processes(), 1)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
def test_no_process_outlives_a_stopped_run(tmp_path, number):
    """No process or kernel is left, and no other notebook starts; the next run removes folders."""
    cell = "import os, time; open('{}', 'w').write(f'{{os.getpid()}} {{os.getppid()}}\\n')\ntime.sleep(9999)"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        one_report(tmp_path / name, cell.format(tmp_path / f"{name}.pids"))
    (tmp_path / "script.py").write_text(SCRIPT)
    temporary = Path(tempfile.mkdtemp(prefix="t"))  # socket paths must be short
    command = [sys.executable, tmp_path / "script.py", tmp_path / "one"]
    options = {"stderr": subprocess.DEVNULL, "env": os.environ | {"TMPDIR": str(temporary)}}
    process = subprocess.Popen([*command, tmp_path / "two"], **options)
    pids = tmp_path / "one.pids"
    until(lambda: pids.exists() and pids.read_text().endswith("\n"))
    process.send_signal(number)
    process.wait(PATIENCE)
    until(lambda: not any(map(alive, pids.read_text().split())))
    assert not (tmp_path / "two.pids").exists()

    places = [tmp_path / "one" / "out" / ".work", temporary]
    assert all(list(place.glob("labrnn-*")) for place in places)
    one_report(tmp_path / "one", "print('fine')")
    subprocess.run(command, check=True, **options)
    assert not any(list(place.glob("labrnn-*")) for place in places)
    shutil.rmtree(temporary)


def test_folders_of_running_processes_are_kept(tmp_path):
    with scratch(tmp_path) as mine:
        code = (
            "import sys; from pathlib import Path; from labrnn.reports.report import scratch\n"
            "with scratch(Path(sys.argv[1])): pass"
        )
        subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
        assert mine.exists()
    assert list(tmp_path.iterdir()) == []


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("tags", [[], ["parameters", "parameters"]])
def test_notebook_without_exactly_one_parameters_cell_is_refused(tmp_path, tags):
    made = one_report(tmp_path, "raise SystemExit")
    notebook = nbformat.read(made.source, 4)
    notebook.cells = [
        nbformat.v4.new_code_cell("epochs: int = 1", metadata={"tags": [tag]} if tag else {})
        for tag in tags or [""]
    ]
    nbformat.write(notebook, made.source)
    with pytest.raises(
        LabError, match=rf"{len(tags)} cells have the tag `parameters`.*give the cell"
    ):
        made.run()
    assert not any(path.exists() for path in made.outputs())


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"cells": 3}', b"<html>"])
def test_non_notebook_is_refused(tmp_path, content):
    made = one_report(tmp_path)
    made.source.write_bytes(content)
    with pytest.raises(LabError, match=r"^lab1_lstm: "):
        made.run()
    assert not any(path.exists() for path in made.outputs())


def test_uncreatable_output_folder_is_reported_before_anything_runs(tmp_path, data):
    (tmp_path / "file").touch()
    done = report(params(tmp_path), "--out", str(tmp_path / "file" / "reports"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "file/reports: Not a directory; correct the path" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "trials").exists()


def test_key_of_report_without_trainings_depends_on_the_reviews(tmp_path, reviews, monkeypatch):
    path = params(tmp_path, "lab1_data", train_reviews=0)
    keys = set()
    for count in (100, 120, 120):
        some = SimpleNamespace(texts=reviews.texts[:count], labels=reviews.labels[:count])
        monkeypatch.setenv("LABRNN_DATA", write_reviews(some, tmp_path / f"{count}.csv"))
        [planned] = plan([path], tmp_path / "out")
        keys.add(with_trials(planned, {}).key())
    assert len(keys) == 2


def test_unknown_part_name_in_notebook_lists_known_parts():
    with pytest.raises(
        LabError, match=r"Lab\('typo', ...\): no part is called 'typo'; known: ques"
    ):
        Lab("typo", {})


def test_unwritable_folder_fails_the_report_and_keeps_the_old_one(tmp_path):
    made = one_report(tmp_path, "print('fine')")
    made.run()
    before = [path.read_bytes() for path in made.outputs()]
    other = replace(made, author="another author")
    (tmp_path / "out" / ".work").rmdir()
    (tmp_path / "out" / ".work").touch()  # a file in place of the work folder
    failures = []
    assert make([other], Processes(), 1, show=lambda line: None, warn=failures.append) == 3
    failed = [line.split(": ")[0] for line in failures]
    assert failed == ["FAILED lab1_lstm", "FAILED write_up", "FAILED gallery"]
    assert all("/.work" in line for line in failures)
    assert [path.read_bytes() for path in made.outputs()] == before
    assert made.is_done()


def test_failed_report_does_not_stop_the_others(tmp_path):
    failing = one_report(tmp_path, "1 / 0")
    (tmp_path / "good").mkdir()
    good = one_report(tmp_path / "good", "print('fine')")
    failures, shown = [], []
    assert make([failing, good], Processes(), 2, shown.append, failures.append) == 1
    assert "ZeroDivisionError" in failures[0]
    assert good.is_done()
    assert not failing.is_done()
    assert f"lab1_lstm: {good.outputs()[1]}" in shown


def test_process_start_failure_is_reported_once(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        one_report(tmp_path / name, "print('fine')")
    broken = SCRIPT.replace(
        "    part",
        "    import multiprocessing.spawn as spawn\n    spawn.set_executable('/bin/false')\n    part",
    )
    (tmp_path / "script.py").write_text(broken)
    command = [sys.executable, tmp_path / "script.py", tmp_path / "one", tmp_path / "two"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.count("no process can be started for the reports") == 1


def test_report_is_made_while_other_parts_train(tmp_path, data, monkeypatch):
    """The GRU finishes training only after the report of the LSTM exists."""
    reports = plan([params(tmp_path, name) for name in ("lab1_gru", "lab1_lstm")], tmp_path / "out")
    assert [report.name for report in reports] == ["lab1_lstm", "lab1_gru"]  # order of the lab

    def train_missing(plan, data, store, jobs, device, display, on_end):
        cells = [config.cell for config in plan.missing]
        assert list(dict.fromkeys(cells)) == ["lstm", "gru"]
        assert cells == sorted(cells, reverse=True)
        for cell in ("lstm", "gru"):
            for config in (c for c in plan.missing if c.cell == cell):
                plan.trials[config] = train_and_store(config, data, store)
                on_end(config)
            page = tmp_path / "out" / f"lab1_{cell}.pdf"
            until(page.exists)
        assert (
            tmp_path / "out" / "index.html"
        ).exists()  # the gallery already has the first report

    monkeypatch.setattr(batch, "train_missing", train_missing)
    monkeypatch.setattr(batch, "GALLERY_SECONDS", 0)
    shown = []
    assert make(reports, Processes(), 2, shown.append) == 0
    assert [line.partition(":")[0] for line in shown] == [
        *("lab1_lstm", "lab1_gru", "all parts in one document", "all reports at a glance"),
    ]


def test_changed_output_or_invalid_record_is_not_up_to_date(tmp_path):
    good = one_report(tmp_path, "print('fine')")
    good.run()
    sound = good.record.read_text("utf-8")
    for path in good.outputs():
        content = path.read_bytes()
        path.write_bytes(content + b"x")
        assert not good.is_done()
        path.write_bytes(content)
        assert good.is_done()
    record = json.loads(sound)
    changed = [{other: record[other] for other in record if other != name} for name in record]
    changed += [record | {"key": 1}, record | {"kept": []}, record | {"outputs": {}}]
    for text in ("{", "[]", *map(json.dumps, changed)):
        good.record.write_text(text, "utf-8")
        assert not good.is_done(), text
        good.record.write_text(sound, "utf-8")
        assert good.is_done()


def test_record_describes_rendered_output_not_files_on_disk(tmp_path, monkeypatch):
    """Two runs write to one folder, so the files carry the name of the other author."""
    ada, bob = (one_report(tmp_path, "print('fine')", author=name) for name in ("Ada", "Bob"))
    bob.run()
    theirs = [path.read_bytes() for path in bob.outputs()]
    write = Report.write_record

    def later(report, *arguments):
        for path, content in zip(ada.outputs(), theirs, strict=True):
            path.write_bytes(content)
        write(report, *arguments)

    monkeypatch.setattr(Report, "write_record", later)
    ada.run()
    assert not ada.is_done()
    assert not bob.is_done()
    monkeypatch.undo()
    ada.run()
    assert ada.is_done()


def test_report_depends_on_author_versions_and_kept_values(tmp_path, monkeypatch):
    store = Store(tmp_path / "trials")
    store.keep(PART.fingerprint, f"other-{'0' * 16}.json", [1])
    made = one_report(tmp_path, "print('fine')")
    made.run()
    assert made.is_done()
    assert not replace(made, author="another").is_done()
    store.keep(PART.fingerprint, f"other-{'1' * 16}.json", [1])  # added later, so it was not read
    assert made.is_done()
    (path,) = (p for p, *_ in store.kept(PART.fingerprint) if p.name.endswith(f"{'0' * 16}.json"))
    path.unlink()
    store.keep(PART.fingerprint, path.name, [2])
    assert not made.is_done()
    path.unlink()
    store.keep(PART.fingerprint, path.name, [1])
    found = [*one.distributions(), SimpleNamespace(name="matplotlib", version="0")]
    monkeypatch.setattr(one, "distributions", lambda: found)
    one.package_digest.cache_clear()
    assert not made.is_done()
    one.package_digest.cache_clear()


def test_later_baseline_is_an_input_only_of_parts_with_trainings(tmp_path):
    """`make report` fits baselines after the data report, which does not draw them."""
    trains = Report(PART, [], tmp_path, "tests", reviews=PART.fingerprint)
    shows = replace(trains, part=Data(train=False, fingerprint=PART.fingerprint))
    assert trains.kept() == {kept_file(PART): None}  # a new digest then changes the inputs
    assert shows.kept() == {}


def test_the_same_inputs_give_the_same_bytes(tmp_path, data):
    """The folder name and the time of training do not matter."""
    path, made = params(tmp_path), []
    for folder in ("one", "x{a}"):
        (tmp_path / folder).mkdir()
        done = report(path, "--out", str(tmp_path / folder))
        assert done.returncode == 0, done.stderr
        names = [f"{name}{s}" for name in ("lab1_lstm", "write_up") for s in (".pdf", ".html")]
        names.append("lab1_lstm.ipynb")
        made.append({name: (tmp_path / folder / name).read_bytes() for name in names})
    assert made[0] == made[1]
    assert sorted(os.listdir(tmp_path)) == sorted(
        ["cache", "lab1_lstm.yaml", "one", "reviews.csv", "trials", "x{a}"]
    )


def test_report_date_and_versions_come_from_its_trials(tmp_path):
    data = {"reviews": 50_000}

    def trial(finished, commit, torch, name="a.csv"):
        made = {
            "finished": finished,
            "commit": commit,
            "versions": {"torch": torch},
            "device": "cpu",
        }
        return SimpleNamespace(environment=made, fingerprint="1" * 16, data=data | {"name": name})

    trials = [
        trial("2026-01-02T10:00:00", "old", "2.1"),
        trial("2026-03-04T10:00:00", "new", "2.2", "b.csv"),
        trial("2026-02-03T10:00:00", "", "2.1"),
    ]
    made = replace(one_report(tmp_path), trials=trials)
    assert made.day() == "2026-03-04"
    assert made.facts() == {
        "data": f"a.csv, 50,000 reviews, fingerprint {'1' * 16}",
        "runs read": 3,
        "device": "cpu",
        "versions": {"torch": "2.1, 2.2"},
        "commit": "new, old",
    }
    many = [trial(f"2026-01-0{k}T10:00:00", f"c{k}", "2.1") for k in range(1, 7)]
    assert replace(made, trials=many).facts()["commit"] == "c6, c5, c4, c3 and 2 more"
    without = replace(made, trials=[])
    assert (without.day(), without.facts().keys()) == ("", {"data", "content"})


def test_output_folder_is_named_after_the_params_folder(tmp_path, data):
    folder = tmp_path / "mine"
    folder.mkdir()
    [planned] = plan([params(folder)])
    assert planned.out.parts[-2:] == ("reports", "mine")


def test_closed_output_pipe_does_not_stop_reports(tmp_path, data):
    """`labrnn report ... | head -1`."""
    out = tmp_path / "out"
    command = f"report {params(tmp_path, **DEPTH)} {params(tmp_path, **WIDTH)} --out {out}"
    start = f"{sys.executable} -c 'from labrnn.cli import main; main()'"
    shell = f"set -o pipefail; {start} {command} | true"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
    assert done.returncode == 0
    assert "FAILED" not in done.stderr
    assert "Broken" not in done.stderr
    assert all(
        (out / f"{name}.pdf").exists() for name in ("lab2c_depth", "lab2d_width", "write_up")
    )
