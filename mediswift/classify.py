"""HoC over seeds: the same model fine-tuned a few times, tested, and beside those who do not read.

Decisions: one record holds every seed's figures, the mean with its interval over seeds, and the
baselines on the same abstracts, among them a bag of words that a language model must beat to be
worth anything. Answers are kept beside the record by PMID and label, without a word of the corpus.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from datasets import Dataset

from mediswift import corpus, finetune, hallmarks, hoc, machine, records, stats
from mediswift.finetune import FinetuneConfig
from mediswift.hallmarks import Report
from mediswift.records import Record
from mediswift.runs import load_model, load_tokenizer

RECIPE = 1
"""Raised whenever the same models would give other figures."""
PREDICTIONS = "predictions.jsonl"
"""File of the answers, beside the record."""


def classify(base: FinetuneConfig, seeds: Iterable[int], runs: str | Path = "runs") -> Record:
    """Record of the test of runs of `base`, one a seed, from runs that may be there already.

    Raises ValueError when `base` is not about HoC, or scikit-learn is not there.
    """
    if not base.questions.startswith("hoc:"):
        raise ValueError(f"HoC has an address hoc:PATH, got {base.questions!r}; name one.")
    if not find_spec("sklearn"):  # before hours of training, not after
        raise ValueError("The bag of words beside needs scikit-learn: pip install mediswift[book].")
    seeds = list(seeds)
    tuned = [finetune.finetune(replace(base, seed=seed), runs) for seed in seeds]
    items = hoc.load(base.questions)
    name = records.run_id(
        "hoc",
        base.parent.partition("-")[2],
        {"runs": [run.id for run in tuned], "recipe": RECIPE},
    )
    folder = Path(runs) / name
    return machine.once(folder, lambda: _test(base, seeds, tuned, items, folder))


def answers(record: Record, runs: str | Path = "runs") -> Report:
    """What all models of a record answered, read back from its predictions."""
    lines = (Path(runs) / record.id / PREDICTIONS).read_text(encoding="utf-8")
    return Report([json.loads(line) for line in lines.splitlines()])


def told(record: Record) -> str:
    """Table of a record: micro and macro F1 of the seeds' mean and of each baseline, in percent."""
    head = f"{'':18}{'micro-F1':>9}{'macro-F1':>9}{'with empty':>11}{'unparsed':>9}"
    rows = [*record.metrics["rows"], *record.metrics["baselines"]]
    lines = [
        f"{row['name']:18}{100 * row['micro_f1']:9.1f}{100 * row['macro_f1']:9.1f}"
        f"{100 * row['micro_f1_with_empty']:11.1f}{row['unparsed']:9}"
        for row in rows
    ]
    over = stats.over_seeds([row["micro_f1"] for row in record.metrics["rows"]])
    return "\n".join([head, *lines, f"micro-F1 over seeds: {over}"])


def _test(
    base: FinetuneConfig, seeds: list[int], tuned: list[Record], items: Dataset, folder: Path
) -> None:
    training, test = (hoc.split(items, part, base.fold) for part in ("train", "test"))
    limit = base.max_length or None
    reports = []
    for seed, run in zip(seeds, tuned, strict=True):
        model = load_model(run.id, folder.parent).to(machine.fastest_device())
        tokenizer = load_tokenizer(run.id, folder.parent)
        report = hoc.evaluate(model, tokenizer, test, base.setting, max_length=limit)
        reports.append(replace(report, name=f"seed {seed}"))
    baselines = [*hallmarks.constants(test, training), hallmarks.bag_of_words(test, training)]
    lines = [json.dumps({"name": r.name} | p) + "\n" for r in reports for p in r.predictions]
    records.write_text(folder / PREDICTIONS, "".join(lines))
    record = Record(
        id=folder.name,
        kind="hoc",
        params=asdict(base) | {"seeds": seeds},
        metrics={
            "rows": [
                _row(report) | {"run": run.id} for report, run in zip(reports, tuned, strict=True)
            ],
            "baselines": [_row(report) for report in baselines],
            "train_documents": len(training),
        },
        data_fingerprint=corpus.fingerprint(test)[:12],
        parent=base.parent,
        env=machine.environment(),
    )
    records.write(record, folder)


def _row(report: Report) -> dict[str, Any]:
    return {"name": report.name} | report.metrics()
