"""The 79 published trainings of the lab, as they were printed."""

from functools import lru_cache
from importlib.resources import files

import pandas as pd

from labrnn.config import TrialConfig, read_yaml

VOCABULARY_SIZE = 56_729
TEST_REVIEWS = 10_000


@lru_cache
def published():
    """A row a training: part, figure, configuration, history, test accuracy (batch means)."""
    with (files("labrnn") / "published_results.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype={"figure": str, "part": str}).fillna({"figure": ""})


@lru_cache
def conclusions():
    """Name -> what the original study concludes, the statement that tests it, and its rule."""
    return read_yaml(files("labrnn") / "published_claims.yaml")


def name_of(row):
    """What the reports call a published training: its figure, or its place in the grid."""
    if row.figure:
        return f"lab figure {row.figure}"
    return f"E{row.embedding_dim} H{row.hidden_dim} L{row.n_layers}"


def published_accuracy(config):
    """The published test accuracy of a configuration, whatever its seed and readout; else None."""
    fields = {
        "cell": "cell",
        "optim": "optimizer",
        "lr": "lr",
        "n_layers": "n_layers",
        "hidden_dim": "hidden_dim",
        "embedding_dim": "embedding_dim",
        "dropout_rate": "dropout",
        "bidirectional": "bidirectional",
    }
    usual = TrialConfig(**{ours: getattr(config, ours) for ours in fields})
    if config.replace(seed=usual.seed, readout=usual.readout) != usual:
        return None
    rows = published()
    for ours, theirs in fields.items():
        rows = rows[rows[theirs] == getattr(config, ours)]
    return float(rows.test_acc.iloc[0]) if len(rows) else None
