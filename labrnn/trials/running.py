"""Many trials: stored ones are read, the others are trained, several at once, each exactly once.

An executor (`pool.Pool`, `cluster.Cluster`) has a `capacity()` for more trials, takes one by
`submit(config)`, returns from `next(seconds)` a (config, event) or None, and ends with `close()`.
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

ATTEMPTS = 3  # of a trial whose process dies before its next epoch
LOOK_AGAIN = 2  # seconds between looks at a trial that another process holds


def run_trials(configs, data="", fingerprint="", store=None, train=True, **how):
    """Find or train every configuration.

    Args:
        configs: `TrialConfig`s; one named twice is trained once.
        data: source of the reviews.
        fingerprint: the data's expected fingerprint, see `plan_trials`.
        train: False leaves what is not stored untrained.
        how: see `train_missing`.

    Returns:
        the `Plan` after the training; a failed trial does not stop the others.

    Raises:
        LabError: no data, no store to write to, no process that can train.
    """
    store = store or default_store()
    plan = plan_trials(configs, data, fingerprint, store, train)
    if train:
        train_missing(plan, data, store, **how)
    return plan


def train_missing(plan, data, store, jobs=0, device="", display=None, scheduler="", on_end=None):
    """Train the missing trials of a plan, in its order; they move to its trials or failures.

    Args:
        jobs: runs at once, one process with one thread each; 0 for the number of cores.
        display: gets every event (see `labrnn.trials.progress`).
        scheduler: of Dask workers, in place of processes here (see `labrnn.trials.cluster`).
        on_end: called with each configuration that is stored or has failed.

    Raises:
        LabError: no data, no store to write to, no process that can train.
    """
    if not plan.missing:
        return
    jobs = jobs or cores()
    for config in {tuple(getattr(c, f) for f in DATA_FIELDS): c for c in plan.missing}.values():
        load_corpus(config, data, plan.fingerprint)  # encoded once here, not by each worker
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

        find_device(device)  # one message now, not one per trial
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
        if config in running:  # an event can come late, after the end of its trial
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
            waiting.extendleft(free)  # finished or given up there: a worker finds out
