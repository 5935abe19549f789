"""One choice of fine-tuning, varied: what each of its values is worth on the official test.

Decisions: variants share everything but one field and are trained with the same seeds, so that
differences are taken seed by seed and question by question. What a variant is worth is a difference
to the first one, with two intervals, over seeds and over questions: neither holds the other's
chance, and both must leave out zero. Every number is that of an `examine` record.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from mediswift import examine, finetune, machine, stats
from mediswift.examine import ExamConfig
from mediswift.finetune import FinetuneConfig
from mediswift.records import Record
from mediswift.runs import by_seed

FIXED = ("seed", "questions")
"""What all variants share: seeds are repetitions, and questions are what is compared on."""
LONGEST = 32
"""Characters of a text that names a variant, for reading."""
DISTINGUISHABLE, STAR = "distinguishable", "*"
INTERVALS = "[95 % over seeds] [over questions]"
Found = dict[tuple[str, int], Record]
"""Examination of each (variant, seed)."""


def study(
    base: FinetuneConfig,
    field: str,
    values: Sequence[Any],
    seeds: Iterable[int],
    runs: str | Path = "runs",
) -> Record:
    """Record of the test accuracy of `base` at each of the `values` of its `field`.

    The first value is what the others are measured by; `base.seed` is replaced by each of `seeds`.
    Raises ValueError for a field that is none or that variants share, and for fewer than two
    values, before anything runs.
    """
    seeds, variants = list(seeds), vary(base, field, values)
    found = {
        (str(value), seed): exam_of(replace(variant, seed=seed), runs)
        for value, variant in variants.items()
        for seed in seeds
    }
    params = asdict(base) | {"field": field, "values": list(values), "seeds": seeds}
    return keep("ablation", field.replace("_", "-"), "variant", found, params, runs)


def parents(
    base: FinetuneConfig,
    kinds: Mapping[str, Sequence[str]],
    what: str,
    runs: str | Path = "runs",
) -> Record:
    """Record of the test accuracy after pre-training of several kinds, each of some seeds.

    `kinds`: for each name the ids of its runs, one a seed, which is that of the fine-tuning too;
    `what` names what they differ in, the record's `field`.
    Raises ValueError unless all kinds have the same seeds, before anything runs.

    >>> parents(base, {"0": ["pretrain-a"], "0.75": ["pretrain-b"]}, "sparsity")  # doctest: +SKIP
    """
    found, params = of_parents(base, kinds, what, exam_of, runs)
    return keep("ablation", what, "variant", found, params, runs)


def of_parents(
    base: FinetuneConfig,
    kinds: Mapping[str, Sequence[str]],
    what: str,
    test: Callable[[FinetuneConfig, str | Path], Record],
    runs: str | Path,
) -> tuple[Found, dict[str, Any]]:
    """What `test` makes of `base` after each run of each kind, and the parameters of the study."""
    made = by_seed(kinds, runs)
    found = {
        (name, seed): test(replace(base, parent=run, seed=seed), runs)
        for name, own in made.items()
        for seed, run in own.items()
    }
    seeds = list(next(iter(made.values())))
    return found, asdict(base) | {"field": what, "values": dict(kinds), "seeds": seeds}


def vary(base: FinetuneConfig, field: str, values: Sequence[Any]) -> dict[Any, FinetuneConfig]:
    """`base` with each of `values`, which may be text, in its `field`.

    >>> base = FinetuneConfig(parent="pretrain-x", questions="demo:")
    >>> [c.virtual_tokens for c in vary(base, "virtual_tokens", ["0", "9"]).values()]
    [0, 9]
    """
    names = [f.name for f in fields(FinetuneConfig) if f.name not in FIXED]
    if field not in names:
        raise ValueError(f"what is varied is one of {', '.join(names)}; got {field!r}")
    if len(set(values)) < max(2, len(values)):
        raise ValueError(f"an ablation needs two different values or more; got {list(values)}")
    return {value: replace(base, **{field: value}) for value in values}


def exam_of(config: FinetuneConfig, runs: str | Path = "runs") -> Record:
    """Record of the official test, taken by the run of `config`."""
    run = finetune.finetune(config, runs)
    exam = ExamConfig(parent=run.id, questions=config.questions, setting=config.setting)
    return examine.examine(exam, runs)


def keep(
    kind: str,
    label: str,
    column: str,
    found: Found,
    params: dict[str, Any],
    runs: str | Path,
) -> Record:
    """Record, of `kind`, of examinations that were `found`, written into `runs`.

    Its metrics: `rows`, one an examination, and `{column}s`, one a variant: see `worth`.
    """
    rows = [_row(column, name, seed, exam) for (name, seed), exam in found.items()]
    correct = {key: _correct(exam, runs) for key, exam in found.items()}
    determines = {"parent": params["parent"], "exams": [row["exam"] for row in rows]}
    return machine.keep_study(
        runs,
        kind,
        label,
        determines,
        params=params,
        metrics={"rows": rows, f"{column}s": worth(correct, column)},
        data_fingerprint=next(iter(found.values())).data_fingerprint,
        parent=params["parent"],
    )


def worth(
    correct: dict[tuple[str, int], Sequence[bool]], column: str = "variant"
) -> list[dict[str, Any]]:
    """A row a variant: its accuracy, and how far it is above that of the first.

    `correct`: for each (variant, seed) whether each question was answered truly, the questions in
    one order. `low`, `high`: 95 % over seeds (Student's t), `None` for one seed; `questions_low`,
    `questions_high`: 95 % over questions (bootstrap), each question's answers averaged over seeds.

    >>> worth({("0", 0): [True, False], ("9", 0): [True, True]})[1]["difference"]
    0.5
    """
    names = list(dict.fromkeys(name for name, _ in correct))
    tables = {
        n: np.array([v for (name, _), v in correct.items() if name == n], dtype=float)
        for n in names
    }  # (seeds, questions) each
    return [{column: n} | _worth(tables[n], tables[names[0]]) for n in names]


def told(record: Record, column: str = "variant") -> str:
    """Table of a study, a line a variant, in percent and points."""
    rows = record.metrics[f"{column}s"]
    named = [(short(row[column]), row) for row in rows]  # two may be named alike
    majority = record.metrics["rows"][0]["majority_accuracy"]
    return table(column, "accuracy", named, {"majority": majority})


def table(
    column: str,
    figure: str,
    rows: Sequence[tuple[str, dict[str, Any]]],
    below: Mapping[str, float],
) -> str:
    """Table of a `figure` by variant, in percent, and points above the first one.

    `rows`: each variant's name and its row as `worth` gives it; `below`: what stands under them.
    """
    wide = max(map(len, [column, *(name for name, _ in rows), *below])) + 2
    head = f"{column:{wide}}{figure.replace('_f1', '-F1'):>9}"
    lines = [f"{head}  above {rows[0][0]}, {INTERVALS}"]
    for name, row in rows:
        line = f"{name:{wide}}{100 * row[figure]:9.1f}"
        lines.append(line + (f"  {_difference(row)}" if "difference" in row else ""))
    lines += [f"{name:{wide}}{100 * value:9.1f}" for name, value in below.items()]
    if any("difference" in row and verdict(row) == DISTINGUISHABLE for _, row in rows):
        lines.append(f"{STAR} {DISTINGUISHABLE}: both intervals leave out zero")
    return "\n".join(lines)


def size(record: Record) -> str:
    """Name of the size of the models that a study fine-tuned: its runs' ids hold it."""
    return record.metrics["rows"][0]["run"].split("-")[1]


def short(variant: str) -> str:
    """Name of a variant for reading: a run's without its kind and its hash, and no long text.

    >>> short("pretrain-demo-s75-unstructured-seed0-c6224f878a"), short("9")
    ('demo-s75-unstructured-seed0', '9')
    """
    kind, *parts = variant.split("-")
    name = "-".join(parts[:-1]) if kind in ("pretrain", "finetune") else variant
    return textwrap.shorten(name, LONGEST, placeholder=" ...") if " " in name else name


def verdict(row: dict[str, Any]) -> str:
    """Whether a variant can be told from the first one: both intervals must leave out zero."""
    pairs = [(row["low"], row["high"]), (row["questions_low"], row["questions_high"])]
    clear = all(low is not None and low * high > 0 for low, high in pairs)
    return DISTINGUISHABLE if clear else f"not {DISTINGUISHABLE}"


def _difference(row: dict[str, Any]) -> str:
    # Both intervals, and maybe a star
    ends = [row["low"], row["high"], row["questions_low"], row["questions_high"]]
    text = ["?" if x is None else f"{100 * x:+.1f}" for x in ends]
    over = f"[{text[0]}, {text[1]}] [{text[2]}, {text[3]}]"
    star = f" {STAR}" if verdict(row) == DISTINGUISHABLE else ""
    return f"{100 * row['difference']:+.1f} {over}{star}"


def _worth(own: np.ndarray, first: np.ndarray) -> dict[str, Any]:
    row = {"accuracy": float(own.mean()), "seeds": len(own)}
    if own is first:
        return row
    found = stats.above(dict(enumerate(own.mean(1))), dict(enumerate(first.mean(1))))
    low, high = stats.bootstrap(
        lambda a, b: float(np.mean(a - b)), own.mean(0), first.mean(0), seed=0
    )
    found.pop("value")  # the accuracy
    return row | found | {"questions_low": low, "questions_high": high}


def _row(column: str, name: str, seed: int, exam: Record) -> dict[str, Any]:
    names = ("accuracy", "low", "high", "macro_f1", "n", "majority_accuracy")
    kept = {metric: exam.metrics[metric] for metric in names}
    return {column: name, "seed": seed, "run": exam.parent, "exam": exam.id} | kept


def _correct(exam: Record, runs: str | Path) -> list[bool]:
    report = examine.load_report(exam, runs)
    return [report.correct[pmid] for pmid in sorted(report.correct)]
