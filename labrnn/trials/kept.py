"""What is kept beside the trials, computed of the reviews: its form, file by file.

A file holds `{"sha256": ..., "value": ...}`; its name is `<kind>-<16 hexadecimal digits>.json`.
The digest shows that nothing changed, the form here that it was right from the beginning.
"""

import base64
import json
import os
from contextlib import suppress
from typing import Annotated, Literal, TypeVar

import numpy as np
from pydantic import AfterValidator, Field, RootModel, ValidationError
from safetensors import SafetensorError, deserialize

from labrnn.errors import LabError
from labrnn.trials.trial import (
    Plain,
    Share,
    Trial,
    content_of,
    first_fault,
    read_plain,
    sha256,
)

Count = Annotated[int, Field(ge=0)]
Hex = Annotated[str, Field(pattern="^([0-9a-f]{2})+$")]
Class = Annotated[int, Field(ge=0, le=1)]
T = TypeVar("T")
Some = Annotated[list[T], Field(min_length=1)]
Two = tuple[T, T]


def _of_one_length(pair):
    if len(pair[0]) != len(pair[1]):
        raise ValueError("values and how often they occur differ in number")
    return pair


def _tensors(text):
    try:
        deserialize(base64.b64decode(text, validate=True))
    except (ValueError, SafetensorError) as error:
        raise ValueError(f"no base64 of a safetensors file: {error}") from None
    return text


Compact = Annotated[Two[Some[Count]], AfterValidator(_of_one_length)]


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


class _Example(Plain):
    text: str
    ids: Some[Count]
    words: Some[str]
    label: Class


class _Description(Plain):
    facts: _Facts
    splits: dict[Literal["train", "valid", "test"], Two[Count]] = Field(min_length=3)
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
    margins: Two[Hex]


class _Baselines(Plain):
    labels: Two[Hex]
    repeated: Hex
    models: Some[_Baseline]


class _Combined(Plain):
    weights: tuple[float, float, float]
    validation: Share
    test: Hex


class _Mistake(Plain):
    text: str
    label: Class
    probability: Share


class _Insight(Plain):
    lengths: Some[Count]
    mistakes: list[_Mistake]
    pairs: list[Two[Share]]


class _Words(Plain):
    negative: Share
    reach: Two[float]
    outermost: Two[list[str]]
    histogram: Some[Count]


class _Gates(Plain):
    sums: Two[float]
    histogram: Some[float]


class _Models(Plain):
    words: dict[str, _Words] = Field(min_length=1)
    gates: _Gates


class _Reader(Plain):
    words: Some[str]
    weights: Annotated[str, AfterValidator(_tensors)]
    review: Two[str]


Loss = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seed = Annotated[str, Field(pattern="^[0-9]+$")]
_Steps = RootModel[Annotated[dict[Seed, Some[Loss]], Field(min_length=1)]]

KINDS = {
    "data": _Description,
    "baselines": _Baselines,
    "combined": _Combined,
    "insight": _Insight,
    "models": _Models,
    "reader": _Reader,
    "steps": _Steps,
}


def pack(value):
    """The bytes of a file that keeps a value."""
    content = json.dumps({"sha256": digest(value), "value": value}, ensure_ascii=False)
    return (content + "\n").encode()


def unpack(path):
    """The value that a file keeps, and what is wrong with it: one of both is None.

    Args:
        path: in a folder that is named by the reviews' fingerprint.

    Raises:
        UnreadableError: it may be there, and sound.
    """
    if (content := content_of(path)) is None:
        return None, "is not there, or no file"
    try:
        stored = read_plain(content)
        sound = stored["sha256"] == digest(stored["value"])
    except (ValueError, TypeError, KeyError, RecursionError):
        sound = False
    if not sound:
        return None, "is not what was written"
    if fault := _misfit(path, stored["value"]):
        return None, f"not the content of a {path.name.partition('-')[0]} file: {fault}"
    return stored["value"], None


def digest(value):
    """The digest of a value, whatever file keeps it."""
    return sha256(json.dumps(value).encode())


def _misfit(path, value):
    kind = path.name.partition("-")[0]
    if kind not in KINDS:
        return ""
    try:
        KINDS[kind].model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        return first_fault(error)[:200]
    if kind == "data":
        facts = value["facts"]
        if facts["fingerprint"] != path.parent.name:
            return f"reviews of fingerprint {facts['fingerprint']}"
        if facts["rows"] != facts["positives"] + facts["negatives"]:
            return "its rows are not its positives and negatives"
        if (reviews := _reviews_beside(path)) not in (None, facts["rows"]):
            return f"{facts['rows']} rows, and trials of {reviews} reviews lie here"
    if kind == "baselines":
        *sizes, test = (len(digits) for digits in (*value["labels"], value["repeated"]))
        sizes = [2 * size for size in sizes]  # a byte a label, two a margin
        if any([*map(len, m["margins"])] != sizes for m in value["models"]) or 2 * test != sizes[1]:
            return "not one margin for each review"
    return ""


def _reviews_beside(path):
    """How many reviews the trials beside a file are of, by the first that can be read."""
    with suppress(OSError):
        for name in sorted(os.listdir(path.parent)):
            with suppress(LabError):
                return Trial(path.with_name(name)).data["reviews"]
    return None


def hex_of(values, kind):
    """Return an array's bytes, little-endian, as hexadecimal digits."""
    return np.asarray(values).astype(np.dtype(kind).newbyteorder("<")).tobytes().hex()


def array_of(digits, kind):
    """Return the array that `hex_of` wrote."""
    return np.frombuffer(bytes.fromhex(digits), np.dtype(kind).newbyteorder("<"))
