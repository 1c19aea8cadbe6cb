"""The console script `labrnn`."""

import io
import json
import os
import signal
import sys
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from labrnn import folders
from labrnn.errors import LabError, printable


class LabCommand(click.Group):
    """A command group with exit code 2 for invalid input and 130 for an interrupt."""

    def main(self, *args, **kwargs):
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, interrupt_once)  # handled like Ctrl-C
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else ignored
                signal.signal(signal.SIGINT, interrupt_once)
        with steady_streams():
            try:
                try:
                    return super().main(*args, standalone_mode=False, **kwargs)
                except BaseException:
                    if signal.getsignal(signal.SIGTERM) == signal.SIG_IGN:
                        raise KeyboardInterrupt from None  # which other code may have replaced
                    raise
            except LabError as error:
                message, code = f"labrnn: {error}", 2
            except click.ClickException as error:
                text = io.StringIO()
                error.show(text)
                message, code = text.getvalue().rstrip(), 2
            except OSError as error:
                where, code = error.filename or "file system", 2
                message = f"labrnn: {where}: {error.strerror or error}; correct the path or its "
                message += "permissions, or free space; finished runs are kept"
            except (KeyboardInterrupt, click.Abort):
                message = "\ninterrupted; finished runs are kept; run the same command to continue"
                code = 130
                with suppress(AttributeError):  # on Windows
                    signal.setitimer(signal.ITIMER_REAL, 0)
            show(message, err=True)
            sys.exit(code)


@contextmanager
def steady_streams():
    """Continue the work if writing to standard output or standard error fails.

    A closed pipe (`| head`) is ignored. Other lost output is reported at the end with exit code 2;
    lost messages on standard error are not reported.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:  # closed by the caller: reserve the number
            os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
            if name != "stdin":
                setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115
    out, err = Steady(sys.stdout), Steady(sys.stderr)
    sys.stdout, sys.stderr = out, err
    try:
        yield
    finally:
        out.flush()
        sys.stdout = out.stream
        if out.fault and not isinstance(out.fault, BrokenPipeError):
            show(f"labrnn: standard output: {out.fault.strerror}; run the command again", err=True)
            sys.exit(2)
        err.flush()
        sys.stderr = err.stream


class Steady:
    """A text stream that ignores write errors and keeps the first one as `fault`."""

    def __init__(self, stream):
        self.stream, self.fault = stream, None
        if hasattr(stream, "reconfigure"):  # for encodings that lack a character
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        self._attempt(self.stream.write, text)
        return len(text)

    def flush(self):
        self._attempt(self.stream.flush)

    def _attempt(self, function, *arguments):
        try:
            function(*arguments)
        except OSError as fault:
            self.fault = self.fault or fault
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)


def show(text, err=False, nl=True):
    """Print text with its control characters replaced."""
    click.echo(printable(str(text)), err=err, nl=nl)


def next_step(text):
    """Print a next step on standard error, so that the output can be piped."""
    sys.stdout.flush()
    if not sys.stdout.fault:
        show(f"next: {text}", err=True)


def interrupt_once(number, frame):
    """Raise KeyboardInterrupt at the first Ctrl-C; ignore further ones during the clean-up.

    It is raised again if other code discards it, but not while an error is handled or cleaned up.
    """
    sys.unraisablehook = lambda fault: None  # else "Signal 2 ignored due to race condition"
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
    if again := hasattr(signal, "setitimer"):  # not on Windows
        signal.signal(signal.SIGALRM, interrupt_once)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
    if not (again and sys.exc_info()[1]):
        raise KeyboardInterrupt


@click.group(cls=LabCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="labrnn")
def main():
    """A lab on LSTM and GRU sentiment classifiers for film reviews."""
    for name in ("MPLBACKEND", "JPY_PARENT_PID"):  # set by a notebook that runs `!labrnn`
        os.environ.pop(name, None)
    folders.choose_tmpdir()


def params_argument(required=True):
    """Return a decorator for the argument PARAMS: paths of params files, or their short names."""

    def paths(context, parameter, names):
        from labrnn.config import find_params

        return [find_params(name) for name in names]

    return click.argument("params", nargs=-1, required=required, callback=paths)


data_option = click.option("--data", metavar="PATH", help="Reviews: a file or folder.")
jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Training runs at once. [default: the number of cores]",
)


@main.command()
@params_argument()
@data_option
@jobs_option
@click.option("--device", default="", help="cpu, cuda or mps. [default: that of the params file]")
@click.option(
    "--scheduler",
    default="",
    metavar="WHERE",
    help="Train in Dask workers: local (one worker per core or GPU), an address "
    "(tcp://host:8786), a scheduler file (.json) or a description of a SLURM cluster "
    "(.yaml, see params/cluster/slurm.yaml).",
)
@click.option(
    "--dry-run", is_flag=True, help="Only show what would be trained and how long it would take."
)
def train(params, data, jobs, device, scheduler, dry_run):
    """Train the runs of params files that are not stored yet.

    PARAMS are files or short names: lab2c is params/quick/lab2c_depth.yaml, full/lab2c is
    params/full/lab2c_depth.yaml.

    \b
    Examples:
      labrnn train lab2c --jobs 2
      labrnn train params/full/*.yaml --scheduler params/cluster/slurm.yaml --dry-run
    """
    from labrnn.parts import by_source, read_params
    from labrnn.trials.progress import describe, display_for_terminal
    from labrnn.trials.running import run_trials
    from labrnn.trials.store import default_store

    use_data(data)
    parts = [read_params(path) for path in params]
    if dry_run:
        show_plan(parts, jobs, scheduler)
        next_step("run the same command without --dry-run to train them")
        return
    failures = []
    for (source, fingerprint, store, wanted), trials in by_source(parts).items():
        how = {"jobs": jobs or 0, "device": device or wanted, "scheduler": scheduler}
        outcome = run_trials(
            trials, source, fingerprint, default_store(store), display=display_for_terminal(), **how
        )
        failures += [f"{describe(c)}: {message}" for c, message in outcome.failures.items()]
        show(f"{len(outcome.trials)} trials stored, {len(outcome.failures)} failed")
    for message in failures:
        show(f"failed: {message}", err=True)
    if failures:
        next_step("correct the failures and run the same command; it trains the missing runs")
        sys.exit(1)
    next_step(f"labrnn report {' '.join(params)}")


def show_plan(parts, jobs, scheduler):
    """Print what `train` would do: each missing run, the estimated time, the job script."""
    from labrnn.parts import by_source
    from labrnn.trials.plan import Estimate, cores, plan_trials, speed
    from labrnn.trials.progress import clock, describe
    from labrnn.trials.store import default_store

    script = ""
    if scheduler.endswith((".yaml", ".yml")):
        from labrnn.trials.cluster import job_script

        jobs, script = job_script(scheduler)
    jobs = jobs or cores()
    for (source, fingerprint, store, _), trials in by_source(parts).items():
        store = default_store(store)
        plan, (pace, known) = plan_trials(trials, source, fingerprint, store), speed(store)
        estimate = Estimate(jobs, clock=lambda: 0)
        for config, work in plan.missing.items():
            estimate.add(config, work / pace)
            show(f"{describe(config)}: {clock(work / pace)}")
        for config, message in plan.failures.items():
            show(f"{describe(config)}: {message}", err=True)
        basis = f"from {known} stored trials" if known else "a guess: no trial is stored"
        show(
            f"{len(plan.trials)} trials stored, {len(plan.missing)} to train, about "
            f"{clock(estimate.seconds())} with {jobs} at once ({basis})"
        )
    show(script, nl=False)


@main.command()
@params_argument()
@data_option
@jobs_option
@click.option("--author", default="labrnn", show_default=True, help="Printed on the reports.")
@click.option(
    "--out",
    metavar="FOLDER",
    help="Folder for the reports. [default: reports/<folder of the params file>]",
)
def report(params, data, jobs, author, out):
    """Execute notebooks and render PDF reports; unchanged reports are skipped.

    PARAMS are files or short names: lab2c is params/quick/lab2c_depth.yaml.

    \b
    Examples:
      labrnn report lab2c
      labrnn report params/quick/*.yaml --author "Ada Lovelace"
    """
    from labrnn.reports.kernel import Processes

    use_data(data)
    processes = Processes()
    records = [folders.record_of(folders.report_folder(p, out), Path(p).stem) for p in params]
    if not all(map(os.path.exists, records)):
        processes.prepare()
    from labrnn.reports import batch  # imports pandas, while the server starts

    reports = batch.plan(params, out, printable(author.replace("\n", " ")))
    for folder in {report.out for report in reports}:
        folder.mkdir(parents=True, exist_ok=True)  # fails now, not after hours of training
    if batch.make(reports, processes, jobs or 0, show, partial(show, err=True)):
        next_step("correct the failures and run the same command; it makes the missing reports")
        sys.exit(1)
    next_step("open a PDF; change a value in a params file and run the same command")


def use_data(data):
    """Give --data precedence, in this process and its child processes."""
    if data:
        from labrnn.reviews.sources import find_source

        os.environ["LABRNN_DATA"] = str(find_source(override=data))


@main.command()
@data_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option(
    "--download",
    is_flag=False,
    flag_value="",
    default=None,
    metavar="[FOLDER]",
    help="Download Stanford's archive of 50,000 reviews, by default to the user's cache.",
)
def data(data, as_json, download):
    """Describe the reviews in use, or download more.

    \b
    Examples:
      labrnn data
      labrnn data --data "IMDB Dataset.csv" --json
      labrnn data --download ~/Downloads
    """
    from labrnn.reviews import download as web
    from labrnn.reviews.sources import describe, find_source, read_reviews

    if download is not None:
        path = web.download(download)
        show(f"{path}: complete and correct")
        next_step(f"labrnn report lab1_data --data {path}; LABRNN_DATA names it for every command")
        return
    path = find_source(override=data)
    facts = {"path": str(path), **describe(read_reviews(path))}
    if as_json:
        show(json.dumps(facts))
        return
    words = ", ".join(f"{name} {count:,.0f}" for name, count in facts.pop("words").items())
    for name, value in {**facts, "words per review": words}.items():
        value = f"{value:,}" if isinstance(value, int) else value
        show(f"{name.replace('_', ' '):<19}{value}")
    next_step("labrnn report lab1_data")


MOST_TEXT = 100_000_000  # largest standard input, bytes


def _lines(stream):
    """Return the lines of a byte stream; LabError if it has more than MOST_TEXT bytes."""
    content = stream.read(MOST_TEXT + 1)
    if len(content) > MOST_TEXT:
        raise LabError(
            f"standard input: more than {MOST_TEXT:,} bytes; pass fewer reviews per call"
        )
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", "replace")
    return [line.rstrip("\n") for line in text]


@main.command()
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@data_option
@click.option(
    "--trial",
    default="",
    metavar="KEY",
    help="Prefix of a stored run's key. [default: the packaged network; with --data or LABRNN_DATA, "
    "the stored run with the lowest validation loss]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per text.")
@click.option(
    "--explain",
    metavar="PATH",
    help="Write the probability after every word of one TEXT to PATH.html and PATH.png.",
)
def predict(texts, data, trial, as_json, explain):
    """Classify texts with the packaged network, or with a stored model.

    Each TEXT, or each line of standard input, is positive or negative. With --trial or --data, or
    if LABRNN_DATA is set, the model is one of the stored runs. Words outside its vocabulary are
    dropped.

    \b
    Examples:
      labrnn predict "A wonderful film." "Two hours of boredom."
      labrnn predict --json < reviews.txt
      labrnn predict "A great cast, but a dull story." --explain opinion
    """
    from labrnn.network import shipped
    from labrnn.network.prediction import choose_trial
    from labrnn.network.prediction import predict as ask
    from labrnn.trials.progress import describe
    from labrnn.trials.store import default_store

    use_data(data)
    stored = trial or os.environ.get("LABRNN_DATA")
    trial, corpus = choose_trial(default_store(), key=trial) if stored else shipped.read()
    if not texts:
        if sys.stdin is None:
            raise LabError("standard input is closed; pass texts as arguments or lines in a pipe")
        if sys.stdin.isatty():
            show("one text per line, Ctrl-D at the end", err=True)
        texts = _lines(sys.stdin.buffer)
    if explain is not None and len(texts) != 1:
        raise LabError(f"--explain takes one text, {len(texts)} were given; pass one at a time")
    answers = ask(trial, corpus, texts) if texts else []
    names = {"trial": trial.key, "model": describe(trial.config)}
    for text, answer in zip(texts, answers, strict=True):
        if as_json:
            show(json.dumps({"text": text, **asdict(answer), **names}))
            continue
        show(f"{answer.label} {answer.probability:.3f}  {text}")
        if not answer.known:
            show("  contains no known word, so the prediction is meaningless")
        for name in ("known", "dropped", "cut"):
            if words := getattr(answer, name):
                show(f"  {name} ({len(words)}): {' '.join(words)}")
    model = f"{describe(trial.config)}, trial {trial.key}, on {corpus.facts['name']}"
    if not as_json:
        show(f"model: {model}")
    if explain is not None:
        page, picture = write_explanation(explain, texts[0], answers[0], trial, corpus, model)
        show(f"explained in {page} and {picture}", err=as_json)
        next_step(f"open {page}")
    elif texts:
        next_step("labrnn predict TEXT --explain PATH writes the probability after every word")


def write_explanation(path, text, answer, trial, corpus, model):
    """Write the prediction after every word to PATH.html and PATH.png; return both paths."""
    from labrnn.files import replace_file
    from labrnn.network.prediction import opinions
    from labrnn.results.reading import explanation

    path = Path(path)
    if path.suffix in (".html", ".png"):
        path = path.with_suffix("")
    if not path.name:
        raise LabError(f"--explain {path}: a folder without a name for the files; add one")
    path.parent.mkdir(parents=True, exist_ok=True)
    contents = explanation(text, answer, opinions(trial, corpus, answer), model)
    places = [path.with_name(path.name + suffix) for suffix in (".html", ".png")]
    for place, content in zip(places, contents, strict=True):
        replace_file(place, content)
    return places


@main.command()
@click.argument("folder", default="params/schema")
def schema(folder):
    """Write JSON schemas of the params files.

    One file per part is written to FOLDER [default: params/schema]. The first
    line of a params file names its schema; editors use it to complete and check the file.

    \b
    Example:
      labrnn schema
    """
    from labrnn.parts import PARTS

    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, part in PARTS.items():
        content = part.model_json_schema() | {"title": part.title}
        for parameter in content["properties"].values():
            del parameter["title"]  # only repeats the name
        Path(folder, f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    show(f"{len(PARTS)} schemas in {folder}")
    next_step("open a params file in an editor with YAML schemas; it completes the parameters")


@main.group(invoke_without_command=True)
@click.option(
    "--store",
    "folder",
    default="",
    metavar="FOLDER",
    help="Run store to use. [default: LABRNN_STORE or else trials/, and reports/full]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.pass_context
def trials(context, folder, as_json):
    """List the stored runs; check, clean and copy them.

    \b
    Examples:
      labrnn trials
      labrnn trials verify
      labrnn trials export reports/full params/full/*.yaml
    """
    from labrnn.trials.store import Store, default_store

    context.obj = Store(folder) if folder else default_store()
    if context.invoked_subcommand is None:
        rows, faults = {}, []
        for trial in context.obj.places():
            try:
                if (name := (trial.fingerprint, trial.key)) not in rows:
                    rows[name] = trial.row()
            except LabError as error:
                faults.append(str(error))
        show("\n".join(map(json.dumps, rows.values())) if as_json else aligned(rows.values()))
        for fault in faults:
            show(f"not listed: {fault}", err=True)
        next_step("labrnn trials verify" if rows else "labrnn train lab1_lstm")


def aligned(rows):
    """Format dicts of plain values as aligned columns."""
    lines = [list(map(str, row.values())) for row in rows]
    lines.insert(0, list(next(iter(rows), ["no trials"])))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


@trials.command()
@click.pass_obj
def verify(store):
    """Compare every file with its stored digest, and the files with each other.

    The exit code is 1 if a file differs or cannot be read.
    """
    from labrnn.trials.trial import removal

    if not (store.shelves or store.root.exists()):
        raise LabError(f"{store.root}: no such folder; correct --store")
    sound, faulty = 0, False
    for trial in store.places():
        try:
            faults = trial.damage()
        except LabError as error:
            faulty = True
            show(error, err=True)
            continue
        sound, faulty = sound + (not faults), faulty or bool(faults)
        for fault in faults:
            show(f"{trial.folder}: {fault}")
    for path, fault in store.damaged():
        faulty = True
        show(f"{path}: {fault}")
    show(f"{sound} trials are sound")
    next_step(removal(store.root) if faulty else "labrnn trials export FOLDER copies them")
    sys.exit(1 if faulty else 0)


@trials.command()
@click.option("--unfinished", is_flag=True, help="Also delete the saved states of unfinished runs.")
@click.option("--damaged", is_flag=True, help="Also delete damaged and incomplete runs.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def gc(store, unfinished, damaged, yes):
    """Delete leftovers of interrupted writes and stale locks.

    The command lists the files and asks first. It never deletes files that labrnn did not write.
    """
    from labrnn.trials.cleaning import not_removable, remove, stale

    found = stale(store, unfinished, damaged)
    left = not_removable(store) if damaged else []
    for folder in left:
        show(
            f"{folder}: damaged, with files that labrnn did not write; delete it by hand", err=True
        )
    if not found:
        show("nothing to remove")
        next_step("labrnn trials verify")
        sys.exit(1 if left else 0)
    for path in found:
        show(path)
    with suppress(click.Abort):  # no terminal to ask on
        yes = yes or click.confirm(f"Delete these {len(found)} files and folders?")
    if not yes:
        show("nothing removed; `--yes` removes without a question", err=True)
        sys.exit(1)
    removed = remove(store, found, unfinished, damaged)
    show(f"{len(removed)} removed")
    for path in found.keys() - set(removed):
        show(f"not removed: {path}", err=True)
    next_step("labrnn train PARAMS trains the missing runs again")
    sys.exit(1 if left or len(removed) < len(found) else 0)


@trials.command()
@click.argument("folder")
@params_argument(required=False)
@click.pass_obj
def export(store, folder, params):
    """Add finished runs to the tables in FOLDER: all runs, or those of the params files.

    The tables are trials.csv, history.csv and predictions.parquet; docs/trials.md describes their
    columns. Runs already in the tables stay.
    """
    from labrnn.parts import by_source, read_params
    from labrnn.trials import tables
    from labrnn.trials.plan import plan_trials

    found = [] if params else list(store.trials())
    for (data, fingerprint, *_), trials in by_source(map(read_params, params)).items():
        found += plan_trials(trials, data, fingerprint, store, train=False).trials.values()
    if not found:
        raise LabError(f"{store.root}: no trials to export; train some with labrnn train PARAMS")
    faults = {trial.folder: "; ".join(trial.damage(weights=False)) for trial in found}
    sound = [trial for trial in found if not faults[trial.folder]]
    added = tables.write(folder, sound)
    for fingerprint in sorted({trial.fingerprint for trial in found}):
        faults.update(store.copy_kept(fingerprint, partial(tables.keep, folder, fingerprint)))
    for path, fault in faults.items():
        if fault:
            show(f"{path}: {fault}; not exported", err=True)
    show(f"{added} added, {len(sound) - added} there already")
    next_step(f"labrnn trials import {folder}, on another machine")
    sys.exit(1 if any(faults.values()) else 0)


@trials.command("import")
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.pass_obj
def import_(store, folder):
    """Copy the runs of FOLDER (tables or a run store) to this store; existing runs stay."""
    from labrnn.trials.store import Store

    source, counts = Store(folder), Counter()
    if not (found := list(source.trials())):
        raise LabError(
            f"{source.root}: no trials to import; name a folder with trials.csv, or a run store"
        )
    for fingerprint in sorted({trial.fingerprint for trial in found}):
        for path, fault in source.copy_kept(fingerprint, partial(store.keep, fingerprint)):
            counts["not copied"] += 1
            show(f"{path}: {fault}; not copied", err=True)
    for trial in found:
        try:
            outcome = store.take(trial)
        except LabError as error:
            outcome = "not copied"
            show(error, err=True)
        counts[outcome] += 1
        if outcome in ("differs", "busy"):
            show(f"{outcome}: {trial.folder}", err=True)
    show(", ".join(f"{n} {outcome}" for outcome, n in counts.items()))
    next_step("labrnn report PARAMS")
    sys.exit(1 if counts["not copied"] else 0)
