"""The store of trials: checks on reading, claims of writers, copies, cleaning."""

import errno
import hashlib
import json
import os
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
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
from tiny import content

from labrnn.config import TrialConfig
from labrnn.errors import LabError
from labrnn.network.models import build
from labrnn.trials import tables
from labrnn.trials.cleaning import remove, stale
from labrnn.trials.ours import MARK
from labrnn.trials.store import PROJECT, Store, _rounded, default_store, epoch_of
from labrnn.trials.tables import DESCRIPTIONS
from labrnn.trials.trial import (
    FORMAT,
    TEXTS,
    WEIGHTS,
    Trial,
    UnreadableError,
    dump,
    predictions_csv,
    read_plain,
    trial_key,
)

NOTES = "notes-0123456789abcdef.json"


@pytest.fixture
def store(tmp_path):
    """A store with one trial."""
    store = Store(tmp_path / "trials")
    write(store)
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


@pytest.fixture
def unreadable(monkeypatch):
    """Make opening a file fail with an error number; root can read a file of any mode."""

    def fail(name, code=errno.EIO):
        real = os.open

        def opened(path, *args, **kwargs):
            if Path(path).name == name:
                raise OSError(code, os.strerror(code))
            return real(path, *args, **kwargs)

        monkeypatch.setattr(os, "open", opened)

    return fail


# Names


def test_keys_of_stored_trials_are_stable():
    assert trial_key(TrialConfig()) == "ac92f778a9bbee4e"
    assert trial_key(TrialConfig(optim="rmsprop", lr=0.001)) == "56d86b2b293d06c4"
    assert trial_key(TrialConfig(cell="gru", optim="adam", lr=0.001)) == "fe50d6c30b313eee"


def test_default_store_follows_the_environment(tmp_path, monkeypatch):
    assert default_store().root == tmp_path / "trials"
    assert default_store(str(tmp_path / "other")).root == tmp_path / "other"
    monkeypatch.delenv("LABRNN_STORE")
    assert default_store().root == PROJECT / "trials"
    assert default_store().shelves == [PROJECT / "reports" / "full"]


@pytest.mark.parametrize("name", ["~no_such_user/trials", "a\0b"])
def test_invalid_folder_name_is_refused(name):
    with pytest.raises(LabError, match=r"no such folder for trials \(.+\); write it in full"):
        Store(name)
    with pytest.raises(LabError, match="no such folder for trials"):
        Store("trials", ["good", name])


def test_unlistable_folder_is_reported(store, monkeypatch):
    for path in (store.root, store.root / FINGERPRINT):
        real = os.scandir

        def fail(folder, path=path, real=real):
            if Path(folder) == path:
                raise PermissionError(errno.EACCES, "Permission denied", str(folder))
            return real(folder)

        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", fail)
            message = (
                rf"^{path}: cannot be listed \(Permission denied\); correct the path of the store "
                r"\(LABRNN_STORE\) or its permissions$"
            )
            with pytest.raises(LabError, match=message):
                list(store.places())
    assert list(Store(store.root / "none").places()) == []


def test_places_list_the_root_then_shelves_by_name(store, tmp_path):
    shelf = Store(tmp_path / "shelf")
    keys = [write(shelf, CONFIG.replace(seed=n)).key for n in range(3)]
    write(shelf)
    (shelf.root / FINGERPRINT / "0").mkdir()
    (shelf.root / FINGERPRINT / "notes.txt").touch()
    both = Store(store.root, [shelf.root])
    places = [t.folder for t in both.places()]
    named = sorted([shelf.root / FINGERPRINT / key for key in ["0", KEY, *keys]])
    assert places == [store.root / FINGERPRINT / KEY, *named]
    finished = [t.folder for t in both.trials()]
    named = sorted(shelf.root / FINGERPRINT / key for key in keys)
    assert finished == [store.root / FINGERPRINT / KEY, *named]


# Stored content


def test_stored_trial_equals_its_input(store):
    trial = only(store)
    assert (trial.key, trial.fingerprint) == (KEY, FINGERPRINT)
    assert trial.config == CONFIG
    assert {p.name for p in trial.folder.iterdir()} == {*TEXTS, WEIGHTS, "DONE"}
    assert trial.damage() == []
    assert (trial.data, trial.vocabulary_size) == (CORPUS.facts, 7)
    assert (trial.history, trial.environment) == (progress().history, HOW)
    assert trial.metrics == {which: m for which, (m, _) in predicted().items()}
    table = trial.predictions
    assert table["row"].tolist() == [5, 0, 29, 12, 3, 8]
    assert table["label"].tolist() == [1, 0, 1, 0, 1, 0]
    for which, (_, chances) in predicted().items():
        assert table[which].to_numpy() == pytest.approx(chances, abs=1e-4)
        assert ((table[which] > 0.5) == (chances > 0.5)).all()
    weights = trial.weights()
    assert weights.keys() == progress().best.keys()
    assert all((weights[name] == value).all() for name, value in progress().best.items())
    stored = json.loads(trial.read("trial.json"))
    assert (stored["format"], stored["code_version"], stored["fingerprint"]) == (1, 1, FINGERPRINT)
    assert trial.read("predictions.csv").startswith(b"row,label,best,last\n5,1,0.9000,0.4000\n")
    assert trial.row() == {
        "key": KEY,
        "data": FINGERPRINT,
        "cell": "lstm",
        "seed": 5,
        "accuracy": trial.metrics["best"]["accuracy"],
        "loss": round(trial.metrics["best"]["loss"], 6),
        "epoch": 2,
        "seconds": 1.5,
        "finished": HOW["finished"],
        "weights": True,
        "configuration": CONFIG.difference(),
    }


def test_rounded_probabilities_keep_their_side_of_one_half():
    given = np.array([0, 0.5, 0.50001, 0.49999, 0.50004, 0.12345, 0.99996, 1])
    assert _rounded(given).tolist() == [0, 0.5, 0.5001, 0.5, 0.5001, 0.1234, 1, 1]


def test_json_files_are_indented_and_contain_no_nan():
    assert dump({"a": [1]}) == b'{\n "a": [\n  1\n ]\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump(float("nan"))
    for text in ("NaN", "[-Infinity]", "1e999"):
        with pytest.raises(ValueError, match="is not a finite number"):
            read_plain(text)
    assert read_plain("[1.5, 2]") == [1.5, 2]


# Damage and other versions

READING = {
    "trial.json": lambda t: t.config,
    "history.json": lambda t: t.history,
    "metrics.json": lambda t: t.metrics,
    "environment.json": lambda t: t.environment,
    "predictions.csv": lambda t: t.predictions,
    WEIGHTS: lambda t: t.weights(),
}


@pytest.mark.parametrize("name", [*TEXTS, WEIGHTS])
def test_file_with_flipped_byte_is_never_used(store, name):
    trial = only(store)
    flip(trial.folder / name)
    (fault,) = trial.damage()
    assert fault == f"{name} does not match its stored SHA-256"
    assert trial.damage(weights=False) == ([] if name == WEIGHTS else [fault])
    with pytest.raises(LabError, match=f"{name}: does not match its stored SHA-256; .*removes it"):
        READING[name](trial)
    if name != WEIGHTS:
        message = (
            rf"^{trial.folder}: {re.escape(fault)}; `labrnn trials --store {store.root} gc "
            r"--damaged` removes it, to be trained or imported again$"
        )
        with pytest.raises(LabError, match=message):
            store.find(CONFIG, FINGERPRINT)


@pytest.mark.parametrize("name", ["DONE", *TEXTS, WEIGHTS])
@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_unreadable_file_is_not_damage(store, unreadable, name, code):
    unreadable(name, code)
    trial = Trial(store.root / FINGERPRINT / KEY)
    message = (
        rf"{name}: cannot be read \({os.strerror(code)}\); nothing is changed there: correct its "
        "permissions or the disk, and try again$"
    )
    with pytest.raises(UnreadableError, match=message):
        trial.damage()
    if name not in ("DONE", WEIGHTS):
        with pytest.raises(LabError, match=message):
            store.find(CONFIG, FINGERPRINT)


def test_damaged_or_missing_done_file_is_reported(store):
    trial = only(store)
    digests = json.loads((trial.folder / "DONE").read_bytes())
    for text in ("[]", "{", "7", '{"trial.json": 7}', "\x00"):
        (trial.folder / "DONE").write_text(text)
        assert len(Trial(trial.folder).damage()) == len(digests)
    (trial.folder / "DONE").write_text(json.dumps(digests | {"../outside": "0"}))
    assert Trial(trial.folder).damage() == ["DONE names an unknown file, '../outside'"]
    (trial.folder / "DONE").unlink()
    assert list(store.trials()) == []
    assert store.find(CONFIG, FINGERPRINT) is None
    assert Trial(trial.folder).damage() == ["DONE is missing: the trial is incomplete"]
    with pytest.raises(LabError, match=rf"^{trial.folder}: not a finished trial \(no DONE\)$"):
        Trial(trial.folder).row()


def test_trial_in_the_wrong_folder_is_detected(store):
    trial = only(store)
    moved = trial.folder.rename(trial.folder.with_name("0" * 16))
    assert Trial(moved).damage() == [
        f"is in the wrong folder; it belongs in {trial.fingerprint}/{trial.key}"
    ]


def test_the_weights_of_an_ensemble_are_sound(store):
    config = CONFIG.replace(members=2)
    state = progress()
    state.best = build(config, CORPUS.vocabulary_size).state_dict()
    trial = store.save(config, CORPUS, state, predicted(config), HOW)
    assert trial.damage() == []
    assert store.find(config, FINGERPRINT).weights().keys() == state.best.keys()


def test_copy_without_weights_is_sound(store):
    trial = only(store)
    (trial.folder / WEIGHTS).unlink()
    assert trial.damage() == []
    assert not trial.row()["weights"]
    message = rf"^{trial.folder}: this copy of the trial has no weights; train it again$"
    with pytest.raises(LabError, match=message):
        trial.weights()


@pytest.mark.parametrize("other", [FORMAT - 1, FORMAT + 1])
def test_store_of_another_version_is_not_used_or_changed(store, other):
    trial = only(store)
    stored = json.loads((trial.folder / "trial.json").read_bytes()) | {"format": other}
    (trial.folder / "trial.json").write_text(json.dumps(stored))
    before = everything(store.root)
    message = rf"store format {other}, this version reads {FORMAT}; nothing is changed"
    for use in (
        lambda: store.find(CONFIG, FINGERPRINT),
        Trial(trial.folder).damage,
        lambda: Trial(trial.folder).config,
        lambda: Store(store.root / "o").take(trial),
    ):
        with pytest.raises(LabError, match=message):
            use()
    assert stale(store, unfinished=True, damaged=True) == {}
    assert everything(store.root) == before


@pytest.mark.parametrize(
    ("fields", "removed"),
    [
        ({"linear_path": False}, ""),
        ({"linear_path": True}, "linear_path = True"),
        ({"readout": "mean"}, "readout = mean"),
    ],
)
def test_old_run_is_readable_unless_it_used_a_removed_option(store, fields, removed):
    trial = only(store)
    stored = json.loads((trial.folder / "trial.json").read_bytes())
    stored["config"] |= fields
    (trial.folder / "trial.json").write_text(json.dumps(stored))
    digests = json.loads((trial.folder / "DONE").read_bytes())
    digests["trial.json"] = hashlib.sha256((trial.folder / "trial.json").read_bytes()).hexdigest()
    (trial.folder / "DONE").write_text(json.dumps(digests))
    (store.root / MARK).touch()
    found = Trial(trial.folder)
    if not removed:
        assert found.damage() == []
        assert found.config == trial.config
        return
    with pytest.raises(LabError, match=rf"\({removed}\); nothing is changed there"):
        found.damage()
    with pytest.raises(LabError, match=r"linear_path|readout"):
        _ = found.config
    assert stale(store, damaged=True) == {}


# Interrupted trainings


def test_newest_sound_state_is_used_and_damaged_ones_are_removed(store):
    other = CONFIG.replace(seed=1, epochs=12)
    assert store.load_progress(other, FINGERPRINT) is None
    assert store.epochs_kept(other, FINGERPRINT) == 0
    partial = store.root / FINGERPRINT / ".partial" / trial_key(other)
    for epoch in (2, 3):
        store.save_progress(other, FINGERPRINT, progress(epoch))
        assert [p.name for p in partial.iterdir()] == [f"epoch-{epoch}"]
    newest = shutil.copytree(partial / "epoch-3", partial / "epoch-10")
    assert store.epochs_kept(other, FINGERPRINT) == 10
    (newest / "last.safetensors").write_bytes(b"half")
    found = store.load_progress(other, FINGERPRINT)
    assert found.history == progress(3).history
    for name in ("last", "best", "optimizer"):
        tensors, expected = getattr(found, name), getattr(progress(3), name)
        assert tensors.keys() == expected.keys()
        assert all((tensors[n] == expected[n]).all() for n in expected)
    assert not newest.exists()
    for name in ("DONE", "history.json", "best.safetensors", "optimizer.safetensors"):
        copy = shutil.copytree(partial / "epoch-3", partial / "epoch-4")
        flip(copy / name, 3)
        assert len(store.load_progress(other, FINGERPRINT).history) == 3
        assert not copy.exists()
    (partial / "epoch-4").mkdir()
    assert len(store.load_progress(other, FINGERPRINT).history) == 3
    store.save(other, CORPUS, progress(12), predicted(other), HOW)
    assert not partial.exists()


def test_unreadable_state_is_kept(store, unreadable):
    other = CONFIG.replace(seed=1)
    store.save_progress(other, FINGERPRINT, progress(2))
    unreadable("optimizer.safetensors")
    state = store.root / FINGERPRINT / ".partial" / trial_key(other) / "epoch-2"
    with pytest.raises(UnreadableError, match=f"^{state}/optimizer.safetensors: cannot be read"):
        store.load_progress(other, FINGERPRINT)
    assert len(list(state.iterdir())) == 5


def test_epochs_are_read_from_names():
    names = ("epoch-1", "epoch-12", "epoch-", "1.writing", "epoch-1.writing", "xepoch-1")
    assert [epoch_of(Path("a", name)) for name in names] == [1, 12, 0, 0, 0, 0]


WRITES = {
    "save": lambda broken, trial: write(broken),
    "save_progress": lambda broken, trial: broken.save_progress(CONFIG, FINGERPRINT, progress(1)),
    "keep": lambda broken, trial: broken.keep(FINGERPRINT, NOTES, [1]),
    "open_log": lambda broken, trial: broken.open_log(),
    "take": lambda broken, trial: broken.take(trial),
    "held": lambda broken, trial: broken.held(FINGERPRINT, KEY),
}


@pytest.mark.parametrize("work", WRITES)
def test_unwritable_store_is_reported(store, tmp_path, work):
    (tmp_path / "file").touch()
    broken = Store(tmp_path / "file" / "trials")
    with pytest.raises(LabError) as caught:
        WRITES[work](broken, only(store))
    assert str(caught.value) == (
        f"{broken.root}: the store cannot be written (not a folder); make room, or name another "
        "folder with LABRNN_STORE; what is finished is kept"
    )


def test_log_is_a_new_file_in_the_store(tmp_path):
    new = Store(tmp_path / "new")
    with new.open_log() as log:
        log.write("é one\n")
        assert Path(log.name).read_text("utf-8") == "é one\n"  # line by line
        assert re.fullmatch(rf"\d{{8}}-\d{{6}}-{os.getpid()}\.log", Path(log.name).name)
        assert Path(log.name).parent == new.root / ".logs"
    assert (new.root / MARK).is_file()


# Concurrent writers


def test_trial_is_claimed_by_one_writer(store):
    place = FINGERPRINT, trial_key(CONFIG.replace(seed=1))
    with store.claim(*place) as mine:
        assert mine
        assert Store(store.root).held(*place)
        with Store(store.root).claim(*place) as second:
            assert not second
        assert len(list(store.root.rglob("*.lock"))) == 1
    assert not store.held(*place)
    assert list(store.root.rglob("*.lock")) == []


def test_finished_trial_is_not_replaced(store):
    """A second writer of the same trial without the lock changes nothing."""
    before = everything(store.root)
    store.save_progress(CONFIG, FINGERPRINT, progress(2))
    trial = store.save(CONFIG, CORPUS, progress(seed=1), predicted(), HOW)
    assert trial.folder == only(store).folder
    assert everything(store.root) == before
    assert list((store.root / FINGERPRINT / ".partial").iterdir()) == []


# Copies


def test_take_copies_once_and_adds_weights(store, tmp_path):
    shelf, light = Store(tmp_path / "shelf"), without_weights(store, tmp_path / "light")
    assert shelf.take(light) == "copied"
    assert not only(shelf).has_weights
    before = everything(shelf.root)
    assert shelf.take(light) == "there already"
    assert everything(shelf.root) == before
    assert shelf.take(only(store)) == "copied"
    assert shelf.take(only(store)) == "there already"
    assert shelf.take(light) == "there already"
    assert content(only(shelf)) == content(only(store))
    assert only(shelf).damage() == []
    names = {*TEXTS, WEIGHTS, "DONE", MARK}
    assert {path.name for path in everything(shelf.root)} == names
    assert Store(tmp_path / "none", shelves=[shelf.root]).find(CONFIG, FINGERPRINT)


def test_take_refuses_damaged_trials_and_keeps_differing_ones(store, tmp_path):
    shelf, other = Store(tmp_path / "shelf"), progress()
    other.history[0]["train_loss"] = 0.71
    shelf.save(CONFIG, CORPUS, other, predicted(), HOW)
    before = everything(shelf.root)
    assert shelf.take(only(store)) == "differs"
    assert everything(shelf.root) == before
    flip(only(store).folder / "history.json")
    message = (
        rf"^{only(store).folder}: history\.json does not match its stored SHA-256; not copied$"
    )
    with pytest.raises(LabError, match=message):
        Store(tmp_path / "other").take(only(store))
    assert not (tmp_path / "other").exists()


def test_trial_in_training_is_not_taken(store, tmp_path):
    shelf = Store(tmp_path / "shelf")
    with Store(shelf.root).claim(FINGERPRINT, KEY):
        assert shelf.take(only(store)) == "busy"
    light = without_weights(store, tmp_path / "light")
    assert shelf.take(light) == "copied"
    with Store(shelf.root).claim(FINGERPRINT, KEY):
        assert shelf.take(light) == "there already"
        assert shelf.take(only(store)) == "busy"


# Values kept beside the trials


def test_recall_prefers_the_root_and_keeps_the_first_value(store, tmp_path):
    shelf = Store(tmp_path / "shelf")
    both = Store(store.root, [shelf.root])
    assert both.recall(FINGERPRINT, NOTES) is None
    shelf.keep(FINGERPRINT, NOTES, ["shelf"])
    shelf.keep(FINGERPRINT, "more-0123456789abcdef.json", ["é"])
    assert both.recall(FINGERPRINT, NOTES) == ["shelf"]
    both.keep(FINGERPRINT, NOTES, ["mine"])
    both.keep(FINGERPRINT, NOTES, ["other"])
    assert both.recall(FINGERPRINT, NOTES) == ["mine"]
    digests = both.kept_digests(FINGERPRINT)
    assert digests.keys() == {NOTES, "more-0123456789abcdef.json"}
    assert digests[NOTES] == store.kept_digests(FINGERPRINT)[NOTES]
    assert digests[NOTES] != shelf.kept_digests(FINGERPRINT)[NOTES]
    assert len(list(both.kept(FINGERPRINT))) == 3
    path = store.root / FINGERPRINT / NOTES
    assert json.loads(path.read_text())["value"] == ["mine"]
    flip(path, -5)
    assert list(both.damaged()) == [(path, "does not match its stored SHA-256")]
    assert both.recall(FINGERPRINT, NOTES) == ["shelf"]
    assert both.kept_digests(FINGERPRINT)[NOTES] == shelf.kept_digests(FINGERPRINT)[NOTES]
    both.keep(FINGERPRINT, NOTES, ["again"])
    assert both.recall(FINGERPRINT, NOTES) == ["again"]


def test_copying_kept_values_never_overwrites(store, tmp_path):
    other, folder = Store(tmp_path / "other"), tmp_path / "tables" / DESCRIPTIONS
    more = "more-0123456789abcdef.json"
    for name in (NOTES, more, "bad-0123456789abcdef.json"):
        store.keep(FINGERPRINT, name, [name])
    bad = store.root / FINGERPRINT / "bad-0123456789abcdef.json"
    flip(bad, -5)
    other.keep(FINGERPRINT, NOTES, ["other"])
    (folder / FINGERPRINT).mkdir(parents=True)
    (folder / FINGERPRINT / NOTES).write_text("other")
    fault = [(bad, "does not match its stored SHA-256")]
    assert store.copy_kept(FINGERPRINT, partial(other.keep, FINGERPRINT)) == fault
    keep = partial(tables.keep, folder.parent, FINGERPRINT)
    assert store.copy_kept(FINGERPRINT, keep) == fault
    assert other.recall(FINGERPRINT, NOTES) == ["other"]
    assert other.recall(FINGERPRINT, more) == [more]
    assert {p.name for p in (folder / FINGERPRINT).iterdir()} == {NOTES, more}
    assert (folder / FINGERPRINT / NOTES).read_text() == "other"
    copied = (folder / FINGERPRINT / more).read_bytes()
    assert copied == (store.root / FINGERPRINT / more).read_bytes()


# Cleaning


def test_clean_removes_only_leftovers(store):
    other, held = CONFIG.replace(seed=1), CONFIG.replace(seed=2)
    store.save_progress(other, FINGERPRINT, progress(1))
    folder = store.root / FINGERPRINT
    state = folder / ".partial" / trial_key(other)
    (state / "2.writing").mkdir()
    (folder / ".partial" / KEY).mkdir()
    lock = folder / ".locks" / "0123456789abcdef.lock"
    lock.parent.mkdir(exist_ok=True)
    lock.touch()
    (folder / "notes").mkdir()
    with store.claim(FINGERPRINT, trial_key(held)):
        (folder / ".partial" / trial_key(held) / "1.writing").mkdir(parents=True)
        removed = clean(store)
        assert (folder / ".partial" / trial_key(held) / "1.writing").exists()
    assert set(removed) == {state / "2.writing", folder / ".partial" / KEY, lock}
    assert not any(path.exists() for path in removed)
    assert store.epochs_kept(other, FINGERPRINT) == 1
    clean(store, unfinished=True)
    assert store.epochs_kept(other, FINGERPRINT) == 0
    assert (folder / "notes").exists()
    assert only(store).damage() == []


def test_predictions_csv_round_trips(store):
    table = only(store).predictions
    assert predictions_csv(table) == only(store).read("predictions.csv")
