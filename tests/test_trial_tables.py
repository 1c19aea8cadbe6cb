"""Trials as tables: they are restored exactly, and changes are detected."""

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from tiny import TINY, train, write_reviews

from labrnn.errors import LabError
from labrnn.trials import tables
from labrnn.trials.store import Store
from labrnn.trials.tables import HISTORY, PREDICTIONS, TRIALS, Tables, write
from labrnn.trials.trial import Trial

FILES = (TRIALS, HISTORY, PREDICTIONS)
CONFIGS = [TINY.replace(epochs=2, seed=seed) for seed in (3, 4)] + [
    TINY.replace(epochs=1, cell="gru")
]


@pytest.fixture(scope="module")
def trained(reviews, tmp_path_factory):
    """Three trials in a store."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABRNN_CACHE", str(folder / "cache"))
        data, store = write_reviews(reviews, folder / "reviews.csv"), Store(folder / "trials")
        return [train(config, data, store) for config in CONFIGS]


@pytest.fixture
def folder(trained, tmp_path):
    write(tmp_path / "tables", trained)
    return tmp_path / "tables"


def found(folder):
    return {trial.key: trial for trial in Tables(folder).trials()}


def test_trials_round_trip_through_tables(trained, folder):
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    for trial in trained:
        copy = found(folder)[trial.key]
        assert copy.damage() == []
        for name in ("config", "history", "metrics", "environment", "data", "vocabulary_size"):
            assert getattr(copy, name) == getattr(trial, name), name
        mine, theirs = copy.predictions, trial.predictions
        assert mine[["row", "label"]].equals(theirs[["row", "label"]])
        for which in ("best", "last"):
            assert ((mine[which] > 0.5) == (theirs[which] > 0.5)).all()
            # Half precision has 11 bits, so rounding below 1 changes at most 2 ** -12; four
            # decimals add at most half of 1e-4.
            assert np.abs(mine[which] - theirs[which]).max() <= 2**-12 + 0.5e-4 + 1e-9


def test_half_precision_changes_no_prediction():
    probabilities = np.array([0.5, 0.5001, 0.50012, 0.4999, 0.49999, 1.0, 0.0])
    half = tables._half(probabilities)
    assert half.dtype == np.float16
    assert ((half.astype(float).round(4) > 0.5) == (probabilities > 0.5)).all()
    again = tables._half(half.astype(float).round(4))
    assert (again == half).all()


def test_tables_are_readable_with_pandas(trained, folder):
    trials, history = pd.read_csv(folder / TRIALS), pd.read_csv(folder / HISTORY)
    assert {"cell", "optim", "n_layers", "seed", "best_accuracy", "parameters"} <= {*trials}
    assert len(trials) == 3
    assert len(history) == 2 + 2 + 1
    predictions = pd.read_parquet(folder / PREDICTIONS)
    assert {str(kind) for kind in predictions.dtypes[3:]} == {"float16"}
    assert [c.removesuffix("_best") for c in predictions if c.endswith("_best")] == list(trials.key)
    line = trials.set_index("key").loc[trained[0].key]
    correct = (predictions[f"{trained[0].key}_best"] > 0.5) == predictions["label"]
    assert correct.mean() == pytest.approx(line.best_accuracy)


def test_second_export_adds_new_trials_and_keeps_old_ones(trained, tmp_path):
    folder = tmp_path / "tables"
    assert write(folder, trained[:2]) == 2
    first = {trial.key: trial.digests for trial in Tables(folder).trials()}
    assert write(folder, trained[1:]) == 1
    assert {k: found(folder)[k].digests for k in first} == first
    whole = {name: (folder / name).read_bytes() for name in FILES}
    assert write(folder, trained) == 0
    assert whole == {name: (folder / name).read_bytes() for name in FILES}


@pytest.mark.parametrize("name", [TRIALS, HISTORY])
def test_changed_value_is_detected(trained, folder, name):
    path, key = folder / name, trained[0].key
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    column = "best_accuracy" if name == TRIALS else "train_loss"
    row = table.index[table["key"] == key][0]
    table.loc[row, column] = "0.25"
    table.to_csv(path, index=False)
    assert any(
        "does not match its stored SHA-256" in fault for fault in found(folder)[key].damage()
    )
    with pytest.raises(LabError, match="does not match its stored SHA-256"):
        _ = found(folder)[key].metrics
    assert all(t.damage() == [] for k, t in found(folder).items() if k != key)


def test_changed_prediction_is_detected(trained, folder):
    key = trained[0].key
    table = pd.read_parquet(folder / PREDICTIONS)
    table.loc[5, f"{key}_last"] = 1 - table.loc[5, f"{key}_last"]
    table.to_parquet(folder / PREDICTIONS)
    assert any(
        "does not match its stored SHA-256" in fault for fault in found(folder)[key].damage()
    )
    with pytest.raises(LabError, match=r"predictions\.csv"):
        found(folder)[key].read("predictions.csv")


@pytest.mark.parametrize("name", [TRIALS, HISTORY, PREDICTIONS])
@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe\0\0", None], ids=repr)
def test_invalid_table_is_reported_in_one_message(folder, name, content):
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(LabError, match=name):
        _ = [(trial.history, trial.predictions) for trial in Tables(folder).trials()]


def test_a_damaged_trial_is_not_exported(trained, tmp_path):
    copy = tmp_path / trained[0].fingerprint / trained[0].key
    shutil.copytree(trained[0].folder, copy)
    values = json.loads((copy / "metrics.json").read_bytes())
    values["best"]["accuracy"] = 0.99
    (copy / "metrics.json").write_text(json.dumps(values))
    with pytest.raises(LabError, match=r"metrics\.json"):
        write(tmp_path / "tables", [Trial(copy)])
    assert not (tmp_path / "tables" / TRIALS).exists()


def test_tables_are_a_read_only_store(trained, folder, tmp_path):
    shelf = Store(tmp_path / "own", [folder])
    for trial in trained:
        assert shelf.find(trial.config, trial.fingerprint).metrics == trial.metrics
    assert len(list(shelf.trials())) == 3
    with pytest.raises(LabError, match="read-only"):
        Store(folder).open_log()


def test_import_restores_sound_trials_from_tables(trained, folder, tmp_path):
    store = Store(tmp_path / "own")
    assert {store.take(trial) for trial in Store(folder).trials()} == {"copied"}
    for trial in trained:
        copy = Trial(store.root / trial.fingerprint / trial.key)
        assert copy.damage() == []
        assert (copy.history, copy.metrics) == (trial.history, trial.metrics)
        assert store.take(trial) == "there already"
    again = tmp_path / "again"
    write(again, store.trials())
    assert all(t.damage() == [] for t in Tables(again).trials())


def forge(folder, column, value):
    """Change a cell of the first trial and its digest; return the trial."""
    path = folder / TRIALS
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[0, column] = value
    line = table.to_dict("records")[0]
    name = line["fingerprint"], line["key"]
    epochs, predictions = Tables(folder).lines[name][1], Tables(folder).predictions(*name)
    table.loc[0, "digest"] = tables._digest(line, epochs, predictions)
    table.to_csv(path, index=False)
    return Tables(folder).trial(*name)


def test_trial_under_another_key_is_detected(folder):
    assert any("belongs in" in fault for fault in forge(folder, "lr", "0.5").damage())


@pytest.mark.parametrize(
    ("column", "value"),
    [("seconds", "soon"), ("lr", "low"), ("best_accuracy", "2.5"), ("vocabulary_size", "many")],
)
def test_forged_cell_is_reported_in_one_message(folder, column, value):
    trial = forge(folder, column, value)
    (fault,) = trial.damage()
    assert f"{TRIALS}: {trial.key}: not a trial (" in fault
    with pytest.raises(LabError, match="export it again"):
        _ = trial.metrics


@pytest.mark.parametrize("name", FILES)
def test_foreign_file_is_not_replaced(trained, tmp_path, name):
    (tmp_path / name).write_bytes(b"url,visited\nmine,1\n")
    with pytest.raises(LabError, match=f"{name}: is not a table of trials and would be replaced"):
        write(tmp_path, trained)
    assert os.listdir(tmp_path) == [name]


def test_tables_are_not_written_into_a_store(trained):
    with pytest.raises(LabError, match="is a store of trials; name another folder"):
        write(trained[0].folder.parents[1], trained)


@pytest.mark.parametrize("fingerprint", ["..", "con", "a\x1b[31mb"])
def test_paths_as_names_in_tables_are_refused(trained, folder, fingerprint):
    for name in (TRIALS, HISTORY):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace(trained[0].fingerprint, fingerprint))
    with pytest.raises(LabError, match="is not a fingerprint or key"):
        list(Tables(folder).trials())


def test_differing_labels_for_the_same_reviews_are_refused(trained):
    """Each trial is consistent, but together they cannot be correct."""
    first, second, *_ = trained
    inverted = second.predictions.assign(label=1 - second.predictions["label"])
    other = SimpleNamespace(
        folder=second.folder, fingerprint=second.fingerprint, key="0" * 16, predictions=inverted
    )
    with pytest.raises(LabError, match="other labels than those of other trials"):
        tables._prediction_table([first, other])
