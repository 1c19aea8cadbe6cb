"""Make the reports of params files: train, execute and render part by part, in the lab's order.

Notebooks run while later parts train. A report is made as soon as its own runs are stored;
unchanged reports are skipped.
"""

import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from labrnn.errors import LabError
from labrnn.folders import report_folder
from labrnn.parts import PARTS, by_source, read_params
from labrnn.reports.report import Gallery, Report, WriteUp
from labrnn.results import baselines
from labrnn.results.table import counted, stored
from labrnn.reviews.text import load_corpus
from labrnn.trials.plan import Estimate, cores, plan_trials
from labrnn.trials.progress import describe, display_for_terminal
from labrnn.trials.running import train_missing
from labrnn.trials.store import default_store

# Expected seconds on one core, for the estimated time left.
REPORT_SECONDS, BASELINES_SECONDS = 4, 30
GALLERY_SECONDS = 60  # between two updates of the gallery while reports are made


def plan(params, out=None, author="labrnn"):
    """Return the `Report`s of params files in the lab's order, without their trials.

    A file is named after its part, its folder after the configuration.

    Raises:
        LabError: a params file is invalid, or two files would make the same report.
    """
    order, reports, places = list(PARTS), [], {}
    for path in map(Path, params):
        folder = report_folder(path, out)
        place = folder / f"{path.stem}.pdf"
        if place in places:
            raise LabError(
                f"{places[place]} and {path}: both make {place.name} in one folder; name one of "
                "them, or make them in two calls with --out"
            )
        places[place] = path
        reports.append(Report(read_params(path), [], folder, author))
    return sorted(reports, key=lambda report: order.index(report.name))


def with_trials(report, known):
    """Return a report with the stored trials that it reads and the fingerprint of its reviews.

    `known` maps configurations to trials found before; the trials found now are added.
    """
    part, store = report.part, default_store(report.part.store)
    found = plan_trials(part.trials(), part.data, part.fingerprint, store, part.train, known=known)
    known |= found.trials
    reviews = found.fingerprint
    if not reviews:
        with suppress(LabError):  # the notebook reports the error
            reviews = load_corpus(part.base, part.data).fingerprint
    trials = stored(part, store, found.trials.values())
    return replace(report, trials=trials, reviews=reviews)


def make(reports, processes, jobs=0, show=print, warn=print):
    """Train the runs that the reports need, and make the reports that changed.

    Args:
        reports: see `plan`.
        processes: `labrnn.reports.kernel.Processes` for the reports.
        jobs: training runs at once, and notebooks at once; 0 for the number of cores.
        show: called with a line for each report.
        warn: called with the message of each failure.

    Returns:
        the number of failures; a failure does not stop the other reports.

    Raises:
        LabError: the reviews are missing, or no process can train or render.
    """
    batch = _Batch(reports, processes, jobs or cores(), show, warn)
    try:
        batch.train()
        batch.finish()
    except BaseException:
        batch.stop()
        raise
    return batch.failures


class _Batch:
    """One call of `make`: a thread per report waits for its training runs, then for a free slot."""

    def __init__(self, reports, processes, jobs, show, warn):
        self.reports, self.jobs, self.show, self.warn = reports, jobs, show, warn
        self.estimate, self.processes = Estimate(jobs), processes
        self.threads, self.turns = ThreadPoolExecutor(2 * len(reports)), threading.Semaphore(jobs)
        self.futures, self.gallery_built = [], time.monotonic()
        self.failures, self.current = 0, []
        self.known = {_source(report.part): {} for report in reports}  # stored trials, by config
        self.ended = defaultdict(threading.Event)  # of training runs and of baseline fits

    def train(self):
        """Train the missing runs; a report starts as soon as its trials are stored."""
        plans = self._plans()
        for place, found in plans.items():
            self.known[place[:3]] |= found.trials
        unfitted = list(self._unfitted())
        for part in unfitted:
            self.estimate.add(part.name, BASELINES_SECONDS)
            self._start(self._fit, part)
        for report in self.reports:
            trials, source = report.part.trials(), _source(report.part)
            mine = [plan for place, plan in plans.items() if place[:3] == source]
            missing = {config for plan in mine for config in plan.missing}
            read = counted(report.part, {*self.known[source], *missing}) | set(trials)
            needs = [self.ended[source, config] for config in read & missing]
            if trials:  # its figures show the best baseline
                needs += [self.ended[part.name] for part in unfitted]
            self.estimate.add(report.log, REPORT_SECONDS)
            self._start(self._make, report, needs)
        for place, found in plans.items():
            source, store = place[:3], default_store(place[2])
            for config in found.failures:
                self._trained(source, found, config)
            display = display_for_terminal(self.estimate)
            on_end = partial(self._trained, source, found)
            train_missing(found, place[0], store, self.jobs, place[3], display, on_end=on_end)

    def _start(self, function, *arguments):
        self.futures.append(self.threads.submit(function, *arguments))

    def _plans(self):
        """Return (data, fingerprint, store, device) -> `Plan`; earlier reports' runs come first."""
        parts = [report.part for report in self.reports if report.part.train]
        stage = {}
        for number, part in enumerate(parts):
            for config in part.trials():
                stage.setdefault(config, number)
        return {
            place: plan_trials(configs, *place[:2], default_store(place[2]), stage=stage)
            for place, configs in by_source(parts).items()
        }

    def _unfitted(self):
        """Yield the parts whose baselines are not fitted yet."""
        for part in (report.part for report in self.reports):
            if part.fits_baselines and part.train:
                reviews = part.fingerprint or load_corpus(part.base, part.data).fingerprint
                if default_store(part.store).recall(reviews, baselines.kept_file(part)) is None:
                    yield part

    def _fit(self, part):
        log = self.reports[0].out / ".logs" / f"{part.name}.baselines.log"
        with self.turns:  # if it fails, the notebook reports the error
            self.processes.run(log, baselines.find, part, default_store(part.store))
        self.estimate.reduce(part.name)
        self.ended[part.name].set()

    def _trained(self, source, plan, config):
        if config in plan.failures:
            self._failed(f"{describe(config)}: {plan.failures[config]}")
        self.ended[source, config].set()

    def _make(self, report, needs):
        for event in needs:
            event.wait()
        with self.turns:
            if self.processes.stopped:
                return
            report = with_trials(report, self.known[_source(report.part)])
            if report.is_done():
                self.current.append(report)
            elif self._run(report):
                self.show(f"{report.name}: {report.outputs()[1]}")
                if time.monotonic() - self.gallery_built > GALLERY_SECONDS:
                    self.gallery_built = time.monotonic()
                    self._run(Gallery.of(report.out))
        self.estimate.reduce(report.log)

    def _run(self, target):
        """Make a target in a new process; report a failure and return whether it succeeded."""
        message = self.processes.run(target.log, target.make)
        if message and not self.processes.stopped:  # a stopped process did not fail
            known = message.startswith(target.name)
            self._failed(message if known else f"{target.name}: {message}")
        return not message

    def _failed(self, message):
        self.failures += 1
        self.warn(f"FAILED {message}")

    def finish(self):
        """Wait for the reports, then make the write-ups and galleries."""
        for future in self.futures:
            future.result()
        if self.current:
            self.show(f"{len(self.current)} of {len(self.reports)} reports are up to date")
        authors = {report.out: report.author for report in reversed(self.reports)}
        whole = [one for out, name in authors.items() if (one := WriteUp(out, name)).notebooks]
        galleries = [*dict.fromkeys(map(Gallery.of, authors))]
        # A gallery links to the files that exist, so it waits for the first write-up of a folder.
        made = all(path.exists() for one in whole for path in one.outputs())
        for targets in [[*whole, *galleries]] if made else [whole, galleries]:
            for future in [self.threads.submit(self._update, target) for target in targets]:
                self.show(future.result())
        self.threads.shutdown()

    def _update(self, target):
        if not target.is_done():
            self._run(target)
        return f"{target.says}: {target.outputs()[0]}"

    def stop(self):
        """End all processes, and start no others."""
        self.processes.stop()
        for event in list(self.ended.values()):  # a copy: a fit that ends now may add an event
            event.set()
        self.threads.shutdown(cancel_futures=True)


def _source(part):
    return part.data, part.fingerprint, part.store
