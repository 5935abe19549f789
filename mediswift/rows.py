"""Documents read by the thousand: their columns, their keys, the content as one number.

Decisions. A corpus may be larger than memory, so nothing here holds more than a batch of it. Two
texts are the same if their letters and digits are.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Iterable, Iterator
from itertools import repeat

from datasets import Dataset

BATCH = 1000
_IGNORED = (string.punctuation + string.whitespace).encode()


def batches(documents: Dataset, *names: str) -> Iterator[dict[str, list[str]]]:
    """The named columns, a thousand rows at a time."""
    yield from documents.select_columns(list(names)).iter(BATCH)


def rows(documents: Dataset, *names: str) -> Iterator[tuple]:
    """Rows of the named columns; by thousands underneath, so that memory stays flat."""
    for batch in batches(documents, *names):
        yield from zip(*(batch[name] for name in names), strict=True)


def select(documents: Dataset, keep: Iterable[bool]) -> Dataset:
    """The documents that are to be kept, in their order."""
    return documents.select([index for index, is_kept in enumerate(keep) if is_kept])


def keys(documents: Dataset) -> Iterator[tuple[str, bytes]]:
    """PMID of each document, and a digest of its text without capitals, spaces, punctuation."""
    for pmid, title, abstract in rows(documents, "pmid", "title", "abstract"):
        letters = (title + abstract).casefold().encode().translate(None, delete=_IGNORED)
        yield pmid, hashlib.blake2b(letters, digest_size=16).digest()


def forms(documents: Dataset) -> Iterator[str]:
    """`form` of each document, "body" for a full text alone; "" where none is known."""
    if "form" not in documents.column_names:
        return repeat("", len(documents))
    return (form for (form,) in rows(documents, "form"))


def fingerprint(documents: Dataset) -> str:
    """Sha256 of the content: equal for equal rows in equal order, wherever they came from.

    The column `source` is left out: it may be no more than the name of a file. So is an empty
    `form`: a corpus without full texts is what it was before there were any.

    >>> rows = {"pmid": ["1"], "title": ["A"]}
    >>> fingerprint(Dataset.from_dict(rows)) == fingerprint(Dataset.from_dict(rows))
    True
    """
    names = sorted(set(documents.column_names) - {"source", "form"})
    digest = hashlib.sha256(json.dumps(names).encode())
    for row, form in zip(rows(documents, *names), forms(documents), strict=True):
        digest.update(json.dumps([*row, form] if form else row).encode())
    return digest.hexdigest()
