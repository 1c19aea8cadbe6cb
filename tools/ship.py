"""Write the packaged network from a stored run: python tools/ship.py STORE KEY NGRAMS.

NGRAMS is the number of bigrams and trigrams to keep: those with the longest vectors.
"""

import json
import sys

import numpy as np
import torch
from safetensors.torch import save

from labrnn.files import replace_file
from labrnn.network import shipped
from labrnn.reviews.text import load_corpus
from labrnn.trials.store import Store


def quantised(rows):
    """Return a table's rows as int8, and a float16 scale for each row."""
    scale = (rows.abs().amax(1) / 127).clamp(min=1e-7).half()
    return (rows / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8), scale


def ship(trial, corpus, most):
    """Return the bytes of the file."""
    weights, words = trial.weights(), len(corpus.words) + 2
    tables = {name: table for name, table in weights.items() if name.endswith("embedding.weight")}
    lengths = sum(table[words:].square().sum(1) for table in tables.values()).numpy()
    kept = np.sort(np.argsort(-lengths, kind="stable")[:most])
    tensors = {name: tensor.half() for name, tensor in weights.items() if name not in tables}
    for name, table in tables.items():
        rows = torch.cat([table[:words], table[words:][torch.from_numpy(kept)]])
        tensors[name], tensors[f"{name}.scale"] = quantised(rows)
    text = " ".join(corpus.words).encode()
    tensors["words"] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    pairs = kept[kept < len(corpus.bigrams)]
    tensors["bigrams"] = torch.from_numpy(corpus.bigrams[pairs])
    tensors["trigrams"] = torch.from_numpy(
        corpus.trigrams[kept[len(pairs) :] - len(corpus.bigrams)]
    )
    config = trial.config.model_dump(mode="json", exclude_defaults=True)
    facts = {"key": trial.key, "config": config, "data": corpus.facts}
    return save(tensors, {"facts": json.dumps(facts, sort_keys=True)})


def main(root, key, most):
    trial = next(t for t in Store(root).trials() if t.key == key)
    replace_file(shipped.FILE, ship(trial, load_corpus(trial.config), int(most)))


if __name__ == "__main__":
    main(*sys.argv[1:])
