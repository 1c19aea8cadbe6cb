"""The command line: help, exit codes, and what `labrnn data` says."""

import json
from pathlib import Path

import click
import jsonschema
import pytest
import yaml
from click.testing import CliRunner
from tiny import write_reviews

from labrnn.cli import main
from labrnn.parts import PARTS
from labrnn.reviews.download import ARCHIVE
from labrnn.trials.store import PROJECT

PARAMS = [path for path in sorted(PROJECT.glob("params/*/*.yaml")) if path.stem in PARTS]


def run(*arguments):
    """Exit code, what a command prints, what it complains of."""
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.stdout, result.stderr


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
    code, out, complaint = run(*wrong)
    assert (code, out) == (2, "")
    assert "labrnn" in complaint or "Error" in complaint


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


def test_data_that_is_not_there(tmp_path):
    code, out, complaint = run("data", "--data", str(tmp_path / "nothing.csv"))
    assert (code, out) == (2, "")
    assert "nothing.csv: named by --data" in complaint


def test_download_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("LABRNN_DOWNLOAD_URL", "http://127.0.0.1:9/a.tar.gz")  # nobody listens there
    code, out, complaint = run("data", "--download", str(tmp_path))
    assert (code, out) == (2, "")
    assert f"get {ARCHIVE} elsewhere and put it into {tmp_path}" in complaint


def test_download_to_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "labrnn.reviews.download.download", lambda folder: tmp_path / (folder or "cache")
    )
    assert run("data", "--download")[:2] == (
        0,
        f"{tmp_path / 'cache'}: complete and right; use it with --data or LABRNN_DATA\n",
    )


# Editors


def test_schemas_are_those_of_the_parts(tmp_path):
    """`make tidy` renews them."""
    assert run("schema", str(tmp_path))[0] == 0
    new, kept = (
        {path.name: path.read_text() for path in Path(folder).iterdir()}
        for folder in (tmp_path, PROJECT / "params/schema")
    )
    assert new == kept


@pytest.mark.parametrize("path", PARAMS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_params_files_name_their_schema_and_fit_it(path):
    lines = path.read_text().splitlines()
    assert lines[0] == f"# yaml-language-server: $schema=../schema/{path.stem}.json"
    schema = json.loads((path.parent / f"../schema/{path.stem}.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(path.read_text()), schema)
    for wrong in ({"epochs": 0}, {"epoch": 5}, {"seeds": "5"}, {"checkpoint": "first"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
