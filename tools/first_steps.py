"""Compute and store the losses of the first 100 steps of the two-layer GRU with six seeds.

.venv/bin/python tools/first_steps.py ["IMDB Dataset.csv"]
"""

import sys
from itertools import islice

from torch.nn import functional as F

from labrnn.config import TrialConfig
from labrnn.network.batches import Batches
from labrnn.network.models import find_device
from labrnn.network.training import new_model, new_optimizer, train_steps
from labrnn.results.steps import kept_file
from labrnn.reviews.text import load_corpus
from labrnn.trials.job import set_up
from labrnn.trials.store import default_store

# The model of the lab's figure 11b, which trains with some seeds and fails with others.
GRU = TrialConfig(cell="gru", optim="rmsprop", lr=0.001, n_layers=2, hidden_dim=305)
GRU = GRU.replace(embedding_dim=32, dropout_rate=0.2)
SEEDS, STEPS = range(5, 11), 100


def first_losses(config, corpus, device):
    """Return the mean loss of each of the first STEPS batches."""
    model, batches = new_model(config, corpus, device), Batches(corpus, config.batch_size, device)
    optimizer = new_optimizer(config, corpus, model)
    steps = train_steps(config, corpus, model, optimizer, batches, epoch=1)
    return [round(F.cross_entropy(*step).item(), 5) for step in islice(steps, STEPS)]


def main(data=""):
    device = find_device("cpu")
    set_up(device)
    corpus = load_corpus(GRU, data)
    losses = {str(s): first_losses(GRU.replace(seed=s), corpus, device) for s in SEEDS}
    default_store().keep(corpus.fingerprint, kept_file(GRU), losses)


if __name__ == "__main__":
    main(*sys.argv[1:])
