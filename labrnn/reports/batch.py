"""From params files to reports: train, execute the notebooks, render, skip what did not change."""

import hashlib
import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import threading
import traceback
import uuid
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path

from labrnn.files import replace_file
from labrnn.config import read_yaml, validated
from labrnn.errors import LabError
from labrnn.parts import PARTS, part_named
from labrnn.results import baselines
from labrnn.reviews.text import load_corpus
from labrnn.trials.environment import commit, versions
from labrnn.trials.running import plan_trials
from labrnn.trials.store import PROJECT, default_store

SUFFIXES = (".ipynb", ".pdf", ".html")
TITLE = "LSTM and GRU on film reviews: the lab, rerun and checked"
CELL_SECONDS = 4 * 3600  # a cell that takes longer hangs


def read_params(path):
    """The part that a params file configures, validated; the file is named after its part.

    Raises:
        LabError: no such part, or a parameter is unknown or bad.
    """
    path = Path(path)
    part = validated(part_named(path.stem, path), read_yaml(path), path)
    try:
        part.trials()  # a value in a list is judged where it becomes a trial's
    except LabError as error:
        raise LabError(f"{path}: {error}") from None
    return part


@dataclass(frozen=True)
class Job:
    """One notebook to execute and render.

    Attributes:
        part: its validated parameters.
        trials: the stored trials that it will use.
        out: the folder of its configuration, e.g. `reports/quick`.
        author: printed on the report.
        notebooks: the folder of the sources.
        bar: the stored `Baseline` that its figures show, if any.
        reviews: their fingerprint, if no trial tells it.
    """

    part: object
    trials: list
    out: Path
    author: str
    notebooks: Path = PROJECT / "notebooks"
    bar: object = None
    reviews: str = ""

    @property
    def name(self):
        return self.part.name

    @property
    def source(self):
        return self.notebooks / f"{self.name}.ipynb"

    def outputs(self):
        return [self.out / (self.name + suffix) for suffix in SUFFIXES]

    def key(self):
        """A digest of what decides the report: notebook, parameters, package, trials, bar."""
        digest = hashlib.sha256()
        parts = [
            self.source.read_bytes(),
            self.part.model_dump_json().encode(),
            package_digest(),
            self.author.encode(),
            self.reviews.encode(),
        ]
        parts += [(trial.folder / "DONE").read_bytes() for trial in self.trials]
        if self.bar:
            parts.append(repr((self.bar.name, self.bar.validation, self.bar.accuracy)).encode())
        for piece in parts:
            digest.update(hashlib.sha256(piece).digest())
        return digest.hexdigest()

    @property
    def record(self):
        return Record(self.out, self.name)

    def is_done(self):
        """Whether its reports are there, whole, and made from the same inputs."""
        return self.record.holds(self.key(), self.outputs())

    def run(self):
        """Execute and render aside, then move the results to their places; the record comes last.

        Raises:
            LabError: the notebook failed, its kernel died or it took too long.
        """
        key, aside = self.key(), self.out / ".work"
        aside.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{self.name}-", dir=aside) as work:
            executed = Path(work, f"{self.name}.ipynb")
            try:
                execute(self.source, executed, self.part.given())
                self._describe(executed)
                render(executed)
            except Exception as error:
                traceback.print_exc()
                raise LabError(f"{self.name}: {explain(error)}\n  log: {self.log}") from None
            for path in self.outputs():
                os.replace(Path(work, path.name), path)
        self.record.write(key, self.outputs())

    @property
    def log(self):
        return self.out / ".logs" / f"{self.name}.log"

    def _describe(self, executed):
        """Title page facts and 'how this report was made', from the trials, into the metadata."""
        import nbformat

        nb = nbformat.read(executed, 4)
        nb.metadata.pop("papermill", None)  # paths and times: the same inputs give the same bytes
        for cell in nb.cells:
            cell.metadata.pop("papermill", None)
            cell.metadata.pop("execution", None)
            if "injected-parameters" in cell.metadata.get("tags", []):
                cell.id = "injected-parameters"  # papermill draws another at every run
        nb.metadata.update(
            title=self.part.title,
            authors=[{"name": self.author}],
            date=self.day(),
            labrnn=self.facts(),
        )
        nbformat.write(nb, executed)

    def day(self):
        """The day of the newest trial; without trials, today."""
        days = [trial.environment["finished"][:10] for trial in self.trials]
        return max(days, default=date.today().isoformat())

    def facts(self):
        """What the report was made with."""
        devices = sorted({trial.environment["device"] for trial in self.trials})
        files = {}  # the same reviews may have been read from files of several names
        for trial in self.trials:
            files.setdefault(trial.fingerprint, set()).add(trial.data["name"])
        data = [f"{' or '.join(sorted(names))}, fingerprint {k}" for k, names in files.items()]
        facts = {
            "data": "; ".join(sorted(data)),
            "trials": len(self.trials),
            "device": "; ".join(devices),
            "versions": versions(),
            "commit": commit(),
        }
        return {name: value for name, value in facts.items() if value}


@dataclass(frozen=True)
class Record:
    """What some outputs were made from, written after them: the only sign that they are done."""

    out: Path
    name: str

    @property
    def path(self):
        return self.out / ".done" / f"{self.name}.json"

    def holds(self, key, outputs):
        """Whether the outputs are there, whole, and made from inputs with this key."""
        try:
            record = json.loads(self.path.read_text("utf-8"))
            return record == {"key": key, "outputs": {p.name: file_digest(p) for p in outputs}}
        except (OSError, ValueError):
            return False

    def write(self, key, outputs):
        record = {"key": key, "outputs": {p.name: file_digest(p) for p in outputs}}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.path, json.dumps(record, indent=1).encode())


def file_digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@lru_cache
def package_digest():
    """A digest of the package's own sources: another version may print another report."""
    folder = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.digest()


def execute(source, target, parameters):
    """Run a notebook with papermill in a kernel of its own.

    Success is this function's return, never what the saved notebook says of itself.
    """
    import papermill

    with suppress(ValueError):  # what is no notebook papermill will tell
        cells = json.loads(source.read_bytes()).get("cells", [])
        tagged = [c for c in cells if "parameters" in c.get("metadata", {}).get("tags", [])]
        if len(tagged) != 1:
            raise LabError(
                f"{source}: {len(tagged)} cells are tagged `parameters`, so that what the params "
                "file says would not count; give the cell of the defaults that tag"
            )
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    papermill.execute_notebook(
        source,
        target,
        parameters=parameters,
        kernel_name="python3",
        progress_bar=False,
        start_timeout=180,
        execution_timeout=CELL_SECONDS,
        **_own_socket(),
    )


def _own_socket():
    """Kernels started at the same time race for TCP ports; files in a folder do not."""
    if os.name == "nt":
        return {}
    from jupyter_client.manager import AsyncKernelManager
    from traitlets import default

    class IPCKernelManager(AsyncKernelManager):
        @default("transport")
        def _transport(self):
            return "ipc"

        @default("connection_file")
        def _connection_file(self):
            return str(Path(tempfile.gettempdir()) / f"labrnn-{uuid.uuid4().hex[:12]}.json")

    return {"kernel_manager_class": IPCKernelManager}


def render(executed):
    """The PDF and the HTML page beside an executed notebook."""
    import nbformat

    from labrnn.reports.exporter import LabHTMLExporter, LabPDFExporter

    nb = nbformat.read(executed, 4)
    resources = {"metadata": {"name": executed.stem}}
    executed.with_suffix(".pdf").write_bytes(LabPDFExporter().from_notebook_node(nb, resources)[0])
    page = LabHTMLExporter().from_notebook_node(nb, resources)[0]
    executed.with_suffix(".html").write_text(page, "utf-8")


def explain(error):
    """An error of a notebook in a few lines: the cell, and its last words."""
    kind = type(error).__name__
    if kind == "PapermillExecutionError":
        words = re.sub(r"\x1b\[[0-9;]*m", "", f"{error.ename}: {error.evalue}")
        return f"cell {error.exec_count} failed\n  " + "\n  ".join(words.splitlines()[-8:])
    if kind == "DeadKernelError":
        return "its kernel died (out of memory, or killed)"
    if kind == "CellTimeoutError":
        return f"a cell took longer than {CELL_SECONDS} s"
    return f"{kind}: {error}"


def plan(params, out=None, author="labrnn"):
    """The jobs of some params files: one a file, its configuration the name of its folder."""
    jobs = []
    for path in map(Path, params):
        part = read_params(path)
        store = default_store(part.store)
        folder = Path(out) if out else PROJECT / "reports" / path.resolve().parent.name
        trials = stored_trials(part, store)
        bar = baselines.best(part, trials, store)
        reviews = part.fingerprint
        if not (trials or reviews):
            with suppress(LabError):  # its notebook tells it
                reviews = load_corpus(part.base, part.data).fingerprint
        jobs.append(Job(part, trials, folder, author, bar=bar, reviews=reviews))
    return jobs


def prepare(parts):
    """Fit the baselines of the parts that show them first: other parts' figures show the best."""
    for part in parts:
        if part.fits_baselines and part.train:
            with suppress(LabError):  # its notebook tells it
                baselines.find(part, default_store(part.store))


def stored_trials(part, store):
    """The trials of a part that are in the store."""
    plan = plan_trials(part.trials(), part.data, part.fingerprint, store, part.train)
    return list(plan.trials.values())


def run_all(jobs, at_once, tell=print):
    """Run what is not done, several notebooks at once, each in a process with its own log.

    Returns:
        messages of those that failed; the others are finished all the same.
    """
    due = [job for job in jobs if not job.is_done()]
    if len(due) < len(jobs):
        tell(f"{len(jobs) - len(due)} of {len(jobs)} reports are up to date")
    failures, context = [], multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(at_once, context, _end_with_parent) as pool:
        for job, future in [(job, pool.submit(_run, job)) for job in due]:
            try:
                future.result()
                tell(f"{job.name}: {job.outputs()[1]}")
            except KeyboardInterrupt:
                pool.shutdown(wait=False, cancel_futures=True)
                for child in multiprocessing.active_children():
                    child.kill()
                raise
            except (LabError, BrokenProcessPool, OSError) as error:
                known = isinstance(error, LabError)
                failures.append(str(error) if known else f"{job.name}: {error}")
                print(f"FAILED {failures[-1]}", file=sys.stderr)
    return failures


def _end_with_parent():
    """A process of the pool would outlive a parent that is killed; its kernel ends with it."""

    def wait():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _run(job):
    """In a process of the pool: what it and its kernel print goes to the job's log."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with open(job.log, "w", encoding="utf-8") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        job.run()


def write_ups(jobs, tell=print):
    """The one document of every configuration among the jobs, from its executed notebooks."""
    from labrnn.reports import writeup

    for out in dict.fromkeys(job.out for job in jobs):
        notebooks = [out / f"{name}.ipynb" for name in PARTS]
        notebooks = [path for path in notebooks if path.exists()]
        mine = [job for job in jobs if job.out == out]
        if not notebooks:
            continue
        digest = hashlib.sha256(package_digest())
        for path in notebooks:
            digest.update(path.read_bytes())
        record, key = Record(out, "write_up"), digest.hexdigest()
        pages = [out / "write_up.pdf", out / "write_up.html"]
        if not record.holds(key, pages):
            writeup.build(notebooks, out, TITLE, [mine[0].author], max(job.day() for job in mine))
            record.write(key, pages)
        tell(f"all parts in one document: {pages[0]}")
