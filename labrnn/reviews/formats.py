"""Read the rows of a source of reviews: tables, Stanford's archive or folder, Parquet files.

A file is recognised by its content, never by its name. Nothing is unpacked on disk or unpickled,
and the unpacked size is limited.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from labrnn.errors import LabError

TEXT_COLUMNS = ("review", "text")
LABEL_COLUMNS = ("sentiment", "label")
DELIMITERS = ",;\t|"

MIB = 1 << 20
MAX_BYTES = 512 * MIB  # limit for an unpacked file; Stanford's archive has about 300 MiB

_MEMBER = re.compile(r"(?:^|/)(train|test)/(pos|neg)/([^/]+)$")
# The split in the path of a Parquet file.
_HALF = re.compile(r"(?:^|[/_-])(train|test)(?=[/._-])", re.IGNORECASE)
_TABLE = re.compile(r"\.(csv|tsv|json|jsonl)$", re.IGNORECASE)
_TEXT = re.compile(r"\.txt$", re.IGNORECASE)  # a table if the archive has no other one
_UNSAFE = re.compile(r"^[/\\]|^.:|(^|[/\\])\.\.([/\\]|$)")
_LEFTOVER = re.compile(
    r"^\.(?!\.?$)|^~|~$|^#.*#$|\.(swp|swo|tmp|bak|orig|part|crdownload)$"
    r"|^((eh)?thumbs(_vista)?\.db|desktop\.ini|icon\r|__macosx|\$recycle\.bin|@eadir)$"
    r"|^system volume information$|:zone\.identifier$|^4913$",
    re.IGNORECASE,
)
_OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_UNREAD = {  # first bytes -> format, and what to do
    b"7z\xbc\xaf": ("a 7z archive", "unpack it and name the file in it"),
    b"Rar!": ("a RAR archive", "unpack it and name the file in it"),
    b"\x28\xb5\x2f\xfd": ("packed by zstd", "unpack it (unzstd) and name the file in it"),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook", "open it and save it as CSV UTF-8"),
    b"ARROW1": ("an Arrow file", "write it as Parquet or CSV"),
    b"%PDF": ("a PDF", "take the table that it was made from"),
    b"\x1f\x9d": ("packed by compress", "unpack it and name the file in it"),
    b"]\0\0": ("packed by LZMA", "unpack it (unlzma) and name the file in it"),
    b"\x80\x04": ("pickled by Python", "write it as CSV or Parquet"),
    b"\x80\x05": ("pickled by Python", "write it as CSV or Parquet"),
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch the file itself: git lfs pull"),
}
_DAMAGE = (
    EOFError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    ValueError,  # raised by tarfile and zipfile for invalid headers
    RuntimeError,  # raised by zipfile for encrypted files
)


class Row(NamedTuple):
    """A review as read from its source, not validated.

    Attributes:
        place: its place in the source, for messages.
        text, label: the values, of any type.
    """

    place: str
    text: Any
    label: Any


class Member(NamedTuple):
    """A file in an archive or folder: its relative path, and a function that reads it."""

    name: str
    read: Callable[[], bytes]


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn exceptions about damaged or unreadable files into a LabError."""
    try:
        yield
    except _DAMAGE as fault:
        raise LabError(
            f"{path}: damaged, cut short or encrypted ({short(fault)}); download or copy the file"
            " again, or unpack it yourself"
        ) from fault
    except OSError as fault:
        raise LabError(
            f"{path}: cannot be read ({short(fault.strerror or fault)}); check that it is complete"
            " and that you may read it, or copy it again"
        ) from fault


def read_rows(path: Path, only: tuple[str, str] | None = None) -> Iterator[Row]:
    """Read the rows of a source, in order.

    Args:
        path: a table (CSV, tab-separated, JSON lines; plain, gzip, bzip2, xz, zip or tar), Stanford's
            archive or its folder, a Parquet file or a folder of them.
        only: column and value; other rows of a CSV are skipped.

    Raises:
        LabError: the source is none of these, or damaged.
    """
    with readable(path):
        if path.is_dir():
            yield from _folder_rows(path)
            return
        if path.exists() and not path.is_file():
            raise LabError(f"{path}: neither a file nor a folder; name a data file")
        with path.open("rb") as file:
            start = file.read(24)
        if not start:
            raise LabError(f"{path}: the file is empty; download or copy it again")
        for magic, (kind, cure) in _UNREAD.items():
            if start.startswith(magic):
                raise LabError(f"{path}: the file is {kind}, which is not read; {cure}")
        if start.startswith(b"PAR1"):
            yield from _parquet_rows(path)
        elif start.startswith(b"PK\3\4"):
            with zipfile.ZipFile(path) as archive:
                yield from _archive_rows(path, _zip_members(path, archive), only)
        else:
            content = _unpacked(path, start)
            if content[257:262] == b"ustar" and b"\0" in content[:257]:  # text has no NUL
                yield from _archive_rows(path, _tar_members(path, content), only)
            else:
                yield from _table_rows(path, content, only)


# ------------------------------------------------------------------------------ packed files


def _unpacked(path: Path, start: bytes) -> bytes:
    """Return the decompressed bytes of a file, at most MAX_BYTES."""
    opener = next((o for magic, o in _OPENERS.items() if start.startswith(magic)), open)
    content = bytearray()
    with opener(path, "rb") as stream:
        while block := stream.read(MIB):
            content += block
            check_size(path, len(content))
    return bytes(content)


def check_size(path: Path, size: int) -> None:
    """Raise a LabError if an unpacked source has more than MAX_BYTES."""
    if size > MAX_BYTES:
        raise LabError(
            f"{path}: unpacks to more than {MAX_BYTES // MIB} MiB, far more than the 50,000 reviews"
            " take; use a part of it, or get it from a source that you trust"
        )


def _zip_members(path: Path, archive: zipfile.ZipFile) -> list[Member]:
    infos = [info for info in archive.infolist() if not info.is_dir()]
    check_size(path, sum(info.file_size for info in infos))
    # Some Windows programs write backslashes.
    return [Member(i.filename.replace("\\", "/"), partial(archive.read, i)) for i in infos]


def _tar_members(path: Path, content: bytes) -> list[Member]:
    archive = tarfile.TarFile(fileobj=io.BytesIO(content))
    infos = [info for info in archive if not info.isdir()]
    # tarfile also treats a damaged header, or a cut between two members, as the end.
    rest = content[archive.offset :]
    if not rest or rest.strip(b"\0"):
        raise tarfile.ReadError("no proper end")
    for info in infos:
        if not info.isreg() or info.issparse():
            raise LabError(
                f"{path}: its member {short(info.name)} is a link, a device or sparse; pack plain"
                " files only"
            )
    return [Member(i.name, lambda i=i: archive.extractfile(i).read()) for i in infos]


def _archive_rows(path: Path, members: list[Member], only: tuple | None) -> Iterator[Row]:
    """Read the rows of an archive: Stanford's files, or one table."""
    members = [member for member in members if not is_leftover(member.name)]
    for name, _ in members:
        if _UNSAFE.search(name) or not name.isprintable():
            raise LabError(
                f"{path}: its member {short(name)} has an unsafe name, or one that points outside"
                " the archive; get the file from a source that you trust"
            )
    if any(_MEMBER.search(name) for name, _ in members):
        return _imdb_rows(path, members)
    names = [name for name, _ in members]
    if any(name.startswith("xl/") or name == "content.xml" for name in names):
        raise LabError(f"{path}: this is a workbook, not a CSV; open it and save it as CSV UTF-8")
    tables = [[m for m in members if kind.search(m.name)] for kind in (_TABLE, _TEXT)]
    tables = tables[0] or tables[1]
    if len(tables) != 1:
        raise LabError(
            f"{path}: the archive should hold train/pos ... test/neg or one CSV, but it holds"
            f" {len(tables)} CSVs among {len(names)} files ({short(', '.join(names))}); unpack it"
            " and name the file with --data"
        )
    return _table_rows(path, tables[0].read(), only)


def is_leftover(name: str) -> bool:
    """Whether a relative path is a leftover of an operating system, editor or Jupyter."""
    return any(_LEFTOVER.search(part) for part in re.split(r"[/\\]", name))


# ----------------------------------------------------------------------------------- tables


def _table_rows(path: Path, content: bytes, only: tuple | None = None) -> Iterator[Row]:
    """Read a text file: JSON, or CSV with a delimiter of DELIMITERS, in UTF-8, UTF-16 or UTF-32."""
    start = content[:64].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise LabError(
            f"{path}: this is a web page, not a CSV (a log-in or error page saved in its place?);"
            " download the file again"
        )
    encoding = json.detect_encoding(content)  # by byte order mark and NULs
    if encoding.startswith("utf-8") and (nul := content.find(b"\0")) >= 0:
        raise LabError(
            f"{path}: line {_line(content, nul)} holds a NUL byte; this is not a text file, or a"
            " damaged one: export or copy it again"
        )
    stream = io.TextIOWrapper(io.BytesIO(content), encoding, newline="")
    try:
        first, skipped = stream.readline(), 0
        while first and not first.strip():
            first, skipped = stream.readline(), skipped + 1
        if first.lstrip()[:1] in ("{", "["):
            yield from _json_rows(path, first + stream.read())
        else:
            yield from _csv_rows(path, first, stream, skipped, only)
    except UnicodeDecodeError:
        decoded(path, content, encoding)  # raises with the position in the file
        raise


def _csv_rows(path, first, stream, skipped, only) -> Iterator[Row]:
    """Read a CSV with a header and one text and one label column; other columns are skipped."""
    hint = re.fullmatch(r'"?sep=(.)"?', first.strip("\r\n"), re.IGNORECASE)  # written by Excel
    if hint:
        first, skipped = stream.readline(), skipped + 1
    delimiter = hint[1] if hint else _delimiter(first)
    csv.field_size_limit(MAX_BYTES)
    header = next(csv.reader([first], delimiter=delimiter), [])
    text, label = _columns(path, header)
    if only:
        chosen = header.index(only[0])
    rows = _reader(_doubled(stream.read(), delimiter), delimiter)
    number = 0
    try:
        for number, row in enumerate(rows, start=1):
            if len(row) == len(header):
                if not only or row[chosen] == only[1]:
                    yield Row(f"row {number} below the header", row[text], row[label])
            elif row:
                raise LabError(
                    f"{path}: row {number} below the header has {len(row)} cells, the header has"
                    f" {len(header)}; put reviews that contain {delimiter!r} in double quotes"
                )
    except csv.Error as fault:
        line = rows.line_num + skipped + 1
        raise LabError(
            f"{path}: row {number + 1} below the header (up to line {line}) is not proper CSV"
            f" ({fault}); close each quote and double the quotes inside a review, or copy the file"
            " again if it is cut short"
        ) from fault


def _reader(rows: str, delimiter: str):
    return csv.reader(io.StringIO(rows, newline=""), delimiter=delimiter, strict=True)


def _doubled(rows: str, delimiter: str) -> str:
    """Replace quotes that are escaped by a backslash by doubled quotes.

    Databases write such tables, for example Kaggle's `labeledTrainData.tsv`. Valid CSV keeps its
    backslashes.
    """
    if '\\"' not in rows:
        return rows
    for text in (rows, re.sub(r'\\(["\\])', lambda m: m[1].replace('"', '""'), rows)):
        with suppress(csv.Error):
            for _ in _reader(text, delimiter):
                pass
            return text
    return rows


def _delimiter(header: str) -> str:
    """Return the delimiter with which the header has both columns; a comma if there is none."""
    for delimiter in DELIMITERS:
        names = next(csv.reader([header], delimiter=delimiter), [])
        if _found(names, TEXT_COLUMNS) and _found(names, LABEL_COLUMNS):
            return delimiter
    return ","


def _found(header: list[str], names: tuple[str, ...]) -> list[int]:
    return [i for i, name in enumerate(header) if str(name).strip().lower() in names]


def _columns(path: Path, header: list[str]) -> list[int]:
    """Return the indices of the text and label columns in a header."""
    columns = []
    for names in (TEXT_COLUMNS, LABEL_COLUMNS):
        found = _found(header, names)
        if len(found) != 1:
            raise LabError(
                f"{path}: needs one column called {' or '.join(names)}, but {len(found)} are in"
                f" the header {short(','.join(header))}; rename the columns to review,sentiment, or"
                " put that line on top if there is no header"
            )
        columns += found
    return columns


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    """Read JSON lines, or one list of objects."""
    is_list, records = text.lstrip().startswith("["), []
    try:
        for part in [text] if is_list else text.split("\n"):
            if part.strip():
                value = json.loads(part)
                records += value if is_list else [value]
        if not records or not all(isinstance(record, dict) for record in records):
            raise ValueError("no objects")
        if len(records) == 1 and all(isinstance(v, (dict, list)) for v in records[0].values()):
            raise ValueError("one object with columns or a table in it")
    except (ValueError, RecursionError) as fault:
        raise LabError(
            f"{path}: after {len(records)} objects: not proper JSON ({short(fault)}); write one"
            " object per line, as pandas does with to_json(orient='records', lines=True), or a CSV"
        ) from fault
    header = list(records[0])
    names = [header[i] for i in _columns(path, header)]
    for number, record in enumerate(records, start=1):
        yield Row(f"object {number}", *map(record.get, names))


def decoded(path: Path, raw: bytes, encoding: str = "utf-8", member: str = "") -> str:
    """Decode a text; the LabError for invalid bytes says where they are and what to do."""
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as fault:
        raise LabError(
            f"{path}: {member}line {_line(raw, fault.start)}, byte offset {fault.start}:"
            f" 0x{raw[fault.start]:02x} is not {encoding.upper()} ({fault.reason}); save the file as"
            " UTF-8 (from Western Windows: iconv -f cp1252 -t utf-8)"
        ) from fault


def _line(raw: bytes, offset: int) -> int:
    return raw.count(b"\n", 0, offset) + 1


def short(value: object) -> str:
    """Return a value quoted, escaped and cut to 80 characters, for a message."""
    text = str(value)
    return repr(text if len(text) <= 80 else text[:77] + "...")


# ---------------------------------------------------------- Stanford's files, and Parquet files


def _folder_rows(path: Path) -> Iterator[Row]:
    for root in (path, path / "aclImdb"):
        folders = [root / half / sign for half in ("train", "test") for sign in ("pos", "neg")]
        if any(folder.is_dir() for folder in folders):
            return _imdb_rows(path, _folder_members(root, filter(Path.is_dir, folders)))
    tables, others = {}, []  # data set -> split -> files; other files
    for file in sorted(path.rglob("*.parquet")):
        name = file.relative_to(path).as_posix()
        if not file.is_file() or is_leftover(name):
            continue
        if half := _HALF.search(name):
            halves = tables.setdefault(name[: half.start()], {})
            halves.setdefault(half[1].lower(), []).append(file)
        elif "unsupervised" not in name:
            others.append(name)
    if tables and others:
        raise LabError(
            f"{path}: {short(others)}: neither train nor test, so that its reviews would be left "
            "out; rename it, move it elsewhere, or name one file"
        )
    if len(tables) != 1:
        raise LabError(
            f"{path}: the folder holds {len(tables)} data sets"
            f"{f' ({short(list(tables))})' if tables else ''}; name one: a file of reviews, the"
            " folder above train/pos ... test/neg, or the folder above train*.parquet and"
            " test*.parquet or train/*.parquet and test/*.parquet"
        )
    (halves,) = tables.values()
    files = [file for half in ("train", "test") for file in halves.get(half, [])]
    return (row for file in files for row in _parquet_rows(file))


def _folder_members(root: Path, folders: Iterable[Path]) -> Iterator[Member]:
    for file in (file for folder in folders for file in folder.iterdir()):
        if not is_leftover(file.name):
            if not file.is_file():
                raise LabError(
                    f"{file}: not a regular file, so it cannot be a review; move it elsewhere"
                )
            check_size(file, file.stat().st_size)
            yield Member(file.relative_to(root).as_posix(), file.read_bytes)


def _imdb_rows(path: Path, members: Iterable[Member]) -> Iterator[Row]:
    """Read reviews in the usual order: train before test, positive before negative, by id."""
    found: dict[tuple[bool, bool, int], tuple[str, bytes]] = {}
    total = 0
    for name, read in members:
        if not (parts := _MEMBER.search(name)):
            continue
        number = re.fullmatch(r"([0-9]{1,9})_[0-9]+\.txt", parts[3])
        key = number and (parts[1] == "test", parts[2] == "neg", int(number[1]))
        if key is None or key in found:
            raise LabError(
                f"{path}: {short(name)} is not named <review id>_<rating>.txt with an id of its own;"
                " remove it if it is not a review, or unpack Stanford's archive again"
            )
        found[key] = name, read()
        total += len(found[key][1])
        check_size(path, total)
    for (_, negative, _), (name, raw) in sorted(found.items()):
        yield Row(name, decoded(path, raw, member=f"{name}, "), "neg" if negative else "pos")


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            header = table.schema_arrow.names
            columns = [header[i] for i in _columns(path, header)]
            number = size = 0
            for batch in table.iter_batches(256, columns=columns, use_threads=False):
                size += batch.nbytes
                check_size(path, size)
                for text, label in zip(*(batch[c].to_pylist() for c in columns), strict=True):
                    number += 1
                    yield Row(f"{path.name}, row {number}", text, label)
    except (pyarrow.ArrowException, UnicodeDecodeError) as fault:
        raise LabError(
            f"{path}: not a complete Parquet file of texts ({short(fault)}); download it again"
        ) from fault
