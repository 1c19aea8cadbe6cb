"""Train many settings on one GPU: each step is one CUDA graph, and several runs train at once.

    python benchmarks/gpu.py prepare FOLDER params/full/lab2f_compound.yaml  # beside the reviews
    python benchmarks/gpu.py run FOLDER OUT        # where the GPU is; needs labrnn's packages, but
                                                   # neither the reviews nor the store
    python benchmarks/gpu.py collect FOLDER OUT    # put OUT's results into the store

`run` compares the GPU with the CPU, times 1, 2, 4 and 8 runs at once, and then trains the missing
ones; each result is written when its run ends. At these sizes a GPU waits for the host and for
small kernels, not for arithmetic. A step (selection of the batch, forward and backward pass,
optimiser) is therefore captured once and replayed, and each run has its own CUDA stream.
"""

import inspect
import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from labrnn.network.batches import shuffled
from labrnn.network.models import Classifier
from labrnn.network.optimizers import rate
from labrnn.network.registry import OPTIMIZERS
from labrnn.network.training import Meter, seed_everything

ARRAYS = ("offsets", "lengths", "labels", "rows_read")
SPLITS = ("train", "valid", "test")
PLAIN = {"calibrate": False, "adversarial": 0.0, "members": 1}
SIZES = (
    {"hidden_dim": 100, "n_layers": 1},
    {"hidden_dim": 305, "n_layers": 4, "embedding_dim": 32},
)
AT_ONCE = (1, 2, 4, 8)


class Reviews:
    """The encoded reviews on a device: tokens [reviews, T] padded with 0, lengths, labels, rows."""

    def __init__(self, arrays, device):
        lengths = arrays["lengths"]
        steps = np.arange(lengths.max())
        places = np.minimum(
            arrays["offsets"][: len(lengths), None] + steps, len(arrays["rows_read"]) - 1
        )
        tokens = np.where(steps < lengths[:, None], arrays["rows_read"][places], 0)
        self.device, self.rows = device, {part: arrays[part] for part in SPLITS}
        self.vocabulary = int(arrays["vocabulary_size"])
        self.tokens = torch.tensor(tokens.astype(np.int32), device=device)
        self.lengths = torch.tensor(lengths, dtype=torch.int64, device=device)
        self.labels = torch.tensor(arrays["labels"], dtype=torch.int64, device=device)


class DenseClassifier(nn.Module):
    """A `Classifier` for dense batches, with a separate module for each layer and direction.

    cuDNN can then use each module's weights directly, and a review is reversed without its padding.
    """

    def __init__(self, model):
        super().__init__()
        self.config, self.embedding, self.output = model.config, model.embedding, model.output
        rnn, self.layers, self.names = model.rnn, nn.ModuleList(), []
        for k in range(rnn.num_layers):
            sides = nn.ModuleList()
            for suffix in (f"_l{k}", f"_l{k}_reverse")[: 1 + rnn.bidirectional]:
                layer = type(rnn)(getattr(rnn, "weight_ih" + suffix).shape[1], rnn.hidden_size)
                for name, values in list(layer.named_parameters()):
                    theirs = name.removesuffix("_l0") + suffix
                    values.data.copy_(getattr(rnn, theirs).data)
                    self.names.append((f"layers.{k}.{len(sides)}.{name}", f"rnn.{theirs}"))
                sides.append(layer)
            self.layers.append(sides)

    def forward(self, tokens, lengths):
        """Logits [B, 2] of tokens [B, T], padded with 0."""
        config, steps = self.config, torch.arange(tokens.shape[1], device=tokens.device)[:, None]
        turned = torch.where(steps < lengths, lengths - 1 - steps, steps)[:, :, None]  # [T, B, 1]
        x = F.dropout(self._vectors(tokens.t().long()), config.embedding_dropout, self.training)
        for k, sides in enumerate(self.layers):
            if k and self.training and config.dropout_rate:
                x = F.dropout(x, config.dropout_rate)
            read = [sides[0](x)[0]]
            if len(sides) == 2:
                back = sides[1](x.gather(0, turned.expand(-1, -1, x.shape[2])))[0]
                read.append(back.gather(0, turned.expand(-1, -1, back.shape[2])))
            x = torch.cat(read, 2)
        units, last = config.hidden_dim, (lengths - 1)[None, :, None]
        state = x.gather(0, last.expand(1, -1, x.shape[2]))[0]
        if config.bidirectional and config.readout == "final_state":
            state = torch.cat([state[:, :units], x[0, :, units:]], 1)
        return self.output(F.dropout(state, config.dropout_rate, self.training))

    def _vectors(self, ids):
        dropped = self.config.word_dropout if self.training else 0
        if not dropped:
            return self.embedding(ids)
        return self.embedding(ids * (torch.rand(ids.shape, device=ids.device) >= dropped)) / (
            1 - dropped
        )

    def weights(self):
        """Return the tensors under the names of `Classifier`, on the CPU."""
        theirs, found = dict(self.names), {}
        for name, value in self.state_dict().items():
            found[theirs.get(name, name)] = value.detach().cpu().clone()
        return found


class Training:
    """A training run; its steps are replays of a CUDA graph on a GPU, and Python calls on a CPU."""

    def __init__(self, config, reviews):
        self.config, self.reviews, device = config, reviews, reviews.device
        self.on_gpu = device.type == "cuda"
        if wrong := [name for name, known in PLAIN.items() if getattr(config, name) != known]:
            raise ValueError(f"{', '.join(wrong)}: not written for a GPU's graph")
        seed_everything(config.seed)
        self.model = DenseClassifier(Classifier(config, reviews.vocabulary)).to(device)
        kind = OPTIMIZERS[config.optim]
        options, optimizer = dict(kind.options), getattr(torch.optim, kind.dense or kind.name)
        if self.on_gpu:
            if kind.dense or "capturable" not in inspect.signature(optimizer).parameters:
                raise ValueError(f"optim = {config.optim!r}: not written for a GPU's graph")
            options |= {"capturable": True, "foreach": True}
            options.pop("fused", None)
        self.rows = reviews.rows["train"]
        self.whole = len(self.rows) // config.batch_size  # full batches of an epoch, for the graph
        steps = config.epochs * -(-len(self.rows) // config.batch_size)
        self.rates = torch.tensor([rate(config, k + 1, steps) for k in range(steps)], device=device)
        self.lr = torch.tensor(0.0, device=device) if self.on_gpu else 0.0
        self.optimizer = optimizer(self.model.parameters(), self.lr, **options)
        self.step, self.place = (
            torch.zeros((), dtype=torch.int64, device=device) for _ in range(2)
        )
        self.order = torch.zeros(self.whole, config.batch_size, dtype=torch.int64, device=device)
        self.meter, self.graph, self.history = Meter(device), None, []
        self.stream = torch.cuda.Stream(device) if self.on_gpu else None
        self.best = self.last = None

    def on_stream(self):
        return torch.cuda.stream(self.stream) if self.on_gpu else nullcontext()

    def _train(self, rows):
        """Train one step on the reviews with these row numbers, int64 [B] on the device."""
        now = self.rates.index_select(0, self.step[None])[0]
        if self.on_gpu:
            self.lr.copy_(now)
        else:
            self.optimizer.param_groups[0]["lr"] = now.item()
        logits = self.model(self.reviews.tokens[rows], self.reviews.lengths[rows])
        loss = self.meter.add(logits, self.reviews.labels[rows])
        self.optimizer.zero_grad(set_to_none=False)
        loss.backward()
        self.optimizer.step()
        self.step += 1

    def _train_next(self):
        self._train(self.order.index_select(0, self.place[None])[0])
        self.place += 1

    def capture(self):
        """Capture a step as a graph; the steps that warm up cuDNN and the optimiser are undone."""
        if not self.on_gpu:
            return
        before = {name: value.clone() for name, value in self.model.state_dict().items()}
        with self.on_stream():
            self.model.train()
            for _ in range(3):
                self._train_next()
                self.place.zero_()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=self.stream):
                self._train_next()
            self.model.load_state_dict(before)
            for state in self.optimizer.state.values():
                for value in state.values():
                    if torch.is_tensor(value):
                        value.zero_()
            for value in (self.step, self.place, self.meter.sums):
                value.zero_()
        self.stream.synchronize()

    def begin_epoch(self):
        epoch = len(self.history) + 1
        self.began, self.meter.examples, self.meter.batches = time.perf_counter(), 0, 0
        rows = shuffled(self.rows, self.config.seed, epoch)
        cut = self.whole * self.config.batch_size
        self.rest = torch.tensor(rows[cut:], device=self.reviews.device)
        with self.on_stream():
            torch.manual_seed(self.config.seed * 100_003 + epoch)
            self.order.copy_(torch.tensor(rows[:cut].reshape(self.order.shape)))
            self.place.zero_()
            self.meter.sums.zero_()
        self.model.train()

    def next(self):
        """Start one step of the epoch, without waiting for the GPU."""
        with self.on_stream():
            if self.graph:
                self.graph.replay()
            else:
                self._train_next()

    def end_epoch(self):
        """Train the last, smaller batch, evaluate, and keep the best epoch's weights."""
        with self.on_stream():
            if len(self.rest):
                self._train(self.rest)
            self.meter.examples, self.meter.batches = (
                len(self.rows),
                self.whole + (len(self.rest) > 0),
            )
            found = self.meter.read("train_") | self.evaluate("valid")[0].read("valid_")
            self.last = self.model.weights()
        found["seconds"] = found["train_seconds"] = time.perf_counter() - self.began
        self.history.append({"epoch": len(self.history) + 1, **found})
        losses = [epoch["valid_loss"] for epoch in self.history]
        if losses[-1] == min(losses) and losses.index(min(losses)) == len(losses) - 1:
            self.best, self.best_epoch = self.last, len(losses)

    @torch.no_grad()
    def evaluate(self, part):
        """Return `Meter` and probabilities of `positive` for the reviews of a split."""
        self.model.eval()
        meter, found = Meter(self.reviews.device), []
        for rows in torch.tensor(self.reviews.rows[part], device=self.reviews.device).split(
            self.config.batch_size
        ):
            logits = self.model(self.reviews.tokens[rows], self.reviews.lengths[rows])
            meter.add(logits, self.reviews.labels[rows])
            found.append(logits.softmax(1)[:, 1])
        return meter, torch.cat(found).cpu().numpy()

    def result(self):
        """Return metrics and arrays for the best and the last epoch, on the test reviews."""
        metrics, arrays, theirs = {}, {}, dict(map(reversed, self.model.names))
        for which, weights, epoch in (
            ("best", self.best, self.best_epoch),
            ("last", self.last, len(self.history)),
        ):
            self.model.load_state_dict({theirs.get(name, name): v for name, v in weights.items()})
            meter, probabilities = self.evaluate("test")
            metrics[which] = {"epoch": epoch, **meter.read()}
            arrays[f"{which}/probabilities"] = probabilities
            arrays |= {f"{which}/{name}": value.numpy() for name, value in weights.items()}
        return metrics, arrays


def train_together(trainings):
    """Train all runs, one step each in turn; yield each run with its result when it ends."""
    for training in trainings:
        training.capture()
    while trainings:
        for training in trainings:
            training.begin_epoch()
        for step in range(max(training.whole for training in trainings)):
            for training in trainings:
                if step < training.whole:
                    training.next()
        for training in trainings:
            training.end_epoch()
        ended = [t for t in trainings if len(t.history) == t.config.epochs]
        trainings = [t for t in trainings if t not in ended]
        for training in ended:
            yield training, *training.result()


def parity(config, arrays, device, steps=20):
    """Return the largest difference between a device's and the CPU's losses of the first steps."""
    losses = []
    for place in (torch.device("cpu"), device):
        training, found = Training(config, Reviews(arrays, place)), []
        training.capture()
        training.begin_epoch()
        for _ in range(min(steps, training.whole)):
            before = training.meter.sums[2].item()
            training.next()
            if training.on_gpu:
                training.stream.synchronize()
            found.append(training.meter.sums[2].item() - before)
        losses.append(found)
    return float(np.abs(np.subtract(*losses)).max())


def pace(config, reviews, count, steps=60):
    """Return the milliseconds per step and run, with `count` runs at once."""
    trainings = [Training(config(seed), reviews) for seed in range(count)]
    for training in trainings:
        training.capture()
        training.begin_epoch()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        for training in trainings:
            training.next()
    torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - began) / steps / count


def prepare(folder, *params):
    """Write the encoded reviews, and the configurations that are not stored yet."""
    from labrnn.config import TrialConfig
    from labrnn.parts import read_params
    from labrnn.reviews.text import load_corpus
    from labrnn.trials.store import default_store

    corpus = load_corpus(TrialConfig(), "")
    store, wanted = default_store(), []
    for path in params:
        wanted += [
            c for c in read_params(Path(path)).trials() if not store.find(c, corpus.fingerprint)
        ]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.asarray(getattr(corpus, name)) for name in ARRAYS} | corpus.rows
    np.savez(folder / "reviews.npz", vocabulary_size=corpus.vocabulary_size, **arrays)
    configs = {"usual": TrialConfig().model_dump(), "trials": [c.model_dump() for c in wanted]}
    (folder / "trials.json").write_text(json.dumps(configs))


def run(folder, out, device="cuda"):
    """Compare with the CPU, measure times, and train; write all figures to stdout and OUT."""
    from labrnn.trials.environment import environment

    device, out = torch.device(device), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.rnn.fp32_precision = "ieee"
    arrays = dict(np.load(Path(folder) / "reviews.npz"))
    configs = json.loads((Path(folder) / "trials.json").read_text())
    usual = configs["usual"] | {"optim": "rmsprop", "lr": 0.001}
    report = {"parity": parity(SimpleNamespace(**usual), arrays, device)}
    print(json.dumps(report), flush=True)
    torch.backends.cudnn.rnn.fp32_precision = "tf32"
    reviews, best = Reviews(arrays, device), {}
    for size in SIZES if device.type == "cuda" else ():
        times = {
            n: pace(lambda s, size=size: SimpleNamespace(**usual | size | {"seed": s}), reviews, n)
            for n in AT_ONCE
        }
        best[size["n_layers"]] = min(times, key=times.get)
        report[f"ms a step, {size}"] = times
        print(json.dumps(report), flush=True)
    (out / "report.json").write_text(json.dumps(report))
    waiting = [SimpleNamespace(**config) for config in configs["trials"]]
    together = max(best.values(), default=2)
    for start in range(0, len(waiting), together):
        trainings = [Training(config, reviews) for config in waiting[start : start + together]]
        for training, metrics, found in train_together(trainings):
            number, facts = waiting.index(training.config), vars(training.config)
            seconds = sum(epoch["seconds"] for epoch in training.history)
            np.savez(out / f"{number}.npz", **found)
            (out / f"{number}.json").write_text(
                json.dumps(
                    {"config": facts, "history": training.history, "metrics": metrics}
                    | {"environment": environment(device, seconds)}
                )
            )
            print(number, metrics["best"]["accuracy"], f"{seconds:.0f} s", flush=True)


def collect(folder, out):
    """Save the results in the store."""
    from labrnn.config import TrialConfig
    from labrnn.network.training import TrainingState
    from labrnn.reviews.text import load_corpus
    from labrnn.trials.store import default_store

    for path in sorted(Path(out).glob("[0-9]*.json")):
        found, arrays = json.loads(path.read_text()), dict(np.load(path.with_suffix(".npz")))
        config, weights = TrialConfig(**found["config"]), {}
        for which in ("best", "last"):
            names = {n.removeprefix(f"{which}/") for n in arrays if n.startswith(f"{which}/")}
            names.discard("probabilities")
            weights[which] = {name: torch.from_numpy(arrays[f"{which}/{name}"]) for name in names}
        state = TrainingState(found["history"], weights["last"], weights["best"], {})
        tested = {w: (found["metrics"][w], arrays[f"{w}/probabilities"]) for w in ("best", "last")}
        trial = default_store().save(
            config, load_corpus(config, ""), state, tested, found["environment"]
        )
        print(trial.folder)


if __name__ == "__main__":
    {"prepare": prepare, "run": run, "collect": collect}[sys.argv[1]](*sys.argv[2:])
