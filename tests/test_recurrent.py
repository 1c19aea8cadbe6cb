"""Every implementation of the recurrent layers against `torch.nn` on packed sequences."""

import copy
import threading

import numpy as np
import pytest
import torch
from exact import assert_equal_but_for_rounding, assert_exact, longest_sum
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from labrnn.network import recurrent
from labrnn.network.packing import Packing
from labrnn.network.recurrent import run_layers

BACKENDS = ("fused", "dense", "packed")
CELLS = (nn.LSTM, nn.GRU)
LENGTHS = {
    "mixed": [5, 12, 1, 7, 7, 3, 12],
    "one row": [9],
    "length 1": [1, 1, 1],
    "all equal": [6, 6, 6, 6],
    "one token": [1],
    "very different": [150, 1, 2],
}


def some_rnn(cell, n_layers=1, bidirectional=False, units=10, inputs=5, dropout=0.0):
    torch.manual_seed(n_layers)
    return cell(inputs, units, n_layers, bidirectional=bidirectional, dropout=dropout)


def some_input(lengths, inputs=5, seed=0):
    """Return random values [B, T, inputs]; padding is random, too."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(lengths), max(lengths), inputs, generator=generator)


def ours(rnn, x, lengths, backend, precision="float32"):
    """Return our outputs [N, D * H] and the packing."""
    packing = Packing(lengths)
    return run_layers(rnn, x[packing.rows, packing.steps], packing, backend, precision), packing


def theirs(rnn, x, lengths, dtype):
    """Return PyTorch's outputs [B, T, D * H] on packed sequences and its model, in a `dtype`."""
    rnn = copy.deepcopy(rnn).to(dtype)
    packed = pack_padded_sequence(
        x.to(dtype), torch.tensor(lengths), batch_first=True, enforce_sorted=False
    )
    return pad_packed_sequence(rnn(packed)[0], batch_first=True)[0], rnn


def gradients(rnn, x, lengths, backend, precision="float32"):
    """Return outputs in packed order, then gradients of the input and of every weight.

    Args:
        backend: one of BACKENDS, or a dtype for PyTorch's own layers.
    """
    x = x.clone().requires_grad_()
    packing = Packing(lengths)
    rnn.zero_grad()
    if backend in BACKENDS:
        out = ours(rnn, x, lengths, backend, precision)[0]
    else:
        out, rnn = theirs(rnn, x, lengths, backend)
        out = out[packing.rows, packing.steps]
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (out * weight).sum().backward()
    return [out.detach(), x.grad, *(p.grad.clone() for p in rnn.parameters())]


def assert_matches_pytorch(rnn, x, lengths, backend, compared=slice(None)):
    """Compare outputs and gradients of an implementation with PyTorch's packed layers."""
    found, float32, float64 = (
        gradients(rnn, x, lengths, kind)[compared]
        for kind in (backend, torch.float32, torch.float64)
    )
    assert_exact(found, float32, float64, longest_sum(rnn, lengths))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("n_layers", [1, 2, 3, 4])
def test_outputs_and_gradients_match_packed_sequences(backend, cell, bidirectional, n_layers):
    rnn = some_rnn(cell, n_layers, bidirectional)
    assert_matches_pytorch(rnn, some_input(LENGTHS["mixed"]), LENGTHS["mixed"], backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("units", [1, 10, 33])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_odd_shapes(backend, cell, units, lengths):
    rnn = some_rnn(cell, 2, True, units, inputs=1)
    assert_matches_pytorch(rnn, some_input(lengths, 1), lengths, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_the_widest_layers_of_the_lab(backend, cell):
    rnn, lengths = some_rnn(cell, 2, True, 305, inputs=32), [40, 7, 31, 12]
    assert_matches_pytorch(rnn, some_input(lengths, 32), lengths, backend)


@pytest.mark.parametrize("bits", [8, 11], ids=["bfloat16", "TF32"])
@pytest.mark.parametrize("cell", CELLS)
def test_bound_rejects_lower_precision(cell, bits):
    rnn, lengths = some_rnn(cell, 2, True, 100), LENGTHS["mixed"]
    x = some_input(lengths)
    float32, float64 = (gradients(rnn, x, lengths, kind) for kind in (torch.float32, torch.float64))
    with torch.no_grad():
        for factor in (x, *rnn.parameters()):
            fraction, exponent = torch.frexp(factor)
            factor.copy_(torch.ldexp((fraction * 2**bits).round() / 2**bits, exponent))
    found = gradients(rnn, x, lengths, "fused")
    for tensors in zip(found, float32, float64, strict=True):
        with pytest.raises(AssertionError):
            assert_exact(*([t] for t in tensors), longest_sum(rnn, lengths))


def test_bound_accepts_sums_in_any_order():
    random = torch.Generator().manual_seed(1)
    a, b = torch.randn(64, 305, generator=random), torch.randn(305, 400, generator=random)
    for order in (range(305), range(304, -1, -1), torch.randperm(305, generator=random)):
        found = torch.zeros(64, 400)
        for k in order:
            found += a[:, k, None] * b[k]
        assert_exact([found], [a @ b], [a.double() @ b.double()], 305)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_outputs_do_not_depend_on_order_batch_or_padding(backend, cell):
    rnn, lengths = some_rnn(cell, 2, True), LENGTHS["mixed"]
    x = some_input(lengths)
    out, packing = ours(rnn, x, lengths, backend)
    order = torch.randperm(len(lengths)).tolist()
    moved, moved_packing = ours(rnn, x[order], [lengths[k] for k in order], backend)
    float32, float64 = (theirs(rnn, x, lengths, kind)[0] for kind in (torch.float32, torch.float64))
    for k, length in enumerate(lengths):
        alone = ours(rnn, x[k : k + 1, :length], [length], backend)[0]
        among = moved[moved_packing.rows == order.index(k)]
        for found in (out[packing.rows == k], alone, among):
            rows = [found], [float32[k, :length]], [float64[k, :length]]
            assert_exact(*rows, longest_sum(rnn, lengths))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("size", [1.0, -1.0])
def test_extreme_activations_are_finite_and_correct(cell, size):
    rnn, lengths = some_rnn(cell, inputs=1), LENGTHS["mixed"]
    with torch.no_grad():
        rnn.weight_ih_l0.copy_(torch.linspace(-1, 1, len(rnn.weight_ih_l0))[:, None])
    x = size * 1e4 * some_input(lengths, 1).sign()
    assert all(tensor.isfinite().all() for tensor in gradients(rnn, x, lengths, "fused"))
    assert_matches_pytorch(rnn, x, lengths, "fused", slice(1))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("units", [3, 10, 64])
@pytest.mark.parametrize("place", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0"])
def test_nan_propagates(cell, units, place):
    rnn, lengths = some_rnn(cell, units=units), LENGTHS["mixed"]
    with torch.no_grad():
        getattr(rnn, place)[0] = torch.nan
    found, *slopes = gradients(rnn, some_input(lengths), lengths, "fused")
    expected, *_ = gradients(rnn, some_input(lengths), lengths, torch.float64)
    # At the first step, PyTorch multiplies a zero state and we do not: NaN comes a step later.
    later = torch.from_numpy(Packing(lengths).steps >= (2 if place == "weight_hh_l0" else 0))
    assert expected.isnan().any()
    assert torch.equal(found.isnan()[later], expected.isnan()[later])
    assert all(slope.isnan().any() for slope in slopes)


@pytest.mark.parametrize("backend", ["fused", "dense"])
@pytest.mark.parametrize("cell", CELLS)
def test_dropout_acts_between_layers_and_only_in_training(backend, cell):
    rnn, lengths = some_rnn(cell, 2, dropout=0.5), LENGTHS["mixed"]
    x = some_input(lengths)
    layers = some_rnn(cell), some_rnn(cell, inputs=10)
    for k, layer in enumerate(layers):
        layer.load_state_dict(
            {n[:-1] + "0": p for n, p in rnn.state_dict().items() if n.endswith(f"l{k}")}
        )
    packing = Packing(lengths)
    torch.manual_seed(3)
    trained = ours(rnn, x, lengths, backend)[0]
    torch.manual_seed(3)
    first = F.dropout(run_layers(layers[0], x[packing.rows, packing.steps], packing, backend), 0.5)
    second = run_layers(layers[1], first, packing, backend)
    assert_equal_but_for_rounding([trained], [second], longest_sum(rnn, lengths))
    rnn.eval()
    assert_matches_pytorch(rnn, x, lengths, backend, slice(1))
    with torch.no_grad():
        assert not torch.allclose(trained, ours(rnn, x, lengths, backend)[0])


@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_a_second_backward_pass_raises(cell, retain):
    rnn, lengths = some_rnn(cell), LENGTHS["mixed"]
    loss = ours(rnn, some_input(lengths), lengths, "fused")[0].sum()
    loss.backward(retain_graph=retain)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@pytest.mark.parametrize("backend", BACKENDS)
def test_interleaved_models_and_batches_are_independent(backend):
    """Forward passes of two models and two batches, then backward passes in reverse order."""
    cases = [
        (some_rnn(cell, 2, True), some_input(lengths, seed=k), lengths)
        for k, lengths in enumerate([LENGTHS["mixed"], LENGTHS["all equal"]])
        for cell in CELLS
    ]
    separate = [gradients(*case, backend)[2:] for case in cases]
    for rnn, *_ in cases:
        rnn.zero_grad()
    outs = [ours(*case, backend)[0] for case in cases]
    for out in reversed(outs):
        weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        (out * weight).sum().backward()
    for (rnn, *_), expected in zip(cases, separate, strict=True):
        found = [p.grad for p in rnn.parameters()]
        assert_equal_but_for_rounding(found, expected, longest_sum(rnn, LENGTHS["mixed"]))


def test_two_batches_before_one_backward_pass():
    rnn, lengths = some_rnn(nn.LSTM), LENGTHS["mixed"]
    inputs = [some_input(lengths, seed=k) for k in (1, 2)]
    separate = [gradients(rnn, x, lengths, "fused")[2:] for x in inputs]
    rnn.zero_grad()
    weight = torch.randn(sum(lengths), 10, generator=torch.Generator().manual_seed(1))
    outs = [ours(rnn, x, lengths, "fused")[0] for x in inputs]
    sum((out * weight).sum() for out in outs).backward()
    found, expected = [p.grad for p in rnn.parameters()], list(map(torch.add, *separate))
    assert_equal_but_for_rounding(found, expected, 2 * longest_sum(rnn, lengths))


def test_two_threads_are_independent():
    lengths = np.random.default_rng(0).integers(1, 40, 50).tolist()
    cases = [(some_rnn(cell, 2, True), some_input(lengths), lengths, "fused") for cell in CELLS]
    separate = [gradients(*case) for case in cases]
    together = [[], []]

    def work(k):
        together[k] = [gradients(*cases[k]) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(k,)) for k in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (rnn, *_), results, expected in zip(cases, together, separate, strict=True):
        assert len(results) == 20
        for found in results:
            assert_equal_but_for_rounding(found, expected, longest_sum(rnn, lengths))


def test_dense_backend_is_used_without_kernels(monkeypatch):
    rnn = some_rnn(nn.LSTM)
    assert recurrent.fastest_backend(rnn, torch.zeros(1)) == "fused"
    assert recurrent.fastest_backend(rnn, torch.zeros(1, dtype=torch.float64)) == "dense"
    monkeypatch.setattr(recurrent, "KERNELS", {})
    assert recurrent.fastest_backend(rnn, torch.zeros(1)) == "dense"


def test_output_of_frozen_layers_needs_no_gradient():
    rnn, lengths = some_rnn(nn.GRU), LENGTHS["mixed"]
    rnn.requires_grad_(False)
    out = ours(rnn, some_input(lengths), lengths, "fused")[0]
    assert not out.requires_grad


@pytest.mark.parametrize("lengths", [[], [3, 0, 2], [-1]])
def test_rows_without_tokens_are_refused(lengths):
    with pytest.raises(ValueError, match="at least one token"):
        Packing(lengths)


def test_packing_matches_packed_sequences():
    lengths = LENGTHS["mixed"]
    x, packing = some_input(lengths), Packing(lengths)
    packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    assert packing.size == sum(lengths)
    assert packing.counts == packed.batch_sizes.tolist()
    assert torch.equal(x[packing.rows, packing.steps], packed.data)
    ends = torch.arange(len(lengths)), torch.tensor(lengths) - 1
    assert torch.equal(packed.data[packing.first], x[:, 0])
    assert torch.equal(packed.data[packing.last], x[ends])
