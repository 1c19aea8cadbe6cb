"""Measure how busy 16 Dask workers are with 2,000 dummy trials of half a second.

    python benchmarks/cluster.py [WORKERS] [TRIALS]

The dummy trials sleep, so that two cores are enough; everything else is as for `--scheduler local`.
A training run takes a minute or more, so proportionally more workers would be equally busy.
"""

import sys
import tempfile
import time

from labrnn.config import TrialConfig
from labrnn.trials.cluster import Cluster
from labrnn.trials.plan import Plan
from labrnn.trials.running import execute
from labrnn.trials.store import Store

SECONDS = 0.5


def sleep(job, topic, name):
    """Replace a training run of one epoch."""
    from distributed import get_worker

    time.sleep(SECONDS)
    epoch = {"event": "epoch", "epoch": 1, "train_loss": 0.5, "valid_accuracy": 0.5, "seconds": 0.5}
    get_worker().log_event(topic, [name, epoch])
    return {"event": "done", "folder": "", "accuracy": 0.5}


def main(workers=16, trials=2000):
    configs = [TrialConfig(epochs=1, seed=seed) for seed in range(trials)]
    plan = Plan(fingerprint="0" * 16, missing=dict.fromkeys(configs, 1.0))
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        Cluster.task = staticmethod(sleep)
        executor = Cluster("local", {"device": "cpu"}, workers, trials, store.logs)
        try:
            executor.client.wait_for_workers(workers)
            began = time.monotonic()
            execute(executor, plan, store)
            wall = time.monotonic() - began
        finally:
            executor.close()
    busy = trials * SECONDS / workers / wall
    print(
        f"{len(plan.trials)} of {trials} trials, {workers} workers, {wall:.1f} s: busy {busy:.1%}"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
