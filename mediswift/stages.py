"""Fine-tuning in stages, PQA-A, then PQA-U, then PQA-L, and what each stage is worth.

Decisions: a stage is data, and a chain of stages is `finetune` after `finetune`, each run the
parent of the next; so a chain that was stopped goes on, and chains that begin alike share runs. A
study trains every chain, each stage but the last on and off, with the same seeds, and examines them
on the official test. Labels for PQA-U come from a teacher (Jin et al. 2019): the chain's other
stages, trained to read the conclusion; with `teacher=""` from the stage before, as it is. Order,
epochs and rates of BioGPT's stages were never published; ours are choices, and the record says
which.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import compress, product
from pathlib import Path
from typing import Any

from mediswift import ablation, examine, finetune, pseudolabels
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
    `metrics["chains"]` says what each chain is worth beside the last stage alone: `ablation.worth`.
    """
    seeds, found = list(seeds), {}
    for chain in chains(stages):
        for seed in seeds:
            last = train(chain, replace(base, seed=seed), teacher, runs)[-1]
            exam = ExamConfig(parent=last.id, questions=chain[-1].questions, setting=base.setting)
            found[name(chain), seed] = examine.examine(exam, runs)
    params = asdict(base) | {
        "stages": [asdict(stage) for stage in stages], "seeds": seeds, "teacher": teacher,
    }  # fmt: skip
    label = name(stages).replace(ARROW, "")
    return ablation.keep("stages", label, "chain", found, params, runs)


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
