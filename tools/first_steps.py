"""Keeps the losses of the first 100 steps of the two-layer GRU, six seeds, beside the stored runs.

.venv/bin/python tools/first_steps.py ["IMDB Dataset.csv"]
"""

import math
import sys
from itertools import islice

import torch

from labrnn.config import TrialConfig
from labrnn.network.batches import Batches, shuffled
from labrnn.network.models import find_device
from labrnn.network.optimizers import Optimizer
from labrnn.network.training import Meter, new_model
from labrnn.results.steps import kept_file
from labrnn.reviews.text import load_corpus
from labrnn.trials.job import set_up
from labrnn.trials.store import default_store

# Of figure 11b: trains with some seeds and fails with others.
GRU = TrialConfig(cell="gru", optim="rmsprop", lr=0.001, n_layers=2, hidden_dim=305)
GRU = GRU.replace(embedding_dim=32, dropout_rate=0.2)
SEEDS, STEPS = range(5, 11), 100


def first_losses(config, corpus, device):
    """The mean loss of each of the first batches."""
    model = new_model(config, corpus, device)
    total = config.epochs * math.ceil(len(corpus.rows["train"]) / config.batch_size)
    optimizer, meter, losses = Optimizer(config, model, total), Meter(device), []
    torch.manual_seed(config.seed * 100_003 + 1)  # as `training` seeds its first epoch
    model.train()
    rows = shuffled(corpus.rows["train"], config.seed, 1)
    for batch in islice(Batches(corpus, config.batch_size, device).of(rows), STEPS):
        optimizer.before(batch.ids)
        loss = meter.add(model(batch.ids, batch.packing), batch.labels)
        loss.backward()
        optimizer.step()
        losses.append(round(loss.item(), 5))
    return losses


def main(data=""):
    device = find_device("cpu")
    set_up(device)
    corpus = load_corpus(GRU, data)
    losses = {str(s): first_losses(GRU.replace(seed=s), corpus, device) for s in SEEDS}
    default_store().keep(corpus.fingerprint, kept_file(GRU), losses)


if __name__ == "__main__":
    main(*sys.argv[1:])
