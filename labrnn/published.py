"""The 79 published trainings of the lab, as they were printed."""

from functools import lru_cache
from importlib.resources import files

import pandas as pd

VOCABULARY_SIZE = 56_729
TEST_REVIEWS = 10_000


@lru_cache
def published():
    """A row a training: part, figure, configuration, history, test accuracy (batch means)."""
    with (files("labrnn") / "data/published_results.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype={"figure": str, "part": str}).fillna({"figure": ""})


def name_of(row):
    """What the reports call a published training: its figure, or its place in the grid."""
    if row.figure:
        return f"figure {row.figure}"
    return f"E{row.embedding_dim} H{row.hidden_dim} L{row.n_layers}"
