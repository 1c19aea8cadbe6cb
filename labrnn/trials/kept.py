"""Derived data, computed from reviews or weights and stored beside the trials: file formats.

A file contains `{"sha256": ..., "value": ...}` and is named `<kind>-<16 hexadecimal digits>.json`.
The digest detects changes to the file; the models below detect values that were wrong when written.
"""

import base64
import json
import os
from contextlib import suppress
from typing import Annotated, Literal, TypeVar

import numpy as np
from pydantic import AfterValidator, Field, RootModel, ValidationError, create_model
from safetensors import SafetensorError, deserialize

from labrnn.errors import LabError
from labrnn.trials.trial import (
    CHANGED,
    MISSING,
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
        raise ValueError(f"not base64 of a safetensors file: {error}") from None
    return text


Compact = Annotated[Two[Some[Count]], AfterValidator(_of_one_length)]
Tensors = Annotated[str, AfterValidator(_tensors)]
Loss = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seed = Annotated[str, Field(pattern="^[0-9]+$")]
FACTS = ("rows", "positives", "negatives", "distinct_texts", "duplicate_rows", "conflicting_labels")


def _form(**fields):
    """Make a pydantic model of a mapping with at least these fields."""
    return create_model("form", __base__=Plain, **{n: (kind, ...) for n, kind in fields.items()})


_Words = _form(negative=Share, reach=Two[float], outermost=Two[list[str]], histogram=Some[Count])
KINDS = {
    "data": _form(
        facts=_form(
            name=str, fingerprint=str, words=dict[str, float], **dict.fromkeys(FACTS, Count)
        ),
        splits=Annotated[dict[Literal["train", "valid", "test"], Two[Count]], Field(min_length=3)],
        vocabulary_size=Count,
        frequent=list[tuple[str, int, bool]],
        distinct_words=Count,
        kept_share=Share,
        word_counts=Compact,
        lengths=dict[str, Compact],
        cut=Share,
        without_known_words=Count,
    ),
    "baselines": _form(
        labels=Two[Hex],
        repeated=Hex,
        models=Some[
            _form(
                name=str, strength=float | None, parameters=Count, seconds=float, margins=Two[Hex]
            )
        ],
    ),
    "combined": _form(weights=tuple[float, float, float], validation=Share, test=Hex),
    "insight": _form(
        lengths=Some[Count],
        mistakes=list[_form(text=str, label=Class, probability=Share)],
        pairs=list[Two[Share]],
    ),
    "models": _form(
        words=Annotated[dict[str, _Words], Field(min_length=1)],
        gates=_form(sums=Two[float], histogram=Some[float]),
    ),
    "reader": _form(words=Some[str], weights=Tensors, review=Two[str]),
    "steps": RootModel[Annotated[dict[Seed, Some[Loss]], Field(min_length=1)]],
}


def pack(value):
    """Return the content of a file with a value, as bytes."""
    content = json.dumps({"sha256": digest(value), "value": value}, ensure_ascii=False)
    return (content + "\n").encode()


def unpack(path):
    """Return (value, None) for a valid file, else (None, description of the fault).

    Args:
        path: path of the file, in a folder named by the reviews' fingerprint.

    Raises:
        UnreadableError: the file cannot be read; it may be undamaged.
    """
    if (content := content_of(path)) is None:
        return None, MISSING
    try:
        stored = read_plain(content)
        text = json.dumps(stored["value"]).encode()
        sound = stored["sha256"] == sha256(text)
    except (ValueError, TypeError, KeyError, RecursionError):
        sound = False
    if not sound:
        return None, CHANGED
    if fault := _format_fault(path, stored["value"], text):
        return None, f"not the content of a {path.name.partition('-')[0]} file: {fault}"
    return stored["value"], None


def digest(value):
    """Return the digest of a value, which is independent of the file."""
    return sha256(json.dumps(value).encode())


def _format_fault(path, value, text):
    kind = path.name.partition("-")[0]
    if kind not in KINDS:
        return ""
    try:
        KINDS[kind].model_validate_json(text, strict=True)
    except ValidationError as error:
        return first_fault(error)[:200]
    if kind == "data":
        facts = value["facts"]
        if facts["fingerprint"] != path.parent.name:
            return f"its fingerprint is {facts['fingerprint']}, which is not its folder's"
        if facts["rows"] != facts["positives"] + facts["negatives"]:
            return "its rows are not the sum of its positives and negatives"
        if (reviews := _reviews_beside(path)) not in (None, facts["rows"]):
            return f"{facts['rows']} rows, but the trials beside it have {reviews} reviews"
    if kind == "baselines":
        *sizes, test = (len(digits) for digits in (*value["labels"], value["repeated"]))
        sizes = [2 * size for size in sizes]  # one byte per label, two per margin
        if any([*map(len, m["margins"])] != sizes for m in value["models"]) or 2 * test != sizes[1]:
            return "not one margin for each review"
    return ""


def _reviews_beside(path):
    """Return the number of reviews of the first readable trial beside a file, or None."""
    with suppress(OSError):
        for name in sorted(os.listdir(path.parent)):
            with suppress(LabError):
                return Trial(path.with_name(name)).data["reviews"]
    return None


def hex_of(values, kind):
    """Return an array of dtype `kind` as hexadecimal digits, little-endian."""
    return np.asarray(values).astype(np.dtype(kind).newbyteorder("<")).tobytes().hex()


def array_of(digits, kind):
    """Return the array that `hex_of` encoded."""
    return np.frombuffer(bytes.fromhex(digits), np.dtype(kind).newbyteorder("<"))
