"""A copy of the working tree in which commands run as a reader types them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from packaging.pylock import Pylock
from tiny import PATIENCE

from labrnn.trials.store import PROJECT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KEPT = [
    *("Makefile", "README.md", "pylock.toml", "environment.yml", "pyproject.toml"),
    *("benchmarks", "docs", "labrnn", "notebooks", "params", "tests", "tools"),
]
PROGRAMS = ["jupyter", "labrnn", "nbstripout", "papermill", "python", "ruff"]


def lock():
    """Return the project's parsed pylock.toml."""
    return Pylock.from_dict(tomllib.loads((PROJECT / "pylock.toml").read_text()))


def copy_project(folder):
    """Create the copy, without results; its `.venv` starts this environment's programs."""
    for name in KEPT:
        copy = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy2
        copy(PROJECT / name, folder / name)
    programs = folder / ".venv/bin"
    programs.mkdir(parents=True)
    for name in PROGRAMS:
        found = Path(sys.executable).with_name(name)
        (programs / name).write_text(f'#!/bin/sh\nexec "{found}" "$@"\n')
        (programs / name).chmod(0o755)
    return folder


def run(command, tree, **environment):
    """Run a command line in the copy with the copy's labrnn; `make` sets nothing up.

    Returns:
        (exit code, output including standard error)
    """
    kept = {k: v for k, v in os.environ.items() if not re.match("LABRNN_|PYTEST_|MAKE|MFLAGS", k)}
    own = {"PYTHONPATH": str(tree), "PYTHON": "true", "LABRNN_CACHE": str(tree / "cache")}
    process = subprocess.run(
        ["bash", "-c", command],
        cwd=tree,
        env=kept | own | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"} | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    return process.returncode, process.stdout


def fenced(page):
    """Return (language, content) of each fenced block of a Markdown page, without indentation."""
    blocks = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", page, re.M | re.S)
    return [(word, re.sub(f"^{indent}", "", text, flags=re.M)) for indent, word, text in blocks]
