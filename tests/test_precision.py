"""`precision: bf16`: products in bfloat16, everything else in float32."""

import copy

import pytest
import test_recurrent
import torch
from test_recurrent import LENGTHS, some_input, some_rnn
from test_training import SMALL, assert_same_bits
from torch import nn

from labrnn.config import TrialConfig
from labrnn.errors import LabError
from labrnn.network import products
from labrnn.network.recurrent import require_precision
from labrnn.network.training import train
from labrnn.trials.trial import trial_key

CPU = torch.device("cpu")
HALF = SMALL.replace(precision="bf16")
has_bf16 = pytest.mark.skipif(
    not products.BF16_BACKENDS, reason="needs a processor with AVX512-BF16 or AMX"
)


def test_default_precision_keeps_the_key_and_bf16_changes_it():
    assert trial_key(SMALL.replace(precision="float32")) == trial_key(SMALL) != trial_key(HALF)
    assert HALF.difference(SMALL) == "PRECISION=bf16"
    with pytest.raises(LabError, match="precision = 'half'"):
        TrialConfig().replace(precision="half")


def gradients(rnn, precision):
    """Return outputs, then the gradients of the input and of every weight."""
    lengths = LENGTHS["mixed"]
    return test_recurrent.gradients(rnn, some_input(lengths), lengths, "fused", precision)


@has_bf16
@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_bf16_rounds_only_products(cell, bidirectional):
    """The error matches the 8 bits of bfloat16, not the 24 bits of float32."""
    rnn = some_rnn(cell, 2, bidirectional, units=33)
    for half, full in zip(gradients(rnn, "bf16"), gradients(rnn, "float32"), strict=True):
        assert half.dtype == torch.float32
        error = (half - full).norm() / full.norm()
        assert 1e-5 < error < 2e-2
    assert all(p.dtype == torch.float32 for p in rnn.parameters())


@has_bf16
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_bf16_training_resumes_bit_for_bit(corpus, cell):
    config, states = HALF.replace(cell=cell, n_layers=2, lr=0.001), []
    whole = train(config, corpus, on_epoch=lambda state: states.append(copy.deepcopy(state)))
    assert_same_bits(train(config, corpus, resume=states[0]), whole)
    full = train(config.replace(precision="float32"), corpus)
    assert any(not torch.equal(full.last[name], value) for name, value in whole.last.items())
    losses = [state.history[0]["train_loss"] for state in (whole, full)]  # later losses diverge
    assert losses[0] == pytest.approx(losses[1], abs=0.02)


def test_bf16_is_refused_where_unsupported(corpus, monkeypatch):
    with pytest.raises(LabError, match="'bf16': it is for a CPU, the device is cuda; train with"):
        require_precision("bf16", torch.device("cuda"))
    monkeypatch.setattr(products, "BF16_BACKENDS", [])
    with pytest.raises(LabError, match="neither AVX512-BF16 nor AMX"):
        train(HALF, corpus)
    rnn = some_rnn(nn.LSTM)  # a model trained in bf16 is evaluated in float32
    for half, full in zip(gradients(rnn, "bf16"), gradients(rnn, "float32"), strict=True):
        assert torch.equal(half, full)
    require_precision("float32", CPU)
