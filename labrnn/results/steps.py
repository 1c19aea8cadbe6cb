"""The training loss of the first steps, with several seeds: where a run fails.

    python -m labrnn.results.steps     # of the two-layer GRU, on the full reviews

keeps them beside the stored runs, where `find` looks.
"""

import math
from itertools import islice

from labrnn.config import TrialConfig
from labrnn.network.batches import Batches, shuffled
from labrnn.network.models import find_device
from labrnn.network.optimizers import Optimizer
from labrnn.network.training import Meter, new_model
from labrnn.reviews.description import kept_as
from labrnn.reviews.text import load_corpus
from labrnn.trials.job import set_up
from labrnn.trials.store import default_store

# Of figure 11b: trains with some seeds and fails with others.
GRU = TrialConfig(cell="gru", optim="rmsprop", lr=0.001, n_layers=2, hidden_dim=305)
GRU = GRU.replace(embedding_dim=32, dropout_rate=0.2)


def first_steps(config, seeds, steps, corpus):
    """The mean loss of each of the first batches.

    Args:
        config: a `TrialConfig`; its seed is replaced by each of `seeds`.
        steps: batches of the first epoch.
        corpus: a `Corpus`.

    Returns:
        seed -> list of losses.
    """
    device = find_device("cpu")
    set_up(device)
    return {seed: _losses(config.replace(seed=seed), steps, corpus, device) for seed in seeds}


def _losses(config, steps, corpus, device):
    import torch

    model = new_model(config, corpus, device)
    total = config.epochs * math.ceil(len(corpus.rows["train"]) / config.batch_size)
    optimizer, meter, losses = Optimizer(config, model, total), Meter(device), []
    torch.manual_seed(config.seed * 100_003 + 1)  # as `training` seeds its first epoch
    model.train()
    rows = shuffled(corpus.rows["train"], config.seed, 1)
    for batch in islice(Batches(corpus, config.batch_size, device).of(rows), steps):
        optimizer.before(batch.ids)
        loss = meter.add(model(batch.ids, batch.packing), batch.labels)
        loss.backward()
        optimizer.step()
        losses.append(round(loss.item(), 5))
    return losses


def record(config, seeds, steps, store, data=""):
    """Compute the first steps and keep them beside the runs of the same reviews."""
    corpus = load_corpus(config, data)
    losses = first_steps(config, seeds, steps, corpus)
    store.keep(corpus.fingerprint, _name(config), {str(s): values for s, values in losses.items()})
    return losses


def find(config, part, store):
    """Seed -> losses of the first steps, as `record` kept them; None if nothing is there."""
    kept = store.recall(part.fingerprint, _name(config)) if part.fingerprint else None
    return {int(seed): values for seed, values in kept.items()} if kept else None


def _name(config):
    fields = config.model_dump(mode="json", exclude_defaults=True, exclude={"seed"})
    return kept_as("steps", fields)


if __name__ == "__main__":
    record(GRU, range(5, 11), 100, default_store())
