"""Tables of the page on faults: what `make faults` found, out of its record, as text for the book.

Decisions: the page's prose is written, its numbers are not: each table is a small file that the
page includes, made again whenever the book is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from mediswift import records
from mediswift.records import Record

YES = {True: "yes", False: "**no**", None: "there was none"}


def write(results: Path, folder: Path) -> list[Path]:
    """Paths of the page's tables, written into `folder` from the newest record in `results`.

    Raises FileNotFoundError without a record of kind `faults`.
    """
    record = records.newest(results, "faults")
    made = {
        "kills": _markdown(kills(record)),
        "table": _markdown(table(record)),
        "said": _markdown(said(record)),
        "fed": _markdown(fed(record)),
        "told": told(record) + "\n",
    }
    return [records.write_text(folder / f"faults_{n}.txt", text) for n, text in made.items()]


def kills(record: Record) -> pd.DataFrame:
    """Table of what was killed, a row a kind of work, and a last row of sums."""
    rows = [
        {
            "work": row["work"],
            "seconds undisturbed": f"{row['seconds']:.1f}",
            "kills": len(row["kills"]),
            "of them after, s": _span([kill["after_s"] for kill in row["kills"]]),
            "finished": row["finished"],
            "files that differ": len(row["differences"]),
        }
        for row in record.metrics["killed"]
    ]
    sums = {n: sum(row[n] for row in rows) for n in ("kills", "finished", "files that differ")}
    return pd.DataFrame([*rows, {"work": "all"} | sums]).fillna("")


def table(record: Record) -> pd.DataFrame:
    """Table of the faults, a row each: exit code, and whether what was promised was kept."""
    return pd.DataFrame(
        {
            "fault": row["fault"],
            "how": row["how"],
            "exit code": row["exit_code"],
            "last good checkpoint kept": YES[row["kept"]],
            "same bits after": YES[row["same_bits_after"]],
        }
        for row in record.metrics["table"]
    )


def said(record: Record) -> pd.DataFrame:
    """Table of the line that each fault gave, in the user's eyes."""
    lines = record.metrics["table"]
    return pd.DataFrame(
        {"fault": row["fault"], "line": f"`{row['message']}`"} for row in lines if row["message"]
    )


def fed(record: Record) -> pd.DataFrame:
    """Table of made-up input, a row a reader."""
    return pd.DataFrame(
        {
            "reader": row["reader"],
            "inputs": row["taken"] + row["refused"],
            "taken": row["taken"],
            "refused with a message": row["refused"],
            "slowest, s": f"{row['slowest_s']:.2f}",
            "memory grown by, MB": f"{row['grown_bytes'] / 1e6:.0f}",
        }
        for row in record.metrics["fed"]
    )


def told(record: Record) -> str:
    """Sentence on bits and threads, and where all of it was tried."""
    found, env = record.metrics["determinism"], record.env
    same = "the same bits" if found["same_threads_same_bits"] else "**other bits**"
    return (
        f"Two runs on two threads gave {same}. One and two threads differed by at most "
        f"{found['largest_weight_difference']:.1g} in a weight of the trained model, and by "
        f"{found['validation_loss_difference_nats']:.1g} nats in the validation loss. "
        f"All of this was tried on {env['processor']} with torch {env['torch']}, at commit "
        f"`{env['commit'][:12]}`, in {record.metrics['seconds'] / 60:.0f} minutes."
    )


def _span(moments: list[float]) -> str:
    return f"{min(moments):.1f} to {max(moments):.1f}" if moments else ""


def _markdown(rows: pd.DataFrame) -> str:
    def line(cells: list[Any]) -> str:
        return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |\n"

    return "".join(map(line, [rows.columns, ["---"] * len(rows.columns), *rows.to_numpy()]))
