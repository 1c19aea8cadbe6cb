"""The packaged network: `labrnn predict` uses it, so that it needs no training.

`tools/ship.py` writes the file from a stored run. Embedding rows have 8 bits and a scale each, the
n-grams with the shortest vectors are left out, and all other tensors are in half precision.
"""

import json
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from safetensors import safe_open
from safetensors.torch import load

from labrnn.config import TrialConfig
from labrnn.reviews.text import Corpus

FILE = files("labrnn.network") / "best.safetensors"


@dataclass(frozen=True)
class Shipped:
    """The packaged network; `predict` uses it like the stored trial that it was made from.

    Attributes:
        key: key of that trial.
        config: its `TrialConfig`.
        tensors: name -> tensor of the model, float32.
    """

    key: str
    config: TrialConfig
    tensors: dict

    folder = FILE

    def weights(self):
        """Return the model's tensors by name."""
        return self.tensors


def read():
    """Return the `Shipped` network and a `Corpus` with its vocabulary but no reviews."""
    with safe_open(FILE, "pt") as file:
        facts = json.loads(file.metadata()["facts"])
    tensors = load(FILE.read_bytes())
    words = tensors.pop("words").numpy().tobytes().decode().split()
    ngrams = [tensors.pop(name).numpy() for name in ("bigrams", "trigrams")]
    for scaled in [name for name in tensors if name.endswith(".scale")]:
        scale, name = tensors.pop(scaled).float()[:, None], scaled.removesuffix(".scale")
        tensors[name] = tensors[name].float() * scale
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    nothing = np.empty(0, np.int32), np.zeros(1, np.int64), np.empty(0, np.int8), {}
    corpus = Corpus(*nothing, words, facts["data"], *ngrams)
    return Shipped(facts["key"], TrialConfig(**facts["config"]), tensors), corpus
