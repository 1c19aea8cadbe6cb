"""The training loss of the first steps, with several seeds: where a run fails.

`tools/first_steps.py` computes them and keeps them beside the stored runs.
"""

from labrnn.reviews.description import kept_as


def find(config, part, store):
    """Seed -> losses of the first steps; None if nothing is kept of the configuration."""
    kept = store.recall(part.fingerprint, kept_file(config)) if part.fingerprint else None
    return {int(seed): values for seed, values in kept.items()} if kept else None


def kept_file(config):
    """The name of the file, beside the trials, that holds the first steps of a configuration."""
    fields = config.model_dump(mode="json", exclude_defaults=True, exclude={"seed"})
    return kept_as("steps", fields)
