"""Trials in Dask workers: local, of a scheduler, and in jobs of a real one-node SLURM."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import (
    PATIENCE,
    TINY,
    content,
    endless,
    epochs_logged,
    labrnn,
    train,
    until,
    wait_for_line,
    write_params,
)

from labrnn.errors import LabError
from labrnn.trials import cluster
from labrnn.trials.progress import Display
from labrnn.trials.running import run_trials
from labrnn.trials.store import Store

dask = pytest.importorskip("dask", reason="labrnn[cluster] is not installed")
pytest.importorskip("dask_jobqueue", reason="labrnn[cluster] is not installed")

FOUR = [TINY.replace(seed=seed, epochs=16) for seed in range(4)]


@pytest.fixture(scope="module")
def serial(data, tmp_path_factory):
    """The four trials, trained one after the other in this process."""
    store = Store(tmp_path_factory.mktemp("serial"))
    return sorted(content(train(config, data, store)) for config in FOUR)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "trials")


class Disturber(Display):
    """Disturb the executor once, when the first epoch is reported."""

    def __init__(self, monkeypatch, disturb):
        super().__init__()
        self.disturb, begin = disturb, cluster.Cluster.__init__

        def remember(executor, *arguments):
            begin(executor, *arguments)
            self.executor = executor

        monkeypatch.setattr(cluster.Cluster, "__init__", remember)

    def event(self, config, event):
        super().event(config, event)
        if event["event"] == "epoch" and self.disturb:
            disturb, self.disturb = self.disturb, None
            disturb(self.executor)


def kill_a_worker(executor):
    os.kill(min(executor.client.run(os.getpid).values()), signal.SIGKILL)


def assert_everything_is_trained(data, store, serial, scheduler, display):
    outcome = run_trials(FOUR, data, store=store, jobs=2, display=display, scheduler=scheduler)
    assert outcome.failures == {}
    assert sorted(map(content, outcome.trials.values())) == serial
    assert not display.disturb
    logged = epochs_logged(store.root)
    assert len(set(logged)) == len(logged)


# Local workers, and workers of a scheduler


def test_killed_local_worker_is_replaced(data, store, serial, monkeypatch):
    display = Disturber(monkeypatch, kill_a_worker)
    assert_everything_is_trained(data, store, serial, "local", display)


def test_each_worker_sees_only_its_own_gpu(data, store, serial, monkeypatch):
    """Two fake GPUs have one worker each."""
    seen = []
    monkeypatch.setattr(cluster, "_gpus", lambda: ["7", "9"])

    def look(executor):
        seen.extend(executor.client.run(os.getenv, "CUDA_VISIBLE_DEVICES").values())

    display = Disturber(monkeypatch, look)
    assert_everything_is_trained(data, store, serial, "local", display)
    assert sorted(seen) == ["7", "9"]


@pytest.fixture
def scheduler(tmp_path):
    """File of a scheduler, and a function with which a test adds workers."""
    file = tmp_path / "scheduler.json"
    started = []

    def start(*arguments):
        command = [sys.executable, "-m", *arguments, "--scheduler-file", file, "--no-dashboard"]
        started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))

    places = "--host 127.0.0.1 --port 0 --dashboard-address 127.0.0.1:0"
    start("distributed.cli.dask_scheduler", *places.split())
    until(file.exists)
    yield file, start, started
    for process in started:
        process.kill()
        process.wait()


def test_scheduler_survives_a_killed_client(data, store, serial, scheduler, tmp_path):
    file, start, _ = scheduler
    # Three threads in one process: only one may train at a time, since they share random numbers.
    start("distributed.cli.dask_worker", "--nthreads", "3", "--no-nanny")
    params = write_params(tmp_path, epochs=100, seeds=[0, 1])
    process = labrnn("train", params, "--scheduler", file, env=os.environ | {"LABRNN_DATA": data})
    for line in process.stderr:
        if ": epoch 2 of " in line:
            break
    process.kill()
    process.communicate()
    outcome = run_trials(FOUR, data, store=store, scheduler=str(file))
    assert sorted(map(content, outcome.trials.values())) == serial
    assert not list(store.root.rglob("*.writing"))


def test_dead_scheduler_is_reported(data, store, scheduler, monkeypatch):
    file, start, started = scheduler
    start("distributed.cli.dask_worker", "--nthreads", "1", "--no-nanny")
    monkeypatch.setattr(cluster, "PATIENCE", 2)
    display = Disturber(monkeypatch, lambda executor: started[0].kill())
    with pytest.raises(LabError, match="gone; run the same command"):
        run_trials(FOUR, data, store=store, display=display, scheduler=str(file))


@pytest.mark.parametrize(
    ("where", "fault"),
    [
        ("nowhere", "give `local`, an address"),
        ("tcp://127.0.0.1:9", "tcp://127.0.0.1:9: cannot be reached"),
        ("missing.json", r"missing\.json: cannot be reached"),
        ("missing.yaml", r"missing\.yaml: no such params file"),
    ],
)
def test_unreachable_scheduler_is_refused(data, store, monkeypatch, where, fault):
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    with pytest.raises(LabError, match=fault):
        run_trials(FOUR, data, store=store, scheduler=where)


def test_missing_dask_names_the_extra(data, store, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(LabError, match=r"distributed is missing; run `make setup EXTRAS=cluster`"):
        run_trials(FOUR, data, store=store, scheduler="local")


# SLURM


def describe(folder, text):
    file = folder / "slurm.yaml"
    file.write_text(text)
    return str(file)


def test_job_script(tmp_path):
    text = "jobs: 3\nqueue: gpu\naccount: me\nwalltime: 1:30:00\ncores: 2\nmemory: 8GB\ngpu: true\n"
    text += "directives: [--constraint=a100]\nprologue: [module load python]\n"
    jobs, script = cluster.job_script(describe(tmp_path, text))
    assert jobs == 3
    lines = script.replace("7630M", "8G").splitlines()
    options = "-p gpu,-A me,-t 01:30:00,--mem=8G,--cpus-per-task=2,--gres=gpu:1,--constraint=a100"
    assert {f"#SBATCH {option}" for option in options.split(",")} <= {*lines}
    assert "module load python" in lines
    assert "--lifetime 5100s" in script
    assert "--resources GPU=1" in script
    assert sys.executable in script


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("wall_time: 1:00:00", "did you mean `walltime`"),
        ("walltime: soon", "walltime = 'soon'"),
        ("walltime: 30", "greater than or equal to 2 minutes"),
        ("memory: lots", "memory = 'lots'"),
        ("jobs: 0", "jobs = 0"),
        ("directives: --mem=1", "directives = '--mem=1'"),
        ("queue: !!python/object:os.system x", "not plain YAML"),
    ],
)
def test_invalid_cluster_description_is_refused(tmp_path, text, fault):
    with pytest.raises(LabError, match=fault):
        cluster.job_script(describe(tmp_path, text))


def test_packaged_description_is_valid():
    file = Path(__file__).parent.parent / "params" / "cluster" / "slurm.yaml"
    assert "#SBATCH" in cluster.job_script(file)[1]


PACKAGES = ("slurmctld", "slurmd", "slurm-client")
CONFIG = """
ClusterName=labrnn
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=2
PluginDir={plugins}
PlugStackConfig={folder}/plugstack.conf
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName=localhost CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=60 State=UP
"""


def unpacked(cache):
    """Return the root of SLURM's files: the system's, or Debian packages unpacked in the cache."""
    if all(map(shutil.which, ("slurmctld", "slurmd", "sbatch"))):
        return Path("/")
    root = cache / "root"
    if not root.exists():
        if not (shutil.which("apt-get") and shutil.which("dpkg")):
            pytest.skip(
                "SLURM is not installed, and this is not Debian, where it could be downloaded"
            )
        (cache / "partial").mkdir(exist_ok=True)
        command = ["apt-get", "install", "--yes", "--download-only", "--no-install-recommends"]
        command += ["-o", f"Dir::Cache::archives={cache}", "-o", "Debug::NoLocking=true"]
        got = subprocess.run([*command, *PACKAGES], capture_output=True, text=True)
        if got.returncode:
            pytest.skip(
                f"SLURM is not installed and cannot be downloaded: {got.stderr.strip()[-200:]}"
            )
        for package in cache.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, cache / "aside"], check=True)
        (cache / "aside").rename(root)
    return root


@pytest.fixture(scope="module")
def slurm(request, tmp_path_factory):
    """A one-node SLURM with two processors; its tools are on the PATH."""
    root = unpacked(request.config.cache.mkdir("slurm"))
    (plugins,) = root.glob("usr/lib/*/slurm-wlm")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    config = CONFIG.format(ports=ports, user=getpass.getuser(), plugins=plugins, folder=folder)
    (folder / "slurm.conf").write_text(config)
    (folder / "plugstack.conf").touch()
    daemons = []

    def start(name, *arguments):
        path = next(p for n in (f"{name}-wlm", name) if (p := root / "usr/sbin" / n).exists())
        with (folder / f"{name}.out").open("wb") as out:
            daemons.append(subprocess.Popen([path, "-D", *arguments], stdout=out, stderr=out))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PATH", f"{root / 'usr/bin'}:{os.environ['PATH']}")
        patch.setenv("LD_LIBRARY_PATH", f"{plugins.parent}:{plugins}")
        start("slurmctld", "-c")
        steps = next(root.glob("usr/sbin/slurmstepd*"))
        start("slurmd", "-N", "localhost", "-d", steps)
        try:
            for _ in range(60):
                nodes = subprocess.run(["sinfo", "-h", "-o", "%t"], capture_output=True, text=True)
                if nodes.stdout.strip() == "idle":
                    break
                time.sleep(0.5)
            else:
                outputs = [path.read_text()[-300:] for path in folder.glob("*.out")]
                pytest.skip(f"SLURM does not start here: {outputs}")
            yield
            subprocess.run(["scancel", "--user", getpass.getuser()], check=False)
            until(lambda: not jobs())
        finally:
            for daemon in daemons:
                daemon.terminate()
                daemon.wait()


def jobs():
    out = subprocess.run(["squeue", "-h", "-o", "%i"], capture_output=True, text=True, check=True)
    return out.stdout.split()


def test_killed_slurm_worker_is_replaced(slurm, data, store, serial, tmp_path, monkeypatch):
    file = describe(tmp_path, "jobs: 2\nwalltime: 0:10:00\nmemory: 2GB\n")
    assert_everything_is_trained(data, store, serial, file, Disturber(monkeypatch, kill_a_worker))
    assert list(store.logs.glob("labrnn-*.err"))


def test_cancelled_slurm_job_is_resubmitted(slurm, data, store, serial, tmp_path, monkeypatch):
    file = describe(tmp_path, "jobs: 1\nwalltime: 0:10:00\nmemory: 2GB\n")
    dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"})
    first = []

    def cancel(executor):
        first.extend(jobs())
        subprocess.run(["scancel", *first], check=True)

    assert_everything_is_trained(data, store, serial, file, Disturber(monkeypatch, cancel))
    assert len(first) == 1


def test_sbatch_refusal_is_reported(slurm, data, store, tmp_path):
    file = describe(tmp_path, "queue: unknown\n")
    with pytest.raises(LabError, match=r"slurm\.yaml: sbatch refuses.*invalid partition"):
        run_trials(FOUR, data, store=store, scheduler=file)


def test_missing_sbatch_is_reported(data, store, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match="the command sbatch is missing"):
        run_trials(FOUR, data, store=store, scheduler=describe(tmp_path, "jobs: 1\n"))


def test_interrupted_run_cancels_its_jobs(slurm, data, store, tmp_path):
    file = describe(tmp_path, "jobs: 2\nwalltime: 0:10:00\nmemory: 2GB\n")
    params, there = write_params(tmp_path), endless(tmp_path) | {"LABRNN_DATA": data}
    process = labrnn("train", params, "--scheduler", file, env=there)
    wait_for_line(process, ": epoch 1 of ")
    assert jobs()
    process.terminate()
    _, messages = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "run the same command to continue" in messages
    assert "Traceback" not in messages
    until(lambda: not jobs())
