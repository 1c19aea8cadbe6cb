"""The optimisers: lazily updated rows against PyTorch's dense updates, warm-up, saved state.

Both sides get the same synthetic gradients: with gradients of a loss, rounding errors would grow.
"""

import copy

import numpy as np
import pytest
import torch
from exact import assert_exact
from torch import optim

from labrnn.config import TrialConfig
from labrnn.network.models import Classifier
from labrnn.network.optimizers import LazyRows, Optimizer, rate, takes_rows

CPU = torch.device("cpu")
LAZY = ("sgd", "adagrad", "rmsprop")
ALL = (*LAZY, "adam", "sparse_adam")
DENSE = {
    "sgd": lambda p: optim.SGD(p, 1.0, momentum=0.9),
    "adagrad": lambda p: optim.Adagrad(p, 1.0, eps=1e-6),
    "adam": lambda p: optim.Adam(p, 1.0, eps=1e-6),
    "rmsprop": lambda p: optim.RMSprop(p, 1.0, eps=1e-6, momentum=0.9),
}


def gradients(rows, width, steps, seed=0):
    """Yield the rows with gradients and their gradients, one pair per step.

    Row 0 has gradients at the first step and after 500 more, row 1 never, the others at random.
    """
    random = np.random.default_rng(seed)
    often = 1 / np.arange(1, rows - 1)
    for step in range(steps):
        some = 2 + np.unique(random.choice(rows - 2, random.integers(1, 9), p=often / often.sum()))
        touched = np.concatenate(([0], some)) if step in (0, 501) else some
        values = random.normal(size=(len(touched), width)).astype(np.float32)
        yield torch.from_numpy(touched), torch.from_numpy(values)


def sparse(rows, values, shape):
    return torch.sparse_coo_tensor(rows[None], values, shape, check_invariants=True)


@pytest.mark.parametrize(
    ("name", "settle_every"),
    [("sgd", 10_000), ("sgd", 70), ("adagrad", 10_000), ("rmsprop", 10_000), ("rmsprop", 1)],
)
def test_lazy_rows_match_dense_updates(name, settle_every):
    rows, width, lr = 40, 3, 0.01 if name == "sgd" else 0.001
    torch.manual_seed(0)
    table = torch.nn.Parameter(torch.randn(rows, width))
    kinds = torch.float32, torch.float64
    dense = [torch.nn.Parameter(table.detach().to(kind, copy=True)) for kind in kinds]
    lazy, theirs = LazyRows(name, table), [DENSE[name]([one]) for one in dense]

    def compare(rows, step):
        assert_exact(*([t[rows]] for t in (table, *dense)), step)

    for step, (touched, values) in enumerate(gradients(rows, width, 600), 1):
        lazy.catch_up(touched.numpy())
        if step % 20 == 0 or 0 in touched:
            compare(touched, step)
        now = lr * min(1, step / 200)
        table.grad = sparse(touched, values, table.shape)
        lazy.step(now)
        for one, optimizer in zip(dense, theirs, strict=True):
            one.grad = sparse(touched, values.to(one.dtype), table.shape).to_dense()
            optimizer.param_groups[0]["lr"] = now
            optimizer.step()
        if step % settle_every == 0:
            lazy.settle()
            compare(slice(None), step)
    lazy.settle()
    compare(slice(None), step)
    mine = {"momentum_buffer": lazy.buffer, "sum": lazy.square, "square_avg": lazy.square}
    states = [optimizer.state[one] for one, optimizer in zip(dense, theirs, strict=True)]
    kept = states[0].keys() & mine.keys()
    assert len(kept) == (2 if name == "rmsprop" else 1)
    for key in kept:
        assert_exact([mine[key]], *([state[key]] for state in states), step, size=0)


def test_repeated_rows_in_a_gradient_are_summed():
    table = torch.nn.Parameter(torch.zeros(5, 2))
    table.grad = sparse(torch.tensor([3, 3]), torch.ones(2, 2), table.shape)
    LazyRows("sgd", table).step(0.5)
    assert table.tolist() == [[0, 0], [0, 0], [0, 0], [-1, -1], [0, 0]]


def synthetic(model, step):
    """Return ids of a plausible batch, and a gradient for each parameter by name."""
    random = torch.Generator().manual_seed(step)
    ids = torch.randint(1, 30, (6,), generator=random).unique()
    slopes = {name: torch.randn(p.shape, generator=random) for name, p in model.named_parameters()}
    name = "embedding.weight"
    slopes[name] = sparse(ids, slopes[name][ids], slopes[name].shape)
    return ids, slopes


CONFIG = TrialConfig(hidden_dim=10, embedding_dim=2, warmup_steps=5)


def new_pair(name, dtype=torch.float32):
    """Return a small model and its optimiser."""
    torch.manual_seed(2)
    config = CONFIG.replace(optim=name)
    model = Classifier(config, 30, sparse=takes_rows(name, CPU)).to(dtype)
    return model, Optimizer(config, model)


def run_steps(model, optimizer, steps):
    """Take some steps with synthetic gradients, then settle, as after an epoch."""
    for step in steps:
        ids, slopes = synthetic(model, step)
        optimizer.before(ids)
        for name, p in model.named_parameters():
            table = p is model.embedding.weight and model.embedding.sparse
            p.grad = (slopes[name] if table else slopes[name].to_dense()).to(p.dtype)
        optimizer.step()
    optimizer.settle()


@pytest.mark.parametrize("name", DENSE)
def test_model_updates_match_pytorch(name):
    model, optimizer = new_pair(name)
    plain = [copy.deepcopy(model).to(dtype) for dtype in (torch.float32, torch.float64)]
    start = [p.detach().clone() for p in model.parameters()]
    for one in plain:
        theirs = DENSE[name](one.parameters())
        for step in range(12):
            _, slopes = synthetic(one, step)
            for key, p in one.named_parameters():
                p.grad = slopes[key].to_dense().to(p.dtype)
            theirs.param_groups[0]["lr"] = CONFIG.lr * min(1, (step + 1) / 5)
            theirs.step()
    run_steps(model, optimizer, range(12))
    assert_exact(*(m.parameters() for m in (model, *plain)), 12, size=0)
    assert not any(map(torch.equal, model.parameters(), start))
    assert (model.embedding.weight[0] == 0).all()


def test_sparse_adam_is_adam_on_the_rows_of_the_batch():
    """Other rows keep their values and moments, and every other weight is updated by Adam.

    In float64, since the formula and PyTorch round small gradients differently.
    """
    (model, optimizer), (other, adam) = (
        new_pair(name, torch.float64) for name in ("sparse_adam", "adam")
    )
    table = model.embedding.weight.detach().numpy().copy()
    first, second = np.zeros_like(table), np.zeros_like(table)
    for step in range(1, 13):
        before = model.embedding.weight.detach().clone()
        run_steps(model, optimizer, [step])
        run_steps(other, adam, [step])
        ids, slopes = synthetic(model, step)
        lr, rows = CONFIG.lr * min(1, step / 5), sorted(set(ids.tolist()))
        changed = (model.embedding.weight != before).any(dim=1)
        assert changed.nonzero().flatten().tolist() == rows
        gradient = slopes["embedding.weight"].to_dense().double().numpy()[rows]
        first[rows] = 0.9 * first[rows] + 0.1 * gradient
        second[rows] = 0.999 * second[rows] + 0.001 * gradient**2
        size = (np.sqrt(second[rows]) + 1e-8) / np.sqrt(1 - 0.999**step)  # eps placed as in PyTorch
        table[rows] -= lr * first[rows] / (1 - 0.9**step) / size
        found = optimizer.tensors()
        moments = found["table.0.exp_avg"], found["table.0.exp_avg_sq"]
        weights = model.embedding.weight.detach()
        for one, expected in zip((weights, *moments), (table, first, second), strict=True):
            np.testing.assert_allclose(one, expected, rtol=1e-12, atol=1e-12)
    for (name, mine), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs) == (name != "embedding.weight")


@pytest.mark.parametrize("name", ALL)
def test_saved_state_resumes_bit_for_bit(name):
    model, optimizer = new_pair(name)
    run_steps(model, optimizer, range(8))
    weights, state = copy.deepcopy((model.state_dict(), optimizer.tensors()))
    again, fresh = new_pair(name)
    again.load_state_dict(weights)
    fresh.load(state)
    assert fresh.steps == 8
    for pair in ((model, optimizer), (again, fresh)):
        run_steps(*pair, range(8, 14))
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
        assert not torch.equal(value, weights[key]), key
    assert optimizer.tensors().keys() == fresh.tensors().keys() == state.keys()
    for key, value in optimizer.tensors().items():
        assert torch.equal(value, fresh.tensors()[key]), key


def test_learning_rate_warms_up_then_stays_or_falls():
    config = TrialConfig(lr=0.1, warmup_steps=4)
    steps = (1, 2, 4, 5, 1000)
    assert [rate(config, s, 1000) for s in steps] == pytest.approx([0.025, 0.05, 0.1, 0.1, 0.1])
    assert rate(config.replace(warmup_steps=0), 1, 9) == 0.1
    assert rate(TrialConfig(), 1, 9) == pytest.approx(0.01 / 200)
    falling = config.replace(schedule="linear")
    rates = [rate(falling, step, 12) for step in range(1, 14)]
    assert rates == pytest.approx(
        [0.1 * k / 4 for k in range(1, 4)] + [0.1 * k / 9 for k in range(9, -1, -1)]
    )


def test_lazy_rows_are_used_where_supported():
    assert [takes_rows(name, CPU) for name in ALL] == [True, True, True, False, True]
    assert not takes_rows("sgd", torch.device("cuda"))
