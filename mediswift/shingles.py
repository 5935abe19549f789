"""Documents as sets of shingles: hashed runs of n words, for many documents at once.

Decisions. Words are runs of letters and digits without regard to capitals, so that punctuation,
markup and line breaks do not tell two copies apart. A shingle is a 64-bit number that is the same
in every process and on every machine. All documents of a batch lie end to end in one array: numpy
works on a thousand abstracts as fast as on one long text. Refused: Python's own `hash`, which
differs between processes, and strings of n words, which cost ten times the memory.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

_WORD = re.compile(r"[^\W_]+")
_REMEMBERED = 1_000_000  # words, about 150 bytes each
_ODD = np.uint64(0x9E3779B97F4A7C15)


class Shingles(NamedTuple):
    """Shingles of several documents, in order, repeated ones included."""

    hashes: np.ndarray
    """All of them end to end, (S,) uint64."""
    starts: np.ndarray
    """Where each document begins, and the end: (documents + 1,) int64."""

    def of(self, document: int) -> np.ndarray:
        """Shingles of one document, each once, sorted."""
        return np.unique(self.hashes[self.starts[document] : self.starts[document + 1]])

    @property
    def owners(self) -> np.ndarray:
        """Document of each shingle, (S,) int64."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


class _Memory(dict):
    """Hash of each word met; forgets all when full, which changes no hash."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _REMEMBERED:
            self.clear()
        digest = blake2b(word.encode(), digest_size=8).digest()
        return self.setdefault(word, int.from_bytes(digest, "little"))


_HASHES = _Memory()


def words(text: str) -> list[str]:
    """Words of a text, without capitals and punctuation.

    >>> words("Is TNF-α a marker?")
    ['is', 'tnf', 'α', 'a', 'marker']
    """
    return _WORD.findall(text.casefold())


def shingle(texts: Sequence[str], n: int) -> Shingles:
    """Shingles of `n` words of each text; a text of fewer words has none.

    >>> shingle(["Rest is good.", "rest IS good, too"], n=3).starts
    array([0, 1, 3])
    """
    found = [words(text) for text in texts]
    lengths = np.array([len(each) for each in found], dtype=np.int64)
    flat = (_HASHES[word] for each in found for word in each)
    hashed = np.fromiter(flat, np.uint64, count=lengths.sum())
    counts = np.maximum(lengths - n + 1, 0)
    starts = np.concatenate([[0], np.cumsum(counts)])
    if not starts[-1]:
        return Shingles(np.empty(0, np.uint64), starts)
    joined = np.zeros(len(hashed) - n + 1, np.uint64)
    for place in range(n):  # a polynomial, modulo 2^64: the order of the words counts
        joined = joined * _ODD + hashed[place : place + len(joined)]
    return Shingles(_mix(joined[_whole(lengths, counts)]), starts)


def _whole(lengths: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Places (words from the start of all) where a shingle begins that stays in its document."""
    first_words = np.cumsum(lengths) - lengths
    first_shingles = np.cumsum(counts) - counts
    return np.arange(counts.sum()) + np.repeat(first_words - first_shingles, counts)


def _mix(values: np.ndarray) -> np.ndarray:
    """Spread every bit over all bits: the finalizer of SplitMix64 (Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
