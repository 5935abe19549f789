"""Theory against the clock, for one matrix: how much faster each sparsity and pattern really is.

Decisions: what is timed is what `choice` times, forward and both gradients of the matrix alone,
interleaved with the dense one. The ideal is 1 / (1 - s); a whole training step cannot reach it, for
attention and head stay dense (Amdahl's law): `flops.reduction` is its line.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import torch

from mediswift import choice
from mediswift.bench import against
from mediswift.layouts import layout
from mediswift.masks import can_have, make_mask


def matrix_speedups(
    width: int,
    patterns: Iterable[str],
    sparsities: Iterable[float],
    tokens: int = 1024,
    device: str = "cpu",
) -> pd.DataFrame:
    """Table of a (4 `width`, `width`) matrix: pattern, sparsity, engine, speed-up with quartiles.

    The engine is the fastest; patterns that cannot have a sparsity are left out of it. Raises
    ValueError for what is no pattern.
    """
    rows = []
    for sparsity in sparsities:
        for pattern in patterns:
            if not can_have((4 * width, width), sparsity, pattern):
                continue
            mask = make_mask((4 * width, width), sparsity, pattern, seed=0, name="clock")
            times = choice.race(layout(mask), tokens, torch.device(device), torch.float32)
            rows.append({"pattern": pattern, "sparsity": sparsity} | _fastest(times))
    return pd.DataFrame(rows)


def break_even(table: pd.DataFrame) -> dict[str, float]:
    """Sparsity at which each pattern begins to save time, between two that were measured.

    NaN where the table does not cross a speed-up of one.

    >>> rows = [("16x1", 0.5, 0.5), ("16x1", 0.75, 1.5)]
    >>> break_even(pd.DataFrame(rows, columns=["pattern", "sparsity", "speedup"]))
    {'16x1': 0.625}
    """
    return {
        str(name): _crossing(rows.sort_values("sparsity"))
        for name, rows in table.groupby("pattern", sort=False)
    }


def _crossing(rows: pd.DataFrame) -> float:
    points = list(zip(rows["sparsity"], rows["speedup"], strict=True))
    for (s, slow), (t, fast) in zip(points, points[1:], strict=False):
        if slow < 1 <= fast:
            return s + (t - s) * (1 - slow) / (fast - slow)
    return float("nan")


def _fastest(times: dict[str, list[float]]) -> dict[str, float | str]:
    found = {name: against(taken, times["dense"]) for name, taken in times.items()}
    del found["dense"]
    best = max(found, key=lambda name: found[name]["speedup"])
    return {"engine": best} | found[best]
