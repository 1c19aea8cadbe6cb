"""A process that trains trials: one JSON order a line on stdin, one JSON event a line on stdout."""

import json
import os
import queue
import signal
import sys
import threading
import traceback

from labrnn.config import TrialConfig
from labrnn.errors import LabError
from labrnn.trials.running import train_and_store
from labrnn.trials.store import Store


def main():
    """Serve orders until stdin closes. A parent that died closes it: then stop at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a stray print must not be read as an event

    def tell(event):
        print(json.dumps(event), file=events, flush=True)

    orders = queue.SimpleQueue()
    threading.Thread(target=_read, args=(orders,), daemon=True).start()
    tell({"event": "ready"})
    while True:
        tell(carry_out(orders.get(), tell))


def _read(orders):
    for line in sys.stdin:
        orders.put(json.loads(line))
    os._exit(0)


def carry_out(order, tell):
    """Train a trial as ordered, telling each epoch; returns the last event: how it ended.

    The order names `config`, `data`, `fingerprint`, `root` and `shelves` of the store, `device`.
    """
    try:
        trial = train_and_store(
            TrialConfig(**order["config"]),
            order["data"],
            Store(order["root"], order["shelves"]),
            order["device"],
            lambda entry: tell({"event": "epoch", **entry}),
            order["fingerprint"],
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


if __name__ == "__main__":
    main()
