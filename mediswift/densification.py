"""What going on dense is worth after sparse pre-training, the removed weights back in some way.

Decisions: what a sparse run lacks is measured against dense runs of the same seeds that go on over
the same tokens, so that all have read equally much. Each way has a learning rate of its own, tuned
on the first seed. Differences are taken seed by seed. Every number is that of a `continue` record.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mediswift import machine
from mediswift.configs import PretrainConfig
from mediswift.contest import loss_of, tuned
from mediswift.continuation import INITIAL, STAY, ContinueConfig, go_on
from mediswift.records import Record
from mediswift.runs import load_run
from mediswift.stats import above, signed

DENSE = "dense all along"
SPARSE = "stays sparse"
WAYS: dict[str, dict[str, Any]] = {
    SPARSE: {"removed": STAY},
    "zeros": {},
    "initial values": {"removed": INITIAL},
    "zeros, moments kept": {"moments": True},
    "zeros, no warm-up": {"warmup": 0.0},
}
"""Each way in which a sparse run goes on, as changes to `ContinueConfig`."""
OWN = ("seed", "lr", "engine")
"""In what runs of one kind may differ."""
FIGURES = "validation_loss_nats bits_per_byte bits_per_byte_before theoretical_flops".split()
FIGURES += ["theoretical_flops_with_parent", "seconds", "tokens_trained"]


def study(
    sparse: Sequence[str],
    dense: Sequence[str],
    tokens: int,
    first: float,
    runs: str | Path = "runs",
) -> Record:
    """Record of the runs `sparse` going on in every way, and of `dense` going on as they are.

    Both are ids of pre-training runs, one a seed, which differ in sparsity alone; `first` is the
    first learning rate tried. Raises ValueError for others, before anything runs.
    """
    parents = {False: _by_seed(sparse, runs), True: _by_seed(dense, runs)}
    base = _check(parents[False], parents[True])
    rows: list[dict[str, Any]] = []
    for way, changes in {DENSE: {"removed": STAY}, **WAYS}.items():
        rows += _rows(way, parents[way == DENSE], changes | {"tokens": tokens}, first, runs)
    params = base | {"sparse": list(sparse), "dense": list(dense), "continued_tokens": tokens}
    return machine.keep_study(
        runs,
        "densification",
        base["size"],
        {"runs": [row["run"] for row in rows]},
        params=params | {"seeds": sorted(parents[True])},
        metrics={"rows": rows},
        data_fingerprint=parents[False][min(parents[False])].data_fingerprint,
    )


def costs(record: Record, metric: str = "bits_per_byte") -> list[dict[str, Any]]:
    """How far each way ends above the runs that were dense all along, seed by seed.

    Rows of way, sparsity, lr, `before` (mean before going on), `value`, and the `difference` with
    its 95 % interval `low`, `high` over seeds, which the dense runs themselves have not.
    """
    lines = []
    for way in dict.fromkeys(row["way"] for row in record.metrics["rows"]):
        rows = [row for row in record.metrics["rows"] if row["way"] == way]
        before = sum(row["bits_per_byte_before"] for row in rows) / len(rows)
        about = {"way": way, "sparsity": record.params["sparsity"], "lr": rows[0]["lr"]}
        found = above(_of(record, way, metric), _of(record, DENSE, metric))
        kept = {"value": found["value"]} if way == DENSE else found
        lines.append(about | {"before": before} | kept)
    return lines


def gains(record: Record, metric: str = "bits_per_byte") -> dict[str, dict[str, Any]]:
    """How far each way of going on dense ends above staying sparse, seed by seed, as `costs` has
    it. Bars of `costs` share the dense runs' chance, so two of them are not compared by eye."""
    sparse = _of(record, SPARSE, metric)
    ways = [way for way in WAYS if way != SPARSE]
    return {way: above(_of(record, way, metric), sparse) for way in ways}


def told(record: Record) -> str:
    """Tables of `costs` and `gains`, a line a way, in bits per byte."""
    lines = [f"{'':20} {'before':>7} {'after':>7}  above {DENSE}"]
    for row in costs(record):
        line = f"{row['way']:20} {row['before']:7.3f} {row['value']:7.3f}"
        lines.append(line + (f"  {signed(row)}" if "difference" in row else ""))
    beside = [f"{way:36}  {signed(row)}" for way, row in gains(record).items()]
    return "\n".join([*lines, f"{'':36}  above what {SPARSE}", *beside])


def _rows(
    way: str, parents: dict[int, Record], changes: dict[str, Any], first: float, runs: str | Path
) -> list[dict[str, Any]]:
    def child(seed: int, lr: float) -> Record:
        return go_on(ContinueConfig(parent=parents[seed].id, lr=lr, **changes), runs)

    lr = tuned(lambda lr: loss_of(lambda: child(min(parents), lr)), first)
    found = {seed: child(seed, lr) for seed in sorted(parents)}
    return [
        {"way": way, "seed": seed, "lr": lr, "run": record.id}
        | {name: record.metrics[name] for name in FIGURES}
        for seed, record in found.items()
    ]


def _by_seed(names: Sequence[str], runs: str | Path) -> dict[int, Record]:
    found = [load_run(name, runs) for name in names]
    if any(record.kind != "pretrain" for record in found):
        raise ValueError(f"what goes on are pre-training runs; got {', '.join(names)}")
    return {record.params["seed"]: record for record in found}


def _check(sparse: dict[int, Record], dense: dict[int, Record]) -> dict[str, Any]:
    # What the sparse ones have in common
    groups = [list(sparse.values()), list(dense.values())]
    alike = all(len({_kind(record) for record in group}) == 1 for group in groups)
    alike &= len({_kind(record, "sparsity", "pattern") for record in sum(groups, [])}) == 1
    removed = [{bool(record.params["sparsity"]) for record in group} for group in groups]
    if not alike or removed != [{True}, {False}] or sparse.keys() != dense.keys():
        raise ValueError(
            "sparse and dense runs have the same seeds and differ in sparsity and learning rate "
            f"alone; got {[r.id for r in groups[0]]} and {[r.id for r in groups[1]]}"
        )
    return json.loads(_kind(groups[0][0]))


def _kind(record: Record, *but: str) -> str:
    config = asdict(PretrainConfig(**record.params))  # older than some of its fields, maybe
    kept = {name: v for name, v in config.items() if name not in {*OWN, *but}}
    return json.dumps(kept, sort_keys=True)


def _of(record: Record, way: str, metric: str) -> dict[int, float]:
    return {row["seed"]: row[metric] for row in record.metrics["rows"] if row["way"] == way}
