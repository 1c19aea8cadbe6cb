"""The sentiment classifier of Lab 1 e and g: embedding, LSTM or GRU, readout, linear layer."""

import re

import torch
from torch import nn
from torch.nn import functional as F

from labrnn.errors import LabError
from labrnn.network.recurrent import run_layers
from labrnn.network.registry import CELLS, known


class Classifier(nn.Module):
    """Compute two logits per review from its packed tokens.

    Args:
        config: a `TrialConfig`; only its model fields are used.
        vocabulary_size: rows of the embedding: `<pad>`, `<unk>`, words, bigrams, trigrams.
        sparse: whether the embedding's gradient is sparse: only the rows that a batch reads.

    Attributes:
        rnn: an ordinary `nn.LSTM` or `nn.GRU`, so its checkpoints can be exchanged with PyTorch's.
    """

    def __init__(self, config, vocabulary_size, sparse=False):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(
            vocabulary_size, config.embedding_dim, padding_idx=0, sparse=sparse
        )
        self.cell = known(CELLS, config.cell, "cell")
        self.rnn = getattr(nn, self.cell.name)(
            config.embedding_dim,
            config.hidden_dim,
            config.n_layers,
            bidirectional=config.bidirectional,
            dropout=config.dropout_rate if config.n_layers > 1 else 0.0,
        )
        self.output = nn.Linear(config.hidden_dim * (1 + config.bidirectional), 2)
        self._initialise()

    @torch.no_grad()
    def _initialise(self):
        """Initialise as in the lab: Xavier normal, recurrent layers orthogonal, biases 0."""
        nn.init.xavier_normal_(self.embedding.weight)
        self.embedding.weight[0] = 0
        units, forget = self.config.hidden_dim, self.cell.forget_gate
        for name, weight in self.rnn.named_parameters():
            if "weight" in name and self.config.recurrent_init == "per_gate":
                for block in weight.chunk(self.cell.gates):
                    nn.init.orthogonal_(block)
            elif "weight" in name:
                nn.init.orthogonal_(weight)
            else:
                weight.zero_()
                if "bias_ih" in name and forget is not None:
                    weight[forget * units : (forget + 1) * units] = self.config.forget_bias
        nn.init.xavier_normal_(self.output.weight)
        self.output.bias.zero_()

    def forward(self, ids, packing, backend=None):
        """Compute the logits [B, 2] of reviews, in the batch's order.

        Args:
            ids: packed tokens, int64 [N], or [N, n]: each token's word and the n-grams that end
                with it, whose vectors are added.
            packing: the `Packing` of the ids.
            backend: see `run_layers`.
        """
        return self.classify(self.vectors(ids), packing, backend)

    @property
    def members(self):
        """The networks of an ensemble: here only this one."""
        return [self]

    def vectors(self, ids):
        """Compute the vectors [N, E] of packed ids, the input of the recurrent layers.

        Word dropout with rate p zeroes whole vectors and scales the others by 1 / (1 - p).
        """
        dropped = self.config.word_dropout if self.training else 0.0
        if dropped:
            ids = ids * (torch.rand(ids.shape, device=ids.device) >= dropped)
        vectors = self.embedding(ids)
        vectors = vectors / (1 - dropped) if dropped else vectors
        vectors = vectors.sum(1) if ids.dim() == 2 else vectors
        return F.dropout(vectors, self.config.embedding_dropout, self.training)

    def classify(self, vectors, packing, backend=None):
        """Compute the logits [B, 2] of reviews from the vectors [N, E] of their tokens."""
        states = run_layers(self.rnn, vectors, packing, backend, self.config.precision)
        read = F.dropout(self.read(states, packing), self.config.dropout_rate, self.training)
        return self.output(read)

    def read(self, states, packing):
        """Select the input of the linear layer, [B, D * H], from the states [N, D * H].

        The backward direction has read the whole review at the first token. The published
        `last_step` reads it at the last token, where it has seen only that token.
        """
        last = states[packing.last]
        if not self.config.bidirectional or self.config.readout == "last_step":
            return last
        units = self.config.hidden_dim
        return torch.cat([last[:, :units], states[packing.first, units:]], dim=1)


class Ensemble(nn.Module):
    """Several `Classifier`s that differ in initialisation and dropout; see there for arguments.

    Each network is trained with its own loss; predictions use the mean of their logits.
    """

    def __init__(self, config, vocabulary_size, sparse=False):
        super().__init__()
        networks = (Classifier(config, vocabulary_size, sparse) for _ in range(config.members))
        self.members = nn.ModuleList(networks)

    def forward(self, ids, packing, backend=None):
        """Compute the mean of the members' logits, see `Classifier.forward`."""
        return sum(member(ids, packing, backend) for member in self.members) / len(self.members)


def build(config, vocabulary_size, sparse=False):
    """Return a `Classifier`, or an `Ensemble` if the config has several members."""
    kind = Ensemble if config.members > 1 else Classifier
    return kind(config, vocabulary_size, sparse)


def find_device(name=""):
    """Return the named device, or the fastest available: CUDA, Apple's MPS, CPU.

    Raises:
        LabError: the machine does not have the named device.
    """
    counts = {"cuda": torch.cuda.device_count(), "mps": torch.backends.mps.is_available(), "cpu": 1}
    available = [kind for kind, count in counts.items() if count]
    kind, _, number = (name or available[0]).partition(":")
    if re.fullmatch("[a-z]*(:[0-9]{1,3})?", name) and int(number or 0) < counts.get(kind, 0):
        return torch.device(name or kind)
    raise LabError(f"device = {name!r}: not on this machine; choose one of: {', '.join(available)}")
