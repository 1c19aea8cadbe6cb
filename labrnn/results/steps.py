"""The training loss of the first steps with several seeds, which shows when a run fails.

`tools/first_steps.py` computes the losses and stores them beside the runs.
"""

from labrnn.reviews.description import kept_as


def find(config, part, store):
    """Return seed -> losses of the first steps; None if none are stored for the configuration."""
    kept = store.recall(part.fingerprint, kept_file(config)) if part.fingerprint else None
    return {int(seed): values for seed, values in kept.items()} if kept else None


def kept_file(config):
    """Return the name of the derived data with the first steps of a configuration."""
    fields = config.model_dump(mode="json", exclude_defaults=True, exclude={"seed"})
    return kept_as("steps", fields)
