"""The recurrent cells: what the rest of the package must know of each, without PyTorch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One kind of recurrent layer.

    Attributes:
        name: of the class in `torch.nn`.
        mode: its `mode`, and the name of its entry in `kernels.KERNELS`, if it has one.
        gates: blocks of `units` rows in each weight.
        forget_gate: index of the forget gate's block, None without one.
    """

    name: str
    mode: str
    gates: int
    forget_gate: int | None = None

    def parameters(self, inputs, units):
        """Parameters of one layer in one direction: two matrices, two biases."""
        return self.gates * units * (inputs + units + 2)


CELLS = {
    "lstm": Cell("LSTM", "LSTM", gates=4, forget_gate=1),
    "gru": Cell("GRU", "GRU", gates=3),
}


def known(table, name, field):
    """The entry of a registry.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in table:
        raise ValueError(f"{field} = {name!r}: unknown; choose one of: {', '.join(table)}")
    return table[name]


def count_parameters(config, vocabulary_size):
    """Trainable parameters by the lab's formula, without building the model."""
    cell = known(CELLS, config.cell, "cell")
    directions = 1 + config.bidirectional
    units, total = config.hidden_dim, vocabulary_size * config.embedding_dim
    for layer in range(config.n_layers):
        inputs = directions * units if layer else config.embedding_dim
        total += directions * cell.parameters(inputs, units)
    return config.members * (total + 2 * (directions * units + 1))
