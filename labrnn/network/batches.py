"""Make batches of packed token ids from an encoded corpus, without a loop over reviews."""

from dataclasses import dataclass

import numpy as np
import torch

from labrnn.network.packing import Packing


@dataclass(frozen=True)
class Batch:
    """A batch of B reviews with N tokens in total.

    Attributes:
        ids: packed tokens, int64 [N]; with n-grams [N, 2 or 3]: each token's word and the n-grams
            that end with it, 0 if unknown.
        packing: the `Packing` of the ids.
        labels: 1 = positive, int64 [B].
    """

    ids: torch.Tensor
    packing: Packing
    labels: torch.Tensor


class Batches:
    """Batches of `size` reviews of a `Corpus` on a device; the last batch may be smaller."""

    def __init__(self, corpus, size, device):
        self.size, self.device = size, device
        self.offsets, self.lengths = corpus.offsets, corpus.lengths
        self.ids = torch.tensor(corpus.rows_read, device=device)
        self.labels = torch.tensor(corpus.labels, dtype=torch.int64, device=device)

    def of(self, rows):
        """Yield the `Batch`es of these row numbers, in their order."""
        for start in range(0, len(rows), self.size):
            chunk = np.array(rows[start : start + self.size])
            packing = Packing(self.lengths[chunk])
            places = torch.from_numpy(self.offsets[chunk][packing.rows] + packing.steps)
            ids = self.ids[places.to(self.device, non_blocking=True)].long()
            labels = self.labels[torch.from_numpy(chunk).to(self.device)]
            yield Batch(ids, packing.to(self.device), labels)


def shuffled(rows, seed, epoch):
    """Return the rows shuffled by (seed, epoch) alone, so that an interrupted run can resume."""
    return np.random.default_rng([seed, epoch]).permutation(rows)
