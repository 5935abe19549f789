"""HoC after pre-training of several kinds, such as dense and sparse, each of some seeds.

Decisions: each run is fine-tuned alike, with its own seed, and tested on the same abstracts, so
that differences to the first kind are taken seed by seed and abstract by abstract. As in
`ablation`, which does the same for PubMedQA, there are two intervals, and both must leave out zero.
Every number follows from the answers that `classify` kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mediswift import ablation, classify, machine, stats
from mediswift.finetune import FinetuneConfig
from mediswift.hallmarks import Report, counts, f1
from mediswift.records import Record

FIGURES = "name micro_f1 low high macro_f1 n truncated unparsed".split()


def study(
    base: FinetuneConfig,
    kinds: Mapping[str, Sequence[str]],
    what: str,
    runs: str | Path = "runs",
) -> Record:
    """Record of HoC by `base` after pre-training of several `kinds`: {name: ids, one a seed}.

    `what` names what they differ in. Raises ValueError unless all kinds have the same seeds, and
    what `classify.classify` raises, before anything runs.

    >>> study(base, {"0": ["pretrain-a"], "0.75": ["pretrain-b"]}, "sparsity")  # doctest: +SKIP
    """
    tested, params = ablation.of_parents(base, kinds, what, _test, runs)
    rows = [_row(name, seed, record) for (name, seed), record in tested.items()]
    said = {key: classify.answers(record, runs) for key, record in tested.items()}
    first = next(iter(tested.values()))
    return machine.keep_study(
        runs,
        "downstream",
        f"hoc-{what}",
        {"tests": [row["test"] for row in rows]},
        params=params,
        metrics={
            "rows": rows,
            "variants": worth(said),
            "baselines": [{k: row[k] for k in FIGURES} for row in first.metrics["baselines"]],
            "train_documents": first.metrics["train_documents"],
        },
        data_fingerprint=first.data_fingerprint,
    )


def worth(reports: Mapping[tuple[str, int], Report]) -> list[dict[str, Any]]:
    """A row a variant: its mean micro-F1 over seeds, and how far it is above that of the first.

    `reports`: for each (variant, seed), on the same abstracts in one order. `low`, `high`: 95 %
    over seeds (Student's t), `None` for one seed; `questions_low`, `questions_high`: 95 % over
    abstracts (bootstrap), of the mean over seeds.

    >>> said = [{"pmid": "1", "labels": ["inducing angiogenesis"], "prediction": []}]
    >>> true = [said[0] | {"prediction": ["inducing angiogenesis"]}]
    >>> worth({("0", 0): Report(said), ("0.75", 0): Report(true)})[1]["difference"]
    1.0
    """
    groups: dict[str, dict[int, Report]] = {}
    for (name, seed), report in reports.items():
        groups.setdefault(name, {})[seed] = report
    first, *others = groups
    rows = [{"variant": first, "micro_f1": _mean(groups[first]), "seeds": len(groups[first])}]
    return rows + [{"variant": n} | _worth(groups[n], groups[first]) for n in others]


def told(record: Record) -> str:
    """Table of a study, a line a variant, in percent and points, and the baselines."""
    rows = [(row["variant"], row) for row in record.metrics["variants"]]
    baselines = {row["name"]: row["micro_f1"] for row in record.metrics["baselines"]}
    return ablation.table(record.params["field"], "micro_f1", rows, baselines)


def _test(config: FinetuneConfig, runs: str | Path) -> Record:
    return classify.classify(config, [config.seed], runs)


def _worth(own: Mapping[int, Report], first: Mapping[int, Report]) -> dict[str, Any]:
    found = stats.above(_scores(own), _scores(first))
    columns = [column for report in [*own.values(), *first.values()] for column in counts(report)]

    def difference(*drawn: np.ndarray) -> float:
        scores = [f1(*drawn[i : i + 3]) for i in range(0, len(drawn), 3)]
        return float(np.mean(scores[: len(own)]) - np.mean(scores[len(own) :]))

    low, high = stats.bootstrap(difference, *columns, seed=0)
    over = {"questions_low": low, "questions_high": high, "seeds": len(own)}
    return {"micro_f1": found.pop("value")} | found | over


def _scores(reports: Mapping[int, Report]) -> dict[int, float]:
    return {seed: report.micro_f1 for seed, report in reports.items()}


def _mean(reports: Mapping[int, Report]) -> float:
    return float(np.mean(list(_scores(reports).values())))


def _row(name: str, seed: int, record: Record) -> dict[str, Any]:
    (found,) = record.metrics["rows"]
    kept = {figure: found[figure] for figure in FIGURES if figure != "name"}
    about = {"variant": name, "seed": seed, "parent": record.parent}
    return about | {"run": found["run"], "test": record.id} | kept
