"""Interrupted trainings and failing disks: no trained epoch is lost."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tiny import TINY, content, train

from labrnn.errors import LabError
from labrnn.trials import running
from labrnn.trials.job import train_and_store
from labrnn.trials.store import Store
from labrnn.trials.trial import TEXTS, WEIGHTS


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    """A trial of an uninterrupted training; tests compare with it."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABRNN_CACHE", str(folder / "cache"))
        return train(TINY, data, Store(folder / "trials"))


def test_trial_contains_the_training_results(uninterrupted, reviews):
    trial = uninterrupted
    assert trial.config == TINY
    assert {p.name for p in trial.folder.iterdir()} == {*TEXTS, WEIGHTS, "DONE"}
    assert trial.damage() == []
    assert [e["epoch"] for e in trial.history] == [1, 2, 3, 4, 5, 6]
    table, best = trial.predictions, trial.metrics["best"]
    assert (reviews.labels[table["row"]] == table["label"]).all()
    assert np.mean((table["best"] > 0.5) == table["label"]) == pytest.approx(best["accuracy"])
    assert trial.data["reviews"] == 300
    assert trial.weights()["rnn.weight_hh_l1"].shape == (40, 10)
    assert trial.environment["clock"] == "processor"
    assert trial.environment["seconds"] == pytest.approx(
        sum(e["seconds"] for e in trial.history), abs=1e-3
    )


def test_stored_trial_is_not_trained_again(data, uninterrupted, monkeypatch):
    monkeypatch.setattr("labrnn.network.training.train", None)
    store = Store(uninterrupted.folder.parents[1])
    assert content(train(TINY, data, store)) == content(uninterrupted)


def test_training_killed_in_epoch_4_resumes_from_epoch_3(data, uninterrupted, tmp_path):
    store, epochs = Store(tmp_path / "trials"), []

    def kill_in_epoch_4(entry):
        epochs.append(entry["epoch"])
        if entry["epoch"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_and_store(TINY, data, store, on_epoch=kill_in_epoch_4)
    assert list(store.trials()) == []
    assert store.epochs_kept(TINY, uninterrupted.fingerprint) == 3
    trial = train_and_store(TINY, data, store, on_epoch=lambda entry: epochs.append(entry["epoch"]))
    assert epochs == [1, 2, 3, 4, 5, 6]
    assert content(trial) == content(uninterrupted)
    assert list(store.root.rglob("epoch-*")) == []


def test_damaged_state_is_skipped(data, uninterrupted, tmp_path):
    store, epochs = Store(tmp_path / "trials"), []

    def stop(entry):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_and_store(TINY, data, store, on_epoch=stop)
    (state,) = store.root.rglob("epoch-1")
    newer = shutil.copytree(state, state.with_name("epoch-2"))
    (newer / "last.safetensors").write_bytes(b"half")
    shutil.copytree(state, state.with_name("2.writing"))
    trial = train_and_store(TINY, data, store, on_epoch=lambda entry: epochs.append(entry["epoch"]))
    assert epochs == [2, 3, 4, 5, 6]
    assert content(trial) == content(uninterrupted)


def test_no_disk_failure_loses_data(data, tmp_path, monkeypatch):
    """The n-th disk operation fails, for every n; afterwards the training completes."""
    config, failing = TINY.replace(epochs=2), {"left": 0}
    reference = content(train(config, data, Store(tmp_path / "reference")))

    def fail_in_time(function):
        def guarded(*args, **kwargs):
            failing["left"] -= 1
            if failing["left"] == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*args, **kwargs)

        return guarded

    outcomes = []
    for n in range(1, 100):
        store = Store(tmp_path / f"store{n}")
        failing["left"] = n
        with monkeypatch.context() as patch:
            for name in ("fsync", "replace", "rename"):
                patch.setattr(f"os.{name}", fail_in_time(getattr(os, name)))
            patch.setattr("labrnn.trials.store.Path.mkdir", fail_in_time(Path.mkdir))
            try:
                train(config, data, store)
                outcomes.append("trained")
            except LabError as error:
                outcomes.append(str(error))
        assert all(trial.damage() == [] for trial in store.trials())
        assert content(train(config, data, store)) == reference
        if failing["left"] > 0:
            break
        shutil.rmtree(store.root)
    failures = [outcome for outcome in outcomes if outcome != "trained"]
    assert len(failures) > 20  # the others hit the cache, which is optional
    assert all("cannot be written (No space left on device)" in fault for fault in failures)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no right to mount a small file system here")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_full_disk(small_disk, data, uninterrupted):
    store = Store(small_disk)
    stuffing = small_disk / "stuffing"
    with pytest.raises(OSError, match="No space"):
        stuffing.write_bytes(bytes(300_000))
    with pytest.raises(LabError, match=r"written \(No space left on device\); make room"):
        train(TINY, data, store)
    stuffing.unlink()
    assert content(train(TINY, data, store)) == content(uninterrupted)


def test_read_only_store(small_disk, data):
    store = Store(small_disk)
    config = TINY.replace(epochs=1)
    train(config, data, store)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert running.run_trials([config], data, store=store).trials[config].damage() == []
    with pytest.raises(LabError, match=r"cannot be written \(Read-only file system\)"):
        running.run_trials([TINY], data, store=store)
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
