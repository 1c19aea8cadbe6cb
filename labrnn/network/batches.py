"""Batches of packed token ids, cut from the encoded corpus without a loop over reviews."""

from dataclasses import dataclass

import numpy as np
import torch

from labrnn.network.packing import Packing


@dataclass(frozen=True)
class Batch:
    """Some reviews: packed ids, their packing, labels int64 [B].

    The ids are int64 [N], or [N, 2 or 3] where the corpus knows n-grams: each token's word, and
    the n-grams that end with it or 0.
    """

    ids: torch.Tensor
    packing: Packing
    labels: torch.Tensor


class Batches:
    """Cut batches of `size` reviews of a corpus (the last may be smaller), on a device."""

    def __init__(self, corpus, size, device):
        self.size, self.device = size, device
        self.offsets, self.lengths = corpus.offsets, corpus.lengths
        self.ids = torch.tensor(corpus.rows_read, device=device)
        self.labels = torch.tensor(corpus.labels, dtype=torch.int64, device=device)

    def of(self, rows):
        """Yield the batches of these rows, in their order."""
        for start in range(0, len(rows), self.size):
            chunk = np.array(rows[start : start + self.size])
            packing = Packing(self.lengths[chunk])
            places = torch.from_numpy(self.offsets[chunk][packing.rows] + packing.steps)
            ids = self.ids[places.to(self.device, non_blocking=True)].long()
            labels = self.labels[torch.from_numpy(chunk).to(self.device)]
            yield Batch(ids, packing.to(self.device), labels)


def shuffled(rows, seed, epoch):
    """Return the rows in the order of an epoch, by seed and epoch, so that a run can resume."""
    return np.random.default_rng([seed, epoch]).permutation(rows)
