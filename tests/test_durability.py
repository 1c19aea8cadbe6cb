"""Killed at every operation on the disk, power cut after every one: nothing that was reported as
stored is lost, nothing half-written is believed, and going on ends where an undisturbed run does.
"""

import os
import sys
import tempfile
from pathlib import Path

import pytest
from disk import Recording, killed_at, lucks, operations
from stored import CONFIG, CORPUS, FINGERPRINT, HOW, KEY, predicted, progress, write

from labrnn import files
from labrnn.errors import LabError
from labrnn.trials.cleaning import remove, stale
from labrnn.trials.store import Store

NAME = "notes-0123456789abcdef.json"


def train(root, note):
    """As `running.train_and_store`, with a training that takes no time; notes what is stored."""
    store = Store(root)
    store.keep(FINGERPRINT, NAME, ["kept"])
    note("kept")
    with store.claim(FINGERPRINT, KEY) as mine:
        assert mine
        if not store.find(CONFIG, FINGERPRINT):
            resumed = store.load_progress(CONFIG, FINGERPRINT)
            done = len(resumed.history) if resumed else 0
            for epoch in range(done + 1, CONFIG.epochs + 1):
                store.save_progress(CONFIG, FINGERPRINT, progress(epoch))
                note(f"epoch {epoch}")
            state = store.load_progress(CONFIG, FINGERPRINT)
            store.save(CONFIG, CORPUS, state, predicted(), HOW)
    note("stored")


def export(source):
    """Copy a trial without its weights, then with them, and what is kept."""

    def work(root, note):
        target, (trial,) = Store(root), source.trials()
        assert target.take_kept(source, FINGERPRINT) == []
        note("kept")
        assert target.take(trial, weights=False) in ("copied", "there already")
        note("stored")
        assert target.take(trial) in ("copied", "there already")
        note("weights")

    return work


@pytest.fixture(scope="module")
def works(tmp_path_factory):
    """The pieces of work by name."""
    source = Store(tmp_path_factory.mktemp("source"))
    write(source)
    source.keep(FINGERPRINT, NAME, ["kept"])
    return {"train": train, "export": export(source)}


@pytest.fixture
def memory():
    """A folder in memory, where there is one: thousands of syncs would wait for a disk."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="labrnn-", dir=base) as folder:
        yield Path(folder)


def contents(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def check(root, notes):
    """What was reported as stored is there; what is there is sound."""
    store = Store(root)
    assert all(trial.damage() == [] for trial in store.trials())
    assert store.recall(FINGERPRINT, NAME) in (None, ["kept"])
    if "kept" in notes:
        assert store.recall(FINGERPRINT, NAME) == ["kept"]
    trial = store.find(CONFIG, FINGERPRINT)
    if "stored" in notes:
        assert trial
    if "weights" in notes:
        assert trial.weights()
    if epochs := [int(n.split()[1]) for n in notes if n.startswith("epoch")]:
        state = store.load_progress(CONFIG, FINGERPRINT)
        assert trial or (state and len(state.history) >= epochs[-1])


def finish(root, work):
    """Go on to the end and clean up; returns what is then there."""
    work(root, lambda note: None)
    store = Store(root)
    assert store.find(CONFIG, FINGERPRINT).damage() == []
    remove(store, stale(store))
    return contents(root)


@pytest.mark.parametrize("name", ["train", "export"])
def test_killed_at_every_operation(works, memory, name):
    work = works[name]
    reference = finish(memory / "reference", work)
    names = operations(lambda note: work(memory / "counted", note))
    assert {*names} >= {"mkdir", "open", "write", "fsync", "replace", "unlink"}
    for n in range(1, len(names) + 1):
        root = memory / f"{n}"
        killed, notes = killed_at(n, lambda note, root=root: work(root, note))
        assert killed, n
        check(root, notes)
        assert finish(root, work) == reference, n
    assert killed_at(len(names) + 1, lambda note: work(memory / "whole", note))[0] is False
    print(f"{name}: killed at each of {len(names)} operations")


def cuts(work, folder, some=2, resume=True):
    """Cut the power after each operation of some work; returns the number of states looked at."""
    recording = Recording(folder / "run", lambda note: work(folder / "run" / "trials", note))
    reference = finish(folder / "run" / "trials", work)
    states = 0
    for n in range(len(recording.log) + 1):
        for i, luck in enumerate(lucks(n, some)):
            root = folder / f"{n}-{i}" / "trials"
            root.parent.mkdir()
            notes = recording.cut(n, root.parent, luck)
            check(root, notes)
            if resume:
                assert finish(root, work) == reference, (n, i)
            states += 1
    return states


@pytest.mark.parametrize("name", ["train", "export"])
def test_power_cut_after_every_operation(works, memory, name):
    (memory / "run").mkdir()
    states = cuts(works[name], memory)
    assert states > 200
    print(f"{name}: {states} states of the disk after power cuts")


SYNCS = {
    "a file's data": ("train", "fsync", "write_file"),
    "the names in a folder that is published": ("train", "sync_folder", "publish_folder"),
    "the name of what is published": ("train", "sync_folder", "publish"),
    "a new folder's name": ("train", "sync_folder", "make_folder"),
}


@pytest.mark.parametrize("sync", SYNCS)
def test_each_sync_is_needed(works, memory, monkeypatch, sync):
    """Without any one of them, some power cut loses what was reported or leaves it damaged."""
    name, function, caller = SYNCS[sync]
    owner = os if function == "fsync" else files
    real = getattr(owner, function)

    def skipping(*args):
        if sys._getframe(1).f_code.co_name != caller:
            real(*args)

    (memory / "run").mkdir()
    with monkeypatch.context() as patch:
        if function == "fsync":
            patch.setattr(files, "os", Without(caller))
        else:
            patch.setattr(files, function, skipping)
        with pytest.raises((AssertionError, LabError)):
            cuts(works[name], memory, resume=False)


class Without:
    """`os` whose `fsync` does nothing for one caller."""

    def __init__(self, caller):
        self.caller = caller

    def __getattr__(self, name):
        return getattr(os, name)

    def fsync(self, descriptor):
        if sys._getframe(1).f_code.co_name != self.caller:
            os.fsync(descriptor)
