"""What is kept beside the trials, computed of the reviews: its form, file by file.

A file holds `{"sha256": ..., "value": ...}`; its name is `<kind>-<16 hexadecimal digits>.json`.
The digest shows that nothing changed, the form here that it was right from the beginning.
"""

import base64
import hashlib
import json
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError, deserialize

from labrnn.files import read_file
from labrnn.trials.trial import HEX, NO_FILE, Plain, Share, UnreadableError, read_plain

NAME = f"[a-z]+-{HEX}[.]json"
Count = Annotated[int, Field(ge=0)]
Some = Field(min_length=1)


def _same_length(pair):
    if len({len(part) for part in pair}) != 1:
        raise ValueError("values and how often they occur differ in number")
    return pair


Compact = Annotated[
    list[Annotated[list[Count], Some]],
    Field(min_length=2, max_length=2),
    AfterValidator(_same_length),
]
Split = Annotated[list[Count], Field(min_length=2, max_length=2)]
Hex = Annotated[str, Field(pattern="^([0-9a-f]{2})+$")]
Pair = Annotated[list[Share], Field(min_length=2, max_length=2)]


class _Facts(Plain):
    name: str
    fingerprint: str
    rows: Count
    positives: Count
    negatives: Count
    distinct_texts: Count
    duplicate_rows: Count
    conflicting_labels: Count
    words: dict[str, float]


class _Splits(Plain):
    train: Split
    valid: Split
    test: Split


class _Example(Plain):
    text: str
    ids: Annotated[list[Count], Some]
    words: Annotated[list[str], Some]
    label: int = Field(ge=0, le=1)


class _Description(Plain):
    facts: _Facts
    splits: _Splits
    vocabulary_size: Count
    first_words: list[str]
    frequent: list[tuple[str, int, bool]]
    distinct_words: Count
    kept_share: Share
    word_counts: Compact
    lengths: dict[str, Compact]
    cut: Share
    without_known_words: Count
    example: _Example


class _Baseline(Plain):
    name: str
    strength: float | None
    parameters: Count
    seconds: float
    margins: Annotated[list[Hex], Field(min_length=2, max_length=2)]


class _Baselines(Plain):
    labels: Annotated[list[Hex], Field(min_length=2, max_length=2)]
    repeated: Hex
    models: Annotated[list[_Baseline], Some]


class _Combined(Plain):
    weights: Annotated[list[float], Field(min_length=3, max_length=3)]
    validation: Share
    test: Hex


class _Mistake(Plain):
    text: str
    label: int = Field(ge=0, le=1)
    probability: Share


class _Insight(Plain):
    lengths: Annotated[list[Count], Some]
    mistakes: list[_Mistake]
    pairs: list[Pair]


class _Words(Plain):
    trained: bool
    count: Count
    negative: Share
    reach: Annotated[list[float], Field(min_length=2, max_length=2)]
    outermost: Annotated[list[list[str]], Field(min_length=2, max_length=2)]
    histogram: Annotated[list[Count], Some]


class _Gates(Plain):
    steps: Count
    rows: Count
    units: Count
    sums: Annotated[list[float], Field(min_length=2, max_length=2)]
    mean: float
    histogram: Annotated[list[float], Some]


class _Models(Plain):
    words: Annotated[dict[str, _Words], Some]
    gates: _Gates


def _tensors(text):
    try:
        deserialize(base64.b64decode(text, validate=True))
    except (ValueError, SafetensorError) as error:
        raise ValueError(f"no base64 of a safetensors file: {error}") from None
    return text


class _Reader(Plain):
    words: Annotated[list[str], Some]
    weights: Annotated[str, AfterValidator(_tensors)]
    review: Annotated[list[str], Field(min_length=2, max_length=2)]


KINDS = {
    "data": TypeAdapter(_Description),
    "baselines": TypeAdapter(_Baselines),
    "combined": TypeAdapter(_Combined),
    "insight": TypeAdapter(_Insight),
    "models": TypeAdapter(_Models),
    "reader": TypeAdapter(_Reader),
}


def pack(value):
    """The bytes of a file that keeps a value."""
    content = json.dumps({"sha256": _digest(value), "value": value}, ensure_ascii=False)
    return (content + "\n").encode()


def unpack(path, reviews=None):
    """The value that a file keeps, and what is wrong with it: one of both is None.

    Args:
        path: in a folder that is named by the reviews' fingerprint.
        reviews: their number, if known.

    Raises:
        UnreadableError: it may be there, and sound.
    """
    try:
        stored = read_plain(read_file(path))
        if stored["sha256"] != _digest(stored["value"]):
            return None, "is not what was written"
    except OSError as error:
        if error.errno in NO_FILE:
            return None, "is not there, or no file"
        raise UnreadableError(path, error) from None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None, "is not what was written"
    if fault := _misfit(path, stored["value"], reviews):
        return None, f"not the content of a {path.name.partition('-')[0]} file: {fault}"
    return stored["value"], None


def _digest(value):
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _misfit(path, value, reviews):
    kind = path.name.partition("-")[0]
    if kind not in KINDS:
        return ""
    try:
        KINDS[kind].validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"[:200]
    if kind == "data":
        facts = value["facts"]
        if facts["fingerprint"] != path.parent.name:
            return f"reviews of fingerprint {facts['fingerprint']}"
        if facts["rows"] != facts["positives"] + facts["negatives"]:
            return "its rows are not its positives and negatives"
        if reviews not in (None, facts["rows"]):
            return f"{facts['rows']} rows, and trials of {reviews} reviews lie here"
    if kind == "baselines":
        *sizes, test = (len(digits) for digits in (*value["labels"], value["repeated"]))
        sizes = [2 * size for size in sizes]  # a byte a label, two a margin
        if any([*map(len, m["margins"])] != sizes for m in value["models"]) or 2 * test != sizes[1]:
            return "not one margin for each review"
    return ""


def hex_of(values, kind):
    """Return an array's bytes, little-endian, as hexadecimal digits."""
    return np.asarray(values).astype(np.dtype(kind).newbyteorder("<")).tobytes().hex()


def array_of(digits, kind):
    """Return the array that `hex_of` wrote."""
    return np.frombuffer(bytes.fromhex(digits), np.dtype(kind).newbyteorder("<"))
