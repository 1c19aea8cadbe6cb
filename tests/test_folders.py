"""Folders: the start of relative paths, and fallbacks for folders that are not writable."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
from tiny import write_reviews

from labrnn import folders
from labrnn.errors import LabError
from labrnn.folders import CACHES, LONGEST_TMPDIR, absolute, choose_tmpdir
from labrnn.reviews.sources import find_source
from labrnn.reviews.text import cache_folder
from labrnn.trials import environment
from labrnn.trials.store import default_store


@pytest.fixture
def jupyter(tmp_path, monkeypatch):
    """This process acts as a kernel in `notebooks`; Jupyter was started in the parent folder."""
    (tmp_path / "notebooks").mkdir()
    started = subprocess.Popen(["sleep", "9999"], cwd=tmp_path)
    monkeypatch.setenv("JPY_PARENT_PID", str(started.pid))
    monkeypatch.chdir(tmp_path / "notebooks")
    yield tmp_path
    started.kill()
    started.wait()


def test_relative_paths_start_where_jupyter_was_started(reviews, jupyter, monkeypatch):
    write_reviews(reviews, jupyter / "my_reviews.csv")
    monkeypatch.setenv("LABRNN_DATA", "my_reviews.csv")
    monkeypatch.setenv("LABRNN_STORE", "my_trials")
    monkeypatch.setenv("LABRNN_CACHE", "my_cache")
    assert find_source() == jupyter / "my_reviews.csv"
    assert default_store().root == jupyter / "my_trials"
    assert default_store("other").root == jupyter / "other"
    assert cache_folder() == jupyter / "my_cache"
    assert absolute("/x") == Path("/x")
    monkeypatch.delenv("JPY_PARENT_PID")
    assert default_store().root == jupyter / "notebooks" / "my_trials"


@pytest.mark.parametrize("parent", ["999999999", "none"])
def test_relative_path_is_refused_if_the_jupyter_folder_is_unknown(monkeypatch, parent):
    monkeypatch.setenv("JPY_PARENT_PID", parent)
    monkeypatch.setenv("LABRNN_STORE", "my_trials")
    with pytest.raises(LabError, match=r"^my_trials: a relative path.*LABRNN_STORE"):
        default_store()


def test_relative_path_in_a_notebook_executed_by_nbconvert(tmp_path):
    """A real kernel runs in the folder of the notebook."""
    (tmp_path / "notebooks").mkdir()
    code = "from labrnn.trials.store import default_store\nprint(default_store().root)"
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbformat.write(nb, tmp_path / "notebooks/x.ipynb")
    words = ["nbconvert", "--execute", "--to", "notebook", "--stdout", "notebooks/x.ipynb"]
    done = subprocess.run(
        [sys.executable, "-m", "jupyter", *words],
        cwd=tmp_path,
        env=os.environ | {"LABRNN_STORE": "mine"},
        capture_output=True,
        text=True,
    )
    assert f"{tmp_path}/mine" in done.stdout, done.stderr


@pytest.fixture
def tmpdir(monkeypatch):
    def choose(folder):
        monkeypatch.setattr(tempfile, "tempdir", None)
        monkeypatch.setenv("TMPDIR", str(folder))
        choose_tmpdir()
        return os.environ["TMPDIR"]

    return choose


def test_tmpdir(tmp_path, tmpdir):
    short, long = Path(tempfile.mkdtemp(dir="/tmp")), tmp_path / ("x" * 99)
    long.mkdir()
    assert tmpdir(short) == tempfile.gettempdir() == str(short)
    for wrong in (long, tmp_path / "gone"):
        assert len(tmpdir(wrong)) <= LONGEST_TMPDIR
        assert os.path.isdir(os.environ["TMPDIR"])
    short.rmdir()
    not_utf8 = os.fsdecode(os.fsencode(short) + b"\xff")
    os.mkdir(not_utf8)  # file names must be valid UTF-8
    assert tmpdir(not_utf8) != not_utf8
    os.rmdir(not_utf8)


def test_missing_temporary_folder_is_reported(tmpdir, monkeypatch):
    monkeypatch.setattr(folders, "_writable", lambda folder: False)
    with pytest.raises(LabError, match="TMPDIR=/gone: no folder for temporary files"):
        tmpdir("/gone")


def test_libraries_get_temporary_folders_without_a_home(tmp_path):
    """Numba finds a folder for compiled code, in this process and its children."""
    (tmp_path / "file").touch()
    code = (
        "import os, labrnn; from labrnn.folders import CACHES; from labrnn.network import kernels\n"
        "print(*(os.environ[name] for name in CACHES), sep='\\n')"
    )
    environment = {k: v for k, v in os.environ.items() if k not in CACHES}
    environment |= {"HOME": str(tmp_path / "file" / "home"), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    found = done.stdout.split()
    assert len(found) == len(CACHES), done.stderr
    assert all(path.startswith(str(tmp_path / "home-of-labrnn-")) for path in found)
    assert not list(tmp_path.glob("home-of-labrnn-*"))


def test_commit_ignores_enclosing_repositories(tmp_path, monkeypatch):
    """A copy without `.git` lies in another repository; GIT_DIR of the caller is ignored."""
    root = tmp_path / "other" / "project"
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-C"]
    for where in (tmp_path / "other", root):
        (where / "labrnn/trials").mkdir(parents=True, exist_ok=True)
        (where / "labrnn/trials/environment.py").touch()
        monkeypatch.setattr(environment, "__file__", str(root / "labrnn/trials/environment.py"))
        environment.commit.cache_clear()
        if where == root:
            assert environment.commit() == ""
        subprocess.run([*git, where, "init", "-q"], check=True)
        subprocess.run([*git, where, "add", "."], check=True, capture_output=True)
        subprocess.run([*git, where, "commit", "-qm", where.name], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    own = subprocess.run(
        ["git", "-C", root, "rev-parse", "--short=12", "HEAD"],
        env={k: v for k, v in os.environ.items() if k != "GIT_DIR"},
        capture_output=True,
        text=True,
    )
    environment.commit.cache_clear()
    assert environment.commit() == own.stdout.strip()
    environment.commit.cache_clear()
