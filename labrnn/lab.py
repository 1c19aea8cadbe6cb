"""A notebook's handle on its part: validated parameters, trials, results."""

import ast
import math

import numpy as np

from labrnn.config import validated
from labrnn.errors import LabError
from labrnn.network.models import count_parameters
from labrnn.parts import part_named
from labrnn.results import baselines, statistics
from labrnn.reviews.description import describe_data
from labrnn.reviews.text import load_corpus
from labrnn.trials.running import run_trials
from labrnn.trials.store import default_store

INJECTED = "# Parameters"  # how papermill begins the cell that it puts in


class Lab:
    """One part, as its notebook sees it.

    Args:
        name: the part's, e.g. `lab2c_depth`.
        namespace: the notebook's `globals()`; its parameters are read from there.
        plumbing: where and how it runs, see `labrnn.parts.PLUMBING`: `jobs=1`, `train=False`.
            What papermill was given is stronger.

    Attributes:
        part: the validated parameters, a `labrnn.parts.Part`.
        results: what `run` found or trained.

    Raises:
        LabError: a parameter is unknown or bad.
    """

    def __init__(self, name, namespace, **plumbing):
        part = part_named(name, f"Lab({name!r}, ...)")
        own = {field: namespace[field] for field in part.own_fields() if field in namespace}
        given = plumbing | _injected(namespace) | own
        if any(cell.startswith(INJECTED) for cell in namespace.get("In", [])[1:2]):
            raise LabError(
                f"notebook {name}: no cell has the tag `parameters`, so the values given came before "
                "the defaults and do not count; give the cell of the defaults that tag"
            )
        self.part = validated(part, given, f"notebook {name}")
        self.store = default_store(self.part.store)

    def run(self):
        """Find or train the part's trials, with progress; returns the `Results`."""
        from labrnn.trials.progress import NotebookDisplay

        part = self.part
        outcome = run_trials(
            part.trials(),
            part.data,
            part.fingerprint,
            self.store,
            part.jobs,
            part.device,
            part.train,
            display=NotebookDisplay(),
        )
        bar = baselines.best(part, outcome.trials.values(), self.store)
        self.results = Results(part, outcome, bar)
        return self.results

    def load_reader(self, model):
        """Load the weights of the part's reader into a notebook's own model; returns whether.

        False where they are not at hand, or belong to other reviews than those at hand.
        """
        for seed in self.part.seeds:
            trial = self.results.outcome.trials.get(self.part.reader.but(seed=seed))
            if trial and trial.has_weights and self.corpus:
                model.load_state_dict(trial.weights())
                model.eval()
                return True
        return False

    def describe_data(self):
        """What the part's reviews look like, see `labrnn.reviews.description`."""
        return describe_data(self.part.base, self.part.data, self.part.fingerprint, self.store)

    @property
    def corpus(self):
        """The part's reviews as a `Corpus`; None where they are not at hand."""
        try:
            corpus = load_corpus(self.part.base, self.part.data)
        except LabError:
            if self.part.fingerprint:
                return None
            raise
        wanted = self.part.fingerprint
        return corpus if not wanted or corpus.fingerprint == wanted else None

    def also(self, part):
        """`Results` of another part whose trials this one asked for as well."""
        return Results(part, self.results.outcome, self.results.bar)

    def trial(self, setting_name):
        """The stored trial of a setting with the part's first seed, or None if it was not run."""
        return self.results.trial(self.results[setting_name])


def _injected(namespace):
    """Values that papermill's injected cell sets: a misspelt name must not pass unseen.

    They are read from the cell, since a notebook may use a name such as `train` for its own things.
    """
    cells = [cell for cell in namespace.get("In", []) if cell.startswith(INJECTED)]
    statements = ast.parse(cells[-1]).body if cells else []
    return {s.targets[0].id: _value(s.value) for s in statements if isinstance(s, ast.Assign)}


def _value(node):
    try:
        return ast.literal_eval(node)
    except ValueError:  # float("nan") and the like
        return ast.unparse(node)


class Results:
    """A part's settings with their trials; what was not run or failed is absent.

    Args:
        part: a `Part`.
        outcome: a `plan.Outcome`.
        bar: the best `Baseline` that is stored for the same reviews, if any.
    """

    def __init__(self, part, outcome, bar=None):
        self.part, self.outcome, self.bar = part, outcome, bar
        self.settings = part.settings()
        self.checkpoint = part.checkpoint

    def __getitem__(self, name):
        """The setting of that name; LabError if the parameters leave it out."""
        known = {setting.name: setting for setting in self.settings}
        if name not in known:
            raise LabError(
                f"{self.part.name}: no setting is called {name!r}, with which this part compares; "
                f"there are {', '.join(known)}: add it to the parameters"
            )
        return known[name]

    def only(self, *settings):
        """The same results with these settings alone."""
        results = Results(self.part, self.outcome)
        results.settings = list(settings)
        return results

    def at(self, checkpoint):
        """The same results, tested after the `best` or the `last` epoch."""
        return Results(self.part.model_copy(update={"checkpoint": checkpoint}), self.outcome)

    def trial(self, setting):
        """The trial of a setting with the part's first seed, or None."""
        return self.outcome.trials.get(setting.config.but(seed=self.part.seeds[0]))

    def trials(self, setting):
        """The setting's trials that were run, by seed."""
        return self.trials_of(setting.config)

    def trials_of(self, config):
        """The trials of a configuration that were run, by seed."""
        found = {s: self.outcome.trials.get(config.but(seed=s)) for s in self.part.seeds}
        return {seed: trial for seed, trial in found.items() if trial}

    @property
    def run(self):
        """The settings with at least one trial."""
        return [setting for setting in self.settings if self.trials(setting)]

    @property
    def missing(self):
        """The settings without a trial."""
        return [setting for setting in self.settings if not self.trials(setting)]

    def correct(self, setting, seeds=None):
        """Whether each seed's model is right on each test review, bool [seeds, reviews]."""
        trials = self.trials(setting)
        return [
            (table[self.checkpoint] > 0.5).to_numpy() == table["label"].to_numpy()
            for table in (trials[seed].predictions for seed in (seeds or trials))
        ]

    def accuracy(self, setting):
        """Test accuracy of a setting, a `statistics.Estimate`."""
        return statistics.accuracy(self.correct(setting))

    def difference(self, setting, other):
        """Test accuracy of a setting minus another's, on the seeds that both have."""
        mine, theirs = self.trials(setting), self.trials(other)
        shared = [seed for seed in mine if seed in theirs]
        if not shared:
            return statistics.difference(self.correct(setting), self.correct(other))
        return statistics.difference(self.correct(setting, shared), self.correct(other, shared))

    def parameters(self, setting):
        """Trainable parameters of a setting that was run."""
        trial = next(iter(self.trials(setting).values()))
        return count_parameters(setting.config, trial.vocabulary_size)

    @property
    def vocabulary_size(self):
        """Rows of the embedding in the trials that were run; None if none was."""
        return next((t.vocabulary_size for t in self.outcome.trials.values()), None)

    def metric(self, setting, name):
        """A test metric of the tested epoch, e.g. `loss`, by seed."""
        return {s: t.metrics[self.checkpoint][name] for s, t in self.trials(setting).items()}

    def curves(self, setting, name):
        """A quantity of the history over the epochs, a list a seed."""
        return [[epoch[name] for epoch in trial.history] for trial in self.trials(setting).values()]

    def seconds(self, setting):
        """Training seconds of an epoch, the median over epochs and seeds; NaN where not known.

        Trials that do not name their clock are left out: theirs was the wall's, on a CPU that did
        other work as well.
        """
        told = [t for t in self.trials(setting).values() if t.environment.get("clock")]
        seconds = [epoch["train_seconds"] for trial in told for epoch in trial.history]
        return float(np.median(seconds)) if seconds else math.nan
