"""The README's figures are those of the committed results."""

import importlib.util

import pytest

from labrnn.config import TrialConfig
from labrnn.results.table import Results, Runs
from labrnn.trials.store import PROJECT

RMSPROP = TrialConfig(optim="rmsprop", lr=0.001)

spec = importlib.util.spec_from_file_location("headline", PROJECT / "tools" / "headline.py")
headline = importlib.util.module_from_spec(spec)
spec.loader.exec_module(headline)


def test_the_headline_is_what_the_results_say():
    text = headline.README.read_text("utf-8")
    marked = headline.BLOCK.search(text)
    assert marked, "the README has lost its headline marks"
    assert marked[0] == marked[1] + headline.block(headline.results()) + marked[2]


def test_another_result_would_be_noticed():
    found = headline.results()
    before = headline.block(found)
    kept = [t for t in found.runs.trials.values() if t.config.replace(seed=5) != RMSPROP]
    assert len(kept) < len(found.runs.trials)
    assert headline.block(Results(found.part, Runs(kept))) != before


@pytest.mark.parametrize("path", ["docs/how-to.md", "docs/structure.md", "docs/decisions.md"])
def test_the_pages_it_points_to_are_there(path):
    assert f"]({path})" in headline.README.read_text("utf-8")
    assert (PROJECT / path).exists()
