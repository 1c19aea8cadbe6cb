"""`benchmarks/gpu.py` on a CPU, where steps run one by one instead of in a CUDA graph."""

import importlib.util
import json

import numpy as np
import pytest
import torch

from labrnn.config import TrialConfig
from labrnn.network import training
from labrnn.network.training import train
from labrnn.trials.store import PROJECT, Store

spec = importlib.util.spec_from_file_location("gpu", PROJECT / "benchmarks" / "gpu.py")
gpu = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpu)

CPU = torch.device("cpu")
SMALL = TrialConfig(hidden_dim=10, batch_size=16, epochs=2, warmup_steps=10, lr=0.001)


def arrays_of(corpus):
    arrays = {name: np.asarray(getattr(corpus, name)) for name in gpu.ARRAYS}
    return arrays | dict(corpus.rows) | {"vocabulary_size": corpus.vocabulary_size}


@pytest.mark.parametrize(
    "fields",
    [
        {"optim": "rmsprop", "n_layers": 2},
        {"optim": "adam", "bidirectional": True, "schedule": "linear"},
        {"optim": "rmsprop", "cell": "gru", "n_layers": 2, "bidirectional": True},
        {"optim": "rmsprop", "bidirectional": True, "readout": "last_step", "embedding_dim": 4},
    ],
    ids=str,
)
def test_training_matches_the_package(corpus, fields):
    config = SMALL.replace(**fields)
    expected = train(config, corpus)
    tested = training.test(config, corpus, expected)
    reviews = gpu.Reviews(arrays_of(corpus), CPU)
    ((found, metrics, arrays),) = gpu.train_together([gpu.Training(config, reviews)])
    for epoch, wanted in zip(found.history, expected.history, strict=True):
        for name in wanted.keys() - {"seconds", "train_seconds"}:
            # A review near the threshold may change its class: two of 30 at most.
            tolerance = 2e-4 if "loss" in name else 0.07
            assert epoch[name] == pytest.approx(wanted[name], abs=tolerance), name
    assert found.last.keys() == expected.last.keys()
    for name, value in expected.last.items():
        torch.testing.assert_close(found.last[name], value, rtol=1e-2, atol=2e-3)
    for which in ("best", "last"):
        assert metrics[which]["epoch"] == tested[which][0]["epoch"]
        assert arrays[f"{which}/probabilities"] == pytest.approx(tested[which][1], abs=1e-3)


def test_concurrent_trainings_are_independent(corpus):
    reviews = gpu.Reviews(arrays_of(corpus), CPU)
    configs = [SMALL.replace(optim="rmsprop", seed=seed, epochs=1 + seed % 2) for seed in (5, 6, 7)]
    together = {
        t.config.seed: t
        for t, *_ in gpu.train_together([gpu.Training(c, reviews) for c in configs])
    }
    for config in configs:
        ((alone, *_),) = gpu.train_together([gpu.Training(config, reviews)])
        for name, value in alone.last.items():
            assert torch.equal(together[config.seed].last[name], value)


@pytest.mark.parametrize("fields", [{"members": 2}, {"calibrate": True}], ids=str)
def test_unsupported_settings_are_refused(corpus, fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        gpu.Training(SMALL.replace(optim="adam", **fields), gpu.Reviews(arrays_of(corpus), CPU))


def test_prepare_run_and_collect(tmp_path, monkeypatch):
    """Results reach the store; a stored trial is not trained again."""
    monkeypatch.setenv("LABRNN_STORE", str(tmp_path / "trials"))
    params = tmp_path / "lab2d_width.yaml"
    params.write_text("widths: [10]\nseeds: [5]\nepochs: 1\ntrain_reviews: 200\nmax_tokens: 32\n")
    folder, out = tmp_path / "folder", tmp_path / "out"
    gpu.prepare(folder, params)
    trials = json.loads((folder / "trials.json").read_text())["trials"]
    assert trials
    gpu.run(folder, out, "cpu")
    gpu.collect(folder, out)
    stored = list(Store(tmp_path / "trials").trials())
    assert sorted(t.config.model_dump_json() for t in stored) == sorted(
        TrialConfig(**config).model_dump_json() for config in trials
    )
    gpu.prepare(folder, params)
    assert json.loads((folder / "trials.json").read_text())["trials"] == []
