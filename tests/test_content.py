"""Stored content is not trusted: its form and its consistency are checked."""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest
from stored import CONFIG, FINGERPRINT, KEY, tree, write
from tiny import run

from labrnn.errors import LabError
from labrnn.trials import kept
from labrnn.trials.ours import MARK
from labrnn.trials.store import PROJECT, Store
from labrnn.trials.trial import TEXTS, WEIGHTS, Trial, trial_key


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "trials")
    write(store)
    return store


def forge(store, name, change):
    """Change a file and its digest; `change` maps JSON values, or the cells of a CSV."""
    trial = Trial(store.root / FINGERPRINT / KEY)
    text = trial.read(name).decode()
    if name.endswith(".csv"):
        cells = [line.split(",") for line in text.splitlines()]
        text = "".join(",".join(map(str, row)) + "\n" for row in change(cells))
    else:
        value = json.loads(text)
        value = change(value) or value
        text = json.dumps(value)
    (trial.folder / name).write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (trial.folder / "DONE").write_text(json.dumps(trial.digests | {name: digest}))
    return Trial(trial.folder)


def at(*path, value):
    """Return a change of one value in nested lists and dicts."""

    def change(whole):
        *way, last = path
        inner = whole
        for step in way:
            inner = inner[step]
        inner[last] = value

    return change


def cell(row, column, value):
    def change(cells):
        cells[row][column] = value
        return cells

    return change


def dropped(*path):
    def change(whole):
        *way, last = path
        inner = whole
        for step in way:
            inner = inner[step]
        del inner[last]

    return change


def invalid(field, *more):
    """Return values that a field of numbers refuses, each with what the message says."""
    infinite = [(float(text), f"({text} is not a finite number)") for text in ("NaN", "Infinity")]
    others = (-0.1, "0.5", None, True, [], *more)
    return infinite + [(value, f"({field}: input should be ") for value in others]


FORGERIES = [
    *[
        ("metrics.json", at("best", "accuracy", value=v), s)
        for v, s in invalid("best.accuracy", 1.1)
    ],
    *[("metrics.json", at("last", "loss", value=v), s) for v, s in invalid("last.loss")],
    *[("metrics.json", at("best", "epoch", value=v), "epoch") for v in (0, 1, 3, 2.5, "2")],
    ("metrics.json", at("last", "epoch", value=2), "epoch of `last` is 2, history.json gives 3"),
    (
        "metrics.json",
        at("best", "accuracy", value=1.0),
        "accuracy of `best` is 1.00000, predictions.csv gives 0.8",
    ),
    (
        "metrics.json",
        at("last", "accuracy", value=0.667),
        "accuracy of `last` is 0.66700, predictions.csv gives",
    ),
    ("metrics.json", at("best", "loss", value=0.38), "metrics.json: loss of `best` is 0.38"),
    ("metrics.json", at("last", "loss", value=1.1), "metrics.json: loss of `last` is "),
    ("metrics.json", at("last", "loss", value=0.0), "metrics.json: loss of `last` is "),
    ("metrics.json", at("best", "accuracy_batch_mean", value=float("nan")), "finite"),
    ("metrics.json", at("best", "note", value=float("inf")), "finite"),
    ("metrics.json", dropped("last"), "last"),
    *[("history.json", at(1, "valid_loss", value=v), s) for v, s in invalid("1.valid_loss")],
    *[("history.json", at(0, "train_accuracy", value=v), "train_accuracy") for v in (2, "x")],
    ("history.json", at(0, "epoch", value=2), "its epochs are not 1 to 3"),
    ("history.json", lambda entries: entries[:2], "its epochs are not 1 to 3"),
    ("history.json", lambda entries: [*entries, entries[-1] | {"epoch": 4}], "are not 1 to 3"),
    ("history.json", lambda entries: entries[::-1], "its epochs are not 1 to 3"),
    ("history.json", at(2, "valid_loss", value=0.01), "history.json gives 3"),
    ("history.json", at(2, "seconds", value=500.0), "history.json gives"),
    ("history.json", at(2, "seconds", value=float("-inf")), "finite"),
    ("history.json", at(1, "note", value=["mine"]), "1.note: extra inputs are not permitted"),
    ("history.json", dropped(1, "seconds"), "1.seconds: field required"),
    ("environment.json", at("seed", value=7), "seed: extra inputs are not permitted"),
    ("environment.json", at("versions", "a\0b", value="1"), "versions.a\ufffdb"),
    ("environment.json", at("seconds", value=1e9), "history.json gives"),
    ("environment.json", at("finished", value="yesterday"), "finished"),
    ("environment.json", at("device", value=7), "device"),
    ("trial.json", at("data", "fingerprint", value="f" * 16), "fingerprint of its data is ffff"),
    ("trial.json", at("data", "reviews", value=31337), "6 rows, expected 6268 (of 31337 reviews)"),
    ("trial.json", at("data", "reviews", value=0), "reviews"),
    ("trial.json", at("data", "name", value="x" * 10_000_000), "data.name"),
    ("trial.json", at("data", "key", value="x"), "data.key: extra inputs are not permitted"),
    ("trial.json", at("vocabulary_size", value=1), "vocabulary_size"),
    ("trial.json", at("vocabulary_size", value=8), "no embedding of 8 words in 1 dimensions"),
    ("trial.json", at("config", "seed", value=6), "is in the wrong folder; it belongs in"),
    ("trial.json", at("config", "hidden_dim", value=9), "hidden_dim"),
    ("trial.json", at("code_version", value=True), "code_version"),
    ("predictions.csv", lambda cells: cells[:5], "4 rows, expected 6 (of 30 reviews)"),
    (
        "predictions.csv",
        lambda cells: [*cells, ["1", "1", "0.5", "0.5"]],
        "7 rows, expected 6 (of 30",
    ),
    ("predictions.csv", lambda cells: cells[:1], "0 rows"),
    ("predictions.csv", lambda cells: cells[1:], "not the content of a trial"),
    ("predictions.csv", cell(1, 0, 30), "row numbers repeat or are not in 0 to 29"),
    ("predictions.csv", cell(1, 0, -1), "row numbers repeat or are not in 0 to 29"),
    ("predictions.csv", cell(1, 0, 29), "row numbers repeat or are not in 0 to 29"),
    ("predictions.csv", cell(1, 0, 5.5), "not the content of a trial"),
    ("predictions.csv", cell(1, 1, 7), "a label is neither 0 nor 1"),
    ("predictions.csv", cell(1, 1, -1), "a label is neither 0 nor 1"),
    ("predictions.csv", cell(1, 1, 0), "predictions.csv gives"),
    ("predictions.csv", cell(2, 2, "nan"), "a probability is not between 0 and 1"),
    ("predictions.csv", cell(2, 2, ""), "a probability is not between 0 and 1"),
    ("predictions.csv", cell(2, 3, 1.0001), "a probability is not between 0 and 1"),
    ("predictions.csv", cell(2, 3, "-0.1"), "a probability is not between 0 and 1"),
    ("predictions.csv", cell(2, 3, "inf"), "a probability is not between 0 and 1"),
    ("predictions.csv", cell(2, 2, "high"), "not the content of a trial"),
    ("predictions.csv", cell(6, 2, 0.6), "predictions.csv gives"),
]


@pytest.mark.parametrize(
    ("name", "change", "says"), FORGERIES, ids=[f"{i} {f[2][:30]}" for i, f in enumerate(FORGERIES)]
)
def test_forged_trial_is_detected_and_not_used_or_imported(store, tmp_path, name, change, says):
    trial = forge(store, name, change)
    (fault,) = trial.damage()[:1]
    assert says in fault
    assert fault.startswith(
        (name, "metrics.json", "is in the", WEIGHTS, "environment", "predictions")
    )
    if "embedding" not in says:
        with pytest.raises(LabError, match=r"gc --damaged` removes it"):
            store.find(CONFIG, FINGERPRINT)
    code, out, err = run("trials", "--store", store.root, "verify")
    assert (code, out.splitlines()[-1]) == (1, "0 trials are sound")
    assert err.startswith(f"next: labrnn trials --store {store.root} gc --damaged")
    assert f"{trial.folder}: {fault}" in out
    code, out, err = run("trials", "--store", tmp_path / "other", "import", store.root)
    assert (code, out) == (1, "1 not copied\n")
    assert fault.split(": ")[-1] in err
    assert not list((tmp_path / "other").glob("*/*/DONE"))
    assert run("trials", "--store", store.root, "gc", "--damaged", "--yes")[0] == 0
    assert not trial.folder.exists()


def test_rounded_values_are_not_damage(store):
    """Probabilities near one half, of 1 and of 0 keep classes and losses within bounds."""
    assert Trial(store.root / FINGERPRINT / KEY).damage() == []


def test_probability_of_one_half_may_be_either_class(store):
    """A stored 0.5 may be a probability slightly above one half."""

    def change(cells):
        cells[4][3] = "0.5000"
        return cells

    assert forge(store, "predictions.csv", change).damage() == []


def test_certain_but_wrong_prediction_allows_a_larger_loss(store):
    def certain(cells):
        label = int(cells[6][1])
        cells[6][3] = f"{1 - label:.4f}"
        return cells

    forge(store, "predictions.csv", certain)
    trial = forge(store, "metrics.json", at("last", "loss", value=50.0))
    assert trial.damage() == []
    for loss in (1.0, 500.0):
        (fault,) = forge(store, "metrics.json", at("last", "loss", value=loss)).damage()
        assert "loss of `last`" in fault


def test_dropped_duplicates_leave_fewer_rows(tmp_path):
    config = CONFIG.replace(duplicates="drop")
    store = Store(tmp_path / "trials")
    trial = write(store, config)
    stored = json.loads(trial.read("trial.json"))
    stored["data"]["reviews"] = 35
    text = json.dumps(stored)
    (trial.folder / "trial.json").write_text(text)
    digests = trial.digests | {"trial.json": hashlib.sha256(text.encode()).hexdigest()}
    (trial.folder / "DONE").write_text(json.dumps(digests))
    assert Trial(trial.folder).damage() == []
    assert store.find(config, FINGERPRINT)


def test_non_finite_weights_are_damage(store):
    from safetensors.numpy import load, save

    trial = Trial(store.root / FINGERPRINT / KEY)
    weights = load(trial.read(WEIGHTS))
    weights["bias"][1] = np.nan
    raw = save(weights)
    (trial.folder / WEIGHTS).write_bytes(raw)
    digests = trial.digests | {WEIGHTS: hashlib.sha256(raw).hexdigest()}
    (trial.folder / "DONE").write_text(json.dumps(digests))
    assert Trial(trial.folder).damage() == [f"{WEIGHTS}: bias is not finite"]


def test_trial_in_the_folder_of_another_key_is_not_used(store):
    other = CONFIG.replace(seed=1)
    shutil.copytree(store.root / FINGERPRINT / KEY, store.root / FINGERPRINT / trial_key(other))
    with pytest.raises(LabError, match=f"is in the wrong folder; it belongs in .*{KEY}"):
        store.find(other, FINGERPRINT)
    assert store.find(CONFIG, FINGERPRINT).key == KEY


def test_sound_trial_on_a_shelf_replaces_a_damaged_one(store, tmp_path):
    shelf = shutil.copytree(store.root, tmp_path / "shelf")
    forge(store, "metrics.json", at("best", "accuracy", value=1.0))
    assert Store(store.root, [shelf]).find(CONFIG, FINGERPRINT).folder.is_relative_to(shelf)


def test_the_trials_of_the_repository_are_sound(tmp_path):
    store = Store(tmp_path / "none", shelves=[PROJECT / "reports" / "full"])
    found = list(store.places())
    assert len(found) >= 167
    assert [(t.key, faults) for t in found if (faults := t.damage())] == []


# Pipes, devices, links


@pytest.mark.parametrize("name", ["DONE", *TEXTS, WEIGHTS, MARK, "epoch"])
@pytest.mark.parametrize("kind", ["pipe", "zero", "folder", "huge", "loop"])
def test_non_regular_or_huge_files_are_not_read(store, name, kind):
    path = store.root / FINGERPRINT / KEY / name
    if name == MARK:
        path = store.root / MARK
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.touch()
        os.truncate(path, 1 << 40)
    code, out, _ = run("trials", "--store", store.root, "verify")
    if name in (MARK, "epoch"):
        assert code == 0
    else:
        assert (code, out.splitlines()[-1]) == (1, "0 trials are sound")
        if name == WEIGHTS:
            assert store.find(CONFIG, FINGERPRINT)
        else:
            with pytest.raises(LabError, match=r"is missing or not a regular file|stored SHA-256"):
                store.find(CONFIG, FINGERPRINT)
    assert run("trials", "--store", store.root)[0] == 0
    if kind == "huge":
        return
    before = tree(store.root)
    run("trials", "--store", store.root, "gc", "--damaged", "--yes")
    assert tree(store.root) == before


# Values kept beside the trials

KEPT = sorted((PROJECT / "reports" / "full" / "descriptions").glob("*/*-*.json"))


def kept_value(kind):
    """Return a kept value of the repository, adapted to the reviews of the synthetic trials."""
    path = next(path for path in KEPT if path.name.startswith(kind))
    value = json.loads(path.read_bytes())["value"]
    if kind == "data":
        value["facts"] |= {"fingerprint": FINGERPRINT, "rows": 30}
        value["facts"] |= {"positives": 15, "negatives": 15}
    return value, path.name


MALFORMED = [
    *[(kind, lambda value, v=v: v) for kind in kept.KINDS for v in ([], {}, "x", 7, None, [[]])],
    *[("data", at("facts", "rows", value=v)) for v in (31337, "30", None, -1, 30.5)],
    ("data", at("facts", "fingerprint", value="f" * 16)),
    ("data", at("kept_share", value=2.0)),
    ("data", at("cut", value=float("nan"))),
    ("data", at("splits", "test", value=[1])),
    ("data", at("word_counts", value=[[1, 2], [1]])),
    ("data", at("lengths", "all words", value=[])),
    ("data", at("frequent", 0, value=["the", "many", True])),
    ("data", dropped("lengths")),
    ("baselines", at("labels", 0, value="7e")),
    ("baselines", at("labels", 1, value="no")),
    ("baselines", at("repeated", value="00")),
    ("baselines", at("models", value=[])),
    ("baselines", at("models", 0, "margins", value=["00"])),
    ("baselines", at("models", 0, "margins", 1, value="")),
    ("insight", at("mistakes", 0, "label", value=2)),
    ("insight", at("pairs", 0, value=[0.1])),
    ("insight", at("lengths", value=["long"])),
    ("models", at("gates", "histogram", value=[])),
    ("models", dropped("words", "GRU", "reach")),
    ("reader", at("words", value=[])),
    ("reader", at("weights", value="AAAA")),
    ("reader", at("weights", value="no base64")),
    ("reader", at("review", value=["one"])),
    ("steps", at("5", value=[])),
    ("steps", at("5", 0, value=float("nan"))),
    ("steps", at("five", value=[0.7])),
]


@pytest.mark.parametrize(
    ("kind", "change"), MALFORMED, ids=[f"{i} {kind}" for i, (kind, _) in enumerate(MALFORMED)]
)
def test_malformed_description_is_not_used_or_imported(store, tmp_path, kind, change):
    value, name = kept_value(kind)
    made = change(value)
    value = value if made is None and change.__name__ == "change" else made
    path = store.root / FINGERPRINT / name
    path.write_bytes(kept.pack(value))
    assert store.recall(FINGERPRINT, name) is None
    assert store.kept_digests(FINGERPRINT) == {}
    code, out, _ = run("trials", "--store", store.root, "verify")
    assert (code, out.startswith(f"{path}: ")) == (1, True)
    code, out, err = run("trials", "--store", tmp_path / "other", "import", store.root)
    assert (code, out) == (1, "1 not copied, 1 copied\n")
    assert err.startswith(f"{path}: ")
    store.keep(FINGERPRINT, name, kept_value(kind)[0])  # computed again
    assert store.recall(FINGERPRINT, name) == kept_value(kind)[0]


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_kept_values_of_the_repository_are_sound(path):
    assert kept.unpack(path)[1] is None
    assert Store(path.parents[1]).recall(path.parent.name, path.name)


def test_import_does_not_replace_kept_values(store, tmp_path):
    mine, name = kept_value("data")
    theirs = mine | {"vocabulary_size": 31337}
    other = Store(tmp_path / "other")
    write(other)
    store.keep(FINGERPRINT, name, mine)
    other.keep(FINGERPRINT, name, theirs)
    other.keep(FINGERPRINT, "notes-0123456789abcdef.json", [1])
    before = (store.root / FINGERPRINT / name).stat().st_ino
    assert run("trials", "--store", store.root, "import", other.root)[0] == 0
    assert store.recall(FINGERPRINT, name) == mine
    assert (store.root / FINGERPRINT / name).stat().st_ino == before
    assert store.recall(FINGERPRINT, "notes-0123456789abcdef.json") == [1]
    store.keep(FINGERPRINT, name, theirs)
    assert store.recall(FINGERPRINT, name) == mine


def test_kept_digests_match_recalled_values(store, tmp_path):
    names = [f"other-000000000000000{n}.json" for n in range(3)]
    shelf = Store(tmp_path / "shelf")
    for name in names[:2]:
        shelf.keep(FINGERPRINT, name, [1])
    both = Store(store.root, [shelf.root])
    first = both.kept_digests(FINGERPRINT)
    assert first.keys() == {*names[:2]}
    store.keep(FINGERPRINT, names[0], [2])
    (shelf.root / FINGERPRINT / names[1]).write_text("{}")
    second = both.kept_digests(FINGERPRINT)
    assert second.keys() == {names[0]}
    assert second[names[0]] != first[names[0]]
    shelf.keep(FINGERPRINT, names[0], [3])  # the root has precedence
    assert both.kept_digests(FINGERPRINT) == second


def test_arrays_are_stored_as_little_endian_hex():
    digits = kept.hex_of(np.array([1, 258, -1]), np.int16)
    assert digits == "01000201ffff"
    assert kept.array_of(digits, np.int16).tolist() == [1, 258, -1]
