"""Training: exact metrics, the tested epoch, bit-exact resuming, an unused test set."""

import copy
import dataclasses
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from exact import assert_equal_but_for_rounding, assert_exact, rounding
from test_models import Plain

from labrnn.config import TrialConfig
from labrnn.errors import LabError
from labrnn.network import training
from labrnn.network.batches import Batches, shuffled
from labrnn.network.training import NAIVE_BAYES, Meter, TrainingState, evaluate, new_model, train
from labrnn.reviews.text import encode
from tools.first_steps import STEPS, first_losses

CPU = torch.device("cpu")
SMALL = TrialConfig(optim="rmsprop", hidden_dim=10, batch_size=16, epochs=3, warmup_steps=10)
METRICS = ("loss", "accuracy", "loss_batch_mean", "accuracy_batch_mean")


def metrics_of(logits, labels, size):
    """Return the four metrics from all logits at once, in float64 numpy."""
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    top = logits.max(1, keepdims=True)
    logs = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
    losses, hits = -logs[np.arange(len(labels)), labels], logits.argmax(1) == labels
    cuts = range(size, len(labels), size)
    means = [[part.mean() for part in np.split(values, cuts)] for values in (losses, hits)]
    return dict(zip(METRICS, (losses.mean(), hits.mean(), *map(np.mean, means)), strict=True))


def without_seconds(history):
    return [{k: v for k, v in epoch.items() if "seconds" not in k} for epoch in history]


def assert_same_bits(one, other):
    assert without_seconds(one.history) == without_seconds(other.history)
    for name in ("last", "best", "optimizer"):
        found, expected = getattr(one, name), getattr(other, name)
        assert found.keys() == expected.keys()
        for key in found:
            assert torch.equal(found[key], expected[key]), (name, key)


# ---------------------------------------------------------------------------------------- batches


def test_batches_preserve_each_row(real_corpus):
    rows = real_corpus.rows["valid"]
    batches = list(Batches(real_corpus, 16, CPU).of(rows))
    assert [len(b.labels) for b in batches] == [16, 16, 16, 2]
    for batch, chunk in zip(batches, np.split(rows, [16, 32, 48]), strict=True):
        for k, row in enumerate(chunk):
            example = real_corpus.example(row)
            assert batch.ids[batch.packing.rows == k].tolist() == example["ids"]
            assert batch.packing.lengths[k] == example["length"]
            assert batch.labels[k] == example["label"]


def test_epochs_are_shuffled_by_seed_and_number():
    rows = np.arange(100, 200)
    orders = [shuffled(rows, seed, epoch).tolist() for seed in (1, 2) for epoch in (1, 2)]
    assert all(sorted(order) == rows.tolist() for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert shuffled(rows, 1, 1).tolist() == orders[0]


# ---------------------------------------------------------------------------------------- metrics


def test_meter_averages_over_examples_and_over_batches():
    random = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(21, 2, generator=random), torch.arange(21) % 2
    meter = Meter(CPU)
    for start in range(0, 21, 8):
        loss = meter.add(logits[start : start + 8], labels[start : start + 8])
    last = metrics_of(logits[16:], labels[16:], 8)["loss"]
    assert loss.item() == pytest.approx(last, abs=rounding(5))
    expected = metrics_of(logits, labels, 8)
    assert meter.read() == pytest.approx(expected, abs=rounding(21))
    assert expected["loss"] != pytest.approx(expected["loss_batch_mean"], abs=1e-3)


def plain_logits(model, corpus, rows):
    """Return logits of plain PyTorch, in float32 and in float64."""
    ids = [corpus.example(row)["ids"] for row in rows]
    with torch.no_grad():
        return [Plain(model, dtype)(ids) for dtype in (torch.float32, torch.float64)]


def assert_metrics(found, logits, labels, size):
    """Compare metrics with those of both `plain_logits`."""
    plain = [metrics_of(values, labels, size) for values in logits]
    assert_exact(*([f[name] for name in METRICS] for f in (found, *plain)), len(labels))


def test_metrics_match_plain_pytorch(corpus):
    """Validation after the last epoch and test, compared with a padded `torch.nn` model."""
    config = SMALL.replace(bidirectional=True, n_layers=2, dropout_rate=0.2, batch_size=36)
    progress = train(config, corpus)
    tested = training.test(config, corpus, progress)
    for epoch, weights, metrics, split in (
        (3, progress.last, progress.history[-1], "valid"),
        (3, progress.last, tested["last"][0], "test"),
        (progress.best_epoch, progress.best, tested["best"][0], "test"),
    ):
        model = new_model(config, corpus, CPU)
        model.load_state_dict(weights)
        rows = corpus.rows[split]
        logits = plain_logits(model, corpus, rows)
        prefix = "valid_" if split == "valid" else ""
        found = {name: metrics[prefix + name] for name in METRICS}
        assert_metrics(found, logits, corpus.labels[rows], 36)
        assert metrics["epoch"] == epoch
    plain = ([values.softmax(1)[:, 1]] for values in logits)
    assert_exact([tested["best"][1]], *plain, 4 * config.hidden_dim)


def test_training_metrics_are_measured_during_the_epoch(corpus):
    """With one batch per epoch they are those of the untrained model."""
    config = SMALL.replace(batch_size=1000, epochs=1)
    rows = corpus.rows["train"]
    logits = plain_logits(new_model(config, corpus, CPU), corpus, rows)
    (epoch,) = train(config, corpus).history
    found = {name: epoch[f"train_{name}"] for name in METRICS}
    assert_metrics(found, logits, corpus.labels[rows], 1000)


@pytest.mark.parametrize("optim", ["adagrad", "adam", "rmsprop", "sgd"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_small_model_learns(corpus, cell, optim):
    lr = {"sgd": 0.5, "adagrad": 0.1}.get(optim, 0.01)
    config = SMALL.replace(cell=cell, optim=optim, lr=lr, embedding_dim=4, epochs=8)
    progress = train(config, corpus)
    assert progress.history[-1]["train_accuracy"] > 0.95
    assert training.test(config, corpus, progress)["best"][0]["accuracy"] > 0.9
    assert (progress.last["embedding.weight"][0] == 0).all()
    assert progress.last["embedding.weight"].isfinite().all()


def test_first_losses_match_those_of_a_training(corpus):
    config = SMALL.replace(epochs=1, dropout_rate=0.3)
    losses = first_losses(config, corpus, CPU)
    assert len(losses) == math.ceil(len(corpus.rows["train"]) / config.batch_size) < STEPS
    history = train(config, corpus).history
    assert np.mean(losses) == pytest.approx(history[0]["train_loss_batch_mean"], abs=1e-5)


def test_evaluation_disables_dropout_and_changes_no_weights(corpus):
    model = new_model(SMALL.replace(dropout_rate=0.5, n_layers=2), corpus, CPU).train()
    before = copy.deepcopy(model.state_dict())
    batches, rows = Batches(corpus, 16, CPU), corpus.rows["valid"]
    one, other = evaluate(model, batches, rows)[1], evaluate(model, batches, rows[::-1])[1]
    assert_equal_but_for_rounding([one], [other[::-1].copy()], 4 * SMALL.hidden_dim)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())


# ------------------------------------------------------------------------------- the tested epoch


@pytest.mark.parametrize(
    ("losses", "epoch"),
    [([0.5], 1), ([0.5, 0.3, 0.4], 2), ([0.5, 0.3, 0.3], 2), ([0.3, 0.4, 0.2], 3)],
)
def test_best_epoch_is_the_first_with_the_lowest_loss(losses, epoch):
    assert TrainingState([{"valid_loss": loss} for loss in losses], {}, {}, {}).best_epoch == epoch


def test_the_best_epoch_is_kept_and_tested(corpus):
    """With inverted validation labels, the loss rises and the first epoch is best."""
    labels = corpus.labels.copy()
    labels[corpus.rows["valid"]] ^= 1
    inverted = dataclasses.replace(corpus, labels=labels)
    config, seen = SMALL.replace(embedding_dim=4, lr=0.01, epochs=4), []
    progress = train(config, inverted, on_epoch=lambda p: seen.append(copy.deepcopy(p.last)))
    assert progress.best_epoch == 1
    assert len(seen) == 4
    for found, expected in ((progress.best, seen[0]), (progress.last, seen[3])):
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    tested = training.test(config, inverted, progress)
    assert (tested["best"][0]["epoch"], tested["last"][0]["epoch"]) == (1, 4)
    assert tested["best"][0]["loss"] != tested["last"][0]["loss"]


def test_single_epoch_is_tested_once(corpus):
    progress = train(SMALL.replace(epochs=1), corpus)
    tested = training.test(SMALL, corpus, progress)
    assert tested["last"] is tested["best"]


def test_training_does_not_use_test_reviews(corpus):
    """Their ids and labels are invalid, so that any use of them fails."""
    ids, labels = corpus.ids.copy(), corpus.labels.copy()
    for row in corpus.rows["test"]:
        ids[corpus.offsets[row] : corpus.offsets[row + 1]] = 1_000_000
        labels[row] = 77
    poisoned = dataclasses.replace(corpus, ids=ids, labels=labels)
    progress = train(SMALL, poisoned)
    assert_same_bits(progress, train(SMALL, corpus))
    with pytest.raises(IndexError):
        training.test(SMALL, poisoned, progress)


# ---------------------------------------------------------------------------- resuming


@pytest.mark.parametrize("optim", ["adagrad", "adam", "rmsprop", "sgd"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_resumed_training_equals_uninterrupted_bit_for_bit(corpus, cell, optim):
    config = SMALL.replace(cell=cell, optim=optim, dropout_rate=0.3, n_layers=2, embedding_dim=3)
    kept = []
    uninterrupted = train(config, corpus, on_epoch=lambda p: kept.append(copy.deepcopy(p)))
    torch.manual_seed(99)  # the process may have drawn other random numbers meanwhile
    for k in (0, 1):
        assert len(kept[k].history) == k + 1
        assert_same_bits(train(config, corpus, resume=kept[k]), uninterrupted)


def test_training_with_every_component_resumes_bit_for_bit(reviews):
    config = SMALL.replace(words="marks", min_bigram_count=3, bidirectional=True, members=2)
    config = config.replace(embedding_dim=3, embedding_dropout=0.3, word_dropout=0.2)
    config = config.replace(adversarial=0.05, calibrate=True, optim="sparse_adam")
    config = config.replace(schedule="linear", min_trigram_count=3)
    config = config.replace(embedding_init="naive_bayes")
    corpus, kept = encode(reviews, config), []
    assert len(corpus.bigrams)
    assert len(corpus.trigrams)
    uninterrupted = train(config, corpus, on_epoch=lambda p: kept.append(copy.deepcopy(p)))
    torch.manual_seed(99)
    assert_same_bits(train(config, corpus, resume=kept[0]), uninterrupted)


def test_naive_bayes_initialisation_is_the_log_ratio_of_shares(corpus):
    config = SMALL.replace(embedding_dim=3, members=2)
    plain = new_model(config, corpus, CPU)
    model = new_model(config.replace(embedding_init="naive_bayes"), corpus, CPU)
    held = [set(corpus.example(row)["ids"]) for row in corpus.rows["train"]]
    sides = [
        [h for h, r in zip(held, corpus.rows["train"], strict=True) if corpus.labels[r] == k]
        for k in (0, 1)
    ]
    counts = [
        [1 + sum(word in h for h in side) for word in range(corpus.vocabulary_size)]
        for side in sides
    ]
    for member, before in zip(model.members, plain.members, strict=True):
        found, usual = member.embedding.weight.detach(), before.embedding.weight.detach()
        assert torch.equal(found[:, 1:], usual[:, 1:])
        assert found[0].tolist() == [0, 0, 0]
        for word in range(1, corpus.vocabulary_size):
            shares = [count[word] / sum(count) for count in counts]
            expected = NAIVE_BAYES * math.log(shares[1] / shares[0])
            assert found[word, 0].item() == pytest.approx(expected, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("optim", ["sparse_adam", "rmsprop"])
def test_ensemble_member_trains_as_if_alone(corpus, optim):
    config = SMALL.replace(optim=optim, epochs=1)
    alone, both = train(config, corpus), train(config.replace(members=2), corpus)
    for name, value in alone.last.items():
        assert torch.equal(both.last[f"members.0.{name}"], value), name
        assert name.startswith("rnn.bias") or not torch.equal(both.last[f"members.1.{name}"], value)
    assert both.history[0]["valid_loss"] != alone.history[0]["valid_loss"]


def test_adversarial_loss_is_taken_one_step_along_the_gradient(corpus):
    config = SMALL.replace(embedding_dim=3, bidirectional=True, adversarial=0.3)
    model = new_model(config, corpus, CPU).double()
    torch.nn.init.normal_(model.embedding.weight)
    batch = next(Batches(corpus, 16, CPU).of(corpus.rows["train"]))

    def loss(vectors):
        return torch.nn.functional.cross_entropy(
            model.classify(vectors, batch.packing), batch.labels
        )

    vectors = model.embedding(batch.ids)
    (gradient,) = torch.autograd.grad(loss(vectors), vectors, retain_graph=True)
    worse = vectors.detach().clone()
    for review in range(16):
        own = batch.packing.rows == review
        worse[own] += 0.3 * vectors[own].norm() / gradient[own].norm() * gradient[own]
    assert loss(worse) > loss(vectors)
    step = (worse - vectors).detach()
    (loss(vectors) + loss(vectors + step)).backward()
    expected = {name: p.grad.to_dense().clone() for name, p in model.named_parameters()}
    model.zero_grad()
    training._learn(model, batch)
    for name, p in model.named_parameters():
        assert torch.allclose(p.grad.to_dense(), expected[name], rtol=1e-8, atol=1e-12), name


def test_calibration_needs_both_classes(corpus):
    """Validation reviews of one class are refused before the training starts."""
    labels = corpus.labels.copy()
    labels[corpus.rows["valid"]] = 1
    alone, epochs = dataclasses.replace(corpus, labels=labels), []
    with pytest.raises(LabError, match=r"all of one class, .*`calibrate: false`"):
        train(SMALL.replace(calibrate=True), alone, on_epoch=epochs.append)
    assert epochs == []
    assert len(train(SMALL, alone).history) == SMALL.epochs


def test_calibration_uses_only_validation_reviews(corpus):
    config = SMALL.replace(dropout_rate=0.6, optim="adam")
    plain, fitted = train(config, corpus), train(config.replace(calibrate=True), corpus)
    assert all(torch.equal(value, fitted.last[name]) for name, value in plain.last.items())
    rows = corpus.rows["valid"]
    model, batches = new_model(config, corpus, CPU), Batches(corpus, 96, CPU)
    model.load_state_dict(plain.last)
    before = training.log_odds(model, batches, rows)
    training.calibrate(model, batches, corpus)
    after = training.log_odds(model, batches, rows)
    slope, shift = np.polyfit(before, after, 1)
    assert after == pytest.approx(slope * before + shift, abs=rounding(40, np.abs(after).max()))
    # At the optimum of the likelihood the residuals are orthogonal to bias and odds.
    residual = 1 / (1 + np.exp(-after)) - corpus.labels[rows]
    assert [residual.mean(), (residual * before).mean()] == pytest.approx([0, 0], abs=1e-3)
    assert fitted.history[-1]["valid_loss"] <= plain.history[-1]["valid_loss"]
    tested = training.test(config.replace(calibrate=True), corpus, fitted)
    model.load_state_dict(fitted.best)
    expected = evaluate(model, batches, corpus.rows["test"])[1]
    assert_equal_but_for_rounding([tested["best"][1]], [expected], 4 * config.hidden_dim)


def test_resuming_a_finished_training_changes_nothing(corpus):
    progress = train(SMALL, corpus)
    assert_same_bits(train(SMALL, corpus, resume=copy.deepcopy(progress)), progress)


def test_seed_determines_the_training(corpus):
    one, again = train(SMALL, corpus), train(SMALL, corpus)
    assert_same_bits(one, again)
    other = train(SMALL.replace(seed=6), corpus)
    assert not torch.equal(one.last["output.weight"], other.last["output.weight"])


SUBPROCESS_CODE = """
import json, sys
import numpy as np
from labrnn.config import TrialConfig
from labrnn.reviews.sources import Reviews
from labrnn.reviews.text import encode
from labrnn.network.training import train

texts, labels, config = json.load(sys.stdin)
corpus = encode(Reviews(texts, np.array(labels, np.int8), "generated", None, ""), TrialConfig())
progress = train(TrialConfig(**config), corpus)
last = {name: value.tolist() for name, value in progress.last.items()}
print(json.dumps([progress.history, last]))
"""


def train_in_subprocess(config, reviews, **variables):
    """Train in another process with environment variables; return history and last weights."""
    done = subprocess.run(
        [sys.executable, "-c", SUBPROCESS_CODE],
        input=json.dumps([reviews.texts, reviews.labels.tolist(), config.model_dump()]),
        capture_output=True,
        text=True,
        env=os.environ | variables,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_another_process_gives_the_same_bits(reviews, corpus):
    """A training may be resumed in another process.

    A variable that disables Numba's compiler, to debug something else, has no effect.
    """
    history, last = train_in_subprocess(SMALL, reviews, NUMBA_DISABLE_JIT="1")
    here = train(SMALL, corpus)
    assert without_seconds(history) == without_seconds(here.history)
    for name, value in here.last.items():
        assert torch.equal(torch.tensor(last[name]), value), name


def test_non_finite_loss_is_reported(corpus, monkeypatch):
    def broken(config, corpus, device):
        model = new_model(config, corpus, device)
        torch.nn.init.constant_(model.output.bias, torch.nan)
        return model

    monkeypatch.setattr(training, "new_model", broken)
    with pytest.raises(LabError, match=r"not finite after epoch 1; lower lr = 0\.01"):
        train(SMALL, corpus)
