"""Stored trials as CSV and Parquet tables.

    <folder>/trials.csv           one row per trial: configuration, metrics, environment, digest
    <folder>/history.csv          one row per epoch of a trial
    <folder>/predictions.parquet  one row per test review: label, and for each trial the probability
                                  of `positive` after the best and the last epoch, half precision
    <folder>/descriptions/        derived data, as `store.keep` writes it

`docs/trials.md` describes each column. `Tables` reads the files as a read-only store.
"""

import csv
import hashlib
import io
import json
import os
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import ValidationError

from labrnn.config import TrialConfig
from labrnn.errors import LabError
from labrnn.files import make_folder, read_file, replace_file
from labrnn.network.registry import count_parameters
from labrnn.trials.kept import pack
from labrnn.trials.ours import MARK, is_file
from labrnn.trials.trial import (
    CHANGED,
    HEX,
    MOST_WEIGHTS,
    TEXTS,
    Data,
    Environment,
    HistoryEntry,
    Metrics,
    Trial,
    dump,
    first_fault,
    predictions_csv,
    sha256,
)

TRIALS, HISTORY, PREDICTIONS = "trials.csv", "history.csv", "predictions.parquet"
DESCRIPTIONS = "descriptions"
CHECKPOINTS = ("best", "last")


@dataclass(frozen=True, eq=False)
class TableTrial(Trial):
    """A trial in tables; the content of its files is computed from its rows."""

    tables: "Tables"

    has_weights = False

    def __reduce__(self):
        # Without the tables (100 MB): a process that receives trials opens them once itself.
        return _reopened, (self.tables.folder, self.fingerprint, self.key)

    @property
    def finished(self):
        return (self.fingerprint, self.key) in self.tables.lines

    @cached_property
    def _texts(self):
        try:
            return _files(*self.tables.lines[self.fingerprint, self.key])
        except (ValueError, LookupError) as error:
            reason = first_fault(error) if isinstance(error, ValidationError) else error
            where = f"{self.tables.folder / TRIALS}: {self.key}"
            raise LabError(f"{where}: not a trial ({reason}); export it again") from None

    def _file(self, name):
        return predictions_csv(self.predictions) if name == "predictions.csv" else self._texts[name]

    @cached_property
    def digests(self):
        return {name: sha256(self._file(name)) for name in TEXTS}

    @cached_property
    def _fault(self):
        line, epochs = self.tables.lines[self.fingerprint, self.key]
        return "" if line.get("digest") == _digest(line, epochs, self.predictions) else CHANGED

    @property
    def cure(self):
        return f"export the trials to {self.tables.folder} again"

    @property
    def identity(self):
        return self.tables.lines[self.fingerprint, self.key][0]["digest"]

    def _examine(self, name):
        return (b"" if self._fault else self._file(name)), self._fault

    def _changed(self, weights):
        return [f"{self.key} {self._fault}"] if self._fault else []

    @cached_property
    def predictions(self):
        """One row per test review: row, label, best, last (probabilities of `positive`)."""
        return self.tables.predictions(self.fingerprint, self.key)


class Tables:
    """The trials in the tables of a folder, as `write` writes them.

    Args:
        folder: folder of the tables.

    Raises:
        LabError: a file is missing or lacks columns; raised when a table is read.
    """

    def __init__(self, folder):
        self.folder = Path(folder)

    @cached_property
    def lines(self):
        """(fingerprint, key) -> (row of `trials.csv`, rows of `history.csv`), dicts of texts."""
        found = {(line["fingerprint"], line["key"]): (line, []) for line in self._read(TRIALS)}
        for name in (name for names in found for name in names):
            if not re.fullmatch(HEX, name):
                raise LabError(
                    f"{self.folder / TRIALS}: {name!r} is not a fingerprint or key (16 of the "
                    "digits 0-9a-f); export the trials again"
                )
        for line in self._read(HISTORY):
            name = line.pop("fingerprint"), line.pop("key")
            if name in found:  # else an export stopped before it wrote `trials.csv`
                found[name][1].append(line)
        return found

    def _read(self, name):
        path = self.folder / name
        try:
            text = io.StringIO(read_file(path).decode(), newline="")
            reader = csv.DictReader(text, strict=True)
            lines, columns = list(reader), {*(reader.fieldnames or ())}
        except (OSError, ValueError, csv.Error) as error:
            raise LabError(f"{path}: cannot be read ({error}); export the trials again") from None
        if not {"fingerprint", "key"} <= columns or any(None in line for line in lines):
            raise LabError(
                f"{path}: no fingerprint and key, or too many cells; export the trials again"
            )
        return lines

    @cached_property
    def _predictions(self):
        path = self.folder / PREDICTIONS
        try:
            table = pd.read_parquet(io.BytesIO(read_file(path, MOST_WEIGHTS)))
            return table.astype({"fingerprint": "category"})  # compared once per trial
        except Exception as error:  # pyarrow raises many kinds
            message = " ".join(str(error).split())[:200]
            raise LabError(f"{path}: cannot be read ({message}); export the trials again") from None

    def predictions(self, fingerprint, key):
        """Return a trial's DataFrame of row, label, best, last; LabError if there is none."""
        if not all(f"{key}_{which}" in self._predictions for which in CHECKPOINTS):
            raise LabError(f"{self.folder / PREDICTIONS}: no columns {key}_...; export it again")
        return _of(self._predictions, fingerprint, key)

    def trial(self, fingerprint, key):
        """Return the trial with this name; it is not `finished` if the tables do not contain it."""
        name = fingerprint, key
        return self._trials.get(name) or TableTrial(self.folder.joinpath(*name), self)

    def trials(self):
        """Yield all trials in the order of the table."""
        yield from self._trials.values()

    @cached_property
    def _trials(self):
        return {name: TableTrial(self.folder.joinpath(*name), self) for name in self.lines}


def opened(folder):
    """Return the `Tables` of a folder, cached until its files change."""
    paths = (folder / name for name in (TRIALS, HISTORY, PREDICTIONS))
    files = [os.stat(path) for path in paths if path.exists()]
    return _opened(folder, tuple((file.st_ino, file.st_size, file.st_mtime_ns) for file in files))


@lru_cache(maxsize=4)
def _opened(folder, _):
    return Tables(folder)


def _reopened(folder, fingerprint, key):
    return opened(folder).trial(fingerprint, key)


def keep(folder, fingerprint, name, value):
    """Store derived data in a folder of tables; an existing file stays."""
    path = Path(folder, DESCRIPTIONS, fingerprint, name)
    if not path.exists():
        make_folder(path.parent)
        replace_file(path, pack(value))


def write(folder, trials):
    """Add trials to the tables of a folder; trials already there stay unchanged.

    Args:
        folder: folder of the tables, made if missing.
        trials: finished `Trial`s.

    Returns:
        the number of trials added.

    Raises:
        LabError: a trial is damaged, or the folder has files that are not such tables.
    """
    folder = Path(folder)
    there = Tables(folder)
    _refuse_foreign(there)
    make_folder(folder)
    found = dict(there._trials) if (folder / TRIALS).exists() else {}
    before = len(found)
    for trial in trials:
        found.setdefault((trial.fingerprint, trial.key), trial)
    ordered = sorted(found.values(), key=_order)
    table, lines = _prediction_table(ordered), [_line(trial) for trial in ordered]
    for trial, line in zip(ordered, lines, strict=True):
        epochs = [_texts(epoch) for epoch in trial.history]
        predictions = _of(table, trial.fingerprint, trial.key)
        line["digest"] = _digest(_texts(line), epochs, predictions)
    # `trials.csv` comes last: rows of the other tables without a trial in it are ignored.
    replace_file(folder / PREDICTIONS, table.to_parquet(index=False, compression="zstd"))
    names = {trial: {"fingerprint": trial.fingerprint, "key": trial.key} for trial in ordered}
    history = [name | epoch for trial, name in names.items() for epoch in trial.history]
    replace_file(folder / HISTORY, _csv(history))
    replace_file(folder / TRIALS, _csv(lines))
    return len(found) - before


def _refuse_foreign(tables):
    """Raise a LabError if the folder is a store, or has other files with the tables' names."""
    folder = tables.folder
    if is_file(folder / MARK):
        raise LabError(f"{folder}: is a store of trials; name another folder for their tables")
    for name in (TRIALS, HISTORY, PREDICTIONS):
        try:
            if os.path.lexists(folder / name):
                _ = tables._predictions if name == PREDICTIONS else tables._read(name)
        except LabError as error:
            raise LabError(
                f"{folder / name}: is not a table of trials and would be replaced; move it, or name "
                f"another folder ({error})"
            ) from None


def _order(trial):
    config = trial.config
    return trial.fingerprint, config.cell, config.difference(), config.seed


def _line(trial):
    """Return a trial's row of `trials.csv`, without its digest."""
    config, environment = trial.config, dict(trial.environment)
    line = {name: trial.stored[name] for name in ("fingerprint", "format", "code_version")}
    line |= {"key": trial.key, **config.model_dump(mode="json")}
    line |= {"vocabulary_size": trial.vocabulary_size}
    line |= {"parameters": count_parameters(config, trial.vocabulary_size)}
    for prefix, values in (
        ("best", trial.metrics["best"]),
        ("last", trial.metrics["last"]),
        ("data", {n: v for n, v in trial.data.items() if n != "fingerprint"}),
        ("version", environment.pop("versions", {})),
    ):
        line |= {f"{prefix}_{name}": value for name, value in values.items()}
    return line | dict(sorted(environment.items()))


def _texts(line):
    """Convert a row to texts, as it is read back; None becomes an empty text."""
    return {name: "" if value is None else str(value) for name, value in line.items()}


def _below(line, prefix):
    """Return the values of the columns with a prefix, by name without the prefix."""
    prefix += "_"
    return {n.removeprefix(prefix): v for n, v in line.items() if v and n.startswith(prefix)}


def _files(line, epochs):
    """Return a trial's files except the predictions, from its rows of texts."""

    def values(model, texts):
        known = {name: texts[name] for name in model.model_fields if texts.get(name)}
        return model.model_validate_strings(known, strict=False).model_dump(
            mode="json", exclude_unset=True
        )

    fingerprint = {"fingerprint": line["fingerprint"]}
    config = {name: line[name] for name in TrialConfig.model_fields if line.get(name)}
    stored = {
        "half_precision": True,
        **{name: int(line[name]) for name in ("format", "code_version", "vocabulary_size")},
        **fingerprint,
        "config": TrialConfig.model_validate_strings(config).model_dump(mode="json"),
        "data": values(Data, _below(line, "data") | fingerprint),
    }
    return {
        "trial.json": dump(stored),
        "history.json": dump([values(HistoryEntry, epoch) for epoch in epochs]),
        "metrics.json": dump(
            {which: values(Metrics, _below(line, which)) for which in CHECKPOINTS}
        ),
        "environment.json": dump(values(Environment, line | {"versions": _below(line, "version")})),
    }


def _digest(line, epochs, predictions):
    """Return the digest of a trial's content in all tables."""
    texts = {n: text for n, text in sorted(line.items()) if text and n != "digest"}
    epochs = [{n: text for n, text in epoch.items() if text} for epoch in epochs]
    digest = hashlib.sha256(json.dumps([texts, epochs]).encode())
    for name, kind in (("row", "<i4"), ("label", "i1"), ("best", "<f2"), ("last", "<f2")):
        digest.update(predictions[name].to_numpy().astype(kind).tobytes())
    return digest.hexdigest()


def _of(table, fingerprint, key):
    """Return the predictions of one trial: row, label, best, last, with four decimals."""
    best, last = (table[f"{key}_{which}"].to_numpy() for which in CHECKPOINTS)
    mine = ~np.isnan(best) & (table["fingerprint"] == fingerprint).to_numpy()
    found = {name: table[name].to_numpy()[mine].astype(int) for name in ("row", "label")}
    found |= {"best": best[mine].astype(float).round(4), "last": last[mine].astype(float).round(4)}
    return pd.DataFrame(found)


def _csv(lines):
    """Return rows as CSV bytes; a column that a row lacks is empty."""
    return pd.DataFrame(map(_texts, lines)).to_csv(index=False, lineterminator="\n").encode()


def _half(probabilities):
    """Round to half precision, but never across one half: predicted classes stay the same."""
    half = np.asarray(probabilities, np.float16)
    above = np.nextafter(np.float16(0.5), np.float16(1))
    right = np.asarray(probabilities) > 0.5
    return np.where(right, np.maximum(half, above), np.minimum(half, np.float16(0.5)))


def _prediction_table(trials):
    """Return a DataFrame of all predictions: one row per test review, two columns per trial."""
    names = ["fingerprint", "row"]
    tests = [t.predictions[["row", "label"]].assign(fingerprint=t.fingerprint) for t in trials]
    reviews = pd.concat(tests).drop_duplicates(names)[[*names, "label"]]
    places = pd.MultiIndex.from_frame(reviews[names])
    columns = dict(reviews.astype({"row": np.int32, "label": np.int8}).reset_index(drop=True))
    for trial, test in zip(trials, tests, strict=True):
        at = places.get_indexer(pd.MultiIndex.from_frame(test[names]))
        if (columns["label"].to_numpy()[at] != test["label"].to_numpy()).any():
            raise LabError(
                f"{trial.folder}: its test reviews have other labels than those of other trials on "
                f"the same reviews; remove the wrong trials; `labrnn trials` lists all"
            )
        for which in CHECKPOINTS:
            name = f"{trial.key}_{which}"
            column = columns.setdefault(name, np.full(len(reviews), np.nan, np.float16))
            column[at] = _half(trial.predictions[which])
    return pd.DataFrame(columns)
