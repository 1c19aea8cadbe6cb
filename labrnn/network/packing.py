"""The memory order of a batch's tokens: step by step, longest reviews first, without padding.

This is the layout of `torch.nn.utils.rnn.PackedSequence`, so cuDNN takes packed data unchanged. On
a CPU our kernels (`labrnn.network.kernels`) read it and spend no arithmetic on padding.
"""

import numpy as np
import torch


class Packing:
    """Pack a batch of B token sequences with N tokens in total, the longest with T tokens.

    Args:
        lengths: tokens of each row, int [B], all >= 1, in any order.

    Attributes:
        counts: number of rows with a token at each step, [T].
        offsets: index of each step's first packed token, [T].
        rows: row of the batch that each packed token belongs to, [N].
        steps: time step of each packed token, [N].
        first, last: packed index of each row's first and last token, int64 [B], in the batch's
            order.
        lengths: tokens of each row, int64 [B].

    Raises:
        ValueError: a length is below 1, or there is none.
    """

    def __init__(self, lengths):
        lengths = np.asarray(lengths, dtype=np.int64)
        if lengths.size == 0 or lengths.min() < 1:
            raise ValueError(f"every row needs at least one token, got lengths {lengths.tolist()}")
        order = np.argsort(-lengths, kind="stable")
        longest = int(lengths[order[0]])
        counts = np.searchsorted(-lengths[order], -np.arange(longest), side="left")
        offsets = np.concatenate(([0], np.cumsum(counts)[:-1]))
        self.counts, self.offsets = counts.tolist(), offsets.tolist()
        self.steps = np.repeat(np.arange(longest), counts)
        self.rows = order[np.arange(self.steps.size) - offsets[self.steps]]
        place = np.empty_like(order)
        place[order] = np.arange(order.size)
        self.first = torch.from_numpy(place)
        self.last = torch.from_numpy(offsets[lengths - 1] + place)
        self.lengths = torch.from_numpy(lengths)

    @property
    def size(self):
        """N, the number of tokens."""
        return self.rows.size

    def walk(self, reverse=False):
        """Return the steps in reading order, int64 [T, 4]: first token, rows, first token of the
        next step, rows that continue there.

        `reverse` reads from the last step to the first; each row then begins at its last token.
        """
        order = slice(None, None, -1 if reverse else 1)
        starts, rows = np.array(self.offsets)[order], np.array(self.counts)[order]
        after, going = np.append(starts[1:], 0), np.append(rows[1:], 0)
        return np.stack([starts, rows, after, np.minimum(rows, going)], axis=1)

    def to(self, device):
        """Move the index tensors to `device` in place and return self, as `nn.Module.to` does."""
        self.first, self.last = self.first.to(device), self.last.to(device)
        self.lengths = self.lengths.to(device)
        return self
