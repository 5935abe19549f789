"""A reader's sheet: questions drawn at random, judged one by one, and the error rate that follows.

Decisions. A sheet is JSON lines: pmid, rule, question, label, verdict and, where wrong, the reason;
no abstract is kept. The draw is seeded and stratified by rule. Rules are mended on one sheet and
measured on another, drawn with another seed. Refused: a rate without its Wilson interval.
"""

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mediswift import stats

VERDICTS = ("right", "wrong")
FIELDS = ("pmid", "rule", "question", "label", "verdict", "reason")


def draw(items: Iterable[Mapping[str, Any]], n: int, seed: int) -> list[Mapping[str, Any]]:
    """At most `n` items of each rule, rules sorted, drawn by `seed` whatever the items' order.

    >>> len(draw([{"pmid": str(i), "rule": "a"} for i in range(9)], 5, seed=0))
    5
    """
    groups: dict[str, list] = {}
    for item in sorted(items, key=lambda item: item["pmid"]):
        groups.setdefault(item["rule"], []).append(item)
    generator = random.Random(seed)
    drawn = [generator.sample(group, min(n, len(group))) for _, group in sorted(groups.items())]
    return [item for group in drawn for item in group]


def load(path: str | Path) -> list[dict[str, str]]:
    """Rows of a judged sheet.

    Raises ValueError, with the line, for other fields, another verdict, a question that comes
    twice, and a wrong one without its reason.
    """
    rows: list[dict[str, str]] = []
    seen: set[tuple] = set()
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        row = json.loads(line)
        key = (row.get("pmid"), row.get("rule"))
        wanted = tuple(row) == FIELDS and row["verdict"] in VERDICTS and key not in seen
        if not wanted or (row["verdict"] == "wrong") != bool(row["reason"]):
            raise ValueError(
                f"a row has {', '.join(FIELDS)}, once a question; the verdict is right, or wrong "
                f"with a reason; {path}, line {number} is {line[:80]}"
            )
        seen.add(key)
        rows.append(row)
    return rows


def error_rates(rows: Iterable[Mapping[str, str]]) -> pd.DataFrame:
    """A row each rule: number read, number wrong, error rate and its 95 % Wilson interval.

    >>> error_rates([{"rule": "a", "verdict": "right"}]).loc["a", "rate"].item()
    0.0
    """
    verdicts: dict[str, list[bool]] = {}
    for row in rows:
        verdicts.setdefault(row["rule"], []).append(row["verdict"] == "wrong")
    table = {rule: _rate(sum(wrong), len(wrong)) for rule, wrong in sorted(verdicts.items())}
    return pd.DataFrame.from_dict(table, orient="index")


def _rate(wrong: int, n: int) -> dict[str, float]:
    low, high = stats.wilson(wrong, n)
    return {"read": n, "wrong": wrong, "rate": wrong / n, "low": low, "high": high}
