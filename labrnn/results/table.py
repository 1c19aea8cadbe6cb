"""The table of results: one row per run and per setting, from all stored runs on the same reviews.

All figures, tables and sentences read it, so a setting has the same runs, mean and interval in
every part. This module alone defines which runs trained, and which settings share a variance.
"""

import math
from collections import Counter
from contextlib import suppress
from functools import cache, cached_property, lru_cache

import numpy as np
import pandas as pd

from labrnn.config import TrialConfig
from labrnn.errors import LabError
from labrnn.network.registry import count_parameters
from labrnn.results import statistics
from labrnn.results.statistics import EXACT, NOT_RUN, Share

LN2 = math.log(2)
FALL = 0.03  # a run trained if its lowest training loss is below ln 2 by more than this,
ABOVE = 0.65  # and its validation accuracy is at least this (chance is 1/2)
# Settings that agree in these fields share a variance over seeds.
FAMILY = ["train_reviews", "epochs", "batch_size", "cell", "optim"]
TESTED = ("best", "last")
NO_RUNS = ["run", "setting", "family", "trained", *TrialConfig.model_fields]  # of an empty table


class Runs:
    """All runs on the same reviews; `trials` maps configurations to `Trial`s."""

    def __init__(self, trials):
        self.trials = {trial.config: trial for trial in trials}

    @cached_property
    def table(self):
        """One row per run: setting, fields of the configuration, metrics, size and time."""
        rows = [_row(trial) for trial in self.trials.values()]
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=NO_RUNS)

    @cached_property
    def _by_setting(self):
        if self.table.empty:
            return {}
        return {
            s: rows.sort_values("seed") for s, rows in self.table.groupby("setting", sort=False)
        }

    def of(self, config):
        """Return the rows of a setting, sorted by seed; empty if it was not run."""
        return self._by_setting.get(config, self.table.iloc[:0])

    @lru_cache  # noqa: B019 - one table per process
    def correct(self, config, tested):
        """Return the correctness of each review in runs that trained, bool [runs, reviews]."""
        rows = self.of(config)
        rows = rows[rows["trained"].astype(bool)]
        return np.array([_correct(self.trials[run], tested) for run in rows["run"]], bool)

    @lru_cache  # noqa: B019
    def pooled(self, family, tested):
        """Return the `Spread`s of a family: of its stable settings, each unstable one, and all."""
        table = self.table[self.table["family"] == family]
        groups = {s: self.correct(s, tested) for s in table["setting"].unique()}
        groups = {s: rows for s, rows in groups.items() if len(rows)}
        return *statistics.pool(groups), statistics.spread(groups.values())

    def spread(self, config, tested):
        """Return the `Spread` of a setting: that of its family, or its own if it is unstable.

        A single run does not show whether its setting is stable, so it has the spread of all.
        """
        stable, unstable, every = self.pooled(_family(config), tested)
        return every if len(self.correct(config, tested)) == 1 else unstable.get(config, stable)

    def has_own_spread(self, config, tested):
        """Whether the setting is unstable, so that it has its own `Spread`."""
        return config in self.pooled(_family(config), tested)[1]

    @lru_cache  # noqa: B019
    def accuracy(self, config, tested):
        """Return the test accuracy of the runs that trained, an `Estimate`."""
        correct = self.correct(config, tested)
        if not len(correct):
            return NOT_RUN
        return statistics.accuracy(correct, self.spread(config, tested))

    def settings(self, tested="best"):
        """Return one row per setting that was run: fields, runs, accuracy and its interval."""
        rows = []
        for config, runs in self._by_setting.items():
            e, share = self.accuracy(config, tested), trained(runs)
            row = runs.iloc[0][["setting", *TrialConfig.model_fields, "parameters"]].to_dict()
            row |= {"runs": share.n, "trained": share.count, "seeds": runs["seed"].tolist()}
            rows.append(row | {"accuracy": e.mean, "low": e.low, "high": e.high})
        return pd.DataFrame(rows).drop(columns="seed", errors="ignore")


def counted(part, configs):
    """Select the configurations, stored or missing, that a part's results depend on.

    These are all seeds of its settings, and settings of the same families with several seeds, over
    which the variance over seeds is pooled.
    """
    seeds = Counter(map(_setting, configs))
    own = {setting.config for setting in (*part.settings(), *part.others())}
    families = set(map(_family, own))
    return {
        config
        for config in configs
        if (setting := _setting(config)) in own
        or (seeds[setting] > 1 and _family(setting) in families)
    }


def stored(part, store, trials):
    """Return the stored trials that a part's results depend on, see `counted`.

    `trials` are those of the part. Other trials that cannot be read are left out.
    """
    found = {trial.key: trial for trial in trials}
    fingerprint = next((trial.fingerprint for trial in found.values()), part.fingerprint)
    for trial in store.trials() if fingerprint else ():
        if trial.fingerprint == fingerprint and trial.key not in found:
            with suppress(LabError):
                found[trial.key] = _readable(trial)
    wanted = counted(part, [trial.config for trial in found.values()])
    return [trial for trial in found.values() if trial.config in wanted]


@cache
def _readable(trial):
    """Read a trial, once per process, and return it. Raises LabError if it cannot be read."""
    _row(trial)
    return trial


def trained(rows):
    """Return how many runs trained, a `Share`."""
    return Share(int(rows["trained"].sum()) if len(rows) else 0, len(rows))


@cache
def _setting(config):
    """Return a configuration with the default seed."""
    return config.replace(seed=TrialConfig.model_fields["seed"].default)


def _family(config):
    return tuple(getattr(config, name) for name in FAMILY)


def _row(trial):
    config, history = trial.config, trial.history
    lowest = min(epoch["train_loss"] for epoch in history)
    row = {"run": config, "setting": _setting(config)}
    row |= {"family": _family(config), **config.model_dump()}
    row |= {f"{tested}_{name}": v for tested in TESTED for name, v in trial.metrics[tested].items()}
    for tested in TESTED:
        epoch = history[trial.metrics[tested]["epoch"] - 1]
        row[f"{tested}_validation"] = epoch["valid_accuracy"]
    # Older runs recorded wall time on a CPU that did other work; they do not name their clock.
    known = trial.environment.get("clock")
    per_epoch = [epoch["train_seconds"] for epoch in history] if known else [math.nan]
    return row | {
        "trained": LN2 - lowest > FALL and row["best_validation"] >= ABOVE,
        "lowest_loss": lowest,
        "first_validation": history[0]["valid_accuracy"],
        "mean_validation": float(np.mean([epoch["valid_accuracy"] for epoch in history])),
        "train_accuracy": history[-1]["train_accuracy"],
        "vocabulary_size": trial.vocabulary_size,
        "parameters": count_parameters(config, trial.vocabulary_size),
        "epoch_seconds": float(np.median(per_epoch)),
        "seconds": sum(per_epoch),
    }


def _correct(trial, tested):
    table = trial.predictions
    return (np.asarray(table[tested]) > 0.5) == (np.asarray(table["label"]) == 1)


class Results:
    """A part's settings with their runs.

    Args:
        part: a `Part`.
        runs: the `Runs` on its reviews.
        baseline: the best stored `Baseline` for the same reviews, if any.
    """

    def __init__(self, part, runs, baseline=None):
        self.part, self.runs, self.baseline = part, runs, baseline
        self.settings = part.settings()
        self.tested = part.checkpoint

    def __getitem__(self, name):
        """Return the setting with this name; LabError if the parameters leave it out."""
        known = {setting.name: setting for setting in self.settings}
        if name not in known:
            raise LabError(
                f"{self.part.name}: no setting is called {name!r}, which this part needs; there are "
                f"{', '.join(known)}. Add it to the parameters"
            )
        return known[name]

    def of(self, part):
        """Return the `Results` of another part on the same reviews."""
        return Results(part, self.runs, self.baseline)

    def at(self, tested):
        """Return the same results, tested after the `best` or the `last` epoch."""
        return self.of(self.part.model_copy(update={"checkpoint": tested}))

    def rows(self, setting):
        """Return the setting's rows of the table, sorted by seed."""
        return self.runs.of(setting.config)

    def run(self, settings=None):
        """Return those of `settings`, by default the part's, that have a run."""
        wanted = self.settings if settings is None else settings
        return [s for s in wanted if len(self.rows(s))]

    def missing(self):
        """Return the part's settings without a run."""
        return [s for s in self.settings if not len(self.rows(s))]

    def trained(self, setting):
        """Return how many of the setting's runs trained, a `Share`."""
        return trained(self.rows(setting))

    def able(self, settings=None):
        """Return those of `settings`, by default the part's, of which a run trained."""
        return [s for s in self.run(settings) if self.trained(s).count]

    def first(self, setting):
        """Return the trial of a setting with the lowest seed, or None."""
        rows = self.rows(setting)
        return self.runs.trials[rows["run"].iloc[0]] if len(rows) else None

    def correct(self, model):
        """Return the correctness of each review in runs that trained, bool [runs, reviews]."""
        if hasattr(model, "correct"):
            return np.atleast_2d(model.correct)
        return self.runs.correct(model.config, self.tested)

    def spread(self, model):
        """Return the `Spread` of a model; `EXACT` for a baseline, which has no seed."""
        if hasattr(model, "correct"):
            return EXACT if model.correct.ndim == 1 else statistics.spread([model.correct])
        return self.runs.spread(model.config, self.tested)

    def accuracy(self, model):
        """Return the test accuracy of a model, an `Estimate`; runs that failed are excluded."""
        if hasattr(model, "correct"):
            return statistics.accuracy(self.correct(model), self.spread(model))
        return self.runs.accuracy(model.config, self.tested)

    def difference(self, first, second):
        """Return the test accuracy of `first` minus `second`, an `Estimate`, or `NOT_RUN`."""
        sides = self.correct(first), self.correct(second)
        if not all(map(len, sides)):
            return NOT_RUN
        configs = [getattr(model, "config", self.part.base) for model in (first, second)]
        same_reviews = configs[0].duplicates == configs[1].duplicates
        spreads = self.spread(first), self.spread(second)
        return statistics.difference(*sides, *spreads, paired=same_reviews)

    def mean(self, setting, column):
        """Return a column's mean over the setting's runs that trained, or over all if none did."""
        rows = self.rows(setting)
        return (
            rows[rows["trained"]][column].mean() if rows["trained"].any() else rows[column].mean()
        )

    def validation(self, setting):
        """Return the validation accuracy of the tested epoch, mean over runs."""
        return self.mean(setting, f"{self.tested}_validation")

    def by_validation(self, settings=None):
        """Return the settings of which a run trained, best on validation first."""
        return sorted(self.able(settings), key=self.validation, reverse=True)

    def parameters(self, setting):
        """Return the number of parameters of a setting that was run."""
        return int(self.rows(setting)["parameters"].iloc[0])

    def seconds(self, setting):
        """Return the training seconds per epoch, median over runs; NaN if unknown."""
        return float(self.rows(setting)["epoch_seconds"].median())

    def curves(self, setting, name):
        """Return a quantity of the history [runs, epochs], and whether each run trained [runs]."""
        rows = self.rows(setting)
        trials = [self.runs.trials[run] for run in rows["run"]]
        curves = [[epoch[name] for epoch in trial.history] for trial in trials]
        return np.array(curves), rows["trained"].to_numpy(bool)

    @property
    def vocabulary_size(self):
        """Rows of the embedding; None without runs."""
        return next((t.vocabulary_size for t in self.runs.trials.values()), None)
