"""A scaling law through the records of `scale`, and what it says of larger models, with doubts.

Decisions: a run counts once, in however many records it stands. The best run of a tuning that was
shorter than its entry is a point of its own, if a little too low, as the least of several; its
other rates are not, for they are worse on purpose. Only runs that differ in size, tokens, sparsity,
rate and seed alone go into one law: a loss in nats a token means nothing beside that of another
tokenizer or text (one text has one held-out part), and so predictions are for the runs' tokenizer.
A coefficient is told as determined only if its interval is narrower than itself (gamma's than
`GAMMA`) and hardly any resample stopped where the search ends. How far predictions lie beyond the
runs is said in times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from mediswift import flops, law, machine, models, records
from mediswift.configs import HOW, PretrainConfig, profile
from mediswift.law import Draws, Law
from mediswift.records import Record

FREE = {*HOW, "size", "tokens", "sparsity", "lr", "seed", "micro_batch", "validations"}
"""In what runs of one law may differ: what it is a law of, and what changes no loss."""
SAME = {f.name: f.default for f in fields(PretrainConfig) if f.name not in FREE}
"""In what they agree, with the value that a record has which is older than the field."""
FORM = "E + A / (N (1 - s)^gamma)^alpha + B / D^beta"
COEFFICIENTS = ("e", "a", "alpha", "b", "beta", "gamma")
SIZES = ("med", "xl")
SPARSITIES = (0.0, 0.5, 0.75)
"""What is predicted, at the tokens of the paper."""
FAR = ("n", "tokens")
"""In what predictions lie beyond the runs."""
GAMMA = 0.5
"""Width of an interval of gamma that tells something: between 0 and 1 lies all that is likely."""
AT_LIMIT = 0.025
"""Share of resamples that may stop where the search ends, of a coefficient that is determined."""


def read(path: str | Path) -> Record:
    """Record of a scaling study, from its folder or its file.

    Raises ValueError for a record of another kind.
    """
    path = Path(path)
    record = records.load(path / "record.json" if path.is_dir() else path)
    if record.kind != "scaling":
        raise ValueError(
            f"a law goes through records of kind 'scaling', {path} is of kind {record.kind!r}; "
            "make one with `python -m mediswift scale`"
        )
    return record


def runs_of(found: Sequence[Record]) -> list[dict[str, Any]]:
    """Runs of scaling records as rows for `law`, in ascending order, each run once.

    Rows of size, n, sparsity, tokens, seed, lr, loss (nats a token), and the id `run`, which is ""
    for the best run of a tuning. Raises ValueError unless all are of one text and recipe.
    """
    setting(found)
    rows = {row["run"]: _run(row) for record in found for row in record.metrics["rows"]}
    known = {_point(row) for row in rows.values()}
    best: dict[tuple, dict[str, Any]] = {}
    for row in (row for record in found for row in _tuned(record)):
        if _point(row) not in known:  # else the tuning was as long as the study itself
            best[_point(row)] = min(best.get(_point(row), row), row, key=lambda row: row["loss"])
    return sorted([*rows.values(), *best.values()], key=lambda row: (*_point(row), row["loss"]))


def setting(found: Sequence[Record]) -> dict[str, Any]:
    """What all runs of scaling records share: text, vocabulary, context and recipe.

    Raises ValueError, naming what differs, where they do not.
    """
    values: dict[str, set] = {}
    for record in found:
        rows = record.metrics["rows"]
        shapes = [models.shape(row["size"]) for row in rows]
        own = {"data": {row["data"] for row in rows}} | {
            name: {getattr(shape, name) for shape in shapes} for name in ("vocab_size", "context")
        }
        own |= {name: {record.params.get(name, default)} for name, default in SAME.items()}
        for name, several in own.items():
            values.setdefault(name, set()).update(several)
    if mixed := {name: sorted(map(str, own)) for name, own in values.items() if len(own) > 1}:
        raise ValueError(
            f"runs of one law share their text, vocabulary and recipe, got {mixed}; "
            "leave out the records of the others"
        )
    return {name: own.pop() for name, own in values.items()}


def study(found: Sequence[Record], runs: str | Path = "runs", draws: int = 400) -> Record:
    """Record, in `runs`, of the law through the runs of scaling records.

    Its metrics: `coefficients` and `predictions` with 95 % intervals; `rows`, the runs with their
    losses as `predicted` by the law and as `held_out`, by the law through all other sizes and
    sparsities (None where those do not identify one); `held_out_error_nats`, the mean over groups;
    `seed_noise_nats`, a standard deviation; `draws_failed`, beside those that gave the intervals.
    Raises ValueError for runs that do not belong together, and for too few.
    """
    rows = runs_of(found)
    fitted, drawn = law.fit(rows), law.bootstrap(rows, draws)
    for row, other in zip(rows, law.held_out(rows), strict=True):
        row |= {"predicted": law.loss_by(fitted, row), "held_out": other}
    params = {"records": sorted({record.id for record in found}), "draws": draws}
    return machine.keep_study(
        runs,
        "law",
        "-".join(dict.fromkeys(row["size"] for row in rows)),
        params,
        params=params | setting(found),
        metrics={
            "coefficients": [_coefficient(name, fitted, drawn) for name in COEFFICIENTS],
            "predictions": _predictions(fitted, drawn, rows),
            "rows": rows,
            "held_out_error_nats": _error(rows),
            "seed_noise_nats": _noise(rows),
            "draws_failed": drawn.failed,
        },
        data_fingerprint=found[0].data_fingerprint,
    )


def told(record: Record) -> str:
    """Coefficients, held-out error and predictions of a law as text, and what to doubt in them."""
    found, words = record.metrics, record.params["vocab_size"]
    lines = [f"{len(found['rows'])} runs, loss in nats a token (vocabulary of {words:,}): {FORM}"]
    for row in found["coefficients"]:
        doubt = "" if row["determined"] else "  not determined"
        lines.append(f"{row['name']:>8} {_with_ends(row, 'value')}{doubt}")
    lines += ["", _told_error(found), ""]
    lines.append(
        f"{'size':>8} {'sparsity':>8} {'nats/token':>24} {'as good as a dense one of':>32}"
    )
    for row in found["predictions"]:
        both = f"{_with_ends(row, 'loss'):>24} {_with_ends(row, 'dense_size'):>32}"
        lines.append(f"{row['size']:>8} {row['sparsity']:8.1%} {both}")
    return "\n".join([*lines, "", *_doubts(record)])


def _told_error(found: dict[str, Any]) -> str:
    groups = {law.group(row): row["held_out"] is not None for row in found["rows"]}
    error, noise = found["held_out_error_nats"], found["seed_noise_nats"]
    told = "cannot be told" if error is None else f"{error:.3f} nats a token"
    spread = "" if noise is None else f"; seeds differ by {noise:.3f} (standard deviation)"
    return (
        f"error on a size and sparsity that was left out: {told} "
        f"({sum(groups.values())} of {len(groups)} could be){spread}"
    )


def _doubts(record: Record) -> Iterator[str]:
    found, kept = record.metrics, record.params["draws"]
    farthest = [max(row[f"times_{name}"] for row in found["predictions"]) for name in FAR]
    yield (
        "Extrapolated to {:,.0f} times the size and {:,.0f} times the tokens of these runs. The "
        "intervals (95 %) know\nwhich runs there happened to be, not whether the form holds so far."
    ).format(*farthest)
    if names := _names(found, lambda row: not row["determined"]):
        yield f"Not determined by these runs: {names}. What rests on them is a guess."
    if names := _names(found, lambda row: row["draws_at_limit"] > AT_LIMIT):
        yield f"Where the search ends, not the data, intervals end that rest on {names}."
    if failed := found["draws_failed"]:
        how = "far" if failed > kept else "rather"
        yield (
            f"{failed} of {failed + kept} resamples identified no law and were drawn again: "
            f"intervals are {how} too narrow."
        )


def _names(found: dict[str, Any], chosen: Callable[[dict[str, Any]], bool]) -> str:
    return ", ".join(row["name"] for row in found["coefficients"] if chosen(row))


def _with_ends(row: dict[str, Any], name: str) -> str:
    return "{:.3g} [{:.3g}, {:.3g}]".format(*(row[f"{name}{end}"] for end in ("", "_low", "_high")))


def _run(row: dict[str, Any]) -> dict[str, Any]:
    kept = {name: row[name] for name in ("size", "sparsity", "seed", "lr", "run")}
    return kept | {
        "n": row["non_embedding_parameters"],
        "tokens": row["tokens_trained"],
        "loss": row["validation_loss_nats"],
    }


def _tuned(record: Record) -> Iterator[dict[str, Any]]:
    """Runs of a tuning that did not explode."""
    step, about = record.params["batch_tokens"], {"seed": record.params["seeds"][0], "run": ""}
    for row in record.metrics["tuning"]:
        if row["loss"] is not None:
            n = flops.parameters(models.shape(row["size"]))
            asked = row.get("tokens", record.params["tuning_tokens"])  # older records say it once
            yield row | about | {"n": n, "tokens": -(-asked // step) * step}  # in whole steps


def _point(row: dict[str, Any]) -> tuple:
    return row["n"], row["sparsity"], row["tokens"], row["seed"]


def _coefficient(name: str, fitted: Law, drawn: Draws) -> dict[str, Any]:
    found = _valued("value", lambda one: getattr(one, name), fitted, drawn)
    at_limit = sum(name in one.at_limit for one in drawn.laws) / len(drawn.laws)
    width = GAMMA if name == "gamma" else found["value"]
    narrow = found["value_high"] - found["value_low"] <= width
    determined = narrow and at_limit <= AT_LIMIT and name not in fitted.at_limit
    return {"name": name} | found | {"draws_at_limit": at_limit, "determined": determined}


def _predictions(fitted: Law, drawn: Draws, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a size and sparsity: loss, and size of the dense model that is as good."""
    found = []
    for size, s in product(SIZES, SPARSITIES):
        n, tokens = flops.parameters(models.shape(size)), profile(size).tokens
        about = {"size": size, "sparsity": s, "n": n, "tokens": tokens}
        about |= {f"times_{name}": about[name] / max(row[name] for row in rows) for name in FAR}
        values = {
            "loss": lambda one, n=n, d=tokens, s=s: one.loss(n, d, s),
            "dense_size": lambda one, n=n, s=s: one.dense_size(n, s),
        }
        for name, value in values.items():
            about |= _valued(name, value, fitted, drawn)
        found.append(about)
    return found


def _valued(
    name: str, value: Callable[[Law], float], fitted: Law, drawn: Draws
) -> dict[str, float]:
    low, high = drawn.interval(value)
    return {name: float(value(fitted)), f"{name}_low": low, f"{name}_high": high}


def _error(rows: list[dict[str, Any]]) -> float | None:
    """Mean over the groups that could be predicted of their runs' mean absolute error, nats."""
    off: dict[tuple, list[float]] = {}
    for row in rows:
        if row["held_out"] is not None:
            off.setdefault(law.group(row), []).append(abs(row["held_out"] - row["loss"]))
    return fmean(map(fmean, off.values())) if off else None


def _noise(rows: list[dict[str, Any]]) -> float | None:
    """Standard deviation in nats among runs that differ in their seed alone, pooled."""
    points: dict[tuple, list[float]] = {}
    for row in rows:
        points.setdefault((*law.group(row), row["tokens"], row["lr"]), []).append(row["loss"])
    repeated = [losses for losses in points.values() if len(losses) > 1]
    if not repeated:
        return None
    squares = sum((loss - fmean(own)) ** 2 for own in repeated for loss in own)
    return math.sqrt(squares / sum(len(own) - 1 for own in repeated))
