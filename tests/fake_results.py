"""Synthetic results of a part: runs with the accuracies that a test requests."""

from types import SimpleNamespace

import numpy as np

from labrnn.results.baselines import Baseline
from labrnn.results.table import Results, Runs

REVIEWS = 4000
CHANCE = 0.5


class FakeTrial(SimpleNamespace):
    __hash__ = object.__hash__  # by identity, like a stored trial


def run(config, accuracy, last=None, seconds=2.0, reviews=REVIEWS, learns_by=1, training=None):
    """Return a run whose model is correct on exactly this share of the test reviews.

    All models find the same reviews hard, as real ones do; the rest is random per seed.

    Args:
        accuracy: in the best epoch; 0.5 stands for a model whose loss stayed at ln 2.
        last: accuracy in the last epoch, if different.
        learns_by: first epoch in which the loss falls.
        training: accuracy on the training reviews in every epoch.
    """
    labels, epochs = np.arange(reviews) % 2, range(1, config.epochs + 1)
    last = accuracy if last is None else last
    trained = accuracy > CHANCE
    history = [
        {
            "epoch": e,
            "train_loss": 0.6 / e if trained and e >= learns_by else 0.6931 + 1e-4 * (-1) ** e,
            "valid_loss": 0.3 + 0.02 * abs(e - 3) if trained else 0.6931,
            "train_accuracy": training or (min(0.99, accuracy + 0.03 * e) if trained else 0.5),
            "valid_accuracy": accuracy if e >= learns_by else 0.5,
            "train_seconds": seconds,
        }
        for e in epochs
    ]
    correct = {"best": _correct(config, accuracy, reviews)}
    correct["last"] = correct["best"] if last == accuracy else _correct(config, last, reviews)
    metrics = {
        which: {
            "epoch": min(3, config.epochs) if which == "best" else config.epochs,
            "accuracy": float(right.mean()),
            "accuracy_batch_mean": float(right.mean()) - 0.001,
            "loss": 0.3,
            "loss_batch_mean": 0.3,
        }
        for which, right in correct.items()
    }
    return FakeTrial(
        config=config,
        key=f"{config.cell},{config.difference()},{config.seed}",
        metrics=metrics,
        history=history,
        environment={"clock": "processor", "seconds": 60.0},
        vocabulary_size=5000,
        has_weights=False,
        fingerprint="0" * 16,
        predictions={
            "label": labels,
            **{
                which: np.where(right == (labels == 1), 0.9, 0.1)
                for which, right in correct.items()
            },
        },
    )


def _correct(config, accuracy, reviews):
    """Mark this share of the reviews as correct: the easiest, by common difficulty and chance."""
    own = np.random.default_rng([config.seed, *f"{config.cell},{config.difference()}".encode()])
    hard = np.random.default_rng(0).normal(size=reviews)
    ease = np.sqrt(0.6) * hard + np.sqrt(0.4) * own.normal(size=reviews)
    right = np.zeros(reviews, bool)
    right[np.argsort(ease)[: round(accuracy * reviews)]] = True
    return right


def fake_runs(settings, accuracies, seeds, spread=0.004, **options):
    """Return runs of settings.

    Args:
        accuracies: name of a setting -> accuracy (seeds vary by `spread`), a list with one
            accuracy per seed, or None for a setting that was not run; or a function of
            `TrialConfig`.
    """
    found = []
    for setting in settings:
        for k, config in enumerate(setting.trials(seeds)):
            given = accuracies(config) if callable(accuracies) else accuracies.get(setting.name)
            if isinstance(given, list):
                given = given[k] if k < len(given) else None
            elif given is not None and given > CHANCE:
                own = np.random.default_rng([k, *f"{config.cell}{config.difference()}".encode()])
                given += spread * own.normal()
            if given is not None:
                found.append(run(config, given, **options))
    return found


def results(part, accuracies, seeds=None, baseline=None, **options):
    """Return `Results` of a part, see `fake_runs`."""
    settings = list({s.config: s for s in [*part.settings(), *part.others()]}.values())
    found = fake_runs(settings, accuracies, seeds or part.seeds, **options)
    return Results(part, Runs(found), baseline)


def baseline(name="NB-SVM", accuracy=0.93, validation=None):
    """Return a linear baseline that finds the same reviews hard as all models do."""
    order = np.argsort(np.random.default_rng(0).normal(size=REVIEWS))
    right = np.zeros(REVIEWS, bool)
    right[order[: round(accuracy * REVIEWS)]] = True
    validation = accuracy if validation is None else validation
    repeated = np.zeros(REVIEWS, bool)
    return Baseline(name, f"*{name}*", 1000, 2.0, validation, right, repeated=repeated)
