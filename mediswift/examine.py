"""The examination: a finished run answers the test questions once, and what it answered is kept.

Decisions: predictions are saved by PMID beside the record, so that any two runs can be compared
question by question later, without their models.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from datasets import Dataset

from mediswift import corpus, machine, pubmedqa, records
from mediswift.pubmedqa import Report
from mediswift.records import Record
from mediswift.runs import load_model, load_run, load_tokenizer

PREDICTIONS = "predictions.jsonl"
RECIPE = 2
"""Raised whenever the same configuration would give other answers."""


@dataclass(frozen=True, kw_only=True)
class ExamConfig:
    """Everything that determines an examination."""

    parent: str
    """Id of the run whose model answers."""
    questions: str
    """Address of the PubMedQA items."""
    setting: str = "reasoning_required"
    """What the model may read: see `pubmedqa.render`."""


def examine(config: ExamConfig, runs: str | Path = "runs") -> Record:
    """Record of the test questions' answers: given now, or found under `runs`."""
    parent = load_run(config.parent, runs)
    test = pubmedqa.split(pubmedqa.load(config.questions), "test")
    folder = Path(runs) / _run_id(config, corpus.fingerprint(test)[:12])
    return machine.once(folder, lambda: _answer(config, parent, test, folder))


def find(config: ExamConfig, parents: list[Record], runs: str | Path = "runs") -> list[Record]:
    """Records of the finished examinations of `parents`, in their order, on the same questions."""
    data = corpus.fingerprint(pubmedqa.split(pubmedqa.load(config.questions), "test"))[:12]
    names = [_run_id(replace(config, parent=parent.id), data) for parent in parents]
    paths = [Path(runs) / name / "record.json" for name in names]
    return [records.load(path) for path in paths if path.exists()]


def _run_id(config: ExamConfig, data: str) -> str:
    chosen = {name: value for name, value in asdict(config).items() if name != "questions"}
    label = config.parent.removeprefix("finetune-")
    return records.run_id("exam", label, chosen | {"data": data, "recipe": RECIPE})


def _answer(config: ExamConfig, parent: Record, test: Dataset, folder: Path) -> None:
    runs = folder.parent
    model, tokenizer = load_model(parent.id, runs), load_tokenizer(parent.id, runs)
    limit = parent.params.get("max_length", 0)  # a pre-trained run has none of its own
    model.to(machine.fastest_device())
    report = pubmedqa.evaluate(model, tokenizer, test, config.setting, max_length=limit or None)
    write_predictions(report, folder)
    record = Record(
        id=folder.name,
        kind="exam",
        params=asdict(config),
        metrics=report.metrics(),
        data_fingerprint=corpus.fingerprint(test)[:12],
        parent=parent.id,
        mask_digest=parent.mask_digest,
        env=machine.environment(),
    )
    records.write(record, folder)


def write_predictions(report: Report, folder: Path) -> Path:
    """Path of the predictions, one JSON line a question, written into `folder`."""
    lines = (json.dumps(p, allow_nan=False) + "\n" for p in report.predictions)
    return records.write_text(folder / PREDICTIONS, "".join(lines))


def load_report(record: Record, runs: str | Path = "runs", name: str = "model") -> Report:
    """Report of an examination, read back from its predictions."""
    return read_report(Path(runs) / record.id, name)


def read_report(folder: str | Path, name: str = "") -> Report:
    """Report whose record and predictions lie in `folder`, named after it if `name` is "".

    Raises FileNotFoundError for a folder without them, ValueError for a record that is no exam or
    that counts other answers than there are.
    """
    folder = Path(folder)
    missing = [f for f in ("record.json", PREDICTIONS) if not (folder / f).is_file()]
    if missing:
        raise FileNotFoundError(
            f"A kept score is a folder with record.json and {PREDICTIONS}, {folder} has no "
            f"{missing[0]}; make one with `evaluate --out FOLDER` or by chapter 6."
        )
    record = records.load(folder / "record.json")
    if record.kind != "exam":
        raise ValueError(f"A score is kept as an exam, {folder} holds a record of {record.kind!r}.")
    lines = (folder / PREDICTIONS).read_text(encoding="utf-8").splitlines()
    cut = record.metrics["truncated"]
    report = Report(
        [json.loads(n) for n in lines], record.params["setting"], cut, name or record.id
    )
    if (report.n, report.accuracy) != (record.metrics["n"], record.metrics["accuracy"]):
        raise ValueError(
            f"Predictions and record of one exam agree, those in {folder} do not; make it again."
        )
    return report
