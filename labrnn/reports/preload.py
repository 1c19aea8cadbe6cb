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
import nbformat
import papermill  # noqa: F401
from pygments.lexers import get_lexer_by_name

import labrnn.lab
import labrnn.reports.exporter
import labrnn.results
from labrnn.errors import LabError
from labrnn.reports.report import package_digest
from labrnn.results.table import Runs
from labrnn.trials.store import PROJECT
from labrnn.trials.tables import opened

for _, name, _ in pkgutil.iter_modules(labrnn.results.__path__, "labrnn.results."):
    importlib.import_module(name)
with suppress(LabError):  # the notebook that needs it reports it
    _ = Runs(opened(PROJECT / "reports" / "full").trials()).table
# What every report would compile or compute again.
for relaxed in (False, True):
    nbformat.validate(nbformat.v4.new_notebook(), relax_add_props=relaxed)
get_lexer_by_name("python")
package_digest()
gc.freeze()  # else each process looks through all of this for garbage, and copies it by that
