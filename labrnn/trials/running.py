"""Many trials: what is stored is taken, the rest is trained, several at once, each exactly once."""

import json
import os
import queue
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from labrnn.config import TrialConfig
from labrnn.errors import LabError
from labrnn.network.cells import CELLS
from labrnn.reviews.sources import find_source
from labrnn.reviews.text import DATA_FIELDS, load_corpus
from labrnn.trials.environment import environment
from labrnn.trials.store import default_store
from labrnn.trials.trial import Trial, trial_key

WORKER = [sys.executable, "-m", "labrnn.trials.worker"]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
ATTEMPTS = 3  # of a trial whose process dies before its next epoch
LOOK_AGAIN = 2  # seconds between looks at a trial that another process holds


def cores():
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def cost(config):
    """Multiplications of a training, up to the number of tokens: for order and estimates."""
    gates = CELLS[config.cell].gates
    sides = 1 + config.bidirectional
    inputs = [config.embedding_dim] + [sides * config.hidden_dim] * (config.n_layers - 1)
    per_token = sum(gates * config.hidden_dim * (i + config.hidden_dim) * sides for i in inputs)
    # A step's fixed part (kernel calls, gates) weighs about as much as 60 units' products.
    per_token += 60 * gates * config.hidden_dim * sides * config.n_layers
    tokens = min(config.max_tokens, 110) * (config.train_reviews or 35_000)
    return per_token * config.epochs * tokens


def pace(store):
    """Cost done in a second by one training, and the number of stored trials that say so."""
    found = []
    for trial in store.trials():
        try:
            found.append(cost(trial.config) / trial.environment["seconds"])
        except (LabError, LookupError, ZeroDivisionError):
            continue  # damaged or foreign: `trials verify` tells
    # Without any: the default training takes 67 s on one core of the machine measured first.
    return (statistics.median(found) if found else cost(TrialConfig()) / 67), len(found)


def train_and_store(config, data="", store=None, device="", on_epoch=None, fingerprint=""):
    """Train one trial unless it is stored, going on where an interrupted training stopped.

    Args:
        config: a `TrialConfig`.
        data: source of the reviews, as in `text.load_corpus`.
        on_epoch: called with each epoch's history entry.
        fingerprint: the data's expected fingerprint, empty for any.

    Returns:
        the stored `Trial`; None if another process is training it at this moment.

    Raises:
        LabError: other data, a loss that is not finite, a store that cannot be written.
    """
    from labrnn.network.models import find_device
    from labrnn.network.training import test, train

    store = store or default_store()
    device = find_device(device)
    set_up(device)
    corpus = load_corpus(config, data)
    fingerprint = checked(corpus.fingerprint, fingerprint, data)
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
        return store.save(
            config, corpus, progress, tested, environment(device, seconds, config.precision)
        )


def set_up(device):
    """One thread on a CPU, whose figures are then the same to the last bit each time; on CUDA the
    same is asked for where LABRNN_DETERMINISTIC is 1, at the price of time.
    """
    import torch

    if device.type == "cpu":
        torch.set_num_threads(1)
    elif device.type == "cuda":
        wanted = os.environ.get("LABRNN_DETERMINISTIC") == "1"
        if wanted:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
        torch.use_deterministic_algorithms(wanted, warn_only=True)


@dataclass
class Outcome:
    """What became of a list of trials: by configuration the stored ones, and faults' messages."""

    trials: dict = field(default_factory=dict)
    failures: dict = field(default_factory=dict)


@dataclass
class Plan(Outcome):
    """An `Outcome` before anything is trained.

    Attributes:
        fingerprint: of the data.
        missing: configuration -> cost of the epochs not yet kept; the longest training first.
    """

    fingerprint: str = ""
    missing: dict = field(default_factory=dict)

    def seconds(self, pace, jobs):
        """Estimated time, so many trainings at once, at a `pace` of each."""
        work = self.missing.values()
        return max(sum(work) / jobs, *work) / pace if work else 0.0


def plan_trials(configs, data="", fingerprint="", store=None, train=True):
    """The `Plan` for some configurations; one named twice counts once.

    `fingerprint` is the data's expected one: stored trials of it are found even where the reviews
    are not at hand. Where nothing is to be trained it is taken at its word.
    """
    store = store or default_store()
    if configs and (train or not fingerprint):
        fingerprint = fingerprint_of(configs, data, fingerprint)
    plan = Plan(fingerprint=fingerprint)
    work = {}
    for config in dict.fromkeys(configs):
        try:
            if trial := store.find(config, plan.fingerprint):
                plan.trials[config] = trial
            else:
                kept = store.epochs_kept(config, plan.fingerprint)
                work[config] = cost(config) * (1 - kept / config.epochs)
        except LabError as error:
            plan.failures[config] = str(error)
    plan.missing = dict(sorted(work.items(), key=lambda item: -item[1]))
    return plan


def run_trials(
    configs,
    data="",
    fingerprint="",
    store=None,
    jobs=0,
    device="",
    train=True,
    display=None,
    scheduler="",
):
    """Find or train every configuration.

    Args:
        configs: `TrialConfig`s; one named twice is trained once.
        data: source of the reviews.
        fingerprint: the data's expected fingerprint, see `plan_trials`.
        jobs: trainings at once, one process with one thread each; 0 for the number of cores.
        train: False leaves what is not stored untrained.
        display: told of every event (see `labrnn.trials.progress`).
        scheduler: trains elsewhere than in processes of this machine (see `labrnn.trials.cluster`).

    Returns:
        an `Outcome`; a failed trial does not stop the others.

    Raises:
        LabError: no data, no store to write to, no process that can train.
    """
    store = store or default_store()
    plan = plan_trials(configs, data, fingerprint, store, train)
    if not train or not plan.missing:
        return plan
    for config in {tuple(getattr(c, f) for f in DATA_FIELDS): c for c in plan.missing}.values():
        found = load_corpus(config, data).fingerprint  # encoded once here, not by each worker
        checked(found, plan.fingerprint, data)
    named = data or os.environ.get("LABRNN_DATA")
    order = {
        "data": str(find_source(data)) if named else "",
        "root": str(store.root),
        "shelves": [str(s) for s in store.shelves],
        "device": device,
        "fingerprint": plan.fingerprint,
    }
    if device and not scheduler:
        from labrnn.network.models import find_device

        find_device(device)  # one message now, not one a trial
    with store.open_log() as log:
        if scheduler:
            from labrnn.trials.cluster import Cluster

            crew = Cluster(scheduler, order, jobs or cores(), len(plan.missing), store.logs)
        else:
            crew = Pool(order, jobs or cores(), log)
        _drive(crew, plan, store, display, log)
    return plan


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
    return checked(found, expected, data)


def checked(found, expected, data):
    """The fingerprint found, if it is the expected one or none is expected."""
    if expected and found != expected:
        raise LabError(
            f"data = {data or 'default'}: its fingerprint is {found}, but fingerprint = {expected} "
            "is asked for; give the same reviews in the same order, or leave fingerprint empty"
        )
    return found


def _drive(crew, plan, store, display, log):
    """Hand the missing trials of a plan to a crew until each is stored or has failed.

    A crew has `room()` for some more trials, takes one by `give(config)`, tells by `next(seconds)`
    what happened, a (config, event) or None, and ends with `close()`.
    """
    waiting, running, held, deaths = deque(plan.missing), set(), set(), Counter()
    tell = display.event if display else lambda config, event: None
    looked = time.monotonic()
    if display:
        display.begin(plan, log)
    try:
        while waiting or running or held:
            for _ in range(min(len(waiting), crew.room()) if waiting else 0):
                running.add(config := waiting.popleft())
                crew.give(config)
                tell(config, {"event": "started"})
            config, event = crew.next(LOOK_AGAIN / 2) or (None, {})
            if config in running:  # news can come late, after the end of its trial
                if event["event"] == "died":
                    deaths[config] += 1
                    if deaths[config] == ATTEMPTS:
                        message = f"{ATTEMPTS} times {event['message']}"
                        event = {"event": "failed", "message": message}
                kind = event["event"]
                if kind == "epoch":
                    del deaths[config]
                else:
                    running.remove(config)
                if kind == "done":
                    plan.trials[config] = Trial(Path(event["folder"]))
                elif kind == "failed":
                    plan.failures[config] = event["message"]
                elif kind == "busy":
                    held.add(config)
                elif kind != "epoch":
                    waiting.appendleft(config)
                tell(config, event)
            if held and time.monotonic() - looked > LOOK_AGAIN:
                looked = time.monotonic()
                free = {c for c in held if not store.held(plan.fingerprint, trial_key(c))}
                held -= free
                waiting.extendleft(free)  # finished there, or left: a worker will see
    finally:
        crew.close()
        if display:
            display.end()


class Pool:
    """A crew of processes on this machine, one trial at a time each, told what to do over a pipe.

    All state is the main thread's; each worker has a thread that only passes on what it says.
    """

    def __init__(self, order, jobs, log):
        self.order, self.jobs, self.log = order, jobs, log
        self.inbox, self.workers, self.idle = queue.SimpleQueue(), set(), []

    def room(self):
        return self.jobs - len(self.workers) + len(self.idle)

    def give(self, config):
        worker = self.idle.pop() if self.idle else self._start()
        worker.config = config
        order = self.order | {"config": config.model_dump(mode="json")}
        with suppress(OSError):  # it has died: `next` will hear of it
            os.write(worker.stdin.fileno(), json.dumps(order).encode() + b"\n")

    def next(self, seconds):
        try:
            worker, line = self.inbox.get(timeout=seconds)
        except queue.Empty:
            return None
        if not line:
            return self._buried(worker)
        event, config = json.loads(line), worker.config
        if event["event"] == "ready":
            worker.ready = True
            return None
        if event["event"] != "epoch":
            worker.config = None
            self.idle.append(worker)
        return config, event

    def _start(self):
        worker = subprocess.Popen(
            WORKER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=os.environ | ONE_THREAD,
        )
        worker.config, worker.ready = None, False
        self.workers.add(worker)
        threading.Thread(target=self._listen, args=(worker,), daemon=True).start()
        return worker

    def _listen(self, worker):
        with worker.stdout:
            for line in worker.stdout:
                if line.endswith(b"\n"):  # else it died over it
                    self.inbox.put((worker, line))
        self.inbox.put((worker, b""))

    def _buried(self, worker):
        """What the end of a worker means; one that never began to work is not replaced."""
        code = worker.wait()
        worker.stdin.close()
        self.workers.remove(worker)
        if worker in self.idle:
            self.idle.remove(worker)
            return None
        if not worker.ready:
            self.jobs -= 1
            if not self.jobs:
                raise LabError(
                    f"no process can train here: each ends with code {code} as it "
                    f"starts; see {self.log.name}"
                )
            return worker.config, {"event": "returned"}
        return worker.config, {"event": "died", "message": f"its process ended with code {code}"}

    def close(self):
        for worker in self.workers:
            worker.kill()
        for worker in self.workers:
            worker.wait()
            worker.stdin.close()
