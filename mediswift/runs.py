"""Finding a finished run again by its id: its record, its model, its history, what led to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mediswift import prompts, records
from mediswift.records import Record


def load_run(name: str, runs: str | Path = "runs") -> Record:
    """Record of a finished run.

    Raises FileNotFoundError, with the runs there are, for an id that is none.
    """
    path = Path(runs) / name / "record.json"
    if not name or not path.exists():
        there = sorted(p.parent.name for p in Path(runs).glob("*/record.json"))
        raise FileNotFoundError(f"no finished run {name!r} in {runs}; there are {there or 'none'}")
    return records.load(path)


def load_tokenizer(name: str, runs: str | Path = "runs") -> PreTrainedTokenizerBase:
    """Tokenizer of a finished run."""
    load_run(name, runs)
    return AutoTokenizer.from_pretrained(Path(runs) / name / "model", local_files_only=True)


def load_model(name: str, runs: str | Path = "runs") -> nn.Module:
    """Model of a finished run: plain, or with its soft prompt."""
    load_run(name, runs)
    return prompts.load(Path(runs) / name / "model")


def lineage(name: str, runs: str | Path = "runs") -> list[Record]:
    """Records of a run and of the models that led to it, the first of them first."""
    record = load_run(name, runs)
    if record.kind == "pretrain":
        return [record]
    return [*lineage(record.parent, runs), record]


def exams(runs: str | Path = "runs") -> pd.DataFrame:
    """Table of all examinations, a row each: their metrics, and the parameters of what led there.

    Where two stages share a parameter's name (`seed`, `lr`), the later stage's value is shown.
    """
    rows = []
    for path in sorted(Path(runs).glob("exam-*/record.json")):
        row: dict[str, Any] = {"virtual_tokens": 0, "frozen": False}
        for record in lineage(path.parent.name, runs):
            row |= record.params
        rows.append(row | record.metrics | {"id": record.id, "name": _describe(row)})
    table = pd.DataFrame(rows)
    keys = ["sparsity", "pattern", "virtual_tokens", "frozen", "seed"]
    return table.sort_values(keys, ignore_index=True) if rows else table


def _describe(row: dict[str, Any]) -> str:
    prompt = f", prompt of {row['virtual_tokens']}" if row["virtual_tokens"] else ""
    alone = " alone" if row["frozen"] else ""
    removed = f"{row['sparsity']:.0%} removed" if row["sparsity"] else "dense"
    return f"{removed}{prompt}{alone}"


def load_history(name: str, runs: str | Path = "runs") -> pd.DataFrame:
    """Metrics of a finished run, a row a logged step."""
    load_run(name, runs)
    lines = (Path(runs) / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return pd.DataFrame([json.loads(line) for line in lines])
