"""Bounds on the difference of float32 results from float64, valid on any processor."""

import math

import torch

EPS = torch.finfo(torch.float32).eps
MULTIPLE = 4


def rounding(terms, size=1.0):
    """Return the rounding error that a float32 sum may have.

    The signs of single rounding errors are random, so a sum of n terms is off by about sqrt(n)
    units (Higham and Mary, 2019, A New Approach to Probabilistic Rounding Error Analysis).

    Args:
        terms: number of summands behind a value.
        size: the largest of them.
    """
    return 2 * EPS * math.sqrt(terms) * size


def longest_sum(rnn, lengths):
    """Return the terms of the longest sum, over the tokens of a batch or the gates of a step."""
    return sum(lengths) + 4 * rnn.hidden_size


def distance(one, other):
    """Return the largest difference between two tensors, computed in float64."""
    one, other = (torch.as_tensor(t).detach().double() for t in (one, other))
    return (one - other).abs().max().item()


def assert_exact(found, theirs, expected, terms, size=1.0):
    """Assert that each tensor is as exact as float32 allows.

    Its error may be `MULTIPLE` times that of PyTorch's own float32 result on this machine, plus
    the rounding error of a sum of `terms` numbers as large as `size` or the result.

    Args:
        found, theirs, expected: our tensors, those of PyTorch in float32 and in float64.
    """
    for place, (ours, float32, float64) in enumerate(zip(found, theirs, expected, strict=True)):
        largest = max(size, torch.as_tensor(float64).abs().max().item())
        allowed = MULTIPLE * distance(float32, float64) + rounding(terms, largest)
        assert distance(ours, float64) <= allowed, place


def assert_equal_but_for_rounding(found, others, terms, size=1.0):
    """Assert that two float32 computations of the same values agree."""
    for place, (one, other) in enumerate(zip(found, others, strict=True)):
        largest = max(size, torch.as_tensor(other).abs().max().item())
        assert distance(one, other) <= 2 * rounding(terms, largest), place
