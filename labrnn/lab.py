"""The object through which a notebook uses its part: parameters, trials, results."""

import ast
from contextlib import suppress

from labrnn.config import validated
from labrnn.errors import LabError
from labrnn.parts import part_named
from labrnn.results import baselines, reading
from labrnn.results.table import Results, Runs, stored
from labrnn.reviews.description import describe_data, remembered
from labrnn.reviews.text import load_corpus
from labrnn.trials.running import run_trials
from labrnn.trials.store import default_store
from labrnn.trials.trial import trial_key

INJECTED = "# Parameters"  # first line of the cell that papermill injects


class Lab:
    """One part of the lab, for use in its notebook.

    Args:
        name: name of the part, e.g. `lab2c_depth`.
        namespace: the notebook's `globals()`, from which the parameters are read.
        plumbing: fields of `labrnn.parts.PLUMBING` such as `jobs=1` or `train=False`, which say
            where and how the part runs. Values given to papermill take precedence.

    Attributes:
        part: the validated parameters, a `labrnn.parts.Part`.
        results: the runs that `run` found or trained, a `labrnn.results.table.Results`.

    Raises:
        LabError: a parameter is unknown or has a bad value; or no cell has the tag `parameters`.
    """

    def __init__(self, name, namespace, **plumbing):
        part = part_named(name, f"Lab({name!r}, ...)")
        own = {field: namespace[field] for field in part.own_fields() if field in namespace}
        given = plumbing | _injected(namespace) | own
        if any(cell.startswith(INJECTED) for cell in namespace.get("In", [])[1:2]):
            raise LabError(
                f"notebook {name}: no cell has the tag `parameters`, so the defaults overwrite the "
                "given values; add the tag to the cell of the defaults"
            )
        self.part = validated(part, given, f"notebook {name}")
        self.store = default_store(self.part.store)

    def run(self):
        """Find or train the part's trials, show the progress, and return the `Results`."""
        from labrnn.trials.progress import NotebookDisplay

        part = self.part
        how = {"jobs": part.jobs, "device": part.device, "display": NotebookDisplay()}
        outcome = run_trials(
            part.trials(), part.data, part.fingerprint, self.store, part.train, **how
        )
        self.results = results(part, outcome.trials.values(), self.store)
        return self.results

    def reader(self):
        """Load the demo model from a stored run with weights, or from derived data.

        Returns:
            dict of `weights` (tensors by name), `vocab` (index by word) and `review` (a short test
            review as `reading.short_review` returns it); None if neither is available.
        """
        part = self.part
        for config in (part.reader.replace(seed=seed) for seed in part.seeds):
            identity = [reading.READER_FORMAT, trial_key(config)]
            trial = self.results.runs.trials.get(config)

            def make(_, trial=trial, config=config):
                return reading.pack_reader(trial.weights(), load_corpus(config, part.data))

            make = make if trial and trial.has_weights else None
            with suppress(LabError):
                return reading.unpack_reader(
                    remembered("reader", identity, part.data, part.fingerprint, self.store, make)
                )
        return None

    def describe_data(self):
        """Return the description of the part's reviews, see `labrnn.reviews.description`."""
        return describe_data(self.part.base, self.part.data, self.part.fingerprint, self.store)

    @property
    def corpus(self):
        """The part's `Corpus`; None if reviews with its fingerprint are not available."""
        try:
            return load_corpus(self.part.base, self.part.data, self.part.fingerprint)
        except LabError:
            if self.part.fingerprint:
                return None
            raise

    def trial(self, setting_name):
        """Return the stored trial of a setting with the lowest seed; None if it was not run."""
        return self.results.first(self.results[setting_name])


def results(part, trials, store):
    """Return the `Results` of a part: its own trials and all others stored for the same reviews."""
    trials = list(trials)
    return Results(part, Runs(stored(part, store, trials)), baselines.best(part, trials, store))


def _injected(namespace):
    """Return the values that papermill's injected cell sets, so that a misspelt name is found.

    They are read from the cell: a notebook may use a name such as `train` for something else.
    """
    cells = [cell for cell in namespace.get("In", []) if cell.startswith(INJECTED)]
    statements = ast.parse(cells[-1]).body if cells else []
    return {s.targets[0].id: _value(s.value) for s in statements if isinstance(s, ast.Assign)}


def _value(node):
    try:
        return ast.literal_eval(node)
    except ValueError:  # e.g. float("nan")
        return ast.unparse(node)
