"""The claims ledger: what the paper claims, how surely we know it, our evidence, and a verdict.

Decisions: no verdict is written down: each follows from a committed record by a rule that stands
here, so a new record may change it. A difference in accuracy says nothing about a method while the
models that it is taken between read too badly to beat an answer that is always the same; then the
verdict is "not shown", whatever the interval. The claims are in our words, and `known` says whether
we read them in the paper or in summaries of others, or conclude them from what its method holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from mediswift import ablation, flops, hallmarks, models, records
from mediswift.records import Record

REPRODUCED = "reproduced"
CONSISTENT = "consistent at smaller scale"
NOT_SHOWN = "not shown"
CONTRADICTED = "contradicted at smaller scale"
MARGIN = 0.02
"""Accuracy or F1 that may be lost and still count as kept."""
CLAIMED = 0.75
"""The largest sparsity that the paper claims anything about."""
Evidence = tuple[str, str, str]
"""Our evidence, the verdict, and the id of the record behind both ("" for arithmetic)."""


@dataclass(frozen=True)
class Claim:
    """One claim of the paper, and how it is judged."""

    claim: str
    known: str
    """As in `results/published.json`: read | second-hand | inferred."""
    judge: Callable[[Path], Evidence]
    """From the folder of results to evidence."""


def ledger(results: str | Path = "results") -> pd.DataFrame:
    """Table of the claims: claim, known, evidence, verdict, record.

    Raises FileNotFoundError if a record that a claim is judged by is missing from `results`.

    >>> ledger("results").loc[0, "verdict"]
    'reproduced'
    """
    rows = [(c.claim, c.known, *c.judge(Path(results))) for c in CLAIMS]
    return pd.DataFrame(rows, columns=["claim", "known", "evidence", "verdict", "record"])


def kept(record: Record) -> str:
    """Verdict: is nothing lost by the other variants, within `MARGIN`, beside the first?

    Kept if both intervals of every difference lie above the margin, contradicted if both of one lie
    below it.
    """
    lows, highs = _ends(record)
    if not _reads(record):
        return NOT_SHOWN
    if any(high < -MARGIN for high in highs):
        return CONTRADICTED
    return CONSISTENT if all(low > -MARGIN for low in lows) else NOT_SHOWN


def helped(record: Record) -> str:
    """Verdict: is every other variant better than the first, or every one worse?"""
    lows, highs = _ends(record)
    if not _reads(record):
        return NOT_SHOWN
    if all(high < 0 for high in highs):
        return CONTRADICTED
    return CONSISTENT if all(low > 0 for low in lows) else NOT_SHOWN


def _ends(record: Record) -> tuple[list[float], list[float]]:
    """Lower and upper ends of each difference, the wider of its two intervals at each side."""
    rows = [row for row in record.metrics["variants"] if "difference" in row]
    if any(row["low"] is None for row in rows):  # one seed bounds nothing
        return [-1.0] * len(rows), [1.0] * len(rows)
    return (
        [min(row["low"], row["questions_low"]) for row in rows],
        [max(row["high"], row["questions_high"]) for row in rows],
    )


def _reads(record: Record) -> bool:
    """Whether all seeds of some variant have intervals wholly above what one answer reaches."""
    rows, constant = record.metrics["rows"], _constant(record)
    return any(
        all(row["low"] > constant for row in rows if row["variant"] == name)
        for name in {row["variant"] for row in rows}
    )


def _constant(record: Record) -> float:
    """What the best answer that is always the same reaches on the record's test."""
    constants = [
        row["micro_f1"]
        for row in record.metrics.get("baselines", ())
        if row["name"] in hallmarks.CONSTANTS
    ]
    return max(constants or [row["majority_accuracy"] for row in record.metrics["rows"]])


def _ablated(field: str, judge: Callable[[Record], str]) -> Callable[[Path], Evidence]:
    def of(results: Path) -> Evidence:
        record = records.newest(results, "ablation", field=field)
        return _told(record, "accuracy"), judge(record), record.id

    return of


def _removed(kind: str, figure: str) -> Callable[[Path], Evidence]:
    def of(results: Path) -> Evidence:
        record = records.newest(results, kind, field="sparsity")
        within = {
            part: [row for row in record.metrics[part] if float(row["variant"]) <= CLAIMED]
            for part in ("rows", "variants")
        }
        record = replace(record, metrics=record.metrics | within)
        said = f"{ablation.size(record)}: {_told(record, figure)}"
        return said, kept(record), record.id

    return of


def _told(record: Record, figure: str) -> str:
    said = ", ".join(_said(row, figure) for row in record.metrics["variants"])
    return (
        f"{figure.replace('_f1', '-F1')} {said}; "
        f"an answer that is always the same: {100 * _constant(record):.1f} %"
    )


def _said(row: dict[str, Any], figure: str) -> str:
    text = f"{ablation.short(row['variant'])}: {100 * row[figure]:.1f} %"
    return text + (f" ({ablation.verdict(row)})" if "difference" in row else "")


def _fewer_flops(results: Path) -> Evidence:
    numbers = records.published(results / "published.json")
    low, high = (numbers.loc[f"mediswift-reduction-{end}", "value"] for end in ("low", "high"))
    found, shorter = _reductions(2048), _reductions(1024)
    fits = round(min(found), 1) >= low and round(max(found), 1) <= high
    said = (
        f"{min(found):.2f} to {max(found):.2f} times by the formula, at shapes that we inferred "
        f"and a context chosen because it fits; at half that context {min(shorter):.2f} to "
        f"{max(shorter):.2f}"
    )
    return said, REPRODUCED if fits else CONTRADICTED, ""


def _reductions(context: int) -> list[float]:
    shapes = [models.shape(size, context=context) for size in ("med", "xl")]
    return [flops.reduction(shape, CLAIMED) for shape in shapes]


def _nothing(why: str) -> Callable[[Path], Evidence]:
    return lambda results: (why, NOT_SHOWN, "")


CLAIMS: Sequence[Claim] = (
    Claim("2 to 2.5 times fewer training FLOPs at up to 75 % sparsity", "read", _fewer_flops),
    Claim(
        "accuracy is kept when 50 or 75 % of the weights are removed for pre-training",
        "second-hand",
        _removed("ablation", "accuracy"),
    ),
    Claim(
        "so is the F1 on Hallmarks of Cancer",
        "inferred",  # the task was read, of its scores none
        _removed("downstream", "micro_f1"),
    ),
    Claim(
        "dense fine-tuning gives back what sparse pre-training costs",
        "inferred",  # that it is done was read, not what it is worth
        _ablated("dense", helped),
    ),
    Claim("a soft prompt helps", "inferred", _ablated("virtual_tokens", helped)),
    Claim(
        "better than models of up to 7 billion parameters",
        "second-hand",
        _nothing("no model of the paper's size was trained here"),
    ),
)
