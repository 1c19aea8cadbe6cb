"""Warm the caches: Numba compiles the kernels, Matplotlib lists the fonts, libraries are loaded.

`make setup` runs this script, so that the first report or training run does not wait.
"""

from contextlib import suppress

import torch

import labrnn.reports.preload  # noqa: F401
from labrnn.errors import LabError
from labrnn.network.packing import Packing
from labrnn.network.recurrent import run_layers
from labrnn.network.registry import CELLS

with suppress(LabError):  # a training run reports the error
    for cell in CELLS.values():
        layer = getattr(torch.nn, cell.name)(2, 2)
        run_layers(layer, torch.ones(2, 2), Packing([1, 1])).sum().backward()
