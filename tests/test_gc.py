"""`labrnn trials gc` removes only files that labrnn wrote."""

import errno
import json
import os
import shutil
from itertools import product
from pathlib import Path

import pytest
from stored import CONFIG, FINGERPRINT, KEY, progress, tree, write
from tiny import run

from labrnn.errors import LabError
from labrnn.trials.cleaning import remove, stale
from labrnn.trials.ours import MARK
from labrnn.trials.store import Store
from labrnn.trials.trial import Trial, trial_key

FLAGS = [[f for f, on in zip(("--damaged", "--unfinished"), both, strict=True) if on]
         for both in product((False, True), repeat=2)]  # fmt: skip
NAMES = ["DONE", "trial.json", "predictions.csv", "model.safetensors"]
HEX = "fedcba9876543210"
FOREIGN = f"""
    README package-lock.json notes-2024.json labrnn-store.txt {HEX}.lock {HEX}/thesis.txt
    {HEX}/src/main.py .git/HEAD .locks/{HEX}.lock .partial/{HEX}/1.writing/DONE
    trials/{FINGERPRINT}/{KEY}/DONE .logs/20260101-000000-1.log
"""
FOREIGN_IN_DATA = f"""
    package-lock.json tsconfig-app.json notes-{HEX}.json.bak data-{HEX}.json.old.writing notes/DONE
    {HEX}/thesis.txt {HEX}/trial.json 0000000000000001/chapter.1.writing
    0000000000000002/{KEY}/DONE 0000000000000003/model.safetensors.mine.writing
    0000000000000004/epoch-1/photo.jpg .locks/important.lock .locks/{HEX}.lock .partial/mine/DONE
    .partial/{HEX}/epoch-1/notes.txt .partial/0000000000000005/2.writing/draft.txt
    .partial/0000000000000006/holidays.writing
"""


@pytest.fixture
def store(tmp_path):
    """A store with a sound trial."""
    store = Store(tmp_path / "trials")
    write(store)
    return store


def gc(root, *flags):
    """Run a confirmed clean-up; return exit code, standard output and standard error."""
    return run("trials", "--store", root, "gc", "--yes", *flags)


def verify(root):
    return run("trials", "--store", root, "verify")


def put(path, content="mine"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def create_foreign_files(root, outside):
    """Create foreign files with store-like names in every folder; return their number."""
    data, trial = root / FINGERPRINT, root / FINGERPRINT / KEY
    files = [root / name for name in FOREIGN.split()]
    files += [data / name for name in FOREIGN_IN_DATA.split()]
    files += [trial / "comment.txt", trial / "draft.writing"]
    for path in files:
        put(path)
    put(outside / KEY / "DONE", "{}")
    put(outside / f"data-{HEX}.json", "damaged")
    put(outside / "1.writing" / "DONE")
    links = {
        root / "aaaaaaaaaaaaaaaa": outside,
        data / "bbbbbbbbbbbbbbbb": outside / KEY,
        data / f"data-{HEX}.json": outside / f"data-{HEX}.json",
        data / ".partial" / "cccccccccccccccc": outside,
        data / ".locks" / "cccccccccccccccc.lock": outside / "lock",
        data / "dddddddddddddddd" / "trial.json": outside / "lock",
        data / ".partial" / "0000000000000007" / "1.writing": outside / "1.writing",
    }
    put(outside / "lock", "")
    for path, target in links.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    pipe = data / "eeeeeeeeeeeeeeee" / "DONE"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    return len(files) + len(links) + 1


@pytest.mark.parametrize("flags", FLAGS, ids=" ".join)
def test_foreign_files_are_kept(store, tmp_path, flags):
    assert create_foreign_files(store.root, tmp_path / "outside") >= 30
    before = tree(tmp_path)
    assert gc(store.root, *flags)[:2] == (0, "nothing to remove\n")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("flags", FLAGS, ids=" ".join)
def test_non_store_folder_is_not_touched(tmp_path, flags):
    projects = tmp_path / "projects"
    create_foreign_files(projects, tmp_path / "outside")
    store = Store(tmp_path / "trials")
    write(store)
    shutil.copytree(store.root / FINGERPRINT, projects / "aaaaaaaaaaaaaaab")
    before = tree(tmp_path)
    code, out, err = gc(projects, *flags)
    assert (code, out) == (2, "")
    assert "is not marked as a run store and contains .git, which labrnn did not write" in err
    assert tree(tmp_path) == before


def create_leftovers(store):
    """Create leftovers and damage; return path -> the flag needed to remove it, or ""."""
    data = store.root / FINGERPRINT
    other, third = CONFIG.replace(seed=1), CONFIG.replace(seed=2)
    store.save_progress(other, FINGERPRINT, progress(1))
    (state,) = data.glob(".partial/*/epoch-1")
    shutil.copytree(state, state.with_name("2.writing"))
    (state.with_name("2.writing") / "DONE").unlink()
    put(data / ".partial" / KEY / "done.writing" / "trial.json")
    put(data / KEY / "model.safetensors.12.writing")
    put(data / f"data-{HEX}.json.7.writing")
    put(data / f"data-{HEX}.json", "damaged")
    put(data / ".locks" / f"{HEX}.lock", "")
    put(data / HEX / "trial.json", "a copy that was broken off")
    damaged = write(store, third).folder
    (damaged / "metrics.json").write_text("{}")
    return {
        state.with_name("2.writing"): "",
        state.parent: "--unfinished",
        data / ".partial" / KEY: "",
        data / KEY / "model.safetensors.12.writing": "",
        data / f"data-{HEX}.json.7.writing": "",
        data / f"data-{HEX}.json": "--damaged",
        data / ".locks" / f"{HEX}.lock": "",
        data / HEX: "--damaged",
        damaged: "--damaged",
    }


@pytest.mark.parametrize("flags", FLAGS, ids=" ".join)
def test_stale_files_are_removed(store, flags):
    found = create_leftovers(store)
    expected = {path for path, flag in found.items() if not flag or flag in flags}
    if "--unfinished" in flags:
        expected -= {
            path for path in expected if path.name == "2.writing"
        }  # removed with its folder
    options = {flag[2:]: True for flag in flags}
    assert set(stale(store, **options)) == expected
    code, out, _ = gc(store.root, *flags)
    assert (code, out.splitlines()[-1]) == (0, f"{len(expected)} removed")
    gone = {path for path in found if not path.exists()}
    assert gone - {path for path in gone if path.name == "2.writing"} == {
        path for path in expected if path.name != "2.writing"
    }
    assert gc(store.root, *flags)[1] == "nothing to remove\n"
    assert Trial(store.root / FINGERPRINT / KEY).damage() == []


def test_files_of_other_running_processes_are_kept(store):
    create_leftovers(store)
    data = store.root / FINGERPRINT
    confirmed = stale(store, unfinished=True, damaged=True)
    names = {path.name for path in (data / ".partial").iterdir()} | {HEX, f"data-{HEX}"}
    names |= {path.name for path in data.iterdir() if len(path.name) == 16}
    claims = [Store(store.root).claim(FINGERPRINT, name) for name in names]
    assert {claim.__enter__() for claim in claims} == {True}
    assert stale(store, unfinished=True, damaged=True) == {}
    assert remove(store, confirmed, unfinished=True, damaged=True) == []  # claimed meanwhile
    for claim in claims:
        claim.__exit__(None, None, None)


def test_only_confirmed_and_still_stale_files_are_removed(store):
    found = create_leftovers(store)
    confirmed = stale(store, damaged=True)
    del confirmed[store.root / FINGERPRINT / HEX]
    broken = store.root / FINGERPRINT / trial_key(CONFIG.replace(seed=2))
    assert broken in found
    shutil.rmtree(broken)
    write(store, CONFIG.replace(seed=2))  # trained again meanwhile
    removed = remove(store, confirmed, damaged=True)
    assert broken not in removed
    assert Trial(broken).damage() == []
    assert (store.root / FINGERPRINT / HEX / "trial.json").exists()


def test_gc_asks_for_confirmation(store):
    create_leftovers(store)
    before, words = tree(store.root), ["trials", "--store", store.root, "gc", "--damaged"]
    for answer in ("n\n", ""):
        code, _, err = run(*words, lines=answer)
        assert (code, "nothing removed" in err) == (1, True)
        assert tree(store.root) == before
    code, out, _ = run(*words, lines="y\n")
    assert (code, "removed" in out) == (0, True)


class Unreadable:
    """Make access to some paths fail as with bad permissions or a bad disk."""

    def __init__(self, monkeypatch, code, *names, functions=("open", "stat", "lstat", "listdir")):
        self.code, self.names, self.patch = code, names, monkeypatch
        self.hits = 0
        for function in functions:
            self.patch.setattr(os, function, self.guarded(getattr(os, function)))

    def guarded(self, function):
        def call(path, *args, **kwargs):
            if any(str(path).endswith(name) for name in self.names) and not isinstance(path, int):
                self.hits += 1
                raise OSError(self.code, os.strerror(self.code), str(path))
            return function(path, *args, **kwargs)

        return call


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("name", [*NAMES, KEY, FINGERPRINT])
def test_inaccessible_file_is_not_damaged(store, monkeypatch, code, name):
    before = tree(store.root)
    with monkeypatch.context() as patch:
        disk = Unreadable(patch, code, name)
        out = gc(store.root, "--damaged", "--unfinished")[1]
        assert out == "nothing to remove\n"
        assert disk.hits
    assert tree(store.root) == before


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("name", NAMES)
def test_unreadable_file_is_not_damaged(store, monkeypatch, code, name):
    """Its folder is listable and its size is known, as after a change of permissions."""
    before = tree(store.root)
    with monkeypatch.context() as patch:
        disk = Unreadable(patch, code, name, functions=("open",))
        assert gc(store.root, "--damaged", "--unfinished")[1] == "nothing to remove\n"
        assert disk.hits
        code, _, err = verify(store.root)
        assert (code, f"{name}: cannot be read" in err) == (1, True)
    assert tree(store.root) == before


@pytest.mark.parametrize("kind", ["data", "steps"])
def test_unreadable_description_is_not_damaged(store, monkeypatch, kind):
    name = f"{kind}-{HEX}.json"
    put(store.root / FINGERPRINT / name, "damaged")
    with monkeypatch.context() as patch:
        Unreadable(patch, errno.EIO, name, functions=("open",))
        assert gc(store.root, "--damaged")[1] == "nothing to remove\n"
    assert gc(store.root, "--damaged")[1].endswith("1 removed\n")


def test_linked_store_is_treated_like_its_target(store, tmp_path):
    """Through the link, foreign files are detected and damaged trials are removed."""
    foreign = tmp_path / "papers" / FINGERPRINT / KEY / "history.json"
    put(foreign)
    put(tmp_path / "papers" / "thesis.txt", "mine")
    (tmp_path / "link").symlink_to(tmp_path / "papers")
    Store(tmp_path / "link").keep(FINGERPRINT, f"steps-{HEX}.json", {"5": [0.1]})
    assert not (tmp_path / "papers" / MARK).exists()
    assert gc(tmp_path / "papers", "--damaged")[0] == 2
    assert foreign.read_text() == "mine"
    (store.root / FINGERPRINT / KEY / "history.json").write_text("[]")
    (tmp_path / "moved").symlink_to(store.root)
    assert gc(tmp_path / "moved", "--damaged")[1].endswith("1 removed\n")


def test_damaged_trial_with_foreign_files_is_reported(store):
    """A file of the macOS Finder makes the folder foreign."""
    trial = store.root / FINGERPRINT / KEY
    put(trial / ".DS_Store")
    put(trial / "history.json", "[]")
    code, out, err = gc(store.root, "--damaged")
    assert (code, out) == (1, "nothing to remove\n")
    assert f"{trial}: damaged, with files that labrnn did not write; delete it by hand" in err
    assert (trial / ".DS_Store").exists()
    assert gc(store.root)[0] == 0  # damaged trials were not requested


def test_foreign_names_and_linked_folders_are_kept(store, tmp_path):
    note = store.root / FINGERPRINT / f"backup-{HEX}.json"
    mine = tmp_path / "work" / KEY / "done.writing" / "history.json"
    put(note, '{"my": "notes"}')
    put(mine)
    partial = store.root / FINGERPRINT / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.symlink_to(tmp_path / "work")
    gc(store.root, "--damaged", "--unfinished")
    assert (note.exists(), mine.read_text()) == (True, "mine")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_trials_of_another_user_are_kept(store, tmp_path):
    for folder in [p for p in Path("/").joinpath(tmp_path).parents if p != Path("/")]:
        if folder.is_dir() and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o055)
    tmp_path.chmod(0o755)
    for path in store.root.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    (store.root / FINGERPRINT).chmod(0o777)
    before = tree(store.root)
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            code = gc(store.root, "--damaged", "--unfinished")[0]
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert tree(store.root) == before


def test_tables_of_the_repository_are_not_cleaned(tmp_path, monkeypatch):
    monkeypatch.setenv("LABRNN_STORE", str(tmp_path / "own"))
    write(Store(tmp_path / "own"))
    assert run("trials", "gc", "--damaged")[:2] == (0, "nothing to remove\n")


def test_damaged_trials_are_removed_only_on_request(store):
    changed, empty = store.root / FINGERPRINT / KEY, store.root / FINGERPRINT / HEX
    (changed / "metrics.json").write_text("{}")
    empty.mkdir()
    assert stale(store) == {}
    confirmed = stale(store, damaged=True)
    assert set(confirmed) == {changed, empty}
    assert remove(store, confirmed) == []
    assert len(list(store.places())) == 2
    assert set(remove(store, confirmed, damaged=True)) == {changed, empty}
    assert list(store.places()) == []


# The mark


def test_a_store_is_marked_at_its_first_write(tmp_path):
    store = Store(tmp_path / "trials")
    with store.claim(FINGERPRINT, KEY):
        assert (store.root / MARK).is_file()


def test_unmarked_store_is_readable_and_marked_on_write(store):
    create_leftovers(store)
    (store.root / MARK).unlink()
    assert Store(store.root).find(CONFIG, FINGERPRINT)
    assert not (store.root / MARK).exists()
    assert stale(store, damaged=True)
    write(store, CONFIG.replace(seed=9))
    assert (store.root / MARK).exists()


@pytest.mark.parametrize(
    "name",
    ["README", f"{FINGERPRINT}/notes.txt", f"{FINGERPRINT}/notes/x", "projects/x", f"{HEX[1:]}/x"],
)
def test_folder_with_foreign_files_is_not_marked(store, name):
    (store.root / MARK).unlink()
    put(store.root / name)
    write(store, CONFIG.replace(seed=9))
    assert not (store.root / MARK).exists()
    assert len(list(store.trials())) == 2


def test_broken_copy_is_replaced_but_foreign_files_are_kept(store):
    folder = store.root / FINGERPRINT / KEY
    (folder / "DONE").unlink()
    assert write(store).damage() == []
    (folder / "DONE").unlink()
    put(folder / "notes.txt")
    with pytest.raises(
        LabError, match="contains files that labrnn did not write; move it elsewhere"
    ):
        write(store)
    assert (folder / "notes.txt").read_text() == "mine"
    assert json.loads((folder / "trial.json").read_bytes())
