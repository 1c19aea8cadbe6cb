"""An executor with worker processes on this machine; each trains one trial at a time."""

import json
import os
import queue
import subprocess
import sys
import threading
from contextlib import suppress

from labrnn.errors import LabError

WORKER = [sys.executable, "-m", "labrnn.trials.job"]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
STARTS = 3  # failed starts in a row that are tolerated, beyond the number of jobs


class Pool:
    """An executor (see `running`) with processes that receive jobs over a pipe.

    The main thread owns all state; one thread per worker only forwards its output lines.

    Args:
        job: the fields that all jobs share, see `job.run_job`.
        jobs: number of processes at once.
        log: open file for the output of the processes.
    """

    def __init__(self, job, jobs, log):
        self.job, self.jobs, self.log = job, jobs, log
        self.inbox, self.workers, self.idle = queue.SimpleQueue(), set(), []
        self.failed_starts = 0

    def capacity(self):
        return self.jobs - len(self.workers) + len(self.idle)

    def submit(self, config):
        worker = self.idle.pop() if self.idle else self._start()
        worker.config = config
        job = self.job | {"config": config.model_dump(mode="json")}
        with suppress(OSError):  # the worker has died: `next` reports it
            os.write(worker.stdin.fileno(), json.dumps(job).encode() + b"\n")

    def next(self, seconds):
        try:
            worker, line = self.inbox.get(timeout=seconds)
        except queue.Empty:
            return None
        if not line:
            return self._ended(worker)
        event, config = json.loads(line), worker.config
        if event["event"] == "ready":
            worker.ready, self.failed_starts = True, 0
            return None
        if event["event"] != "epoch":
            worker.config = None
            self.idle.append(worker)
        return config, event

    def _start(self):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.log}
        worker = subprocess.Popen(WORKER, **pipes, env=os.environ | ONE_THREAD)
        worker.config, worker.ready = None, False
        self.workers.add(worker)
        threading.Thread(target=self._listen, args=(worker,), daemon=True).start()
        return worker

    def _listen(self, worker):
        with worker.stdout:
            for line in worker.stdout:
                if line.endswith(b"\n"):  # else it died while writing
                    self.inbox.put((worker, line))
        self.inbox.put((worker, b""))

    def _ended(self, worker):
        """Return the event of a worker's end. Raises LabError if too many starts failed."""
        code = worker.wait()
        worker.stdin.close()
        self.workers.remove(worker)
        if worker in self.idle:
            self.idle.remove(worker)
            return None
        if worker.ready:
            why = " (killed, perhaps for lack of memory)" if code == -9 else ""
            message = f"its process ended with exit code {code}{why}; see {self.log.name}"
            return worker.config, {"event": "died", "message": message}
        self.failed_starts += 1
        if self.failed_starts >= self.jobs + STARTS:
            raise LabError(
                f"no process can train here: {self.failed_starts} in a row ended at their start, the "
                f"last with exit code {code}; see {self.log.name}"
            )
        return worker.config, {"event": "returned"}

    def close(self):
        for worker in self.workers:
            worker.kill()
        for worker in self.workers:
            worker.wait()
            worker.stdin.close()
