"""The matrix products called by compiled code, and the choice of backend."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from labrnn.errors import LabError
from labrnn.network import products

BACKENDS = dict(products.BACKENDS)
BACKENDS |= {f"{name}, bf16": BACKENDS[name] + products.BFLOAT16 for name in products.BF16_BACKENDS}
SHAPES = [(5, 7, 3), (1, 4, 6), (3, 1, 1), (1, 1, 1), (48, 100, 300), (97, 305, 49), (11, 300, 17)]


def random_matrix(*shape, seed=1):
    """Return random values in a part of a larger matrix, so that rows are not contiguous."""
    rows, columns = shape
    values = np.random.default_rng(seed).normal(size=(rows + 2, columns + 5))
    return values.astype(np.float32)[:rows, 2 : 2 + columns]


def product(backend, a, b):
    """Return a @ b computed by one backend."""
    out = np.empty((len(a), b.shape[1]), np.float32)
    base = np.zeros((1, b.shape[1]), np.float32)
    products.multiply_rows(backend, a, products.prepare(backend, b), base, out)
    return out


def assert_product(found, a, b, base, backend):
    """Assert that a product is within the rounding error, bounded in float64.

    A float32 sum of K terms has an error of at most K * 2**-24 times the sum of their sizes;
    bfloat16 also rounds each of the two factors by 2**-8.
    """
    a, b = a.astype(float), b.astype(float)
    sizes, depth = abs(a) @ abs(b) + abs(base), a.shape[1] + 2
    unit = depth * 2.0**-24 + (2.1 * 2.0**-8 if backend >= products.BFLOAT16 else 0.0)
    assert (abs(found - (base + a @ b)) <= unit * sizes + 1e-30).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
def test_products_match_float64_and_write_only_the_output(backend, shape):
    rows, depth, columns = shape
    a, b = random_matrix(rows, depth), np.ascontiguousarray(random_matrix(depth, columns, seed=2))
    packed, halves = products.prepare(backend, b), products.scratch(backend, rows, depth)
    whole = np.full((rows + 3, columns + 9), 7, np.float32)
    out = whole[:-1, 4 : 4 + columns]
    for base in (random_matrix(1, columns, seed=3), out):
        addend = base[:rows].astype(float)
        if base is not out:
            out[:rows] = np.nan  # previous content must not count
        products.multiply(backend, a, packed, base, out, halves)
        assert_product(out[:rows], a, b, addend, backend)
        around = whole.copy()
        around[:rows, 4 : 4 + columns] = 7
        assert (around == 7).all()


@pytest.mark.parametrize("shape", [*SHAPES, (700, 33, 50), (513, 5, 97)])
@pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
def test_sums_over_tokens_match_float64(backend, shape):
    tokens, rows, columns = shape
    a, b = random_matrix(tokens, rows), random_matrix(tokens, columns, seed=2)
    out = np.full((rows, columns), np.nan, np.float32)
    products.accumulate(backend, a, b, out)
    assert_product(out, a.T, b, 0.0, backend)


@pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
def test_nan_and_infinity_propagate(backend):
    a, b = np.ones((3, 4), np.float32), np.ones((4, 5), np.float32)
    a[0, 1], a[1, 2] = np.nan, np.inf
    a[2, :] = np.frombuffer(
        np.uint32([0x7FFFFFFF] * 4).tobytes(), np.float32
    )  # NaN with all bits set
    found = product(backend, a, b)
    assert np.isnan(found[[0, 2]]).all()
    assert np.isposinf(found[1]).all()


@pytest.mark.parametrize(
    "backend", [products.TILES, products.TILES_BF16][: 1 + bool(products.BF16_BACKENDS)]
)
def test_row_result_does_not_depend_on_other_rows(backend):
    a, b = random_matrix(100, 77), np.ascontiguousarray(random_matrix(77, 130, seed=2))
    together = product(backend, a, b)
    for rows in (1, 3, 8, 13):
        assert np.array_equal(product(backend, a[:rows], b), together[:rows])


# -------------------------------------------------------------------------------- choice of backend


@pytest.fixture
def undecided(tmp_path, monkeypatch):
    """No backend has been chosen or requested."""
    monkeypatch.delenv("LABRNN_PRODUCTS", raising=False)
    monkeypatch.setattr(products, "_choices", lambda: tmp_path)
    products.chosen.cache_clear()
    yield tmp_path
    products.chosen.cache_clear()


def kept(folder):
    (path,) = folder.glob("float32-*.json")
    return path


def test_fastest_backend_is_chosen_and_kept(undecided):
    chosen = products.chosen("float32")
    facts = json.loads(kept(undecided).read_text())
    times = facts["milliseconds per weight"]
    assert facts["chosen"] == chosen
    assert chosen == ("tiles" if 1.4 * times["tiles"] < times["library"] else "library")
    other = next(name for name in products.BACKENDS if name != chosen)
    kept(undecided).write_text(json.dumps({"chosen": other}))
    products.chosen.cache_clear()
    assert products.chosen("float32") == other  # read instead of timed again


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"chosen": "abacus"}', '{"chosen": [1]}'])
def test_damaged_choice_is_repeated(undecided, damage):
    products.chosen("float32")
    kept(undecided).write_text(damage)
    products.chosen.cache_clear()
    chosen = products.chosen("float32")
    assert json.loads(kept(undecided).read_text())["chosen"] == chosen
    assert chosen in products.BACKENDS


@pytest.mark.parametrize("first", list(products.BACKENDS))
def test_first_of_two_concurrent_choices_is_kept(undecided, monkeypatch, first):
    """Another process writes its choice while this one measures."""
    other = next(name for name in products.BACKENDS if name != first)

    def timed(names, precision):
        path = undecided / f"float32-{products._machine()}.json"
        path.write_text(json.dumps({"chosen": first}))
        return {"chosen": other}

    monkeypatch.setattr(products, "_timed", timed)
    assert products.chosen("float32") == first
    assert len(list(undecided.iterdir())) == 1


def test_own_kernel_is_used_if_the_choice_cannot_be_kept(undecided, monkeypatch):
    file = undecided / "file"
    file.write_text("")
    monkeypatch.setattr(products, "_choices", lambda: file / "folder")
    monkeypatch.setattr(products, "_timed", lambda *_: {"chosen": "library"})
    assert products.chosen("float32") == "tiles"


def test_incorrect_backend_is_not_chosen(undecided, monkeypatch):
    right = products.multiply

    def wrong(backend, a, b, base, out, halves):
        right(backend, a, b, base, out, halves)
        if backend == products.TILES:
            out *= np.float32(1.001)

    monkeypatch.setattr(products, "multiply", wrong)
    assert products._timed(list(products.BACKENDS), "float32")["chosen"] == "library"


def test_environment_variable_selects_the_backend(undecided, monkeypatch):
    for name in products.BACKENDS:
        monkeypatch.setenv("LABRNN_PRODUCTS", name)
        products.chosen.cache_clear()
        assert products.chosen("float32") == name
    assert not list(undecided.iterdir())
    monkeypatch.setenv("LABRNN_PRODUCTS", "abacus")
    products.chosen.cache_clear()
    with pytest.raises(LabError, match=r"LABRNN_PRODUCTS = 'abacus'.*library, tiles"):
        products.chosen("float32")


# ------------------------------------------------------------------------------ other machines

WITH_SCIPYS = """
import ctypes
import torch
real = ctypes.CDLL
def hidden(name, *more):
    if name == torch._C.__file__:
        raise OSError("hidden")
    return real(name, *more)
ctypes.CDLL = hidden
from labrnn.network import products
from labrnn.network.packing import Packing
from labrnn.network.recurrent import run_layers
from numba.extending import get_cython_function_address
assert products._sgemm_address() == get_cython_function_address("scipy.linalg.cython_blas", "sgemm")
assert products.chosen("float32") == "library"
torch.manual_seed(1)
for kind in (torch.nn.LSTM, torch.nn.GRU):
    rnn, packing = kind(4, 20, 2, bidirectional=True), Packing([3, 9, 5])
    x = torch.randn(packing.size, 4)
    gradients = []
    for backend in ("fused", "packed"):
        rnn.zero_grad()
        run_layers(rnn, x, packing, backend).square().sum().backward()
        gradients.append([p.grad.clone() for p in rnn.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
print("same")
"""


def run_in_subprocess(code, **variables):
    """Run code in another process and return its output."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env=os.environ | variables
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_scipy_sgemm_is_used_if_pytorch_hides_its_own():
    assert run_in_subprocess(WITH_SCIPYS, LABRNN_PRODUCTS="library") == "same"


BITS = """
import hashlib
import numpy as np
from labrnn.network import products
random = np.random.default_rng(1)
a, b = (random.normal(size=shape).astype(np.float32) for shape in ((21, 77), (77, 130)))
found = np.empty((21, 130), np.float32)
base = np.zeros((1, 130), np.float32)
products.multiply_rows(products.TILES, a, products.prepare(products.TILES, b), base, found)
out = np.empty((77, 50), np.float32)
products.accumulate(products.TILES, random.normal(size=(600, 77)).astype(np.float32),
                    random.normal(size=(600, 50)).astype(np.float32), out)
digest = hashlib.sha256(found.tobytes() + out.tobytes()).hexdigest()
print(products.WIDTH, len(products.BF16_BACKENDS), digest)
"""


@pytest.mark.skipif(products.WIDTH < 16, reason="needs a processor with AVX-512")
def test_narrower_vectors_give_the_same_bits():
    """Numba compiles for the processor named in its variables, here one without bfloat16."""
    narrow = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+bmi,+bmi2"}
    here, there = run_in_subprocess(BITS).split(), run_in_subprocess(BITS, **narrow).split()
    assert here[0] == "16"
    assert there[:2] == ["8", "0"]
    assert there[2] == here[2]


HALVE = """
import numba, numpy
from labrnn.network import products

@numba.njit(**products.OPTIONS)
def halve(x):
    for i in range(len(x)):
        x[i] *= numpy.float32(0.5)

halve(numpy.zeros(9, numpy.float32))
print(*("zmm" in code for code in halve.inspect_asm().values()))
"""


@pytest.mark.skipif(products.WIDTH < 16, reason="needs a processor with AVX-512")
def test_loops_use_whole_vectors_on_intel_processors_with_avx512():
    """LLVM prefers vectors of 256 bits there unless the package asks for whole ones."""
    assert run_in_subprocess(HALVE, NUMBA_CPU_NAME="skylake-avx512") == "True"


def test_trial_environment_names_the_backend():
    from labrnn.trials.environment import environment

    facts = environment(torch.device("cpu"), 1.0)
    assert facts["products"] == f"{products.chosen('float32')}, float32"
    assert environment(torch.device("meta"), 1.0)["products"] == "PyTorch, float32"


def test_compiled_kernels_are_cached_per_product_source():
    """Numba itself checks only the file of the caller and would run an outdated product."""
    from labrnn.network import kernels, recurrent
    from labrnn.network.packing import Packing

    rnn = torch.nn.LSTM(3, 4)
    recurrent.run_layers(rnn, torch.randn(5, 3), Packing([3, 2]), "fused").sum().backward()
    for function in (kernels._read, kernels._read_back):
        file = function._cache._cache_file
        assert file._source_stamp[1] == products.SOURCE
        assert file._load_index()
        file._source_stamp = (file._source_stamp[0], "another")
        assert not file._load_index()
        file._source_stamp = (file._source_stamp[0], products.SOURCE)
