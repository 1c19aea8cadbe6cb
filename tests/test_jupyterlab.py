"""The notebooks in JupyterLab, started like `make lab` and driven by Chromium."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager, suppress

import nbformat
import psutil
import pytest
from tiny import PATIENCE, until, write_reviews

from labrnn.parts import PARTS
from labrnn.reviews.text import load_corpus
from labrnn.trials.store import PROJECT, Store
from labrnn.trials.trial import trial_key

TINY = {"epochs": "2", "train_reviews": "0"}
NAMES = ("lab1_data", "lab1_lstm", "lab2a_lstm_optimizers")


def tiny(source):
    """Return the source of a parameters cell with values for a run of a few seconds."""
    for name, value in TINY.items():
        source = re.sub(rf"^({name}: \w+) = \S+", rf"\1 = {value}", source, flags=re.M)
    return source


@pytest.fixture(scope="module")
def folder(reviews, tmp_path_factory):
    """Folder of JupyterLab: some notebooks with tiny parameters, and data."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "notebooks").mkdir()
    write_reviews(reviews, folder / "reviews.csv")
    for name in NAMES:
        nb = nbformat.read(PROJECT / f"notebooks/{name}.ipynb", 4)
        (parameters,) = (c for c in nb.cells if "parameters" in c.metadata.get("tags", []))
        parameters.source = tiny(parameters.source)
        assert all(f" = {value} " in parameters.source for value in TINY.values())
        nbformat.write(nb, folder / f"notebooks/{name}.ipynb")
    return folder


def listening(pid):
    """Return the addresses at which a process listens."""
    found = psutil.Process(pid).net_connections("inet")
    return [c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN]


@pytest.fixture(scope="module")
def server(folder, browser):
    """Information on a running JupyterLab, started with the arguments of `make lab`."""
    make = ["make", "-n", "--no-print-directory", "lab"]
    messages = subprocess.run(make, cwd=PROJECT, check=True, capture_output=True, text=True).stdout
    words = shlex.split(messages.partition("/jupyter ")[2].replace("\\\n", ""))
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind) for kind in ("CONFIG", "RUNTIME", "DATA")}
    own |= {
        "IPYTHONDIR": str(folder / "ipython"),
        "OMP_NUM_THREADS": "1",
        "LABRNN_DATA": str(folder / "reviews.csv"),
        "LABRNN_STORE": str(folder / "trials"),
        "LABRNN_CACHE": str(folder / "cache"),
    }
    # Keep invisible cells in the page, so that finding them does not depend on scrolling.
    tracker = "lab/user-settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
    (folder / "CONFIG" / tracker).parent.mkdir(parents=True)
    (folder / "CONFIG" / tracker).write_text('{"windowingMode": "none"}')
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyter", *words, "--no-browser", "--port=0"],
            cwd=folder,
            env=os.environ | own,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    about = folder / f"RUNTIME/jpserver-{process.pid}.json"
    try:
        until(lambda: (about.exists() and about.read_text().endswith("}")) or process.poll())
        server = json.loads(about.read_text())
        until(lambda: listening(server["pid"]))  # the file exists earlier
        yield server
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


@pytest.fixture
def page(browser):
    with browser.new_context(viewport={"width": 1200, "height": 1000}) as context:
        context.set_default_timeout(PATIENCE * 1000)
        yield context.new_page()


def idle(page):
    page.locator("#jp-main-statusbar").get_by_text("Python 3 (ipykernel) | Idle").wait_for()


def look_for(page, thing):
    """Wait until it is visible and scroll it into view."""
    seen = thing.locator("visible=true").first
    seen.wait_for()
    seen.evaluate("node => node.scrollIntoView({block: 'center'})")  # it may be replaced meanwhile
    return seen


def run_all(page, path, meanwhile=lambda: None):
    """Run all cells, wait and save; return the saved notebook."""
    before = [cell.get("execution_count") or 0 for cell in nbformat.read(path, 4).cells]
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    meanwhile()

    def done():
        idle(page)
        page.keyboard.press("Control+s")
        time.sleep(0.3)  # between two saves
        try:
            cells = zip(nbformat.read(path, 4).cells, before, strict=True)
        except nbformat.reader.NotJSONError:  # Jupyter is writing it
            return False
        return all((cell.execution_count or 0) > n for cell, n in cells if cell.cell_type == "code")

    until(done)
    return nbformat.read(path, 4)


@contextmanager
def claimed_trial(folder):
    """Claim one of the four trials, as another process would; the run reports that it waits."""
    values = {name: json.loads(value) for name, value in TINY.items()}
    config = PARTS["lab2a_lstm_optimizers"](**values).trials()[0]
    fingerprint = load_corpus(config, str(folder / "reviews.csv")).fingerprint
    with Store(folder / "trials").claim(fingerprint, trial_key(config)) as held:
        assert held
        yield


def written(store):
    """Return logs and finished trials of a store with their modification times."""
    return {
        path: path.stat().st_mtime_ns for name in ("*.log", "DONE") for path in store.rglob(name)
    }


def outputs(nb):
    return [output for cell in nb.cells for output in cell.get("outputs", [])]


def pictures(nb):
    data = (output.get("data", {}) for output in outputs(nb))
    return [data["image/svg+xml"] for data in data if "image/svg+xml" in data]


def test_server_is_local_and_requires_the_token(server):
    assert set(listening(server["pid"])) <= {"127.0.0.1", "::1"}
    assert len(server["token"]) >= 32
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(server["url"] + "api/contents")


@pytest.mark.parametrize("name", ["lab1_data", "lab2a_lstm_optimizers"])
def test_run_all(page, server, folder, tmp_path, name):
    path = folder / f"notebooks/{name}.ipynb"
    page.goto(f"{server['url']}lab/tree/notebooks/{name}.ipynb?token={server['token']}")
    idle(page)

    with ExitStack() as other:

        def progress():
            if name.startswith("lab2"):
                look_for(page, page.get_by_text(re.compile("another process|of 4 trained")))
                page.screenshot(path=tmp_path / "progress.png")
            other.close()

        if name.startswith("lab2"):
            other.enter_context(claimed_trial(folder))
        first = run_all(page, path, progress)
    assert [output for output in outputs(first) if output.output_type == "error"] == []
    assert pictures(first)
    picture = look_for(page, page.locator(".jp-OutputArea-output img, .jp-OutputArea-output svg"))
    assert picture.bounding_box()["width"] > 200
    page.screenshot(path=tmp_path / f"{name}.png")
    before = written(folder / "trials")
    assert before or name == "lab1_data"
    second = run_all(page, path)
    assert pictures(second) == pictures(first)
    assert written(folder / "trials") == before  # nothing was trained again


def test_custom_sentence(page, server, folder, tmp_path):
    """Run all cells, edit the sentence and run the cells below: the figure changes."""
    path = folder / "notebooks/lab1_lstm.ipynb"
    page.goto(f"{server['url']}lab/tree/notebooks/lab1_lstm.ipynb?token={server['token']}")
    idle(page)
    first = run_all(page, path)
    assert [output for output in outputs(first) if output.output_type == "error"] == []
    cell = page.locator(".jp-CodeCell", has_text="sentence = ")
    look_for(page, cell).locator(".cm-content").first.click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(
        'sentence = "lovely superb awful dull"\n'
        'print(f"positive: {predict_sentiment(sentence, reader, vocab):.3f}")'
    )
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run Selected Cell and All Below", exact=True).click()

    def shown(nb):
        cells = [c for c in nb.cells if c.cell_type == "code" and "fig-sentence" in c.source]
        return [o.data["image/svg+xml"] for o in cells[0].outputs if "image/svg+xml" in o.data]

    def done():
        idle(page)
        page.keyboard.press("Control+s")
        time.sleep(0.3)
        with suppress(nbformat.reader.NotJSONError):
            return shown(nbformat.read(path, 4)) != shown(first)
        return False

    until(done)
    again = nbformat.read(path, 4)
    assert any("lovely superb awful dull" in c.source for c in again.cells)
    assert [output for output in outputs(again) if output.output_type == "error"] == []
    figure = page.locator(".jp-CodeCell", has_text="fig-sentence").locator("img, svg:has(path)")
    assert look_for(page, figure).bounding_box()["width"] > 200
    page.screenshot(path=tmp_path / "sentence.png")
