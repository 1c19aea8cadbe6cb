"""The run store: one folder per training run, which is either complete or missing.

    <root>/labrnn-store             marks the folder as a store; `trials gc` needs it
    <root>/<data fingerprint>/<key>/
        trial.json        configuration, fingerprint, format
        history.json      one entry per epoch
        metrics.json      test metrics of the best and of the last epoch
        predictions.csv   test reviews: row, label, probability of positive (best, last)
        environment.json  versions, device, seconds, commit
        model.safetensors weights of the best epoch; copies may omit it
        DONE              digests of the files above, written last

Beside the trials are `.partial` (one folder per run in training), `.locks`, `.logs`, and derived
data (`<kind>-<digest>.json`, see `kept`).
"""

import json
import os
import re
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import wraps
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from labrnn.errors import LabError
from labrnn.files import make_folder, publish_folder, replace_file
from labrnn.folders import PROJECT, absolute
from labrnn.trials import kept
from labrnn.trials.ours import KEPT, MARK, TENSORS, discard, foreign_path, inside, is_file, ours
from labrnn.trials.tables import DESCRIPTIONS, TRIALS, opened
from labrnn.trials.trial import (
    CHANGED,
    CODE_VERSION,
    FORMAT,
    MOST_WEIGHTS,
    WEIGHTS,
    Trial,
    UnreadableError,
    content_of,
    dump,
    predictions_csv,
    sha256,
    trial_key,
)


def _writes(method):
    """Decorate a method that writes to the store: an OSError becomes a LabError."""

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
    """Trials under a root folder, and in read-only folders.

    Args:
        root: folder for new trials.
        shelves: read-only folders, stores or tables.
    """

    def __init__(self, root, shelves=()):
        self.root, self.shelves = _absolute(root), [_absolute(s) for s in shelves]
        self.logs = self.root / ".logs"
        self._tables = {
            root: opened(root) for root in (self.root, *self.shelves) if is_file(root / TRIALS)
        }
        # Folders of derived data, the root's first.
        self._keepers = [
            root / DESCRIPTIONS if root in self._tables else root
            for root in (self.root, *self.shelves)
        ]

    # Reading

    def find(self, config, fingerprint):
        """Return the finished trial of a configuration on some reviews, or None.

        Its files except the weights are compared with their digests and with each other.

        Raises:
            LabError: the trial is damaged, unreadable, or of another version.
        """
        faults = []
        for root in (self.root, *self.shelves):
            place = fingerprint, trial_key(config)
            tables = self._tables.get(root)
            trial = tables.trial(*place) if tables else Trial(root.joinpath(*place))
            try:
                if not trial.finished:
                    continue
                if not (found := trial.damage(weights=False)):
                    return trial
                faults.append(f"{trial.folder}: {'; '.join(found)}; {trial.cure}")
            except LabError as error:
                faults.append(str(error))
        if faults:
            raise LabError(faults[0])
        return None

    def places(self):
        """Yield a `Trial` for every folder of a trial, finished or not, the root's first."""
        for root in (self.root, *self.shelves):
            if root in self._tables:
                yield from self._tables[root].trials()
            else:
                for data in _subfolders(root):
                    yield from map(Trial, _subfolders(data))

    def trials(self):
        """Yield all finished trials; a trial in several folders is yielded once."""
        seen = set()
        for trial in self.places():
            name = (trial.fingerprint, trial.key)
            with suppress(UnreadableError):
                if trial.finished and name not in seen:
                    seen.add(name)
                    yield trial

    # Derived data beside the trials

    def recall(self, fingerprint, name):
        """Return the derived data with this name for some reviews; None if missing or damaged."""
        for root in self._keepers:
            if (value := kept.unpack(root / fingerprint / name)[0]) is not None:
                return value
        return None

    @_writes
    def keep(self, fingerprint, name, value):
        """Store plain values as derived data of some reviews; an undamaged file stays."""
        path = self.root / fingerprint / name
        with self.claim(fingerprint, path.stem) as mine:  # else another process does it
            if mine and kept.unpack(path)[0] is None:
                replace_file(path, kept.pack(value))

    def kept(self, fingerprint):
        """Yield path, value and fault of each file of derived data for some reviews."""
        for path in (path for root in self._keepers for path in inside(root / fingerprint)):
            if (match := KEPT.fullmatch(path.name)) and not match[2]:
                try:
                    yield path, *kept.unpack(path)
                except UnreadableError as error:
                    yield path, None, str(error).removeprefix(f"{path}: ")

    def kept_digests(self, fingerprint):
        """Return name -> digest of the values that `recall` returns for some reviews."""
        digests = {}
        for path, value, fault in self.kept(fingerprint):
            if not fault:
                digests.setdefault(path.name, kept.digest(value))
        return digests

    def damaged(self):
        """Yield path and fault of every damaged file of derived data, the root's first."""
        data = {folder.name for root in self._keepers for folder in _subfolders(root)}
        for path, _, fault in (found for name in sorted(data) for found in self.kept(name)):
            if fault:
                yield path, fault

    def copy_kept(self, fingerprint, keep):
        """Call `keep` with name and value of each file of derived data for some reviews.

        Returns:
            list of (path, fault) of damaged files, which are not copied.
        """
        faults = []
        for path, value, fault in self.kept(fingerprint):
            if fault:
                faults.append((path, fault))
            else:
                keep(path.name, value)
        return faults

    # Writing

    def _mark(self):
        """Make the root and mark it as a store, unless it contains other files.

        Raises:
            LabError: the root contains tables.
        """
        if self.root in self._tables:
            raise LabError(
                f"{self.root}: contains tables of trials, which are read-only; name another folder "
                f"with LABRNN_STORE, or import them: `labrnn trials import {self.root}`"
            )
        if not is_file(self.root / MARK) and not foreign_path(self.root):
            make_folder(self.root)
            (self.root / MARK).touch()

    @contextmanager
    def claim(self, fingerprint, key):
        """Lock a trial while it is written; yield False if another process holds the lock.

        The lock is released when its process ends in any way.
        """
        lock = self._lock(fingerprint, key)
        try:
            yield lock is not None
        finally:
            if lock:
                with suppress(OSError):  # Windows cannot delete an open file; `remove` will
                    os.unlink(lock.lock_file)
                lock.release()

    @_writes
    def _lock(self, fingerprint, key):
        self._mark()
        make_folder(self.root / fingerprint)
        folder = self.root / fingerprint / ".locks"
        folder.mkdir(exist_ok=True)
        return locked(folder / f"{key}.lock")

    def held(self, fingerprint, key):
        """Whether another process is writing the trial."""
        with self.claim(fingerprint, key) as mine:
            return not mine

    @_writes
    def open_log(self):
        """Open a new log file in `.logs`."""
        self._mark()
        self.logs.mkdir(parents=True, exist_ok=True)
        path = self.logs / f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
        return open(path, "a", encoding="utf-8", buffering=1)

    def _partial(self, fingerprint, key):
        return self.root / fingerprint / ".partial" / key

    def _states(self, config, fingerprint):
        """Return the folders of an interrupted run's states, newest first."""
        states = inside(self._partial(fingerprint, trial_key(config)))
        return sorted(filter(epoch_of, states), key=epoch_of, reverse=True)

    def epochs_kept(self, config, fingerprint):
        """Return the number of epochs that a resumed run does not repeat."""
        return max(map(epoch_of, self._states(config, fingerprint)), default=0)

    def load_progress(self, config, fingerprint):
        """Return the newest undamaged state of an interrupted run, a `TrainingState`, or None.

        Raises:
            UnreadableError: a file cannot be read.
        """
        from safetensors.torch import load

        from labrnn.network.training import TrainingState

        for folder in self._states(config, fingerprint):
            names = ("DONE", "history.json", *TENSORS.values())
            done, *files = [content_of(folder / name, MOST_WEIGHTS) for name in names]
            try:
                if list(map(sha256, files)) != json.loads(done):
                    raise ValueError(CHANGED)
                return TrainingState(json.loads(files[0]), *map(load, files[1:]))
            except Exception:  # damaged in some way: use an older state, or none
                discard(folder)
        return None

    @_writes
    def save_progress(self, config, fingerprint, progress):
        """Store a run's `TrainingState` after an epoch, then remove the earlier one."""
        from safetensors.torch import save

        partial = self._partial(fingerprint, trial_key(config))
        epoch = len(progress.history)
        files = {"history.json": dump(progress.history)}
        files |= {file: save(getattr(progress, name)) for name, file in TENSORS.items()}
        files["DONE"] = dump(list(map(sha256, files.values())))
        aside, final = partial / f"{epoch}.writing", partial / f"epoch-{epoch}"
        self._publish(files, aside, final)
        for old in inside(partial):
            if old != final:
                discard(old)

    @_writes
    def save(self, config, corpus, progress, tested, environment):
        """Store a finished run and return its `Trial`; the folder appears atomically."""
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
        predictions = pd.DataFrame({"row": rows, "label": corpus.labels[rows]})
        for which, (_, probabilities) in tested.items():
            predictions[which] = _rounded(probabilities)
        files = {
            "environment.json": dump(environment),
            "history.json": dump(progress.history),
            "metrics.json": dump({which: metrics for which, (metrics, _) in tested.items()}),
            WEIGHTS: save(progress.best),
            "predictions.csv": predictions_csv(predictions),
            "trial.json": dump(stored),
        }
        digests = {name: sha256(content) for name, content in files.items()}
        return self._place(corpus.fingerprint, trial_key(config), files, digests)

    def _place(self, fingerprint, key, files, digests):
        """Publish a trial's folder atomically; a finished trial there stays."""
        partial, trial = self._partial(fingerprint, key), Trial(self.root / fingerprint / key)
        if not trial.finished:
            files = files | {"DONE": dump(digests)}
            self._publish(files, partial / "done.writing", trial.folder)
        discard(partial)
        return trial

    def _publish(self, files, aside, final):
        """Write a folder aside and rename it to its place, where an incomplete one is removed."""
        self._mark()
        make_folder(aside.parent.parent)
        make_folder(aside.parent)
        discard(aside)
        os.mkdir(aside)
        if os.path.lexists(final) and not ours(final):
            raise LabError(f"{final}: contains files that labrnn did not write; move it elsewhere")
        discard(final)
        publish_folder(files, aside, final)

    @_writes
    def take(self, trial):
        """Copy a trial of another store to this one, with its weights if it has them.

        Returns:
            `copied`; `there already`; `differs`, if this store's trial has other figures and
            stays; `busy`, if another process trains it.

        Raises:
            LabError: the trial is damaged or of another version.
        """
        if faults := trial.damage():
            raise LabError(f"{trial.folder}: {'; '.join(faults)}; not copied")
        weights = trial.has_weights and trial.digests[WEIGHTS]
        with self.claim(trial.fingerprint, trial.key) as held:
            mine = Trial(self.root / trial.fingerprint / trial.key)
            if mine.finished and (mine.history, mine.metrics) != (trial.history, trial.metrics):
                return "differs"
            # A copy from tables has no digest of the weights, so it stays without them.
            if mine.finished and (mine.has_weights or mine.digests.get(WEIGHTS) != weights):
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


def default_store(root=""):
    """Return the store at `root`, else at LABRNN_STORE, else at `trials/` of the project.

    The committed runs of the full lab are its read-only store.
    """
    root = root or os.environ.get("LABRNN_STORE") or PROJECT / "trials"
    return Store(root, shelves=[PROJECT / "reports" / "full"])


def _absolute(folder):
    """Return the absolute folder with links resolved; links inside a store are not followed."""
    try:
        return Path(os.path.realpath(absolute(folder)))
    except (RuntimeError, ValueError) as error:
        raise LabError(f"{folder}: no such folder for trials ({error}); write it in full") from None


def locked(path):
    """Acquire and return the lock on a file; None if another process holds it."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def _subfolders(folder):
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if e.name[0] != "." and os.path.isdir(e.path)]
        return [Path(folder, name) for name in sorted(names)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LabError(
            f"{folder}: cannot be listed ({error.strerror}); correct the path of the "
            "store (LABRNN_STORE) or its permissions"
        ) from None


def epoch_of(state):
    """Return the epoch of a state's folder; 0 for other folders."""
    match = re.fullmatch(r"epoch-(\d+)", state.name)
    return int(match[1]) if match else 0


def _rounded(probabilities):
    """Round to four decimals, but never across one half: predicted classes stay the same."""
    rounded = probabilities.round(4)
    return np.where(probabilities > 0.5, np.maximum(rounded, 0.5001), np.minimum(rounded, 0.5))
