"""Finding a finished run again: its record, its model, its history, by its id."""

from __future__ import annotations

import json
from pathlib import Path

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


def load_history(name: str, runs: str | Path = "runs") -> pd.DataFrame:
    """Metrics of a finished run, a row a logged step."""
    load_run(name, runs)
    lines = (Path(runs) / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return pd.DataFrame([json.loads(line) for line in lines])
