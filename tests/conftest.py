"""Fixtures for all tests: separate folders and two small corpora."""

import dataclasses
import os
import shutil

import numpy as np
import pytest

from labrnn.config import TrialConfig
from labrnn.reviews.sources import Reviews, find_source, read_reviews
from labrnn.reviews.text import encode
from labrnn.trials.store import Store


def pytest_configure():
    """Use one thread and the packaged reviews.

    The number of threads is set before torch is imported, since several OpenMP teams slow each
    other down. Session fixtures start before `own_folders`, so the choice of data is removed here.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.pop("LABRNN_DATA", None)


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Keep tests away from the user's cache, store and choice of data."""
    monkeypatch.setenv("LABRNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LABRNN_STORE", str(tmp_path / "trials"))
    monkeypatch.delenv("LABRNN_DATA", raising=False)


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium. It closes with the module because Playwright holds the asyncio loop."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if not found:
        pytest.skip("needs Chromium; on Debian: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=found) as it:
        yield it


@pytest.fixture(scope="session")
def reviews():
    """300 generated reviews that a small model learns in a few epochs."""
    random = np.random.default_rng(7)
    plain = [f"word{i}" for i in range(30)]
    indicative = [["dull", "awful", "boring"], ["great", "lovely", "superb"]]
    labels = random.integers(0, 2, 300).astype(np.int8)
    texts = []
    for label in labels:
        words = random.choice(plain, random.integers(3, 30)).tolist()
        for word in random.choice(indicative[label], random.integers(2, 5)).tolist():
            words.insert(random.integers(0, len(words) + 1), word)
        texts.append(" ".join(words))
    return Reviews(texts, labels, "generated", None, "0" * 16)


@pytest.fixture(scope="module")
def data(reviews, tmp_path_factory):
    """Path of a CSV file with the generated reviews."""
    from tiny import write_reviews

    return write_reviews(reviews, tmp_path_factory.mktemp("data") / "reviews.csv")


@pytest.fixture
def store(trained, tmp_path, monkeypatch):
    """A copy of the store `trained` of the test's module, used as the default store."""
    shutil.copytree(trained, tmp_path / "trials")
    monkeypatch.setattr("labrnn.trials.store.default_store", lambda *_: Store(tmp_path / "trials"))
    return Store(tmp_path / "trials")


@pytest.fixture(scope="session")
def corpus(reviews):
    """The generated reviews, encoded."""
    return encode(reviews, TrialConfig())


@pytest.fixture(scope="session")
def real_reviews():
    """Every fiftieth packaged review: 500 real ones, with their lengths and oddities."""
    with pytest.MonkeyPatch.context() as patch:  # a module fixture may have set other reviews
        patch.delenv("LABRNN_DATA", raising=False)
        every = read_reviews(find_source())
    rows = slice(0, None, 50)
    return dataclasses.replace(every, texts=every.texts[rows], labels=every.labels[rows])


@pytest.fixture(scope="session")
def real_corpus(real_reviews):
    """The sample of the packaged reviews, encoded."""
    return encode(real_reviews, TrialConfig())
