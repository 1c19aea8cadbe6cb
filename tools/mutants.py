"""Mutation testing: which faults in the code do the tests detect? `make mutants`.

The mutants are those of mutmut's operators, in all code of a module. mutmut itself skips decorated
functions, and with them most of the store. Each mutant is applied to a copy of the tracked files;
the group's tests run in a process forked after the imports of PyTorch and pandas. A mutant is
killed if a test fails, or exceeds a limit of processor time: ten seconds plus five times the usual.
The order is random with a fixed seed, so the first mutants are a random sample. Results are in
mutants/; the next call continues from there, unless the modules or the tests have changed.

    python tools/mutants.py GROUP [COUNT]    try the first COUNT mutants of a group, or all
    python tools/mutants.py                  show the share killed of each group, and the survivors
"""

import difflib
import hashlib
import importlib
import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "mutants"
GROUPS = {  # name -> mutated modules, and tests that take a few seconds
    "files": (["files"], ["tests/test_files.py"]),
    "store": (
        [f"trials/{name}" for name in ("store", "trial", "cleaning", "ours", "kept")],
        ["tests/test_store.py", "tests/test_content.py", "tests/test_gc.py"],
    ),
    "statistics": (["results/statistics"], ["tests/test_statistics.py", "-m", "not simulation"]),
}
IMPORTS = "torch pandas scipy.stats sklearn pydantic safetensors.torch safetensors.numpy pytest"
IMPORTS += " click rich.table yaml matplotlib filelock numba pyarrow.parquet nltk IPython"
IMPORTS += " statsmodels.stats.weightstats statsmodels.stats.multitest"
SEED = 16
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # syncs are fast there
LEAST_SECONDS, MOST_WAITED = 10, 240  # processor time; wall time, for tests that wait


def mutants(path):
    """Return functions, one per mutant of a file, that return its source; None if invalid."""
    import libcst as cst
    from mutmut.mutation.mutators import mutation_operators

    module, found = cst.parse_module(path.read_text()), []

    class Visitor(cst.CSTVisitor):
        def on_visit(self, node):
            if isinstance(node, cst.Annotation | cst.Decorator | cst.Import | cst.ImportFrom):
                return False
            for kind, operator in mutation_operators:
                if isinstance(node, kind):
                    found.extend((node, mutated) for mutated in operator(node))
            return True

    module.visit(Visitor())

    def source(node, mutated):
        code = module.deep_replace(node, mutated).code
        with suppress(SyntaxError):
            compile(code, str(path), "exec")
            return code
        return None

    return [partial(source, *pair) for pair in found]


def run_tests(copy, tests, limit):
    """Run tests in a child process; return its exit code, negative if killed at its limit."""
    child = multiprocessing.get_context("fork").Process(target=_child, args=(copy, tests, limit))
    child.start()
    child.join(MOST_WAITED)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)  # with all processes that a mutant started
    child.join()
    return child.exitcode


def _child(copy, tests, limit):
    import pytest

    os.setsid()
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    silent = os.open(copy / "tests.log", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    for stream in range(3):
        os.dup2(silent, stream)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    with tempfile.TemporaryDirectory(dir=copy) as base:
        os.environ["TMPDIR"] = tempfile.tempdir = base
        sys.exit(
            pytest.main(["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={base}/t", *tests])
        )


def digest(*contents):
    return hashlib.sha256("".join(contents).encode()).hexdigest()[:12]


def place(group):
    """Return the file of results, whose name changes with the modules and tests."""
    modules, tests = GROUPS[group]
    sources = [f"labrnn/{module}.py" for module in modules]
    sources += [name for name in tests if name.endswith(".py")]
    return OUT / f"{group}-{digest(*((ROOT / name).read_text() for name in sources))}.jsonl"


def read(group):
    """Return the results of the mutants tried so far."""
    path = place(group)
    return [*map(json.loads, path.read_text().splitlines())] if path.exists() else []


def show():
    from scipy.stats import binomtest

    survivors = []
    for group in GROUPS:
        if not (results := read(group)):
            continue
        n, killed, every = len(results), sum(r["killed"] for r in results), results[0]["of"]
        low, high = binomtest(killed, n).proportion_ci(0.95)
        print(
            f"{group}: {killed} of {n} mutants killed, {killed / n:.1%} [{low:.1%}, {high:.1%}], "
            f"a random {n} of {every}"
        )
        survivors += [r for r in results if not r["killed"]]
    for r in survivors:
        print(f"\n{r['module']}\n{r['change']}")


def run(group, count=None):
    modules, tests = GROUPS[group]
    OUT.mkdir(exist_ok=True)
    for name in IMPORTS.split():
        importlib.import_module(name)
    done = {(r["module"], r["digest"]) for r in read(group)}
    with tempfile.TemporaryDirectory(
        prefix="mutants-copy-", dir=MEMORY, ignore_cleanup_errors=True
    ) as folder:
        copy = Path(folder)
        subprocess.run(["git", "checkout-index", "-a", f"--prefix={copy}/"], cwd=ROOT, check=True)
        os.environ |= {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        began = time.monotonic()
        if run_tests(copy, tests, 36_000):
            raise SystemExit((copy / "tests.log").read_text()[-3000:])
        limit = LEAST_SECONDS + int(5 * (time.monotonic() - began))
        order = [(m, make) for m in modules for make in mutants(copy / f"labrnn/{m}.py")]
        random.Random(SEED).shuffle(order)
        for module, make in order[:count]:
            if (source := make()) is None or (module, digest(source)) in done:
                continue
            path = copy / f"labrnn/{module}.py"
            original = path.read_text()
            path.write_text(source)
            killed = run_tests(copy, tests, limit) != 0
            path.write_text(original)
            lines = original.splitlines(), source.splitlines()
            change = [*difflib.unified_diff(*lines, lineterm="", n=0)][2:]
            result = {"module": module, "digest": digest(source), "of": len(order)}
            result |= {"killed": killed, "change": "\n".join(change)}
            with open(place(group), "a") as file:
                file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run(sys.argv[1], *map(int, sys.argv[2:]))
    else:
        show()
