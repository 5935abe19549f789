"""What a run says while it trains: rows of metrics in a file of JSON lines, and a plain line now
and then.

Decisions: lines are appended, so a killed run keeps what it said; a run that goes on from a
checkpoint drops what it had said after it, because it says it again; plain prints instead of a
progress bar, which would be a dead widget on an executed page.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

FILE = "metrics.jsonl"


class Log:
    """The rows of the run in `folder`, up to `step`; new ones are kept and, if it speaks, written.

    Of several processes one speaks.
    """

    def __init__(self, folder: Path, step: int, *, speaks: bool = True) -> None:
        path = folder / FILE
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.rows = [row for row in map(_parsed, lines) if row and row["step"] <= step]
        self.path, self.speaks = path, speaks
        if speaks:
            partial = path.with_name(f".{FILE}")
            lines = "".join(json.dumps(row) + "\n" for row in self.rows)
            partial.write_text(lines, encoding="utf-8")
            os.replace(partial, path)

    def write(self, row: dict[str, Any], steps: int) -> None:
        """Keep `row`; say it in words when it holds a validation. `steps` is where the run ends."""
        self.rows.append(row)
        if not self.speaks:
            return
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
        if "validation_loss" in row:
            print(
                f"step {row['step']:>6,} of {steps:,}  loss {row['loss']:.3f}  "
                f"validation {row['validation_loss']:.3f}  {row['tokens_per_s']:,.0f} tokens/s",
                flush=True,
            )


def _parsed(line: str) -> dict[str, Any] | None:
    # A kill can leave half a last line
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None
