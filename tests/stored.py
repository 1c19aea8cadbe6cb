"""Stored trials without training: what a training on 30 reviews passes to the store."""

import shutil
from types import SimpleNamespace

import numpy as np
import torch

from labrnn.config import TrialConfig
from labrnn.network.training import TrainingState
from labrnn.trials.trial import WEIGHTS, Trial, trial_key

CONFIG = TrialConfig(hidden_dim=10, epochs=3)
FINGERPRINT = "0123456789abcdef"
CORPUS = SimpleNamespace(
    fingerprint=FINGERPRINT,
    facts={"name": "a.csv", "fingerprint": FINGERPRINT, "reviews": 30, "without_known_words": 0},
    vocabulary_size=7,
    rows={"test": np.array([5, 0, 29, 12, 3, 8])},
    labels=np.arange(30, dtype=np.int8) % 2,
)
KEY = trial_key(CONFIG)
HOW = {
    "device": "cpu: made",
    "seconds": 1.5,
    "finished": "2026-11-28T12:00:00+00:00",
    "versions": {"labrnn": "0.1.0"},
    "commit": "0123456789ab",
}


def progress(epochs=CONFIG.epochs, seed=0):
    """Return the state after some epochs; the second epoch is the best."""
    losses = [0.6, 0.5, 0.55, 0.57, 0.6, 0.62][:epochs]
    history = [
        {
            "epoch": epoch,
            "train_loss": 0.7 / epoch,
            "train_accuracy": 0.5 + 0.1 * epoch,
            "valid_loss": loss,
            "valid_accuracy": 0.75,
            "seconds": 0.5,
            "train_seconds": 0.25,
        }
        for epoch, loss in enumerate(losses, 1)
    ]
    last, best = (
        {"embedding.weight": torch.full((7, 1), float(n + seed)), "bias": torch.arange(3.0) * n}
        for n in (epochs, 2)
    )
    return TrainingState(history, last, best, {"step": torch.tensor([float(epochs)])})


def predicted(config=CONFIG):
    """Return metrics and test probabilities of best and last epoch, like `training.test`."""
    labels = CORPUS.labels[CORPUS.rows["test"]]
    results = {}
    for which, epoch, chances in (
        ("best", 2, [0.9, 0.8, 0.30004, 0.7, 0.6, 0.99999]),
        ("last", config.epochs, [0.4, 0.8, 0.1, 0.50003, 0.6, 0.2]),
    ):
        chances = np.array(chances, np.float32)  # probability of the true label
        metrics = {
            "epoch": epoch,
            "accuracy": float((chances > 0.5).mean()),
            "loss": float(-np.log(chances.astype(float)).mean()),
        }
        results[which] = metrics, np.where(labels == 1, chances, 1 - chances)
    return results


def write(store, config=CONFIG):
    """Store a trial."""
    return store.save(config, CORPUS, progress(config.epochs), predicted(config), HOW)


def without_weights(store, folder):
    """Return a copy of the store's trial without its weights."""
    copy = shutil.copytree(store.root, folder) / FINGERPRINT / KEY
    (copy / WEIGHTS).unlink()
    return Trial(copy)


def tree(root):
    """Map each path under a folder to its content (link target or bytes), mode and mtime."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = status.st_mode
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(root))] = content, status.st_mode, status.st_mtime_ns
    return found
