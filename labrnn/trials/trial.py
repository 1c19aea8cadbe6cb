"""A trial on disk: its name, its files, and checks of their digests and consistency."""

import errno
import hashlib
import io
import json
import math
import os
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from labrnn.config import TrialConfig, validated
from labrnn.errors import LabError
from labrnn.files import MOST_BYTES, read_file

FORMAT = 1
# Raise by hand if a change to the training changes figures; older trials are then not used.
CODE_VERSION = 1
WEIGHTS = "model.safetensors"
MOST_WEIGHTS = 1 << 32  # bytes; the largest model of the lab needs a tenth
TEXTS = ("trial.json", "history.json", "metrics.json", "environment.json", "predictions.csv")
HEX = "[0-9a-f]{16}"  # a fingerprint or a key
# Configuration values of older versions, and removed fields that had a neutral value too.
GONE = {"linear_path": (True,), "readout": ("mean",)}
NEUTRAL = GONE.keys() - TrialConfig.model_fields.keys()
# Faults of a whole file.
MISSING, CHANGED = "is missing or not a regular file", "does not match its stored SHA-256"

Share = Annotated[float, Field(ge=0, le=1)]
Loss = Annotated[float, Field(ge=0)]
Epoch = Annotated[int, Field(ge=1)]


class Plain(BaseModel):
    """A strict model of the fields that a file must have; numbers are finite."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Columns(Plain):
    """The fields that an export writes as columns, in this order; no others, and short texts."""

    model_config = ConfigDict(extra="forbid", str_max_length=1000)


class HistoryEntry(_Columns):
    epoch: Epoch
    train_loss: Loss
    train_accuracy: Share
    train_loss_batch_mean: Loss = 0.0
    train_accuracy_batch_mean: Share = 0.0
    valid_loss: Loss
    valid_accuracy: Share
    valid_loss_batch_mean: Loss = 0.0
    valid_accuracy_batch_mean: Share = 0.0
    seconds: float
    train_seconds: float


class Metrics(_Columns):
    epoch: Epoch
    loss: Loss
    accuracy: Share
    loss_batch_mean: Loss = 0.0
    accuracy_batch_mean: Share = 0.0


class _BestAndLast(_Columns):
    best: Metrics
    last: Metrics


class Environment(_Columns):
    device: str
    seconds: float
    finished: Annotated[str, AfterValidator(lambda text: datetime.fromisoformat(text) and text)]
    versions: dict[Annotated[str, Field(pattern="^[a-zA-Z0-9._-]+$")], str]
    commit: str
    python: str = ""
    platform: str = ""
    products: str = ""
    deterministic: bool = False
    clock: str = ""


class Data(_Columns):
    name: str
    fingerprint: str
    reviews: Annotated[int, Field(ge=1)]
    without_known_words: Annotated[int, Field(ge=0)] = 0


class _Stored(Plain):
    format: Literal[FORMAT]
    code_version: int
    fingerprint: str
    config: dict
    data: Data
    vocabulary_size: Annotated[int, Field(ge=2)]
    half_precision: bool = False  # of the predictions, if the trial is from tables


SHAPES = {
    "trial.json": TypeAdapter(_Stored),
    "history.json": TypeAdapter(Annotated[list[HistoryEntry], Field(min_length=1)]),
    "metrics.json": TypeAdapter(_BestAndLast),
    "environment.json": TypeAdapter(Environment),
}


# Errors that mean that no such regular file exists; after other errors it may exist.
NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.EFBIG, errno.ELOOP}


class UnreadableError(LabError):
    """Raised for a file that cannot be read now, and may or may not be damaged."""

    def __init__(self, path, error):
        super().__init__(
            f"{path}: cannot be read ({error.strerror or error}); nothing is changed there: correct "
            "its permissions or the disk, and try again"
        )


def content_of(path, most=MOST_BYTES):
    """Return the bytes of a regular file of at most `most` bytes; None if it does not exist.

    Raises:
        UnreadableError: the file cannot be read; it may be undamaged.
    """
    try:
        return read_file(path, most)
    except OSError as error:
        if error.errno in NO_FILE:
            return None
        raise UnreadableError(path, error) from None


def sha256(content):
    """Return the SHA-256 of bytes as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def read_plain(content):
    """Parse a JSON text; ValueError if a number is not finite."""

    def finite(text):
        if not math.isfinite(value := float(text)):
            raise ValueError(f"{text} is not a finite number")
        return value

    return json.loads(content, parse_float=finite, parse_constant=finite)


def removal(root):
    """Return the command that removes damaged trials and derived data from a store."""
    return f"labrnn trials --store {root} gc --damaged"


def first_fault(error):
    """Return place and message of the first fault in a pydantic error."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"


def trial_key(config, code=CODE_VERSION):
    """Return the name of a trial's folder: a digest of the configuration and the code version.

    Only fields that differ from their defaults enter it, so a new field with a neutral default
    leaves stored trials valid. Paths, devices and workers do not enter it.
    """
    identity = {"code": code, **config.model_dump(mode="json", exclude_defaults=True)}
    return sha256(json.dumps(identity, sort_keys=True).encode())[:16]


def dump(value):
    """Return plain values as the bytes of a JSON file."""
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def predictions_csv(table):
    """Return `predictions.csv` as bytes, from a DataFrame of row, label, best, last."""
    table = table[["row", "label", "best", "last"]]
    return table.to_csv(index=False, float_format="%.4f", lineterminator="\n").encode()


@dataclass(frozen=True)
class Trial:
    """A trial on disk. Files are read on demand and compared with their digests in `DONE`; reading
    a changed file raises a `LabError`.
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
        return self._there("DONE")

    @property
    def has_weights(self):
        return self._there(WEIGHTS)

    def _there(self, name):
        """Whether a path with this name exists, of any kind.

        Raises:
            UnreadableError: the folder cannot be read.
        """
        try:
            os.lstat(f"{self.folder}/{name}")
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise UnreadableError(self.folder / name, error) from None
        return True

    def _raw(self, name):
        """Return a file's bytes without a check, see `content_of`."""
        most = MOST_WEIGHTS if name == WEIGHTS else MOST_BYTES
        return content_of(f"{self.folder}/{name}", most)

    @cached_property
    def digests(self):
        """File name -> digest in `DONE`; empty if `DONE` is invalid."""
        try:
            digests = json.loads(self._raw("DONE") or b"{}")
        except (ValueError, RecursionError):
            digests = {}
        return digests if isinstance(digests, dict) else {}

    @property
    def identity(self):
        """A text that changes if any file of the trial changes."""
        return json.dumps(self.digests, sort_keys=True)

    def check_format(self):
        """Raise a LabError if a version of labrnn with another format or other options wrote it."""
        try:
            stored = json.loads(self._raw("trial.json") or b"")
            written, config = stored["format"], stored.get("config", {})
            gone = [f"{name} = {config[name]}" for name in GONE if config.get(name) in GONE[name]]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return  # damaged, so the format is unknown
        how = f"in store format {written}, this version reads {FORMAT}" if written != FORMAT else ""
        if gone:
            how = f"with options that this version does not have ({', '.join(gone)})"
        if how and isinstance(written, int):
            raise LabError(
                f"{self.folder}: written {how}; nothing is changed there;"
                " use the labrnn that wrote it, or name another store with LABRNN_STORE"
            )

    def _examine(self, name):
        """Return a file's bytes and its fault, which is empty if they match the digest."""
        content = self._raw(name)
        if content is None:
            return b"", MISSING
        return content, "" if sha256(content) == self.digests.get(name) else CHANGED

    @property
    def cure(self):
        """The advice in messages on a damaged trial."""
        return f"`{removal(self.folder.parents[1])}` removes it, to be trained or imported again"

    def read(self, name):
        """Return a file's bytes; LabError if they do not match the digest."""
        content, fault = self._examine(name)
        if fault:
            self.check_format()
            raise LabError(f"{self.folder / name}: {fault}; {self.cure}")
        return content

    def _parsed(self, name, parse):
        """Parse a file that matches its digest; LabError if the content is invalid."""
        content = self.read(name)
        try:
            return parse(content)
        except Exception as error:
            self.check_format()
            reason = first_fault(error) if isinstance(error, ValidationError) else str(error)
            raise LabError(
                f"{self.folder / name}: not the content of a trial ({reason[:200]}); {self.cure}"
            ) from None

    def _json(self, name):
        def parse(content):
            value = read_plain(content)
            SHAPES[name].validate_python(value)
            return value

        return self._parsed(name, parse)

    @cached_property
    def stored(self):
        return self._json("trial.json")

    @cached_property
    def config(self):
        stored = {
            name: value
            for name, value in self.stored["config"].items()
            if name not in NEUTRAL or value in GONE[name]
        }
        return validated(TrialConfig, stored, self.folder / "trial.json")

    @property
    def data(self):
        """Facts of the reviews: name, fingerprint, counts."""
        return self.stored["data"]

    @property
    def vocabulary_size(self):
        return self.stored["vocabulary_size"]

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
        """One row per test review: row, label, best, last (probabilities of `positive`)."""

        def parse(content):
            types = {"row": np.int64, "label": np.int64, "best": float, "last": float}
            table = pd.read_csv(io.BytesIO(content), dtype=types, usecols=[*types])[[*types]]
            if not table["label"].isin([0, 1]).all():
                raise ValueError("a label is neither 0 nor 1")
            if not table[["best", "last"]].stack().between(0, 1).all():
                raise ValueError("a probability is not between 0 and 1")
            return table

        return self._parsed("predictions.csv", parse)

    def weights(self):
        """Return the model's tensors after the best epoch, by name.

        Raises:
            LabError: this copy has no weights, or they are damaged.
        """
        from safetensors.torch import load

        if not self.has_weights:
            raise LabError(f"{self.folder}: this copy of the trial has no weights; train it again")
        return self._parsed(WEIGHTS, load)

    def row(self):
        """Return the trial as a row of `labrnn trials`: plain values by name."""
        if not self.finished:
            raise LabError(f"{self.folder}: not a finished trial (no DONE)")
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

    def damage(self, weights=True):
        """Compare the files with `DONE` and with each other.

        Args:
            weights: whether to check the weights, most of a trial's bytes.

        Returns:
            list of faults; empty for an undamaged trial.

        Raises:
            LabError: the trial is of another version, or unreadable (`UnreadableError`).
        """
        self.check_format()
        if not self.finished:
            return ["DONE is missing: the trial is incomplete"]
        weights = weights and self.has_weights
        if faults := self._changed(weights):
            return faults
        try:
            return [*self._contradictions(weights)]
        except UnreadableError:
            raise
        except LabError as error:
            return [" ".join(str(error).removeprefix(f"{self.folder}/").split())]

    def _changed(self, weights):
        """Return the faults of files that do not match their digests."""
        names = (*TEXTS, WEIGHTS) if weights else TEXTS
        faults = [f"{name} {fault}" for name in names if (fault := self._examine(name)[1])]
        strange = {*self.digests} - {*TEXTS, WEIGHTS}
        return faults + [f"DONE names an unknown file, {name!r}" for name in strange]

    def _contradictions(self, weights):
        """Yield contradictions between files that match their digests."""
        right = trial_key(self.config, self.stored["code_version"])
        if (place := (self.stored["fingerprint"], right)) != (self.fingerprint, self.key):
            yield f"is in the wrong folder; it belongs in {'/'.join(place)}"
        if self.data["fingerprint"] != self.fingerprint:
            found = self.data["fingerprint"]
            yield f"trial.json: fingerprint of its data is {found}, of its folder {self.fingerprint}"
        if [entry["epoch"] for entry in self.history] != [*range(1, self.config.epochs + 1)]:
            yield f"history.json: its epochs are not 1 to {self.config.epochs}"
        losses = [entry["valid_loss"] for entry in self.history]
        for which, epoch in (("best", losses.index(min(losses)) + 1), ("last", len(losses))):
            if (said := self.metrics[which]["epoch"]) != epoch:
                yield f"metrics.json: epoch of `{which}` is {said}, history.json gives {epoch}"
        said, seconds = self.environment["seconds"], sum(e["seconds"] for e in self.history)
        if abs(said - seconds) > 0.01:
            yield f"environment.json: seconds are {said}, history.json gives {seconds:.3f}"
        yield from self._predicted()
        if weights:
            yield from self._weighed()

    def _predicted(self):
        """Yield contradictions between the predictions and the configuration or metrics."""
        rows, reviews = self.predictions["row"].to_numpy(), self.data["reviews"]
        tested = math.ceil(math.ceil(reviews * 0.3) * (2 / 3))  # rounded as in `text.split_rows`
        if not 0 < len(rows) <= tested or (len(rows) < tested and self.config.duplicates == "keep"):
            yield f"predictions.csv: {len(rows)} rows, expected {tested} (of {reviews} reviews)"
            return
        if rows.min() < 0 or rows.max() >= reviews or np.bincount(rows).max() > 1:
            yield f"predictions.csv: row numbers repeat or are not in 0 to {reviews - 1}"
        positive = self.predictions["label"].to_numpy() == 1
        for which in ("best", "last"):
            probability, said = self.predictions[which].to_numpy(), self.metrics[which]
            hits = int(((probability > 0.5) == positive).sum())
            ties = int((probability == 0.5).sum())  # rounded probabilities, whose class is unknown
            accuracy = (hits - ties - 1e-6) / len(rows), (hits + ties + 1e-6) / len(rows)
            chances = np.where(positive, probability, 1 - probability)
            loss = _loss(chances, 2**-11 if self.stored.get("half_precision") else 0)
            for name, (low, high) in (("accuracy", accuracy), ("loss", loss)):
                if not low <= said[name] <= high:
                    yield (
                        f"metrics.json: {name} of `{which}` is {said[name]:.5f}, predictions.csv "
                        f"gives {low:.5f} to {high:.5f}"
                    )

    def _weighed(self):
        from safetensors.numpy import load

        weights = self._parsed(WEIGHTS, load)
        if strange := [name for name, values in weights.items() if not np.isfinite(values).all()]:
            yield f"{WEIGHTS}: {strange[0]} is not finite"
        shape = (self.vocabulary_size, self.config.embedding_dim)
        # An ensemble has one embedding per member.
        if {w.shape for name, w in weights.items() if name.endswith("embedding.weight")} != {shape}:
            yield f"{WEIGHTS}: no embedding of {shape[0]} words in {shape[1]} dimensions"


def _loss(chances, half=0):
    """Return the smallest and largest mean loss for rounded probabilities of the labels.

    Args:
        chances: probabilities, rounded by `store._rounded`.
        half: largest additional rounding error, of half precision.
    """
    room = np.where(np.abs(chances - 0.5) < 2e-4 + half, 1e-4, 5e-5) + 1e-7 + half
    low = -np.log(np.minimum(chances + room, 1)).mean()
    high = -np.log(np.maximum(chances - room, np.finfo(float).tiny)).mean()
    return low * (1 - 1e-5) - 1e-7, high * (1 + 1e-5) + 1e-7
