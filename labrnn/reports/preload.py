"""Imports and data for all reports, loaded once by the server that forks their processes."""

# ruff: noqa: E402 - a module has to be hidden before the imports
import gc
import importlib
import pkgutil
import sys
from contextlib import suppress

gc.disable()  # collections would take a fifth of the time of the imports
# No notebook needs jsonschema's grammar of URLs, compiled for a second, or the kernel's debugger.
for name in ("rfc3987_syntax", "debugpy"):
    sys.modules.setdefault(name, None)

import ipykernel.kernelapp  # noqa: F401
import nbformat
import papermill  # noqa: F401
from pygments.lexers import get_lexer_by_name

import labrnn.lab
import labrnn.reports.exporter
import labrnn.results
from labrnn.errors import LabError
from labrnn.folders import PROJECT
from labrnn.reports.report import package_digest
from labrnn.results.table import Runs
from labrnn.trials.tables import opened

for _, name, _ in pkgutil.iter_modules(labrnn.results.__path__, "labrnn.results."):
    if name != "labrnn.results.linear":  # scikit-learn, for baselines that are not stored
        importlib.import_module(name)
# Cached values that every report would compute again.
with suppress(LabError):  # the notebook that needs them reports the error
    _ = Runs(opened(PROJECT / "reports" / "full").trials()).table
for relaxed in (False, True):
    nbformat.validate(nbformat.v4.new_notebook(), relax_add_props=relaxed)
get_lexer_by_name("python")
package_digest()
gc.enable()
gc.freeze()  # else garbage collection would touch, and so copy, this memory in each process
