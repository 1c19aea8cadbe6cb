"""The lab's parts: the parameters of each notebook, and the trials that it asks for.

A part declares its settings as a pure function of its parameters, so that a batch run, a notebook
and a dry run agree on what is needed. A setting is a configuration that differs from the others
of its part in something the lab asks about; it is trained once with every seed.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import Field, field_validator

from labrnn.config import Strict, TrialConfig, read_yaml, validated
from labrnn.errors import LabError
from labrnn.results.published import name_of, published

Optim = Literal["sgd", "adagrad", "adam", "rmsprop"]
T = TypeVar("T")
# How and where a part runs: no cell of a notebook lists these fields, `Lab` takes them by name.
PLUMBING = ("data", "fingerprint", "store", "train", "jobs", "device")
Several = Annotated[list[T], Field(min_length=1, json_schema_extra={"uniqueItems": True})]


@dataclass(frozen=True)
class Setting:
    """One configuration of a part.

    Attributes:
        name: what the reports call it, e.g. `2 layers`.
        config: without its seed.
    """

    name: str
    config: TrialConfig

    def trials(self, seeds):
        """Its configurations, one a seed."""
        return [self.config.but(seed=seed) for seed in seeds]


class Part(Strict):
    """What every part can be told; the defaults are the quick setting, minutes on two cores."""

    name: ClassVar[str]
    title: ClassVar[str]
    trains: ClassVar[bool] = True
    fits_baselines: ClassVar[bool] = False

    data: str = Field("", description="reviews: a file or folder; empty for the packaged ones")
    fingerprint: str = Field(
        "",
        pattern="^([0-9a-f]{16})?$",
        description="expected fingerprint of the reviews, empty for any",
    )
    store: str = Field("", description="folder of the stored trials; empty for the usual one")
    train: bool = Field(True, description="train what is not stored; else show it as not run")
    jobs: int = Field(0, ge=0, le=1000, description="trainings at once, 0 for the number of cores")
    device: str = Field("", description="cpu, cuda, mps; empty for the best at hand")
    checkpoint: Literal["best", "last"] = Field(
        "best", description="tested epoch: lowest validation loss, or the last as published"
    )

    seeds: Several[int] = Field([5], description="each setting is trained with each")
    epochs: int = Field(5, ge=1, le=100, description="passes over the training reviews")
    train_reviews: int = Field(8000, ge=0, description="training reviews in use, 0 for all")
    max_tokens: int = Field(128, ge=1, le=4096, description="known words kept of a review")
    batch_size: int = Field(32, ge=1, le=4096, description="reviews a step; the lab takes 96")

    @field_validator("*")
    @classmethod
    def _lists_hold_each_value_once(cls, value):
        if isinstance(value, list):
            repeated, times = Counter(value).most_common(1)[0]
            if times > 1:
                raise ValueError(f"holds {repeated!r} {times} times; give each value once")
        return value

    @classmethod
    def own_fields(cls):
        """Names of the fields that the part's notebook lists: its own, then those of every part."""
        own = [name for name in cls.model_fields if name not in Part.model_fields]
        return own + [name for name in Part.model_fields if name not in PLUMBING]

    def given(self):
        """The values that papermill gives to the notebook, plumbing only where it is not usual."""
        values, fields = self.model_dump(mode="json"), type(self).model_fields
        return {n: v for n, v in values.items() if n not in PLUMBING or v != fields[n].default}

    @cached_property
    def base(self):
        """The lab's defaults under this part's data and length."""
        names = {"epochs", "train_reviews", "max_tokens", "batch_size"}
        return TrialConfig(**self.model_dump(include=names))

    def settings(self):
        """The part's settings, in the lab's order."""
        return []

    def trials(self):
        """Every trial of the part."""
        return [trial for setting in self.settings() for trial in setting.trials(self.seeds)]


class Lstm(Part):
    name, title = "lab1_lstm", "The LSTM classifier, trained with SGD"
    cell: ClassVar[str] = "lstm"

    lr: float = Field(0.01, gt=0, le=10, description="learning rate of SGD after the warm-up")
    reader_lr: float = Field(
        0.003, gt=0, le=10, description="of the model that reads sentences; the lab takes 0.001"
    )

    def settings(self):
        return [Setting(self.cell.upper(), self.base.but(cell=self.cell, lr=self.lr))]

    @property
    def reader(self):
        """The RMSprop model of Lab 2 a or b: it trains, so it has an opinion to show."""
        return self.base.but(cell=self.cell, optim="rmsprop", lr=self.reader_lr)

    def trials(self):
        return super().trials() + [self.reader.but(seed=seed) for seed in self.seeds]


class Gru(Lstm):
    name, title = "lab1_gru", "The GRU classifier, trained with SGD"
    cell = "gru"


OPTIMIZERS = {"adagrad": "Adagrad", "adam": "Adam", "rmsprop": "RMSprop", "sgd": "SGD"}


class LstmOptimizers(Part):
    name, title = "lab2a_lstm_optimizers", "Four optimisers for the LSTM"
    cell: ClassVar[str] = "lstm"

    optimizers: Several[Optim] = Field(list(OPTIMIZERS), description="which to compare")
    lr: float = Field(0.003, gt=0, le=10, description="of the adaptive ones; the lab takes 0.001")
    sgd_lr: float = Field(0.01, gt=0, le=10, description="learning rate of SGD")

    def settings(self):
        return self._of(self.cell)

    def _of(self, cell):
        rates = {"sgd": self.sgd_lr}
        return [
            Setting(OPTIMIZERS[o], self.base.but(cell=cell, optim=o, lr=rates.get(o, self.lr)))
            for o in self.optimizers
        ]


class GruOptimizers(LstmOptimizers):
    name, title = "lab2b_gru_optimizers", "Four optimisers for the GRU, and the two cells compared"
    cell = "gru"

    def rivals(self):
        """The LSTM under the same optimisers, for the comparison of the cells."""
        return self._of("lstm")

    def trials(self):
        rivals = [trial for setting in self.rivals() for trial in setting.trials(self.seeds)]
        return super().trials() + rivals


class _Tuned(Part):
    optim: Optim = Field("rmsprop", description="optimiser of all trials")
    lr: float = Field(0.003, gt=0, le=10, description="learning rate; the lab takes 0.001")

    @property
    def tuned(self):
        """The base under the part's optimiser."""
        return self.base.but(optim=self.optim, lr=self.lr)


class _OneDimension(_Tuned):
    """One dimension of the LSTM changed, the others as they are."""

    field: ClassVar[str]
    unit: ClassVar[str]

    def values(self):
        return getattr(
            self, {"n_layers": "depths", "hidden_dim": "widths"}.get(self.field, "sizes")
        )

    def settings(self):
        return [Setting(self._named(v), self.tuned.but(**{self.field: v})) for v in self.values()]

    def _named(self, value):
        return f"{value} {self.unit if value != 1 else self.unit.removesuffix('s')}"


class Depth(_OneDimension):
    name, title = "lab2c_depth", "Deeper: one to four layers"
    field, unit = "n_layers", "layers"
    depths: Several[int] = Field([1, 2, 3, 4], description="numbers of layers to compare")


class Width(_OneDimension):
    name, title = "lab2d_width", "Wider: hidden states of 10 to 319 units"
    field, unit = "hidden_dim", "units"
    widths: Several[int] = Field(
        [10, 16, 20, 32, 50, 64, 100, 128],
        max_length=8,
        description="units to compare; the lab goes to 319",
    )


class EmbeddingSize(_OneDimension):
    name, title = "lab2e_embedding", "Embeddings of one to 256 dimensions"
    field, unit = "embedding_dim", "dimensions"
    sizes: Several[int] = Field(
        [1, 2, 4, 8, 16, 32, 64, 100],
        max_length=8,
        description="embedding dimensions; the lab goes to 256",
    )


class Compound(_Tuned):
    name, title = "lab2f_compound", "Compound scaling: depth, width and embedding together"

    depths: Several[int] = Field([1, 2, 3, 4], description="numbers of layers")
    train_reviews: int = Field(2000, ge=0, description="training reviews in use, 0 for all")
    widths: Several[int] = Field([10, 20, 30, 40], description="units; the lab: 20, 280, 290, 305")
    sizes: Several[int] = Field([8, 16, 32], description="embedding; the lab: 32, 188, 256")
    max_trials: int = Field(
        50, ge=1, le=50, validate_default=True, description="the lab's limit on the grid"
    )
    study_widths: Several[int] = Field(
        [10, 20, 50, 128], max_length=8, description="of the study of width alone, see lab2d_width"
    )
    study_sizes: Several[int] = Field(
        [1, 4, 16, 64], max_length=8, description="of the study of embeddings alone"
    )

    @field_validator("max_trials")
    @classmethod
    def _holds_the_grid(cls, most, info):
        lists = [info.data.get(name, []) for name in ("depths", "widths", "sizes")]
        if (trials := prod(map(len, lists))) > most:
            raise ValueError(f"depths × widths × sizes are {trials} trials; shorten a list")
        return most

    def settings(self):
        return [
            Setting(
                f"E{e} H{h} L{n}",
                self.tuned.but(
                    n_layers=n,
                    hidden_dim=h,
                    embedding_dim=e,
                    dropout_rate=compound_dropout(n, h, e),
                ),
            )
            for n in self.depths
            for h in self.widths
            for e in self.sizes
        ]

    def studies(self):
        """Labs 2 c to e under this part's data and optimiser, to hold the grid against."""
        same = self.model_dump(include=set(_OneDimension.model_fields))
        return {
            "depth": Depth(**same, depths=self.depths),
            "width": Width(**same, widths=self.study_widths),
            "embedding": EmbeddingSize(**same, sizes=self.study_sizes),
        }

    def trials(self):
        return super().trials() + [t for study in self.studies().values() for t in study.trials()]


def compound_dropout(n_layers, hidden_dim, embedding_dim):
    """The lab's rule for the compound trials: 0.2 for the larger ones."""
    return 0.2 if n_layers >= 3 or hidden_dim >= 250 or embedding_dim >= 200 else 0.0


class Bidirectional(_Tuned):
    name, title = "lab2g_bidirectional", "Reading both ways"

    wide: int = Field(64, ge=10, le=320, description="units of the large model; the lab takes 305")
    narrow: int = Field(20, ge=10, le=320, description="units of the small model")
    embedding_dim: int = Field(32, ge=1, le=256, description="embedding dimensions of all trials")

    def settings(self):
        """Figures 9 to 11, the one-way partners that (f) has trained, and the other readout."""
        base = self.tuned.but(embedding_dim=self.embedding_dim)
        wide = base.but(hidden_dim=self.wide, dropout_rate=0.2)
        narrow = base.but(hidden_dim=self.narrow)
        drawn = {
            "two-layer LSTM both ways": wide.but(n_layers=2, bidirectional=True),
            "one-layer LSTM both ways": wide.but(bidirectional=True),
            "small LSTM both ways": narrow.but(bidirectional=True),
            "small LSTM one way": narrow,
            "two-layer GRU both ways": wide.but(cell="gru", n_layers=2, bidirectional=True),
            "two-layer GRU one way": wide.but(cell="gru", n_layers=2),
        }
        one_way = {"two-layer LSTM one way": wide.but(n_layers=2), "one-layer LSTM one way": wide}
        last_step = {
            f"{name} at the last step": config.but(readout="last_step")
            for name, config in drawn.items()
            if config.bidirectional
        }
        return [Setting(*case) for case in (drawn | one_way | last_step).items()]


class _TwoCells(_Tuned):
    def settings(self):
        """An LSTM and a GRU of Lab 2 a and b."""
        return [Setting("LSTM", self.tuned), Setting("GRU", self.tuned.but(cell="gru"))]


class Questions(_TwoCells):
    """The two models' embedding and gates bear statements out."""

    name, title = "questions", "Ten statements, true or false"


class Reproduction(Part):
    """All published trainings; it shows what other parts have trained and trains nothing."""

    name, title = "reproduction", "Our trainings beside the published 79"
    trains: ClassVar[bool] = False

    train: bool = Field(False, description="it shows what is stored and trains nothing")
    lr: float = Field(0.003, gt=0, le=10, description="of the adaptive ones; the lab takes 0.001")
    sgd_lr: float = Field(0.01, gt=0, le=10, description="learning rate of SGD")

    def settings(self):
        """The published way: bidirectional models are read at the last step."""
        return [Setting(name_of(row), self._config(row)) for row in published().itertuples()]

    def _config(self, row):
        return self.base.but(
            cell=row.cell,
            optim=row.optimizer,
            lr=self.sgd_lr if row.optimizer == "sgd" else self.lr,
            n_layers=row.n_layers,
            hidden_dim=row.hidden_dim,
            embedding_dim=row.embedding_dim,
            dropout_rate=row.dropout,
            bidirectional=row.bidirectional,
            readout="last_step",
        )

    def trials(self):
        """Both readouts of the bidirectional ones."""
        published_way = super().trials()
        return published_way + [t.but(readout="final_state") for t in published_way]


class Data(Part):
    name, title = "lab1_data", "Reviews, vocabulary, tokens"


class BeyondBaselines(_TwoCells):
    """The two models beside models without a network, see `labrnn.results.baselines`."""

    name, title = "beyond_baselines", "What simpler models reach"
    fits_baselines: ClassVar[bool] = True


class BeyondDefects(Part):
    """Each published defect beside the right way, nothing else changed."""

    name, title = "beyond_defects", "What the published defects cost"

    seeds: Several[int] = Field([5, 6, 7], description="each setting has each of them")
    epochs: int = Field(4, ge=1, le=100, description="passes over the training reviews")
    train_reviews: int = Field(3000, ge=0, description="training reviews in use, 0 for all")
    max_tokens: int = Field(64, ge=1, le=4096, description="known words kept of a review")
    optim: Optim = Field("adam", description="optimiser of all trials; the lab takes rmsprop")
    lr: float = Field(0.003, gt=0, le=10, description="learning rate; the lab takes 0.001")
    hidden_dim: int = Field(20, ge=10, le=320, description="units of one-way models; the lab: 100")
    depth: int = Field(3, ge=2, le=4, description="layers of the deep models")
    narrow: int = Field(20, ge=10, le=320, description="units of the model that reads both ways")
    embedding_dim: int = Field(32, ge=1, le=256, description="of the model that reads both ways")

    def pairs(self):
        """(Right way, published way) for each defect that takes a training; one field apart."""
        base = self.base.but(optim=self.optim, lr=self.lr, hidden_dim=self.hidden_dim)
        flat = Setting("1 layer", base)
        deep = Setting(f"{self.depth} layers", base.but(n_layers=self.depth))
        both = base.but(
            hidden_dim=self.narrow, bidirectional=True, embedding_dim=self.embedding_dim
        )
        last_step = Setting("Both ways at last step", both.but(readout="last_step"))
        starts = {
            "Each gate orthogonal": {"recurrent_init": "per_gate"},
            "Forget bias 1": {"forget_bias": 1.0},
        }
        texts = {
            "Negations kept": {"stop_words": "keep_negations"},
            "All stop words kept": {"stop_words": "keep"},
            "Duplicates dropped": {"duplicates": "drop"},
        }
        return [
            (Setting("Both ways at final states", both), last_step),
            *(
                (Setting(f"{name} ({old.name})", old.config.but(**change)), old)
                for old in (flat, deep)
                for name, change in starts.items()
            ),
            *((Setting(name, base.but(**change)), flat) for name, change in texts.items()),
        ]

    def settings(self):
        """The published way first where several pairs share it."""
        return list(dict.fromkeys(s for right, old in self.pairs() for s in (old, right)))


class BeyondBest(Part):
    """The best recurrent classifier found within the lab's limits, and what each lever is worth.

    How it was found: docs/decisions.md. The defaults are small enough for the quick setting.
    """

    name, title = "beyond_best", "The best recurrent classifier"
    fits_baselines: ClassVar[bool] = True

    seeds: Several[int] = Field([5, 6, 7], description="each setting has each of them")
    epochs: int = Field(4, ge=1, le=100, description="passes over the training reviews")
    longest: int = Field(400, ge=1, le=4096, description="known words kept, instead of max_tokens")
    lr: float = Field(0.002, gt=0, le=10, description="of Adam, after the warm-up")
    hidden_dim: int = Field(32, ge=10, le=320, description="units of each direction")
    embedding_dim: int = Field(32, ge=1, le=256, description="of words and of bigrams")
    min_bigram_count: int = Field(5, ge=1, description="a bigram's least occurrences in training")
    word_dropout: float = Field(0.6, ge=0, lt=1, description="of words and bigrams as a whole")
    embedding_dropout: float = Field(0.6, ge=0, lt=1, description="of the recurrent layer's input")
    dropout_rate: float = Field(0.5, ge=0, lt=1, description="before the linear layer")

    def levers(self):
        """Each lever's fields at work; without it they are the lab's."""
        start = {"forget_bias": 1.0, "recurrent_init": "per_gate"}
        dropout = {"embedding_dropout", "word_dropout", "dropout_rate"}
        return {
            "the ends of long reviews": {"max_tokens": self.longest},
            "bigrams": {"min_bigram_count": self.min_bigram_count},
            "a linear path beside the network": {"linear_path": True},
            "pooling": {"readout": "mean"},
            "the second direction": {"bidirectional": True},
            "stop words": {"stop_words": "keep"},
            "punctuation marks": {"words": "marks"},
            "dropout": self.model_dump(include=dropout),
            "a falling rate": {"schedule": "linear"},
            "calibration": {"calibrate": True},
            "an open forget gate and orthogonal gates": start,
        }

    def settings(self):
        """With every lever, and without each."""
        best = self.base.but(
            optim="sparse_adam",
            **self.model_dump(include={"lr", "hidden_dim", "embedding_dim"}),
            **{
                field: value for change in self.levers().values() for field, value in change.items()
            },
        )
        usual = self.base.model_dump()
        return [
            Setting("classifier with every lever", best),
            *(
                Setting(f"Without {name}", best.but(**{field: usual[field] for field in change}))
                for name, change in self.levers().items()
            ),
        ]


def part_named(name, where):
    """The class of the part with this name. Raises LabError, which begins with `where`."""
    if name not in PARTS:
        raise LabError(f"{where}: no part is called {name!r}; known: {', '.join(PARTS)}")
    return PARTS[name]


PARTS = {
    part.name: part
    for part in (
        Questions,
        Data,
        Lstm,
        Gru,
        LstmOptimizers,
        GruOptimizers,
        Depth,
        Width,
        EmbeddingSize,
        Compound,
        Bidirectional,
        Reproduction,
        BeyondBaselines,
        BeyondDefects,
        BeyondBest,
    )
}


def read_params(path):
    """The part that a params file configures, validated; the file is named after its part.

    Raises:
        LabError: no such part, or a parameter is unknown or bad.
    """
    path = Path(path)
    part = validated(part_named(path.stem, path), read_yaml(path), path)
    try:
        part.trials()  # a value in a list is judged where it becomes a trial's
    except LabError as error:
        raise LabError(f"{path}: {error}") from None
    return part


def by_source(parts):
    """The trials of the parts that train, by (data, fingerprint, store, device)."""
    found = {}
    for part in (part for part in parts if part.trains):
        place = part.data, part.fingerprint, part.store, part.device
        found.setdefault(place, []).extend(part.trials())
    return found
