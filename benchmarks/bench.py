"""Time labrnn, the published solution and Keras in one run; print a table and a JSON object.

Every contestant is a process with one thread (see `contestants.py`). They take turns, batch by
batch, on one core, so that other load affects all of them equally. Figures are medians of processor
time, or of wall time for contestants that use all cores. The training runs of `--full` run last, on
two cores.
"""

import argparse
import datetime
import json
import os
import platform
import re
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
from labrnn.network.registry import CELLS
from labrnn.reviews.sources import find_source, read_reviews
from labrnn.reviews.text import load_corpus
from labrnn.trials.pool import ONE_THREAD

HERE = Path(__file__).resolve().parent
KEPT = HERE / "machines"  # stored results, one file per processor
KERAS = HERE.parent / ".venv-bench/bin/python"
XLA = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
BATCH, BATCHES = 96, 4
RIVALS = {  # (function, Keras's backend) -> name in the table
    ("ours", ""): "labrnn",
    ("ours_bf16", ""): "labrnn, bf16 products",
    ("published", ""): "packed sequences",
    ("padded", ""): "padded",
    ("padded_on_all_cores", ""): "padded, all cores",
    ("padded_bf16", ""): "padded, bf16 autocast",
    ("keras", "tensorflow"): "Keras, TensorFlow",
    ("keras", "jax"): "Keras, JAX",
}
OPTIMIZER = {("ours", ""): "labrnn", ("every_row", ""): "labrnn, every row moved"}
SMALL = {"hidden_dim": 100, "n_layers": 1, "embedding_dim": 1}
LARGE = {"hidden_dim": 305, "n_layers": 2, "embedding_dim": 32}
RACES = [  # title, model, contestants, rounds
    ("LSTM, 100 units", {"cell": "lstm", **SMALL}, RIVALS, 9),
    ("GRU, 100 units", {"cell": "gru", **SMALL}, RIVALS, 9),
    ("LSTM, 305 units, 2 layers", {"cell": "lstm", **LARGE}, RIVALS, 4),
    ("GRU, 305 units, 2 layers", {"cell": "gru", **LARGE}, RIVALS, 4),
    ("LSTM, embedding 256", {"cell": "lstm", **SMALL, "embedding_dim": 256}, OPTIMIZER, 9),
]
MARK = "<!-- the tables, from machines/*.json -->\n"


class Contestant:
    """A process that does a step on request."""

    def __init__(self, function, folder, backend=""):
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open as long as the process
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
    """Return name -> answers, name -> reason of failure, and the versions of the libraries.

    The first round compiles and is dropped.

    Args:
        contestants: name -> `Contestant`; all are ended.
        rounds: number of rounds that count.
        batches: number of different batches.
        steps: steps per turn, of which the last counts. With two, its caches are as in training,
            not as the other contestants left them.
    """
    first = {name: contestant.answer() for name, contestant in contestants.items()}
    versions = {k: v for answer in first.values() for k, v in answer["versions"].items()}
    failed = {name: answer["failed"] for name, answer in first.items() if "failed" in answer}
    turns = {name: [] for name in contestants if name not in failed}
    for k in range(rounds + 1):
        for name in turns:
            if name != "packed sequences" or k % 3 == 0:  # every third round: they are slow
                for step in range(steps):
                    batch = (k + step) % batches
                    contestants[name].begin(batch)
                    found = contestants[name].answer()
                turns[name].append({"round": k, "batch": batch, **found})
    for contestant in contestants.values():
        contestant.end()
    return {name: answers[1:] for name, answers in turns.items()}, failed, versions


def median(turns, value="cpu"):
    return statistics.median(turn[value] for turn in turns)


def fill(folder, corpus, **setting):
    """Write the setting and the first batches of the first epoch, padded with 0, to a folder.

    Returns:
        list of the tokens in each batch.
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


def operations(model):
    """Return the floating-point operations per token in matrix products, forward and backward."""
    gates = CELLS[model["cell"]].gates
    inputs = [model["embedding_dim"]] + [model["hidden_dim"]] * (model["n_layers"] - 1)
    return 3 * 2 * sum(gates * model["hidden_dim"] * (i + model["hidden_dim"]) for i in inputs)


def race(corpus, model, rivals, rounds):
    """Return name -> figures of each contestant, and the versions of the libraries."""
    with tempfile.TemporaryDirectory() as folder:
        tokens = fill(folder, corpus, model=model)
        running = {
            title: Contestant(function, folder, keras)
            for (function, keras), title in rivals.items()
            if KERAS.exists() or not keras
        }
        running["products"] = Contestant("products", folder)
        turns, failed, versions = take_turns(running, rounds, BATCHES, steps=2)
    gflops = 2e-9 * SIDE**3 * PRODUCTS / median(turns.pop("products"), "best")
    rows = {name: {"fails": reason} for name, reason in failed.items()}
    ours = {turn["round"]: turn["cpu"] for turn in turns["labrnn"]}
    for name, answers in turns.items():
        if name.endswith("all cores"):
            answers = [turn | {"cpu": turn["seconds"]} for turn in answers]
        passes = statistics.median(  # tokens per second, without the optimiser if its time is known
            tokens[t["batch"]] / (t["cpu"] - t.get("optimizer", 0)) for t in answers
        )
        ratio = statistics.median(t["cpu"] / ours[t["round"]] for t in answers)
        rows[name] = {
            "ms": round(1000 * median(answers), 1),
            "times_ours": round(ratio, 2),
            "share": round(passes * operations(model) / gflops / 1e9, 3),
            "peak_mib": round(answers[-1]["peak"]),
        }
        if "optimizer" in answers[0]:
            rows[name]["optimizer_ms"] = round(1000 * median(answers, "optimizer"), 1)
    return rows, versions | {"best_product_gflops": round(gflops, 1)}


def encoding(source):
    """Return the median seconds from a CSV file to token ids: ours, as published, and cached."""
    reviews = read_reviews(source)
    signs = np.where(reviews.labels, "positive", "negative")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reviews.csv"
        pd.DataFrame({"review": reviews.texts, "sentiment": signs}).to_csv(path, index=False)
        (Path(folder) / "setting.json").write_text(json.dumps({"data": str(path)}))
        names = ("encoded", "encoded_as_published", "cached")
        turns, *_ = take_turns({name: Contestant(name, folder) for name in names}, 3)
    return {name: round(median(turns[name]), 2) for name in names}


def trainings(source):
    """Time one default training run, then two at once, each in a process with one thread."""
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


def write_tables():
    """Write README.md's tables from the stored results, with the machines side by side."""
    kept = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(KEPT.glob("*.json"))}
    heads = [
        f"{m['machine']['cpu']}: step, ms | times ours | of best product" for m in kept.values()
    ]
    lines = [
        f"| model | contestant | {' | '.join(heads)} |",
        "|---|---|" + "--:|--:|--:|" * len(kept),
    ]
    for title, *_ in RACES:
        for name in (OPTIMIZER if "embedding" in title else RIVALS).values():
            rows = [results["races"].get(title, {}).get(name, {}) for results in kept.values()]
            if any(rows):
                lines.append(f"| {title} | {name} | {' | '.join(map(_cells, rows))} |")
    for results in kept.values():
        about = results["machine"]
        lines.append(f"\n**{about['cpu']}.**")
        if found := results.get("encoding"):
            ratio = found["encoded_as_published"] / found["encoded"]
            lines.append(
                f"From a CSV file to token ids: {found['encoded']} s; as published "
                f"{found['encoded_as_published']} s, {ratio:.1f} times as long; cached "
                f"{found['cached']} s."
            )
        if found := results.get("trainings"):
            lines.append(
                f"A default training (LSTM, RMSprop, 5 epochs) on {about['training_reviews']:,} "
                f"reviews: {found['one']} s, {found['peak_mib']} MiB; two at once: {found['two']} s "
                f"(on the processor {found['one_cpu']} s, and {found['two_cpu']} s each: more than "
                "that is other work on the machine)."
            )
        fails = {
            n: r["fails"]
            for rows in results["races"].values()
            for n, r in rows.items()
            if "fails" in r
        }
        lines += [f"Does not run here: {name} ({reason})." for name, reason in fails.items()]
        facts = [f"{name.replace('_', ' ')} {value}" for name, value in about.items()]
        lines.append(f"Measured with: {'; '.join(facts)}.")
    readme = HERE / "README.md"
    head = readme.read_text("utf-8").split(MARK)[0]
    readme.write_text(head + MARK + "\n" + "\n".join(lines) + "\n", encoding="utf-8")


def _cells(row):
    if "ms" not in row:
        return f"{'does not run' if 'fails' in row else '-'} | |"
    return f"{row['ms']:,} | {row['times_ours']} | {row['share']:.0%}"


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument(
        "--full", action="store_true", help="time whole training runs too: minutes"
    )
    options.add_argument("--keep", action="store_true", help="keep the results in README.md")
    options = options.parse_args()
    source = find_source()
    corpus = load_corpus(TrialConfig(), str(source))
    about, races = machine(corpus), {}
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if cores:
        os.sched_setaffinity(0, {max(cores)})
    print("| model | contestant | step, ms | times ours | of best product |", flush=True)
    for title, model, rivals, rounds in RACES:
        races[title], versions = race(corpus, model, rivals, rounds)
        about |= versions
        for name, row in races[title].items():
            print(f"| {title} | {name} | {_cells(row)} |", flush=True)
    results = {"machine": about, "races": races, "encoding": encoding(source)}
    if options.full:
        if cores:
            os.sched_setaffinity(0, cores)
        results["trainings"] = trainings(source)
    text = json.dumps(results, indent=1) + "\n"
    print(text)
    if options.keep:
        KEPT.mkdir(exist_ok=True)
        name = re.sub("[^a-z0-9]+", "-", about["cpu"].lower()).strip("-")
        (KEPT / f"{name}.json").write_text(text, encoding="utf-8")
        write_tables()


if __name__ == "__main__":
    main()
