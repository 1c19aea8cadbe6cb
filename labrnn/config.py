"""The configuration of a training run, and params files.

Names, defaults and limits are the lab's. Two defects of the original study are options, corrected
by default: `readout` is a field of a run, `checkpoint` a parameter of a part.
"""

import difflib
import os
import re
from collections import Counter
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from labrnn.errors import LabError
from labrnn.files import read_file
from labrnn.folders import PROJECT
from labrnn.network.registry import CELLS, OPTIMIZERS

PARAMS = PROJECT / "params"
Optim = Literal[tuple(OPTIMIZERS)]
PRINTED = {"blanks": "whitespace", "marks": "punctuation"}  # printed names of values
MOST_BYTES = 1 << 18  # limit for a params file; the whole lab in one file needs less than a tenth


class Strict(BaseModel):
    """An immutable pydantic model that refuses unknown fields.

    It also refuses NaN, infinity, booleans in place of numbers, and texts with a NUL or an unpaired
    surrogate.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_elsewhere(cls, value, info):
        # Pydantic would take True for 1; YAML reads `yes`, `no`, `on` and `off` as booleans.
        if type(value) in (int, float):  # fast path; a boolean has another type
            return value
        values = value if isinstance(value, (list, tuple)) else [value]
        boolean = any(isinstance(one, bool) for one in values)
        if boolean and cls.model_fields[info.field_name].annotation is not bool:
            raise ValueError("a boolean; give a number, or put a word in quotes")
        if any(isinstance(one, str) and re.search("[\0\ud800-\udfff]", one) for one in values):
            raise ValueError("holds a NUL or an unpaired surrogate; remove it")
        return value


class TrialConfig(Strict):
    """One training run: data, model, optimisation, seed.

    A field without influence is set to its default: the readout of a unidirectional model, and the
    forget bias of a cell without a forget gate. Equal training runs thus have equal configurations.
    """

    # data
    train_reviews: int = Field(0, ge=0, description="training reviews in use, 0 for all")
    max_tokens: int = Field(
        256, ge=1, le=4096, description="maximum number of known words read per review"
    )
    min_count: int = Field(5, ge=1, description="fewest occurrences of a word in the training set")
    stop_words: Literal["drop", "keep_negations", "keep"] = "drop"
    duplicates: Literal["keep", "drop"] = "keep"
    words: Literal["blanks", "marks"] = Field(
        "blanks", description="tokens: split at whitespace, or words and punctuation"
    )
    min_bigram_count: int = Field(
        0, ge=0, description="fewest occurrences of a bigram in the training set; 0: no bigrams"
    )
    min_trigram_count: int = Field(0, ge=0, description="as min_bigram_count, of a trigram")
    # model
    cell: Literal[tuple(CELLS)] = "lstm"
    embedding_dim: int = Field(1, ge=1, le=256)
    embedding_init: Literal["xavier", "naive_bayes"] = Field(
        "xavier",
        description="start of the embedding; `naive_bayes`: its first dimension starts at the "
        "log-count ratios of the training reviews (Wang and Manning 2012)",
    )
    hidden_dim: int = Field(100, ge=10, le=320)
    n_layers: int = Field(1, ge=1, le=4)
    dropout_rate: float = Field(0.0, ge=0, lt=1)
    embedding_dropout: float = Field(0.0, ge=0, lt=1, description="on the recurrent layers' input")
    word_dropout: float = Field(0.0, ge=0, lt=1, description="of whole words and n-grams")
    adversarial: float = Field(
        0.0,
        ge=0,
        le=1,
        description="length of the adversarial perturbation of a review's vectors, as a share of "
        "their own (Miyato et al. 2017)",
    )
    bidirectional: bool = False
    readout: Literal["final_state", "last_step"] = Field(
        "final_state",
        description="final hidden state of each direction, or output at the last time step",
    )
    members: int = Field(
        1,
        ge=1,
        le=8,
        description="networks of this size, trained side by side; their logits are averaged",
    )
    recurrent_init: Literal["stacked", "per_gate"] = Field(
        "stacked", description="orthogonal for the stacked matrix of all gates, or for each gate"
    )
    forget_bias: float = Field(0.0, ge=-10, le=10)
    # optimisation
    optim: Optim = Field(
        "sgd",
        description="`sparse_adam` is Adam that updates only the embedding rows of a batch",
    )
    lr: float = Field(0.01, gt=0, le=10)
    warmup_steps: int = Field(200, ge=0)
    schedule: Literal["constant", "linear"] = Field(
        "constant",
        description="learning rate after the warm-up: constant, or linear to 0 at the end",
    )
    batch_size: int = Field(96, ge=1, le=4096)
    epochs: int = Field(5, ge=1, le=100)
    precision: Literal["float32", "bf16"] = Field(
        "float32",
        description="of the recurrent layers' matrix products on a CPU; sums, gates, states, "
        "weights and optimiser are float32 always",
    )
    calibrate: bool = Field(
        False, description="at the end, fit scale and bias of the logits to the validation reviews"
    )
    seed: int = Field(5, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _keep_to_the_limits(self):
        for name, most in (("hidden_dim", 320), ("embedding_dim", 256)):
            if self.members * getattr(self, name) > most:
                raise ValueError(f"members x {name} is above the lab's limit of {most}")
        return self

    @model_validator(mode="after")
    def _reset_what_has_no_influence(self):
        if self.readout == "last_step" and not self.bidirectional:
            self.__dict__["readout"] = "final_state"
        if CELLS[self.cell].forget_gate is None:
            self.__dict__["forget_bias"] = 0.0
        return self

    def difference(self, base=None):
        """List the fields that differ from the defaults, sorted, e.g. `LR=0.001,OPTIM=rmsprop`.

        Cell and seed are left out: a figure's title names the cell, and its lines are the seeds.

        Args:
            base: the configuration to compare with; the defaults if None.
        """
        usual = base.model_dump() if base else DEFAULTS
        own = sorted(self.model_dump(exclude={"cell", "seed"}).items())
        changed = [(name.upper(), value) for name, value in own if value != usual[name]]
        return ",".join(f"{name}={PRINTED.get(value, value)}" for name, value in changed)

    def replace(self, **changes):
        """Return a validated copy with some fields changed; LabError if a value is bad."""
        return validated(TrialConfig, self.model_dump() | changes, "TrialConfig")


DEFAULTS = TrialConfig().model_dump()


def validated(model, values, where):
    """Return `model(**values)`.

    Raises:
        LabError: names `where`, and the field and value of up to ten faults.
    """
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
    if error["type"] == "list_type" and isinstance(error["input"], str):
        message += f"; in papermill, write a list as -y '{field}: {error['input'][:40]}', not as -p"
    return f"  {field} = {value}: {message[0].lower()}{message[1:]}"


def find_params(name):
    """Return the path of the params file with a short name.

    Args:
        name: a path, which is returned unchanged, or a unique part of a file name: `lab2c` for
            `params/quick/lab2c_depth.yaml`, `full/lab2c` for the same file in `params/full`.

    Raises:
        LabError: the name matches no file, or several.
    """
    folder, _, short = name.rpartition("/")
    if Path(name).suffix or os.path.exists(name) or "/" in folder:
        return name
    known = {path.stem: str(path) for path in sorted((PARAMS / (folder or "quick")).glob("*.yaml"))}
    if short in known:
        return known[short]
    fit = [stem for stem in known if short and short in stem]
    if len(fit) == 1:
        return known[fit[0]]
    if fit:
        raise LabError(f"{name}: matches {' and '.join(fit)}; write more of the name")
    kinds = ", ".join(sorted({path.parent.name for path in PARAMS.glob("*/*.yaml")}))
    raise LabError(
        f"{name}: no params file has this name; params/{folder or 'quick'} holds "
        f"{', '.join(known) or 'none'}; other folders: {kinds}, as in full/lab2c"
    )


def read_yaml(path):
    """Read a params file, a mapping of names to plain values.

    Raises:
        LabError: the file is missing or not UTF-8 YAML; contains tags, aliases or a repeated
            name; or is not a mapping with text keys.
    """
    path = Path(path)
    try:
        text = read_file(path, MOST_BYTES).decode("utf-8-sig")
        values = yaml.load(text, Loader=_PlainLoader) if text.strip() else None
    except FileNotFoundError:
        raise LabError(f"{path}: no such params file; see params/quick for examples") from None
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise LabError(f"{path}: not plain YAML: {reason}; write `name: value` lines") from None
    if not isinstance(values, dict | None):
        raise LabError(
            f"{path}: contains a {type(values).__name__}, not parameters; write `name: value` lines"
        )
    return values or {}


class _PlainLoader(yaml.SafeLoader):
    """Safe YAML without tags, repeated or non-text keys, and aliases, which can grow endlessly."""

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"alias {event.anchor!r} is not allowed here")
        if getattr(event, "tag", None):
            raise yaml.YAMLError(f"tag {event.tag!r} is not allowed here")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        if odd := [name for name in names if not isinstance(name, str)]:
            raise yaml.YAMLError(f"{odd[0]!r} is read as {type(odd[0]).__name__}; quote it")
        if twice := [name for name, times in Counter(names).items() if times > 1]:
            raise yaml.YAMLError(f"{twice[0]!r} is given twice")
        return super().construct_mapping(node, deep)


def _number(kind, plain):
    """Keep a number that does not match `plain` as text, which its field then validates.

    YAML would read 010 as 8 and 1:30 as 90.
    """
    usual = yaml.SafeLoader.yaml_constructors[f"tag:yaml.org,2002:{kind}"]

    def construct(loader, node):
        return usual(loader, node) if re.fullmatch(plain, node.value) else node.value

    _PlainLoader.add_constructor(f"tag:yaml.org,2002:{kind}", construct)


_number("int", r"[-+]?(0|[1-9][0-9_]*)")
_number("float", "[^:]+")
