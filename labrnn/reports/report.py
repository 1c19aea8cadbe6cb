"""The targets of a batch, each with a record of its inputs: reports, write-up, gallery."""

import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
import traceback
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import distributions
from pathlib import Path

from filelock import FileLock, Timeout

from labrnn.errors import LabError
from labrnn.files import publish, replace_file, write_file
from labrnn.folders import PROJECT, record_of
from labrnn.parts import PARTS
from labrnn.reports.kernel import manager
from labrnn.results import baselines
from labrnn.trials.store import default_store
from labrnn.trials.trial import sha256

TITLE = "Recurrent networks for review sentiment: a reproduction"
SUFFIXES = (".ipynb", ".pdf", ".html")
CELL_SECONDS = 4 * 3600  # limit for a cell
COMMITS = 4  # the most that a report lists


class Target:
    """Files that are made together, and a record of their inputs.

    The record is written last: a target without it is not done. A subclass has a folder `out`, a
    `name`, `inputs()` (bytes of all inputs except the package), `outputs()` (paths) and
    `contents()` (bytes of each output).
    """

    @property
    def log(self):
        return self.out / ".logs" / f"{self.name}.log"

    @property
    def record(self):
        return record_of(self.out, self.name)

    def key(self):
        """Return a digest of the package and the inputs."""
        return sha256("".join(map(sha256, [package_digest(), *self.inputs()])).encode())

    def kept(self):
        """Return name -> digest of derived data that is read besides the inputs."""
        return {}

    def is_done(self):
        """Whether the outputs are complete and were made from the same inputs.

        Derived data in the record must be unchanged; data stored later does not count.
        """
        try:
            record, kept = json.loads(self.record.read_text("utf-8")), self.kept()
            found = {path.name: sha256(path.read_bytes()) for path in self.outputs()}
            same = all(kept.get(name) == value for name, value in record["kept"].items())
            return same and (record["key"], record["outputs"]) == (self.key(), found)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return False

    def run(self):
        """Render to a temporary folder, move the files to their places, then write the record.

        Raises:
            LabError: the target cannot be rendered.
        """
        key, outputs = self.key(), self.outputs()
        with scratch(self.out / ".work") as work:
            contents = self.contents()
            for path, content in zip(outputs, contents, strict=True):
                write_file(work / path.name, content)
            for path in outputs:
                publish(work / path.name, path)
        if self.key() == key:  # else the inputs changed during rendering
            self.write_record(key, contents)

    def write_record(self, key, contents):
        """Record what was rendered, even if another process has replaced the files since."""
        made = zip(self.outputs(), map(sha256, contents), strict=True)
        outputs = {path.name: found for path, found in made}
        record = {"key": key, "kept": self.kept(), "outputs": outputs}
        self.record.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.record, json.dumps(record, indent=1).encode())

    def make(self):
        """Run with a new temporary folder; changes TMPDIR, so call it in a separate process."""
        with scratch(Path(tempfile.gettempdir())) as folder:
            tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
            self.run()


@dataclass(frozen=True)
class Report(Target):
    """One notebook to execute and render.

    Attributes:
        part: the validated parameters, a `labrnn.parts.Part`.
        trials: the stored trials that it reads.
        out: folder for the report, e.g. `reports/quick`.
        author: author printed on the report.
        notebooks: folder of the source notebooks.
        reviews: fingerprint of the reviews; empty if they are not available.
    """

    part: object
    trials: list
    out: Path
    author: str
    notebooks: Path = PROJECT / "notebooks"
    reviews: str = ""

    @property
    def name(self):
        return self.part.name

    @property
    def source(self):
        return self.notebooks / f"{self.name}.ipynb"

    def outputs(self):
        return [self.out / (self.name + suffix) for suffix in SUFFIXES]

    def inputs(self):
        texts = [self.part.model_dump_json(), self.author, self.reviews]
        texts += [trial.identity for trial in self.trials]
        return [self.source.read_bytes(), *map(str.encode, texts)]

    def kept(self):
        """Return name -> digest of the derived data that notebooks read."""
        # Figures of training runs show the best baseline, if it is stored.
        baseline = {baselines.kept_file(self.part): None} if self.part.settings() else {}
        found = default_store(self.part.store).kept_digests(self.reviews) if self.reviews else {}
        return baseline | found

    def contents(self):
        """Execute the notebook and render it: notebook, PDF and HTML page, as bytes.

        Raises:
            LabError: the notebook failed, its kernel died, or a cell took too long.
        """
        try:
            notebook = execute(self.source, self.part.given())
            self._describe(notebook)
            return render(notebook, self.name)
        except Exception as error:
            traceback.print_exc()
            raise LabError(f"{self.name}: {explain(error)}\n  log: {self.log}") from None

    def _describe(self, notebook):
        """Add the facts for the title page and for 'How this report was made' to the metadata.

        Metadata that differ between runs are removed, so that equal inputs give equal bytes.
        """
        notebook.metadata.pop("papermill", None)
        notebook.metadata.get("language_info", {}).pop("version", None)
        for cell in notebook.cells:
            cell.metadata.pop("papermill", None)
            cell.metadata.pop("execution", None)
            if "injected-parameters" in cell.metadata.get("tags", []):
                cell.id = "injected-parameters"
        notebook.metadata.update(
            title=self.part.title,
            authors=[{"name": self.author}],
            date=self.day(),
            labrnn=self.facts(),
            runs={t.key: {n: t.environment[n] for n in ("seconds", "commit")} for t in self.trials},
        )

    def day(self):
        """Return the date of the newest trial; empty without trials."""
        return max((t.environment["finished"][:10] for t in self.trials), default="")

    def facts(self):
        """Return the provenance of the report, independent of when and where it is rendered."""
        newest_first = sorted(
            (trial.environment for trial in self.trials), key=lambda e: e["finished"], reverse=True
        )
        files, versions = {}, {}  # the same reviews may come from files with different names
        for trial in self.trials:
            source = f"{trial.data['name']}, {trial.data['reviews']:,} reviews"
            files.setdefault(trial.fingerprint, []).append(source)
            for name, version in trial.environment["versions"].items():
                versions.setdefault(name, set()).add(version)
        data = [f"{max(sorted(n), key=n.count)}, fingerprint {k}" for k, n in files.items()]
        commits = list(dict.fromkeys(e["commit"] for e in newest_first if e["commit"]))
        more = len(commits) - COMMITS
        facts = {
            "data": "; ".join(sorted(data)) or (self.reviews and f"fingerprint {self.reviews}"),
            "runs read": len(self.trials),
            "device": "; ".join(sorted({e["device"] for e in newest_first})),
            "versions": {name: ", ".join(sorted(found)) for name, found in versions.items()},
            "commit": ", ".join(commits[:COMMITS]) + (f" and {more} more" if more > 0 else ""),
        }
        if not self.trials:
            content = self.source.read_bytes() + self.part.model_dump_json().encode()
            facts["content"] = sha256(content)[:12]
        return {name: value for name, value in facts.items() if value}


@dataclass(frozen=True)
class WriteUp(Target):
    """The write-up: one document of all executed notebooks of a folder."""

    out: Path
    author: str
    name, says = "write_up", "all parts in one document"

    @property
    def notebooks(self):
        return executed(self.out)

    def outputs(self):
        return [self.out / "write_up.pdf", self.out / "write_up.html"]

    def inputs(self):
        return [self.author.encode(), *(path.read_bytes() for path in self.notebooks)]

    def contents(self):
        from labrnn.reports import writeup

        return writeup.build(self.notebooks, TITLE, [self.author])


@dataclass(frozen=True)
class Gallery(Target):
    """The gallery: one page of the reports in a folder and its subfolders."""

    out: Path
    name, says = "gallery", "all reports at a glance"

    @classmethod
    def of(cls, folder):
        """Return the gallery for a folder; all folders in `reports` share one."""
        folder, reports = Path(folder).resolve(), PROJECT / "reports"
        return cls(reports if folder.parent == reports else folder)

    def reports(self):
        """Return folder -> its executed notebooks, for folders that have any."""
        folders = [self.out, *sorted(path for path in self.out.iterdir() if path.name[0] != ".")]
        return {folder: found for folder in folders if (found := executed(folder))}

    def outputs(self):
        return [self.out / "index.html"]

    def inputs(self):
        for folder, notebooks in self.reports().items():
            names = {path.name for path in folder.iterdir() if path.suffix in SUFFIXES}
            yield repr((folder.name, sorted(names - {"index.html"}))).encode()
            yield from (path.read_bytes() for path in notebooks)

    def contents(self):
        from labrnn.reports import gallery

        (place,) = self.outputs()
        if place.exists() and b'content="labrnn' not in place.read_bytes()[:1000]:
            raise LabError(
                f"{place}: not a page of labrnn; move it, or name another folder with --out"
            )
        return [gallery.page(TITLE, self.out, self.reports()).encode()]


def executed(folder):
    """Return the executed notebooks of a folder that have a PDF, in the lab's order."""
    paths = (folder / f"{name}.ipynb" for name in PARTS)
    return [path for path in paths if path.exists() and path.with_suffix(".pdf").exists()]


@lru_cache
def package_digest():
    """Return a digest of the package's sources and of all installed versions.

    Another version may change a report.
    """
    folder = Path(__file__).parents[1]
    found = hashlib.sha256(platform.python_version().encode())
    found.update(repr(sorted((d.name, d.version) for d in distributions())).encode())
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            found.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return found.digest()


@contextmanager
def scratch(parent):
    """Make a temporary folder in `parent` for this process, and remove it at the end.

    Folders of killed processes, whose locks are free, are removed first.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.glob("labrnn-*"):
        with suppress(OSError, Timeout), FileLock(old / "lock", timeout=0):
            shutil.rmtree(old, ignore_errors=True)
    while True:
        folder = Path(tempfile.mkdtemp(prefix="labrnn-", dir=parent))
        lock = FileLock(folder / "lock", timeout=0)
        with suppress(OSError, Timeout):  # another process may have removed it before it was locked
            lock.acquire()
            if (folder / "lock").exists():
                break
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def execute(source, parameters):
    """Run a notebook with papermill in a new kernel and return the executed notebook.

    Only a return from this function means success; the notebook's own metadata is not used.
    """
    import nbformat
    import papermill
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    content = source.read_bytes()
    with suppress(ValueError, AttributeError):  # invalid notebooks are refused by nbformat below
        cells = json.loads(content).get("cells", [])
        tagged = [c for c in cells if "parameters" in c.get("metadata", {}).get("tags", [])]
        if len(tagged) != 1:
            raise LabError(
                f"{source}: {len(tagged)} cells have the tag `parameters`, so that the params file "
                "would have no effect; give the cell of the defaults that tag, and no other"
            )
    # A notebook object and no output path: papermill would expand braces in paths.
    done = papermill.execute_notebook(
        nbformat.reads(content, 4),
        None,
        parameters=parameters,
        kernel_name="python3",
        progress_bar=False,
        start_timeout=180,
        execution_timeout=CELL_SECONDS,
        **manager(tempfile.gettempdir()),
    )
    # A busy kernel sends in pieces what a cell prints, and equal inputs give equal bytes.
    return CoalesceStreamsPreprocessor().preprocess(done, {})[0]


def render(notebook, name):
    """Return the bytes of the notebook file, the PDF and the HTML page."""
    import nbformat

    from labrnn.reports.exporter import LabPDFExporter, to_html, to_pdf, write

    source = nbformat.writes(notebook, 4)
    doc, _ = LabPDFExporter().read(nbformat.reads(source, 4), {"metadata": {"name": name}})
    written = write(doc, "typst", "html")
    return [f"{source}\n".encode(), to_pdf(doc, written), to_html(doc, written).encode()]


def explain(error):
    """Summarise an error of a notebook: the cell, and the last lines of the message."""
    kind = type(error).__name__
    if kind == "PapermillExecutionError":
        words = re.sub(r"\x1b\[[0-9;]*m", "", f"{error.ename}: {error.evalue}")
        return f"cell {error.exec_count} failed\n  " + "\n  ".join(words.splitlines()[-8:])
    if kind == "DeadKernelError":
        return "its kernel died (out of memory, or killed)"
    if kind == "CellTimeoutError":
        return f"a cell took longer than {CELL_SECONDS} s"
    return f"{kind}: {error}"
