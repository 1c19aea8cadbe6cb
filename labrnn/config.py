"""One training, described in full, and the reading of params files.

Names and defaults are the lab's; values outside the lab's limits are refused. The right way is
the default where the published solution had a defect; the published way is an option.
"""

import difflib
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from labrnn.errors import LabError

MOST_BYTES = 1 << 18  # of a params file; a whole lab in one would not have a tenth of it


class Strict(BaseModel):
    """Immutable, without unknown fields; NaN, infinity and truth values as numbers are refused,
    and so are texts that no file system or file takes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_elsewhere(cls, value, info):
        # Pydantic would take True for 1; YAML reads `yes`, `no`, `on` and `off` as truth values.
        if type(value) in (int, float):  # most are, and a truth value's type is another
            return value
        values = value if isinstance(value, (list, tuple)) else [value]
        truth = any(isinstance(one, bool) for one in values)
        if truth and cls.model_fields[info.field_name].annotation is not bool:
            raise ValueError("a truth value; give a number, or put a word in quotes")
        if any(isinstance(one, str) and re.search("[\0\ud800-\udfff]", one) for one in values):
            raise ValueError("holds a NUL or half a character; write it again")
        return value


class TrialConfig(Strict):
    """One training: data, model, optimisation, seed.

    Two configurations that train the same thing are equal: a field without influence (the readout
    of a unidirectional model, the forget bias of a GRU) goes back to its default.
    """

    # data: what becomes of a review
    train_reviews: int = Field(0, ge=0, description="training reviews in use, 0 for all")
    max_tokens: int = Field(256, ge=1, le=4096, description="known words kept of a review")
    min_count: int = Field(5, ge=1, description="a word's least occurrences in the training set")
    stop_words: Literal["drop", "keep_negations", "keep"] = "drop"
    duplicates: Literal["keep", "drop"] = "keep"
    words: Literal["blanks", "marks"] = Field(
        "blanks", description="split at blanks, or into words and punctuation marks"
    )
    min_bigram_count: int = Field(
        0, ge=0, description="a bigram's least occurrences in the training set; 0 for no bigrams"
    )
    # model
    cell: Literal["lstm", "gru"] = "lstm"
    embedding_dim: int = Field(1, ge=1, le=256)
    hidden_dim: int = Field(100, ge=10, le=320)
    n_layers: int = Field(1, ge=1, le=4)
    dropout_rate: float = Field(0.0, ge=0, lt=1)
    embedding_dropout: float = Field(0.0, ge=0, lt=1, description="of the recurrent layers' input")
    word_dropout: float = Field(0.0, ge=0, lt=1, description="of words and bigrams as a whole")
    bidirectional: bool = False
    readout: Literal["final_state", "last_step", "mean"] = Field(
        "final_state",
        description="each direction's final state, its output at the last step, or the mean of its "
        "outputs",
    )
    linear_path: bool = Field(
        False,
        description="a linear classifier of the words and bigrams held, trained beside the network; "
        "their logits add up",
    )
    recurrent_init: Literal["stacked", "per_gate"] = Field(
        "stacked", description="orthogonal on the stacked matrix of all gates, or on each gate"
    )
    forget_bias: float = Field(0.0, ge=-10, le=10)
    # optimisation
    optim: Literal["sgd", "adagrad", "adam", "rmsprop", "sparse_adam"] = Field(
        "sgd",
        description="`sparse_adam` is Adam that moves an embedding's row only when it is read",
    )
    lr: float = Field(0.01, gt=0, le=10)
    warmup_steps: int = Field(200, ge=0)
    schedule: Literal["constant", "linear"] = Field(
        "constant", description="after the warm-up: as it is, or falling to 0 at the last step"
    )
    batch_size: int = Field(96, ge=1, le=4096)
    epochs: int = Field(5, ge=1, le=100)
    precision: Literal["float32", "bf16"] = Field(
        "float32",
        description="of the recurrent layers' matrix products on a CPU; sums, gates, states, "
        "weights and optimiser are float32 always",
    )
    calibrate: bool = Field(
        False, description="fit scale and bias of the logits to the validation reviews at the end"
    )
    seed: int = Field(5, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _reset_what_has_no_influence(self):
        if self.readout == "last_step" and not self.bidirectional:
            self.__dict__["readout"] = "final_state"
        if self.cell == "gru":
            self.__dict__["forget_bias"] = 0.0
        return self

    def difference(self, base=None):
        """Fields that differ from the defaults, sorted, e.g. `LR=0.001,OPTIM=rmsprop`.

        The cell and the seed are told elsewhere: a figure's title names the cell, and its lines
        are the seeds.

        Args:
            base: the configuration to differ from, the defaults where None.
        """
        usual = base.model_dump() if base else _defaults()
        mine = sorted(self.model_dump(exclude={"cell", "seed"}).items())
        return ",".join(f"{name.upper()}={value}" for name, value in mine if value != usual[name])

    def but(self, **changes):
        """A copy with some fields changed, validated."""
        return validated(TrialConfig, self.model_dump() | changes, "TrialConfig")


@cache
def _defaults():
    """The lab's values; a list of ten thousand trials asks for them as often."""
    return TrialConfig().model_dump()


def validated(model, values, where):
    """`model(**values)`, or a LabError that names place, field, value and cure of every fault."""
    try:
        return model(**values)
    except ValidationError as error:
        faults = [_fault(model, e) for e in error.errors()[:10]]
        if (more := error.error_count() - 10) > 0:
            faults.append(f"  and {more} more")
        message = "\n".join([f"{where}: {error.error_count()} bad value(s)", *faults])
        raise LabError(message) from None


def _fault(model, error):
    field = ".".join(str(part) for part in error["loc"])[:80] or "(all)"
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(field, model.model_fields, n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"known: {', '.join(model.model_fields)}"
        return f"  {field}: unknown parameter; {hint}"
    value = repr(error["input"])
    value = value if len(value) <= 80 else value[:77] + "..."
    message = error["msg"].removeprefix("Value error, ")
    return f"  {field} = {value}: {message[0].lower()}{message[1:]}"


def read_yaml(path):
    """A params file's mapping of names to plain values.

    Raises:
        LabError: the file is missing, is no UTF-8 YAML, holds tags, aliases or a repeated name,
            or is not a mapping of names.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no file")
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise OSError(f"it is larger than {MOST_BYTES >> 10} KiB, which no params file is")
        text = raw.decode("utf-8-sig")
        values = yaml.load(text, Loader=_PlainLoader) if text.strip() else {}
    except FileNotFoundError:
        raise LabError(f"{path}: no such params file; see params/quick for examples") from None
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise LabError(f"{path}: not plain YAML: {reason}; write `name: value` lines") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise LabError(
            f"{path}: holds a {type(values).__name__}, not parameters; write `name: value` lines"
        )
    for name in values:
        if not isinstance(name, str):
            raise LabError(
                f"{path}: parameter name {name!r} is read as {type(name).__name__}; quote it"
            )
    return values


class _PlainLoader(yaml.SafeLoader):
    """Safe YAML without aliases (they can blow up) and without names given twice."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"alias {self.peek_event().anchor!r} is not allowed here")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        names = Counter(repr(self.construct_object(key, deep=True)) for key, _ in node.value)
        if twice := [name for name, times in names.items() if times > 1]:
            raise yaml.YAMLError(f"{twice[0]} is given twice")
        return super().construct_mapping(node, deep)


def _number(kind, plain):
    """What is no plain decimal stays text, for the field to judge: YAML reads 010 as 8, 1:30 as
    90.
    """
    usual = yaml.SafeLoader.yaml_constructors[f"tag:yaml.org,2002:{kind}"]

    def construct(loader, node):
        return usual(loader, node) if re.fullmatch(plain, node.value) else node.value

    _PlainLoader.add_constructor(f"tag:yaml.org,2002:{kind}", construct)


_number("int", r"[-+]?(0|[1-9][0-9_]*)")
_number("float", "[^:]+")
