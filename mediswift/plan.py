"""What a run will need, before it is paid for: memory, FLOPs, hours, energy, disk.

Decisions: everything is arithmetic on the shape, but two things are measured. What a layer keeps
for its backward pass was counted (`SAVED`, and a test counts again); the speed must come from a
bench record of the same device or be given: without either there are no hours, rather than a
guessed share of a datasheet's peak. A sparse run is only as much faster as that record says, 1.0
times without one, whatever its FLOPs. Energy is at the board's power limit: an upper end.
Parameters, gradients and Adam's two moments are float32, as `train` has them; optimizer states of
removed weights do not exist. Memory that a device's own libraries take is not in it. Whatever was
assumed is said.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from mediswift import flops, models, records
from mediswift.engines import AUTO, ENGINES
from mediswift.flops import Shape
from mediswift.loss import CHUNK
from mediswift.patterns import count, parse
from mediswift.planned import CARDS, PlanConfig, probe

FLOAT, HALF = 4, 2
SAVED = {"no": 64, "bf16": 40}
"""Bytes that a layer keeps for its backward pass, by token and unit of width; tests count them."""
DEALT = {"no": 12, "bf16": 2}
"""The same that `bmm` adds, which keeps inputs that it has dealt to its groups."""


def plan(config: PlanConfig, results: str | Path = "results") -> dict[str, Any]:
    """What it needs: `parameters`, `memory_bytes` of one device, `flops`, `time`, `disk_bytes`.

    `assumed` says what was planned otherwise than given, `fits` whether the card holds that memory
    (None for a CPU, whose memory is not known here). `time` holds hours, energy and where the rate
    is from, or `missing`, what to do to know it.

    >>> needed = plan(PlanConfig(size="xl", tokens=1e9, gflops=300_000))
    >>> round(needed["flops"]["reduction"], 2), needed["parameters"]["removed"] > 9e8
    (2.53, True)
    """
    shape = models.shape(config.size)
    counts = parameters(config, shape)
    rows = min(config.micro_batch, config.most) or largest(config, shape)
    held = memory(config, shape, max(1, rows))
    card, total = CARDS.get(config.device), flops.training(shape, config.tokens, config.sparsity)
    return {
        "config": asdict(config) | {"micro_batch": rows},
        "assumed": _assumed(config),
        "parameters": counts,
        "memory_bytes": held,
        "fits": held["total"] <= card.memory if card else None,
        "flops": asdict(total)
        | {"total": total.total, "reduction": flops.reduction(shape, config.sparsity)},
        "time": time(config, shape, Path(results)),
        "disk_bytes": disk(config, shape, counts),
    }


def told(needed: dict[str, Any]) -> str:
    """The same for reading."""
    config, hours = needed["config"], needed["time"]
    lines = [f"{config['size']}, {config['sparsity']:.0%} removed ({config['pattern']}), "]
    lines[0] += f"{config['tokens']:.4g} tokens on {config['gpus']} x {config['device']}"
    lines += needed["assumed"]
    lines += [f"{name:<24}{n / 1e6:14,.1f} million" for name, n in needed["parameters"].items()]
    rows = config["micro_batch"]
    lines.append(f"memory of one device, micro-batches of {rows} rows")
    lines += [f"  {name:<22}{n / 1e9:14,.1f} GB" for name, n in needed["memory_bytes"].items()]
    if not rows:
        lines.append("  not even one row fits: shard it, or take more or larger devices")
    elif needed["fits"] is False:
        room = f"the {CARDS[config['device']].memory / 1e9:,.0f} GB of one {config['device']}"
        lines.append(f"  does not fit into {room}: take fewer rows (0 = the most that fit)")
    lines.append("theoretical training FLOPs")
    terms = {k: v for k, v in needed["flops"].items() if k != "reduction"}
    lines += [f"  {name:<22}{n:14.3e}" for name, n in terms.items()]
    lines.append(f"  {'fewer than dense':<22}{needed['flops']['reduction']:14.2f} times")
    lines.append(hours.get("missing") or f"at {hours['gflops']:,.0f} GFLOP/s ({hours['rate']})")
    units = {"dense_hours": "h", "hours": "h", "device_hours": "h", "energy_kwh": "kWh"}
    lines += [f"  {n:<22}{hours[n]:14,.1f} {unit}" for n, unit in units.items() if n in hours]
    lines.append("disk, as if no token were read twice")
    return "\n".join(
        lines + [f"  {name:<22}{n / 1e9:14,.1f} GB" for name, n in needed["disk_bytes"].items()]
    )


def parameters(config: PlanConfig, shape: Shape) -> dict[str, int]:
    """Counts of all `dense` parameters with embeddings, of those `removed`, and those `trained`."""
    d = shape.n_embd
    places = shape.context + 2  # BioGPT's positions begin at 2
    dense = flops.parameters(shape) + (shape.vocab_size + places) * d
    sides = [(d, d)] * 4 + [(shape.n_inner, d), (d, shape.n_inner)]
    pattern, sparsity = parse(config.pattern), config.sparsity
    kept = sum(count(pattern, side, sparsity) for side in sides) if sparsity else 12 * d * d
    removed = shape.n_layer * (12 * d * d - kept)
    return {"dense": dense, "removed": removed, "trained": dense - removed}


def memory(config: PlanConfig, shape: Shape, rows: int) -> dict[str, float]:
    """Bytes on one device by what holds them, in micro-batches of `rows` rows, and their total."""
    share = config.gpus if config.sharded else 1
    trained = parameters(config, shape)["trained"]
    tokens, d, vocabulary = rows * shape.context, shape.n_embd, shape.vocab_size
    parts = {
        "parameters": FLOAT * trained / share,
        "gradients": FLOAT * trained / share,
        "moments": 2 * FLOAT * trained / share,
        "index": _index_bytes(config, shape),
        "activations": _activations(config, shape, tokens),
        # a chunk of logits, the gradients of the head and of what enters it
        "head": FLOAT * (CHUNK * vocabulary + vocabulary * d + tokens * d),
        "exchange": FLOAT * _exchanged(config, shape, trained),
    }
    return parts | {"total": sum(parts.values())}


def largest(config: PlanConfig, shape: Shape) -> int:
    """The most rows of a micro-batch, a power of two, that fit; 0 when not even one does.

    On a CPU, whose memory is not known here, 1.
    """
    if config.device == "cpu":
        return 1
    room, rows = CARDS[config.device].memory, 1
    if memory(config, shape, 1)["total"] > room:
        return 0
    while 2 * rows <= config.most and memory(config, shape, 2 * rows)["total"] <= room:
        rows *= 2
    return rows


def time(config: PlanConfig, shape: Shape, results: Path) -> dict[str, Any]:
    """Hours of the dense and of the sparse run, energy of the latter, and the rate's source."""
    rate, speedup, source = config.gflops, config.speedup or 1.0, "given"
    if not rate:
        found = _measured(config, results)
        if not found:
            wanted = "cpu" if config.device == "cpu" else "cuda"
            words = f"--device {wanted} --precision {config.precision} --out results"
            way_out = f"`python -m mediswift bench {words}` on it"
            return {
                "missing": f"no measured rate for {config.device}: give --gflops, or run {way_out}"
            }
        rate, speedup, source = found
        speedup = config.speedup or speedup
    seconds = flops.training(shape, config.tokens).total / (rate * 1e9 * config.gpus)
    hours = {"dense_hours": seconds / 3600, "hours": seconds / 3600 / speedup}
    hours |= {"device_hours": hours["hours"] * config.gpus}
    if config.device in CARDS:
        hours["energy_kwh"] = hours["device_hours"] * CARDS[config.device].watts / 1e3
    return hours | {"gflops": rate, "speedup": speedup, "rate": source}


def disk(config: PlanConfig, shape: Shape, counts: dict[str, int]) -> dict[str, float]:
    """Bytes of the packed rows, of two checkpoints with moments, and of the finished model."""
    return {
        "rows": config.tokens * (2 if shape.vocab_size <= 2**16 else 4),
        "checkpoints": 2 * 3 * FLOAT * counts["trained"],
        "model": FLOAT * counts["dense"],
    }


def _exchanged(config: PlanConfig, shape: Shape, trained: int) -> float:
    # DDP's buckets hold every gradient a second time; FSDP2 gathers a block while it computes
    # another, with its gradient, and keeps embedding and head whole
    if config.gpus == 1:
        return 0.0
    root = (shape.vocab_size + shape.context + 2) * shape.n_embd
    return 3 * (trained - root) / shape.n_layer + 2 * root if config.sharded else trained


def _activations(config: PlanConfig, shape: Shape, tokens: int) -> float:
    # Kept by every layer; then the last norm's input and output, and the embedding's
    each = SAVED[config.precision] + (DEALT[config.precision] if config.computed == "bmm" else 0)
    attention = FLOAT * shape.n_head  # one sum of exponentials a head
    layer = tokens * (each * shape.n_embd + attention) + _copies(config, shape)
    entering = FLOAT * tokens * shape.n_embd
    blocks = shape.n_layer * entering + layer if config.recompute else shape.n_layer * layer
    return blocks + 3 * entering


def _copies(config: PlanConfig, shape: Shape) -> float:
    # A layer's matrices as they are multiplied, kept until its gradients are known
    full, half = 12 * shape.n_embd**2, config.precision == "bf16"
    own = full * (1 - config.sparsity)
    if not config.sparsity:
        return full * HALF * half
    each = {"native": 0.0, "bmm": own, "triton": own}.get(config.computed, full)
    return each * (HALF if half else FLOAT)


def _index_bytes(config: PlanConfig, shape: Shape) -> float:
    if not config.sparsity:
        return 0.0
    weights = 12 * shape.n_layer * shape.n_embd**2 * (1 - config.sparsity)
    each = _bytes_a_weight(config.computed, shape.n_embd, config.sparsity, config.pattern)
    return weights * each


@cache
def _bytes_a_weight(engine: str, width: int, sparsity: float, pattern: str) -> float:
    """Bytes of an engine's index by kept weight, measured on a matrix that has the pattern."""
    matrix = probe(width, sparsity, pattern)
    index = ENGINES[engine].index(matrix)
    return sum(tensor.nbytes for tensor in index) / max(1, int(matrix.mask.sum()))


def _assumed(config: PlanConfig) -> list[str]:
    said = []
    if config.engine == AUTO and config.sparsity:
        said.append("engine auto planned as masked: training measures, and may choose another")
    if config.micro_batch > config.most:
        said.append(f"micro-batches of {config.most} rows: a device has no more of a batch")
    return said


def _measured(config: PlanConfig, results: Path) -> tuple[float, float, str] | None:
    """GFLOP/s of the largest dense step, and the sparse one's speed-up, out of the newest bench
    record of steps so large, among them of the pattern and sparsity if there is one."""
    found = [
        (dense["matrix_bytes"], bool(sparse), record.created_utc, record.id, dense, sparse)
        for record in records.of_kind(results, "bench")
        if config.device in record.env["device"].lower()
        and record.params.get("precision", "no") == config.precision
        for dense, sparse in [_largest(record, config)]
    ]
    if not found:
        return None
    *_, name, dense, sparse = max(found, key=lambda one: one[:3])
    return dense["gflops"], sparse.get("speedup", 1.0), name


def _largest(record: records.Record, config: PlanConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Row of the dense step of the most weights; of the sparse step beside it, {} for none."""
    steps = records.steps(record)
    dense = max((r for r in steps if not r["sparsity"]), key=lambda row: row["matrix_bytes"])
    wanted = {"size": dense["size"], "pattern": config.pattern, "sparsity": config.sparsity}
    return dense, next((row for row in steps if wanted.items() <= row.items()), {})
