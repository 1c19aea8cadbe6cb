"""Combine the network with the best linear baseline: a weighted sum of their log-odds."""

from contextlib import suppress
from functools import partial

import numpy as np

from labrnn.errors import LabError
from labrnn.results.baselines import Baseline
from labrnn.reviews.description import remembered
from labrnn.reviews.text import load_corpus
from labrnn.trials.kept import array_of, hex_of

FORMAT = 1  # of the stored data; raise it if a change here changes figures


def find(results, setting, baseline, store):
    """Combine each run of a setting that trained with a `Baseline`.

    Two weights and a bias are fitted to the validation reviews by logistic regression. The first
    call needs the reviews and the runs' weights; the result is stored.

    Returns:
        a `Baseline` of the runs that could be combined; None if there is none.
    """
    part, rows, found = results.part, results.rows(setting), []
    for config in rows["run"][rows["trained"].astype(bool)]:
        trial = results.runs.trials[config]
        identity = [FORMAT, trial.key, baseline.name, baseline.strength]
        add = partial(_add, trial, baseline, part.data)
        with suppress(LabError):  # no stored result, and the reviews or the weights are missing
            found.append(remembered("combined", identity, part.data, trial.fingerprint, store, add))
    if not found:
        return None
    margins = np.stack([array_of(one["test"], np.float16) for one in found])
    return Baseline(
        f"{setting.name} + {baseline.name}",
        "the combination",
        results.parameters(setting) + baseline.parameters + 3,  # two weights and a bias
        rows["seconds"].median() + baseline.seconds,  # the median over runs
        float(np.mean([one["validation"] for one in found])),
        (margins > 0) == baseline.labels[1],
    )


def _add(trial, baseline, data, _reviews):
    """Return the stored values of one run's combination."""
    import torch

    from labrnn.network.batches import Batches
    from labrnn.network.prediction import load
    from labrnn.network.training import log_odds

    corpus = load_corpus(trial.config, data)
    model = load(trial, corpus)
    batches = Batches(corpus, trial.config.batch_size, torch.device("cpu"))
    network = [log_odds(model, batches, corpus.rows[split]) for split in ("valid", "test")]
    fit, valid, test = add(network, baseline.margins, baseline.labels[0])
    return {
        "weights": [*fit.coef_[0].tolist(), float(fit.intercept_[0])],
        "validation": float(fit.score(valid, baseline.labels[0])),
        "test": hex_of(fit.decision_function(test), np.float16),
    }


def add(network, linear, labels):
    """Fit two weights and a bias to the validation reviews by logistic regression.

    Args:
        network, linear: log-odds or margins of the validation and of the test reviews.
        labels: labels of the validation reviews.

    Returns:
        the fitted regression, and its inputs for both splits, [reviews, 2] each.
    """
    from sklearn.linear_model import LogisticRegression

    valid, test = (np.stack(pair, axis=1) for pair in zip(network, linear, strict=True))
    return LogisticRegression(C=np.inf).fit(valid, labels), valid, test
