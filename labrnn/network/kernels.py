"""Fused LSTM and GRU layers for one CPU core, forward and backward.

All time steps share one buffer of gates over the packed tokens (`labrnn.network.packing`). A step
is one matrix product into that buffer and one loop over rows and units; one call of compiled code
does all steps. The backward pass overwrites the buffer with the gates' gradients, and the weights'
gradients are single products at the end. Results equal `torch.nn.LSTM` and `torch.nn.GRU` in
float32 up to rounding.
"""

import ctypes
import sys
from dataclasses import dataclass

import numpy as np
import torch

from labrnn.network import products
from labrnn.network.products import compiled, inlined, multiply, scratch
from labrnn.network.registry import known

f32 = np.float32


def _keep_freed_memory():
    """Let glibc keep freed memory: page faults would take longer than the arithmetic."""
    if sys.platform == "linux":
        mmap_max, trim_threshold = -4, -1
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(mmap_max, 0)
            mallopt(trim_threshold, 2**31 - 1)


_keep_freed_memory()


@inlined
def _exp(x):
    # Cephes' polynomial, relative error 1e-7: LLVM can vectorise it, unlike a call of expf.
    x = min(max(x, f32(-87.0)), f32(87.0))
    n = np.floor(x * f32(1.44269504) + f32(0.5))
    r = x - n * f32(0.693359375) + n * f32(2.12194440e-4)
    p = f32(1.9875691500e-4)
    p = p * r + f32(1.3981999507e-3)
    p = p * r + f32(8.3334519073e-3)
    p = p * r + f32(4.1665795894e-2)
    p = p * r + f32(1.6666665459e-1)
    p = p * r + f32(5.0000001201e-1)
    p = p * r * r + r + f32(1.0)
    return p * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@inlined
def _sigmoid(x):
    return f32(1.0) / (f32(1.0) + _exp(-x))


@inlined
def _tanh(x):
    return f32(2.0) / (f32(1.0) + _exp(f32(-2.0) * x)) - f32(1.0)


@compiled
def _lstm_forward(gates, h, before, c, start, rows, after, on):
    """Turn the gates [input, forget, cell, output] of a step into activations; write its h.

    before, c [N + 1, H]: hidden and cell state before each token. The first `on` rows continue:
    their new states are written for the next step, those of the others to the spare last row.
    """
    H, spare = h.shape[1], len(h)
    for k in range(rows):
        g, hk, old = gates[start + k], h[start + k], c[start + k]
        gi, gf, gc, go = g[:H], g[H : 2 * H], g[2 * H : 3 * H], g[3 * H :]
        to = after + k if k < on else spare
        next_h, next_c = before[to], c[to]
        for j in range(H):
            i, f, u, o = _sigmoid(gi[j]), _sigmoid(gf[j]), _tanh(gc[j]), _sigmoid(go[j])
            new = i * u + f * old[j]
            gi[j], gf[j], gc[j], go[j] = i, f, u, o
            next_c[j] = new
            hk[j] = next_h[j] = o * _tanh(new)


@compiled
def _lstm_backward(gates, before, c, grad, dh, dc, start, rows, on):
    """Turn activations into gradients of the pre-activations; dc: gradient for the step before.

    dh [B, H]: gradient from the next step, for the `on` rows that continue there.
    """
    H = c.shape[1]
    for k in range(rows):
        g, old, dk, dck, dhk = gates[start + k], c[start + k], grad[start + k], dc[k], dh[k]
        gi, gf, gc, go = g[:H], g[H : 2 * H], g[2 * H : 3 * H], g[3 * H :]
        if k >= on:
            dck[:] = f32(0.0)
            dhk[:] = f32(0.0)
        for j in range(H):
            i, f, u, o = gi[j], gf[j], gc[j], go[j]
            t = _tanh(i * u + f * old[j])
            d = dk[j] + dhk[j]
            d_c = dck[j] + d * o * (f32(1.0) - t * t)
            gi[j] = d_c * u * i * (f32(1.0) - i)
            gf[j] = d_c * old[j] * f * (f32(1.0) - f)
            gc[j] = d_c * i * (f32(1.0) - u * u)
            go[j] = d * t * o * (f32(1.0) - o)
            dck[j] = d_c * f


@compiled
def _gru_forward(gates, h, before, c, start, rows, after, on):
    """Activate the gates [new, reset, update, recurrent part of new], except the last; write h."""
    H, spare = h.shape[1], len(h)
    for k in range(rows):
        g, hk, old = gates[start + k], h[start + k], before[start + k]
        gn, gr, gz, gh = g[:H], g[H : 2 * H], g[2 * H : 3 * H], g[3 * H :]
        next_h = before[after + k if k < on else spare]
        for j in range(H):
            r, z = _sigmoid(gr[j]), _sigmoid(gz[j])
            n = _tanh(gn[j] + r * gh[j])
            gn[j], gr[j], gz[j] = n, r, z
            hk[j] = next_h[j] = (f32(1.0) - z) * n + z * old[j]


@compiled
def _gru_backward(gates, before, c, grad, dh, dc, start, rows, on):
    """As `_lstm_backward`; dh keeps the part that flows past the gates (update * dh)."""
    H = before.shape[1]
    for k in range(rows):
        g, old, dk, dhk = gates[start + k], before[start + k], grad[start + k], dh[k]
        gn, gr, gz, gh = g[:H], g[H : 2 * H], g[2 * H : 3 * H], g[3 * H :]
        if k >= on:
            dhk[:] = f32(0.0)
        for j in range(H):
            n, r, z = gn[j], gr[j], gz[j]
            d = dk[j] + dhk[j]
            d_n = d * (f32(1.0) - z) * (f32(1.0) - n * n)
            gr[j] = d_n * gh[j] * r * (f32(1.0) - r)
            gz[j] = d * (old[j] - n) * z * (f32(1.0) - z)
            gn[j] = d_n
            gh[j] = d_n * r
            dhk[j] = d * z


@dataclass(frozen=True)
class Kernel:
    """How a cell uses the fused layer's buffer, which has four columns of H units each.

    Attributes:
        number: number of the cell in compiled code.
        cell_state: whether the cell has a state besides its output.
        first: first column that the recurrent product is added to; the input product is added to
            as many columns, from 0 on. The blocks of the weights are rotated by `first` to fit.
    """

    number: int
    cell_state: bool
    first: int


LSTM, GRU = 0, 1
KERNELS = {"LSTM": Kernel(LSTM, cell_state=True, first=0), "GRU": Kernel(GRU, False, first=1)}


def compiled_with_products(function):
    """`compiled` for callers of `multiply`: recompile also if products.py changes.

    Numba checks only the function's own file, and would call an old product on new packed weights.
    """
    dispatcher = compiled(function)
    file = dispatcher._cache._cache_file
    file._source_stamp = (file._source_stamp, products.SOURCE)
    return dispatcher


@compiled_with_products
def _read(cell, backend, walk, gates, recurrent, w_h, h, before, c):
    """Run all steps; add the recurrent products to `recurrent`, columns of `gates`, and write h."""
    halves = scratch(backend, walk[:, 1].max(), h.shape[1])
    for t in range(len(walk)):
        start, rows, after, on = walk[t]
        some = recurrent[start : start + rows]
        multiply(backend, before[start : start + rows], w_h, some, some, halves)
        if cell == LSTM:
            _lstm_forward(gates, h, before, c, start, rows, after, on)
        elif cell == GRU:
            _gru_forward(gates, h, before, c, start, rows, after, on)


@compiled_with_products
def _read_back(cell, backend, walk, gates, recurrent, w_hh, before, c, grad, dh, dc):
    """Run all steps from last to first and replace the gates by their gradients."""
    halves = scratch(backend, len(dh), recurrent.shape[1])
    nothing = np.zeros((1, dh.shape[1]), np.float32)
    for t in range(len(walk) - 1, -1, -1):
        start, rows, _, on = walk[t]
        some = recurrent[start : start + rows]
        if cell == LSTM:
            _lstm_backward(gates, before, c, grad, dh, dc, start, rows, on)
            multiply(backend, some, w_hh, nothing, dh, halves)
        elif cell == GRU:
            _gru_backward(gates, before, c, grad, dh, dc, start, rows, on)
            multiply(backend, some, w_hh, dh, dh, halves)


class FusedLayer(torch.autograd.Function):
    """One layer in one direction over packed tokens: x [N, in] -> h [N, H], float32 on a CPU.

    The GRU's buffer has four columns of units, like the LSTM's: [n, r, z, h_n]. The input product
    is added to the first three and the recurrent product to the last three, since the reset gate
    multiplies only the recurrent part of n.
    """

    @staticmethod
    def forward(ctx, x, w_ih, w_hh, b_ih, b_hh, packing, reverse, cell, precision="float32"):
        torch.set_flush_denormal(True)
        kernel, backend = known(KERNELS, cell, "cell"), products.backend(precision)
        units, columns = w_hh.shape[1], w_hh.shape[0]
        x, w_x = x.detach().contiguous(), _turn(w_ih, kernel.first).detach()
        bias = x.new_zeros(1, 4 * units)
        bias[:, :columns] += _turn(b_ih, kernel.first)
        bias[:, -columns:] += b_hh
        gates, h = x.new_empty(len(x), 4 * units), x.new_empty(len(x), units)
        before = x.new_empty(len(x) + 1, units)
        c = torch.empty_like(before) if kernel.cell_state else before
        for state in (before, c):
            state[packing.last if reverse else packing.first] = 0
        _multiply_rows(backend, x, w_x.t(), bias[:, :columns], gates[:, :columns])
        gates[:, columns:] = bias[:, columns:]
        w_h = products.prepare(backend, w_hh.detach().t().contiguous().numpy())
        buffer, *arrays = (a.numpy() for a in (gates, h, before, c))
        walk = packing.walk(reverse)
        _read(kernel.number, backend, walk, buffer, buffer[:, -columns:], w_h, *arrays)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(x, w_x, w_hh)
            ctx.gates, ctx.before, ctx.c = gates, before, c
            ctx.packing, ctx.reverse, ctx.kernel, ctx.backend = packing, reverse, kernel, backend
        return h

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        torch.set_flush_denormal(True)  # vanishing gradients: denormals are 5 times slower
        x, w_x, w_hh = ctx.saved_tensors
        gates, before, c = ctx.gates, ctx.before, ctx.c
        first, backend = ctx.kernel.first, ctx.backend
        ctx.gates = ctx.before = ctx.c = None  # consumed: a second backward pass must fail
        if gates is None:
            raise RuntimeError("backward through a recurrent layer a second time")
        units, columns = w_hh.shape[1], w_hh.shape[0]
        dh, dc = x.new_empty(2, ctx.packing.counts[0], units)
        buffer, *arrays = (a.numpy() for a in (gates, before, c, grad.contiguous(), dh, dc))
        w_h = products.prepare(backend, w_hh.detach().numpy())
        walk = ctx.packing.walk(ctx.reverse)
        _read_back(ctx.kernel.number, backend, walk, buffer, buffer[:, -columns:], w_h, *arrays)
        d_w_h = _accumulate(backend, before[:-1], gates[:, -columns:]).t()
        # The bias is one more input that is always 1.
        x_1 = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
        d_w_x = _turn(_accumulate(backend, x_1, gates[:, :columns]).t(), -first)
        d_x = torch.empty_like(x)
        _multiply_rows(backend, gates[:, :columns], w_x, x.new_zeros(1, x.shape[1]), d_x)
        d_b_h = d_w_x[:, -1].clone()
        if first:  # only the recurrent product is added to the last column
            d_b_h[-first * units :] = gates[:, -first * units :].sum(0)
        return d_x, d_w_x[:, :-1], d_w_h, d_w_x[:, -1], d_b_h, None, None, None, None


def _multiply_rows(backend, a, b, base, out):
    """Compute out = base + a @ b for tensors."""
    b = products.prepare(backend, b.contiguous().numpy())
    products.multiply_rows(backend, a.numpy(), b, base.numpy(), out.numpy())


def _accumulate(backend, a, b):
    """Return a.T @ b for tensors."""
    out = a.new_empty(a.shape[1], b.shape[1])
    products.accumulate(backend, a.numpy(), b.numpy(), out.numpy())
    return out


def _turn(blocks, first):
    """Rotate a GRU's blocks [r, z, n] to the buffer's [n, r, z]; back if `first` is negative."""
    return blocks.roll(first * (len(blocks) // 3), 0) if first else blocks
