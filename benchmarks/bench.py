"""Times labrnn beside the published way and Keras in one run: a table, and a JSON line at the end.

Every contestant is a process with one thread (see `contestants.py`). They take turns, batch by
batch, on one core, so that a noisy machine is as noisy for each; figures are medians. The whole
trainings of `--full` run last, on two cores.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from contestants import PRODUCTS, SIDE

from labrnn.config import TrialConfig
from labrnn.network.batches import Batches, shuffled
from labrnn.reviews.sources import find_source, read_reviews
from labrnn.reviews.text import load_corpus
from labrnn.trials.pool import ONE_THREAD

HERE = Path(__file__).resolve().parent
KERAS = HERE.parent / ".venv-bench/bin/python"
XLA = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
BATCH, BATCHES = 96, 4
WAYS = {  # name: what the table calls it, the contestant, Keras's backend
    "ours": ("labrnn", "ours", ""),
    "published": ("packed sequences", "published", ""),
    "tensorflow": ("Keras, TensorFlow", "keras", "tensorflow"),
    "jax": ("Keras, JAX", "keras", "jax"),
    "dense": ("labrnn, every row moved", "dense", ""),
}
SMALL = {"hidden_dim": 100, "n_layers": 1, "embedding_dim": 1}
LARGE = {"hidden_dim": 305, "n_layers": 2, "embedding_dim": 32}
RIVALS = ("ours", "published", "tensorflow", "jax")
RACES = [  # title, model, ways, rounds
    ("LSTM, 100 units", {"cell": "lstm", **SMALL}, RIVALS, 9),
    ("GRU, 100 units", {"cell": "gru", **SMALL}, RIVALS, 9),
    ("LSTM, 305 units, 2 layers", {"cell": "lstm", **LARGE}, RIVALS, 4),
    ("GRU, 305 units, 2 layers", {"cell": "gru", **LARGE}, RIVALS, 4),
    ("LSTM, embedding 256", {"cell": "lstm", **SMALL, "embedding_dim": 256}, ("ours", "dense"), 9),
]
HEAD = """\
| model | way | step, ms | times ours | tokens/s | of sgemm | optimiser, ms | peak, MiB |
|---|---|--:|--:|--:|--:|--:|--:|"""
MARK = "<!-- the last table -->\n"


class Contestant:
    """A process that steps when told."""

    def __init__(self, function, folder, backend=""):
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        self.process = subprocess.Popen(
            [KERAS if backend else sys.executable, HERE / "contestants.py", function, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=os.environ | ONE_THREAD | {"KERAS_BACKEND": backend, "XLA_FLAGS": XLA},
        )

    def begin(self, k):
        print(k, file=self.process.stdin, flush=True)

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            sys.exit(f"bench: a contestant ended early:\n{self.log.read()[-2000:]}")
        return json.loads(line)

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def take_turns(contestants, rounds, batches=1, steps=1):
    """Each one's answers, a list a name, and the versions met; the first round compiles.

    Args:
        steps: in a turn; the last one counts. With two it finds the caches as a training does, not
            as the others left them.
    """
    versions = {k: v for c in contestants.values() for k, v in c.answer()["versions"].items()}
    turns = {name: [] for name in contestants}
    for k in range(rounds + 1):
        for name, contestant in contestants.items():
            if name != "published" or k % 3 == 0:  # it takes its time
                for step in range(steps):
                    batch = (k + step) % batches
                    contestant.begin(batch)
                    found = contestant.answer()
                turns[name].append({"round": k, "batch": batch, **found})
    for contestant in contestants.values():
        contestant.end()
    return {name: them[1:] for name, them in turns.items()}, versions


def median(turns, value="seconds"):
    return statistics.median(turn[value] for turn in turns)


def fill(folder, corpus, **setting):
    """What contestants must know, and the first batches of the first epoch, padded with 0.

    Returns:
        tokens of each batch.
    """
    rows = shuffled(corpus.rows["train"], 5, 1)[: BATCH * BATCHES]
    ids = np.zeros((BATCHES, BATCH, corpus.lengths[rows].max()), np.int64)
    lengths, labels = np.zeros((2, BATCHES, BATCH), np.int64)
    for k, batch in enumerate(Batches(corpus, BATCH, "cpu").of(rows)):
        ids[k][batch.packing.rows, batch.packing.steps] = batch.ids
        lengths[k], labels[k] = batch.packing.lengths, batch.labels
    for name, array in {"ids": ids, "lengths": lengths, "labels": labels}.items():
        np.save(Path(folder) / f"{name}.npy", array)
    setting = {"vocabulary": corpus.vocabulary_size, **setting}
    (Path(folder) / "setting.json").write_text(json.dumps(setting))
    return lengths.sum(1).tolist()


def products(model):
    """Floating-point operations a token in matrix products, forward and backward."""
    gates = 4 if model["cell"] == "lstm" else 3
    inputs = [model["embedding_dim"]] + [model["hidden_dim"]] * (model["n_layers"] - 1)
    return 3 * 2 * sum(gates * model["hidden_dim"] * (i + model["hidden_dim"]) for i in inputs)


def race(corpus, model, names, rounds):
    """One row of figures a way, ours first, and the versions that took part."""
    with tempfile.TemporaryDirectory() as folder:
        tokens = fill(folder, corpus, model=model)
        ways = {name: WAYS[name][1:] for name in names if KERAS.exists() or not WAYS[name][2]}
        running = {n: Contestant(function, folder, keras) for n, (function, keras) in ways.items()}
        running["sgemm"] = Contestant("sgemm", folder)
        turns, versions = take_turns(running, rounds, BATCHES, steps=2)
    gflops = 2e-9 * SIDE**3 * PRODUCTS / median(turns.pop("sgemm"))
    rows, ours = {}, {turn["round"]: turn["seconds"] for turn in turns["ours"]}
    for name, them in turns.items():
        rate = statistics.median(tokens[t["batch"]] / t["seconds"] for t in them)
        passes = statistics.median(  # forward and backward, where the optimiser's time is told
            tokens[t["batch"]] / (t["seconds"] - t.get("optimizer", 0)) for t in them
        )
        ratio = statistics.median(t["seconds"] / ours[t["round"]] for t in them)
        rows[name] = {
            "ms": round(1000 * median(them), 1),
            "times_ours": round(ratio, 2),
            "tokens_per_second": round(rate),
            "share_of_sgemm": round(passes * products(model) / gflops / 1e9, 3),
            "peak_mib": round(them[-1]["peak"]),
        }
        if "optimizer" in them[0]:
            rows[name]["optimizer_ms"] = round(1000 * median(them, "optimizer"), 1)
    return rows, versions | {"sgemm_gflops": round(gflops, 1)}


def encoding(source):
    """Median seconds from a CSV file to token ids, ours and the published way, and cached."""
    reviews = read_reviews(source)
    signs = np.where(reviews.labels, "positive", "negative")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reviews.csv"
        pd.DataFrame({"review": reviews.texts, "sentiment": signs}).to_csv(path, index=False)
        (Path(folder) / "setting.json").write_text(json.dumps({"data": str(path)}))
        names = ("encoded", "encoded_as_published", "cached")
        turns, _ = take_turns({name: Contestant(name, folder) for name in names}, 3)
    return {name: round(median(turns[name]), 2) for name in names}


def trainings(source):
    """One whole default training, then two at once, each a process with one thread."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "setting.json").write_text(json.dumps({"data": str(source)}))
        pair = [Contestant("training", folder) for _ in range(2)]
        for contestant in pair:
            contestant.answer()
        found = {}
        for name, seeds in (("one", (5,)), ("two", (6, 7))):
            began = time.perf_counter()
            for contestant, seed in zip(pair, seeds, strict=False):
                contestant.begin(seed)
            answers = [contestant.answer() for contestant in pair[: len(seeds)]]
            found[name] = round(time.perf_counter() - began, 1)
            found[f"{name}_cpu"] = round(max(answer["cpu"] for answer in answers), 1)
        for contestant in pair:
            contestant.end()
    ratio = round(found["two"] / found["one"], 2)
    return found | {"ratio": ratio, "peak_mib": round(max(answer["peak"] for answer in answers))}


def machine(corpus):
    info = Path("/proc/cpuinfo")
    names = [x for x in info.read_text().splitlines() if "model name" in x] if info.exists() else []
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": names[0].split(":")[1].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "reviews": corpus.facts["name"],
        "training_reviews": len(corpus.rows["train"]),
    }


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--full", action="store_true", help="time whole trainings too: minutes")
    options.add_argument("--keep", action="store_true", help="keep the table in README.md")
    options = options.parse_args()
    source = find_source()
    corpus = load_corpus(TrialConfig(), str(source))
    about, results, lines = machine(corpus), {}, []
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if cores:
        os.sched_setaffinity(0, {max(cores)})

    def tell(line=""):
        print(line, flush=True)
        lines.append(line)

    tell(HEAD)
    for title, model, names, rounds in RACES:
        results[title], versions = race(corpus, model, names, rounds)
        about |= versions
        for name, row in results[title].items():
            tell(
                f"| {title} | {WAYS[name][0]} | {row['ms']} | {row['times_ours']} "
                f"| {row['tokens_per_second']:,} | {row['share_of_sgemm']:.0%} "
                f"| {row.get('optimizer_ms', '')} | {row['peak_mib']} |"
            )
    results["encoding"] = found = encoding(source)
    ratio = found["encoded_as_published"] / found["encoded"]
    tell(
        f"\nFrom a CSV file to token ids: {found['encoded']} s; the published way "
        f"{found['encoded_as_published']} s, {ratio:.1f} times as long; cached {found['cached']} s."
    )
    if options.full:
        if cores:
            os.sched_setaffinity(0, cores)
        results["trainings"] = found = trainings(source)
        tell(
            f"\nA default training (LSTM, RMSprop, 5 epochs) on {about['training_reviews']:,} "
            f"reviews: {found['one']} s, {found['peak_mib']} MiB; two at once: {found['two']} s, "
            f"{found['ratio']} times as long (on the processor {found['one_cpu']} s, and "
            f"{found['two_cpu']} s each: more than that is other work on the machine)."
        )
    tell("\n" + "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in about.items()))
    print(json.dumps({"machine": about, **results}))
    if options.keep:
        readme = HERE / "README.md"
        head = readme.read_text(encoding="utf-8").split(MARK)[0]
        readme.write_text(head + MARK + "\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
