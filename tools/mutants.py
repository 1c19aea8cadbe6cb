"""Mutation testing: which faults in the code do its tests notice? `make mutants`.

The mutants are those of mutmut's operators, in all code of a module. mutmut itself leaves decorated
functions out, and with them most of the store. Each mutant lies in a copy of the project; the tests
that execute its lines run in a process forked after the imports of PyTorch and pandas. It is killed
if one fails, or takes ten seconds of processor time and five times as long as without it. The order
is random with a fixed seed, so the first mutants are a random sample. Results lie in mutants/; a
second call goes on from there.

    python tools/mutants.py GROUP [COUNT]    try the first COUNT mutants of a group, or all
    python tools/mutants.py                  show the share killed of each group, and the survivors
"""

import difflib
import hashlib
import importlib
import json
import os
import random
import resource
import shutil
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
GROUPS = {  # name -> mutated modules, and tests that take some seconds together
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
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # thousands of syncs
LEAST_SECONDS, MOST_WAITED = 10, 240  # of processor time; of waiting for what does nothing


def mutants(path):
    """All mutants of a source file: number, first and last line, function that gives the source.

    The source is None where it would be no Python.
    """
    import libcst as cst
    from libcst.metadata import MetadataWrapper, PositionProvider
    from mutmut.mutation.mutators import mutation_operators

    wrapper = MetadataWrapper(cst.parse_module(path.read_text()))
    positions, found, statements = wrapper.resolve(PositionProvider), [], []

    class Visitor(cst.CSTVisitor):
        def on_visit(self, node):
            if isinstance(node, cst.Annotation | cst.Decorator | cst.Import | cst.ImportFrom):
                return False
            if isinstance(node, cst.BaseStatement):
                statements.append(node)
            first = positions[statements[-1]].start.line if statements else 1
            last = positions[node].end.line if node in positions else first
            for kind, operator in mutation_operators:
                if isinstance(node, kind):
                    found.extend((node, mutated, first, last) for mutated in operator(node))
            return True

        def on_leave(self, node):
            if statements and statements[-1] is node:
                statements.pop()

    wrapper.module.visit(Visitor())

    def source(node, mutated):
        code = wrapper.module.deep_replace(node, mutated).code
        with suppress(SyntaxError):
            compile(code, str(path), "exec")
            return code
        return None

    return [
        (number, first, last, partial(source, node, mutated))
        for number, (node, mutated, first, last) in enumerate(found)
    ]


def copy_of_project(folder):
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, folder / name)


class Noted:
    """A pytest plugin: the seconds of each test, and the first that fails."""

    def __init__(self):
        self.seconds, self.failed = {}, ""

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration
        if report.failed and not self.failed:
            self.failed = report.nodeid


def forked(work, copy, limit=0):
    """The value of some work in a child of its own session, None if it is ended at its limit."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        try:
            os.setsid()
            os.chdir(copy)
            silent = os.open(
                "/dev/null" if limit else copy / "baseline.log", os.O_RDWR | os.O_CREAT
            )
            for stream in range(3):
                os.dup2(silent, stream)
            if limit:
                resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
            os.write(writer, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    end = time.monotonic() + (MOST_WAITED if limit else 36_000)
    os.set_blocking(reader, False)
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            end += 36_000
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what a mutant left running
    with open(reader, "rb") as read:
        content = read.read()
    return json.loads(content) if content else None


def tested(tests, options=()):
    """Run some tests: the first that failed, and the seconds of each."""
    import pytest

    noted = Noted()
    base = tempfile.mkdtemp(prefix="mutants-", dir=MEMORY)
    os.environ["TMPDIR"] = base
    tempfile.tempdir = base
    sys.path.insert(0, os.getcwd())
    pytest.main(
        ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={base}/t", *options, *tests],
        plugins=[noted],
    )
    shutil.rmtree(base, ignore_errors=True)
    return noted.failed, noted.seconds


def baseline(copy, modules, tests):
    """Which tests execute which `lines` of the modules, and the `seconds` of each test."""
    options = ["--cov=labrnn", "--cov-context=test", "--cov-report=", "-p", "pytest_cov"]
    failed, seconds = forked(lambda: tested(tests, options), copy)
    if failed or not seconds:
        raise SystemExit((copy / "baseline.log").read_text()[-3000:])
    from coverage import CoverageData

    data = CoverageData(str(copy / ".coverage"))
    data.read()
    lines = {}
    for module in modules:
        found = data.contexts_by_lineno(str(copy / f"labrnn/{module}.py"))
        lines[module] = {n: sorted({c.partition("|")[0] for c in found[n]} - {""}) for n in found}
    return {"lines": lines, "seconds": seconds}


def digest(*contents):
    return hashlib.sha256("".join(contents).encode()).hexdigest()[:12]


def place(group):
    """The file of results, another one where a module has changed."""
    sources = [(ROOT / f"labrnn/{module}.py").read_text() for module in GROUPS[group][0]]
    return OUT / f"{group}-{digest(*sources)}.jsonl"


def read(group):
    """The last result of each mutant."""
    path = place(group)
    lines = path.read_text().splitlines() if path.exists() else []
    return {(r["module"], r["digest"]): r for r in map(json.loads, lines)}


def show():
    from scipy.stats import binomtest

    survivors = []
    for group in GROUPS:
        if not (results := read(group).values()):
            continue
        n, killed, every = (
            len(results),
            sum(r["killed"] for r in results),
            max(r["of"] for r in results),
        )
        low, high = binomtest(killed, n).proportion_ci(0.95) if n < every else [killed / n] * 2
        print(
            f"{group}: {killed} of {n} mutants killed, {killed / n:.1%} [{low:.1%}, {high:.1%}], "
            f"a random {n} of {every}"
        )
        survivors += [r for r in results if not r["killed"]]
    for r in survivors:
        print(f"\n{r['module']} {r['number']}, {r['tests']} tests\n{r['change']}")


def run(group, count=None):
    modules, tests = GROUPS[group]
    OUT.mkdir(exist_ok=True)
    for name in IMPORTS.split():
        importlib.import_module(name)
    with_ = digest(*((ROOT / name).read_text() for name in tests if name.endswith(".py")))
    # What survived is tried again when the tests have changed.
    done = {name for name, r in read(group).items() if r["killed"] or r["with"] == with_}
    order = []
    with tempfile.TemporaryDirectory(
        prefix="mutants-copy-", dir=MEMORY, ignore_cleanup_errors=True
    ) as folder:
        copy = Path(folder)
        copy_of_project(copy)
        os.environ["PYTHONPATH"] = folder
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        there = place(group).with_suffix(f".{with_}.json")
        if not there.exists():
            there.write_text(json.dumps(baseline(copy, modules, tests)))
        known = json.loads(there.read_text())
        lines, seconds_of = known["lines"], known["seconds"]
        for module in modules:
            order += [(module, *m) for m in mutants(copy / f"labrnn/{module}.py")]
        random.Random(SEED).shuffle(order)
        last_killer = {}
        for module, number, first, last, make in order[:count]:
            if (source := make()) is None or (module, digest(source)) in done:
                continue
            path = copy / f"labrnn/{module}.py"
            original = path.read_text()
            inner = {int(n): names for n, names in lines[module].items()}
            covering = set().union(*(inner.get(n, ()) for n in range(first, last + 1)))
            imported = not covering and first in inner  # a line that is executed by the import
            chosen = sorted(covering or (seconds_of if imported else ()), key=seconds_of.get)
            chosen.sort(key=lambda t: t not in last_killer.get(module, ()))
            limit = LEAST_SECONDS + int(5 * sum(map(seconds_of.get, chosen)))
            path.write_text(source)
            found = forked(lambda t=chosen: tested(t), copy, limit) if chosen else ["", {}]
            path.write_text(original)
            killer = "time" if found is None else found[0]
            if killer and killer != "time":
                last_killer.setdefault(module, {})[killer] = True
            result = {
                "module": module,
                "number": number,
                "digest": digest(source),
                "with": with_,
                "of": len(order),
                "killed": bool(killer or (chosen and not found[1])),
                "by": killer,
                "tests": len(chosen),
                "change": "\n".join(
                    line
                    for line in difflib.unified_diff(
                        original.splitlines(), source.splitlines(), lineterm="", n=0
                    )
                    if not line.startswith(("---", "+++"))
                ),
            }
            with open(place(group), "a") as file:
                file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run(sys.argv[1], *map(int, sys.argv[2:]))
    else:
        show()
