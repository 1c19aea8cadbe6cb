"""The network and the best linear baseline together: their log-odds, weighted and added."""

from contextlib import suppress
from functools import partial

import numpy as np

from labrnn.errors import LabError
from labrnn.results.baselines import Baseline
from labrnn.reviews.description import remembered
from labrnn.reviews.text import load_corpus
from labrnn.trials.kept import array_of, hex_of

FORMAT = 1  # of what is kept; another one when a change here changes figures


def find(results, setting, baseline, store):
    """Add each run of a setting that trained to a `Baseline`.

    Two weights and a bias are fitted to the validation reviews by logistic regression. It takes the
    reviews and the weights of the runs, once.

    Returns:
        a `Baseline` of the runs that could be added, or None without any.
    """
    part, rows, found = results.part, results.rows(setting), []
    for config in rows["run"][rows["trained"].astype(bool)]:
        trial = results.runs.trials[config]
        identity = [FORMAT, trial.key, baseline.name, baseline.strength]
        add = partial(_add, trial, baseline, part.data)
        with suppress(LabError):  # neither weights and reviews, nor an earlier result
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
    """What is kept of a run's sum, plain values."""
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
        labels: of the validation reviews.

    Returns:
        the fitted regression and what it reads of both splits, [reviews, 2] each.
    """
    from sklearn.linear_model import LogisticRegression

    valid, test = (np.stack(pair, axis=1) for pair in zip(network, linear, strict=True))
    return LogisticRegression(C=np.inf).fit(valid, labels), valid, test
