"""Run recurrent layers over packed tokens with the fastest exact backend for the device."""

from functools import partial

import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from labrnn.errors import LabError
from labrnn.network import products
from labrnn.network.kernels import KERNELS, FusedLayer
from labrnn.network.registry import CELLS, known


def run_layers(rnn, x, packing, backend=None, precision="float32"):
    """Compute the outputs of the last layer at every real token.

    Args:
        rnn: an `nn.LSTM` or `nn.GRU`, or another cell of `CELLS`; its dropout acts between layers.
        x: inputs [N, in], in the order of `packing`.
        packing: the `Packing` of the N tokens.
        backend: `fused`, `dense` or `packed`; the fastest exact one for the device if None.
        precision: `float32` or `bf16`, of the fused kernels' matrix products. A machine without
            bfloat16 products evaluates in float32; `require_precision` refuses to train there.

    Returns:
        [N, directions * H]; no direction reads padding.

    Raises:
        ValueError: the cell of `rnn` is not in `CELLS`.
    """
    known({cell.mode: cell for cell in CELLS.values()}, rnn.mode, "cell")
    backend = backend or fastest_backend(rnn, x)
    if backend == "packed":
        return rnn(PackedSequence(x, torch.tensor(packing.counts)))[0].data
    layer = partial(_fused_layer, precision) if backend == "fused" else _dense_layer
    for k in range(rnn.num_layers):
        if k and rnn.dropout and rnn.training:
            x = F.dropout(x, rnn.dropout)
        sides = ("", "_reverse") if rnn.bidirectional else ("",)
        read = [layer(rnn, x, packing, f"_l{k}{side}") for side in sides]
        x = torch.cat(read, dim=1) if rnn.bidirectional else read[0]
    return x


def fastest_backend(rnn, x):
    """Return the name of the fastest exact backend for layers and their input.

    On a CPU these are the fused kernels, if the input is float32 and the cell has one. On CUDA,
    cuDNN's persistent kernels need dense input of small layers; other layers are as fast packed.
    """
    if x.device.type == "cpu":
        return "fused" if rnn.mode in KERNELS and x.dtype == torch.float32 else "dense"
    if x.device.type == "cuda" and (rnn.hidden_size > 128 or rnn.bidirectional):
        return "packed"
    return "dense"


def require_precision(precision, device):
    """Check that the machine can train in a precision.

    Raises:
        LabError: `bf16` on a device other than a CPU, or on a CPU without bfloat16 products.
    """
    if precision == "float32":
        return
    if device.type != "cpu":
        reason = f"it is for a CPU, the device is {device.type}"
    elif not products.backends(precision):
        reason = "this processor has neither AVX512-BF16 nor AMX"
    else:
        return
    raise LabError(f"precision = {precision!r}: {reason}; train with precision: float32")


def _weights(rnn, suffix):
    return [getattr(rnn, n + suffix) for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


def _fused_layer(precision, rnn, x, packing, suffix):
    precision = precision if products.backends(precision) else "float32"
    reverse = "reverse" in suffix
    return FusedLayer.apply(x, *_weights(rnn, suffix), packing, reverse, rnn.mode, precision)


def _dense_layer(rnn, x, packing, suffix):
    """Run a layer on the padded batch; a reversed review is reversed without its padding."""
    rows, steps = (torch.from_numpy(k).to(x.device) for k in (packing.rows, packing.steps))
    if "reverse" in suffix:
        steps = packing.lengths.to(x.device)[rows] - 1 - steps
    dense = x.new_zeros(len(packing.first), len(packing.counts), x.shape[1])
    dense = dense.index_put((rows, steps), x)
    state = x.new_zeros(1, len(dense), rnn.hidden_size)
    state = (state, state) if rnn.mode == "LSTM" else state
    function = getattr(torch._VF, rnn.mode.lower())
    out = function(dense, state, _weights(rnn, suffix), True, 1, 0.0, rnn.training, False, True)[0]
    return out[rows, steps]
