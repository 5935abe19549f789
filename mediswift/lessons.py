"""What is learned from: the task that an address names, its items, and the part to train on.

Decisions: an address says which task it is, `hoc:PATH` HoC and all else PubMedQA, so that one
fine-tuning serves both; a task is a module with `load`, `split`, `encode` and `evaluate`. Items
that belong to no exam (PQA-A, PQA-U) are trained on as a whole, but for a few that are held back as
dev. Refused: to do that with one question of the official thousand among them.
"""

from __future__ import annotations

from types import ModuleType

from datasets import Dataset

from mediswift import corpus, hallmarks, hoc, pubmedqa, report

Report = report.Report | hallmarks.Report
PARTS = ("train", "all")
DEV = 200
"""The most items of the part "all" that are held back."""


def task_of(address: str) -> ModuleType:
    """Module of the task whose items are at `address`.

    >>> task_of("demo:").__name__
    'mediswift.pubmedqa'
    """
    return hoc if str(address).startswith("hoc:") else pubmedqa


def load(address: str) -> Dataset:
    """Items at `address`, of whichever task it is."""
    return task_of(address).load(address)


def parts(address: str, items: Dataset, part: str, fold: int) -> tuple[Dataset, Dataset]:
    """Items to train on, and those held back as dev.

    `part`: "train", all but dev and test of the task's split; "all", all but dev, of which there
    are at most 200, in the labels' own shares. Raises ValueError when "all" would train on what an
    exam asks, or the task has no such items.
    """
    task = task_of(address)
    if part == "train":
        return task.split(items, "train", fold), task.split(items, "dev", fold)
    if task is not pubmedqa:
        raise ValueError(f"part='all' is for PubMedQA's items outside its exam; got {address}")
    if asked := set(items["pmid"]) & corpus.exam_pmids():
        raise ValueError(
            f"part='all' would train on questions of the exam: {len(asked)} of {address}, such as "
            f"PMID {min(asked)}. Use part='train', or leave them out."
        )
    dev = pubmedqa.limit(pubmedqa.split(items, "dev", fold), DEV, seed=0)
    held = set(dev["pmid"])
    return items.select([i for i, pmid in enumerate(items["pmid"]) if pmid not in held]), dev


def headline(report: Report) -> tuple[str, ...]:
    """Names of a report's chief figure, its interval, and the number of items.

    >>> headline(hallmarks.Report([{"pmid": "1", "labels": [], "prediction": []}]))[0]
    'micro_f1'
    """
    return ("micro_f1" if isinstance(report, hallmarks.Report) else "accuracy", "low", "high", "n")
