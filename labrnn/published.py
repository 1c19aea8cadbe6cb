"""The 79 training runs of the original study, as published, and its conclusions."""

from functools import lru_cache
from importlib.resources import files

import pandas as pd

from labrnn.config import TrialConfig, read_yaml

VOCABULARY_SIZE = 56_729
TEST_REVIEWS = 10_000
# Columns of the table that are fields of `TrialConfig`, besides the learning rate.
MODEL = ("cell", "optim", "n_layers", "hidden_dim", "embedding_dim", "dropout_rate")
MODEL += ("bidirectional",)


@lru_cache
def published():
    """Return one row per run: part, figure, configuration, history, test accuracy (batch means)."""
    with (files("labrnn") / "published_results.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file, dtype={"figure": str, "part": str}).fillna({"figure": ""})
    return table.rename(columns={"optimizer": "optim", "dropout": "dropout_rate"})


@lru_cache
def conclusions():
    """Return name -> published conclusion, statement that tests it, and rule."""
    return read_yaml(files("labrnn") / "published_claims.yaml")


def name_of(row):
    """Return the name of a published run in reports: its figure, or its setting in the grid."""
    if row.figure:
        return f"lab figure {row.figure}"
    return f"E{row.embedding_dim} H{row.hidden_dim} L{row.n_layers}"


def published_accuracy(config):
    """Return the published test accuracy of a configuration, for any seed and readout, or None."""
    wanted = {name: getattr(config, name) for name in (*MODEL, "lr")}
    usual = TrialConfig(**wanted)
    if config.replace(seed=usual.seed, readout=usual.readout) != usual:
        return None
    rows = published()
    rows = rows[(rows[[*wanted]] == pd.Series(wanted)).all(axis=1)]
    return float(rows.test_acc.iloc[0]) if len(rows) else None
