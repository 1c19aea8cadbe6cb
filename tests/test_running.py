"""Concurrent trials: each is trained once, despite dying processes and concurrent runs."""

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE
from types import SimpleNamespace

import pytest
import torch
from tiny import (
    PATIENCE,
    TINY,
    content,
    endless,
    epochs_logged,
    labrnn,
    restore_ctrl_c,
    train,
    until,
    wait_for_line,
    write_params,
)

from labrnn.config import TrialConfig
from labrnn.errors import LabError
from labrnn.parts import read_params
from labrnn.reviews.text import load_corpus
from labrnn.trials import environment as environments
from labrnn.trials import pool, running
from labrnn.trials.cleaning import remove, stale
from labrnn.trials.environment import device_name
from labrnn.trials.job import set_up, train_and_store
from labrnn.trials.plan import Plan, cost, plan_trials, speed
from labrnn.trials.progress import Display, NotebookDisplay, clock, describe, usual_fields
from labrnn.trials.running import run_trials
from labrnn.trials.store import Store
from labrnn.trials.trial import trial_key

INTERRUPTED = "interrupted; finished runs are kept; run the same command to continue"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "trials")


@pytest.fixture
def four(data, tmp_path):
    """Params of four trials, and the content of the trials from an uninterrupted training."""
    reference = Store(tmp_path / "reference")
    params = write_params(tmp_path)
    return params, [content(train(c, data, reference)) for c in read_params(params).trials()]


def environment(data):
    return os.environ | {"LABRNN_DATA": data}


def finished(process):
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


# Plans


def test_plan_uses_stored_trials_and_orders_longest_first(store, data):
    configs = [TINY.replace(hidden_dim=h, epochs=2) for h in (10, 100, 10, 50)]
    train(configs[3], data, store)
    plan = plan_trials(configs, data, store=store)
    assert list(plan.missing) == [configs[1], configs[0]]
    assert list(plan.trials) == [configs[3]]
    with pytest.raises(LabError, match="`fingerprint` of the params file or notebook is abc"):
        plan_trials(configs, data, "abc", store)
    assert plan_trials([], data, store=store).missing == {}


def test_stored_trials_are_found_without_the_reviews(store, data, tmp_path):
    fingerprint = train(TINY, data, store).fingerprint
    gone = str(tmp_path / "gone.csv")
    assert list(run_trials([TINY], gone, fingerprint, store).trials) == [TINY]
    with pytest.raises(LabError, match=r"gone\.csv"):
        run_trials([TINY, TINY.replace(seed=1)], gone, fingerprint, store)


def test_estimate(store, data):
    config = TINY.replace(epochs=3)
    assert speed(store) == (1.0, 0)
    seconds = train(config, data, store).environment["seconds"]
    assert speed(store) == (pytest.approx(cost(config) / seconds), 1)

    def stop(entry):
        if entry["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_and_store(TINY, data, store, on_epoch=stop)
    plan = plan_trials([TINY, TINY.replace(seed=1)], data, store=store)
    assert list(plan.missing.values()) == [cost(TINY), pytest.approx(cost(TINY) * 4 / 6)]


@pytest.mark.parametrize(("seconds", "text"), [(40, "40 s"), (720, "12 min"), (3900, "1 h 05 min")])
def test_clock(seconds, text):
    assert clock(seconds) == text


# Misbehaving workers: a script replaces `labrnn.trials.job`; the seed selects its behaviour

BEHAVIOUR = """
import json, os, sys, time
def emit(event, end="\\n"):
    sys.stdout.write(json.dumps(event) + end); sys.stdout.flush()
emit({"event": "ready"})
for line in sys.stdin:
    job = json.loads(line)
    seed = job["config"]["seed"]
    with open(os.path.join(job["root"], "jobs"), "a") as file:
        file.write(f"{seed}\\n")
    times = open(os.path.join(job["root"], "jobs")).read().split().count(str(seed))
    epoch = {"epoch": times, "train_loss": 0.5, "valid_accuracy": 0.5, "seconds": 1}
    if seed == 1:
        sys.stdout.write('{"event": "ep'); sys.stdout.flush()
        os.kill(os.getpid(), 9)
    if seed == 2 and times < 3:
        sys.exit(7)
    if seed == 3 and times < 6:
        emit({"event": "epoch", **epoch}); os.kill(os.getpid(), 9)
    if seed == 4:
        emit({"event": "failed", "message": "a fault", "trace": "where it was\\n"}); continue
    if seed == 5 and times < 3:
        emit({"event": "busy"}); continue
    emit({"event": "done", "folder": job["root"], "accuracy": 0.5})
"""


@pytest.fixture
def behaviour(tmp_path, monkeypatch):
    script = tmp_path / "worker.py"
    script.write_text(BEHAVIOUR)
    monkeypatch.setattr(pool, "WORKER", [sys.executable, str(script)])
    monkeypatch.setattr(running, "LOOK_AGAIN", 0.2)


def run(seeds, data, store, stream, **options):
    configs = [TINY.replace(seed=seed) for seed in seeds]
    outcome = run_trials(configs, data, store=store, display=Display(stream), **options)
    jobs_begun = (store.root / "jobs").read_text().split()
    return (
        {c.seed for c in outcome.trials},
        {c.seed: m for c, m in outcome.failures.items()},
        [int(seed) for seed in jobs_begun],
    )


@pytest.mark.parametrize("jobs", [1, 3])
def test_bad_workers_do_not_stop_the_others(behaviour, data, store, capsys, jobs):
    trials, failures, jobs_begun = run(range(8), data, store, None, jobs=jobs)
    assert trials == {0, 2, 3, 5, 6, 7}
    died = "its process ended with exit code -9 (killed, perhaps for lack of memory); see "
    (log,) = store.logs.iterdir()
    assert failures == {1: f"3 times: {died}{log}", 4: "a fault"}
    assert [jobs_begun.count(seed) for seed in range(8)] == [1, 3, 3, 6, 1, 3, 1, 1]
    messages = capsys.readouterr().err
    assert "seed 4: FAILED: a fault" in messages
    assert "seed 5: another process is training it" in messages
    assert "6 of 8 trained, 2 failed" in messages
    assert "where it was" in log.read_text()


def test_held_trial_is_retried_only_after_its_release(behaviour, data, store, monkeypatch):
    """Its lock is polled; no worker gets the trial before its release, here at the third look."""
    fingerprint = load_corpus(TINY, data).fingerprint
    claim, held, looks = store.claim(fingerprint, trial_key(TINY.replace(seed=5))), store.held, []
    claim.__enter__()

    def look(*names):
        looks.append((store.root / "jobs").read_text().split())
        if len(looks) == 3:
            claim.__exit__(None, None, None)
        return held(*names)

    monkeypatch.setattr(store, "held", look)
    trials, _, jobs_begun = run([5, 6], data, store, None, jobs=1)
    assert trials == {5, 6}
    assert jobs_begun == [5, 6, 5, 5]  # busy, the other trial, and again after the release
    assert looks[2] in (["5"], ["5", "6"])


def test_workers_that_cannot_start_are_reported_once(data, store, monkeypatch):
    monkeypatch.setattr(pool, "WORKER", [sys.executable, "-c", "import nothing_of_that_name"])
    words = "no process can train here: 6 in a row ended at their start, the last with exit code 1"
    with pytest.raises(LabError, match=words) as fault:
        run_trials([TINY.replace(seed=s) for s in range(30)], data, store=store, jobs=3)
    log = Path(re.search(r"see (\S+)", str(fault.value))[1])
    assert log.read_text().count("ModuleNotFoundError") in (6, 7, 8)  # two more may be starting


@pytest.mark.parametrize("killed", [1, 4, 1000])
def test_workers_killed_at_their_start_are_replaced(behaviour, data, store, tmp_path, killed):
    """The number of concurrent workers is unchanged: both jobs wait until the other has started.

    Each worker counts by its own byte, so that simultaneous starts are distinguished.
    """
    counter = tmp_path / "started"
    counter.touch()
    script = tmp_path / "worker.py"
    script.write_text(
        f"import os, sys, time\nfile = open({str(counter)!r}, 'ab', 0)\nfile.write(b'.')\n"
        f"if file.tell() <= {killed}:\n    os.kill(os.getpid(), 9)\n"
        "import json\nprint(json.dumps({'event': 'ready'}), flush=True)\n"
        "job = json.loads(sys.stdin.readline())\nopen(os.path.join(job['root'], 'jobs'), 'a').write('1 ')\n"
        "for _ in range(1200):\n    if os.path.getsize(os.path.join(job['root'], 'jobs')) >= 4:\n"
        "        break\n    time.sleep(0.05)\n"
        "else:\n    sys.exit('it waits alone')\n"
        "print(json.dumps({'event': 'done', 'folder': job['root'], 'accuracy': 0.5}), flush=True)\n"
        "sys.stdin.read()\n"
    )
    if killed > 4:  # two concurrent workers, and three more
        with pytest.raises(LabError, match="5 in a row ended at their start"):
            run([0, 1], data, store, None, jobs=2)
    else:
        assert run([0, 1], data, store, None, jobs=2)[0] == {0, 1}


# Display


def test_trainings_have_readable_names():
    base = TINY.replace(n_layers=1, dropout_rate=0.0)
    named = {
        "LSTM, seed 5": base,
        "LSTM, seed 1": base.replace(seed=1),
        "LSTM, 3 layers, seed 5": base.replace(n_layers=3),
        "GRU, bidirectional, seed 5": base.replace(cell="gru", bidirectional=True),
    }
    usual = usual_fields(named.values())
    assert [describe(config, usual) for config in named.values()] == [*named]
    assert describe(base, usual | {"n_layers": 2}) == "LSTM, 1 layer, seed 5"
    others = base.replace(forget_bias=1.0, lr=0.5, optim="adam", train_reviews=2000)
    assert describe(others, usual) == (
        "LSTM, 2,000 reviews, forget bias 1.0, adam, learning rate 0.5, seed 5"
    )
    assert describe(TrialConfig(cell="gru", seed=3)) == "GRU, seed 3"


# Real processes


def test_stray_worker_output_is_not_an_event(data, store, tmp_path, monkeypatch):
    script = tmp_path / "worker.py"
    script.write_text(
        "import os\nimport labrnn.trials.job as job\nrun_job = job.run_job\n"
        "def noisy(*arguments):\n    print('stray')\n    os.write(1, b'{stray\\n')\n"
        "    return run_job(*arguments)\njob.run_job = noisy\njob.main()\n"
    )
    monkeypatch.setattr(pool, "WORKER", [sys.executable, str(script)])
    assert list(run_trials([TINY], data, store=store).trials) == [TINY]
    (log,) = store.logs.iterdir()
    assert log.read_text().count("stray") == 2


def test_killed_ten_times_at_random_moments(four, data, store):
    """Each process is killed with SIGKILL after some epochs or none; nothing is trained twice."""
    params, reference = four
    random_ = random.Random(8)
    for attempt in range(10):
        process = labrnn("train", params, "--jobs", "2", env=environment(data))
        epochs = random_.choice([0, 1, 2, 3, 5])
        for line in process.stderr:
            epochs -= ": epoch " in line
            if epochs <= 0:
                break
        time.sleep(random_.uniform(0, 0.05 if attempt % 3 else 2.5))
        process.kill()
        process.communicate()
        assert all(trial.damage() == [] for trial in store.trials())
    code, _, messages = finished(labrnn("train", params, env=environment(data)))
    assert code == 0, messages
    assert sorted(map(content, store.trials())) == sorted(reference)
    logged = epochs_logged(store.root)
    assert len(set(logged)) == len(logged)
    remove(store, stale(store))
    assert not list(store.root.rglob("epoch-*"))


def test_two_concurrent_runs_train_each_trial_once(four, data, store):
    params, reference = four
    both = [labrnn("train", params, "--jobs", "1", env=environment(data)) for _ in range(2)]
    ends = [finished(process) for process in both]
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert all("4 trials stored, 0 failed" in out for _, out, _ in ends)
    logged = epochs_logged(store.root)
    assert len(logged) == len(set(logged)) == 4 * 12
    assert sorted(map(content, store.trials())) == sorted(reference)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_interrupted(data, store, tmp_path, number):
    there = endless(tmp_path) | {"LABRNN_DATA": data}
    process = labrnn("train", write_params(tmp_path), "--jobs", "1", env=there)
    wait_for_line(process, ": epoch 3 of ")
    process.send_signal(number)
    code, _, messages = finished(process)
    assert code == 130
    assert "run the same command to continue" in messages
    assert "Traceback" not in messages
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # no process of its session is left
    assert not [t for t in store.places() if t.finished]


@pytest.mark.parametrize("command", ["train", "report"])
def test_repeated_ctrl_c_changes_nothing(data, store, tmp_path, command):
    """The whole foreground group gets the signals without pause, as from a terminal.

    The report is interrupted as soon as its fork server has started, which then imports.
    """
    there = endless(tmp_path) | {"LABRNN_DATA": data}
    if command == "train":
        process = labrnn("train", write_params(tmp_path), "--jobs", "1", env=there)
        wait_for_line(process, ": epoch 3 of ")
    else:
        params = tmp_path / "lab1_data.yaml"
        params.write_text("train: false\n")
        process = labrnn("report", params, "--out", tmp_path / "out", env=there)
        until(lambda: "forkserver" in arguments_of_children(process.pid))
    while process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert err.endswith(f"{INTERRUPTED}\n")
    assert not re.search("Traceback|Exception ignored|KeyboardInterrupt", err), err
    until(lambda: not session(process.pid))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
@pytest.mark.parametrize("outcome", ["raise ValueError", "raise SystemExit(1)", "pass"])
def test_interrupt_that_other_code_catches(outcome, number):
    """It may become another error, as in imports of extension modules, or be discarded."""
    code = f"""
import os, time
from labrnn import cli
@cli.main.command()
def wait():
    try:
        os.kill(os.getpid(), {int(number)})
    except BaseException:
        {outcome}
    time.sleep(60)
cli.main(["wait"])
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=restore_ctrl_c)
    assert done.returncode == 130, done.stderr
    assert done.stderr.endswith(f"{INTERRUPTED}\n")
    assert done.stderr.strip() == INTERRUPTED


def arguments_of_children(pid):
    found = [p for task in Path(f"/proc/{pid}/task").glob("*/children") for p in read(task).split()]
    return " ".join(read(Path(f"/proc/{child}/cmdline")) for child in found)


def session(leader):
    """Return the processes of a session that still run."""
    stats = (read(path).rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat"))
    return [stat for stat in stats if stat and stat[0] != "Z" and stat[3] == str(leader)]


def read(path):
    """Read a file of /proc; return an empty text if its process has ended."""
    try:
        return path.read_text()
    except OSError:
        return ""


def test_failed_trials_do_not_stop_the_others(data, store, tmp_path):
    params = write_params(tmp_path, seeds=[0, 1], epochs=2)
    first, second = read_params(params).trials()
    fingerprint = load_corpus(first, data).fingerprint
    blocked = store.root / fingerprint / ".partial" / trial_key(first)
    blocked.parent.mkdir(parents=True)
    blocked.touch()  # a file in place of the folder of the trial
    code, out, messages = finished(labrnn("train", params, env=environment(data)))
    assert code == 1
    assert "1 trials stored, 1 failed" in out
    assert re.search("failed: LSTM, .*seed 0: .*cannot be written", messages)
    assert list(plan_trials([second], data, store=store).trials) == [second]


def test_worker_trains_jobs_until_its_input_ends(data, store):
    """It writes only events to standard output; a failing job does not end it."""
    common = {"data": data, "root": str(store.root), "shelves": [], "device": "cpu"}
    common |= {"fingerprint": "", "config": TINY.replace(epochs=2).model_dump(mode="json")}
    jobs = [common, common | {"fingerprint": "abc"}, common | {"shelves": None}]
    place = load_corpus(TINY, data).fingerprint, trial_key(TINY.replace(epochs=2, seed=1))
    busy = TINY.replace(epochs=2, seed=1).model_dump(mode="json")
    with store.claim(*place):
        worker = subprocess.Popen(pool.WORKER, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True)
        events = []
        for job in (*jobs, common | {"config": busy}):
            print(json.dumps(job), file=worker.stdin, flush=True)
            while not events or events[-1]["event"] in ("ready", "epoch"):
                events.append(json.loads(worker.stdout.readline()))
            events.append({"event": "ready"})
        _, errors = worker.communicate(timeout=PATIENCE)
    kinds = [event["event"] for event in events]
    ends = "ready epoch epoch done ready failed ready failed ready busy ready"
    assert kinds == ends.split()
    assert events[3]["folder"] == str(next(store.trials()).folder)
    assert "`fingerprint` of the params file or notebook is abc" in events[5]["message"]
    assert "TypeError" in events[7]["message"]
    assert "Traceback" in events[7]["trace"]
    assert (worker.returncode, errors) == (0, "")


def test_notebook_display_is_one_line_and_is_cleared(monkeypatch):
    import IPython.display

    shown = []
    handle = SimpleNamespace(update=lambda markdown: shown.append(markdown.data))
    monkeypatch.setattr(IPython.display, "display", lambda *_, **__: handle)
    display, log = NotebookDisplay(), io.StringIO()
    log.name, config = "a_log", TrialConfig()
    display.begin(Plan(missing={config: 1.0}), log, 1, 1.0)
    display.event(config, {"event": "failed", "message": "no room"})
    display.end()
    assert shown[0] == r"*0 trials stored, 1 to train; a\_log*"
    assert shown[1].startswith("*LSTM, seed 5: FAILED: no room; 0 of 1 trained, 1 failed")
    assert shown[2] == ""
    assert "FAILED: no room" in log.getvalue()
    monkeypatch.setattr(IPython.display, "display", lambda *_, **__: None)  # outside a notebook
    display.begin(Plan(missing={config: 1.0}), log, 1, 1.0)
    display.end()
    assert len(shown) == 3


def test_device_names_come_from_the_vendor(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    assert device_name(torch.device("cuda", 1)) == "card 1"
    assert device_name(torch.device("cpu")).startswith("cpu: ")
    assert device_name(torch.device("mps")).startswith("mps: ")
    monkeypatch.setattr(environments, "CPU_FACTS", Path("/no/such/file"))
    assert re.fullmatch("cpu: .+", device_name(torch.device("cpu")))
    made = environments.environment(torch.device("cuda"), 1.23456, "bf16")
    assert (made["clock"], made["products"], made["seconds"]) == ("wall", "PyTorch, bf16", 1.235)


@pytest.mark.parametrize("asked", ["1", "", "0"])
def test_deterministic_cuda_is_optional(asked, monkeypatch):
    monkeypatch.setenv("LABRNN_DETERMINISTIC", asked)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    try:
        set_up(torch.device("cuda"))
        assert torch.are_deterministic_algorithms_enabled() == (asked == "1")
        assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == (asked == "1")
    finally:
        torch.use_deterministic_algorithms(False)
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
