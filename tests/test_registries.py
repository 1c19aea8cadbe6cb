"""Each cell and optimiser is defined once; unknown ones raise errors everywhere."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from labrnn.config import TrialConfig
from labrnn.network import kernels, recurrent
from labrnn.network.models import Classifier
from labrnn.network.optimizers import LazyRows, Optimizer, takes_rows
from labrnn.network.packing import Packing
from labrnn.network.recurrent import run_layers
from labrnn.network.registry import CELLS, OPTIMIZERS, count_parameters
from labrnn.network.training import new_model, train

CPU = torch.device("cpu")


def with_name(config, **names):
    """Return a configuration with a name that `TrialConfig` would refuse."""
    return config.model_copy(update=names)


@pytest.mark.parametrize("name", CELLS)
def test_cell_entry_matches_pytorch(name):
    cell, layer = CELLS[name], getattr(nn, CELLS[name].name)(7, 12)
    assert layer.mode == cell.mode
    assert len(layer.weight_hh_l0) == 12 * cell.gates
    assert cell.parameters(7, 12) == sum(p.numel() for p in layer.parameters())
    x, packing = torch.randn(6, 7), Packing([3, 2, 1])
    ours, theirs = (run_layers(layer, x, packing, backend) for backend in (None, "packed"))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_forget_gate_keeps_the_cell_state():
    """With a large forget bias the cell state stays the same for any input."""
    config = TrialConfig(forget_bias=10.0, hidden_dim=10)
    model = Classifier(config, 20)
    with torch.no_grad():
        for name, weight in model.rnn.named_parameters():
            if "weight" in name:
                weight.zero_()
    state = torch.zeros(1, 1, 10), torch.ones(1, 1, 10)
    _, (_, after) = model.rnn(torch.zeros(30, 1, 1), state)
    torch.testing.assert_close(after, torch.ones_like(after), rtol=0, atol=2e-3)


@pytest.mark.parametrize("backend", [None, "fused", "dense", "packed"])
def test_unknown_cell_is_not_run_as_a_gru(backend):
    """An Elman layer has a third of a GRU's rows; once, every layer but an LSTM ran as a GRU."""
    packing = Packing([3, 2])
    rnn = nn.RNN(4, 12, nonlinearity="relu")
    with pytest.raises(ValueError, match=r"RNN_.*unknown; choose one of: LSTM, GRU"):
        run_layers(rnn, torch.randn(5, 4), packing, backend)


def test_kernels_refuse_an_unknown_cell():
    assert {cell.mode for cell in CELLS.values()} >= set(kernels.KERNELS) == {"LSTM", "GRU"}
    rnn = nn.GRU(4, 12)
    with pytest.raises(ValueError, match="cell = 'RNN_TANH': unknown"):
        kernels.FusedLayer.apply(
            torch.randn(5, 4), *recurrent._weights(rnn, "_l0"), Packing([3, 2]), False, "RNN_TANH"
        )


def test_an_unknown_cell_or_optimiser_is_an_error_everywhere(corpus):
    config = TrialConfig(hidden_dim=10)
    elman = with_name(config, cell="elman")
    for attempt in (lambda: Classifier(elman, 20), lambda: count_parameters(elman, 20)):
        with pytest.raises(ValueError, match="cell = 'elman': unknown; choose one of: lstm, gru"):
            attempt()
    lion = with_name(config, optim="lion")
    known = "optim = 'lion': unknown; choose one of: sgd, adagrad, adam"
    model = Classifier(config, 20, sparse=True)
    for attempt in (
        lambda: Optimizer(lion, model),
        lambda: takes_rows("lion", CPU),
        lambda: takes_rows("lion", torch.device("cuda")),
        lambda: LazyRows("lion", model.embedding.weight),
        lambda: train(lion, corpus),
    ):
        with pytest.raises(ValueError, match=known):
            attempt()
    with pytest.raises(ValueError, match="'adam': an unread row moves without a closed form"):
        LazyRows("adam", model.embedding.weight)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimiser_matches_pytorch_with_lazy_and_dense_rows(name, corpus):
    """Lazy updates of rows and dense updates of all rows give the same weights."""
    kind = OPTIMIZERS[name]
    config = TrialConfig(optim=name, lr=0.01, hidden_dim=10, warmup_steps=1)
    models = [new_model(config, corpus, CPU) for _ in range(2)]
    assert models[0].embedding.sparse == (kind.rows is not None or bool(kind.dense))
    if kind.dense:
        return  # a different update by design, see test_optimizers
    models[1].embedding.sparse = False
    optimizers = [Optimizer(config, model) for model in models]
    for optimizer in optimizers:
        assert type(optimizer.torch["dense"]).__name__ == kind.name
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        ids = torch.randint(1, corpus.vocabulary_size, (9,), generator=generator)
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.before(ids)
            labels = torch.tensor([0, 1, 1])
            F.cross_entropy(model(ids, Packing([4, 3, 2])), labels).backward()
            optimizer.step()
    for optimizer in optimizers:
        optimizer.settle()
    ours, theirs = (dict(model.named_parameters()) for model in models)
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], rtol=1e-4, atol=2e-5)
