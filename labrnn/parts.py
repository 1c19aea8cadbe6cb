"""The lab's parts: the parameters of each notebook, its settings, comparisons and claims.

The settings, pairs and published claims of a part are pure functions of its parameters. A batch
run, a notebook and a dry run therefore need the same training runs. A setting is a configuration
without its seed; it is trained once per seed.
"""

from collections import ChainMap, Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import Field, field_validator

from labrnn.config import Optim, Strict, TrialConfig, read_yaml, validated
from labrnn.errors import LabError
from labrnn.network.registry import OPTIMIZERS
from labrnn.published import MODEL, conclusions, name_of, published

T = TypeVar("T")
# The limits of `TrialConfig`.
Rate = Annotated[float, Field(gt=0, le=10)]
Units = Annotated[int, Field(ge=10, le=320)]
Share = Annotated[float, Field(ge=0, lt=1)]
Epochs = Annotated[int, Field(ge=1, le=100)]
Length = Annotated[int, Field(ge=1, le=4096)]
Dimensions = Annotated[int, Field(ge=1, le=256)]
# How and where a part runs: no parameters cell lists these fields; `Lab` takes them by name.
PLUMBING = ("data", "fingerprint", "store", "train", "jobs", "device")
PARTS = {}  # name -> class of a part, in the order of this file
Several = Annotated[list[T], Field(min_length=1, json_schema_extra={"uniqueItems": True})]
Curves = Annotated[Several[int], Field(max_length=8)]  # the most that a figure can distinguish


@dataclass(frozen=True)
class Setting:
    """One configuration of a part.

    Attributes:
        name: its name in tables, e.g. `2 layers`.
        config: its `TrialConfig`, with the default seed.
        many: whether the name is a plural.
        title: its name in a sentence, with an article; `name` if empty.
    """

    name: str
    config: TrialConfig
    many: bool = False
    title: str = ""

    def trials(self, seeds):
        """Return its configurations, one per seed."""
        return [self.config.replace(seed=seed) for seed in seeds]


def _model(name, config):
    return Setting(name, config, title=f"the {name}")


@dataclass(frozen=True)
class Pair:
    """Two settings to compare: the first minus the second.

    Attributes:
        second: None for the part's setting with the highest validation accuracy.
        kind: what the two settings differ in, if a part compares several things.
        name: name of the difference in figures.
    """

    first: Setting
    second: Setting | None
    kind: str = ""
    name: str = ""


@dataclass(frozen=True)
class Claim:
    """A published conclusion as a testable statement, see docs/verdicts.md.

    Attributes:
        published, statement, rule: as in `published_claims.yaml`; the rule is a key of
            `labrnn.results.verdicts.RULES`.
        pairs: (setting, setting) that the rule compares; the second is None for a rule about one
            setting. The statement must hold for every pair.
    """

    published: str
    statement: str
    rule: str
    pairs: tuple


class Part(Strict):
    """The parameters that all parts share.

    The defaults are the notebooks' own: 8,000 training reviews of at most 128 known words.
    `params/quick` and `params/full` override them.
    """

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
    store: str = Field("", description="run store; empty for the default one")
    train: bool = Field(True, description="train what is not stored; else show it as not run")
    jobs: int = Field(0, ge=0, le=1000, description="training runs at once, 0: all cores")
    device: str = Field("", description="cpu, cuda or mps; empty: the fastest")
    checkpoint: Literal["best", "last"] = Field(
        "best", description="tested epoch: lowest validation loss, or the last as published"
    )

    seeds: Several[int] = Field([5], description="every setting is trained once per seed")
    epochs: Epochs = Field(5, description="passes over the training reviews")
    train_reviews: int = Field(8000, ge=0, description="training reviews in use, 0 for all")
    max_tokens: Length = Field(128, description="maximum number of known words read per review")
    batch_size: int = Field(32, ge=1, le=4096, description="batch size (lab: 96)")

    @classmethod
    def __pydantic_init_subclass__(cls, **_):
        if "name" in vars(cls):
            PARTS[cls.name] = cls

    @field_validator("*")
    @classmethod
    def _lists_hold_each_value_once(cls, value):
        if isinstance(value, list) and value:
            repeated, times = Counter(value).most_common(1)[0]
            if times > 1:
                raise ValueError(f"holds {repeated!r} {times} times; give each value once")
        return value

    @classmethod
    def own_fields(cls):
        """Return the fields that the notebook lists: the part's own, then the shared ones."""
        own = [name for name in cls.model_fields if name not in Part.model_fields]
        return own + [name for name in Part.model_fields if name not in PLUMBING]

    def given(self):
        """Return the parameters for papermill; fields of `PLUMBING` only if they were changed."""
        values, fields = self.model_dump(mode="json"), type(self).model_fields
        return {n: v for n, v in values.items() if n not in PLUMBING or v != fields[n].default}

    @cached_property
    def base(self):
        """The lab's defaults with this part's epochs, batch size, reviews and length."""
        names = {"epochs", "train_reviews", "max_tokens", "batch_size"}
        return TrialConfig(**self.model_dump(include=names))

    def settings(self):
        """The part's settings, in the lab's order."""
        return []

    def others(self):
        """Further settings to train, with which the part compares its own."""
        return []

    def pairs(self):
        """The `Pair`s that the part compares; their p-values are corrected together."""
        return []

    def groups(self):
        """Name -> settings; the best of each group on validation are compared with each other."""
        return {}

    def conclusions(self):
        """Name in `published_claims.yaml` -> pairs of settings that test it, possibly none."""
        return {}

    def claims(self):
        """The `Claim`s that the part can test under its parameters."""
        cell = getattr(self, "cell", "").upper()
        return [
            Claim(**{k: text.format(cell=cell) for k, text in texts.items()}, pairs=tuple(pairs))
            for name, pairs in self.conclusions().items()
            if pairs and (texts := conclusions()[name])
        ]

    def trials(self):
        """Return the `TrialConfig` of every run of the part."""
        settings = dict.fromkeys([*self.settings(), *self.others()])
        return [t for setting in settings for t in setting.trials(self.seeds_of(setting))]

    def seeds_of(self, setting):
        """Return the seeds with which a setting is trained."""
        return self.seeds


class _Tuned(Part):
    optim: Optim = Field("rmsprop", description="optimiser of all runs")
    lr: Rate = Field(0.003, description="learning rate (lab: 0.001)")

    @property
    def tuned(self):
        """The base configuration with the part's optimiser and learning rate."""
        return self.base.replace(optim=self.optim, lr=self.lr)


class _TwoCells(_Tuned):
    def settings(self):
        """The LSTM and the GRU of Lab 2 a and b."""
        how = f"with {OPTIMIZERS[self.optim].name}"
        return [
            Setting("LSTM", self.tuned, title=f"the LSTM {how}"),
            Setting("GRU", self.tuned.replace(cell="gru"), title=f"the GRU {how}"),
        ]


class Questions(_TwoCells):
    """The two models whose embeddings and gates the checks examine."""

    name, title = "questions", "Ten statements, true or false"


class Data(Part):
    name, title = "lab1_data", "Reviews, vocabulary, tokens"


class Lstm(Part):
    """The LSTM with SGD, and the demo model that classifies sentences."""

    name, title = "lab1_lstm", "The LSTM classifier, trained with SGD"
    cell: ClassVar[str] = "lstm"

    lr: Rate = Field(0.01, description="learning rate of SGD after the warm-up")
    reader_lr: Rate = Field(0.003, description="learning rate of the demo model (lab: 0.001)")

    rates: list[float] = Field(
        [], description="higher learning rates of SGD: are its steps too small?"
    )

    def settings(self):
        return [_model(self.cell.upper(), self.base.replace(cell=self.cell, lr=self.lr))]

    def probes(self):
        """Settings that may let SGD train: larger steps; for the LSTM also a forget bias of 1."""
        config = self.settings()[0].config
        found = [Setting(f"a learning rate of {r:g}", config.replace(lr=r)) for r in self.rates]
        if self.rates and self.cell == "lstm":
            found.append(Setting("a forget bias of 1", config.replace(forget_bias=1.0)))
        return found

    @property
    def reader(self):
        """The demo model, from Lab 2 a or b with RMSprop; the model with SGD does not train."""
        return self.base.replace(cell=self.cell, optim="rmsprop", lr=self.reader_lr)

    def others(self):
        return [Setting("reader", self.reader), *self.probes()]

    def conclusions(self):
        return {"sgd": [(setting, None) for setting in self.settings()]}


class Gru(Lstm):
    name, title = "lab1_gru", "The GRU classifier, trained with SGD"
    cell = "gru"


TUNED = ("adam", "rmsprop")  # the optimisers whose rate is tuned


class LstmOptimizers(Part):
    """Compare optimisers, and learning rates of Adam and RMSprop."""

    name, title = "lab2a_lstm_optimizers", "Four optimisers for the LSTM"
    cell: ClassVar[str] = "lstm"

    optimizers: Several[Optim] = Field(
        ["adagrad", "adam", "rmsprop", "sgd"], description="optimisers to compare"
    )
    lr: Rate = Field(0.003, description="learning rate of the adaptive optimisers (lab: 0.001)")
    sgd_lr: Rate = Field(0.01, description="learning rate of SGD")
    rates: list[float] = Field([], description="rates for Adam and RMSprop, selected on validation")

    def settings(self):
        return list(self._of(self.cell).values())

    def others(self):
        return [setting for group in self.groups().values() for setting in group]

    def seeds_of(self, setting):
        """Return three seeds for learning rates that are only compared with each other."""
        return self.seeds[:3] if setting.config.lr in {*self.rates} - {self.lr} else self.seeds

    def pairs(self):
        return [Pair(setting, None) for setting in self.settings()]

    def groups(self):
        """Adam and RMSprop with each learning rate."""
        base = self.base.replace(cell=self.cell)
        return {
            OPTIMIZERS[o].name: [
                Setting(f"{OPTIMIZERS[o].name} at {rate:g}", base.replace(optim=o, lr=rate))
                for rate in self.rates
            ]
            for o in TUNED
            if self.rates and o in self.optimizers
        }

    def conclusions(self):
        ours = self._of(self.cell)
        best, slow = ours.get("rmsprop"), ours.get("adagrad")
        fast = [ours[o] for o in ("adam", "rmsprop") if o in ours]
        return {
            "rmsprop": [(best, s) for s in ours.values() if best and s != best],
            "adagrad": [(slow, s) for s in fast if slow],
        }

    def _of(self, cell):
        """Return optimiser -> setting, for a cell."""
        rates = dict.fromkeys(self.optimizers, self.lr) | {"sgd": self.sgd_lr}
        configs = {o: self.base.replace(cell=cell, optim=o, lr=rates[o]) for o in self.optimizers}
        return {o: Setting(OPTIMIZERS[o].name, config) for o, config in configs.items()}


class GruOptimizers(LstmOptimizers):
    """`LstmOptimizers` for the GRU; also compares GRU and LSTM for each optimiser."""

    name, title = "lab2b_gru_optimizers", "Four optimisers for the GRU, and the two cells compared"
    cell = "gru"

    def rivals(self):
        """(GRU, LSTM) for each optimiser."""
        return list(zip(self.settings(), self._of("lstm").values(), strict=True))

    def others(self):
        return super().others() + [lstm for _, lstm in self.rivals()]

    def pairs(self):
        return super().pairs() + [Pair(*rivals, "cells") for rivals in self.rivals()]

    def conclusions(self):
        adaptive = [(lstm, gru) for gru, lstm in self.rivals() if gru.config.optim != "sgd"]
        return super().conclusions() | {"gru_speed": adaptive, "gru_size": self.rivals()[:1]}


class _OneDimension(_Tuned):
    """Change one dimension of the LSTM and keep the others."""

    values: ClassVar[str]  # the parameter that lists the dimension's values
    field: ClassVar[str]  # the dimension
    unit: ClassVar[str]  # what it counts
    usual: ClassVar[int]  # the lab's own value

    def settings(self):
        return [self._setting(value) for value in getattr(self, self.values)]

    def _setting(self, value):
        unit = self.unit if value != 1 else self.unit.removesuffix("s")
        return Setting(f"{value} {unit}", self.tuned.replace(**{self.field: value}), value != 1)

    def reference(self):
        """The setting that the others are compared with: the lab's default, if it is listed."""
        usual = self._setting(self.usual)
        return usual if usual in self.settings() else None

    def pairs(self):
        return [Pair(setting, self.reference()) for setting in self.settings()]

    def _against_usual(self, *values):
        """Pairs for a claim about these values; empty if the part does not train all of them."""
        pairs = [(self._setting(value), self._setting(self.usual)) for value in values]
        return pairs if {s for pair in pairs for s in pair} <= {*self.settings()} else []

    def _alone(self, *values):
        return [(setting, None) for setting, _ in self._against_usual(*values)]


class Depth(_OneDimension):
    name, title = "lab2c_depth", "Deeper: one to four layers"
    values, field, unit, usual = "depths", "n_layers", "layers", 1
    depths: Several[int] = Field([1, 2, 3, 4], description="numbers of layers to compare")

    def conclusions(self):
        return {"two_layers": self._against_usual(2), "more_layers": self._alone(3, 4)}


class Width(_OneDimension):
    name, title = "lab2d_width", "Wider: hidden states of 10 to 319 units"
    values, field, unit, usual = "widths", "hidden_dim", "units", 100
    widths: Curves = Field([10, 16, 20, 32, 50, 64, 100, 128], description="units (lab: up to 319)")

    def conclusions(self):
        equal = self._against_usual(10, 20, 150, 200, 260, 285)
        return {"widths": equal, "largest_width": self._alone(319)}


class EmbeddingSize(_OneDimension):
    name, title = "lab2e_embedding", "Embeddings of one to 256 dimensions"
    values, field, unit, usual = "sizes", "embedding_dim", "dimensions", 1
    sizes: Curves = Field([1, 2, 4, 8, 16, 32, 64, 100], description="dimensions (lab: up to 256)")

    def conclusions(self):
        return {"embeddings": self._against_usual(2, 8, 32, 64, 128, 188, 256)}


class Compound(_Tuned):
    """A grid of depth, width and embedding size, and sweeps of each dimension alone."""

    name, title = "lab2f_compound", "Compound scaling: depth, width and embedding together"

    depths: Several[int] = Field([1, 2, 3, 4], description="numbers of layers")
    train_reviews: int = Field(2000, ge=0, description="training reviews in use, 0 for all")
    widths: Several[int] = Field([10, 20, 30, 40], description="units (lab: 20, 280, 290, 305)")
    sizes: Several[int] = Field(
        [8, 16, 32], validate_default=True, description="embedding dimensions (lab: 32, 188, 256)"
    )
    study_widths: Curves = Field([10, 20, 50, 128], description="widths to change alone")
    study_sizes: Curves = Field([1, 4, 16, 64], description="embedding sizes to change alone")

    @field_validator("sizes")
    @classmethod
    def _fit_the_grid(cls, sizes, info):
        trials = len(sizes) * prod(len(info.data.get(name, [])) for name in ("depths", "widths"))
        if trials > 50:  # the lab's limit
            raise ValueError(
                f"depths × widths × sizes are {trials} trials, at most 50; shorten one"
            )
        return sizes

    def settings(self):
        return [
            Setting(f"E{e} H{h} L{n}", self._config(n_layers=n, hidden_dim=h, embedding_dim=e))
            for n, h, e in product(self.depths, self.widths, self.sizes)
        ]

    def _config(self, **size):
        return self.tuned.replace(**size, dropout_rate=compound_dropout(**size))

    def studies(self):
        """Labs 2 c to e with this part's data and optimiser, for comparison with the grid."""
        same = self.model_dump(include=set(_OneDimension.model_fields))
        return {
            "depth alone": Depth(**same, depths=self.depths),
            "width alone": Width(**same, widths=self.study_widths),
            "embedding alone": EmbeddingSize(**same, sizes=self.study_sizes),
        }

    def others(self):
        return [s for study in self.studies().values() for s in study.settings()]

    def pairs(self):
        return [Pair(setting, None) for setting in self.settings()]

    def groups(self):
        alone = {name: study.settings() for name, study in self.studies().items()}
        return {"the grid": self.settings()} | alone

    def conclusions(self):
        grid = {s.name: s for s in self.settings()}
        best, small = grid.get("E32 H305 L2"), grid.get("E32 H20 L1")
        return {
            "best_compound": [(best, s) for s in grid.values() if best and s != best],
            "best_for_its_size": [(small, s) for s in grid.values() if small and s != small],
        }


def compound_dropout(n_layers, hidden_dim, embedding_dim):
    """Return the lab's dropout of a compound trial: 0.2 for large models. An exercise uses it."""
    return 0.2 if n_layers >= 3 or hidden_dim >= 250 or embedding_dim >= 200 else 0.0


class Bidirectional(_Tuned):
    """Compare bidirectional with unidirectional models, and the two readouts."""

    name, title = "lab2g_bidirectional", "Bidirectional models"

    wide: Units = Field(64, description="units of the large model (lab: 305)")
    narrow: Units = Field(20, description="units of the small model")
    embedding_dim: Dimensions = Field(32, description="embedding dimensions of all runs")

    def models(self):
        """(Bidirectional, unidirectional, bidirectional at the last time step), for four models."""
        base = self.tuned.replace(embedding_dim=self.embedding_dim)
        wide = base.replace(hidden_dim=self.wide, dropout_rate=0.2)
        models = {
            "two-layer LSTM": wide.replace(n_layers=2),
            "one-layer LSTM": wide,
            "small LSTM": base.replace(hidden_dim=self.narrow),
            "two-layer GRU": wide.replace(cell="gru", n_layers=2),
        }
        last = {"bidirectional": True, "readout": "last_step"}
        return [
            (
                _model(f"bidirectional {name}", config.replace(bidirectional=True)),
                _model(f"unidirectional {name}", config),
                _model(f"bidirectional {name} at the last time step", config.replace(**last)),
            )
            for name, config in models.items()
        ]

    def settings(self):
        """In the order of figures 9 to 11; the unidirectional models of figure 9 are in Lab 2 f."""
        both, single, last = zip(*self.models(), strict=True)
        return [*both[:2], both[2], single[2], both[3], single[3], *single[:2], *last]

    def pairs(self):
        others = ("direction", 1, " − unidirectional"), ("readout", 2, ", final − last time step")
        return [
            Pair(m[0], m[k], kind, m[0].name + name)
            for kind, k, name in others
            for m in self.models()
        ]

    def conclusions(self):
        return {"bidirectional": [(both, single) for both, single, _ in self.models()]}


class Reproduction(Part):
    """All published runs; the part shows stored runs and trains nothing."""

    name, title = "reproduction", "Comparison with the 79 published runs"
    trains: ClassVar[bool] = False

    train: bool = Field(False, description="show what is stored, train nothing")
    lr: Rate = Field(0.003, description="learning rate of the adaptive optimisers (lab: 0.001)")
    sgd_lr: Rate = Field(0.01, description="learning rate of SGD")

    def settings(self):
        """The published settings: bidirectional models are read at the last time step."""
        return [Setting(name_of(row), self._config(row)) for row in published().itertuples()]

    def others(self):
        """The same settings, with bidirectional models read at the final hidden state."""
        return [self.corrected(setting) for setting in self.settings()]

    def corrected(self, setting):
        """Return the same setting with the corrected readout."""
        return Setting(setting.name, setting.config.replace(readout="final_state"))

    def _config(self, row):
        model = {name: getattr(row, name) for name in MODEL}
        lr = self.sgd_lr if row.optim == "sgd" else self.lr
        return self.base.replace(**model, lr=lr, readout="last_step")

    def lab(self):
        """The lab's parts at their published sizes, with this part's data and learning rates."""
        same = self.model_dump(include=set(Part.model_fields))
        tuned, sgd = same | {"lr": self.lr}, same | {"lr": self.sgd_lr}
        both = tuned | {"sgd_lr": self.sgd_lr}
        known = published()

        def listed(part, field):
            rows = known[known.part == part][field].tolist()
            return sorted({*rows, TrialConfig.model_fields[field].default})

        grid = {"widths": [20, 280, 290, 305], "sizes": [32, 188, 256]}
        return [
            Lstm(**sgd),
            Gru(**sgd),
            LstmOptimizers(**both),
            GruOptimizers(**both),
            Depth(**tuned),
            Width(**tuned, widths=listed("2d", "hidden_dim")),
            EmbeddingSize(**tuned, sizes=listed("2e", "embedding_dim")),
            Compound(**tuned, **grid),
            Bidirectional(**tuned, wide=305),
        ]

    def claims(self):
        return [claim for part in self.lab() for claim in part.claims()]


class BeyondBaselines(_TwoCells):
    """Compare the two models with linear baselines, see `labrnn.results.baselines`."""

    name, title = "beyond_baselines", "Linear baselines"
    fits_baselines: ClassVar[bool] = True


class BeyondDefects(Part):
    """Compare each published choice with the corrected one; nothing else differs."""

    name, title = "beyond_defects", "Do the published choices cost accuracy?"

    seeds: Several[int] = Field([5, 6, 7], description="every setting is trained once per seed")
    epochs: Epochs = Field(4, description="passes over the training reviews")
    train_reviews: int = Field(3000, ge=0, description="training reviews in use, 0 for all")
    max_tokens: Length = Field(64, description="maximum number of known words read per review")
    optim: Optim = Field("adam", description="optimiser of all runs (lab: rmsprop)")
    lr: Rate = Field(0.003, description="learning rate (lab: 0.001)")
    hidden_dim: Units = Field(20, description="units of unidirectional models (lab: 100)")
    depth: int = Field(3, ge=2, le=4, description="layers of the deep models")
    narrow: Units = Field(20, description="units of the bidirectional model")
    embedding_dim: Dimensions = Field(32, description="dimensions of the bidirectional model")

    def pairs(self):
        """Corrected minus as published; the two settings differ in one choice."""
        base = self.base.replace(optim=self.optim, lr=self.lr, hidden_dim=self.hidden_dim)
        flat = Setting("1 layer", base)
        deep = Setting(f"{self.depth} layers", base.replace(n_layers=self.depth), many=True)
        both = base.replace(
            hidden_dim=self.narrow, bidirectional=True, embedding_dim=self.embedding_dim
        )
        last_step = Setting("bidirectional, last time step", both.replace(readout="last_step"))
        starts = {
            "each gate orthogonal": {"recurrent_init": "per_gate"},
            "forget bias 1": {"forget_bias": 1.0},
        }
        texts = {
            "negations kept": {"stop_words": "keep_negations"},
            "all stop words kept": {"stop_words": "keep"},
            "duplicates dropped": {"duplicates": "drop"},
        }
        pairs = [Pair(Setting("bidirectional, final hidden state", both), last_step, "readout")]
        pairs += [
            Pair(Setting(f"{old.name} and {name}", old.config.replace(**start)), old, "start")
            for old in (flat, deep)
            for name, start in starts.items()
        ]
        return pairs + [
            Pair(Setting(name, base.replace(**text)), flat, "text") for name, text in texts.items()
        ]

    def settings(self):
        """The settings of all pairs, each once; the published one before the corrected ones."""
        return list(dict.fromkeys(s for p in self.pairs() for s in (p.second, p.first)))


class BeyondBest(Part):
    """The best recurrent network found within the lab's limits, and its ablation.

    docs/decisions.md describes the search.
    """

    name, title = "beyond_best", "The best recurrent classifier"
    fits_baselines: ClassVar[bool] = True

    seeds: Several[int] = Field([5, 6, 7], description="every setting is trained once per seed")
    epochs: Epochs = Field(4, description="passes over the training reviews")
    longest: Length = Field(400, description="maximum number of known words read per review")
    lr: Rate = Field(0.002, description="learning rate after the warm-up")
    hidden_dim: Units = Field(32, description="units of each direction")
    embedding_dim: Dimensions = Field(32, description="dimensions of word and n-gram vectors")
    min_bigram_count: int = Field(
        5, ge=1, description="minimum count of a bigram in the training reviews"
    )
    min_trigram_count: int = Field(5, ge=1, description="minimum count of a trigram")
    members: int = Field(3, ge=2, le=8, description="networks in the ensemble")
    adversarial: Share = Field(0.004, description="adversarial step relative to vector length")
    word_dropout: Share = Field(0.6, description="dropout of whole words and n-grams")
    embedding_dropout: Share = Field(0.6, description="dropout of the recurrent layer's input")
    dropout_rate: Share = Field(0.5, description="dropout before the linear layer")

    def components(self):
        """Component -> its fields; an ablation sets them to the lab's defaults."""
        dropout = {"embedding_dropout", "word_dropout", "dropout_rate"}
        return {
            "the ends of long reviews": {"max_tokens": self.longest},
            "n-grams": self.model_dump(include={"min_bigram_count", "min_trigram_count"}),
            "trigrams": {"min_trigram_count": self.min_trigram_count},
            "naive Bayes initialisation": {"embedding_init": "naive_bayes"},
            "adversarial training": {"adversarial": self.adversarial},
            "the second direction": {"bidirectional": True},
            "stop words": {"stop_words": "keep"},
            "punctuation": {"words": "marks"},
            "dropout": self.model_dump(include=dropout),
        }

    def settings(self):
        """The ensemble, a single network, and that network without each component."""
        size, components = {"lr", "hidden_dim", "embedding_dim"}, self.components()
        single = self.base.replace(
            optim="sparse_adam",
            schedule="linear",
            calibrate=True,
            forget_bias=1.0,
            recurrent_init="per_gate",
            **self.model_dump(include=size),
            **dict(ChainMap(*components.values())),
        )
        ablated = [
            Setting(
                f"without {name}",
                single.replace(**self.base.model_dump(include=change.keys())),
                title=f"the network without {name}",
            )
            for name, change in components.items()
        ]
        ensemble = _model("ensemble", single.replace(members=self.members))
        return [ensemble, _model("single network", single), *ablated]

    def networks(self):
        """Return the ensemble and the single network, both with all components."""
        return self.settings()[:2]

    def pairs(self):
        ensemble, single, *ablated = self.settings()
        ablation = [Pair(setting, single, "ablation") for setting in ablated]
        return [Pair(single, ensemble, "members"), *ablation]


def part_named(name, where):
    """Return the class of the part with this name; LabError, beginning with `where`, if unknown."""
    if name not in PARTS:
        raise LabError(f"{where}: no part is called {name!r}; known: {', '.join(PARTS)}")
    return PARTS[name]


def read_params(path):
    """Read a params file and return its validated part; the file is named after the part.

    Raises:
        LabError: no part has this name, or a parameter is unknown or has a bad value.
    """
    path = Path(path)
    part = validated(part_named(path.stem, path), read_yaml(path), path)
    try:
        part.trials()  # values in lists are checked when they become fields of a trial
    except LabError as error:
        raise LabError(f"{path}: {error}") from None
    return part


def by_source(parts):
    """Return (data, fingerprint, store, device) -> configurations of the parts that train."""
    found = {}
    for part in (part for part in parts if part.trains):
        place = part.data, part.fingerprint, part.store, part.device
        found.setdefault(place, []).extend(part.trials())
    return found
