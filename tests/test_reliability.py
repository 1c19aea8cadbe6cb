"""Invalid input and faults, case by case; `docs/reliability.md` lists all cases."""

import gc
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TINY, content, run, train, write_params

from labrnn.config import MOST_BYTES, TrialConfig, read_yaml, validated
from labrnn.errors import LabError
from labrnn.lab import Lab
from labrnn.network import training
from labrnn.network.models import find_device
from labrnn.parts import PARTS, LstmOptimizers, Width, read_params
from labrnn.reviews.description import describe_data, remembered
from labrnn.reviews.sources import Reviews, source_digest
from labrnn.reviews.text import encode
from labrnn.trials.job import train_and_store
from labrnn.trials.store import PROJECT, Store
from labrnn.trials.trial import WEIGHTS


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A store with one trial."""
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABRNN_CACHE", str(root / "cache"))
        train(TINY, data, Store(root / "trials"))
    return root / "trials"


# Params files


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('store: "a\\0b"', "store = 'a\\x00b': holds a NUL"),
        ('data: "\\ud800"', "data = '\\ud800': holds a NUL or an unpaired surrogate"),
        ("fingerprint: ../../x", "fingerprint = '../../x': string should match"),
        ("fingerprint: 1234567890123456", "fingerprint = 1234567890123456: input should be"),
        ("jobs: 1001", "jobs = 1001: input should be less than or equal to 1000"),
        ("seeds: [5, 99999999999]", "seed = 99999999999: input should be less than"),
        ("widths: [100, 9]", "hidden_dim = 9: input should be greater"),
        ("epochs: 1:30", "epochs = '1:30': input should be a valid integer"),
        ("epochs: 0x10", "epochs = '0x10': input should be a valid integer"),
        ("lr: 1:30.5", "lr = '1:30.5': input should be a valid number"),
        ("lr: 1.0e+400", "lr = inf: input should be a finite number"),
        ("max_tokens: null", "max_tokens = None: input should be a valid integer"),
    ],
)
def test_invalid_value_reports_file_field_value_and_fix(tmp_path, line, says):
    path = tmp_path / "lab2d_width.yaml"
    path.write_text(line + "\n")
    code, out, err = run("train", path)
    assert (code, out) == (2, "")
    assert err.startswith(f"labrnn: {path}: ")
    assert says in err
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_leading_zero_is_read_as_decimal(tmp_path):
    """YAML 1.1 reads 010 as 8."""
    path = tmp_path / "lab2d_width.yaml"
    path.write_text("train_reviews: 0100\nepochs: 010\nmax_tokens: 1_0\n")
    part = read_params(path)
    assert (part.train_reviews, part.epochs, part.max_tokens) == (100, 10, 10)


def test_non_regular_or_huge_params_file_is_refused(tmp_path):
    large, endless, pipe = (tmp_path / f"{n}.yaml" for n in ("large", "endless", "pipe"))
    large.write_text("#" * (MOST_BYTES + 1))
    endless.symlink_to("/dev/zero")
    os.mkfifo(pipe)
    for path, says in (
        (large, "larger than 262,144 bytes"),
        (endless, "not a regular file"),
        (pipe, "not a regular file"),
    ):
        with pytest.raises(LabError, match=says):
            read_yaml(path)


def test_many_errors_are_summarised(tmp_path):
    path = tmp_path / "many.yaml"
    path.write_text("".join(f"x{i}: {i}\n" for i in range(10_000)))
    with pytest.raises(LabError, match="10000 bad value") as caught:
        validated(TrialConfig, read_yaml(path), path)
    assert str(caught.value).count("\n") == 11
    assert "and 9990 more" in str(caught.value)


@pytest.mark.parametrize("name", ["nonsense", "cpu:", "cpu:1", "cpu:\u0663", "cpu:" + "9" * 5000])
def test_unknown_device_is_refused(data, tmp_path, monkeypatch, name):
    with pytest.raises(LabError, match="not on this machine; choose one of: "):
        find_device(name)
    monkeypatch.setenv("LABRNN_DATA", data)
    code, _, err = run("train", write_params(tmp_path, device=json.dumps(name), seeds=[0]))
    assert code == 2
    assert "not on this machine" in err
    assert not list(tmp_path.rglob("DONE"))


def test_store_path_expands_the_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store("~/mine").root == tmp_path / "mine"
    for wrong in ("~nobody-of-this-name/x", "~\0"):
        with pytest.raises(LabError, match="no such folder for trials"):
            Store(wrong)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_subnormal=False)
    | st.text()
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=150, database=None)
@given(st.data())
def test_any_values_give_a_part_or_one_message(draw):
    part = draw.draw(st.sampled_from(list(PARTS.values())))
    names = st.sampled_from(list(part.model_fields)) | st.text(max_size=9)
    values = draw.draw(st.dictionaries(names, plain, max_size=4))
    message = ""
    try:
        made = validated(part, values, "params.yaml")
        made.trials()
        made.model_dump_json().encode()
    except LabError as fault:
        message = str(fault)
    assert re.match(r"$|(params\.yaml|TrialConfig): \d+ bad value\(s\)\n  ", message)


@settings(deadline=None, max_examples=200, database=None)
@given(st.text(st.sampled_from("ab:-[]{}&*!|>'\"#%@`,? \n\t01.e_~\0\ud800\u2028"), max_size=40))
def test_any_text_gives_params_or_one_message(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    message = f"{path}: "
    try:
        assert isinstance(read_yaml(path), dict)
    except LabError as fault:
        message = str(fault)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


# Reviews


def test_too_few_reviews_after_dropping_duplicates():
    labels = np.arange(20, dtype=np.int8) % 2
    same = Reviews(["good film"] * 20, labels, "same.csv", None, "0" * 16)
    with pytest.raises(LabError, match=r"same\.csv: `duplicates: drop` leaves 1 of 20 .*; use"):
        encode(same, TrialConfig(duplicates="drop"))
    assert len(encode(same, TrialConfig()).rows["test"]) == 4


def test_file_with_restored_mtime_is_read_again(tmp_path):
    """Name, size and modification time are the same; only the change time differs."""
    review = tmp_path / "train" / "pos" / "0_7.txt"
    review.parent.mkdir(parents=True)
    review.write_text("good")
    times, before = review.stat(), source_digest(tmp_path)
    review.write_text("evil")
    os.utime(review, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert source_digest(tmp_path) != before


# The command line


@pytest.mark.parametrize(
    "words",
    [("schema", "{file}/x"), ("report", "{params}", "--out", "{file}/x")],
    ids=lambda w: w[0],
)
def test_unwritable_path_is_reported(tmp_path, words):
    (tmp_path / "file").touch()
    params = write_params(tmp_path, train="false")
    code, out, err = run(*(w.format(file=tmp_path / "file", params=params) for w in words))
    assert (code, out) == (2, "")
    assert err.startswith(f"labrnn: {tmp_path / 'file' / 'x'}: ")
    assert "; correct the path" in err


def test_too_many_jobs(tmp_path):
    code, _, err = run("report", write_params(tmp_path), "--jobs", 10**11)
    assert code == 2
    assert "is not in the range 1<=x<=1000" in err


def test_messages_contain_no_terminal_escapes(tmp_path):
    code, _, err = run("data", "--data", tmp_path / "\x1b[31mred\x07.csv")
    assert code == 2
    assert "\x1b" not in err
    assert "\ufffd[31mred\ufffd.csv: named by --data" in err


def test_characters_missing_in_the_terminal_encoding_are_escaped(data, tmp_path):
    """They are printed as escapes."""
    path = shutil.copy(data, tmp_path / "\u2192.csv")
    command = [sys.executable, "-c", "from labrnn.cli import main; main()", "data", "--data", path]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "next: labrnn report lab1_data\n")
    assert "\\u2192.csv" in done.stdout


# Stores


def forged(store, name, raw):
    """Change a file of the trial and its digest; return the trial."""
    (trial,) = store.trials()
    (trial.folder / name).write_bytes(raw)
    digests = trial.digests | {name: hashlib.sha256(raw).hexdigest()}
    (trial.folder / "DONE").write_text(json.dumps(digests))
    return next(Store(store.root).trials())


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{}", b"[{}]", b'{"format": 1, "config": []}', b"[" * 9**5, b"\xff"],
    ids=["empty", "list", "object", "list of objects", "no config", "unclosed", "not UTF-8"],
)
@pytest.mark.parametrize("name", ["trial.json", "history.json", "metrics.json", "environment.json"])
def test_invalid_content_with_correct_digest_is_damage(store, tmp_path, name, raw):
    trial = forged(store, name, raw)
    code, out, _ = run("trials", "verify")
    assert code == 1
    assert f"{trial.folder}: {name}: not the content of a trial" in out
    assert run("trials", "--store", tmp_path / "other", "import", store.root)[0] == 1
    assert run("trials")[0] == 0
    code, _, err = run("trials", "gc", "--damaged", "--yes")
    assert (code, list(store.places())) == (0, [])
    assert err.startswith("next: ")


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("predictions.csv", b"row,label,best\n1,1,0.5\n"),
        ("predictions.csv", b"row,label,best,last\n1,1,yes,no\n"),
        (WEIGHTS, b"not weights"),
    ],
)
def test_predictions_and_weights_of_wrong_shape_are_refused(store, name, raw):
    trial = forged(store, name, raw)
    with pytest.raises(LabError, match=f"{name}: not the content of a trial"):
        _ = trial.weights() if name == WEIGHTS else trial.predictions


def test_weights_of_another_model_are_not_used(store, data):
    from safetensors.numpy import save

    forged(store, WEIGHTS, save({"embedding.weight": np.zeros((2, 2), np.float32)}))
    code, out, err = run("predict", "good", "--data", data)
    assert (code, out) == (2, "")
    assert "weights of another model" in err


def test_pipe_in_place_of_a_file_does_not_block(store):
    (trial,) = store.trials()
    (trial.folder / "history.json").unlink()
    os.mkfifo(trial.folder / "history.json")
    assert run("trials", "verify")[:2] == (
        1,
        f"{trial.folder}: history.json is missing or not a regular file\n0 trials are sound\n",
    )


@pytest.mark.parametrize("name", ["last", "best", "optimizer"])
def test_training_does_not_resume_from_a_corrupted_state(store, data, tmp_path, name):
    def stop(entry):
        if entry["epoch"] == 2:
            raise KeyboardInterrupt

    fresh, epochs = Store(tmp_path / "fresh"), []
    with pytest.raises(KeyboardInterrupt):
        train_and_store(TINY, data, fresh, on_epoch=stop)
    (state,) = fresh.root.rglob(f"epoch-2/{name}.safetensors")
    raw = bytearray(state.read_bytes())
    raw[-2] ^= 1  # within the last tensor: readable but wrong
    state.write_bytes(raw)
    trial = train_and_store(TINY, data, fresh, on_epoch=lambda e: epochs.append(e["epoch"]))
    assert epochs[0] == 1
    assert content(trial) == content(next(store.trials()))


def test_corrupted_description_is_detected_and_not_used(store, data):
    facts = describe_data(TINY, data, "", store)
    (path,) = store.root.glob("*/data-*.json")
    path.write_text(path.read_text().replace('"rows": 300', '"rows": 301'))
    code, out, _ = run("trials", "verify")
    assert (code, out) == (1, f"{path}: does not match its stored SHA-256\n1 trials are sound\n")
    assert describe_data(TINY, data, "", store) == facts  # computed again
    assert run("trials", "verify")[0] == 0
    path.write_text("[]")
    with pytest.raises(LabError, match=r"gone\.csv"):
        describe_data(TINY, "gone.csv", path.parent.name, store)
    assert run("trials", "gc")[1] == "nothing to remove\n"
    assert run("trials", "gc", "--damaged", "--yes")[1] == f"{path}\n1 removed\n"


def test_description_works_without_a_writable_store(data, tmp_path):
    (tmp_path / "file").touch()
    store = Store(tmp_path / "file" / "trials")
    assert remembered("data", [1], data, "", store, lambda r: len(r.texts)) == 300


def test_clock_jumps_do_not_change_results(store, data, tmp_path, monkeypatch):
    """Clocks jump by years in both directions; only recorded times differ."""
    clock = iter([*[2e9, 1e9, 3e9, 0.0] * 1000])
    monkeypatch.setattr("time.time", lambda: next(clock))
    monkeypatch.setattr("labrnn.network.training.time.perf_counter", lambda: next(clock))
    jumpy = train(TINY, data, Store(tmp_path / "jumpy"))
    assert content(jumpy) == content(next(store.trials()))
    assert jumpy.damage() == []


# Notebooks


def test_parameters_overwritten_by_defaults_are_refused():
    """Papermill puts its cell first if no cell has the tag `parameters`."""
    cells = ["", "# Parameters\nepochs = 3\n", "epochs: int = 5"]
    with pytest.raises(LabError, match=r"no cell has the tag `parameters`.*; add the tag"):
        Lab("lab2d_width", {"In": cells, "epochs": 5})
    cells = ["", "epochs: int = 5", "# Parameters\nepochs = 3\n"]
    assert Lab("lab2d_width", {"In": cells, "epochs": 3}).part.epochs == 3


def test_missing_reference_setting_is_reported(data, monkeypatch):
    monkeypatch.setenv("LABRNN_DATA", data)
    lab = Lab("lab2d_width", {"widths": [10, 20], "train_reviews": 0}, train=False)
    with pytest.raises(LabError, match=r"'100 units'.* there are 10 units, 20 units\. Add it"):
        lab.run()["100 units"]


# Security

FORBIDDEN = {
    "unpickles": r"\bpickle\b|\bjoblib\b|\bdill\b|torch\.load\(|allow_pickle|read_pickle|marshal",
    "a shell": r"shell=True|os\.system|os\.popen|getoutput",
    "runs text": r"(?<![\w.])(eval|exec)\(",
    "unsafe YAML": r"yaml\.(unsafe|full)_load|yaml\.load\((?!text, Loader=_PlainLoader\))",
    "unpacks on disk": r"\.extractall\(|\.extract\(|unpack_archive",
    "no certificate": r"verify=False|_create_unverified",
}


@pytest.mark.parametrize("fault", FORBIDDEN)
def test_sources_contain_no_forbidden_calls(fault):
    places = [*PROJECT.glob("labrnn/**/*.py"), *PROJECT.glob("tools/*.py"), PROJECT / "Makefile"]
    places += PROJECT.glob("notebooks/*.ipynb")
    assert len(places) > 40
    hits = [str(p) for p in places if re.search(FORBIDDEN[fault], p.read_text("utf-8"))]
    assert hits == []


def test_forbidden_calls_are_detected():
    calls = "pickle.loads(x) subprocess.run(x, shell=True) eval(x) yaml.load(x) t.extractall() "
    calls += "get(verify=False)"
    assert all(re.search(pattern, calls) for pattern in FORBIDDEN.values())
    assert not any(re.search(p, "model.eval() re.compile(x)") for p in FORBIDDEN.values())


# Load


def test_memory_stays_flat_over_a_hundred_trainings(corpus):
    """In one process, like a notebook or worker; 0.1 MB per training would be a leak."""

    def trained(times):
        for seed in range(times):
            training.train(TINY.replace(seed=seed, epochs=1, n_layers=1 + seed % 2), corpus)
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    before = trained(20)
    assert trained(100) - before < 10 << 20


# The page itself

PAGE = PROJECT / "docs" / "reliability.md"


def cases():
    """Return (letter and number, tests) of every row of the page's tables."""
    rows = re.findall(r"^\| ([BFSRL]\d+) \|.*\| ([^|]+) \|$", PAGE.read_text("utf-8"), re.M)
    return [(number, re.findall(r"`(test_\w+\.py::[^`]+)`", tests)) for number, tests in rows]


def test_page_numbers_its_cases_consecutively():
    numbers = [number for number, _ in cases()]
    kinds = Counter(number[0] for number in numbers)
    assert kinds["B"] >= 60
    assert kinds["F"] >= 20
    for kind, count in kinds.items():
        assert [n for n in numbers if n[0] == kind] == [f"{kind}{i + 1}" for i in range(count)]
    assert [number for number, tests in cases() if not tests] == []


def test_every_test_named_by_the_page_exists(request):
    """In files that this session has collected completely, check ids; in others, functions."""
    options = request.config.option
    whole = not options.keyword and not any("::" in word for word in request.config.args)
    ids = {item.nodeid.rpartition("tests/")[2] for item in request.session.items if whole}
    collected = {test.partition("::")[0] for test in ids}
    ids |= {test.partition("[")[0] for test in ids}
    missing = []
    for test in sorted({test for _, tests in cases() for test in tests}):
        file, _, name = test.partition("::")
        source = (PROJECT / "tests" / file).read_text("utf-8")
        there = re.search(rf"^def {name.partition('[')[0]}\(", source, re.M)
        if not there or (file in collected and test not in ids):
            missing.append(test)
    assert missing == []


def test_lists_refuse_booleans_and_words():
    for values in ([True], ["x"], [1.5], [None]):
        with pytest.raises(LabError, match="seeds"):
            validated(LstmOptimizers, {"seeds": values}, "")
    with pytest.raises(LabError, match="widths"):
        validated(Width, {"widths": list(range(10, 19))}, "")
