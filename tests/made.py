"""Made-up results of a part: trials with the accuracies that a test asks for."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
from scipy import stats

from labrnn.lab import Results
from labrnn.trials.plan import Outcome

REVIEWS = 4000
CHANCE = 0.5


def trial(config, accuracy, seconds=2.0, reviews=REVIEWS, learns_by=1):
    """A trial whose model is right on about this share of the test reviews.

    All models find the same reviews hard, as real ones do; the rest is its own seed's luck.
    `accuracy` 0.5 is a model whose loss stayed at ln 2.
    """
    own = np.random.default_rng([config.seed, *f"{config.cell},{config.difference()}".encode()])
    hard = np.random.default_rng(0).normal(size=reviews)
    right = np.sqrt(0.6) * hard + np.sqrt(0.4) * own.normal(size=reviews) < stats.norm.ppf(accuracy)
    labels = np.arange(reviews) % 2
    probability = np.where(right == (labels == 1), 0.9, 0.1)
    learnt, epochs = accuracy > CHANCE, range(1, config.epochs + 1)
    history = [
        {
            "epoch": e,
            "train_loss": 0.6 / e if learnt and e >= learns_by else 0.6931 + 1e-4 * (-1) ** e,
            "valid_loss": 0.3 + 0.02 * abs(e - 3) if learnt else 0.6931,
            "train_accuracy": min(0.99, accuracy + 0.03 * e) if learnt else 0.5,
            "valid_accuracy": accuracy if e >= learns_by else 0.5,
            "train_seconds": seconds,
        }
        for e in epochs
    ]
    metrics = {"epoch": min(3, config.epochs), "accuracy": right.mean(), "loss": 0.3}
    return SimpleNamespace(
        metrics={"best": metrics, "last": metrics | {"epoch": config.epochs}},
        history=history,
        environment={"clock": "processor"},
        vocabulary_size=5000,
        has_weights=False,
        fingerprint="0" * 16,
        predictions=pd.DataFrame({"label": labels, "best": probability, "last": probability}),
    )


def results(part, accuracies, **options):
    """`Results` of a part.

    Args:
        accuracies: setting's name -> accuracy, or a list with one a seed; what is left out was
            not run. A function from a `TrialConfig` to an accuracy or None serves as well.
        options: of `trial`.
    """
    outcome = Outcome()
    settings = {s.config: s.name for s in part.settings()}
    for config in part.trials():
        if callable(accuracies):
            accuracy = accuracies(config)
        else:
            accuracy = accuracies.get(settings.get(config.but(seed=5)))
        if isinstance(accuracy, list):
            accuracy = accuracy[part.seeds.index(config.seed)]
        if accuracy is not None:
            outcome.trials[config] = trial(config, accuracy, **options)
    return Results(part, outcome)
