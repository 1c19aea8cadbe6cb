"""One trial on disk: its name, its files, and whether they are what was written."""

import hashlib
import io
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from labrnn.config import TrialConfig, validated
from labrnn.errors import LabError

FORMAT = 1
# Raised by hand when a change to the training changes its figures: older trials stay, unused.
CODE_VERSION = 1
WEIGHTS = "model.safetensors"
TEXTS = ("trial.json", "history.json", "metrics.json", "environment.json", "predictions.csv")

_EPOCH = {"epoch": int, "train_loss": float, "valid_loss": float, "valid_accuracy": float}
_METRICS = {"epoch": int, "accuracy": float, "loss": float}
# What must be in a file at least, whoever wrote it: a list stands for one or more of its kind.
SHAPES = {
    "trial.json": {
        "format": int,
        "code_version": int,
        "fingerprint": str,
        "config": dict,
        "data": {"name": str},
        "vocabulary_size": int,
    },
    "history.json": [_EPOCH],
    "metrics.json": {"best": _METRICS, "last": _METRICS},
    "environment.json": {"device": str, "seconds": float, "finished": str},
}


def fits(value, shape):
    """Whether a plain value has a shape of `SHAPES`."""
    if isinstance(shape, dict):
        named = isinstance(value, dict) and value.keys() >= shape.keys()
        return named and all(fits(value[name], part) for name, part in shape.items())
    if isinstance(shape, list):
        return isinstance(value, list) and value != [] and all(fits(v, shape[0]) for v in value)
    return isinstance(value, (int, float) if shape is float else shape)


def trial_key(config, code=CODE_VERSION):
    """The name of a trial's folder: a digest of what decides its figures.

    Only fields that differ from their defaults count, so that a new field with a neutral default
    leaves the stored trials valid; paths, devices and workers do not count.
    """
    identity = {"code": code, **config.model_dump(mode="json", exclude_defaults=True)}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Trial:
    """A trial on disk. A file is read when asked for and compared with its digest in `DONE`:
    what has changed since it was written ends in a `LabError`, never in a figure.
    """

    folder: Path

    @property
    def key(self):
        return self.folder.name

    @property
    def fingerprint(self):
        return self.folder.parent.name

    @property
    def finished(self):
        return (self.folder / "DONE").exists()

    @property
    def has_weights(self):
        return (self.folder / WEIGHTS).exists()

    @cached_property
    def digests(self):
        """File name -> digest, as `DONE` tells; empty where it tells nothing."""
        try:
            digests = json.loads((self.folder / "DONE").read_bytes())
        except (OSError, ValueError, RecursionError):
            digests = {}
        return digests if isinstance(digests, dict) else {}

    def check_format(self):
        """Raises LabError for a trial that another version of labrnn wrote in its own way."""
        try:
            written = json.loads((self.folder / "trial.json").read_bytes())["format"]
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return  # damaged, whatever its format
        if isinstance(written, int) and written != FORMAT:
            raise LabError(
                f"{self.folder}: written in store format {written}, this version reads {FORMAT}; "
                "nothing is changed there: use the labrnn that wrote it, or name another store "
                "with LABRNN_STORE"
            )

    def _examine(self, name):
        """A file's bytes, and what is wrong with it: nothing if these are the bytes written."""
        try:
            if not (self.folder / name).is_file():  # a pipe or a device would never end
                return b"", "is not there, or no file"
            content = (self.folder / name).read_bytes()
        except OSError as error:
            return b"", f"cannot be read ({error.strerror})"
        sound = hashlib.sha256(content).hexdigest() == self.digests.get(name)
        return content, "" if sound else "is not what was written"

    def read(self, name):
        """A file's bytes, or LabError if they are not those written."""
        content, fault = self._examine(name)
        if fault:
            self.check_format()
            raise LabError(
                f"{self.folder / name}: {fault}; `labrnn trials verify` lists damaged trials, "
                "`labrnn trials gc --damaged` removes them, to be trained or imported again"
            )
        return content

    def _parsed(self, name, parse):
        """What a file says: its bytes are right, so a fault here was in it from the beginning."""
        content = self.read(name)
        try:
            return parse(content)
        except Exception as error:
            raise LabError(
                f"{self.folder / name}: holds something else than a trial's ({str(error)[:200]}); "
                "`labrnn trials gc --damaged` removes it"
            ) from None

    def _json(self, name):
        def parse(content):
            value = json.loads(content)
            if not fits(value, SHAPES[name]):
                raise ValueError("names or values are missing")
            return value

        return self._parsed(name, parse)

    @cached_property
    def _stored(self):
        try:
            stored = self._json("trial.json")
        except LabError:
            self.check_format()
            raise
        if stored["format"] != FORMAT:
            self.check_format()
        return stored

    @cached_property
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
        import pandas as pd

        def parse(content):
            table = pd.read_csv(io.BytesIO(content))
            return table[["row", "label", "best", "last"]].astype(
                {"row": int, "label": int, "best": float, "last": float}
            )

        return self._parsed("predictions.csv", parse)

    def weights(self):
        """The model's tensors after the best epoch.

        Raises:
            LabError: this copy was made without weights, or they are damaged.
        """
        from safetensors.torch import load

        if not self.has_weights:
            raise LabError(f"{self.folder}: this copy of the trial has no weights; train it again")
        return self._parsed(WEIGHTS, load)

    def row(self):
        """The trial in a line of a table: plain values by name."""
        if not self.finished:
            raise LabError(f"{self.folder}: no finished trial (no DONE)")
        config, best, how = self.config, self.metrics["best"], self.environment
        return {
            "key": self.key,
            "data": self.fingerprint,
            "cell": config.cell,
            "seed": config.seed,
            "accuracy": best["accuracy"],
            "loss": round(best["loss"], 6),
            "epoch": best["epoch"],
            "seconds": how["seconds"],
            "finished": how["finished"],
            "weights": self.has_weights,
            "configuration": config.difference(),
        }

    def damage(self):
        """What `DONE` and the files disagree on, a list of sentences; empty if sound.

        Raises:
            LabError: another version of labrnn wrote it; it cannot be judged here.
        """
        self.check_format()
        if not self.finished:
            return ["DONE is missing: no trial, or a copy that was broken off"]
        names = (*TEXTS, WEIGHTS) if self.has_weights else TEXTS
        faults = [f"{name} {fault}" for name in names if (fault := self._examine(name)[1])]
        faults += [f"DONE names a strange file, {n!r}" for n in {*self.digests} - {*TEXTS, WEIGHTS}]
        return faults or self._strangeness()

    def _strangeness(self):
        """What is wrong with a trial whose files are as written."""
        try:
            right = trial_key(self.config, self._stored["code_version"])
            place = (self._stored["fingerprint"], right)
            _ = self.history, self.metrics, self.environment
        except LabError as error:
            return [str(error).removeprefix(f"{self.folder}/")]
        if place != (self.fingerprint, self.key):
            return [f"lies in the wrong folder, it belongs in {'/'.join(place)}"]
        return []
