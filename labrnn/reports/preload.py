"""What every report needs, imported and read once by the server that its process is forked from."""

# ruff: noqa: E402 - a module has to be hidden before the imports
import gc
import importlib
import pkgutil
import sys
from contextlib import suppress

# A grammar of web addresses that jsonschema would compile for a second, to check none here.
sys.modules.setdefault("rfc3987_syntax", None)

import ipykernel.kernelapp  # noqa: F401
import papermill  # noqa: F401

import labrnn.lab
import labrnn.reports.exporter
import labrnn.reports.report
import labrnn.results
from labrnn.errors import LabError
from labrnn.results.table import Runs
from labrnn.trials.store import PROJECT
from labrnn.trials.tables import opened

for _, name, _ in pkgutil.iter_modules(labrnn.results.__path__, "labrnn.results."):
    importlib.import_module(name)
with suppress(LabError):  # the notebook that needs it reports it
    _ = Runs(opened(PROJECT / "reports" / "full").trials()).table
gc.freeze()  # else each process looks through all of this for garbage, and copies it by that
