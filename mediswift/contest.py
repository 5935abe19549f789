"""What a pattern costs in quality: the same model and density, each pattern at its own best rate.

Decisions: a sparse layer wants another learning rate than a dense one, and patterns may differ
too, so each pattern's rate is tuned first, on one seed and maybe fewer tokens, by factors of two
until both neighbors are worse. Then all seeds run at that rate. Seeds share initialization and
order of the text across patterns, so differences are taken seed by seed. A pattern may also
compete "+scaled", with density scaling (see `density`), whose tuning finds the lower base rate
that it wants, "+set" and "+rigl", with masks that move (see `dynamic`), or, as the dense model may,
"+bf16", in half precision. Every number is that of a `pretrain` record.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mediswift import machine
from mediswift.patterns import parse
from mediswift.pretrain import PretrainConfig, pretrain
from mediswift.records import Record
from mediswift.schedule import check_machine
from mediswift.stats import above

DENSE = "dense"
REFERENCE = "unstructured"
HALF = "bf16"
WAYS: dict[str, dict[str, Any]] = {
    "": {"density_scaling": False, "moves": ""},
    "scaled": {"density_scaling": True, "moves": ""},
    "set": {"density_scaling": False, "moves": "set"},
    "rigl": {"density_scaling": False, "moves": "rigl"},
    "bf16": {"density_scaling": False, "moves": "", "precision": "bf16"},
}
"""What the name of a pattern may end in, after a "+", and what it means."""


def contest(
    base: PretrainConfig,
    patterns: Iterable[str],
    seeds: Iterable[int],
    tuning_tokens: int,
    runs: str | Path = "runs",
) -> Record:
    """Record of the held-out loss of every pattern, in `runs`, from runs that may be there already.

    `patterns` are names as `entry` reads them; `base` says the sparsity of all but "dense",
    and the first rate tried. Raises ValueError for one that cannot be, or not on this machine,
    before anything runs.
    """
    patterns, seeds, rows = list(patterns), list(seeds), []
    entries = {name: entry(base, name) for name in patterns}
    for config in entries.values():
        check_machine(config.loop, machine.fastest_device().type, 1)
    for name, config in entries.items():
        short = replace(config, tokens=tuning_tokens, seed=seeds[0])
        rate = tuned(lambda lr, short=short: _loss(replace(short, lr=lr), runs), base.lr)
        rows += [_row(name, replace(config, lr=rate, seed=seed), runs) for seed in seeds]
    params = asdict(base) | {
        "patterns": patterns, "seeds": seeds, "tuning_tokens": tuning_tokens,
    }  # fmt: skip
    return machine.keep_study(
        runs,
        "contest",
        base.size,
        params | {"runs": [row["run"] for row in rows]},
        params=params,
        metrics={"rows": rows},
        data_fingerprint=rows[0]["data"],
    )


def entry(base: PretrainConfig, name: str) -> PretrainConfig:
    """Configuration of a contestant: "dense", a pattern, or either with "+" and a way.

    Its name says how it is trained, but for a precision of `base` that all share. Raises ValueError
    for another name, or a pattern that cannot have `base`'s sparsity or way.

    >>> from mediswift.pretrain import profile
    >>> scaled = entry(profile("demo"), "16x1+scaled")
    >>> scaled.pattern, scaled.density_scaling
    ('16x1', True)
    """
    pattern, plus, how = name.partition("+")
    dense = _is_dense(name) or not base.sparsity
    if plus and (not how or how not in WAYS or dense and how != HALF):
        ways = ", ".join(f"+{way}" for way in filter(None, WAYS))
        raise ValueError(
            f"a contestant is 'dense', a pattern, or a pattern with one of {ways}, which has to be "
            f"sparse but for +{HALF}, got {name!r} at sparsity {base.sparsity:g}: try "
            f"'{REFERENCE}+scaled' at 0.75"
        )
    if how == HALF and base.precision == HALF:
        raise ValueError(f"all train in {HALF} already, got {name!r}; leave out one of the two")
    if _is_dense(name):
        return replace(base, sparsity=0.0, **WAYS[how])
    parse(pattern).check(base.sparsity)
    return replace(base, pattern=pattern, **WAYS[how])


def tuned(loss: Callable[[float], float], first: float) -> float:
    """Learning rate, `first` times a power of two, whose loss is below that of half and double.

    >>> tuned(lambda lr: (lr - 0.008) ** 2, 0.001)
    0.008
    """
    found = {first: loss(first)}
    while True:
        best = min(found, key=found.__getitem__)
        missing = [lr for lr in (2 * best, best / 2) if lr not in found]
        if not missing:
            return best
        found[missing[0]] = loss(missing[0])


def loss_of(train: Callable[[], Record]) -> float:
    """Held-out loss of what `train` makes, nats a token; infinite if it explodes: the rate is too
    high."""
    try:
        return train().metrics["validation_loss_nats"]
    except FloatingPointError:
        return math.inf


def _loss(config: PretrainConfig, runs: str | Path) -> float:
    return loss_of(lambda: pretrain(config, runs))


def differences(record: Record, reference: str = REFERENCE) -> list[dict[str, Any]]:
    """Each pattern's loss, and how much it is above `reference`'s, seed by seed, with an interval.

    Rows of pattern, sparsity, lr, loss and, but for the reference itself, difference, low and high
    (95 %, Student's t over seeds), all in nats a token.
    """
    by_pattern: dict[str, dict[int, dict]] = {}
    for row in record.metrics["rows"]:
        by_pattern.setdefault(row["pattern"], {})[row["seed"]] = row
    lines = [_difference(name, rows, by_pattern[reference]) for name, rows in by_pattern.items()]
    removed = record.params["sparsity"]
    return [line | {"sparsity": removed * (not _is_dense(line["pattern"]))} for line in lines]


def _is_dense(name: str) -> bool:
    return name.partition("+")[0] == DENSE


def _difference(name: str, rows: dict[int, dict], reference: dict[int, dict]) -> dict[str, Any]:
    losses = {seed: row["loss"] for seed, row in rows.items()}
    found = above(losses, {seed: row["loss"] for seed, row in reference.items()})
    line = {"pattern": name, "lr": next(iter(rows.values()))["lr"], "loss": found.pop("value")}
    return line if rows is reference or len(losses) < 2 else line | found


def _row(name: str, config: PretrainConfig, runs: str | Path) -> dict[str, Any]:
    record = pretrain(config, runs)
    return {
        "pattern": name,
        "lr": config.lr,
        "seed": config.seed,
        "loss": record.metrics["validation_loss_nats"],
        "run": record.id,
        "data": record.data_fingerprint,
    }
