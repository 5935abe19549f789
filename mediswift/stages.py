"""Fine-tuning in stages, PQA-A, then PQA-U, then PQA-L, and what each stage is worth.

Decisions: a stage is data, and a chain of stages is `finetune` after `finetune`, each run the
parent of the next; so a chain that was stopped goes on, and chains that begin alike share runs. A
study trains every chain, each stage but the last on and off, with the same seeds, and examines them
on the official test. Labels for PQA-U come from a teacher (Jin et al. 2019): the chain's other
stages, trained to read the conclusion; with `teacher=""` from the stage before, as it is. What a
stage is worth is a difference to the last stage alone, with two intervals, over seeds and over
questions: neither holds the other's chance, and both must leave out zero. Order, epochs and rates
of BioGPT's stages were never published; ours are choices, and the record says which.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import compress, product
from pathlib import Path
from typing import Any

import numpy as np

from mediswift import examine, finetune, machine, pseudolabels, records, stats
from mediswift.examine import ExamConfig
from mediswift.finetune import FinetuneConfig
from mediswift.records import Record

TEACHER = "reasoning_free"
ARROW = ">"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of fine-tuning: what it learns from, and how its recipe differs."""

    name: str
    """A short name, such as A."""
    questions: str
    """Address of its items."""
    part: str = "all"
    """What of them it learns from: see `FinetuneConfig`."""
    noisy: bool = False
    """Take the answers of a teacher for labels."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Fields of `FinetuneConfig` that are its own, such as epochs and lr."""


def pqa(
    labeled: str, artificial: str = "", unlabeled: str = "", epochs: Sequence[int] = (1, 1, 5)
) -> list[Stage]:
    """Stages A, U and L of PubMedQA, those that have an address; `epochs` of each, in this order.

    >>> name(pqa("ori_pqal.json", artificial="pqaa.json"))
    'A>L'
    """
    first, second, last = ({"epochs": n} for n in epochs)
    stages = [
        Stage(name="A", questions=artificial, changes=first),
        Stage(name="U", questions=unlabeled, noisy=True, changes=second),
        Stage(name="L", questions=labeled, part="train", changes=last),
    ]
    return [stage for stage in stages if stage.questions]


def name(chain: Sequence[Stage]) -> str:
    """Name of a chain of stages, such as A>U>L."""
    return ARROW.join(stage.name for stage in chain)


def chains(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Every chain that ends with the last stage: each of the others on or off.

    >>> [name(chain) for chain in chains(pqa("l.json", "a.json", "u.json"))]
    ['L', 'U>L', 'A>L', 'A>U>L']
    """
    switches = product((False, True), repeat=len(stages) - 1)
    return [[*compress(stages, switch), stages[-1]] for switch in switches]


def train(
    chain: Sequence[Stage],
    base: FinetuneConfig,
    teacher: str = TEACHER,
    runs: str | Path = "runs",
) -> list[Record]:
    """Records of the runs of a chain, in order, each the parent of the next.

    `base` gives the first parent, the seed and all that no stage changes; `teacher` the setting of
    the model that labels, "" for the stage before. Raises ValueError when a first stage wants the
    labels of the stage before.
    """
    made: list[Record] = []
    for stage in chain:
        config = _config(stage, base, made[-1].id if made else base.parent)
        if stage.noisy:
            labels = _labels(chain, stage, base, made, teacher, runs)
            config = replace(config, questions=pseudolabels.path_of(labels, runs))
        made.append(finetune.finetune(config, runs))
    return made


def study(
    stages: Sequence[Stage],
    base: FinetuneConfig,
    seeds: Iterable[int],
    teacher: str = TEACHER,
    runs: str | Path = "runs",
) -> Record:
    """Record of the test accuracy of every chain of `stages`, from runs that may be there already.

    `base.seed` is replaced by each of `seeds`. The test is that of the last stage's questions.
    """
    seeds, found = list(seeds), {}
    for chain in chains(stages):
        for seed in seeds:
            made = train(chain, replace(base, seed=seed), teacher, runs)
            exam = ExamConfig(
                parent=made[-1].id, questions=stages[-1].questions, setting=base.setting
            )
            found[name(chain), seed] = examine.examine(exam, runs)
    rows = [_row(chain, seed, exam) for (chain, seed), exam in found.items()]
    params = asdict(base) | {
        "stages": [asdict(stage) for stage in stages], "seeds": seeds, "teacher": teacher,
    }  # fmt: skip
    correct = {key: _correct(exam, runs) for key, exam in found.items()}
    determines = {"parent": base.parent, "exams": [row["exam"] for row in rows]}
    record = Record(
        id=records.run_id("stages", name(stages).replace(ARROW, ""), determines),
        kind="stages",
        params=params,
        metrics={"rows": rows, "chains": worth(correct)},
        data_fingerprint=next(iter(found.values())).data_fingerprint,
        parent=base.parent,
        env=machine.environment(),
    )
    records.write(record, Path(runs) / record.id)
    return record


def worth(correct: dict[tuple[str, int], Sequence[bool]]) -> list[dict[str, Any]]:
    """A row a chain: its accuracy, and how far it is above that of the first chain.

    `correct`: for each (chain, seed) whether each question was answered truly, the questions in one
    order. `low`, `high`: 95 % over seeds (Student's t), `None` for one seed; `questions_low`,
    `questions_high`: 95 % over questions (bootstrap), each question's answers averaged over seeds.

    >>> worth({("L", 0): [True, False], ("A>L", 0): [True, True]})[1]["difference"]
    0.5
    """
    names = list(dict.fromkeys(chain for chain, _ in correct))
    tables = {
        c: np.array([v for (chain, _), v in correct.items() if chain == c], dtype=float)
        for c in names
    }  # (seeds, questions) each
    return [_worth(c, tables[c], tables[names[0]]) for c in names]


def told(record: Record) -> str:
    """Table of a study, a line a chain, in percent and points."""
    lines = [f"{'stages':10}{'accuracy':>9}  {'above ' + record.metrics['chains'][0]['chain']:30}"]
    for row in record.metrics["chains"]:
        line = f"{row['chain']:10}{100 * row['accuracy']:9.1f}"
        if "difference" in row:
            ends = [row["low"], row["high"], row["questions_low"], row["questions_high"]]
            text = ["?" if x is None else f"{100 * x:+.1f}" for x in ends]
            line += f"  {100 * row['difference']:+.1f} [{text[0]}, {text[1]}] over seeds, "
            line += f"[{text[2]}, {text[3]}] over questions: {_verdict(row)}"
        lines.append(line)
    majority = record.metrics["rows"][0]["majority_accuracy"]
    return "\n".join([*lines, f"{'majority':10}{100 * majority:9.1f}"])


def _verdict(row: dict[str, Any]) -> str:
    pairs = [(row["low"], row["high"]), (row["questions_low"], row["questions_high"])]
    clear = all(low is not None and low * high > 0 for low, high in pairs)
    return "distinguishable" if clear else "not distinguishable"


def _worth(chain: str, own: np.ndarray, first: np.ndarray) -> dict[str, Any]:
    row = {"chain": chain, "accuracy": float(own.mean()), "seeds": len(own)}
    if own is first:
        return row
    over = stats.over_seeds(list(own.mean(1) - first.mean(1)))
    ends = (over.low, over.high) if len(own) > 1 else (None, None)
    low, high = stats.bootstrap(
        lambda a, b: float(np.mean(a - b)), own.mean(0), first.mean(0), seed=0
    )
    return row | {
        "difference": over.mean, "low": ends[0], "high": ends[1],
        "questions_low": low, "questions_high": high,
    }  # fmt: skip


def _config(stage: Stage, base: FinetuneConfig, parent: str) -> FinetuneConfig:
    own = {"parent": parent, "questions": stage.questions, "part": stage.part}
    if parent != base.parent:  # by then a soft prompt has learned
        own["initialization"] = "random"
    return replace(base, **own | stage.changes)


def _labels(
    chain: Sequence[Stage],
    stage: Stage,
    base: FinetuneConfig,
    made: list[Record],
    teacher: str,
    runs: str | Path,
) -> Record:
    if not teacher and not made:
        raise ValueError(
            f"stage {stage.name} takes its labels from the stage before, and {name(chain)} has "
            f"none; put one before it, or name a setting for the teacher, such as {TEACHER!r}"
        )
    if not teacher:
        return pseudolabels.label(made[-1].id, stage.questions, runs)
    others = [other for other in chain if not other.noisy]
    return pseudolabels.label(
        train(others, replace(base, setting=teacher), teacher, runs)[-1].id, stage.questions, runs
    )


def _row(chain: str, seed: int, exam: Record) -> dict[str, Any]:
    names = ("accuracy", "low", "high", "macro_f1", "n", "majority_accuracy")
    kept = {metric: exam.metrics[metric] for metric in names}
    return {"chain": chain, "seed": seed, "run": exam.parent, "exam": exam.id} | kept


def _correct(exam: Record, runs: str | Path) -> list[bool]:
    report = examine.load_report(exam, runs)
    return [report.correct[pmid] for pmid in sorted(report.correct)]
