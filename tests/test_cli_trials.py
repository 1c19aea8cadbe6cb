"""`labrnn trials` and `labrnn train` on the command line."""

import fcntl
import hashlib
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from tiny import PATIENCE, TINY, endless, restore_ctrl_c, run, train, until, write_params

from labrnn.parts import read_params
from labrnn.trials.store import Store
from labrnn.trials.trial import WEIGHTS, trial_key


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A store with two trials."""
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABRNN_CACHE", str(root / "cache"))
        for seed in (0, 1):
            train(TINY.replace(seed=seed), data, Store(root / "trials"))
    return root / "trials"


# Listing


def test_table_and_json_listings_agree(store):
    code, table, err = run("trials")
    assert (code, err) == (0, "next: labrnn trials verify\n")
    head, *lines = table.splitlines()
    objects = [json.loads(line) for line in run("trials", "--json")[1].splitlines()]
    assert head.split() == list(objects[0])
    assert len(lines) == len(objects) == 2
    for line, one, trial in zip(lines, objects, store.trials(), strict=True):
        assert list(map(str, one.values())) == line.split()
        assert one["key"] == trial_key(TINY.replace(seed=one["seed"])) == trial.key
        assert one["accuracy"] == trial.metrics["best"]["accuracy"]
        assert one["configuration"] == TINY.difference()


def test_nothing_to_list(tmp_path):
    assert run("trials", "--store", tmp_path / "nothing")[:2] == (0, "no trials\n")
    assert run("trials", "--store", tmp_path / "nothing", "--json")[:2] == (0, "\n")
    code, out, err = run("trials", "--store", tmp_path / "nothing", "verify")
    assert (code, out) == (2, "")
    assert f"{tmp_path}/nothing: no such folder; correct --store" in err
    (tmp_path / "file").touch()
    code, out, err = run("trials", "--store", tmp_path / "file")
    assert (code, out) == (2, "")
    assert "file: cannot be listed (Not a directory)" in err


def test_list_reports_unreadable_trials_and_continues(store):
    good, bad = store.trials()
    (bad.folder / "metrics.json").write_text("{}")
    foreign = good.folder.with_name("0123456789abcdef")
    shutil.copytree(good.folder, foreign)
    for name, text in {"metrics.json": "[]", "DONE": "{}"}.items():
        (foreign / name).write_text(text)
    digests = good.digests | {"metrics.json": hashlib.sha256(b"[]").hexdigest()}
    (foreign / "DONE").write_text(json.dumps(digests))
    newer = good.folder.with_name("fedcba9876543210")
    newer.mkdir()
    (newer / "trial.json").write_text('{"format": 99}')
    (newer / "DONE").write_text("{}")
    (store.root / "some" / "notes").mkdir(parents=True)
    (store.root / "README").touch()
    code, out, err = run("trials", "--json")
    assert code == 0
    assert [json.loads(line)["key"] for line in out.splitlines()] == [good.key]
    *faults, _ = err.splitlines()
    assert len(faults) == 4
    for place, fault in [
        (bad.folder, "metrics.json: does not match its stored SHA-256"),
        (foreign, "not the content of a trial"),
        (newer, "in store format 99, this version reads 1"),
        (store.root / "some" / "notes", "not a finished trial"),
    ]:
        assert any(str(place) in line and fault in line for line in faults), place


def test_same_trial_on_a_shelf_is_listed_once(store, tmp_path, monkeypatch):
    shelf = tmp_path / "shelf"
    shutil.copytree(store.root, shelf)
    monkeypatch.setattr("labrnn.trials.store.default_store", lambda *_: Store(store.root, [shelf]))
    assert len(run("trials", "--json")[1].splitlines()) == 2
    assert run("trials", "verify")[1] == "4 trials are sound\n"


def test_listing_opens_each_small_file_of_a_trial_once(store):
    """Time grows only with the number of trials; `benchmarks` measures it."""
    folders, opened = [str(trial.folder) for trial in store.trials()], None

    def note(event, arguments):
        if event == "open" and opened is not None:
            opened.append(str(arguments[0]))

    sys.addaudithook(note)
    opened = []
    assert run("trials")[1].count("\n") == 3
    paths, opened = [path for path in opened if path.startswith(tuple(folders))], None
    assert len(set(paths)) == len(paths)
    names = {Path(path).name for path in paths}
    assert {"DONE", "trial.json", "metrics.json", "environment.json"} == names


def test_closed_output_pipe_is_not_an_error(store):
    """The exit code is that of the command."""
    command = f"{sys.executable} -c 'from labrnn.cli import main; main()'"
    for words in (f"trials --store {store.root}", "--help"):
        line = f"({command} {words}; echo $? >&2) | true"
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
        assert re.fullmatch(r"(next: .*\n)?0\n", done.stderr)


# Checking, cleaning, copying


def test_verify_finds_a_flipped_byte(store):
    assert run("trials", "verify")[:2] == (0, "2 trials are sound\n")
    trial = next(store.trials())
    raw = bytearray((trial.folder / WEIGHTS).read_bytes())
    raw[-1] ^= 1
    (trial.folder / WEIGHTS).write_bytes(raw)
    code, out, _ = run("trials", "verify")
    assert code == 1
    assert f"{trial.folder}: {WEIGHTS} does not match its stored SHA-256\n1 trials are sound" in out


def test_gc_removes_only_what_its_flags_select(store):
    trial = next(store.trials())
    (trial.folder / "DONE").unlink()
    leftover = trial.folder.parent / ".partial" / trial.key / "3.writing"
    leftover.mkdir(parents=True)
    assert run("trials", "gc", "--yes")[:2] == (0, f"{leftover.parent}\n1 removed\n")
    code, out, err = run("trials", "gc", "--damaged")  # no answer on standard input
    assert (code, out.rstrip()) == (1, f"{trial.folder}\nDelete these 1 files and folders? [y/N]:")
    assert err.endswith("nothing removed; `--yes` removes without a question\n")
    assert trial.folder.exists()
    assert run("trials", "gc", "--damaged", "--yes")[:2] == (0, f"{trial.folder}\n1 removed\n")
    assert run("trials", "gc", "--damaged", "--unfinished")[:2] == (0, "nothing to remove\n")
    assert run("trials", "verify")[1] == "1 trials are sound\n"


def test_export_and_import(store, tmp_path):
    trial = next(store.trials())
    kept = "other-0123456789abcdef.json"
    store.keep(trial.fingerprint, kept, {"rows": 300})
    folder = tmp_path / "tables"
    assert run("trials", "export", folder)[:2] == (0, "2 added, 0 there already\n")
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert names == {"trials.csv", "history.csv", "predictions.parquet", kept}
    before = (folder / "trials.csv").read_bytes()
    assert run("trials", "export", folder)[:2] == (0, "0 added, 2 there already\n")
    assert (folder / "trials.csv").read_bytes() == before
    assert run("trials", "--store", folder, "verify")[:2] == (0, "2 trials are sound\n")
    other = tmp_path / "other"
    assert run("trials", "--store", other, "import", folder)[:2] == (0, "2 copied\n")
    assert run("trials", "--store", other, "import", folder)[:2] == (0, "2 there already\n")
    assert run("trials", "--store", other, "import", store.root)[:2] == (0, "2 there already\n")
    assert run("trials", "--store", other, "verify")[:2] == (0, "2 trials are sound\n")
    assert [t.has_weights for t in Store(other).trials()] == [False, False]
    whole = tmp_path / "whole"
    assert run("trials", "--store", whole, "import", store.root)[:2] == (0, "2 copied\n")
    assert [t.has_weights for t in Store(whole).trials()] == [True, True]
    assert Store(other).recall(trial.fingerprint, kept) == {"rows": 300}
    (trial.folder / "history.json").write_text("[]")
    code, out, err = run("trials", "export", tmp_path / "third")
    assert (code, out) == (1, "1 added, 0 there already\n")
    assert "history.json does not match its stored SHA-256; not exported" in err


def test_import_does_not_write_outside_the_store(store, tmp_path):
    """A foreign shelf has a DONE file that names a file outside the trial."""
    trial = next(store.trials())
    secret = trial.folder.parent.parent / "secret"
    secret.write_text("x")
    digests = trial.digests | {"../../secret": hashlib.sha256(b"x").hexdigest()}
    (trial.folder / "DONE").write_text(json.dumps(digests))
    code, out, _ = run("trials", "--store", tmp_path / "a" / "b", "import", store.root)
    assert (code, out) == (1, "1 not copied, 1 copied\n")
    assert not list((tmp_path / "a").rglob("secret"))


def test_export_of_selected_params(store, data, tmp_path, monkeypatch):
    monkeypatch.setenv("LABRNN_DATA", data)
    params = write_params(tmp_path, seeds=[0], epochs=2)
    (config,) = read_params(params).trials()
    train(config, data, store)
    added = "1 added, 0 there already\n"
    assert run("trials", "export", tmp_path / "shelf", params)[:2] == (0, added)
    assert [t.config for t in Store(tmp_path / "shelf").trials()] == [config]


# Training


def test_dry_run_lists_trials_and_writes_nothing(data, tmp_path, monkeypatch):
    monkeypatch.setenv("LABRNN_DATA", data)
    monkeypatch.setattr("labrnn.trials.store.default_store", lambda *_: Store(tmp_path / "trials"))
    params = write_params(tmp_path, widths=[10, 100])
    code, out, err = run("train", params, "--dry-run", "--jobs", "2")
    assert (code, err) == (0, "next: run the same command without --dry-run to train them\n")
    *trials, total = out.splitlines()
    assert len(trials) == 8
    # Longest first; the default of 100 units is not named.
    assert [" 10 units" in line for line in trials] == [False] * 4 + [True] * 4
    assert re.fullmatch(r"0 trials stored, 8 to train, about .* with 2 at once \(a guess.*", total)
    assert not (tmp_path / "trials").exists()


def test_dry_run_prints_the_job_script(data, tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue", reason="labrnn[cluster] is not installed")
    monkeypatch.setenv("LABRNN_DATA", data)
    site = Path(__file__).parent.parent / "params" / "cluster" / "slurm.yaml"
    code, out, _ = run("train", write_params(tmp_path), "--dry-run", "--scheduler", site)
    assert code == 0
    assert "with 8 at once" in out
    assert "#SBATCH --mem=4G" in out.replace("3815M", "4G")
    assert "distributed.cli.dask_worker" in out


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"epoch": 3}, "epoch: unknown parameter; did you mean `epochs`"),
        ({"epochs": 0}, "epochs = 0: input should be greater than or equal to 1"),
        ({"widths": [9]}, "hidden_dim = 9"),
        (
            {"fingerprint": "0123456789abcdef"},
            "`fingerprint` of the params file or notebook is 0123456789abcdef",
        ),
        ({"train_reviews": 10**6}, "training set has 210 reviews, but `train_reviews`"),
    ],
)
def test_bad_params(data, tmp_path, monkeypatch, values, fault):
    monkeypatch.setenv("LABRNN_DATA", data)
    code, out, err = run("train", write_params(tmp_path, **values))
    assert (code, out) == (2, "")
    assert fault in err
    assert not (tmp_path / "trials").exists()


def take_terminal():
    """Make the terminal on standard input the controlling one, so that Ctrl-C arrives."""
    restore_ctrl_c()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_live_display_on_a_terminal_without_colour(data, tmp_path):
    """The live table shows until Ctrl-C, respects NO_COLOR and prints how to continue."""
    params = write_params(tmp_path)
    parent, child = pty.openpty()
    command = [sys.executable, "-c", "from labrnn.cli import main; main()", "train", params]
    own = {"LABRNN_DATA": data, "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(
        command,
        stdin=child,
        stdout=child,
        stderr=child,
        start_new_session=True,
        preexec_fn=take_terminal,
        env=endless(tmp_path) | own,
    )
    os.close(child)

    os.set_blocking(parent, False)
    shown, pressed = bytearray(), []

    def ended():
        try:
            shown.extend(os.read(parent, 65536))
        except BlockingIOError:
            return False
        except OSError:  # the other end of the terminal is closed
            return True
        if not pressed and re.search(rb"[123] of 12", shown):
            pressed.append(os.write(parent, b"\x03"))
        return False

    until(ended)
    assert process.wait(PATIENCE) == 130
    shown = shown.decode()  # as a whole: a chunk may end within a character
    assert "0 trials stored, 4 to train" in shown
    assert "run the same command to continue" in shown
    assert "Traceback" not in shown
    assert not re.search(r"\x1b\[[0-9;]*[349]\d[;m]", shown)  # no colours
    assert "\x1b[?25h" in shown[-2000:]  # the cursor is visible again
