"""The store of trials: one folder a training, written aside, complete or not there.

    <root>/<data fingerprint>/<key>/
        trial.json        configuration, fingerprint, format
        history.json      one entry an epoch
        metrics.json      test metrics of the best and of the last epoch
        predictions.csv   test reviews: row, label, probability of positive (best, last)
        environment.json  versions, device, seconds, commit
        model.safetensors weights of the best epoch; may be left out of a copy
        DONE              written last: a digest of each file above
"""

import csv
import hashlib
import io
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from labrnn.config import TrialConfig, validated
from labrnn.errors import LabError

PROJECT = Path(__file__).resolve().parent.parent
FORMAT = 1
# Raised by hand when a change to the training changes its figures: older trials stay, unused.
CODE_VERSION = 1
WEIGHTS = "model.safetensors"


def trial_key(config):
    """The name of a trial's folder: a digest of what decides its figures.

    Only fields that differ from their defaults count, so that a new field with a neutral default
    leaves the stored trials valid; paths, devices and workers do not count.
    """
    identity = {"code": CODE_VERSION, **config.model_dump(mode="json", exclude_defaults=True)}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Trial:
    """A finished trial on disk, read when asked."""

    folder: Path

    @property
    def key(self):
        return self.folder.name

    @property
    def fingerprint(self):
        return self.folder.parent.name

    def _json(self, name):
        try:
            return json.loads((self.folder / name).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise LabError(
                f"{self.folder / name}: cannot be read ({error}); "
                "`labrnn trials verify` lists damaged trials, `labrnn trials gc` removes them"
            ) from None

    @cached_property
    def _stored(self):
        stored = self._json("trial.json")
        if stored.get("format") != FORMAT:
            raise LabError(
                f"{self.folder}: written in store format {stored.get('format')}, this version "
                f"reads {FORMAT}; use the labrnn that wrote it"
            )
        return stored

    @property
    def config(self):
        return validated(TrialConfig, self._stored["config"], self.folder / "trial.json")

    @property
    def data(self):
        """Facts of the source: name, fingerprint, counts."""
        return self._stored["data"]

    @property
    def vocabulary_size(self):
        return self._stored["vocabulary_size"]

    @cached_property
    def history(self):
        return self._json("history.json")

    @cached_property
    def metrics(self):
        return self._json("metrics.json")

    @cached_property
    def environment(self):
        return self._json("environment.json")

    @cached_property
    def predictions(self):
        """Test reviews, one a line: row, label, best, last (probabilities of `positive`)."""
        return pd.read_csv(self.folder / "predictions.csv")

    def weights(self):
        """The model's tensors after the best epoch.

        Raises:
            LabError: this copy was made without weights.
        """
        from safetensors.torch import load_file

        path = self.folder / WEIGHTS
        if not path.exists():
            raise LabError(f"{path}: this copy of the trial has no weights; train it again")
        return load_file(path)

    def damage(self):
        """What `DONE` and the files disagree on, a list of sentences; empty if sound."""
        try:
            digests = json.loads((self.folder / "DONE").read_text("utf-8"))
        except (OSError, ValueError) as error:
            return [f"DONE cannot be read: {error}"]
        faults = []
        for name, digest in digests.items():
            path = self.folder / name
            if not path.exists():
                if name != WEIGHTS:
                    faults.append(f"{name} is missing")
            elif _digest(path) != digest:
                faults.append(f"{name} has changed since it was written")
        return faults


def _digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Store:
    """Trials under a root folder; further folders are read, never written.

    Args:
        root: where new trials go.
        shelves: folders with trials that came with the repository.
    """

    def __init__(self, root, shelves=()):
        self.root, self.shelves = Path(root), [Path(s) for s in shelves]

    def find(self, config, fingerprint):
        """The finished trial of a configuration on some data, or None."""
        for root in (self.root, *self.shelves):
            folder = root / fingerprint / trial_key(config)
            if (folder / "DONE").exists():
                return Trial(folder)
        return None

    def trials(self):
        """All finished trials, those of the root first."""
        seen = set()
        for root in (self.root, *self.shelves):
            for done in sorted(root.glob("*/*/DONE")):
                name = (done.parent.parent.name, done.parent.name)
                if name not in seen:
                    seen.add(name)
                    yield Trial(done.parent)

    def partial(self, config, fingerprint):
        """The folder of an unfinished training, made if needed."""
        folder = self.root / fingerprint / ".partial" / trial_key(config)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextmanager
    def claim(self, config, fingerprint):
        """Hold a trial for the time of its training; yields False if another process holds it.

        The lock goes with its process, however that ends.
        """
        folder = self.root / fingerprint / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{trial_key(config)}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def save_progress(self, config, fingerprint, progress):
        """Keep a training's state after an epoch; the state before is removed afterwards."""
        from safetensors.torch import save_file

        partial = self.partial(config, fingerprint)
        epoch = len(progress.history)
        aside, final = partial / f"{epoch}.writing", partial / f"epoch-{epoch}"
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(final, ignore_errors=True)
        aside.mkdir()
        for name in ("last", "best", "optimizer"):
            save_file(getattr(progress, name), aside / f"{name}.safetensors")
        _write(aside / "history.json", _dump(progress.history))
        os.replace(aside, final)
        for old in partial.iterdir():
            if old != final:
                shutil.rmtree(old, ignore_errors=True)

    def load_progress(self, config, fingerprint):
        """The newest state of an interrupted training, or None."""
        from safetensors.torch import load_file

        from labrnn.training import Progress

        states = self.partial(config, fingerprint).glob("epoch-*")
        for folder in sorted(states, key=lambda f: -int(f.name.split("-")[1])):
            try:
                history = json.loads((folder / "history.json").read_text("utf-8"))
                parts = [load_file(folder / f"{n}.safetensors") for n in ("last", "best", "optimizer")]
            except Exception:  # a damaged state of whatever kind is passed over, an older one serves
                shutil.rmtree(folder, ignore_errors=True)
                continue
            return Progress(history, *parts)
        return None

    def save(self, config, corpus, progress, tested, environment):
        """Turn a finished training into a stored trial; the folder appears whole or not at all."""
        from safetensors.torch import save_file

        fingerprint = corpus.fingerprint
        aside = self.partial(config, fingerprint) / "done.writing"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        stored = {"format": FORMAT, "code_version": CODE_VERSION, "fingerprint": fingerprint,
                  "config": config.model_dump(mode="json"), "data": corpus.facts,
                  "vocabulary_size": corpus.vocabulary_size}
        metrics = {which: metrics for which, (metrics, _) in tested.items()}
        _write(aside / "trial.json", _dump(stored))
        _write(aside / "history.json", _dump(progress.history))
        _write(aside / "metrics.json", _dump(metrics))
        _write(aside / "environment.json", _dump(environment))
        rows = corpus.rows["test"]
        _write(aside / "predictions.csv", _predictions(rows, corpus.labels[rows], tested))
        save_file(progress.best, aside / WEIGHTS)
        digests = {path.name: _digest(path) for path in sorted(aside.iterdir())}
        _write(aside / "DONE", _dump(digests))
        final = self.root / fingerprint / trial_key(config)
        if not (final / "DONE").exists():
            shutil.rmtree(final, ignore_errors=True)
            os.rename(aside, final)
        shutil.rmtree(aside.parent, ignore_errors=True)
        return Trial(final)


def default_store():
    """`LABRNN_STORE`, else `trials/` of the project; the full lab's committed results beside it."""
    root = os.environ.get("LABRNN_STORE") or PROJECT / "trials"
    return Store(root, shelves=[PROJECT / "reports" / "full" / "trials"])


def _predictions(rows, labels, tested):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "label", "best", "last"])
    best, last = (np.char.mod("%.4f", _rounded(tested[which][1])) for which in ("best", "last"))
    writer.writerows(zip(rows.tolist(), labels.tolist(), best, last))
    return text.getvalue()


def _rounded(probabilities):
    """Four decimals on the same side of one half, so that the verdicts stay as they were."""
    rounded = probabilities.round(4)
    return np.where(probabilities > 0.5, np.maximum(rounded, 0.5001), np.minimum(rounded, 0.5))


def _dump(value):
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def _write(path, text):
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
