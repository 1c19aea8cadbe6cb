"""The lab's optimisers, with an exact and fast update of rarely read embedding rows."""

import numpy as np
import torch
from torch import nn, optim

from labrnn.network.products import compiled
from labrnn.network.registry import ADAGRAD, EPS, OPTIMIZERS, RMSPROP, SGD, known


def rate(config, step, steps):
    """Return the learning rate of a step: linear warm-up, then the config's schedule.

    Args:
        step: number of the step, from 1.
        steps: steps of the whole run; the schedule `linear` falls to 0 after the last one.
    """
    up = step / max(1, config.warmup_steps)
    down = 1.0
    if config.schedule == "linear":
        down = (steps + 1 - step) / max(1, steps + 1 - config.warmup_steps)
    return config.lr * min(1.0, up, down)


def takes_rows(name, device):
    """Whether an optimiser takes a sparse gradient of the embedding.

    It does with `LazyRows` on a CPU, and with `sparse_adam`, which moves only the rows of a batch.

    Raises:
        ValueError: no optimiser has this name.
    """
    kind = known(OPTIMIZERS, name, "optim")
    return (device.type == "cpu" and kind.rows is not None) or bool(kind.dense)


class Optimizer:
    """One optimiser for the whole model, with `LazyRows` for a sparse embedding where possible.

    Args:
        config: a `TrialConfig`; optim, lr, warmup_steps and schedule are used.
        model: a `Classifier` or `Ensemble`, its embedding sparse if `takes_rows`.
        steps: steps of the whole run, for the schedule.
    """

    def __init__(self, config, model, steps=0):
        self.config, self.all_steps, self.steps = config, steps, 0
        embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
        tables = [module.weight for module in embeddings if module.sparse]
        rest = [p for p in model.parameters() if not any(p is table for table in tables)]
        kind = known(OPTIMIZERS, config.optim, "optim")
        named = getattr(optim, kind.name)
        dense = getattr(optim, kind.dense) if kind.dense else named
        self.torch, self.rows = {"dense": dense(rest, config.lr, **kind.options)}, {}
        if kind.dense:
            self.torch["table"] = named(tables, config.lr)
        else:
            self.rows = {f"rows{i or ''}": LazyRows(config.optim, t) for i, t in enumerate(tables)}

    def before(self, ids):
        """Bring the rows of a batch's ids up to date; call before the forward pass."""
        if self.rows:
            read = torch.unique(ids).numpy()
        for rows in self.rows.values():
            rows.catch_up(read)

    def step(self):
        """Update the parameters from their gradients, and clear the gradients."""
        self.steps += 1
        lr = rate(self.config, self.steps, self.all_steps)
        for optimizer in self.torch.values():
            optimizer.param_groups[0]["lr"] = lr
            optimizer.step()
            optimizer.zero_grad()
        for rows in self.rows.values():
            rows.step(lr)

    def settle(self):
        """Bring every row up to date; call before the model is evaluated or saved."""
        for rows in self.rows.values():
            rows.settle()

    def tensors(self):
        """Return the state as name -> tensor, after `settle`; `load` restores it."""
        state = {"steps": torch.tensor(self.steps)}
        for name, optimizer in self.torch.items():
            for i, values in optimizer.state_dict()["state"].items():
                some = {n: torch.as_tensor(v) for n, v in values.items() if v is not None}
                state |= {f"{name}.{i}.{n}": v for n, v in some.items()}
        for name, rows in self.rows.items():
            state |= {f"{name}.buffer": rows.buffer, f"{name}.square": rows.square}
        return state

    def load(self, state):
        """Restore a state that `tensors` returned."""
        self.steps = int(state["steps"])
        for name, optimizer in self.torch.items():
            found = {}
            for entry in (entry for entry in state if entry.startswith(f"{name}.")):
                _, i, key = entry.split(".")
                value = state[entry].clone()
                if (name, key) == ("table", "step"):  # SparseAdam counts in plain numbers
                    value = int(value)
                found.setdefault(int(i), {})[key] = value
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": found, "param_groups": groups})
        for name, rows in self.rows.items():
            rows.buffer.copy_(state[f"{name}.buffer"])
            rows.square.copy_(state[f"{name}.square"])


class LazyRows:
    """SGD, Adagrad or RMSprop for a table of which each step reads few rows.

    With momentum, a row without gradient still moves: each step moves it by lr times its momentum,
    which decays by a constant factor. After k steps this is a geometric sum, so a row is updated
    only when it is next read. The result equals PyTorch's dense update up to rounding.

    Args:
        name: name of an optimiser with a `RowRule`.
        table: the parameter [rows, E], with sparse gradients.

    Raises:
        ValueError: the optimiser is unknown or has no `RowRule`.
    """

    def __init__(self, name, table):
        rule = known(OPTIMIZERS, name, "optim").rows
        if rule is None:
            raise ValueError(f"optim = {name!r}: an unread row moves without a closed form")
        self.rule, self.table = rule, table
        self.buffer = torch.zeros_like(table if rule.momentum else table[:0])
        self.square = torch.zeros_like(table if rule.alpha is not None else table[:0])
        self._restart()

    def _restart(self):
        # pushes[s]: sum over the steps after s of lr * momentum ** (steps since s)
        self.now, self.last, self.pushes = 0, np.zeros(len(self.table), np.int64), [0.0]
        # decays further back are negligible: 1e-18 after 400 steps
        self.decays = self.rule.momentum ** np.arange(1, 401)[::-1]

    def catch_up(self, rows):
        """Bring rows up to date; rows: distinct indices, int64 [n]."""
        if self.rule.momentum:
            decays = self.rule.momentum, 1.0 if self.rule.alpha is None else self.rule.alpha
            pushes = np.array(self.pushes)
            _catch_up(rows, *self._arrays(), self.last, self.now, pushes, *decays)

    def step(self, lr):
        """Update the rows of the table's sparse gradient with a learning rate; clear it."""
        gradient = self.table.grad.coalesce()
        rows, values = gradient.indices()[0].numpy(), gradient.values().numpy()
        self.now += 1
        first = max(0, self.now - len(self.decays))
        pushed = lr * self.decays[-(self.now - first) :]
        self.pushes[first:] = [p + d for p, d in zip(self.pushes[first:], pushed, strict=True)]
        self.pushes.append(0.0)
        self.last[rows] = self.now
        number, momentum, alpha = self.rule.number, self.rule.momentum, self.rule.alpha or 1.0
        _step(rows, values, *self._arrays(), number, lr, momentum, alpha, EPS)
        self.table.grad = None

    def settle(self):
        """Bring all rows up to date."""
        self.catch_up(np.arange(len(self.table)))
        self._restart()

    def _arrays(self):
        return self.table.detach().numpy(), self.buffer.numpy(), self.square.numpy()


@compiled
def _catch_up(rows, table, buffer, square, last, now, pushes, momentum, alpha):
    for row in rows:
        missed = now - last[row]
        if missed == 0:
            continue
        push = np.float32(pushes[last[row]])
        left = np.float32(momentum**missed)
        kept = np.float32(alpha**missed)
        w, b = table[row], buffer[row]
        for j in range(w.size):
            w[j] -= push * b[j]
            b[j] *= left
        if square.size:
            s = square[row]
            for j in range(w.size):
                s[j] *= kept
        last[row] = now


@compiled
def _step(rows, values, table, buffer, square, rule, lr, momentum, alpha, eps):
    lr, momentum, eps = np.float32(lr), np.float32(momentum), np.float32(eps)
    alpha, rest = np.float32(alpha), np.float32(1.0 - alpha)
    for k in range(rows.size):
        w, g = table[rows[k]], values[k]
        if rule == SGD:
            b = buffer[rows[k]]
            for j in range(w.size):
                b[j] = momentum * b[j] + g[j]
                w[j] -= lr * b[j]
        elif rule == ADAGRAD:
            s = square[rows[k]]
            for j in range(w.size):
                s[j] += g[j] * g[j]
                w[j] -= lr * g[j] / (np.sqrt(s[j]) + eps)
        elif rule == RMSPROP:
            b, s = buffer[rows[k]], square[rows[k]]
            for j in range(w.size):
                s[j] = alpha * s[j] + rest * g[j] * g[j]
                b[j] = momentum * b[j] + g[j] / (np.sqrt(s[j]) + eps)
                w[j] -= lr * b[j]
