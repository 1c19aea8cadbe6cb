"""One contestant: takes a batch's number on stdin, answers on stdout how long its step took.

Runs as a process of its own under the environment that has its library, so that each has its own
memory and its own threads; the batches lie as arrays in a folder that `bench.py` fills.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

LR, MOMENTUM, EPS, RHO = 1e-3, 0.9, 1e-6, 0.99  # RMSprop, as in the lab


def ours(setting, folder, lazy=True):
    """labrnn's training step; without `lazy` PyTorch's optimiser moves all of the embedding."""
    import torch

    from labrnn.config import TrialConfig
    from labrnn.network.models import Classifier
    from labrnn.network.optimizers import Optimizer
    from labrnn.network.packing import Packing

    torch.manual_seed(5)
    ids, lengths, labels = arrays(folder)
    config = TrialConfig(optim="rmsprop", lr=LR, **setting["model"])
    model = Classifier(config, setting["vocabulary"], sparse=lazy)
    optimizer = Optimizer(config, model)
    ids, labels = torch.from_numpy(ids), torch.from_numpy(labels)

    def step(k):
        packing = Packing(lengths[k])
        tokens = ids[k][packing.rows, packing.steps]
        began = time.perf_counter()
        optimizer.before(tokens)
        moved = time.perf_counter() - began
        torch.nn.functional.cross_entropy(model(tokens, packing), labels[k]).backward()
        began = time.perf_counter()
        optimizer.step()
        return {"optimizer": moved + time.perf_counter() - began}

    return step, {"torch": torch.__version__, "simd": torch.backends.cpu.get_cpu_capability()}


def dense(setting, folder):
    return ours(setting, folder, lazy=False)


def published(setting, folder):
    """The lab's way in plain PyTorch: packed sequences, output of the last step."""
    import torch
    from torch import nn
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    torch.manual_seed(5)
    size = setting["model"]
    width = size["hidden_dim"]
    embedding = nn.Embedding(setting["vocabulary"], size["embedding_dim"], padding_idx=0)
    cell = nn.LSTM if size["cell"] == "lstm" else nn.GRU
    rnn = cell(size["embedding_dim"], width, size["n_layers"], batch_first=True)
    model = nn.ModuleList([embedding, rnn, nn.Linear(width, 2)])
    optimizer = torch.optim.RMSprop(model.parameters(), LR, RHO, EPS, momentum=MOMENTUM)
    ids, lengths, labels = map(torch.from_numpy, arrays(folder))

    def step(k):
        packed = pack_padded_sequence(
            embedding(ids[k]), lengths[k], batch_first=True, enforce_sorted=False
        )
        out, _ = pad_packed_sequence(rnn(packed)[0], batch_first=True)
        logits = model[2](out[torch.arange(len(out)), lengths[k] - 1])
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, labels[k]).backward()
        optimizer.step()

    return step, {}


def keras(setting, folder):
    """Keras 3 as its guides write it; KERAS_BACKEND chooses what it runs on."""
    import keras
    from keras import layers

    if keras.backend.backend() == "tensorflow":
        import tensorflow

        tensorflow.config.threading.set_intra_op_parallelism_threads(1)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
        version = tensorflow.__version__
    else:
        import jax

        version = jax.__version__
    keras.utils.set_random_seed(5)
    ids, _, labels = arrays(folder)
    size = setting["model"]
    cell = layers.LSTM if size["cell"] == "lstm" else layers.GRU
    model = keras.Sequential(
        [layers.Embedding(setting["vocabulary"], size["embedding_dim"], mask_zero=True)]
        + [cell(size["hidden_dim"], return_sequences=True) for _ in range(size["n_layers"] - 1)]
        + [cell(size["hidden_dim"]), layers.Dense(2)]
    )
    model.compile(
        keras.optimizers.RMSprop(LR, rho=RHO, momentum=MOMENTUM, epsilon=EPS),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )

    def step(k):
        model.train_on_batch(ids[k], labels[k])

    return step, {"keras": keras.__version__, keras.backend.backend(): version}


PRODUCTS, SIDE = 20, 1024


def sgemm(setting, folder):
    """Large square products: what the core can do at best."""
    import torch

    a, out = torch.randn(SIDE, SIDE), torch.empty(SIDE, SIDE)

    def step(_):
        for _ in range(PRODUCTS):
            torch.mm(a, a, out=out)

    return step, {}


def training(setting, folder):
    """A whole default training: validation, test and storing included; a number is its seed."""
    from labrnn.config import TrialConfig
    from labrnn.trials.job import train_and_store
    from labrnn.trials.store import Store

    def step(seed):
        config = TrialConfig(optim="rmsprop", lr=LR, seed=seed)
        trial = train_and_store(config, setting["data"], Store(folder), "cpu")
        return {"accuracy": trial.metrics["best"]["accuracy"]}

    return step, {}


def encoded(setting, folder):
    """From a CSV file to token ids, our way."""
    from labrnn.config import TrialConfig
    from labrnn.reviews.sources import read_reviews
    from labrnn.reviews.text import encode

    def step(_):
        encode(read_reviews(setting["data"]), TrialConfig())

    return step, {}


def cached(setting, folder):
    """Token ids from our cache, which the first step fills."""
    from labrnn.config import TrialConfig
    from labrnn.reviews.text import load_corpus

    os.environ["LABRNN_CACHE"] = str(folder)

    def step(_):
        load_corpus(TrialConfig(), setting["data"])

    return step, {}


def encoded_as_published(setting, folder):
    """Read, split, count, encode review by review, as the lab asks: pandas and plain Python."""
    import pandas as pd
    from sklearn.model_selection import train_test_split

    from labrnn.reviews.text import Vocabulary

    def step(_):
        frame = pd.read_csv(setting["data"])
        train, rest = train_test_split(frame, test_size=0.3, random_state=1002, shuffle=True)
        valid, test = train_test_split(rest, test_size=2 / 3, random_state=1002, shuffle=True)
        vocabulary = Vocabulary.build(train["review"])
        for part in (train, valid, test):
            for review in part["review"]:
                vocabulary.tokenize(review)

    return step, {}


def peak():
    """Most memory that this process ever held, MiB; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def arrays(folder):
    return [np.load(folder / f"{name}.npy") for name in ("ids", "lengths", "labels")]


def main():
    name, folder = sys.argv[1], Path(sys.argv[2])
    setting = json.loads((folder / "setting.json").read_text())
    answers, sys.stdout = sys.stdout, sys.stderr  # a library's print must not be read as an answer

    def answer(**values):
        print(json.dumps(values), file=answers, flush=True)

    step, versions = globals()[name](setting, folder)
    answer(versions=versions)
    for line in sys.stdin:
        began, cpu = time.perf_counter(), time.process_time()
        more = step(int(line)) or {}
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        answer(seconds=seconds, cpu=cpu, peak=peak(), **more)


if __name__ == "__main__":
    main()
