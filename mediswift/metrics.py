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
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        lines = text.splitlines()
        self.rows = [row for row in map(_parsed, lines) if row and row["step"] <= step]
        self.path, self.speaks = path, speaks
        if speaks:
            partial = path.with_name(f".{FILE}")
            lines = "".join(json.dumps(row) + "\n" for row in self.rows)
            partial.write_text(lines, encoding="utf-8")
            os.replace(partial, path)

    def end(self, step: int) -> list[dict[str, Any]]:
        """All rows, of a run that ended after `step`.

        Raises ValueError when the last one is not there: a record of another would be wrong.
        """
        last = self.rows[-1]["step"] if self.rows else 0
        if last != step:
            raise ValueError(
                f"a run that is at step {step} has said so, and {self.path} ends at {last}: it was "
                f"cut. Delete the checkpoint of step {step} beside it, and call again: the run "
                "goes on from the one before"
            )
        return self.rows

    def sync(self) -> None:
        """Have all rows on disk, before a checkpoint that must not outlive them."""
        if self.speaks:
            with open(self.path, "ab") as file:
                os.fsync(file.fileno())

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
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        return None
    return row if isinstance(row, dict) and type(row.get("step")) is int else None
