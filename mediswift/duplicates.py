"""Documents that come twice: by PMID, by text, and nearly so by MinHash.

Decisions. Two documents are near-duplicates when the Jaccard similarity of their sets of five-word
shingles is at least `THRESHOLD`: of real pairs, all that we read above it are one work twice, and
the first that are not (stock notices of a correction) reach 0.71. MinHash (Broder 1997) with
banding only proposes pairs: `BANDS` bands of `ROWS` minima propose one at 0.75 with a probability
of 0.999. Every proposed pair is then compared by its exact similarity, so that no document goes for
one that is not like it. Of two the longer stays (nothing that only it says is lost), of equally
long ones the higher PMID, which is the newer. There are no chains: whatever goes is similar to one
that stays. The outcome depends neither on the order of the documents nor on a seed.
Memory: 0.3 GB for a million documents, however long, beside a work space that does not grow.
Refused: a library. On 5,000 abstracts datasketch takes four times as long, and needs SciPy; rensa
takes as long as these few lines of numpy, and would be one more compiled package to keep.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from datasets import Dataset

from mediswift.rows import batches, forms, keys, rows
from mediswift.shingles import shingle

WORDS = 5
"""Words of a shingle."""
THRESHOLD = 0.75
"""Least Jaccard similarity of near-duplicates."""
BANDS, ROWS = 25, 5
NEIGHBORS = 4
"""How many of its fellows in a band, the best of them besides, a document is compared with."""
_PAIRS = 10_000  # compared at a time


class Pair(NamedTuple):
    """A near-duplicate and the document that stays in its place."""

    gone: int
    """Row of the one that goes."""
    stays: int
    """Row of the one that stays."""
    similarity: float
    """Exact Jaccard similarity of the two."""


def find_equal(documents: Dataset) -> list[int]:
    """Rows of documents whose PMID, or whose text, came before.

    Texts are equal if title and abstract are, but for capitals, spaces and punctuation. An abstract
    and the full text below it, each in a document of its own, have one PMID, and both stay.

    >>> documents = {"pmid": ["1", "2"], "title": ["A", "a."], "abstract": ["It is.", "IT IS"]}
    >>> find_equal(Dataset.from_dict(documents))
    [1]
    """
    articles, texts, found = set(), set(), []
    for row, ((pmid, text), form) in enumerate(zip(keys(documents), forms(documents), strict=True)):
        article = pmid and pmid + form
        if article in articles or text in texts:
            found.append(row)
        articles.update({article} - {""})
        texts.add(text)
    return found


def find_near(documents: Dataset, threshold: float = THRESHOLD) -> list[Pair]:
    """Near-duplicates among the documents' abstracts, each with the one that stays, by row.

    Raises ValueError for a threshold outside [0.7, 1], where the bands would miss too many.

    >>> words = [f"word{i}" for i in range(60)]
    >>> texts = [" ".join(words), " ".join(words[1:]), "Something else."]
    >>> columns = {"pmid": ["1", "2", "3"], "title": [""] * 3, "abstract": texts}
    >>> find_near(Dataset.from_dict(columns))
    [Pair(gone=1, stays=0, similarity=0.9821428571428571)]
    """
    if not 0.7 <= threshold <= 1:
        raise ValueError(
            f"near-duplicates have a similarity from 0.7 to 1, got threshold={threshold}: below "
            "0.7 these bands miss more than one in fifty; take another"
        )
    bands, lengths = _sign(documents)
    order = _prefer(documents, lengths)
    proposed = _propose(bands, order)
    similar = _compare(documents, order, proposed, threshold)
    return _choose(similar, order)


def _sign(documents: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Band keys (BANDS, documents) uint64, 0 for a text without shingles; counts of shingles."""
    bands = np.zeros((BANDS, len(documents)), np.uint64)
    lengths, first = np.zeros(len(documents), np.int64), 0
    for batch in batches(documents, "abstract"):
        found = shingle(batch["abstract"], WORDS)
        here = slice(first, first := first + len(batch["abstract"]))
        lengths[here] = np.diff(found.starts)
        filled = lengths[here] > 0
        if filled.any():
            minima = _minima(found.hashes, found.starts[:-1][filled])
            bands[:, here][:, filled] = _join(minima)
    return bands, lengths


def _minima(hashes: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Signatures (BANDS * ROWS, documents) uint32: a minimum for each linear permutation."""
    high = (hashes >> np.uint64(32)).astype(np.uint32)
    draws = np.random.default_rng(0).integers(0, 2**32, (2, BANDS * ROWS), np.uint32)
    minima = np.empty((BANDS * ROWS, len(starts)), np.uint32)
    for factor, shift, out in zip(draws[0] | np.uint32(1), draws[1], minima, strict=True):
        np.minimum.reduceat(high * factor + shift, starts, out=out)  # modulo 2^32
    return minima


def _join(minima: np.ndarray) -> np.ndarray:
    """One number for the ROWS minima of each band, never 0."""
    keys = np.zeros((BANDS, minima.shape[1]), np.uint64)
    for row in minima.reshape(BANDS, ROWS, -1).swapaxes(0, 1):
        keys = (keys ^ row) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys | np.uint64(1)


def _prefer(documents: Dataset, lengths: np.ndarray) -> np.ndarray:
    """Rows, the best first: the longest, then the highest PMID, then by the text itself."""
    numbers, digests = np.zeros((2, len(documents)), np.int64)
    for row, (pmid, digest) in enumerate(keys(documents)):
        numbers[row] = int(pmid) if pmid.isdecimal() and len(pmid) < 19 else 0
        digests[row] = int.from_bytes(digest[:7], "little")
    return np.lexsort((digests, -numbers, -lengths))


def _propose(bands: np.ndarray, preferred: np.ndarray) -> np.ndarray:
    """Pairs (pairs, 2) of places among the preferred, the better first, that share a band.

    Linear in the documents, however many share one: each is paired with the best of its fellows,
    and with the few just before it.
    """
    found = []
    for band in (band[preferred] for band in bands):
        order = np.argsort(band, kind="stable")
        order = order[band[order] > 0]
        new = np.diff(band[order], prepend=0) != 0
        first = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
        for distance in range(NEIGHBORS + 1):  # 0: with the first
            before = np.arange(len(order)) - distance if distance else first
            real = (before >= first) & (before < np.arange(len(order)))
            found.append(np.stack([order[before[real]], order[real]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _compare(
    documents: Dataset, order: np.ndarray, proposed: np.ndarray, threshold: float
) -> Iterator[tuple[int, int, float]]:
    """Proposed pairs that are similar enough, with their exact similarity, the best first.

    Sorted by the worse of the two: when a pair's turn comes, the fate of the better is known.
    """
    proposed = proposed[np.lexsort((proposed[:, 0], proposed[:, 1]))]
    for chunk in (proposed[i : i + _PAIRS] for i in range(0, len(proposed), _PAIRS)):
        places, inverse = np.unique(chunk, return_inverse=True)
        texts = [text for (text,) in rows(documents.select(order[places]), "abstract")]
        found = shingle(texts, WORDS)
        for (better, worse), (a, b) in zip(chunk, inverse.reshape(-1, 2), strict=True):
            similarity = jaccard(found.of(a), found.of(b))
            if similarity >= threshold:
                yield int(better), int(worse), similarity


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Size of the intersection over that of the union; sets are sorted and free of repeats.

    >>> jaccard(np.array([1, 2, 3]), np.array([2, 3, 4]))
    0.5
    """
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / ((len(a) + len(b) - shared) or 1)


def _choose(similar: Iterator[tuple[int, int, float]], order: np.ndarray) -> list[Pair]:
    gone: dict[int, Pair] = {}
    for better, worse, similarity in similar:
        if better not in gone and worse not in gone:
            gone[worse] = Pair(int(order[worse]), int(order[better]), similarity)
    return sorted(gone.values())
