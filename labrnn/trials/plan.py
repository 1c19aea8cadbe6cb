"""What a list of trainings needs: which are missing, in which order, and how long they take."""

import heapq
import os
import statistics
import time
from dataclasses import dataclass, field
from itertools import islice

from labrnn.errors import LabError
from labrnn.network.registry import CELLS
from labrnn.reviews.text import load_corpus
from labrnn.trials.store import default_store

MOST_ASKED = 300  # stored trials that are read for their speed
PRIOR = 0.02  # weight of the expected speed, as a share of a run's whole work


def cores():
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def cost(config):
    """Expected processor seconds of a training on an AMD EPYC core with AVX-512.

    The four weights are fitted to 91 trainings of the full lab there; 90 % of them took 0.9 to 1.1
    times as long. On another machine only the ratio changes (see `speed`).
    """
    gates = CELLS[config.cell].gates
    sides = 1 + config.bidirectional
    inputs = [config.embedding_dim] + [sides * config.hidden_dim] * (config.n_layers - 1)
    reviews = config.train_reviews or 35_000
    tokens = reviews * min(config.max_tokens, 110 if config.stop_words == "drop" else 250)
    steps = reviews / config.batch_size * config.max_tokens  # of the recurrence, one after another
    products = gates * sides * config.hidden_dim * sum(i + config.hidden_dim for i in inputs)
    units = gates * sides * config.hidden_dim * config.n_layers
    epoch = tokens * (0.061e-9 * products + 2.7e-9 * units) + 25e-6 * reviews
    return config.epochs * (epoch + 9.7e-6 * steps * sides * config.n_layers)


def speed(store):
    """Median of expected to measured seconds, and the number of stored trials that show it."""
    found = []
    for trial in islice(store.trials(), MOST_ASKED):
        try:
            found.append(cost(trial.config) / trial.environment["seconds"])
        except (LabError, LookupError, ZeroDivisionError):
            continue  # damaged or foreign: `trials verify` reports it
    return (statistics.median(found) if found else 1.0), len(found)


@dataclass
class Plan:
    """What has become of a list of trials, and what is to be trained.

    Attributes:
        trials: configuration -> stored trial.
        failures: configuration -> message of what keeps it from being stored.
        fingerprint: of the data.
        missing: configuration -> `cost` of the epochs not yet kept, in the order of training.
    """

    trials: dict = field(default_factory=dict)
    failures: dict = field(default_factory=dict)
    fingerprint: str = ""
    missing: dict = field(default_factory=dict)


def plan_trials(configs, data="", fingerprint="", store=None, train=True, stage=None, known=None):
    """Look up some configurations in the store and order those that are missing: a `Plan`.

    Args:
        configs: `TrialConfig`s; one named twice counts once.
        data: source of the reviews.
        fingerprint: the data's expected fingerprint: stored trials of it are found even where the
            reviews are not at hand. Where nothing is to be trained it is not checked.
        stage: configuration -> number; lower ones are trained first. Within a stage, or without
            stages, the longest training comes first.
        known: configuration -> stored trial, found before: the store is not asked again.

    Raises:
        LabError: the reviews are missing or are not those expected.
    """
    store = store or default_store()
    if configs and (train or not fingerprint):
        fingerprint = fingerprint_of(configs, data, fingerprint)
    plan = Plan(fingerprint=fingerprint)
    work = {}
    for config in dict.fromkeys(configs):
        try:
            trial = (known or {}).get(config) or store.find(config, plan.fingerprint)
            if trial:
                plan.trials[config] = trial
            else:
                kept = store.epochs_kept(config, plan.fingerprint)
                work[config] = cost(config) * (1 - kept / config.epochs)
        except LabError as error:
            plan.failures[config] = str(error)
    stage = stage or {}
    plan.missing = dict(sorted(work.items(), key=lambda item: (stage.get(item[0], 0), -item[1])))
    return plan


def fingerprint_of(configs, data="", expected=""):
    """The fingerprint of the source; the expected one where the source is not at hand.

    Raises:
        LabError: the source is missing and none is expected, or it is another one.
    """
    try:
        found = load_corpus(configs[0], data).fingerprint
    except LabError:
        if expected:
            return expected
        raise
    return checked(found, expected, data)


def checked(found, expected, data):
    """The fingerprint found, if it is the expected one or none is expected."""
    if expected and found != expected:
        raise LabError(
            f"data = {data or 'default'}: its fingerprint is {found}, but fingerprint = {expected} "
            "is asked for; give the same reviews in the same order, or leave fingerprint empty"
        )
    return found


class Estimate:
    """Time left of a run, from the work that is done and the time it took.

    Work is counted in expected seconds of one job. The run's own speed counts by the work done;
    the expected speed counts as `PRIOR` of the whole work, so that the first minutes do not
    mislead. Programs beside this one, start-up and waiting are thereby included.

    Args:
        jobs: jobs at once.
        clock: returns seconds.
    """

    def __init__(self, jobs=1, clock=time.monotonic):
        self.jobs, self.clock, self.left, self.work = jobs, clock, {}, 0.0
        self.spent, self.open, self.seen = 0.0, 0, clock()

    def add(self, name, seconds):
        """Add a piece of work, expected to take so many seconds."""
        self._pass()
        self.left[name] = seconds
        self.work += seconds
        self.open += 1

    def reduce(self, name, seconds=0.0):
        """Set what is left of a piece of work; nothing, if it is finished."""
        self._pass()
        if left := self.left.get(name):
            self.left[name] = min(left, seconds)
            self.open -= not seconds

    def _pass(self):
        """Count the time since the last change, as often as there were jobs with work."""
        now = self.clock()
        self.spent += (now - self.seen) * min(self.jobs, self.open)
        self.seen = now

    def seconds(self):
        """Estimated seconds to the end; 0 if nothing is left."""
        self._pass()
        left = sum(self.left.values())
        if not left:
            return 0.0
        prior = PRIOR * self.work
        slowness = (self.spent + prior) / (self.work - left + prior)
        ends = [0.0] * self.jobs  # when each job is through with its share, in the order added
        for seconds in self.left.values():
            heapq.heapreplace(ends, ends[0] + seconds)
        return slowness * max(ends)
