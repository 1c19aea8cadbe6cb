"""Trials that train in a moment, for tests of the store and of the commands that fill it."""

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from click.testing import CliRunner

from labrnn import cli
from labrnn.config import TrialConfig
from labrnn.trials.job import train_and_store
from labrnn.trials.store import PROJECT, Store

PATIENCE = 900  # seconds after which a waiting test counts as hanging
TINY = TrialConfig(hidden_dim=10, n_layers=2, dropout_rate=0.2, epochs=6, max_tokens=32)
TINY = TINY.replace(batch_size=32, optim="rmsprop", lr=0.01, warmup_steps=10)


def write_reviews(reviews, path):
    """Write the reviews to a CSV file and return its path."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "sentiment"])
        labels = [["negative", "positive"][label] for label in reviews.labels]
        writer.writerows(zip(reviews.texts, labels, strict=True))
    return str(path)


def write_params(folder, **values):
    """Write a params file with four seeds of a tiny model unless given other values."""
    values = {"widths": [10], "seeds": [0, 1, 2, 3], "epochs": 12, "train_reviews": 0} | values
    path = Path(folder) / "lab2d_width.yaml"
    path.write_text("".join(f"{name}: {value}\n" for name, value in values.items()))
    return str(path)


def train(config, data, store=None):
    return train_and_store(config, data, store or Store(os.environ["LABRNN_STORE"]))


def labrnn(*arguments, **options):
    """Start the console script in a session of its own."""
    command = [sys.executable, "-c", "from labrnn.cli import main; main()", *map(str, arguments)]
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, start_new_session=True, preexec_fn=restore_ctrl_c, **options)


def run(*words, lines=""):
    """Run a command in this process; return exit code, standard output and standard error."""
    result = CliRunner().invoke(cli.main, list(map(str, words)), input=lines)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def restore_ctrl_c():
    """Restore Ctrl-C, which background processes of a shell ignore; tests may run there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def until(condition):
    """Wait for a state and return it. The limit only ends a hanging test."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)
    return found


def wait_for_line(process, text):
    """Read a process's standard error up to a line with a text; kill it if it hangs."""
    limit = threading.Timer(PATIENCE, process.kill)
    limit.start()
    found = any(text in line for line in process.stderr)
    limit.cancel()
    assert found


def endless(folder):
    """Return an environment in which trainings report three epochs and then wait forever.

    A training cannot end before it is interrupted, however fast the machine is. Python imports
    `sitecustomize` in every process that it starts.
    """
    (folder / "sitecustomize.py").write_text(
        "import threading\nfrom labrnn.trials.store import Store\nkeep = Store.save_progress\n"
        "def hold(store, config, fingerprint, progress):\n"
        "    if len(progress.history) > 3:\n        threading.Event().wait()\n"
        "    keep(store, config, fingerprint, progress)\n"
        "Store.save_progress = hold\n"
    )
    return os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{PROJECT}"}


def content(trial):
    """Return a trial's content without times: equal for trainings that agree bit for bit."""
    history = [{k: v for k, v in e.items() if "seconds" not in k} for e in trial.history]
    files = [trial.read(name) for name in ("metrics.json", "predictions.csv", "model.safetensors")]
    return trial.key, history, files


def epochs_logged(root):
    """Return the trained epochs in the logs of a store, as (trial name, epoch) in order."""
    lines = [line for log in sorted(Path(root).glob(".logs/*.log")) for line in log.open()]
    shown = [line[9:].split(": epoch ") for line in lines if ": epoch " in line]
    return [(name, int(rest.split(" of ")[0])) for name, rest in shown]
