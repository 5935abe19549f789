"""Which documents are pre-trained on: not empty, not of an exam, each once.

Decisions. Order: contaminated documents go first, so that no copy can hide one; then exact
duplicates; then near-duplicates. Finding them takes half a minute for a hundred thousand abstracts,
so the outcome is kept in the cache folder, a few kilobytes under a hash of the text, of the rules
and of the exam. What the PMID decides is as old as this project; `digest` tells what else was
removed, and is "" if nothing was, so that such a corpus keeps its identity.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING

from datasets import Dataset

from mediswift import contamination, duplicates, places, records
from mediswift.contamination import RULES, Finding
from mediswift.duplicates import Pair
from mediswift.rows import fingerprint, rows

if TYPE_CHECKING:
    import pandas as pd

VERSION = 1
"""Raised whenever the same documents would be selected otherwise."""


@dataclass(frozen=True)
class Selection:
    """What was found in documents; all rows are theirs."""

    data: str
    """Fingerprint of the documents."""
    loaded: int
    keep_contaminated: bool
    empty: list[int]
    contaminated: list[Finding]
    duplicates: list[int]
    near_duplicates: list[Pair]

    @property
    def kept(self) -> list[int]:
        """Rows to pre-train on, in order."""
        gone = {*self.empty, *self.duplicates, *(pair.gone for pair in self.near_duplicates)}
        if not self.keep_contaminated:
            gone.update(finding.row for finding in self.contaminated)
        return [row for row in range(self.loaded) if row not in gone]

    @property
    def digest(self) -> str:
        """Hash of what went by more than PMID and equal text; "" if nothing did."""
        found = [] if self.keep_contaminated else self.contaminated
        gone = [finding.row for finding in found if finding.rule not in ("pmid", "copy")]
        gone += [pair.gone for pair in self.near_duplicates]
        return hashlib.sha256(json.dumps(sorted(gone)).encode()).hexdigest()[:12] if gone else ""

    @property
    def counts(self) -> dict[str, int]:
        """Documents `loaded` and what became of them; `by_` counts the contaminated, by rule.

        `empty` + `contaminated` + `duplicates` + `near_duplicates` + `kept` = `loaded`;
        `contaminated_kept` are among the kept, because they were asked for.
        """
        rules = Counter(finding.rule for finding in self.contaminated)
        kept = self.kept
        stayed = {finding.row for finding in self.contaminated} & set(kept)
        return {
            "loaded": self.loaded,
            "empty": len(self.empty),
            "contaminated": 0 if self.keep_contaminated else len(self.contaminated),
            **{f"contaminated_by_{rule}": rules[rule] for rule in RULES},
            "contaminated_kept": len(stayed),
            "duplicates": len(self.duplicates),
            "near_duplicates": len(self.near_duplicates),
            "kept": len(kept),
        }

    def examples(self, documents: Dataset, n: int = 10) -> pd.DataFrame:
        """Table of up to `n` contaminated and `n` near-duplicate documents, and what they resemble.

        Of near-duplicates the least similar come first: they are the ones to judge.
        """
        import pandas as pd

        found = [(f.rule, f.row, f.exam_pmid, f.share) for f in self.contaminated[:n]]
        pairs = sorted(self.near_duplicates, key=lambda pair: pair.similarity)[:n]
        found += [
            ("near-duplicate", p.gone, documents[p.stays]["pmid"], p.similarity) for p in pairs
        ]
        table = [
            (rule, documents[row]["pmid"], other, share, documents[row]["title"])
            for rule, row, other, share in found
        ]
        return pd.DataFrame(table, columns=["rule", "pmid", "resembles", "share", "title"])


def choose(documents: Dataset, keep_contaminated: bool = False) -> Selection:
    """Selection among documents: found now, or in the cache folder if it was found before.

    Raises ValueError if none is kept.
    """
    data = fingerprint(documents)
    determines = [VERSION, data, keep_contaminated, _exam_digest()]
    path = places.cache_dir() / "selections" / f"{places.cache_key(determines)}.json"
    if not path.exists():
        selection = _find(documents, data, keep_contaminated)
        if not selection.kept:
            raise ValueError(
                "pre-training needs documents; of these none is left: "
                f"{selection.counts}. Add some."
            )
        records.write_json(path, asdict(selection))
    return _load(json.loads(path.read_text(encoding="utf-8")), data)


def prepare(documents: Dataset, keep_contaminated: bool = False) -> tuple[Dataset, dict[str, int]]:
    """Documents fit for pre-training, and counts of what was `loaded` and what became of it.

    `Selection.counts` explains them; `kept_without_pmid` of the kept could not be checked by PMID.
    With `keep_contaminated` exam texts stay, for measuring what they are worth; nothing else
    changes. Raises ValueError if none is kept.
    """
    selection = choose(documents, keep_contaminated)
    kept = documents.select(selection.kept)
    nameless = sum(not pmid for (pmid,) in rows(kept, "pmid"))
    return kept, selection.counts | {"kept_without_pmid": nameless}


def _find(documents: Dataset, data: str, keep_contaminated: bool) -> Selection:
    empty = [i for i, (text,) in enumerate(rows(documents, "abstract")) if not text]
    left = _without(range(len(documents)), empty)
    found = contamination.find(documents.select(left))
    contaminated = [finding._replace(row=left[finding.row]) for finding in found]
    if not keep_contaminated:
        left = _without(left, (finding.row for finding in contaminated))
    equal = [left[row] for row in duplicates.find_equal(documents.select(left))]
    left = _without(left, equal)
    pairs = duplicates.find_near(documents.select(left))
    near = [Pair(left[pair.gone], left[pair.stays], pair.similarity) for pair in pairs]
    return Selection(data, len(documents), keep_contaminated, empty, contaminated, equal, near)


def _without(places: Iterable[int], gone: Iterable[int]) -> list[int]:
    gone = set(gone)
    return [row for row in places if row not in gone]


def _load(content: dict, data: str) -> Selection:
    named = {
        "data": data,
        "contaminated": [Finding(*each) for each in content["contaminated"]],
        "near_duplicates": [Pair(*each) for each in content["near_duplicates"]],
    }
    return Selection(**content | named)


@cache
def _exam_digest() -> str:
    return hashlib.sha256(contamination.FILE.read_bytes()).hexdigest()
