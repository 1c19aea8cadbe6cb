"""Kill a process at every disk operation and cut the power after each one.

Nothing that was reported as stored is lost, nothing half-written is used, and a resumed run ends
like an uninterrupted one.
"""

import os
import random
import re
import select
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest
from disk import Recording, ended, killed_at, operations, started, survival_cases
from stored import (
    CONFIG,
    CORPUS,
    FINGERPRINT,
    HOW,
    KEY,
    predicted,
    progress,
    without_weights,
    write,
)
from tiny import write_params

from labrnn import files
from labrnn.errors import LabError
from labrnn.trials.cleaning import remove, stale
from labrnn.trials.store import Store
from labrnn.trials.trial import trial_key

NAME, KEPT = "steps-0123456789abcdef.json", {"5": [0.7]}


def train(root, note):
    """Like `running.train_and_store`, with an instant training; note what is stored."""
    store = Store(root)
    store.keep(FINGERPRINT, NAME, KEPT)
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


def export(source, light):
    """Return work that copies kept values and a trial, first without and then with weights."""

    def work(root, note):
        target, (trial,) = Store(root), source.trials()
        assert source.copy_kept(FINGERPRINT, partial(target.keep, FINGERPRINT)) == []
        note("kept")
        assert target.take(light) in ("copied", "there already")
        note("stored")
        assert target.take(trial) in ("copied", "there already")
        note("weights")

    return work


@pytest.fixture(scope="module")
def works(tmp_path_factory):
    """Name -> work."""
    source = Store(tmp_path_factory.mktemp("source"))
    write(source)
    source.keep(FINGERPRINT, NAME, KEPT)
    light = without_weights(source, tmp_path_factory.mktemp("light") / "trials")
    return {"train": train, "export": export(source, light)}


@pytest.fixture
def memory():
    """A folder in memory if available, since thousands of syncs are slow on a disk."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="labrnn-", dir=base) as folder:
        yield Path(folder)


def contents(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def check(root, notes):
    """Assert that everything reported as stored exists and that everything stored is sound."""
    store = Store(root)
    assert all(trial.damage() == [] for trial in store.trials())
    assert store.recall(FINGERPRINT, NAME) in (None, KEPT)
    if "kept" in notes:
        assert store.recall(FINGERPRINT, NAME) == KEPT
    trial = next(store.trials(), None)
    if "stored" in notes:
        assert trial
    if "weights" in notes:
        assert trial.weights()
    if epochs := [int(n.split()[1]) for n in notes if n.startswith("epoch")]:
        state = store.load_progress(CONFIG, FINGERPRINT)
        assert trial or (state and len(state.history) >= epochs[-1])


def finish(root, work):
    """Resume to the end, clean up and return the files."""
    work(root, lambda note: None)
    store = Store(root)
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
    """Cut the power after each operation of some work; return the number of checked states."""
    recording = Recording(folder / "run", lambda note: work(folder / "run" / "trials", note))
    reference = finish(folder / "run" / "trials", work)
    states = 0
    for n in range(len(recording.log) + 1):
        for i, luck in enumerate(survival_cases(n, some)):
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


def called_by():
    """Return the name of the caller's caller, without what `make mutants` adds to it."""
    return re.sub(r"^x_|__mutmut_\w+$", "", sys._getframe(2).f_code.co_name)


@pytest.mark.parametrize("sync", SYNCS)
def test_each_sync_is_needed(works, memory, monkeypatch, sync):
    """Without it, some power cut loses or damages what was reported as stored."""
    name, function, caller = SYNCS[sync]
    owner = os if function == "fsync" else files
    real = getattr(owner, function)

    def skipping(*args):
        if called_by() != caller:
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
    """`os` with an `fsync` that does nothing for one caller."""

    def __init__(self, caller):
        self.caller = caller

    def __getattr__(self, name):
        return getattr(os, name)

    def fsync(self, descriptor):
        if called_by() != self.caller:
            os.fsync(descriptor)


# Several writers, and reports

WRITERS, KILLS = 4, 60
CONFIGS = [CONFIG.replace(seed=seed) for seed in range(60)]


def train_all(root, note):
    """Train unclaimed trials until all are stored, as several concurrent processes do."""
    store, missing = Store(root), list(CONFIGS)
    while missing:
        config = missing.pop(0)
        key = trial_key(config)
        with store.claim(FINGERPRINT, key) as mine:
            if not mine:
                missing.append(config)
                continue
            if store.find(config, FINGERPRINT):
                continue
            state = store.load_progress(config, FINGERPRINT)
            for epoch in range(1 + (len(state.history) if state else 0), config.epochs + 1):
                state = progress(epoch)
                store.save_progress(config, FINGERPRINT, state)
                note(f"{key} epoch {epoch}")
            store.save(config, CORPUS, state, predicted(config), HOW)
            note(f"{key} stored")


def test_many_writers_and_kills_store_each_trial_once(memory):
    """The log has no duplicate epoch or trial; each kill explains at most one missing line."""
    train_all(memory / "reference", lambda note: None)
    luck, kills, running, log = random.Random(16), 0, {}, []
    while kills < KILLS or running:
        while kills < KILLS and len(running) < WRITERS:
            n = luck.randint(1, 120)
            child, reader = started(n, lambda note: train_all(memory / "trials", note))
            running[reader] = child
        for reader in select.select([*running], [], [])[0]:
            if text := os.read(reader, 1 << 16):
                log.append(text.decode())
                continue
            os.close(reader)
            child = running.pop(reader)
            kills += ended(child, os.waitpid(child, 0)[1])
        store = Store(memory / "trials")
        assert all(trial.damage() == [] for trial in store.trials())
    assert len(list(store.trials())) < len(
        CONFIGS
    )  # otherwise the last kills would have hit no writer
    train_all(memory / "trials", lambda note: log.append(f"{note}\n"))
    remove(store, stale(store))
    assert contents(memory / "trials") == contents(memory / "reference")
    notes = "".join(log).splitlines()
    assert len(set(notes)) == len(notes)
    assert len(CONFIGS) * (CONFIG.epochs + 1) - kills <= len(notes)
    print(f"{WRITERS} writers, {kills} kills: {len(notes)} lines")


@pytest.fixture
def job(memory, monkeypatch):
    """A report whose notebook is executed and rendered instantly."""
    import nbformat

    from labrnn.reports import batch, report

    monkeypatch.setattr(report, "execute", lambda *_: nbformat.v4.new_notebook())
    monkeypatch.setattr(report, "render", lambda *_: [b"notebook" * 99, b"pdf" * 999, b"page" * 99])
    trial = write(Store(memory / "trials"))
    part = batch.read_params(write_params(memory, train="false"))
    report.package_digest()  # cached for all
    return lambda out: report.Report(part, [trial], out, "Ada", reviews=FINGERPRINT)


def test_a_report_killed_at_every_operation(job, memory):
    """It counts as done only when complete; making it again gives the same bytes."""

    def outputs(out):
        return [path.read_bytes() for path in job(out).outputs()]

    names = operations(lambda note: job(memory / "reference").run())
    reference = outputs(memory / "reference")
    for n in range(1, len(names) + 1):
        out = memory / f"out{n}"
        assert killed_at(n, lambda note, out=out: job(out).run())[0], n
        if job(out).is_done():
            assert outputs(out) == reference
        job(out).run()
        assert job(out).is_done()
        assert outputs(out) == reference
    print(f"report: killed at each of {len(names)} operations")
