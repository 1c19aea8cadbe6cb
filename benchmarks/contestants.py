"""One contestant: it reads the number of a batch on stdin and writes its step's time to stdout.

It runs in a separate process, with the environment of its library, so that memory and threads are
not shared. The batches are arrays in a folder that `bench.py` fills.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

LR, MOMENTUM, EPS, RHO = 1e-3, 0.9, 1e-6, 0.99  # RMSprop, as in the lab


def ours(setting, folder, lazy=True, **fields):
    """labrnn's training step; without `lazy` PyTorch's optimiser updates all embedding rows."""
    import torch

    from labrnn.config import TrialConfig
    from labrnn.network.models import Classifier
    from labrnn.network.optimizers import Optimizer
    from labrnn.network.packing import Packing

    torch.manual_seed(5)
    ids, lengths, labels = arrays(folder)
    config = TrialConfig(optim="rmsprop", lr=LR, **setting["model"], **fields)
    model = Classifier(config, setting["vocabulary"], sparse=lazy)
    optimizer = Optimizer(config, model)
    ids, labels = torch.from_numpy(ids), torch.from_numpy(labels)

    def step(k):
        packing = Packing(lengths[k])
        tokens = ids[k][packing.rows, packing.steps]
        began = time.process_time()
        optimizer.before(tokens)
        moved = time.process_time() - began
        torch.nn.functional.cross_entropy(model(tokens, packing), labels[k]).backward()
        began = time.process_time()
        optimizer.step()
        return {"optimizer": moved + time.process_time() - began}

    return step, {"torch": torch.__version__, "simd": torch.backends.cpu.get_cpu_capability()}


def ours_bf16(setting, folder):
    from labrnn.network import products

    if not products.backends("bf16"):
        raise RuntimeError("the processor has neither AVX512-BF16 nor AMX")
    return ours(setting, folder, precision="bf16")


def every_row(setting, folder):
    return ours(setting, folder, lazy=False)


def published(setting, folder):
    """The published solution in plain PyTorch: packed sequences, output of the last step."""
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    def read(rnn, vectors, lengths):
        packed = pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(rnn(packed)[0], batch_first=True)[0]

    return plain(setting, folder, read)


def padded(setting, folder):
    """The simplest PyTorch code: the layer on the padded batch, read at the last token."""
    return plain(setting, folder, lambda rnn, vectors, lengths: rnn(vectors)[0])


def padded_on_all_cores(setting, folder):
    import torch

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count()))
    torch.set_num_threads(os.cpu_count())
    return padded(setting, folder)


def padded_bf16(setting, folder):
    """PyTorch's own bfloat16 on a CPU: autocast."""
    import torch

    step, versions = padded(setting, folder)

    def in_bf16(k):
        with torch.autocast("cpu", torch.bfloat16):
            step(k)

    in_bf16(0)  # raises where autocast has no backward pass for the layer
    return in_bf16, versions


def plain(setting, folder, read):
    """A classifier in plain PyTorch; read(layer, vectors, lengths) gives the outputs [B, T, H]."""
    import torch
    from torch import nn

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
        out = read(rnn, embedding(ids[k]), lengths[k])
        logits = model[2](out[torch.arange(len(out)), lengths[k] - 1])
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, labels[k]).backward()
        optimizer.step()

    return step, {}


def keras(setting, folder):
    """Keras 3 as in its guides; KERAS_BACKEND selects the backend."""
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


def products(setting, folder):
    """Large square matrix products by the fastest backend: the core's peak rate."""
    import torch

    from labrnn.network import products

    a = torch.randn(SIDE, SIDE).numpy()
    out = torch.empty(SIDE, SIDE).numpy()
    numbers = products.BACKENDS.values()

    def step(_):
        seconds = []
        for number in numbers:
            began = time.process_time()
            for _ in range(PRODUCTS):
                products.accumulate(number, a, a, out)
            seconds.append(time.process_time() - began)
        return {"best": min(seconds)}

    return step, {"products": products.chosen("float32")}


def training(setting, folder):
    """A default training run with validation, test and storing; the number is its seed."""
    from labrnn.config import TrialConfig
    from labrnn.trials.job import train_and_store
    from labrnn.trials.store import Store

    def step(seed):
        config = TrialConfig(optim="rmsprop", lr=LR, seed=seed)
        trial = train_and_store(config, setting["data"], Store(folder), "cpu")
        return {"accuracy": trial.metrics["best"]["accuracy"]}

    return step, {}


def encoded(setting, folder):
    """From a CSV file to token ids with labrnn."""
    from labrnn.config import TrialConfig
    from labrnn.reviews.sources import read_reviews
    from labrnn.reviews.text import encode

    def step(_):
        encode(read_reviews(setting["data"]), TrialConfig())

    return step, {}


def cached(setting, folder):
    """Token ids from labrnn's cache, which the first step fills."""
    from labrnn.config import TrialConfig
    from labrnn.reviews.text import load_corpus

    os.environ["LABRNN_CACHE"] = str(folder)

    def step(_):
        load_corpus(TrialConfig(), setting["data"])

    return step, {}


def encoded_as_published(setting, folder):
    """From a CSV file to token ids, review by review, as in the lab: pandas and plain Python."""
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
    """Return the peak memory of this process in MiB; 0 if the system does not report it."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def arrays(folder):
    return [np.load(folder / f"{name}.npy") for name in ("ids", "lengths", "labels")]


def main():
    name, folder = sys.argv[1], Path(sys.argv[2])
    setting = json.loads((folder / "setting.json").read_text())
    answers, sys.stdout = sys.stdout, sys.stderr  # a library's print is not an answer

    def answer(**values):
        print(json.dumps(values), file=answers, flush=True)

    try:
        step, versions = globals()[name](setting, folder)
    except RuntimeError as error:
        answer(versions={}, failed=str(error).splitlines()[0])
        return
    answer(versions=versions)
    for line in sys.stdin:
        began, cpu = time.perf_counter(), time.process_time()
        more = step(int(line)) or {}
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        answer(seconds=seconds, cpu=cpu, peak=peak(), **more)


if __name__ == "__main__":
    main()
