"""Plan a list of training runs: which are missing, in which order, how long they take."""

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

MOST_READ = 300  # stored trials that are read for their speed
PRIOR = 0.02  # weight of the expected speed, as a share of a run's whole work


def cores():
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def cost(config):
    """Expected processor seconds of a training run on an AMD EPYC core with AVX-512.

    The four weights are fitted to 91 runs of the full lab there; 90 % of them took 0.9 to 1.1
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
    for trial in islice(store.trials(), MOST_READ):
        try:
            found.append(cost(trial.config) / trial.environment["seconds"])
        except (LabError, LookupError, ZeroDivisionError):
            continue  # damaged or foreign: `trials verify` reports it
    return (statistics.median(found) if found else 1.0), len(found)


@dataclass
class Plan:
    """A list of trials: stored, failed, to be trained.

    Attributes:
        trials: configuration -> stored trial.
        failures: configuration -> message.
        fingerprint: of the data.
        missing: configuration -> `cost` of the epochs not yet trained, in the order of training.
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
        fingerprint: the data's expected fingerprint: stored trials of it are found even if the
            reviews are not available. It is checked only if something is to be trained.
        stage: configuration -> number; lower ones are trained first. Within a stage, or without
            stages, the longest run comes first.
        known: configuration -> stored trial, found before and not looked up again.

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
    """Time left of a command, from the work that is done and the time it took.

    Work is counted in expected seconds of one core. The measured speed counts by the work done; the
    expected speed counts as `PRIOR` of the whole work, so that the first minutes do not mislead.
    Other programs, start-up and waiting are thereby included.

    Args:
        jobs: pieces of work at once.
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
        """Set the seconds left of a piece of work; 0: it is finished."""
        self._pass()
        if left := self.left.get(name):
            self.left[name] = min(left, seconds)
            self.open -= not seconds

    def _pass(self):
        """Add the time since the last change, once for each piece of work that ran."""
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
        ends = [0.0] * self.jobs  # when each core has finished its share, in the order added
        for seconds in self.left.values():
            heapq.heapreplace(ends, ends[0] + seconds)
        return slowness * max(ends)
