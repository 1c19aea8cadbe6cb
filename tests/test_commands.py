"""The command line: help, exit codes, and the output of `labrnn data`."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import jsonschema
import pytest
import yaml
from tiny import TINY, run, train, write_params, write_reviews

from labrnn.cli import Steady, main
from labrnn.config import TrialConfig, find_params
from labrnn.parts import PARTS
from labrnn.reports.batch import plan
from labrnn.reviews.download import ARCHIVE
from labrnn.trials.plan import Plan
from labrnn.trials.progress import Display
from labrnn.trials.store import PROJECT

PARAMS = [path for path in sorted(PROJECT.glob("params/*/*.yaml")) if path.stem in PARTS]


def commands(group, *path):
    for name, command in group.commands.items():
        yield command, (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)


@pytest.mark.parametrize(("command", "path"), list(commands(main)), ids=str)
def test_help(command, path):
    code, out, _ = run(*path, "--help")
    assert code == 0
    assert command.help.split("\n")[0] in " ".join(out.split())
    if len(path) == 1:
        assert f"Example:\n    labrnn {path[0]}" in out or f"Examples:\n    labrnn {path[0]}" in out


@pytest.mark.parametrize("wrong", [["no-such-command"], ["train"], ["data", "--no-such-option"]])
def test_wrong_usage(wrong):
    code, out, err = run(*wrong)
    assert (code, out) == (2, "")
    assert "labrnn" in err or "Error" in err


def test_data(reviews, tmp_path):
    path = write_reviews(reviews, tmp_path / "mine.csv")
    code, out, _ = run("data", "--data", path)
    table = dict(line.split(maxsplit=1) for line in out.splitlines() if line.count(" "))
    assert code == 0
    assert (table["path"], table["name"], table["rows"]) == (path, "mine.csv", "300")
    assert int(table["positives"]) + int(table["negatives"]) == 300
    code, out, _ = run("data", "--data", path, "--json")
    facts = json.loads(out)
    assert (code, facts["path"], facts["rows"]) == (0, path, 300)
    assert facts["fingerprint"] == table["fingerprint"]
    assert facts["duplicate_rows"] == 0


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        ("trials --store {there} >&-", "labrnn: standard output: Bad file descriptor", 2),
        ("trials --store {there} >/dev/full", "labrnn: standard output: No space left", 2),
        ("--help >/dev/full", "labrnn: standard output: No space left", 2),
        ("trials --store {there}/none 2>&-", "", 0),
        ("trials --store {there}/file 2>&-", "", 2),
        ("trials --store {there}/file 2>/dev/full", "", 2),
        ("predict --data {there}/reviews.csv <&-", "labrnn: standard input is closed", 2),
        ("train --dry-run {there}/lab2d_width.yaml --data {there}/reviews.csv 2>&- <&-", "", 0),
    ],
)
def test_closed_or_full_streams(reviews, tmp_path, words, says, code):
    """At most one message, the correct exit code, and no traceback."""
    write_reviews(reviews, tmp_path / "reviews.csv")
    write_params(tmp_path, seeds=[0], epochs=1)
    (tmp_path / "file").touch()
    if words.startswith("predict"):
        train(TINY.replace(epochs=1), str(tmp_path / "reviews.csv"))
    command = f"{sys.executable} -c 'from labrnn.cli import main; main()' "
    line = command + words.format(there=tmp_path)
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert (done.returncode, bool(done.stderr)) == (code, bool(says)), done.stderr
    assert done.stderr.startswith(says)
    assert "Traceback" not in done.stderr


def test_broken_pipe_does_not_stop_the_work():
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        stream = Steady(pipe)
        for _ in range(3):
            print("a line", file=stream, flush=True)
        assert isinstance(stream.fault, BrokenPipeError)


@pytest.mark.parametrize(
    "words",
    [
        ["trials", "--store", "{}"], ["trials", "--store", "{}", "verify"], ["train", "{}.yaml"],
        ["predict", "good", "--trial", "{}"], ["schema", "{}/file/x"], ["{}"], ["data", "--{}"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_output_contains_no_terminal_escapes(tmp_path, words):
    name = "\x1b]0;title\x07\x9b31m\r"
    (tmp_path / name / "0123456789abcdef" / name).mkdir(parents=True)
    (tmp_path / name / "file").touch()
    path = name if words[0] in ("{}", "predict") or "--{}" in words else str(tmp_path / name)
    _, out, err = run(*(word.format(path) for word in words))
    assert not set("\x1b\x07\x9b\r") & set(out + err)
    assert "title" in out + err or words[0] == "predict"


def test_displayed_failure_contains_no_terminal_escapes():
    stream, log = io.StringIO(), io.StringIO()
    log.name = "log\x1b[31m"
    display, config = Display(stream), TrialConfig()
    display.begin(Plan(missing={config: 1.0}), log, 1, 1.0)
    display.event(config, {"event": "failed", "message": "no room on \x1b[31m"})
    assert "FAILED: no room on" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_reports_with_the_same_output_files_are_refused(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_params(tmp_path / name)
    paths = [str(tmp_path / name / "lab2d_width.yaml") for name in ("one", "two")]
    for words in ([paths[0], paths[0]], [*paths, "--out", str(tmp_path / "out")]):
        code, out, err = run("report", *words)
        assert (code, out) == (2, "")
        assert f"{words[0]} and {words[1]}: both make lab2d_width.pdf in one folder" in err
    assert not (tmp_path / "out").exists()
    assert len(plan(paths)) == 2  # into reports/one and reports/two


def test_missing_data_file_is_refused(tmp_path):
    code, out, err = run("data", "--data", str(tmp_path / "nothing.csv"))
    assert (code, out) == (2, "")
    assert "nothing.csv: named by --data" in err


def test_download_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv(
        "LABRNN_DOWNLOAD_URL", "http://127.0.0.1:9/a.tar.gz"
    )  # no server listens there
    code, out, err = run("data", "--download", str(tmp_path))
    assert (code, out) == (2, "")
    assert f"get {ARCHIVE} elsewhere and put it into {tmp_path}" in err


def test_download_to_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "labrnn.reviews.download.download", lambda folder: tmp_path / (folder or "cache")
    )
    assert run("data", "--download")[:2] == (
        0,
        f"{tmp_path / 'cache'}: complete and correct\n",
    )


def test_every_command_suggests_the_next_step(reviews, tmp_path, monkeypatch):
    """The suggestion is the last line of standard error; standard output is unchanged."""
    monkeypatch.setattr("labrnn.reports.batch.make", lambda *_: 0)
    data = write_reviews(reviews, tmp_path / "reviews.csv")
    params, store = write_params(tmp_path, seeds=[0], epochs=1), str(tmp_path / "none")
    for words in (
        ["train", params, "--data", data, "--dry-run"],
        ["report", params, "--out", str(tmp_path / "out")],
        ["data", "--data", data],
        ["schema", str(tmp_path / "schema")],
        ["trials", "--store", store],
        ["trials", "--store", store, "--json"],
        ["trials", "--store", store, "gc"],
    ):
        code, out, err = run(*words)
        assert (code, "next:" in out) == (0, False), words
        assert re.fullmatch(r"next: .+", err.splitlines()[-1]), words
    code, out, err = run("trials", "--store", store, "verify")
    assert (code, out) == (2, "")
    assert f"{store}: no such folder; correct --store" in err
    code, out, err = run("trials", "--store", store, "export", str(tmp_path / "tables"))
    assert (code, out) == (2, "")
    assert f"{store}: no trials to export; train some" in err
    code, out, err = run("trials", "--store", store, "import", str(tmp_path))
    assert (code, out) == (2, "")
    assert f"{tmp_path}: no trials to import; name a folder" in err


# Short names


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("lab2c", "quick/lab2c_depth"),
        ("depth", "quick/lab2c_depth"),
        ("full/lab2c", "full/lab2c_depth"),
        ("lab1_data", "quick/lab1_data"),
    ],
)
def test_a_short_name_finds_a_params_file(name, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(find_params(name)) == PROJECT / f"params/{path}.yaml"


def test_path_is_used_unchanged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab2c").touch()
    for path in ("lab2c", "nothing.yaml", "params/quick/nothing", str(tmp_path)):
        assert find_params(path) == path


@pytest.mark.parametrize("command", ["train", "report"])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "lab9",
            f"lab9: no params file has this name; params/quick holds {', '.join(sorted(PARTS))}",
        ),
        (
            "none/lab2c",
            "params/none holds none; other folders: cluster, full, quick, as in full/lab2c",
        ),
        ("optimizers", "matches lab2a_lstm_optimizers and lab2b_gru_optimizers; write more"),
        ("", "no params file has this name"),
    ],
)
def test_unknown_or_ambiguous_short_name_is_refused(command, name, says):
    code, out, err = run(command, name)
    assert (code, out) == (2, "")
    assert says in err


# Editors


def test_committed_schemas_are_up_to_date(tmp_path):
    """`make tidy` updates them."""
    assert run("schema", str(tmp_path))[0] == 0
    new, kept = (
        {path.name: path.read_text() for path in Path(folder).iterdir()}
        for folder in (tmp_path, PROJECT / "params/schema")
    )
    assert new == kept


@pytest.mark.parametrize("path", PARAMS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_params_files_name_and_satisfy_their_schema(path):
    lines = path.read_text().splitlines()
    assert lines[0] == f"# yaml-language-server: $schema=../schema/{path.stem}.json"
    schema = json.loads((path.parent / f"../schema/{path.stem}.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(path.read_text()), schema)
    for wrong in ({"epochs": 0}, {"epoch": 5}, {"seeds": "5"}, {"checkpoint": "first"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_environment_inherited_from_a_notebook_is_ignored(reviews, tmp_path):
    """`!labrnn` in a cell: Jupyter runs elsewhere and ipympl draws its plots."""
    write_reviews(reviews, tmp_path / "only_here.csv")
    inherited = {"MPLBACKEND": "module://ipympl.backend_nbagg", "JPY_PARENT_PID": str(os.getpid())}
    labrnn = [sys.executable, "-c", "from labrnn.cli import main; main()"]
    for words in (["data", "--data", "only_here.csv"], ["predict", "a film", "--explain", "shown"]):
        environment = os.environ | inherited | {"PYTHONPATH": str(PROJECT)}
        done = subprocess.run([*labrnn, *words], cwd=tmp_path, env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "shown.html").exists()
