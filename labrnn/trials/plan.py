"""Plan training runs: which are missing, in which order they train, how long they take."""

import heapq
import os
import statistics
import time
from dataclasses import dataclass, field
from itertools import islice

from labrnn.errors import LabError
from labrnn.network.registry import CELLS
from labrnn.reviews.sources import require_fingerprint
from labrnn.reviews.text import load_corpus
from labrnn.trials.store import default_store

MOST_READ = 300  # the most stored trials that `speed` reads
PRIOR = 0.02  # weight of the expected speed, as a share of a run's whole work


def cores():
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def cost(config):
    """Estimate the processor seconds of a training run on an AMD EPYC core with AVX-512.

    The four coefficients were fitted to 91 runs of the full lab; 90 % of these took 0.9 to 1.1
    times the estimate. For other machines `speed` measures the ratio.
    """
    gates = CELLS[config.cell].gates
    sides = 1 + config.bidirectional
    inputs = [config.embedding_dim] + [sides * config.hidden_dim] * (config.n_layers - 1)
    reviews = config.train_reviews or 35_000
    tokens = reviews * min(config.max_tokens, 110 if config.stop_words == "drop" else 250)
    steps = reviews / config.batch_size * config.max_tokens  # sequential steps of the recurrence
    products = gates * sides * config.hidden_dim * sum(i + config.hidden_dim for i in inputs)
    units = gates * sides * config.hidden_dim * config.n_layers
    epoch = tokens * (0.061e-9 * products + 2.7e-9 * units) + 25e-6 * reviews
    return config.epochs * (epoch + 9.7e-6 * steps * sides * config.n_layers)


def speed(store):
    """Return the median ratio of `cost` to measured seconds, and the number of trials used."""
    found = []
    for trial in islice(store.trials(), MOST_READ):
        try:
            found.append(cost(trial.config) / trial.environment["seconds"])
        except (LabError, LookupError, ZeroDivisionError):
            continue  # damaged or of another version: `trials verify` reports it
    return (statistics.median(found) if found else 1.0), len(found)


@dataclass
class Plan:
    """The stored, failed and missing trials of a list of configurations.

    Attributes:
        trials: configuration -> stored trial.
        failures: configuration -> message.
        fingerprint: fingerprint of the reviews.
        missing: configuration -> `cost` of the epochs not yet trained, in training order.
    """

    trials: dict = field(default_factory=dict)
    failures: dict = field(default_factory=dict)
    fingerprint: str = ""
    missing: dict = field(default_factory=dict)


def plan_trials(configs, data="", fingerprint="", store=None, train=True, stage=None, known=None):
    """Look up configurations in the store and order the missing ones; return a `Plan`.

    Args:
        configs: `TrialConfig`s; duplicates count once.
        data: source of the reviews.
        fingerprint: the reviews' expected fingerprint. With it stored trials are found even if the
            reviews are missing; it is checked if the reviews are read.
        store: a `Store`; the default store if None.
        train: whether missing trials will be trained, for which the reviews are read.
        stage: configuration -> number; lower numbers train first. Within a stage, or without
            stages, the longest run trains first.
        known: configuration -> stored trial found before, which is not looked up again.

    Raises:
        LabError: the reviews are missing or are not those expected.
    """
    store = store or default_store()
    if configs and (train or not fingerprint):
        try:
            corpus = load_corpus(configs[0], data)
        except LabError:
            if not fingerprint:
                raise
        else:
            require_fingerprint(corpus.facts["name"], corpus.fingerprint, fingerprint)
            fingerprint = corpus.fingerprint
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


class Estimate:
    """Estimate the remaining time of a command from the finished work and the time it took.

    Work is counted in expected seconds of one core. The measured speed is weighted by the finished
    work and the expected speed by `PRIOR` of the total, so that early estimates are stable. The
    measured speed includes start-up, waiting and other programs.

    Args:
        jobs: number of pieces of work at once.
        clock: function that returns seconds.
    """

    def __init__(self, jobs=1, clock=time.monotonic):
        self.jobs, self.clock, self.left, self.work = jobs, clock, {}, 0.0
        self.spent, self.open, self.seen = 0.0, 0, clock()

    def add(self, name, seconds):
        """Add a piece of work with its expected seconds."""
        self._pass()
        self.left[name] = seconds
        self.work += seconds
        self.open += 1

    def reduce(self, name, seconds=0.0):
        """Set the remaining seconds of a piece of work; 0 means finished."""
        self._pass()
        if left := self.left.get(name):
            self.left[name] = min(left, seconds)
            self.open -= not seconds

    def _pass(self):
        """Add the time since the last change for each piece of work that ran."""
        now = self.clock()
        self.spent += (now - self.seen) * min(self.jobs, self.open)
        self.seen = now

    def seconds(self):
        """Return the estimated seconds to the end; 0 if nothing is left."""
        self._pass()
        left = sum(self.left.values())
        if not left:
            return 0.0
        prior = PRIOR * self.work
        slowness = (self.spent + prior) / (self.work - left + prior)
        ends = [0.0] * self.jobs  # end of each core's work, assigned in the order added
        for seconds in self.left.values():
            heapq.heapreplace(ends, ends[0] + seconds)
        return slowness * max(ends)
