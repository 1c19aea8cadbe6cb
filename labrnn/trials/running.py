"""Run many trials: read the stored ones and train the others, several at once, each once.

An executor (`pool.Pool`, `cluster.Cluster`) has the methods `capacity()`, the number of trials it
can take; `submit(config)`; `next(seconds)`, which returns (config, event) or None; and `close()`.
"""

import os
import time
from collections import Counter, deque
from pathlib import Path

from labrnn.reviews.sources import find_source
from labrnn.reviews.text import DATA_FIELDS, load_corpus
from labrnn.trials.plan import cores, plan_trials, speed
from labrnn.trials.pool import Pool
from labrnn.trials.store import default_store
from labrnn.trials.trial import Trial, trial_key

ATTEMPTS = 3  # for a trial whose process dies before it finishes an epoch
LOOK_AGAIN = 2  # seconds between checks of trials that another process holds


def run_trials(configs, data="", fingerprint="", store=None, train=True, **how):
    """Find or train every configuration.

    Args:
        configs: `TrialConfig`s; duplicates are trained once.
        data: source of the reviews.
        fingerprint: the reviews' expected fingerprint, see `plan_trials`.
        store: a `Store`; the default store if None.
        train: whether to train missing trials.
        how: arguments of `train_missing`.

    Returns:
        the `Plan` after training; a failed trial does not stop the others.

    Raises:
        LabError: the reviews are missing, the store is not writable, or no process can train.
    """
    store = store or default_store()
    plan = plan_trials(configs, data, fingerprint, store, train)
    if train:
        train_missing(plan, data, store, **how)
    return plan


def train_missing(plan, data, store, jobs=0, device="", display=None, scheduler="", on_end=None):
    """Train the missing trials of a `Plan` in order; they move to its trials or failures.

    Args:
        plan: the `Plan`, which is updated.
        data: source of the reviews.
        store: the `Store` for the trials.
        jobs: runs at once, in one process with one thread each; 0 for the number of cores.
        device: name of a device; the fastest if empty.
        display: receives every event, see `labrnn.trials.progress`.
        scheduler: Dask scheduler to use instead of local processes, see `labrnn.trials.cluster`.
        on_end: called with each configuration that is stored or has failed.

    Raises:
        LabError: the reviews are missing, the store is not writable, or no process can train.
    """
    if not plan.missing:
        return
    jobs = jobs or cores()
    for config in {tuple(getattr(c, f) for f in DATA_FIELDS): c for c in plan.missing}.values():
        load_corpus(config, data, plan.fingerprint)  # encode once here, not in each worker
    named = data or os.environ.get("LABRNN_DATA")
    job = {
        "data": str(find_source(data)) if named else "",
        "root": str(store.root),
        "shelves": [str(s) for s in store.shelves],
        "device": device,
        "fingerprint": plan.fingerprint,
    }
    if device and not scheduler:
        from labrnn.network.models import find_device

        find_device(device)  # one error now, not one per trial
    with store.open_log() as log:
        if scheduler:
            from labrnn.trials.cluster import Cluster

            executor = Cluster(scheduler, job, jobs, len(plan.missing), store.logs)
        else:
            executor = Pool(job, jobs, log)
        if display:
            display.begin(plan, log, jobs, speed(store)[0])
        try:
            execute(executor, plan, store, display, on_end)
        finally:
            executor.close()
            if display:
                display.end()


def execute(executor, plan, store, display=None, on_end=None):
    """Submit the missing trials of a plan until each is stored or has failed."""
    waiting, running, held, deaths = deque(plan.missing), set(), set(), Counter()
    show = display.event if display else lambda config, event: None
    looked = time.monotonic()
    while waiting or running or held:
        for _ in range(min(len(waiting), executor.capacity()) if waiting else 0):
            running.add(config := waiting.popleft())
            executor.submit(config)
            show(config, {"event": "started"})
        config, event = executor.next(LOOK_AGAIN / 2) or (None, {})
        if config in running:  # an event may arrive after the end of its trial
            if event["event"] == "died":
                deaths[config] += 1
                if deaths[config] == ATTEMPTS:
                    event |= {"event": "failed", "message": f"{ATTEMPTS} times: {event['message']}"}
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
            show(config, event)
            if on_end and kind in ("done", "failed"):
                on_end(config)
        if held and time.monotonic() - looked > LOOK_AGAIN:
            looked = time.monotonic()
            free = {c for c in held if not store.held(plan.fingerprint, trial_key(c))}
            held -= free
            waiting.extendleft(free)  # finished or given up: a worker checks
