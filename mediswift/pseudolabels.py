"""Labels for questions that have none: a run's model answers them, and its answers are the labels.

Decisions: these are the PubMedQA paper's noisy labels of PQA-U (Jin et al. 2019, section 4.2: the
model that labels may read the conclusion, which makes the task easy). What comes out is a file in
the official form, so that the next stage trains on it as on any other, with each question's source
and rule; the record beside it says who labeled. Every question is kept, however unsure its label:
to choose among them is another experiment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset

from mediswift import corpus, machine, pubmedqa, questions, records
from mediswift.records import Record
from mediswift.runs import load_model, load_run, load_tokenizer

FILE = "questions.json"
RECIPE = 1
"""Raised whenever the same model would give other labels."""


def label(parent: str, address: str, runs: str | Path = "runs") -> Record:
    """Record of the labels that the run `parent` gives to the questions at `address`.

    `path_of` says where they lie. The model reads what it was trained to read, as the setting of
    its run says. Raises ValueError when one of the questions has a label, or is in an exam.
    """
    labeler, items = load_run(parent, runs), questions.load(address, labeled=False)
    if asked := set(items["pmid"]) & corpus.exam_pmids():
        raise ValueError(
            f"questions of the exam keep their labels; {len(asked)} of {address} are such, for "
            f"instance PMID {min(asked)}. Leave them out."
        )
    data = corpus.fingerprint(items)[:12]
    name = records.run_id(
        "labels",
        parent.partition("-")[2],
        {"parent": parent, "data": data, "recipe": RECIPE},
    )
    folder = Path(runs) / name
    return machine.once(folder, lambda: _label(labeler, address, items, folder))


def path_of(record: Record, runs: str | Path = "runs") -> str:
    """Path of the labeled questions, which is also their address."""
    return str(Path(runs) / record.id / FILE)


def _label(labeler: Record, address: str, items: Dataset, folder: Path) -> None:
    model = load_model(labeler.id, folder.parent).to(machine.fastest_device())
    report = pubmedqa.evaluate(
        model,
        load_tokenizer(labeler.id, folder.parent),
        items,
        labeler.params["setting"],
        max_length=labeler.params["max_length"] or None,
    )
    said = report.answers
    labeled = (item | {"label": y} for item, y in zip(items, said, strict=True))
    content = {item["pmid"]: questions.to_official(item) for item in labeled}
    records.write_json(folder / FILE, content)
    record = Record(
        id=folder.name,
        kind="labels",
        params={"labeler": labeler.id, "questions": address, "setting": labeler.params["setting"]},
        metrics=_metrics(report),
        data_fingerprint=corpus.fingerprint(items)[:12],
        parent=labeler.id,
        env=machine.environment(),
    )
    records.write(record, folder)


def _metrics(report: pubmedqa.Report) -> dict[str, Any]:
    counts = {f"labeled_{a}": report.answers.count(a) for a in pubmedqa.ANSWERS}
    return {
        "questions": report.n,
        **counts,
        "mean_probability": float(report.confidence.mean()),
        "truncated": report.truncated,
    }
