"""A process that trains trials: one JSON order a line on stdin, one JSON event a line on stdout."""

import json
import os
import queue
import sys
import threading
import traceback

from labrnn.config import TrialConfig
from labrnn.errors import LabError
from labrnn.running import train_and_store
from labrnn.store import Store, default_store


def main():
    """Serve orders until stdin closes. A parent that died closes it: then stop at once."""
    orders = queue.SimpleQueue()
    threading.Thread(target=_read, args=(orders,), daemon=True).start()
    events, sys.stdout = sys.stdout, sys.stderr  # a stray print must not be read as an event
    while True:
        event = _train(orders.get(), lambda event: print(json.dumps(event), file=events, flush=True))
        print(json.dumps(event), file=events, flush=True)


def _read(orders):
    for line in sys.stdin:
        orders.put(json.loads(line))
    os._exit(0)


def _train(order, tell):
    try:
        store = Store(order["root"], default_store().shelves)
        trial = train_and_store(
            TrialConfig(**order["config"]), order["data"], store, order["device"],
            on_epoch=lambda entry: tell({"event": "epoch", **entry}),
        )
    except LabError as error:
        return {"event": "failed", "message": str(error)}
    except Exception as error:
        traceback.print_exc()
        return {"event": "failed", "message": f"{type(error).__name__}: {error}"}
    if trial is None:
        return {"event": "busy"}
    return {"event": "done", "fingerprint": trial.fingerprint, "accuracy": trial.metrics["best"]["accuracy"]}


if __name__ == "__main__":
    main()
