"""What sparsity costs in held-out bits, at equal tokens and at equal FLOPs, each at its own rate.

Decisions: a sparse model wants another learning rate than a dense one, and a long run another one
than a short run, so each entry is tuned first, on one seed and, by default, all of its own tokens
(`contest.tuned`): on a third of them, dense models chose a rate too low for the whole. At equal
FLOPs a sparse model has two dense rivals: the same one with fewer tokens, its schedule shortened
with them, and a smaller one with more. In equal seconds its rival is read off between the dense
runs of several lengths, and its interval holds no error of that, nor of the seconds. Seeds share
the order of the text across all, so differences are taken seed by seed. FLOPs are theoretical;
seconds are what this machine took, beside whatever else it did, or `retimed`. Every number is that
of a `pretrain` record.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from mediswift import flops, machine, models, records
from mediswift.contest import loss_of, tuned
from mediswift.pretrain import PretrainConfig, pretrain
from mediswift.records import Record
from mediswift.stats import above, signed

TOKENS = "equal tokens"
EARLY = "dense, fewer tokens"
SMALLER = "dense, smaller"
SECONDS = "dense, equal seconds"
FIGURES = "bits_per_byte validation_loss_nats theoretical_flops seconds tokens_trained".split()
FIGURES += ["non_embedding_parameters", "trained_parameters"]


def study(
    base: PretrainConfig,
    sparsities: Sequence[float],
    seeds: Iterable[int],
    tuning_tokens: int = 0,
    smaller: str = "",
    runs: str | Path = "runs",
) -> Record:
    """Record of every sparsity at `base`'s size and tokens, and of its dense rivals.

    `sparsities` must hold 0, what the others are measured by; `smaller` names a size of the same
    context and vocabulary, "" leaves that rival out. `base.lr` is the first rate tried, on so many
    `tuning_tokens`, or on as many as an entry has. Raises ValueError for what could only fail
    later, before anything runs.
    """
    seeds, rows = list(seeds), []
    _check(base, sparsities, smaller)
    rates = Rates(base, tuning_tokens, seeds[0], runs)
    for config, role, rival in entries(base, sparsities, smaller):
        tuned_config = replace(config, lr=rates.best(config))
        rows += [_row(replace(tuned_config, seed=seed), role, rival, runs) for seed in seeds]
    params = asdict(base) | {
        "sparsities": list(sparsities), "seeds": seeds, "tuning_tokens": tuning_tokens,
        "smaller": smaller,
    }  # fmt: skip
    return machine.keep_study(
        runs,
        "scaling",
        base.size,
        params | {"runs": [row["run"] for row in rows]},
        params=params,
        metrics={"rows": rows, "tuning": rates.tried},
        data_fingerprint=rows[0]["data"],
    )


class Rates:
    """Best learning rates, one a size, sparsity and length, found on runs of one seed."""

    def __init__(self, base: PretrainConfig, tokens: int, seed: int, runs: str | Path) -> None:
        """Tune on `tokens` tokens, 0 = all, from the rate of `base` on."""
        self.tokens, self.seed = tokens, seed
        self.first, self.runs = base.lr, runs
        self.tried: list[dict[str, Any]] = []
        self.found: dict[tuple[str, float, int], float] = {}

    def best(self, config: PretrainConfig) -> float:
        """Rate for the size, sparsity and tokens of `config`."""
        config = replace(config, tokens=self.tokens or config.tokens, seed=self.seed)
        key = (config.size, config.sparsity, config.tokens)
        if key not in self.found:
            self.found[key] = tuned(lambda lr: self._loss(config, lr), self.first)
        return self.found[key]

    def _loss(self, config: PretrainConfig, lr: float) -> float:
        loss = loss_of(lambda: pretrain(replace(config, lr=lr), self.runs))
        about = {name: getattr(config, name) for name in ("size", "sparsity", "tokens")}
        about |= {"lr": lr}
        # a rate that is too high has no loss, and JSON has no infinity
        self.tried.append(about | {"loss": loss if math.isfinite(loss) else None})
        return loss


def entries(
    base: PretrainConfig, sparsities: Sequence[float], smaller: str = ""
) -> list[tuple[PretrainConfig, str, float]]:
    """Configurations to run, each with its role and the sparsity whose rival it is.

    >>> from mediswift.pretrain import profile
    >>> [(c.sparsity, role) for c, role, _ in entries(profile("demo"), [0, 0.75])]
    [(0.0, 'equal tokens'), (0.75, 'equal tokens'), (0.0, 'dense, fewer tokens')]
    """
    found = [(replace(base, sparsity=s), TOKENS, s) for s in sparsities]
    for sparsity in filter(None, sparsities):
        sizes = {EARLY: base.size, SMALLER: smaller}
        found += [
            (_rival(base, sparsity, size), role, sparsity) for role, size in sizes.items() if size
        ]
    return found


def retimed(record: Record, bench: Record) -> Record:
    """The study with the seconds of its runs at the pace of a `bench`, which took turns.

    Counted are steps, and neither validation nor checkpoints. Raises ValueError if the bench timed
    other steps, on another device or other threads, or lacks a size or sparsity of the study.
    """
    took = _pace(bench, record.params["pattern"])
    for name, (ours, theirs) in _conditions(record, bench).items():
        if ours != theirs:
            raise ValueError(
                f"a bench that times a study has its {name}; {bench.id} has {theirs}, {record.id} "
                f"{ours}: run `bench` like the study"
            )
    timed = {(row["size"], row["sparsity"]) for row in record.metrics["rows"]}
    if missing := sorted(timed - took.keys()):
        raise ValueError(
            f"a bench that times a study has its sizes and sparsities, masks "
            f"{record.params['pattern']}; {bench.id} lacks {missing}: run `bench` with them"
        )
    rows = [
        row | {"seconds": row["tokens_trained"] * took[row["size"], row["sparsity"]]}
        for row in record.metrics["rows"]
    ]
    return replace(record, metrics=record.metrics | {"rows": rows})


def _conditions(record: Record, bench: Record) -> dict[str, tuple]:
    """What must be the same in both, by name. A bench takes all tokens of a step at once."""
    study, timed = record.params, bench.params
    at_once = study["micro_batch"] * models.shape(study["size"]).context
    return {
        "tokens a step": (study["batch_tokens"], timed["tokens"]),
        "tokens at once": (at_once, timed["tokens"]),
        "precision": (study["precision"], timed.get("precision", "no")),
        "engine": (study["engine"], timed.get("engine", "auto")),
        "recomputation": (study["recompute"], False),
    } | {name: (record.env.get(name), bench.env.get(name)) for name in ("device", "threads")}


def _pace(bench: Record, pattern: str) -> dict[tuple[str, float], float]:
    """Seconds a token of each size and sparsity: the dense step's over the speed-up, a ratio of
    neighbors in time."""
    steps = records.steps(bench)
    dense = {row["size"]: row["seconds"] for row in steps if not row["sparsity"]}
    return {
        (row["size"], row["sparsity"]): dense[row["size"]] / row["speedup"] / bench.params["tokens"]
        for row in steps
        if not row["sparsity"] or row["pattern"] == pattern
    }


def costs(record: Record, metric: str = "bits_per_byte") -> list[dict[str, Any]]:
    """How much a sparse model is above each dense rival, seed by seed, with an interval.

    Rows of size, tokens, sparsity, rival, `value` (the sparse model's own mean), `difference`,
    `low` and `high` (95 %, Student's t over seeds); above zero, the sparse model is worse. A sparse
    model that was no faster than the dense one on as many tokens, or faster than any dense run was
    short, has no rival in equal seconds.
    """
    by_entry: dict[tuple, dict[int, float]] = {}
    for row in record.metrics["rows"]:
        key = (row["role"], row["rival_of"])
        by_entry.setdefault(key, {})[row["seed"]] = row[metric]
    lines = []
    for sparsity in filter(None, record.params["sparsities"]):
        own = by_entry[TOKENS, sparsity]
        rivals = {TOKENS: by_entry[TOKENS, 0.0]}
        rivals |= {r: by_entry[r, s] for r, s in by_entry if s == sparsity and r != TOKENS}
        rivals |= _in_equal_seconds(record, sparsity, metric)
        lines += [
            {name: record.params[name] for name in ("size", "tokens")}
            | {"sparsity": sparsity, "rival": role}
            | above(own, theirs)
            for role, theirs in rivals.items()
        ]
    return lines


def told(record: Record) -> str:
    """Table of `costs`, a line a sparsity and rival, in bits per byte."""
    lines = [f"{'sparsity':>8} {'bits/byte':>9}  above"]
    for row in costs(record):
        line = f"{row['sparsity']:8.1%} {row['value']:9.3f}  {row['rival']:21}"
        lines.append(line + signed(row))
    return "\n".join(lines)


def _in_equal_seconds(record: Record, sparsity: float, metric: str) -> dict[str, dict[int, float]]:
    """What dense runs of each seed reach in the seconds of the sparse model, by role: a parabola in
    the logarithm of the tokens that they read in them, since a straight line would lie too high."""
    of_size = [row for row in record.metrics["rows"] if row["size"] == record.params["size"]]
    dense = [row for row in of_size if not row["sparsity"]]
    took = {
        removed: median(
            row["seconds"] for row in of_size if (row["role"], row["sparsity"]) == (TOKENS, removed)
        )
        for removed in (0.0, sparsity)
    }
    tokens = record.params["tokens"] * took[sparsity] / took[0.0]
    lengths = {row["tokens_trained"] for row in dense}
    if not min(lengths) <= tokens < max(lengths):
        return {}
    reached = {}
    for seed in {row["seed"] for row in dense}:
        curve = {row["tokens_trained"]: row[metric] for row in dense if row["seed"] == seed}
        fit = np.polyfit(np.log(list(curve)), list(curve.values()), min(2, len(curve) - 1))
        reached[seed] = float(np.polyval(fit, math.log(tokens)))
    return {SECONDS: reached}


def _rival(base: PretrainConfig, sparsity: float, size: str) -> PretrainConfig:
    """Dense configuration of `size` with the FLOPs of `base` at `sparsity`, in whole steps."""
    budget = flops.training(base.shape, base.tokens, sparsity).total
    step = flops.training(models.shape(size), base.batch_tokens).total
    steps = max(1, round(budget / step))
    return replace(base, size=size, sparsity=0.0, tokens=steps * base.batch_tokens)


def _check(base: PretrainConfig, sparsities: Sequence[float], smaller: str) -> None:
    if 0 not in sparsities or len(set(sparsities)) < len(sparsities):
        raise ValueError(
            f"sparsities are different ones, and 0 is what the others are measured by; got "
            f"{list(sparsities)}"
        )
    for sparsity in sparsities:
        replace(base, sparsity=sparsity)
    if not smaller:
        return
    ours, theirs = base.shape, models.shape(smaller)
    if (ours.context, ours.vocab_size) != (theirs.context, theirs.vocab_size):
        raise ValueError(
            f"rivals read the same rows: {smaller} has context {theirs.context} and vocabulary "
            f"{theirs.vocab_size}, {base.size} {ours.context} and {ours.vocab_size}; take another"
        )


def _row(config: PretrainConfig, role: str, rival: float, runs: str | Path) -> dict[str, Any]:
    record = pretrain(config, runs)
    about = {"size": config.size, "sparsity": config.sparsity, "role": role, "rival_of": rival}
    about |= {"lr": config.lr, "seed": config.seed, "run": record.id}
    figures = {name: record.metrics[name] for name in FIGURES}
    return about | figures | {"data": record.data_fingerprint}
