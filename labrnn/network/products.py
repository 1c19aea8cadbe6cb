"""Matrix products of float32 matrices on one core, in float32 or bfloat16, by the fastest backend.

There are two backends: `tiles`, our own kernel, and `library`, the BLAS inside PyTorch (MKL), which
is called by address. On an AMD processor MKL uses only half of the vector width. Our kernel uses
the full width, and packs a layer's weights once for all steps of a batch. A short timing selects
the backend once per machine; a file beside Numba's compiled code stores the choice.

A tile is a block of up to ROWS rows and PANEL columns of the result, held in vector registers while
the kernel loops over the shared dimension. Every element is summed in the order of that dimension,
in blocks of BLOCK for `accumulate`. The bits therefore depend neither on the vector width nor on
the number of rows.
"""

import ctypes
import hashlib
import json
import os
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import llvmlite.binding as llvm
import numba
import numpy as np
import torch
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.core.codegen import get_host_cpu_features
from numba.core.registry import cpu_target
from numba.extending import get_cython_function_address, intrinsic

from labrnn.errors import LabError
from labrnn.files import write_file

numba.config.DISABLE_JIT = False  # plain functions could not be called by address
HOST = numba.config.CPU_FEATURES or get_host_cpu_features()
if "+avx512f" in HOST:  # by default LLVM uses half of each vector of Intel's processors
    numba.config.CPU_FEATURES = f"{HOST},-prefer-256-bit"

f32 = np.float32
SOURCE = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()

# Only contraction to fused multiply-adds: other fast-math options would not preserve NaN.
OPTIONS = {"fastmath": {"contract"}, "error_model": "numpy"}
compiled = njit(**OPTIONS, nogil=True, cache=True)
inlined = njit(**OPTIONS, inline="always")

FEATURES = {
    f[1:] for f in cpu_target.target_context.codegen().magic_tuple()[2].split(",") if f[:1] == "+"
}
WIDTH = 16 if "avx512f" in FEATURES else 8 if "avx2" in FEATURES else 4  # float32 in a vector
ROWS, VECTORS = (4, 3) if WIDTH == 8 else (8, 3)  # a tile; AVX2 has half as many registers
PANEL = WIDTH * VECTORS
BLOCK = 256  # tokens that `accumulate` sums before it adds to the result
BATCH = 96  # rows at once where there are many
LIBRARY, TILES, LIBRARY_BF16, TILES_BF16 = range(4)
BACKENDS = {"library": LIBRARY, "tiles": TILES}
BFLOAT16 = LIBRARY_BF16  # backends from this number on compute in bfloat16


# ------------------------------------------------------------------------ the kernel of a tile

FLOAT, INT, LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, WIDTH)


class _BFloat(ir.types.Type):
    def _to_string(self):
        return "bfloat"


PAIRS = ir.VectorType(_BFloat(), 2 * WIDTH)


def _declare(module, name, result, *arguments):
    return module.globals.get(name) or ir.Function(module, ir.FunctionType(result, arguments), name)


def _splat(builder, value):
    one = builder.insert_element(
        ir.Constant(ir.VectorType(value.type, WIDTH), ir.Undefined), value, INT(0)
    )
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(INT, WIDTH), [0] * WIDTH))


def _tile(module, half, rows, vectors):
    """LLVM function of one tile: out = base + a @ b, for `rows` rows and `vectors` vectors.

    Its arguments are addresses and strides in bytes: a, its row stride, its stride between steps;
    packed b; base and its row stride; out and its row stride. The last two are the steps of the
    shared dimension and the valid columns of the last vector. A step: one float32 or two bfloat16.
    """
    signature = ir.FunctionType(ir.VoidType(), [LONG] * 10)
    function = ir.Function(module, signature, f"tile_{rows}_{vectors}")
    function.linkage = "internal"
    a, a_row, a_step, b, base, base_row, out, out_row, steps, tail = function.args
    entry, loop, end = (function.append_basic_block(name) for name in ("entry", "loop", "end"))

    def at(builder, address, offset, kind):
        return builder.inttoptr(builder.add(address, offset), kind.as_pointer())

    builder = ir.IRBuilder(entry)
    starts = [builder.add(a, builder.mul(a_row, LONG(r))) for r in range(rows)]
    builder.branch(loop)

    builder = ir.IRBuilder(loop)
    step, of_a, of_b = (builder.phi(LONG) for _ in range(3))
    sums = [[builder.phi(VECTOR) for _ in range(vectors)] for _ in range(rows)]
    kind, places = PAIRS if half else VECTOR, (LONG(4 * WIDTH * v) for v in range(vectors))
    b_lanes = [
        builder.load(at(builder, b, builder.add(of_b, place), kind), align=4) for place in places
    ]
    if half:
        product = _declare(module, "llvm.x86.avx512bf16.dpbf16ps.512", VECTOR, VECTOR, PAIRS, PAIRS)
    else:
        product = _declare(module, f"llvm.fma.v{WIDTH}f32", VECTOR, VECTOR, VECTOR, VECTOR)
    after = []
    for start, row in zip(starts, sums, strict=True):
        lane = builder.load(at(builder, start, of_a, INT if half else FLOAT), align=4)
        lanes = _splat(builder, lane)
        if half:
            lanes = builder.bitcast(lanes, PAIRS)
        sides = zip(row, b_lanes, strict=True)
        each = ([s, lanes, b] if half else [lanes, b, s] for s, b in sides)
        after.append([builder.call(product, arguments) for arguments in each])
    advance = ((step, LONG(1)), (of_a, a_step), (of_b, LONG(4 * PANEL)))
    for phi, by in advance:
        phi.add_incoming(LONG(0), entry)
        phi.add_incoming(builder.add(phi, by), loop)
    for row, new in zip(sums, after, strict=True):
        for phi, value in zip(row, new, strict=True):
            phi.add_incoming(ir.Constant(VECTOR, [0.0] * WIDTH), entry)
            phi.add_incoming(value, loop)
    builder.cbranch(builder.icmp_signed("<", step.incomings[1][0], steps), loop, end)

    builder = ir.IRBuilder(end)
    lanes = ir.Constant(ir.VectorType(INT, WIDTH), list(range(WIDTH)))
    mask = builder.icmp_signed("<", lanes, _splat(builder, builder.trunc(tail, INT)))
    pointer, zeros = VECTOR.as_pointer(), ir.Constant(VECTOR, [0.0] * WIDTH)
    suffix, masked = f"v{WIDTH}f32.p0", (pointer, INT, mask.type)
    load = _declare(module, f"llvm.masked.load.{suffix}", VECTOR, *masked, VECTOR)
    store = _declare(module, f"llvm.masked.store.{suffix}", ir.VoidType(), VECTOR, *masked)
    for r in range(rows):
        for v in range(vectors):
            offset = LONG(4 * WIDTH * v)
            old, new = (
                at(builder, start, builder.add(builder.mul(stride, LONG(r)), offset), VECTOR)
                for start, stride in ((base, base_row), (out, out_row))
            )
            if v < vectors - 1:
                builder.store(builder.fadd(builder.load(old, align=4), after[r][v]), new, align=4)
            else:
                value = builder.fadd(builder.call(load, [old, INT(4), mask, zeros]), after[r][v])
                builder.call(store, [value, new, INT(4), mask])
    builder.ret_void()
    return function


def _dispatcher(half):
    """Return an intrinsic that calls the tile for a number of rows and vectors."""

    @intrinsic
    def run(_, a, a_row, a_step, b, base, base_row, out, out_row, steps, tail, rows, vectors):
        def generate(context, builder, signature, arguments):
            *arguments, rows, vectors = arguments
            end = builder.append_basic_block("end")
            tile = builder.switch(builder.add(builder.mul(rows, LONG(VECTORS)), vectors), end)
            for r in range(1, ROWS + 1):
                for v in range(1, VECTORS + 1):
                    block = builder.append_basic_block()
                    tile.add_case(LONG(r * VECTORS + v), block)
                    with builder.goto_block(block):
                        builder.call(_tile(builder.module, half, r, v), arguments)
                        builder.branch(end)
            builder.position_at_end(end)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 12), generate

    return run


_run_tile, _run_tile_bf16 = _dispatcher(False), _dispatcher(True)
_TILE = types.void(*[types.int64] * 12)


@cfunc(_TILE, cache=True)
def _tile_float32(a, a_row, a_step, b, base, base_row, out, out_row, steps, tail, rows, vectors):
    _run_tile(a, a_row, a_step, b, base, base_row, out, out_row, steps, tail, rows, vectors)


def _tile_bf16(a, a_row, a_step, b, base, base_row, out, out_row, steps, tail, rows, vectors):
    _run_tile_bf16(a, a_row, a_step, b, base, base_row, out, out_row, steps, tail, rows, vectors)


# --------------------------------------------------------- functions called by their addresses


def _in_pytorch(name):
    """Address of a function inside PyTorch's library, or None."""
    try:
        return ctypes.cast(getattr(ctypes.CDLL(torch._C.__file__), name), ctypes.c_void_p).value
    except (OSError, AttributeError):
        return None


def _sgemm_address():
    """Return the address of PyTorch's sgemm, or of SciPy's if PyTorch does not export it."""
    scipys = ("scipy.linalg.cython_blas", "sgemm")
    return _in_pytorch("sgemm_") or get_cython_function_address(*scipys)


def _register():
    """Register the addresses for compiled code; return the available bfloat16 backends."""
    sgemm = _sgemm_address()
    bgemm = _in_pytorch("gemm_bf16bf16f32_") if torch.cpu._is_amx_tile_supported() else None
    tile = _tile_float32.address
    tile_bf16 = None
    if WIDTH == 16 and "avx512bf16" in FEATURES:
        global _tile_bf16
        _tile_bf16 = cfunc(_TILE, cache=True)(_tile_bf16)
        tile_bf16 = _tile_bf16.address
    llvm.add_symbol("labrnn_sgemm", sgemm)
    llvm.add_symbol("labrnn_bgemm", bgemm or sgemm)
    llvm.add_symbol("labrnn_tile", tile)
    llvm.add_symbol("labrnn_tile_bf16", tile_bf16 or tile)
    return [name for name, there in (("library", bgemm), ("tiles", tile_bf16)) if there]


BF16_BACKENDS = _register()
_blas = types.void(
    *[types.voidptr] * 6, types.int64, types.voidptr, types.int64, types.voidptr, types.voidptr,
    types.int64, types.voidptr,
)  # fmt: skip
_sgemm = types.ExternalFunction("labrnn_sgemm", _blas)
_bgemm = types.ExternalFunction("labrnn_bgemm", _blas)
_float32_tile = types.ExternalFunction("labrnn_tile", _TILE)
_bf16_tile = types.ExternalFunction("labrnn_tile_bf16", _TILE)


@intrinsic
def _floats(_, address):
    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], FLOAT.as_pointer())

    return types.CPointer(types.float32)(types.int64), generate


@inlined
def _row(matrix, k):
    # For a matrix with any row stride, Numba does not know that the columns are contiguous.
    return carray(_floats(matrix.ctypes.data + k * matrix.strides[0]), matrix.shape[1])


@inlined
def _rounded(x):
    """The bfloat16 nearest to a float32, as its 16 bits; NaN stays NaN."""
    bits = f32(x).view(np.uint32)
    bits += np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return np.uint32(0x7FC0) if x != x else bits >> np.uint32(16)


@compiled
def _halve(a, out):
    """Rows of a as bfloat16, with a zero behind an odd number of columns."""
    columns = a.shape[1]
    for r in range(len(a)):
        x, y = _row(a, r), out[r]
        for j in range(columns):
            y[j] = np.uint16(_rounded(x[j]))
        y[columns:] = 0


@compiled
def _pair(a, out):
    """Rows 2k and 2k + 1 of a as bfloat16, one behind the other in each 32 bits: out [K / 2, N]."""
    columns = a.shape[1]
    for k in range(len(a) // 2):
        low, high, y = _row(a, 2 * k), _row(a, 2 * k + 1), out[k]
        for j in range(columns):
            y[j] = _rounded(low[j]) | (_rounded(high[j]) << np.uint32(16))
    if len(a) % 2:
        low, y = _row(a, len(a) - 1), out[len(a) // 2]
        for j in range(columns):
            y[j] = _rounded(low[j])


# --------------------------------------------------------------------------------- the products


@compiled
def _call_library(half, transposed, rows, columns, depth, a, a_row, b, b_row, out, out_row):
    """out += a @ b, or a.T @ b, matrices by address, row strides in elements.

    BLAS is column-major, so it computes b.T @ a.T. All arguments are passed by address. Integers
    are int64; a BLAS with int32 reads the first half of each.
    """
    ints = np.array([columns, rows, depth, b_row, a_row, out_row, ord("N"), ord("N")])
    if transposed:
        ints[7] = ord("T")
    one = np.ones(1, np.float32)
    if half:
        _bgemm(
            ints[6:].ctypes, ints[7:].ctypes, ints.ctypes, ints[1:].ctypes, ints[2:].ctypes,
            one.ctypes, b, ints[3:].ctypes, a, ints[4:].ctypes, one.ctypes, out, ints[5:].ctypes,
        )  # fmt: skip
    else:
        _sgemm(
            ints[6:].ctypes, ints[7:].ctypes, ints.ctypes, ints[1:].ctypes, ints[2:].ctypes,
            one.ctypes, b, ints[3:].ctypes, a, ints[4:].ctypes, one.ctypes, out, ints[5:].ctypes,
        )  # fmt: skip
    return ints[0] + one[0]  # keeps both alive until here


@compiled
def _pack(half, b, out):
    """At most PANEL columns of b, filled up with zeros: out [steps, PANEL]."""
    columns = b.shape[1]
    out[:, columns:] = f32(0.0)
    if half:
        _pair(b, out.view(np.uint32))
    else:
        for k in range(len(b)):
            x, y = _row(b, k), out[k]
            for j in range(columns):
                y[j] = x[j]


@compiled
def _panel(half, a, a_row, a_step, b, base, base_row, out, out_row, steps, rows, columns):
    """All rows of at most PANEL columns of a product, by addresses as in `_tile`."""
    vectors = (columns + WIDTH - 1) // WIDTH
    tail = columns - (vectors - 1) * WIDTH
    for r in range(0, rows, ROWS):
        a_r, base_r, out_r = a + r * a_row, base + r * base_row, out + r * out_row
        some = min(ROWS, rows - r)
        if half:
            _bf16_tile(
                a_r, a_row, a_step, b, base_r, base_row, out_r, out_row, steps, tail, some, vectors
            )
        else:
            _float32_tile(
                a_r, a_row, a_step, b, base_r, base_row, out_r, out_row, steps, tail, some, vectors
            )


@inlined
def _row_stride(matrix):
    return max(matrix.strides[0] // 4, matrix.shape[1])  # a single row may have any stride


@compiled
def prepare(backend, b):
    """Lay out the second matrix of `multiply`, [K, N], for `backend`: one float32 array."""
    depth, columns = b.shape
    if backend == LIBRARY:
        out = np.empty(depth * columns, np.float32)
        out.reshape(depth, columns)[:] = b
    elif backend == LIBRARY_BF16:
        out = np.empty((depth * columns + 1) // 2, np.float32)
        _halve(b, out.view(np.uint16)[: depth * columns].reshape(depth, columns))
    else:
        half = backend == TILES_BF16
        steps, panels = (depth + 1) // 2 if half else depth, (columns + PANEL - 1) // PANEL
        out = np.empty(panels * steps * PANEL, np.float32)
        grid = out.reshape(panels * steps, PANEL)
        for p in range(panels):
            part = b[:, p * PANEL : (p + 1) * PANEL]
            _pack(half, part, grid[p * steps : (p + 1) * steps])
    return out


@compiled
def scratch(backend, rows, depth):
    """Memory for the first matrix of `multiply` in bfloat16; empty for float32."""
    half = backend >= BFLOAT16
    return np.empty((rows if half else 0, (depth + 1) // 2 * 2), np.uint16)


@njit("(i8, f4[:, :], f4[::1], f4[:, :], f4[:, :], u2[:, ::1])", **OPTIONS, nogil=True, cache=True)
def multiply(backend, a, b, base, out, halves):
    """out[:M] = base + a @ b.

    Args:
        backend: LIBRARY, TILES, LIBRARY_BF16 or TILES_BF16.
        a: [M, K], contiguous within a row, with any row stride; base and out likewise.
        b: the second matrix [K, N], from `prepare`.
        base: the addend: `out` itself, or [1, N], which is added to every row.
        out: [M or more, N].
        halves: memory from `scratch`, for M rows or more.
    """
    (rows, depth), columns = a.shape, out.shape[1]
    half, library = backend >= BFLOAT16, backend in (LIBRARY, LIBRARY_BF16)
    a_start, a_row = a.ctypes.data, 4 * _row_stride(a)
    if half:
        _halve(a, halves)
        a_start, a_row = halves.ctypes.data, halves.strides[0]
    out_start, out_row = out.ctypes.data, 4 * _row_stride(out)
    base_start, base_row = base.ctypes.data, 0 if len(base) == 1 else base.strides[0]
    if library:
        if base_start != out_start:
            out[:rows] = base
        _call_library(
            half, False, rows, columns, depth, a_start, a_row // (2 if half else 4),
            b.ctypes.data, columns, out_start, out_row // 4,
        )  # fmt: skip
    else:
        steps = (depth + 1) // 2 if half else depth
        for start in range(0, columns, PANEL):
            _panel(
                half, a_start, a_row, 4, b.ctypes.data + 4 * start * steps, base_start + 4 * start,
                base_row, out_start + 4 * start, out_row, steps, rows, min(PANEL, columns - start),
            )  # fmt: skip


@njit("(i8, f4[:, :], f4[::1], f4[:, :], f4[:, :])", **OPTIONS, nogil=True, cache=True)
def multiply_rows(backend, a, b, base, out):
    """Compute out = base + a @ b for many rows; base: [1, N]."""
    halves = scratch(backend, BATCH, a.shape[1])
    for start in range(0, len(a), BATCH):
        multiply(backend, a[start : start + BATCH], b, base, out[start : start + BATCH], halves)


@njit("(i8, f4[:, :], f4[:, :], f4[:, ::1])", **OPTIONS, nogil=True, cache=True)
def accumulate(backend, a, b, out):
    """out [M, N] = a.T @ b for a [K, M], b [K, N]; rows are contiguous, row strides are free."""
    (depth, rows), columns = a.shape, b.shape[1]
    half = backend >= BFLOAT16
    out[:] = f32(0.0)
    if backend == LIBRARY:
        a_start, b_start, out_start = a.ctypes.data, b.ctypes.data, out.ctypes.data
        a_row, b_row = _row_stride(a), _row_stride(b)
        _call_library(
            half, True, rows, columns, depth, a_start, a_row, b_start, b_row, out_start, columns
        )
        return
    if backend == LIBRARY_BF16:
        a_half, b_half = scratch(backend, depth, rows), scratch(backend, depth, columns)
        _halve(a, a_half)
        _halve(b, b_half)
        _call_library(
            half, True, rows, columns, depth, a_half.ctypes.data, a_half.shape[1],
            b_half.ctypes.data, b_half.shape[1], out.ctypes.data, columns,
        )  # fmt: skip
        a_half[0, 0] = b_half[0, 0]  # keeps both alive until here
        return
    packed = np.empty((BLOCK, PANEL), np.float32)
    pairs = np.empty((BLOCK // 2 if half else 0, rows), np.uint32)
    for k in range(0, depth, BLOCK):
        a_k, b_k = a[k : k + BLOCK], b[k : k + BLOCK]
        steps, start, a_step = len(a_k), a_k.ctypes.data, 4 * _row_stride(a)
        if half:
            _pair(a_k, pairs)
            steps, start, a_step = (len(a_k) + 1) // 2, pairs.ctypes.data, 4 * rows
        for column in range(0, columns, PANEL):
            _pack(half, b_k[:, column : column + PANEL], packed)
            to = out.ctypes.data + 4 * column
            _panel(
                half, start, 4, a_step, packed.ctypes.data, to, 4 * columns, to, 4 * columns, steps,
                rows, min(PANEL, columns - column),
            )  # fmt: skip


# --------------------------------------------------------------------------- the choice


def backends(precision):
    """Return the names of this machine's backends for a precision, possibly none."""
    return list(BACKENDS) if precision == "float32" else BF16_BACKENDS


@cache
def chosen(precision):
    """Return the backend in use: LABRNN_PRODUCTS, or the fastest one at first use.

    The choice decides the bits of the results, so it is made once per machine and stored. If it
    cannot be stored, our kernel is used without timing.

    Raises:
        LabError: this machine does not have the backend of LABRNN_PRODUCTS.
    """
    names = backends(precision)
    wanted = os.environ.get("LABRNN_PRODUCTS", "")
    if wanted:
        if wanted not in names:
            raise LabError(
                f"LABRNN_PRODUCTS = {wanted!r}: not a backend for {precision} on this machine; "
                f"choose one of: {', '.join(names)}"
            )
        return wanted
    try:
        return _kept_choice(_choices() / f"{precision}-{_machine()}.json", names, precision)
    except OSError:
        return names[-1]


def backend(precision):
    """Return the number of the chosen backend, for compiled code."""
    return _number(chosen(precision), precision)


def _number(name, precision):
    return BACKENDS[name] + (BFLOAT16 if precision == "bf16" else 0)


def _choices():
    """Return the folder of Numba's compiled code for this module."""
    return Path(_tile_float32._cache._cache_path)


def _machine():
    """Return a digest of what a choice depends on: processor, versions, threads, source."""
    processor = cpu_target.target_context.codegen().magic_tuple()
    facts = [processor, torch.__version__, numba.__version__, torch.get_num_threads(), SOURCE]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _kept_choice(path, names, precision):
    """Return the stored choice, or time and store one; the first of two writers wins."""
    if _read_choice(path, names) is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        aside = path.with_name(f"{path.name}.{os.getpid()}.writing")
        try:
            write_file(aside, json.dumps(_timed(names, precision)).encode())
            with suppress(FileExistsError):
                os.link(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    return _read_choice(path, names) or names[-1]


def _read_choice(path, names):
    """Return the stored name; None if the file is missing or damaged, or names no backend here."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        name = json.loads(path.read_bytes())["chosen"]
        return name if name in names else None
    return None


def _timed(names, precision):
    """Time each backend on products of the lab's sizes, in milliseconds per weight.

    Choose the fastest correct one; `tiles` must be 1.4 times as fast, as a whole step gains less.
    """
    random = np.random.default_rng(1)
    times, faults = {}, {}
    for name in names:
        number, times[name] = _number(name, precision), 0.0
        for depth, columns in ((100, 400), (400, 100), (305, 1220)):
            a = random.normal(size=(96, depth)).astype(np.float32)
            b = random.normal(size=(depth, columns)).astype(np.float32)
            expected = a.astype(float) @ b
            out, base = (np.zeros((rows, columns), np.float32) for rows in (96, 1))
            packed, halves, trials = prepare(number, b), scratch(number, 96, depth), []
            for _ in range(12):
                began = time.perf_counter()
                multiply(number, a, packed, base, out, halves)
                trials.append(time.perf_counter() - began)
            times[name] += 1000 * min(trials) / (depth * columns)
            fault = abs(out - expected).max() / abs(expected).max()
            faults[name] = max(faults.get(name, 0.0), fault)
    right = [name for name in names if faults[name] < (1e-5 if precision == "float32" else 2e-2)]
    scores = {name: times[name] * (1.4 if name == "tiles" else 1.0) for name in right or names}
    return {
        "chosen": min(scores, key=scores.get),
        "milliseconds per weight": times,
        "largest error": faults,
    }
