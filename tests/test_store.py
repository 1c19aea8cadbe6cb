"""The store of trials: whole or absent, checked at every reading, copied, cleaned, never lost."""

import errno
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tiny import TINY, content, train, write_reviews

from labrnn.config import TrialConfig
from labrnn.errors import LabError
from labrnn.trials import running
from labrnn.trials.cleaning import remove, stale
from labrnn.trials.job import train_and_store
from labrnn.trials.ours import MARK
from labrnn.trials.store import Store, default_store
from labrnn.trials.trial import FORMAT, TEXTS, WEIGHTS, Trial, trial_key


@pytest.fixture(scope="module")
def data(reviews, tmp_path_factory):
    return write_reviews(reviews, tmp_path_factory.mktemp("data") / "reviews.csv")


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """A trial as it is when nothing happens; tests change copies."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABRNN_CACHE", str(folder / "cache"))
        return train(TINY, data, Store(folder / "trials"))


@pytest.fixture
def store(tmp_path, undisturbed):
    """A store with that trial."""
    store = Store(tmp_path / "trials")
    shutil.copytree(undisturbed.folder, store.root / undisturbed.fingerprint / undisturbed.key)
    return store


def only(store):
    (trial,) = store.trials()
    return Trial(trial.folder)


def flip(path, place=-20):
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)


def everything(root):
    return {path: path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}


def clean(store, **options):
    return remove(store, stale(store, **options), **options)


# Names and content


def test_names_of_stored_trials_stay():
    assert trial_key(TrialConfig()) == "ac92f778a9bbee4e"
    assert trial_key(TrialConfig(optim="rmsprop", lr=0.001)) == "56d86b2b293d06c4"
    assert trial_key(TrialConfig(cell="gru", optim="adam", lr=0.001)) == "fe50d6c30b313eee"


def test_default_store_is_named_by_the_environment(tmp_path, monkeypatch):
    assert default_store().root == tmp_path / "trials"
    monkeypatch.delenv("LABRNN_STORE")
    assert default_store().root.name == "trials"
    assert default_store().shelves[0].parts[-2:] == ("reports", "full")


def test_trial_holds_what_was_trained(undisturbed, reviews):
    trial = undisturbed
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


def test_stored_trial_is_not_trained_again(store, data, monkeypatch):
    monkeypatch.setattr("labrnn.network.training.train", None)
    assert content(train(TINY, data, store)) == content(only(store))


# Interrupted


def test_killed_in_epoch_4_goes_on_from_epoch_3(data, undisturbed, tmp_path):
    store, told = Store(tmp_path / "trials"), []

    def kill_in_epoch_4(entry):
        told.append(entry["epoch"])
        if entry["epoch"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_and_store(TINY, data, store, on_epoch=kill_in_epoch_4)
    assert list(store.trials()) == []
    assert store.epochs_kept(TINY, undisturbed.fingerprint) == 3
    trial = train_and_store(TINY, data, store, on_epoch=lambda entry: told.append(entry["epoch"]))
    assert told == [1, 2, 3, 4, 5, 6]
    assert content(trial) == content(undisturbed)
    assert list(store.root.rglob("epoch-*")) == []


def test_damaged_state_is_passed_over(data, undisturbed, tmp_path):
    store, told = Store(tmp_path / "trials"), []

    def stop(entry):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_and_store(TINY, data, store, on_epoch=stop)
    (state,) = store.root.rglob("epoch-1")
    newer = shutil.copytree(state, state.with_name("epoch-2"))
    (newer / "last.safetensors").write_bytes(b"half")
    shutil.copytree(state, state.with_name("2.writing"))
    trial = train_and_store(TINY, data, store, on_epoch=lambda entry: told.append(entry["epoch"]))
    assert told == [2, 3, 4, 5, 6]
    assert content(trial) == content(undisturbed)


def test_every_failure_of_the_disk_loses_nothing(data, undisturbed, tmp_path, monkeypatch):
    """The n-th operation on the disk fails, for every n; afterwards the training is completed."""
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
    assert len(failures) > 20  # the rest was the cache's, which can be done without
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


def test_full_disk(small_disk, data, undisturbed):
    store = Store(small_disk)
    stuffing = small_disk / "stuffing"
    with pytest.raises(OSError, match="No space"):
        stuffing.write_bytes(bytes(300_000))
    with pytest.raises(LabError, match=r"written \(No space left on device\); make room"):
        train(TINY, data, store)
    stuffing.unlink()
    assert content(train(TINY, data, store)) == content(undisturbed)


def test_read_only_store(small_disk, data):
    store = Store(small_disk)
    config = TINY.replace(epochs=1)
    train(config, data, store)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert running.run_trials([config], data, store=store).trials[config].damage() == []
    with pytest.raises(LabError, match=r"cannot be written \(Read-only file system\)"):
        running.run_trials([TINY], data, store=store)
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)


# Damage and other versions


@pytest.mark.parametrize("name", [*TEXTS, WEIGHTS])
def test_flipped_byte_is_never_used(store, name):
    trial = only(store)
    flip(trial.folder / name)
    (fault,) = trial.damage()
    assert fault.startswith(name)
    reading = {
        "trial.json": lambda t: t.config,
        "history.json": lambda t: t.history,
        "metrics.json": lambda t: t.metrics,
        "environment.json": lambda t: t.environment,
        "predictions.csv": lambda t: t.predictions,
        WEIGHTS: lambda t: t.weights(),
    }
    with pytest.raises(LabError, match=f"{name}: is not what was written; .*trials verify"):
        reading[name](trial)


def test_flipped_bytes_of_done_and_of_its_absence(store):
    trial = only(store)
    digests = json.loads((trial.folder / "DONE").read_bytes())
    (trial.folder / "DONE").write_text("[]")
    assert len(Trial(trial.folder).damage()) == len(digests)
    (trial.folder / "DONE").write_text(json.dumps(digests | {"../outside": "0"}))
    assert Trial(trial.folder).damage() == ["DONE names a strange file, '../outside'"]
    (trial.folder / "DONE").unlink()
    assert list(store.trials()) == []
    assert "DONE is missing" in Trial(trial.folder).damage()[0]


def test_trial_in_the_wrong_folder_is_found(store):
    trial = only(store)
    moved = trial.folder.rename(trial.folder.with_name("0" * 16))
    assert Trial(moved).damage() == [
        f"lies in the wrong folder, it belongs in {trial.fingerprint}/{trial.key}"
    ]


def test_copy_without_weights_is_sound(store):
    trial = only(store)
    (trial.folder / WEIGHTS).unlink()
    assert trial.damage() == []
    with pytest.raises(LabError, match="has no weights; train it again"):
        trial.weights()


def test_newer_store_is_neither_used_nor_changed(store, data):
    trial = only(store)
    newer = json.loads((trial.folder / "trial.json").read_bytes()) | {"format": FORMAT + 1}
    (trial.folder / "trial.json").write_text(json.dumps(newer))
    (store.root / MARK).touch()
    before = everything(store.root)
    message = rf"store format {FORMAT + 1}, this version reads {FORMAT}; nothing is changed"
    for use in (
        lambda: train(TINY, data, store),
        Trial(trial.folder).damage,
        lambda: Trial(trial.folder).config,
        lambda: Store(store.root / "o").take(trial),
    ):
        with pytest.raises(LabError, match=message):
            use()
    assert stale(store, unfinished=True, damaged=True) == {}
    assert running.run_trials([TINY], data, store=store).failures.keys() == {TINY}
    assert everything(store.root) == before


# Writers at once


def test_trial_is_held_by_one(store, data, undisturbed):
    place = undisturbed.fingerprint, trial_key(TINY.replace(seed=1))
    with store.claim(*place) as mine:
        assert mine
        assert Store(store.root).held(*place)
        assert train(TINY.replace(seed=1), data, store) is None
        with Store(store.root).claim(*place) as second:
            assert not second
    assert not store.held(*place)
    assert list(store.root.rglob("*.lock")) == []


def test_what_is_finished_stays(store, undisturbed):
    """A second writer of the same trial, without the lock, changes nothing and leaves nothing."""
    before = everything(store.root)
    store._place(undisturbed.fingerprint, undisturbed.key, {"trial.json": b"{}"}, {})
    assert everything(store.root) == before
    assert only(store).damage() == []


# Copies


def test_take_copies_once_and_adds_weights(store, tmp_path):
    shelf = Store(tmp_path / "shelf")
    assert shelf.take(only(store), weights=False) == "copied"
    assert not only(shelf).has_weights
    before = everything(shelf.root)
    assert shelf.take(only(store), weights=False) == "there already"
    assert everything(shelf.root) == before
    assert shelf.take(only(store)) == "copied"
    assert shelf.take(only(store)) == "there already"
    assert content(only(shelf)) == content(only(store))
    assert only(shelf).damage() == []
    names = {*TEXTS, WEIGHTS, "DONE", MARK}
    assert {path.name for path in everything(shelf.root)} == names
    assert Store(tmp_path / "none", shelves=[shelf.root]).find(TINY, only(store).fingerprint)


def test_take_refuses_what_is_damaged_and_keeps_what_differs(store, data, tmp_path):
    shelf = Store(tmp_path / "shelf")
    train(TINY, data, shelf)  # equal figures, other seconds
    before = everything(shelf.root)
    assert shelf.take(only(store)) == "differs"
    assert everything(shelf.root) == before
    flip(only(store).folder / "history.json")
    with pytest.raises(LabError, match=r"history\.json is not what was written; not copied"):
        Store(tmp_path / "other").take(only(store))
    assert not (tmp_path / "other").exists()


# Cleaning


def test_clean_removes_leftovers_only(store, data, undisturbed):
    def stop(entry):
        raise KeyboardInterrupt

    other = TINY.replace(seed=1)
    with pytest.raises(KeyboardInterrupt):
        train_and_store(other, data, store, on_epoch=stop)
    folder = store.root / undisturbed.fingerprint
    state = folder / ".partial" / trial_key(other)
    (state / "2.writing").mkdir()
    (folder / ".partial" / undisturbed.key).mkdir()
    stale = folder / ".locks" / "0123456789abcdef.lock"
    stale.touch()
    (folder / "notes").mkdir()
    held = TINY.replace(seed=2)
    with store.claim(undisturbed.fingerprint, trial_key(held)):
        (folder / ".partial" / trial_key(held) / "1.writing").mkdir(parents=True)
        removed = clean(store)
        assert (folder / ".partial" / trial_key(held) / "1.writing").exists()
    assert set(removed) == {state / "2.writing", folder / ".partial" / undisturbed.key, stale}
    assert not any(path.exists() for path in removed)
    assert store.epochs_kept(other, undisturbed.fingerprint) == 1
    clean(store, unfinished=True)
    assert store.epochs_kept(other, undisturbed.fingerprint) == 0
    assert (folder / "notes").exists()
    assert only(store).damage() == []


def test_clean_removes_damaged_trials_only_when_told(store, undisturbed):
    damaged = only(store).folder
    flip(damaged / "metrics.json")
    broken = damaged.with_name("0123456789abcdef")
    broken.mkdir()
    assert clean(store) == []
    assert set(clean(store, damaged=True)) == {damaged, broken}
    assert list(store.places()) == []
