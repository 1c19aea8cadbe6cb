"""Texts as numbered words: the loops over every word of a corpus, compiled where Numba is."""

from array import array
from collections import defaultdict
from itertools import count

import numpy as np

try:
    from numba import njit

    compiled = njit(cache=True)
except ImportError:  # the same, slower

    def compiled(function):
        return function

    njit = None


def number_words(texts):
    """Words, split on blanks and in lower case, numbered by first appearance.

    Returns:
        (the distinct words, number of every word int32 [words], where each text's words begin
        int64 [texts + 1])
    """
    lowered = map(str.lower, texts)
    if njit is None:
        return _by_dictionary(lowered)
    # Blanks beyond ASCII become spaces here: the compiled loop sees bytes.
    raw = [(t if t.isascii() else " ".join(t.split())).encode() for t in lowered]
    bounds = np.cumsum([0, *map(len, raw)])
    data = np.frombuffer(b"".join(raw), np.uint8)
    places, found = 1 << 20, None
    while found is None:
        places *= 2
        found = _by_hash(data, bounds, places)
    spelled, numbers, begins = found
    return spelled.tobytes().decode().split(), numbers, begins


def _by_dictionary(lowered):
    number, numbers, begins = defaultdict(count().__next__), array("i"), [0]
    for text in lowered:
        numbers.extend(map(number.__getitem__, text.split()))
        begins.append(len(numbers))
    return list(number), np.array(numbers, np.int32), np.array(begins)


@compiled
def _by_hash(data, bounds, places):
    """Open addressing in a table of `places`, a power of 2; None where it is over half full."""
    numbers = np.empty((data.size + bounds.size) // 2 + 1, np.int32)
    begins = np.zeros(bounds.size, np.int64)
    table = np.full(places, -1, np.int32)
    marks, ends = np.empty((2, places // 2), np.int64)
    spelled = np.empty(data.size + bounds.size, np.uint8)  # the distinct words, a space after each
    total = known = size = 0
    for text in range(bounds.size - 1):
        i, stop = bounds[text], bounds[text + 1]
        while i < stop:
            mark, start = -3750763034362895579, i  # FNV-1a
            while i < stop and not _blank(data[i]):
                mark = (mark ^ data[i]) * 1099511628211
                i += 1
            length = i - start
            i += 1
            if length == 0:
                continue
            place = mark & (places - 1)
            while True:
                k = table[place]
                if k < 0 or (
                    marks[k] == mark and _same(spelled, ends[k] - length, data, start, length)
                ):
                    break
                place = (place + 1) & (places - 1)
            if k < 0:
                if known == ends.size:
                    return None
                k = table[place] = known
                spelled[size : size + length] = data[start : start + length]
                size += length
                marks[k], ends[k] = mark, size
                spelled[size] = 32
                known, size = known + 1, size + 1
            numbers[total] = k
            total += 1
        begins[text + 1] = total
    return spelled[:size], numbers[:total].copy(), begins


@compiled
def _blank(byte):
    return byte == 32 or 9 <= byte <= 13 or 28 <= byte <= 31


@compiled
def _same(spelled, begin, data, start, length):
    """Whether a spelled word that ends where one of this length would begin at `begin` is it."""
    if begin < 0 or (begin > 0 and spelled[begin - 1] != 32):
        return False
    for k in range(length):
        if spelled[begin + k] != data[start + k]:
            return False
    return True


@compiled
def count_words(numbers, begins, rows, size):
    """How often each of `size` words is in these texts; the ones met, by first appearance."""
    counts, met, seen = np.zeros(size, np.int64), np.empty(size, np.int64), 0
    for row in rows:
        for word in numbers[begins[row] : begins[row + 1]]:
            if counts[word] == 0:
                met[seen] = word
                seen += 1
            counts[word] += 1
    return counts, met[:seen]


@compiled
def known_words(numbers, begins, token_of, limit):
    """Each text's first `limit` tokens that are not 0, or a 1 where it has none.

    Returns:
        (flat tokens int32 [tokens], where each text's begin int64 [texts + 1])
    """
    tokens = np.empty(numbers.size + begins.size, np.int32)
    offsets = np.zeros(begins.size, np.int64)
    end = 0
    for row in range(begins.size - 1):
        begin = end
        for word in numbers[begins[row] : begins[row + 1]]:
            if token_of[word] and end - begin < limit:
                tokens[end] = token_of[word]
                end += 1
        if end == begin:
            tokens[end] = 1
            end += 1
        offsets[row + 1] = end
    return tokens[:end].copy(), offsets
