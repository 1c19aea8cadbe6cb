"""Many trials: what is stored is taken, the rest is trained, several at once, each exactly once."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

from labrnn.environment import environment
from labrnn.errors import LabError
from labrnn.store import default_store
from labrnn.text import load_corpus
from labrnn.trial import trial_key

SILENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def cores():
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def cost(config):
    """Multiplications of a training, up to the number of tokens: for order and estimates."""
    gates = 4 if config.cell == "lstm" else 3
    sides = 1 + config.bidirectional
    inputs = [config.embedding_dim] + [sides * config.hidden_dim] * (config.n_layers - 1)
    per_token = sum(gates * config.hidden_dim * (i + config.hidden_dim) * sides for i in inputs)
    # A step's fixed part (kernel calls, gates) weighs about as much as 60 units' products.
    per_token += 60 * gates * config.hidden_dim * sides * config.n_layers
    return per_token * config.epochs * min(config.max_tokens, 110) * (config.train_reviews or 35_000)


def train_and_store(config, data="", store=None, device="", on_epoch=None):
    """Train one trial unless it is stored, going on where an interrupted training stopped.

    Args:
        config: a `TrialConfig`.
        data: source of the reviews, as in `text.load_corpus`.
        on_epoch: called with each epoch's history entry.

    Returns:
        the stored `Trial`; None if another process is training it at this moment.
    """
    import torch

    from labrnn.models import find_device
    from labrnn.training import test, train

    store = store or default_store()
    device = find_device(device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    corpus = load_corpus(config, data)
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

        resumed = store.load_progress(config, fingerprint)
        progress = train(config, corpus, device, resumed, keep)
        tested = test(config, corpus, progress, device)
        seconds = sum(epoch["seconds"] for epoch in progress.history)
        return store.save(config, corpus, progress, tested, environment(device, seconds))


@dataclass
class Outcome:
    """What became of a list of trials: found or trained by configuration, faults by configuration."""

    trials: dict = field(default_factory=dict)
    failures: dict = field(default_factory=dict)


def run_trials(configs, data="", fingerprint="", store=None, jobs=0, device="", train=True,
               display=None):
    """Find or train every configuration.

    Args:
        configs: `TrialConfig`s; one named twice is trained once.
        data: source of the reviews.
        fingerprint: the data's expected fingerprint; stored trials of it are found even where the
            reviews are not at hand.
        jobs: trainings at once, one process with one thread each; 0 for the number of cores.
        train: False leaves what is not stored untrained.
        display: told of every event (see `labrnn.progress`).

    Returns:
        an `Outcome`; a failed trial does not stop the others.
    """
    store = store or default_store()
    configs = list(dict.fromkeys(configs))
    outcome = Outcome()
    if configs and (train or not fingerprint):
        fingerprint = fingerprint_of(configs, data, fingerprint)
    for config in configs:
        if trial := store.find(config, fingerprint):
            outcome.trials[config] = trial
    missing = [c for c in configs if c not in outcome.trials] if train else []
    missing.sort(key=cost, reverse=True)
    if missing:
        for config in {(c.train_reviews, c.max_tokens, c.min_count, c.stop_words, c.duplicates): c
                       for c in missing}.values():
            load_corpus(config, data)  # encoded once here, not by each worker
        Pool(missing, data, store, jobs or cores(), device, display).run(outcome)
    return outcome


def fingerprint_of(configs, data="", expected=""):
    """The fingerprint of the source; the expected one where the source is not at hand.

    Raises:
        LabError: the source is missing and none is expected, or it is another one.
    """
    try:
        found = load_corpus(configs[0], data).fingerprint
    except LabError:
        if expected:
            return expected
        raise
    if expected and found != expected:
        raise LabError(
            f"data = {data or 'default'}: its fingerprint is {found}, but fingerprint = {expected} "
            "is asked for; give the same reviews in the same order, or leave fingerprint empty"
        )
    return found


class Pool:
    """Worker processes that train trials, one at a time each, told what to do over a pipe."""

    def __init__(self, configs, data, store, jobs, device, display):
        self.configs, self.data, self.store, self.device = configs, str(data), store, device
        self.waiting, self.events = queue.SimpleQueue(), queue.SimpleQueue()
        self.left = len(configs)
        self.workers = []
        self.display = display
        for config in configs:
            self.waiting.put(config)
        for _ in range(min(jobs, len(configs))):
            threading.Thread(target=self._serve, daemon=True).start()

    def run(self, outcome):
        """Wait for the end of all trials, passing events to the display."""
        if self.display:
            self.display.begin(self.configs, outcome.trials)
        try:
            while self.left:
                config, event = self.events.get()
                if event["event"] == "done":
                    self.left -= 1
                    outcome.trials[config] = self.store.find(config, event["fingerprint"])
                elif event["event"] == "failed":
                    self.left -= 1
                    outcome.failures[config] = event["message"]
                if self.display:
                    self.display.event(config, event)
        finally:
            self.left = 0
            for worker in self.workers:
                worker.kill()
            if self.display:
                self.display.end()

    def _serve(self):
        """One worker's thread: gives it trials; a worker that dies is replaced, its trial retried."""
        worker, deaths = None, {}
        while self.left:
            try:
                config = self.waiting.get(timeout=0.2)
            except queue.Empty:
                continue
            worker = worker if worker and worker.poll() is None else self._start()
            try:
                busy = self._train(worker, config)
            except (OSError, ValueError):
                worker.kill()
                code = worker.wait()
                deaths[config] = deaths.get(config, 0) + 1
                if deaths[config] < 3 and self.left:
                    self.waiting.put(config)
                else:
                    message = f"its process died {deaths[config]} times, last with code {code}"
                    self.events.put((config, {"event": "failed", "message": message}))
                continue
            if busy:
                self.waiting.put(config)
                time.sleep(0.5)

    def _start(self):
        worker = subprocess.Popen(
            [sys.executable, "-m", "labrnn.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=os.environ | SILENT, text=True, encoding="utf-8",
        )
        self.workers.append(worker)
        return worker

    def _train(self, worker, config):
        """Returns True if another process holds the trial; raises ValueError if the worker died."""
        order = {"config": config.model_dump(mode="json"), "data": self.data,
                 "root": str(self.store.root), "device": self.device}
        worker.stdin.write(json.dumps(order) + "\n")
        worker.stdin.flush()
        self.events.put((config, {"event": "started"}))
        while True:
            event = json.loads(worker.stdout.readline())
            if event["event"] == "busy":
                return True
            self.events.put((config, event))
            if event["event"] in ("done", "failed"):
                return False
