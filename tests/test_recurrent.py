"""Every way through the recurrent layers against `torch.nn` on packed sequences."""

import copy
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from labrnn.network import recurrent
from labrnn.network.packing import Packing
from labrnn.network.recurrent import run_layers

WAYS = ("fused", "dense", "packed")
CELLS = (nn.LSTM, nn.GRU)
LENGTHS = {
    "mixed": [5, 12, 1, 7, 7, 3, 12],
    "one row": [9],
    "length 1": [1, 1, 1],
    "all equal": [6, 6, 6, 6],
    "one token": [1],
    "far apart": [150, 1, 2],
}


def some_rnn(cell, n_layers=1, bidirectional=False, units=10, inputs=5, dropout=0.0):
    torch.manual_seed(n_layers)
    return cell(inputs, units, n_layers, bidirectional=bidirectional, dropout=dropout)


def some_input(lengths, inputs=5, seed=0):
    """Random values [B, T, inputs]; what lies behind a row's length is as random as the rest."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(lengths), max(lengths), inputs, generator=generator)


def ours(rnn, x, lengths, way):
    """Outputs [N, D * H] and the packing."""
    packing = Packing(lengths)
    return run_layers(rnn, x[packing.rows, packing.steps], packing, way), packing


def theirs(rnn, x, lengths):
    """PyTorch's outputs on packed sequences in float64, [B, T, D * H], and its float64 model."""
    rnn = copy.deepcopy(rnn).double()
    packed = pack_padded_sequence(
        x.double(), torch.tensor(lengths), batch_first=True, enforce_sorted=False
    )
    return pad_packed_sequence(rnn(packed)[0], batch_first=True)[0], rnn


def gradients(rnn, x, lengths, way=None):
    """Outputs in the packing's order, then gradients of the input and of every weight."""
    x = x.clone().requires_grad_()
    packing = Packing(lengths)
    rnn.zero_grad()
    if way:
        out = ours(rnn, x, lengths, way)[0]
    else:
        out, rnn = theirs(rnn, x, lengths)
        out = out[packing.rows, packing.steps]
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (out * weight).sum().backward()
    return [out.detach(), x.grad, *(p.grad.clone() for p in rnn.parameters())]


def assert_close(found, expected, tolerance=1e-5):
    """Each tensor to `tolerance` of its largest value."""
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= tolerance * b.abs().max()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("n_layers", [1, 2, 3, 4])
def test_outputs_and_gradients_are_those_of_packed_sequences(way, cell, bidirectional, n_layers):
    rnn = some_rnn(cell, n_layers, bidirectional)
    x, lengths = some_input(LENGTHS["mixed"]), LENGTHS["mixed"]
    assert_close(gradients(rnn, x, lengths, way), gradients(rnn, x, lengths))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("units", [1, 10, 33])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_odd_shapes(way, cell, units, lengths):
    rnn, x = some_rnn(cell, 2, True, units, inputs=1), some_input(lengths, 1)
    assert_close(gradients(rnn, x, lengths, way), gradients(rnn, x, lengths))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cell", CELLS)
def test_order_company_and_padding_change_nothing(way, cell):
    rnn, lengths = some_rnn(cell, 2, True), LENGTHS["mixed"]
    x = some_input(lengths)
    out, packing = ours(rnn, x, lengths, way)
    order = torch.randperm(len(lengths)).tolist()
    moved, moved_packing = ours(rnn, x[order], [lengths[k] for k in order], way)
    for k, length in enumerate(lengths):
        row = out[packing.rows == k]
        alone = ours(rnn, x[k : k + 1, :length], [length], way)[0]
        torch.testing.assert_close(row, alone, rtol=0, atol=1e-6)
        among = moved[moved_packing.rows == order.index(k)]
        torch.testing.assert_close(row, among, rtol=0, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("size", [1.0, -1.0])
def test_extreme_activations_are_finite_and_right(cell, size):
    rnn, lengths = some_rnn(cell, inputs=1), LENGTHS["mixed"]
    with torch.no_grad():
        rnn.weight_ih_l0.copy_(torch.linspace(-1, 1, len(rnn.weight_ih_l0))[:, None])
    x = size * 1e4 * some_input(lengths, 1).sign()
    found = gradients(rnn, x, lengths, "fused")
    assert all(tensor.isfinite().all() for tensor in found)
    torch.testing.assert_close(found[0], gradients(rnn, x, lengths)[0].float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("units", [3, 10, 64])
@pytest.mark.parametrize("place", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0"])
def test_nan_stays_nan(cell, units, place):
    rnn, lengths = some_rnn(cell, units=units), LENGTHS["mixed"]
    with torch.no_grad():
        getattr(rnn, place)[0] = torch.nan
    found, *slopes = gradients(rnn, some_input(lengths), lengths, "fused")
    expected, *_ = gradients(rnn, some_input(lengths), lengths)
    # At the first step PyTorch multiplies a state of zeros, ours nothing: NaN comes a step later.
    later = torch.from_numpy(Packing(lengths).steps >= (2 if place == "weight_hh_l0" else 0))
    assert expected.isnan().any()
    assert torch.equal(found.isnan()[later], expected.isnan()[later])
    assert all(slope.isnan().any() for slope in slopes)


@pytest.mark.parametrize("way", ["fused", "dense"])
@pytest.mark.parametrize("cell", CELLS)
def test_dropout_acts_between_layers_and_only_in_training(way, cell):
    rnn, lengths = some_rnn(cell, 2, dropout=0.5), LENGTHS["mixed"]
    x = some_input(lengths)
    layers = some_rnn(cell), some_rnn(cell, inputs=10)
    for k, layer in enumerate(layers):
        layer.load_state_dict(
            {n[:-1] + "0": p for n, p in rnn.state_dict().items() if n.endswith(f"l{k}")}
        )
    packing = Packing(lengths)
    torch.manual_seed(3)
    trained = ours(rnn, x, lengths, way)[0]
    torch.manual_seed(3)
    first = F.dropout(run_layers(layers[0], x[packing.rows, packing.steps], packing, way), 0.5)
    torch.testing.assert_close(trained, run_layers(layers[1], first, packing, way))
    rnn.eval()
    assert_close([ours(rnn, x, lengths, way)[0]], [gradients(rnn, x, lengths)[0]])
    with torch.no_grad():
        assert not torch.allclose(trained, ours(rnn, x, lengths, way)[0])


@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_a_second_backward_pass_raises(cell, retain):
    rnn, lengths = some_rnn(cell), LENGTHS["mixed"]
    loss = ours(rnn, some_input(lengths), lengths, "fused")[0].sum()
    loss.backward(retain_graph=retain)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@pytest.mark.parametrize("way", WAYS)
def test_models_and_batches_interleaved_do_not_meet(way):
    """Forward passes of two models and two batches, then their backward passes the other way."""
    cases = [
        (some_rnn(cell, 2, True), some_input(lengths, seed=k), lengths)
        for k, lengths in enumerate([LENGTHS["mixed"], LENGTHS["all equal"]])
        for cell in CELLS
    ]
    apart = [gradients(*case, way)[2:] for case in cases]
    for rnn, *_ in cases:
        rnn.zero_grad()
    outs = [ours(*case, way)[0] for case in cases]
    for out in reversed(outs):
        weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        (out * weight).sum().backward()
    for (rnn, *_), expected in zip(cases, apart, strict=True):
        assert_close([p.grad for p in rnn.parameters()], expected, 1e-6)


def test_two_batches_before_one_backward_pass():
    rnn, lengths = some_rnn(nn.LSTM), LENGTHS["mixed"]
    inputs = [some_input(lengths, seed=k) for k in (1, 2)]
    apart = [gradients(rnn, x, lengths, "fused")[2:] for x in inputs]
    rnn.zero_grad()
    weight = torch.randn(sum(lengths), 10, generator=torch.Generator().manual_seed(1))
    outs = [ours(rnn, x, lengths, "fused")[0] for x in inputs]
    sum((out * weight).sum() for out in outs).backward()
    assert_close([p.grad for p in rnn.parameters()], [a + b for a, b in zip(*apart, strict=True)])


def test_two_threads_do_not_meet():
    lengths = np.random.default_rng(0).integers(1, 40, 50).tolist()
    cases = [(some_rnn(cell, 2, True), some_input(lengths), lengths, "fused") for cell in CELLS]
    apart = [gradients(*case) for case in cases]
    together = [[], []]

    def work(k):
        together[k] = [gradients(*cases[k]) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(k,)) for k in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for results, expected in zip(together, apart, strict=True):
        assert len(results) == 20
        for found in results:
            assert_close(found, expected, 1e-6)


def test_without_numba_the_dense_way_serves(monkeypatch):
    rnn = some_rnn(nn.LSTM)
    assert recurrent.fastest_way(rnn, torch.zeros(1)) == "fused"
    assert recurrent.fastest_way(rnn, torch.zeros(1, dtype=torch.float64)) == "dense"
    monkeypatch.setattr(recurrent, "FusedLayer", None)
    assert recurrent.fastest_way(rnn, torch.zeros(1)) == "dense"


def test_layers_without_gradients_leave_none():
    rnn, lengths = some_rnn(nn.GRU), LENGTHS["mixed"]
    rnn.requires_grad_(False)
    out = ours(rnn, some_input(lengths), lengths, "fused")[0]
    assert not out.requires_grad


@pytest.mark.parametrize("lengths", [[], [3, 0, 2], [-1]])
def test_rows_without_tokens_are_refused(lengths):
    with pytest.raises(ValueError, match="at least one token"):
        Packing(lengths)


def test_packing_is_that_of_packed_sequences():
    lengths = LENGTHS["mixed"]
    x, packing = some_input(lengths), Packing(lengths)
    packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    assert packing.size == sum(lengths)
    assert packing.counts == packed.batch_sizes.tolist()
    assert torch.equal(x[packing.rows, packing.steps], packed.data)
    ends = torch.arange(len(lengths)), torch.tensor(lengths) - 1
    assert torch.equal(packed.data[packing.first], x[:, 0])
    assert torch.equal(packed.data[packing.last], x[ends])
