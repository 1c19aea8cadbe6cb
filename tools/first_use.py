"""Warm the caches: Numba compiles the kernels, Matplotlib lists the fonts, the reviews are encoded.

`make setup` runs this script, so that the first report or training run does not wait.
"""

from contextlib import suppress

import torch

import labrnn.reports.preload  # noqa: F401
from labrnn.errors import LabError
from labrnn.folders import PROJECT
from labrnn.network.packing import Packing
from labrnn.network.recurrent import run_layers
from labrnn.network.registry import CELLS
from labrnn.parts import read_params
from labrnn.reviews.text import load_corpus

with suppress(LabError):  # a training run reports the error
    for cell in CELLS.values():
        layer = getattr(torch.nn, cell.name)(2, 2)
        run_layers(layer, torch.ones(2, 2), Packing([1, 1])).sum().backward()
    for params in PROJECT.glob("params/*/lab1_data.yaml"):
        part = read_params(params)
        load_corpus(part.base, part.data)
