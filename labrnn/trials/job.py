"""A job: train a trial and store it.

As a program (`python -m labrnn.trials.job`) it is a worker: it reads one JSON job per line from
stdin and writes one JSON event per line to stdout.
"""

import json
import os
import queue
import signal
import sys
import threading
import traceback

from labrnn.config import TrialConfig
from labrnn.errors import LabError
from labrnn.reviews.text import load_corpus
from labrnn.trials.environment import environment
from labrnn.trials.store import Store, default_store
from labrnn.trials.trial import trial_key


def train_and_store(config, data="", store=None, device="", on_epoch=None, fingerprint=""):
    """Train a trial unless it is stored; an interrupted run resumes from its last epoch.

    Args:
        config: the `TrialConfig`.
        data: source of the reviews, as in `text.load_corpus`.
        store: a `Store`; the default store if None.
        device: name of a device; the fastest if empty.
        on_epoch: called with each epoch's history entry.
        fingerprint: the reviews' expected fingerprint, empty for any.

    Returns:
        the stored `Trial`; None if another process is training it.

    Raises:
        LabError: the reviews differ, the loss is not finite, or the store cannot be written.
    """
    from labrnn.network.models import find_device
    from labrnn.network.training import test, train

    store = store or default_store()
    device = find_device(device)
    set_up(device)
    corpus = load_corpus(config, data, fingerprint)
    fingerprint = corpus.fingerprint
    with store.claim(fingerprint, trial_key(config)) as mine:
        if not mine:
            return None
        if trial := store.find(config, fingerprint):
            return trial

        def keep(progress):
            store.save_progress(config, fingerprint, progress)
            if on_epoch:
                on_epoch(progress.history[-1])

        progress = train(config, corpus, device, store.load_progress(config, fingerprint), keep)
        tested = test(config, corpus, progress, device)
        seconds = sum(epoch["seconds"] for epoch in progress.history)
        made_with = environment(device, seconds, config.precision)
        return store.save(config, corpus, progress, tested, made_with)


def set_up(device):
    """Make training deterministic: with one thread on a CPU, by PyTorch's option on CUDA.

    On CUDA it takes longer, so only LABRNN_DETERMINISTIC=1 turns it on.
    """
    import torch

    if device.type == "cpu":
        torch.set_num_threads(1)
    elif device.type == "cuda":
        wanted = os.environ.get("LABRNN_DETERMINISTIC") == "1"
        if wanted:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
        torch.use_deterministic_algorithms(wanted, warn_only=True)


def run_job(job, report):
    """Train a trial and report each epoch.

    Args:
        job: dict of `config`, `data`, `fingerprint`, `device`, and `root` and `shelves` of `Store`.
        report: called with the event of each epoch.

    Returns:
        the last event, a dict: its `event` is `done`, `failed` or `busy` (trained elsewhere).
    """
    try:
        trial = train_and_store(
            TrialConfig(**job["config"]),
            job["data"],
            Store(job["root"], job["shelves"]),
            job["device"],
            lambda entry: report({"event": "epoch", **entry}),
            job["fingerprint"],
        )
        if trial is None:
            return {"event": "busy"}
        accuracy = trial.metrics["best"]["accuracy"]
        return {"event": "done", "folder": str(trial.folder), "accuracy": accuracy}
    except LabError as error:
        return {"event": "failed", "message": str(error)}
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        return {"event": "failed", "message": message, "trace": traceback.format_exc()}


def main():
    """Run jobs until stdin closes, at the latest when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # so that a stray print is not read as an event

    def report(event):
        print(json.dumps(event), file=events, flush=True)

    jobs = queue.SimpleQueue()
    threading.Thread(target=_read, args=(jobs,), daemon=True).start()
    report({"event": "ready"})
    while True:
        report(run_job(jobs.get(), report))


def _read(jobs):
    for line in sys.stdin:
        jobs.put(json.loads(line))
    os._exit(0)


if __name__ == "__main__":
    main()
