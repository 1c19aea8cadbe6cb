"""The recurrent cells and the optimisers, described without importing PyTorch.

Configuration, layers, optimisers and reports read these tables.
"""

from dataclasses import dataclass, field

MOMENTUM, EPS, ALPHA = 0.9, 1e-6, 0.99
SGD, ADAGRAD, RMSPROP = 0, 1, 2  # numbers of the rules in compiled code, see `optimizers.LazyRows`


@dataclass(frozen=True)
class Cell:
    """One kind of recurrent layer.

    Attributes:
        name: name of the class in `torch.nn`.
        mode: the class's `mode`, and the key of its kernel in `kernels.KERNELS`, if it has one.
        gates: number of blocks of `units` rows in each weight.
        forget_gate: index of the forget gate's block; None if the cell has none.
    """

    name: str
    mode: str
    gates: int
    forget_gate: int | None = None

    def parameters(self, inputs, units):
        """Count the parameters of one layer in one direction: two matrices and two biases."""
        return self.gates * units * (inputs + units + 2)


CELLS = {
    "lstm": Cell("LSTM", "LSTM", gates=4, forget_gate=1),
    "gru": Cell("GRU", "GRU", gates=3),
}


@dataclass(frozen=True)
class RowRule:
    """How `LazyRows` moves a row; it equals the update of PyTorch's class.

    Attributes:
        number: number of the rule in compiled code.
        momentum: decay of a row's momentum per step; 0 without momentum.
        alpha: decay per step of the mean of squared gradients, 1 for their sum; None without.
    """

    number: int
    momentum: float = 0.0
    alpha: float | None = None


@dataclass(frozen=True)
class Kind:
    """An optimiser of the lab.

    Attributes:
        name: name of PyTorch's class, also used in the reports.
        options: arguments besides parameters and learning rate; those of `dense` if it is given.
        rows: the rule for rarely read embedding rows on a CPU; None if the movement of an unread
            row has no closed form.
        dense: class for all other parameters, if `name` updates only the embedding rows of a batch.
    """

    name: str
    options: dict = field(default_factory=dict)
    rows: RowRule | None = None
    dense: str = ""


_ADAM = {"eps": EPS, "fused": True}
OPTIMIZERS = {
    "sgd": Kind("SGD", {"momentum": MOMENTUM}, RowRule(SGD, MOMENTUM)),
    "adagrad": Kind("Adagrad", {"eps": EPS}, RowRule(ADAGRAD, alpha=1.0)),
    "adam": Kind("Adam", _ADAM),
    "rmsprop": Kind(
        "RMSprop",
        {"eps": EPS, "alpha": ALPHA, "momentum": MOMENTUM},
        RowRule(RMSPROP, MOMENTUM, ALPHA),
    ),
    "sparse_adam": Kind("SparseAdam", _ADAM, dense="Adam"),
}


def known(table, name, field):
    """Return the entry of a registry; `field` is the parameter's name in the message.

    Raises:
        ValueError: the registry has no such name.
    """
    if name not in table:
        raise ValueError(f"{field} = {name!r}: unknown; choose one of: {', '.join(table)}")
    return table[name]


def count_parameters(config, vocabulary_size):
    """Count the trainable parameters of a `TrialConfig` by the lab's formula.

    Raises:
        ValueError: the config's cell is unknown.
    """
    cell = known(CELLS, config.cell, "cell")
    directions = 1 + config.bidirectional
    units, total = config.hidden_dim, vocabulary_size * config.embedding_dim
    for layer in range(config.n_layers):
        inputs = directions * units if layer else config.embedding_dim
        total += directions * cell.parameters(inputs, units)
    return config.members * (total + 2 * (directions * units + 1))
