"""Text that a model will be examined on, found in what it is to be pre-trained on.

Decisions. Five rules, the surest first: a document is an exam's own by PMID; it is a *copy* of such
a one beside it; its title is the exam's question; or it holds an exam's *conclusion* or *context*,
told by shared shingles. The exam is known by hashes in `data/exam.safetensors`, so the check is on
everywhere, with no download and no text of others in this project. All shingles of a conclusion
are there, as it is short and is the answer; of a context one in `SAMPLED`. Shingles have eight
words: of 110,610 real abstracts that are not PubMedQA's, one shares as much as a fifth of a
conclusion's, and that one says it; with five words 43 do, most by stock phrases such as "to the
best of our knowledge". The threshold is a share of the exam's text, so a long document is judged as
a short one is. Memory does not grow with the corpus. Limits: a paraphrase is not found. The
synthetic exam is known by PMID alone, since all synthetic texts share phrases by their making.
Refused: a single shared shingle as evidence.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset
from safetensors.numpy import load_file, save_file

from mediswift import demo
from mediswift.rows import batches, keys, rows
from mediswift.shingles import Shingles, shingle, words

RULES = ("pmid", "copy", "title", "conclusion", "context")
WORDS = 8
"""Words of a shingle."""
SHARE, LEAST = 0.25, 2
"""A text is held if so large a share of its shingles is shared, and at least so many."""
SAMPLED = 8
"""One of so many shingles of a context is known."""
FILE = demo.DATA / "exam.safetensors"


class Exam(NamedTuple):
    """What is known of an exam's items, in the order of their PMIDs."""

    pmids: list[str]
    """All PMIDs that are banned; the items' come first."""
    titles: np.ndarray
    """Hash of each item's question, (items,) uint64."""
    conclusions: Shingles
    contexts: Shingles


class Finding(NamedTuple):
    """A contaminated document: its row, the first rule that found it, and the item it holds."""

    row: int
    rule: str
    exam_pmid: str
    share: float
    """Of the item's shingles; 1 for the rules that need none."""


def exam_pmids() -> set[str]:
    """PMIDs behind exam questions: PubMedQA's 1,000 labeled ones and our synthetic ones."""
    return set(load_exam().pmids)


@cache
def load_exam() -> Exam:
    """PubMedQA's 1,000 labeled items as hashes; and our synthetic ones, by PMID."""
    files = (demo.DATA / "pubmedqa_labels.json", demo.DATA / "sample" / "questions.json")
    pmids = [pmid for file in files for pmid in json.loads(file.read_text(encoding="utf-8"))]
    table = load_file(FILE)
    parts = (Shingles(table[name], table[f"{name}_starts"]) for name in ("conclusions", "contexts"))
    return Exam(pmids, table["titles"], *parts)


def make_exam(questions: Iterable[Mapping[str, Any]]) -> Exam:
    """Exam of questions in the columns of `questions.load`.

    >>> item = {"pmid": "7", "question": "Is it?", "contexts": ["We saw."], "long_answer": "Yes."}
    >>> make_exam([item]).pmids
    ['7']
    """
    items = list(questions)
    titles = np.array([hash_title(item["question"]) for item in items], np.uint64)
    contexts = shingle(["\n".join(item["contexts"]) for item in items], WORDS)
    conclusions = shingle([item["long_answer"] for item in items], WORDS)
    pmids = [item["pmid"] for item in items]
    return Exam(pmids, titles, _distinct(conclusions, 1), _distinct(contexts, SAMPLED))


def save_exam(exam: Exam, path: Path) -> None:
    """Write the hashes of an exam, without its PMIDs, to a safetensors file."""
    table = {"titles": exam.titles}
    for name in ("conclusions", "contexts"):
        table |= dict(zip((name, f"{name}_starts"), getattr(exam, name), strict=True))
    save_file(table, path)


def hash_title(title: str) -> int:
    """64-bit number of a title without capitals and punctuation.

    >>> hash_title("Is rest good?") == hash_title("[Is REST good].")
    True
    """
    return int.from_bytes(blake2b(" ".join(words(title)).encode(), digest_size=8).digest())


def find(documents: Dataset, exam: Exam | None = None) -> list[Finding]:
    """Findings in documents (columns pmid, title, abstract), one a document, in their order.

    `exam` is `load_exam()` if not given. A document that several rules find counts under the first
    of `RULES`.
    """
    exam = exam or load_exam()
    found: dict[int, Finding] = {}
    for finding in chain(_find_own(documents, exam), _find_text(documents, exam)):
        found.setdefault(finding.row, finding)
    return sorted(found.values())


def as_documents(questions: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The abstract behind each question, as a record for `documents.make_document`: to plant one.

    An abstract that is put into a corpus on purpose shows what leaving it in is worth.
    """
    for item in questions:
        labels = item["section_labels"] or [""] * len(item["contexts"])
        sections = [list(pair) for pair in zip(labels, item["contexts"], strict=True)]
        sections.append(["CONCLUSIONS", item["long_answer"]])
        yield {"pmid": item["pmid"], "title": item["question"], "abstract": sections}


def _find_own(documents: Dataset, exam: Exam) -> Iterator[Finding]:
    banned, texts = set(exam.pmids), {}
    for row, (pmid,) in enumerate(rows(documents, "pmid")):
        if pmid in banned:
            yield Finding(row, "pmid", pmid, 1.0)
            texts[row] = pmid
    own = dict(_texts(documents.select(list(texts))))
    if own:
        for row, (_, text) in enumerate(keys(documents)):
            if text in own:
                yield Finding(row, "copy", own[text], 1.0)


def _find_text(documents: Dataset, exam: Exam) -> Iterator[Finding]:
    titles, first = dict(zip(exam.titles.tolist(), exam.pmids, strict=False)), 0
    for batch in batches(documents, "title", "abstract"):
        for row, title in enumerate(batch["title"], start=first):
            yield from (
                Finding(row, "title", titles[number], 1.0)
                for number in _title_hashes(title) & titles.keys()
            )
        shingles = shingle(batch["abstract"], WORDS)
        for rule, known in (("conclusion", exam.conclusions), ("context", exam.contexts)):
            for row, item, share in _held(shingles, known):
                yield Finding(first + row, rule, exam.pmids[item], share)
        first += len(batch["title"])


def _texts(documents: Dataset) -> Iterator[tuple[bytes, str]]:
    return ((text, pmid) for pmid, text in keys(documents))


def _title_hashes(title: str) -> set[int]:
    # a source may add a subtitle to the question: "Is it? A randomized trial"
    question = title[: title.find("?") + 1]
    return {hash_title(part) for part in (title, question) if words(part)}


def _held(found: Shingles, known: Shingles) -> Iterator[tuple[int, int, float]]:
    """Document, item and share, for each item of which a document holds enough."""
    order = np.argsort(known.hashes)
    table, owners = known.hashes[order], known.owners[order]
    hits = _hits(found.hashes, table)
    hashes = found.hashes[hits]
    left, right = (np.searchsorted(table, hashes, side) for side in ("left", "right"))
    spans = np.unique(np.stack([found.owners[hits], left, right], axis=1), axis=0)
    shared: dict[tuple[int, int], int] = {}
    for row, low, high in spans.tolist():
        for item in owners[low:high].tolist():
            shared[row, item] = shared.get((row, item), 0) + 1
    sizes = np.diff(known.starts)
    for (row, item), count in sorted(shared.items(), key=lambda entry: -entry[1]):
        if count >= max(LEAST, SHARE * sizes[item]):
            yield row, item, float(count / sizes[item])


def _hits(hashes: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Places of the hashes that are in the table; their first 20 bits rule most others out."""
    prefixes = np.zeros(1 << 20, bool)
    prefixes[table >> np.uint64(44)] = True
    likely = np.flatnonzero(prefixes[hashes >> np.uint64(44)])
    return likely[np.isin(hashes[likely], table)]


def _distinct(found: Shingles, one_of: int) -> Shingles:
    """Each document's shingles once; of them, those that a number `one_of` divides."""
    parts = [found.of(document) for document in range(len(found.starts) - 1)]
    parts = [part[part % np.uint64(one_of) == 0] for part in parts]
    return Shingles(np.concatenate(parts), np.cumsum([0, *map(len, parts)], dtype=np.int64))
