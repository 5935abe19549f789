"""Finding a finished run again by its id: its record, its model, its history, what led to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    if (
        Path(name).name != name or name == ".."
    ):  # a name with a folder in it would read, and write, elsewhere
        raise ValueError(f"a run is named by its id, got {name!r}; `runs` is the folder")
    if not name or not path.exists():
        there = sorted(p.parent.name for p in Path(runs).glob("*/record.json"))
        raise FileNotFoundError(f"no finished run {name!r} in {runs}; there are {there or 'none'}")
    return records.load(path)


def load_tokenizer(name: str, runs: str | Path = "runs") -> PreTrainedTokenizerBase:
    """Tokenizer of a finished run."""
    load_run(name, runs)
    folder = Path(runs) / name / "model"
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


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


def by_seed(kinds: Mapping[str, Sequence[str]], runs: str | Path = "runs") -> dict[str, dict]:
    """{name: {seed: id}} of runs of several kinds, given as {name: ids, one a seed}.

    Raises ValueError for fewer than two kinds, a kind without a run, and unless all have the same
    seeds, each once.
    """
    if len(kinds) < 2 or not all(kinds.values()):
        raise ValueError(
            "what is compared is two kinds of parents or more, each of a run or more; got "
            f"{ {name: list(own) for name, own in kinds.items()} }"
        )
    seeds = {
        name: [load_run(run, runs).params["seed"] for run in own] for name, own in kinds.items()
    }
    sets = [sorted(own) for own in seeds.values()]
    if any(own != sets[0] or len(set(own)) < len(own) for own in sets):
        raise ValueError(f"all kinds of parents have the same seeds, each once; got {seeds}")
    return {name: dict(sorted(zip(seeds[name], own, strict=True))) for name, own in kinds.items()}


def exams(examined: list[Record], runs: str | Path = "runs") -> pd.DataFrame:
    """Table of examinations, a row each: their metrics, and the parameters of what led there.

    Where two stages share a parameter's name (`seed`, `lr`), the later stage's value is shown.
    """
    rows = []
    for exam in examined:
        row: dict[str, Any] = {"virtual_tokens": 0, "frozen": False}
        for record in lineage(exam.id, runs):
            row |= record.params
        rows.append(row | exam.metrics | {"id": exam.id, "name": _describe(row)})
    keys = ["sparsity", "pattern", "virtual_tokens", "frozen", "seed"]
    return pd.DataFrame(rows).sort_values(keys, ignore_index=True) if rows else pd.DataFrame()


def _describe(row: dict[str, Any]) -> str:
    prompt = f", prompt of {row['virtual_tokens']}" if row["virtual_tokens"] else ""
    alone = " alone" if row["frozen"] else ""
    pattern = "" if row["pattern"] == "unstructured" else f" {row['pattern']}"
    # runs may be older than these fields
    how = " scaled" * row.get("density_scaling", False) + f" {row.get('moves', '')}".rstrip()
    removed = f"{row['sparsity']:.0%} removed{pattern}{how}" if row["sparsity"] else "dense"
    return f"{removed}{prompt}{alone}"


def load_history(name: str, runs: str | Path = "runs") -> pd.DataFrame:
    """Metrics of a finished run, a row a logged step."""
    load_run(name, runs)
    lines = (Path(runs) / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return pd.DataFrame([json.loads(line) for line in lines])
