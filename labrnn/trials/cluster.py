"""An executor with Dask workers: on this machine, of any scheduler, or in SLURM jobs.

A worker trains one trial at a time, even if it has several threads. The store must be on a disk
that all machines share; a task that Dask repeats resumes from the state there.
"""

import json
import logging
import os
import queue
import shlex
import subprocess
import sys
import threading
import time
import uuid
from datetime import timedelta
from pathlib import Path

from pydantic import Field

from labrnn.config import Strict, read_yaml, validated
from labrnn.errors import LabError
from labrnn.trials.job import run_job

RECOUNT_SECONDS = 0.5  # between two counts of the workers
PATIENCE = 30  # seconds to wait for a scheduler
QUIET = "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED"
_training = threading.Lock()  # training uses the process's random generators


class Slurm(Strict):
    """The description of a SLURM cluster in a YAML file; each job trains one trial at a time."""

    jobs: int = Field(4, ge=1, le=10_000, description="SLURM jobs at once")
    queue: str = Field("", description="partition; empty for the site's default")
    account: str = Field("", description="account to charge; empty for the default")
    walltime: timedelta = Field(timedelta(hours=4), ge=timedelta(minutes=2), description="of a job")
    cores: int = Field(1, ge=1, description="cores of a job; a trial on a CPU uses one")
    memory: str = Field("4GB", pattern=r"^\d+(\.\d+)?[KMGT]i?B$", description="of a job")
    gpu: bool = Field(False, description="train on one GPU per job")
    interface: str = Field("", description="network interface of the nodes, e.g. ib0")
    directives: list[str] = Field([], description="further #SBATCH lines, e.g. --constraint=a100")
    prologue: list[str] = Field([], description="shell lines before the worker, e.g. module load")


def _task(job, topic, name):
    from distributed import get_worker

    report = get_worker().log_event
    with _training:
        return run_job(job, lambda event: report(topic, [name, event]))


class Cluster:
    """An executor (see `running`) with Dask workers.

    Args:
        scheduler: `local`, an address like `tcp://host:8786`, a scheduler file (JSON), or a YAML
            file that describes a SLURM cluster.
        job: the fields that all jobs share, see `job.run_job`.
        jobs: number of workers of `local` without GPUs; with GPUs there is one per GPU.
        most: number of trials to train, which limits the number of workers.
        logs: folder for the output of SLURM jobs.

    Raises:
        LabError: `scheduler` is none of these or cannot be reached, or Dask is not installed.
    """

    task = staticmethod(_task)

    def __init__(self, scheduler, job, jobs, most, logs):
        distributed = _imported("distributed")
        self.job, self.events, self.tasks = job, queue.SimpleQueue(), {}
        self.scheduler = scheduler
        self.cluster, self.slurm_jobs, self.gpu = None, 0, job["device"].startswith("cuda")
        kind = Path(scheduler).suffix
        if scheduler == "local":
            self.gpu, self.cluster = _local(min(jobs, most), job["device"])
        elif kind in (".yaml", ".yml"):
            _check(job_script(scheduler)[1], scheduler)
            site = _site(scheduler)
            self.gpu, self.slurm_jobs = site.gpu, min(site.jobs, most)
            self.cluster = _slurm(site, logs)
        elif kind != ".json" and "://" not in scheduler:
            raise LabError(
                f"--scheduler {scheduler}: give `local`, an address (tcp://host:8786), "
                "a scheduler file (.json) or a SLURM cluster's description (.yaml)"
            )
        try:
            # Dask would wait forever for a missing file.
            file = json.loads(Path(scheduler).read_text()) if kind == ".json" else {}
            where = self.cluster or file.get("address", scheduler)
            self.client = distributed.Client(where, timeout=PATIENCE, set_as_default=False)
        except (OSError, ValueError, AttributeError) as error:
            if self.cluster:
                self.cluster.close()
            raise LabError(
                f"--scheduler {scheduler}: cannot be reached ({error}); start it or correct the address"
            ) from None
        self.counted, self.workers = -RECOUNT_SECONDS, 0
        self.topic = f"labrnn-{uuid.uuid4().hex}"
        self.client.subscribe_topic(self.topic, lambda event: self._receive(*event[1]))

    def capacity(self):
        if self.client.status == "closed":
            raise LabError(f"--scheduler {self.scheduler}: gone; run the same command to continue")
        if time.monotonic() > self.counted + RECOUNT_SECONDS:
            self.counted, self.workers = time.monotonic(), self._count()
        # Some trials wait at the scheduler, so that a free worker gets the next one at once.
        return self.workers + self.workers // 4 - len(self.tasks)

    def _count(self):
        if self.slurm_jobs:
            self.cluster.scale(self.slurm_jobs)  # also requests a job to replace one that ended
        try:
            workers = self.client.scheduler_info().get("workers", {}).values()
        except OSError:  # no capacity until the connection is back
            return 0
        return sum("GPU" in worker["resources"] or not self.gpu for worker in workers)

    def submit(self, config):
        job = self.job | {"config": config.model_dump(mode="json")}
        name = f"labrnn-{uuid.uuid4().hex}"
        options = {"key": name, "pure": False, "resources": {"GPU": 1} if self.gpu else None}
        task = self.client.submit(self.task, job, self.topic, name, **options)
        self.tasks[name] = config, task
        task.add_done_callback(lambda task: self._receive(name, _ending(task)))

    def _receive(self, name, event):
        if name in self.tasks:
            self.events.put((name, event))

    def next(self, seconds):
        try:
            name, event = self.events.get(timeout=seconds)
        except queue.Empty:
            return None
        if name not in self.tasks:
            return None
        config, _ = self.tasks[name] if event["event"] == "epoch" else self.tasks.pop(name)
        return config, event

    def close(self):
        self.client.close()
        if self.cluster:
            self.cluster.close()


def job_script(file):
    """Return the number of jobs of a SLURM cluster in a YAML file, and the script of each job."""
    site = _site(file)
    with _slurm(site, None) as cluster:
        return site.jobs, cluster.job_script()


def _site(file):
    return validated(Slurm, read_yaml(file), file)


def _check(script, file):
    """Raise a LabError if SLURM refuses the job, for which Dask would wait without a message."""
    command = ["sbatch", "--test-only"]
    try:
        test = subprocess.run(command, input=script, capture_output=True, text=True)
    except FileNotFoundError:
        raise LabError(
            f"{file}: the command sbatch is missing; start labrnn where jobs are submitted"
        ) from None
    if test.returncode:
        reason = " ".join(test.stderr.split())
        raise LabError(f"{file}: sbatch refuses the job: {reason}; correct the fields of {file}")


def _ending(task):
    """Return the event of a task that has ended."""
    from distributed import KilledWorker

    try:
        return task.result()
    except KilledWorker as error:
        return {"event": "died", "message": str(error)}
    except Exception as error:
        if task.cancelled():
            return {"event": "returned"}
        return {"event": "failed", "message": f"{type(error).__name__}: {error}"}


def _imported(module):
    try:
        import dask

        dask.config.set({"logging.distributed": "critical", QUIET: "critical"})
        return __import__(module)
    except ImportError as error:
        raise LabError(f"{error.name} is missing; run `make setup EXTRAS=cluster`") from None


def _local(jobs, device):
    """Return whether there are GPUs, and a cluster with one worker per GPU, else `jobs` workers."""
    from distributed import Nanny, Scheduler, SpecCluster

    gpus = [] if device == "cpu" else _gpus()
    nanny = {"nthreads": 1, "memory_limit": 0, "host": "127.0.0.1", "dashboard": False}
    tagged = [nanny | {"resources": {"GPU": 1}, "env": {"CUDA_VISIBLE_DEVICES": g}} for g in gpus]
    local = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    return bool(gpus), SpecCluster(
        {i: {"cls": Nanny, "options": o} for i, o in enumerate(tagged or [nanny] * jobs)},
        {"cls": Scheduler, "options": local | {"port": 0}},
        silence_logs=logging.CRITICAL,
    )


def _gpus():
    """Return the names of this machine's GPUs for CUDA_VISIBLE_DEVICES."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return visible.split(",")[:count] if visible else [str(i) for i in range(count)]


def _slurm(site, logs):
    SLURMCluster = _imported("dask_jobqueue").SLURMCluster
    seconds = int(site.walltime.total_seconds())
    last = seconds - min(300, seconds // 10)  # before SLURM kills the worker
    arguments = ["--lifetime", f"{last}s", "--no-dashboard"]
    return SLURMCluster(
        queue=site.queue or None,
        account=site.account or None,
        interface=site.interface or None,
        walltime=f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}",
        cores=site.cores,
        processes=1,
        memory=site.memory,
        python=shlex.quote(sys.executable),
        job_extra_directives=site.directives + ["--gres=gpu:1"] * site.gpu,
        worker_extra_args=arguments + ["--resources", "GPU=1"] * site.gpu,
        job_script_prologue=site.prologue,
        log_directory=logs and str(logs),
        job_name="labrnn",
        scheduler_options={"dashboard": False, "dashboard_address": ":0"},
        silence_logs=logging.CRITICAL,
    )
