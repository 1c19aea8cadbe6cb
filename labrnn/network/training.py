"""Training, evaluation and the choice of the tested epoch (Lab 1 f and h, Lab 2)."""

import math
import random
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from labrnn.errors import LabError
from labrnn.network.batches import Batches, shuffled
from labrnn.network.models import build
from labrnn.network.optimizers import Optimizer, takes_rows
from labrnn.network.recurrent import require_precision
from labrnn.reviews.text import log_count_ratios

NAIVE_BAYES = 0.15  # scale of the log-count ratios in the embedding, chosen on validation


@dataclass
class TrainingState:
    """The state of a training run after some epochs, from which it can resume.

    Attributes:
        history: one dict per epoch: losses and accuracies (exact, and as means of batch means),
            seconds, and seconds of training alone (processor time on a CPU).
        last: the model's tensors after the last epoch, from which a run resumes.
        best: the tensors with the lowest validation loss, calibrated if the config says so.
        optimizer: the optimiser's tensors.
    """

    history: list
    last: dict
    best: dict
    optimizer: dict

    @property
    def best_epoch(self):
        """The epoch with the lowest validation loss, from 1; the earliest if several are equal."""
        losses = [epoch["valid_loss"] for epoch in self.history]
        return losses.index(min(losses)) + 1


class Meter:
    """Sums of losses and correct predictions over examples, on the device; read once at the end.

    The original study averaged batch means, which gives the smaller last batch too much weight.
    These means are computed as well, for comparison with the published figures.
    """

    def __init__(self, device):
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)
        self.examples = self.batches = 0

    def add(self, logits, labels):
        """Add a batch of logits [B, 2] and labels int64 [B]; return its mean loss."""
        loss = F.cross_entropy(logits, labels)
        with torch.no_grad():
            n, correct = len(labels), (logits.argmax(1) == labels).sum()
            self.sums += torch.stack([loss * n, correct, loss, correct / n]).double()
        self.examples, self.batches = self.examples + n, self.batches + 1
        return loss

    def read(self, prefix=""):
        """Return the means as a dict of floats, whose keys begin with `prefix`."""
        loss, correct, batch_loss, batch_correct = self.sums.tolist()
        return {
            f"{prefix}loss": loss / self.examples,
            f"{prefix}accuracy": correct / self.examples,
            f"{prefix}loss_batch_mean": batch_loss / self.batches,
            f"{prefix}accuracy_batch_mean": batch_correct / self.batches,
        }


def seed_everything(seed):
    """Seed torch, numpy and random with the same seed, as in the lab."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def new_model(config, corpus, device):
    """Return an initialised `Classifier` or `Ensemble` for a corpus, on the device."""
    seed_everything(config.seed)
    sparse = takes_rows(config.optim, device)
    model = build(config, corpus.vocabulary_size, sparse).to(device)
    if config.embedding_init == "naive_bayes":
        start = torch.from_numpy(NAIVE_BAYES * ratios_of_rows(corpus)).float()
        for member in model.members:
            with torch.no_grad():
                member.embedding.weight[:, 0] = start
    return model


def ratios_of_rows(corpus):
    """Compute the log-count ratio of each embedding row, float64 [vocabulary size].

    The counts are those of the training reviews; the ratio of the padding is 0.
    """
    counts = np.zeros((2, corpus.vocabulary_size))
    for row in corpus.rows["train"]:
        read = corpus.rows_read[corpus.offsets[row] : corpus.offsets[row + 1]]
        counts[corpus.labels[row], np.unique(read)] += 1
    ratios = log_count_ratios(*counts)
    ratios[0] = 0
    return ratios


def train(config, corpus, device=torch.device("cpu"), resume=None, on_epoch=None):
    """Train a classifier; the test reviews are not touched.

    Args:
        config: a `TrialConfig`.
        corpus: a `Corpus` encoded under the config's data fields.
        device: the `torch.device` to train on.
        resume: the `TrainingState` of an interrupted run of the same config, or None.
        on_epoch: called with the `TrainingState` after each epoch.

    Returns:
        the final `TrainingState`; on a CPU a resumed run gives the same bits as an unbroken one.

    Raises:
        LabError: the loss is not finite; the device does not support the precision; or calibration
            is on and all validation reviews have the same label.
    """
    require_precision(config.precision, device)
    if config.calibrate and len(set(corpus.labels[corpus.rows["valid"]].tolist())) < 2:
        raise LabError(
            f"{corpus.facts['name']}: the validation reviews are all of one class, but `calibrate` is"
            " true; use more reviews, or set `calibrate: false`"
        )
    model = new_model(config, corpus, device)
    optimizer = new_optimizer(config, corpus, model)
    state = resume or TrainingState([], {}, {}, {})
    if resume:
        model.load_state_dict(resume.last)
        optimizer.load(resume.optimizer)
    batches = Batches(corpus, config.batch_size, device)
    # Processor time on a CPU: it excludes other work on the machine, and pauses.
    watch = time.process_time if device.type == "cpu" else time.perf_counter
    for epoch in range(len(state.history) + 1, config.epochs + 1):
        began, clock = time.perf_counter(), watch()
        measured = _train_epoch(config, corpus, model, optimizer, batches, epoch)
        trained = watch() - clock
        state.last = _snapshot(model)
        if config.calibrate:
            calibrate(model, batches, corpus)
        measured |= evaluate(model, batches, corpus.rows["valid"])[0].read("valid_")
        if not np.isfinite([measured["train_loss"], measured["valid_loss"]]).all():
            raise LabError(
                f"{config.difference()}: the loss is not finite after epoch {epoch}; "
                f"lower lr = {config.lr}"
            )
        seconds = {"seconds": time.perf_counter() - began, "train_seconds": trained}
        state.history.append({"epoch": epoch, **measured, **seconds})
        state.optimizer = {n: v.detach().cpu().clone() for n, v in optimizer.tensors().items()}
        if state.best_epoch == epoch:
            state.best = _snapshot(model)
        if config.calibrate:
            model.load_state_dict(state.last)
        if on_epoch:
            on_epoch(state)
    return state


def _snapshot(model):
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def new_optimizer(config, corpus, model):
    """Return the `Optimizer` of a run, whose schedule knows the number of steps."""
    steps = config.epochs * math.ceil(len(corpus.rows["train"]) / config.batch_size)
    return Optimizer(config, model, steps)


def _train_epoch(config, corpus, model, optimizer, batches, epoch):
    meter = Meter(batches.ids.device)
    for logits, labels in train_steps(config, corpus, model, optimizer, batches, epoch):
        meter.add(logits, labels)
    optimizer.settle()
    return meter.read("train_")


def train_steps(config, corpus, model, optimizer, batches, epoch):
    """Train for an epoch; yield each batch's logits [B, 2] before the update, and its labels."""
    # Dropout uses torch's generator: seeding by epoch gives a resumed run the same masks.
    torch.manual_seed(config.seed * 100_003 + epoch)
    model.train()
    for batch in batches.of(shuffled(corpus.rows["train"], config.seed, epoch)):
        optimizer.before(batch.ids)
        logits = [_learn(member, batch) for member in model.members]
        optimizer.step()
        yield torch.stack(logits).mean(0), batch.labels


def _learn(model, batch):
    """Add the gradients of a network's loss on a batch, and return the logits [B, 2].

    Adversarial training adds the loss at perturbed vectors: a step along the gradient, whose length
    is a share of the length of the review's vectors (Miyato et al. 2017).
    """
    vectors = model.vectors(batch.ids)
    read = vectors.detach().requires_grad_()
    logits = model.classify(read, batch.packing)
    F.cross_entropy(logits, batch.labels).backward()
    gradient = read.grad
    if model.config.adversarial:
        rows = torch.from_numpy(batch.packing.rows).to(read.device)
        of_vectors, of_gradient = (
            some.new_zeros(len(batch.labels)).index_add(0, rows, some.square().sum(1)).sqrt()
            for some in (read.detach(), gradient)
        )
        step = model.config.adversarial * of_vectors / of_gradient.clamp(min=1e-12)
        worse = (read.detach() + step[rows, None] * gradient).requires_grad_()
        F.cross_entropy(model.classify(worse, batch.packing), batch.labels).backward()
        gradient = gradient + worse.grad
    vectors.backward(gradient)
    return logits.detach()


@torch.no_grad()
def evaluate(model, batches, rows):
    """Evaluate a model without dropout on the reviews of `Batches` with these row numbers.

    Returns:
        (`Meter`, probabilities of `positive`, float32 [rows])
    """
    model.eval()
    meter, probabilities = Meter(batches.ids.device), []
    for batch in batches.of(rows):
        logits = model(batch.ids, batch.packing)
        meter.add(logits, batch.labels)
        probabilities.append(logits.softmax(1)[:, 1])
    return meter, torch.cat(probabilities).cpu().numpy()


@torch.no_grad()
def calibrate(model, batches, corpus):
    """Fit scale and bias of the logits to the validation reviews (Platt 1999).

    A model trained with dropout receives more input in evaluation, which shifts its logits. The fit
    changes the weights of the linear layer in place.
    """
    from sklearn.linear_model import LogisticRegression

    rows = corpus.rows["valid"]
    fit = LogisticRegression(C=np.inf).fit(
        log_odds(model, batches, rows)[:, None], corpus.labels[rows]
    )
    scale, shift = float(fit.coef_[0, 0]), float(fit.intercept_[0])
    for output in (member.output for member in model.members):
        for values, more in ((output.weight, 0.0), (output.bias, shift)):
            values[1] = scale * (values[1] - values[0]) + more
            values[0] = 0


@torch.no_grad()
def log_odds(model, batches, rows):
    """Compute the logit of `positive` minus the logit of `negative`, float64 [rows]."""
    model.eval()
    logits = torch.cat([model(batch.ids, batch.packing) for batch in batches.of(rows)])
    return (logits[:, 1] - logits[:, 0]).double().cpu().numpy()


def test(config, corpus, state, device=torch.device("cpu")):
    """Evaluate a `TrainingState` after its best and last epoch on the test reviews; see `train`.

    Returns:
        dict of `best` and `last`: (metrics with the epoch, probabilities [test reviews]).
    """
    batches = Batches(corpus, config.batch_size, device)
    results = {}
    for which, epoch in (("best", state.best_epoch), ("last", len(state.history))):
        if epoch in [metrics["epoch"] for metrics, _ in results.values()]:
            results[which] = results["best"]
            continue
        model = build(config, corpus.vocabulary_size).to(device)
        model.load_state_dict(getattr(state, which))
        if config.calibrate and which == "last":  # `best` is calibrated already
            calibrate(model, batches, corpus)
        meter, probabilities = evaluate(model, batches, corpus.rows["test"])
        results[which] = {"epoch": epoch, **meter.read()}, probabilities
    return results
