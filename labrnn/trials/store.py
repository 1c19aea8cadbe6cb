"""The store of trials: one folder a training, written aside, complete or not there.

    <root>/<data fingerprint>/<key>/
        trial.json        configuration, fingerprint, format
        history.json      one entry an epoch
        metrics.json      test metrics of the best and of the last epoch
        predictions.csv   test reviews: row, label, probability of positive (best, last)
        environment.json  versions, device, seconds, commit
        model.safetensors weights of the best epoch; may be left out of a copy
        DONE              written last: a digest of each file above

Beside the trials lie `.partial` (trainings under way, a folder each), `.locks`, `.logs`, and what
was computed of the reviews themselves (`<kind>-<digest>.json`), with a digest of its own inside.
"""

import csv
import hashlib
import io
import json
import os
import re
import shutil
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import wraps
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from labrnn.errors import LabError
from labrnn.files import replace_file, write_file
from labrnn.trials.trial import CODE_VERSION, FORMAT, WEIGHTS, Trial, trial_key

PROJECT = Path(__file__).resolve().parents[2]
# A training's state after an epoch, by attribute of `Progress`.
TENSORS = {name: f"{name}.safetensors" for name in ("last", "best", "optimizer")}


def _writes(method):
    """A store that cannot be written is the user's to cure: OSError becomes LabError."""

    @wraps(method)
    def guarded(self, *args, **kwargs):
        try:
            return method(self, *args, **kwargs)
        except OSError as error:
            raise LabError(
                f"{self.root}: the store cannot be written ({error.strerror or error}); make room, "
                "or name another folder with LABRNN_STORE; what is finished is kept"
            ) from None

    return guarded


class Store:
    """Trials under a root folder; further folders are read, never written.

    Args:
        root: where new trials go.
        shelves: folders with trials that came with the repository.
    """

    def __init__(self, root, shelves=()):
        self.root, self.shelves = _absolute(root), [_absolute(s) for s in shelves]
        self.logs = self.root / ".logs"

    def find(self, config, fingerprint):
        """The finished trial of a configuration on some data, or None.

        Raises:
            LabError: another version of labrnn wrote it.
        """
        for root in (self.root, *self.shelves):
            trial = Trial(root / fingerprint / trial_key(config))
            if trial.finished:
                trial.check_format()
                return trial
        return None

    def places(self):
        """Whatever lies where a trial should, as a `Trial`, finished or not; the root's first."""
        for root in (self.root, *self.shelves):
            for data in _subfolders(root):
                yield from map(Trial, _subfolders(data))

    def recall(self, fingerprint, name):
        """What was kept beside the trials of some data under this name; None if nothing sound."""
        for root in (self.root, *self.shelves):
            if (value := _kept(root / fingerprint / name)) is not None:
                return value
        return None

    @_writes
    def keep(self, fingerprint, name, value):
        """Keep plain values beside the trials of some data."""
        folder = self.root / fingerprint
        folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"sha256": _digest(value), "value": value}, ensure_ascii=False)
        replace_file(folder / name, (content + "\n").encode())

    def kept(self, fingerprint):
        """Paths of what is kept beside the trials of some data, in the root folder."""
        return sorted((self.root / fingerprint).glob("*-*.json"))

    def damaged(self):
        """What is kept beside trials and is not as it was written, in the root and the shelves."""
        folders = (f for root in (self.root, *self.shelves) for f in _subfolders(root))
        return [p for f in folders for p in sorted(f.glob("*-*.json")) if _kept(p) is None]

    def take_descriptions(self, other, fingerprints):
        """Copy what another store keeps beside the trials of some data, as far as it is sound."""
        for fingerprint in fingerprints:
            for path in other.kept(fingerprint):
                if (value := _kept(path)) is not None:
                    self.keep(fingerprint, path.name, value)

    def trials(self):
        """All finished trials; one that lies in several folders comes once."""
        seen = set()
        for trial in self.places():
            name = (trial.fingerprint, trial.key)
            if trial.finished and name not in seen:
                seen.add(name)
                yield trial

    @contextmanager
    def claim(self, fingerprint, key):
        """Hold a trial while it is written; yields False if another process holds it.

        The lock goes with its process, however that ends.
        """
        lock = self._lock(fingerprint, key)
        try:
            yield lock is not None
        finally:
            if lock:
                with suppress(OSError):  # Windows keeps an open file: the rest is for `clean`
                    os.unlink(lock.lock_file)
                lock.release()

    @_writes
    def _lock(self, fingerprint, key):
        folder = self.root / fingerprint / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock

    def held(self, fingerprint, key):
        """Whether another process writes the trial at this moment."""
        with self.claim(fingerprint, key) as mine:
            return not mine

    @_writes
    def open_log(self):
        """A new file in `.logs` for the lines of a run, open for writing."""
        self.logs.mkdir(parents=True, exist_ok=True)
        path = self.logs / f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
        return open(path, "a", encoding="utf-8", buffering=1)

    def _partial(self, fingerprint, key):
        return self.root / fingerprint / ".partial" / key

    def _states(self, config, fingerprint):
        """Folders of an interrupted training's epochs, the newest first."""
        states = self._partial(fingerprint, trial_key(config)).glob("epoch-*")
        return sorted(states, key=_epoch, reverse=True)

    def epochs_kept(self, config, fingerprint):
        """Epochs that an interrupted training need not repeat."""
        return max(map(_epoch, self._states(config, fingerprint)), default=0)

    def load_progress(self, config, fingerprint):
        """The newest state of an interrupted training, or None."""
        from safetensors.torch import load

        from labrnn.network.training import Progress

        for folder in self._states(config, fingerprint):
            try:
                digests = json.loads((folder / "DONE").read_bytes())
                files = [
                    (folder / name).read_bytes() for name in ("history.json", *TENSORS.values())
                ]
                if [hashlib.sha256(content).hexdigest() for content in files] != digests:
                    raise ValueError("not what was written")
                return Progress(json.loads(files[0]), *map(load, files[1:]))
            except Exception:  # damaged in whatever way: an older state serves, or none
                shutil.rmtree(folder, ignore_errors=True)
        return None

    @_writes
    def save_progress(self, config, fingerprint, progress):
        """Keep a training's state after an epoch; the state before is removed afterwards."""
        from safetensors.torch import save

        partial = self._partial(fingerprint, trial_key(config))
        epoch = len(progress.history)
        aside, final = _emptied(partial / f"{epoch}.writing"), partial / f"epoch-{epoch}"
        files = {"history.json": _dump(progress.history)}
        files |= {file: save(getattr(progress, name)) for name, file in TENSORS.items()}
        for name, content in files.items():
            write_file(aside / name, content)
        write_file(aside / "DONE", _dump([hashlib.sha256(c).hexdigest() for c in files.values()]))
        shutil.rmtree(final, ignore_errors=True)
        os.replace(aside, final)
        for old in partial.iterdir():
            if old != final:
                shutil.rmtree(old, ignore_errors=True)

    @_writes
    def save(self, config, corpus, progress, tested, environment):
        """Turn a finished training into a stored trial; the folder appears whole or not at all."""
        from safetensors.torch import save

        stored = {
            "format": FORMAT,
            "code_version": CODE_VERSION,
            "fingerprint": corpus.fingerprint,
            "config": config.model_dump(mode="json"),
            "data": corpus.facts,
            "vocabulary_size": corpus.vocabulary_size,
        }
        rows = corpus.rows["test"]
        files = {
            "environment.json": _dump(environment),
            "history.json": _dump(progress.history),
            "metrics.json": _dump({which: metrics for which, (metrics, _) in tested.items()}),
            WEIGHTS: save(progress.best),
            "predictions.csv": _predictions(rows, corpus.labels[rows], tested),
            "trial.json": _dump(stored),
        }
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        return self._place(corpus.fingerprint, trial_key(config), files, digests)

    def _place(self, fingerprint, key, files, digests):
        """Write a trial's files aside and let them appear at once; what is finished there stays."""
        partial, final = self._partial(fingerprint, key), self.root / fingerprint / key
        aside = _emptied(partial / "done.writing")
        for name, content in files.items():
            write_file(aside / name, content)
        write_file(aside / "DONE", _dump(digests))
        if not (final / "DONE").exists():
            shutil.rmtree(final, ignore_errors=True)
            os.rename(aside, final)
        shutil.rmtree(partial, ignore_errors=True)
        return Trial(final)

    @_writes
    def take(self, trial, weights=True):
        """Copy a trial of another store to this one, with its weights or without.

        Returns:
            `copied`; `there already`; `differs` if a trial of the same configuration with other
            figures is there, which stays; `busy` if it is being trained.

        Raises:
            LabError: the trial is damaged, or another version's.
        """
        if faults := trial.damage():
            raise LabError(f"{trial.folder}: {'; '.join(faults)}; not copied")
        weights = weights and trial.has_weights
        with self.claim(trial.fingerprint, trial.key) as held:
            mine = Trial(self.root / trial.fingerprint / trial.key)
            if mine.finished and mine.digests != trial.digests:
                return "differs"
            if mine.finished and (mine.has_weights or not weights):
                return "there already"
            if not held:
                return "busy"
            if mine.finished:
                replace_file(mine.folder / WEIGHTS, trial.read(WEIGHTS))
            else:
                names = [name for name in trial.digests if weights or name != WEIGHTS]
                files = {name: trial.read(name) for name in names}
                self._place(mine.fingerprint, mine.key, files, trial.digests)
        return "copied"

    @_writes
    def clean(self, unfinished=False, damaged=False):
        """Remove what interrupted writing left and no process holds.

        Args:
            unfinished: also the epochs of interrupted trainings, which could go on from there.
            damaged: also damaged trials and broken copies.

        Returns:
            the paths removed.
        """
        removed = []
        for data in _subfolders(self.root):
            locks = {path.stem: path for path in (data / ".locks").glob("*.lock")}
            begun = [path.name for path in (data / ".partial").glob("*")]
            for key in sorted({*locks, *begun, *(path.name for path in _subfolders(data))}):
                with self.claim(data.name, key) as held:
                    if not held:
                        continue
                    stale = [*self._leftovers(Trial(data / key), unfinished, damaged)]
                    for path in stale:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
                    removed += stale
                if key in locks:  # went with the claim
                    removed.append(locks[key])
            stale = data.glob("*-*.json.*.writing")
            for path in [
                *stale,
                *(p for p in self.kept(data.name) if damaged and _kept(p) is None),
            ]:
                path.unlink()
                removed.append(path)
        return removed

    def _leftovers(self, trial, unfinished, damaged):
        partial = self._partial(trial.fingerprint, trial.key)
        yield from trial.folder.glob("*.writing")
        if partial.is_dir():
            wanted = any(partial.glob("epoch-*")) and not (unfinished or trial.finished)
            yield from partial.glob("*.writing") if wanted else [partial]
        if damaged and trial.folder.is_dir() and re.fullmatch("[0-9a-f]{16}", trial.key):
            with suppress(LabError):  # another version's trial is not ours to judge
                if trial.damage():
                    yield trial.folder


def default_store(root=""):
    """The root named, else `LABRNN_STORE`, else `trials/` of the project; the full lab's committed
    results beside it.
    """
    root = root or os.environ.get("LABRNN_STORE") or PROJECT / "trials"
    return Store(root, shelves=[PROJECT / "reports" / "full" / "trials"])


def _absolute(folder):
    try:
        return Path(folder).expanduser().absolute()
    except (RuntimeError, ValueError) as error:
        raise LabError(f"{folder}: no such folder for trials ({error}); write it in full") from None


def _digest(value):
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _kept(path):
    """The values of a file beside the trials; None if it is not as it was written."""
    try:
        stored = json.loads(path.read_bytes()) if path.is_file() else {}
        return stored["value"] if stored["sha256"] == _digest(stored["value"]) else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _subfolders(folder):
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if e.name[0] != "." and e.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LabError(
            f"{folder}: cannot be listed ({error.strerror}); correct the path of the "
            "store (LABRNN_STORE) or its permissions"
        ) from None
    return [Path(folder, name) for name in sorted(names)]


def _epoch(state):
    number = state.name.removeprefix("epoch-")
    return int(number) if number.isdecimal() else 0


def _emptied(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _predictions(rows, labels, tested):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "label", "best", "last"])
    best, last = (np.char.mod("%.4f", _rounded(tested[which][1])) for which in ("best", "last"))
    writer.writerows(zip(rows.tolist(), labels.tolist(), best, last, strict=True))
    return text.getvalue().encode()


def _rounded(probabilities):
    """Four decimals on the same side of one half, so that the verdicts stay as they were."""
    rounded = probabilities.round(4)
    return np.where(probabilities > 0.5, np.maximum(rounded, 0.5001), np.minimum(rounded, 0.5))


def _dump(value):
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()
