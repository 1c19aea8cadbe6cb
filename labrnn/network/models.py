"""The lab's sentiment classifier (Lab 1 e and g): embedding, LSTM or GRU, readout, linear layer."""

import re

import torch
from torch import nn
from torch.nn import functional as F

from labrnn.errors import LabError
from labrnn.network.cells import CELLS, known
from labrnn.network.recurrent import run_layers


class Classifier(nn.Module):
    """Two logits a review from its packed tokens.

    Args:
        config: a `TrialConfig`; its model fields count.
        vocabulary_size: rows of the embedding: `<pad>`, `<unk>`, words, bigrams.
        sparse: give the embedding's gradient only for the rows that a batch touches.

    The recurrent weights are those of an ordinary `nn.LSTM` or `nn.GRU` (`self.rnn`), so its
    checkpoints fit there.
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
        # Last, so that the network starts the same with and without it.
        self.linear = LinearPath(config, vocabulary_size) if config.linear_path else None

    @torch.no_grad()
    def _initialise(self):
        """The lab's start: Xavier normal; orthogonal recurrent weights; biases 0."""
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
        """Logits [B, 2] of the reviews whose packed ids are `ids`, in the batch's order.

        The ids are [N], or [N, 2]: a token's vector is then its word's plus its bigram's.
        """
        return sum(self.paths(ids, packing, backend))

    def paths(self, ids, packing, backend=None):
        """The logits' addends: those of the network, and of the linear path if there is one."""
        network = self._network(ids, packing, backend)
        return [network, self.linear(ids, packing)] if self.linear else [network]

    def _network(self, ids, packing, backend):
        vectors = self._vectors(ids)
        vectors = vectors.sum(1) if ids.dim() == 2 else vectors
        vectors = F.dropout(vectors, self.config.embedding_dropout, self.training)
        states = run_layers(self.rnn, vectors, packing, backend, self.config.precision)
        read = F.dropout(self.read(states, packing), self.config.dropout_rate, self.training)
        return self.output(read)

    def _vectors(self, ids):
        """Vectors of ids; word dropout takes whole ones and makes up for them by the others."""
        dropped = self.config.word_dropout
        if not (self.training and dropped):
            return self.embedding(ids)
        kept = torch.rand(ids.shape, device=ids.device) >= dropped
        return self.embedding(ids * kept) / (1 - dropped)

    def read(self, states, packing):
        """What the linear layer sees of the states [N, D * H]: [B, D * H].

        The backward direction has read the whole review at its first token; the published
        `last_step` takes it at the last token, where it has read only that one.
        """
        if self.config.readout == "mean":
            rows = torch.from_numpy(packing.rows).to(states.device)
            sums = states.new_zeros(len(packing.first), states.shape[1]).index_add(0, rows, states)
            return sums / packing.lengths[:, None]
        last = states[packing.last]
        if not self.config.bidirectional or self.config.readout == "last_step":
            return last
        units = self.config.hidden_dim
        return torch.cat([last[:, :units], states[packing.first, units:]], dim=1)


class LinearPath(nn.Module):
    """A linear classifier of the words and bigrams that a review holds, however often.

    A row's weight is its log-count ratio times a factor that is trained: with the same factor
    everywhere that is naive Bayes, with fitted ones the NB-SVM of Wang and Manning (2012). To run
    such a path beside a deep one is the idea of Cheng et al. (2016, Wide & Deep Learning).
    """

    # A tenth of naive Bayes to begin with; a factor moves as fast as the network at SPEED its rate.
    START, SPEED = 0.1, 7.0

    def __init__(self, config, vocabulary_size):
        super().__init__()
        self.dropout = config.word_dropout
        sparse = config.optim == "sparse_adam"
        self.factors = nn.Embedding(vocabulary_size, 1, sparse=sparse)
        nn.init.constant_(self.factors.weight, self.START / self.SPEED)
        self.bias = nn.Parameter(torch.zeros(1))
        self.register_buffer("ratios", torch.zeros(vocabulary_size))

    def forward(self, ids, packing):
        """Logits [B, 2], the first of them 0; ids and packing as the `Classifier`'s."""
        rows = torch.from_numpy(packing.rows).to(ids.device)
        size = len(self.ratios)
        held = torch.unique(rows[:, None] * size + ids.reshape(len(rows), -1))
        rows, ids = held // size, held % size
        terms = self.SPEED * self.factors(ids)[:, 0] * self.ratios[ids]
        terms = F.dropout(terms, self.dropout, self.training)
        odds = self.bias + terms.new_zeros(len(packing.lengths)).index_add(0, rows, terms)
        return torch.stack([torch.zeros_like(odds), odds], dim=1)


def find_device(name=""):
    """The named device, or the best at hand: CUDA, Apple's MPS, CPU.

    Raises:
        LabError: the named device is not there.
    """
    at_hand = {
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
        "cpu": 1,
    }
    if not name:
        return torch.device(next(kind for kind, count in at_hand.items() if count))
    kind, _, number = name.partition(":")
    if re.fullmatch("[a-z]+(:[0-9]{1,3})?", name) and int(number or 0) < at_hand.get(kind, 0):
        return torch.device(name)
    known = ", ".join(kind for kind, count in at_hand.items() if count)
    raise LabError(f"device = {name!r}: not on this machine; choose one of: {known}")
