"""One recurrent layer on a CPU core, fused: LSTM and GRU, forward and backward.

All steps of a batch share one buffer of gates over the packed tokens (`labrnn.network.packing`). A step is
one matrix product into that buffer and one compiled loop over rows and units; the backward pass
turns the same buffer into gate gradients, and the weights' gradients are single products at the
end. Values equal `torch.nn.LSTM` and `GRU` (float32) up to rounding.
"""

import ctypes
import sys

import numpy as np
import torch
from numba import njit

f32 = np.float32


def _keep_freed_memory():
    """Let glibc keep what a batch frees: handing it back costs more page faults than arithmetic."""
    if sys.platform == "linux":
        mmap_max, trim_threshold = -4, -1
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(mmap_max, 0)
            mallopt(trim_threshold, 2**31 - 1)


_keep_freed_memory()

# Only the contraction to fused multiply-adds is allowed: NaN must stay NaN.
compiled = njit(fastmath={"contract"}, error_model="numpy", nogil=True, cache=True)
inlined = njit(fastmath={"contract"}, error_model="numpy", inline="always")


@inlined
def _exp(x):
    # Cephes' polynomial, 1e-7 relative: LLVM vectorises this, not a call of libm's expf.
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
    """Gates [input, forget, cell, output] become activations; h of the step is written.

    before, c [N + 1, H]: state and cell that a token's step starts from. Those of the step after
    are written, of the first `on` rows; what the others end with goes to the spare last row.
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
    """Activations become gradients of the pre-activations; dc holds what flows to the step before.

    dh [B, H]: gradient from the step after, for the `on` rows that went on to it.
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
    """Gates [new, reset, update, recurrent part of new]; the last stays as it is, h is written."""
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
    """As `_lstm_backward`; dh is left holding the part that flows past the gates (update * dh)."""
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


KERNELS = {"LSTM": (_lstm_forward, _lstm_backward), "GRU": (_gru_forward, _gru_backward)}


class FusedLayer(torch.autograd.Function):
    """One layer in one direction over packed tokens: x [N, in] -> h [N, H], float32 on a CPU.

    The GRU's buffer has four columns of units like the LSTM's: [n, r, z, h_n], where the input
    feeds the first three and the recurrent product the last three, since the reset gate multiplies
    only the recurrent part of n.
    """

    @staticmethod
    def forward(ctx, x, w_ih, w_hh, b_ih, b_hh, packing, reverse, cell):
        torch.set_flush_denormal(True)
        units, columns = w_hh.shape[1], w_hh.shape[0]
        forward, _ = KERNELS[cell]
        bias = x.new_zeros(4 * units)
        bias[:columns] += _turn(b_ih, cell)
        bias[-columns:] += b_hh
        # The bias rides along as one more input that is always 1: cheaper than broadcasting it.
        w_x = torch.cat([_turn(w_ih, cell), bias[:columns, None]], dim=1)
        x_1 = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
        w_h = w_hh.t().contiguous()
        gates, h = x.new_empty(len(x), 4 * units), x.new_empty(len(x), units)
        before, c = x.new_empty(len(x) + 1, units), x.new_empty(len(x) + 1, units)
        for state in (before, c):
            state[packing.last if reverse else packing.first] = 0
        torch.mm(x_1, w_x.t(), out=gates[:, :columns])
        gates[:, columns:] = bias[columns:]
        arrays = gates.numpy(), h.numpy(), before.numpy(), c.numpy()
        recurrent = gates[:, -columns:].split(packing.counts)
        states = before[:-1].split(packing.counts)
        for t, *place in packing.walk(reverse):
            torch.addmm(recurrent[t], states[t], w_h, out=recurrent[t])
            forward(*arrays, *place)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(x_1, w_x, w_hh)
            ctx.gates, ctx.before, ctx.c = gates, before, c
            ctx.packing, ctx.reverse, ctx.cell = packing, reverse, cell
        return h

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        torch.set_flush_denormal(True)  # vanishing gradients: denormals are 5 times slower
        x_1, w_x, w_hh = ctx.saved_tensors
        gates, before, c = ctx.gates, ctx.before, ctx.c
        ctx.gates = ctx.before = ctx.c = None  # consumed: a second backward pass must fail
        if gates is None:
            raise RuntimeError("backward through a recurrent layer a second time")
        units, columns = w_hh.shape[1], w_hh.shape[0]
        _, backward = KERNELS[ctx.cell]
        past_gates = float(ctx.cell == "GRU")  # the GRU's kernel leaves its direct path in dh
        dh, dc = x_1.new_empty(2, ctx.packing.counts[0], units)
        arrays = tuple(a.numpy() for a in (gates, before, c, grad.contiguous(), dh, dc))
        recurrent = gates[:, -columns:].split(ctx.packing.counts)
        for t, start, rows, _, on in reversed(list(ctx.packing.walk(ctx.reverse))):
            backward(*arrays, start, rows, on)
            out = dh[:rows]
            torch.addmm(out, recurrent[t], w_hh, beta=past_gates, out=out)
        # MKL multiplies few rows by many columns half as fast again as the other way round.
        d_w_h = (before[:-1].t() @ gates[:, -columns:]).t()
        d_w_x = _turn((x_1.t() @ gates[:, :columns]).t(), ctx.cell, back=True)
        d_x = gates[:, :columns] @ w_x[:, :-1]
        d_b_h = d_w_x[:, -1].clone()
        if ctx.cell == "GRU":
            d_b_h[-units:] = gates[:, -units:].sum(0)
        return d_x, d_w_x[:, :-1], d_w_h, d_w_x[:, -1], d_b_h, None, None, None


def _turn(blocks, cell, back=False):
    """A GRU's rows [r, z, n] in the order [n, r, z] of the buffer, or back."""
    units = len(blocks) // 3
    return blocks.roll(-units if back else units, 0) if cell == "GRU" else blocks
