"""Seconds against theory: training steps of dense and sparse models, interleaved in one process.

Decisions: all contestants are alive at once and take turns, step by step, so that whatever disturbs
the machine disturbs all of them; a speed-up is the median over rounds of the ratio within a round,
between its quartiles. In half precision on a CPU the dense step of float32 takes its turns too:
what precision gives and what sparsity gives are two things. A step is cut where one can wait:
forward through the blocks, head and loss (with both of the head's gradients), backward through the
blocks, clipping and optimizer.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from mediswift import flops, machine, models, peers, sparse, train
from mediswift.flops import Shape
from mediswift.loss import headless, summed_cross_entropy
from mediswift.masks import can_have
from mediswift.records import Record, run_id
from mediswift.schedule import Config, check_machine
from mediswift.stats import spread

DENSE, FLOAT = "dense", "dense, float32"
PARTS = ("forward", "head", "backward", "optimizer")
SHAPES = {
    "d512": Shape(n_layer=6, n_embd=512, n_head=8, context=512, vocab_size=16_384),
    "d1024": Shape(n_layer=6, n_embd=1024, n_head=16, context=512, vocab_size=16_384),
    "d2048": Shape(n_layer=6, n_embd=2048, n_head=16, context=2048, vocab_size=42_384),
} | models.SIZES


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What is timed."""

    sizes: tuple[str, ...] = ("d512", "d1024")
    """Names in `SHAPES`."""
    patterns: tuple[str, ...] = ("unstructured", "16x1", "16x16", "diagonal:4")
    sparsities: tuple[float, ...] = (0.75,)
    """Patterns that cannot have one of these are left out of it."""
    tokens: int = 1024
    """Tokens of a step, in rows of the shape's context, or of `tokens` where that is shorter."""
    rounds: int = 7
    """Steps of each contestant that are counted, after one that is not."""
    device: str = "cpu"
    precision: str = ""
    """Mixed precision: no | bf16; "" = bf16 on a GPU, no on a CPU."""
    peers: bool = True
    """Whether torch's own sparse formats and Hugging Face's Trainer run along."""
    engine: str = "auto"

    @property
    def loop(self) -> Config:
        """How a contestant trains."""
        usual = "bf16" if self.device.startswith("cuda") else "no"
        return Config(steps=1, batch=1, micro_batch=1, lr=1e-4, precision=self.precision or usual)

    @property
    def half_on_cpu(self) -> bool:
        """Whether a CPU multiplies in half precision."""
        return self.device == "cpu" and self.loop.precision == "bf16"


@dataclass
class Contestant:
    """A model, its optimizer, and the seconds of its parts, one number a round."""

    name: str
    sparsity: float
    model: nn.Module
    optimizer: torch.optim.Optimizer
    precision: str = "no"
    seconds: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in PARTS})

    @property
    def engine(self) -> str:
        """What computes the sparse layers."""
        return ", ".join(sorted({layer.current for layer in sparse.layers(self.model)})) or DENSE

    def step(self, ids: Tensor) -> None:
        """One training step on ids (B, T + 1), its parts timed."""
        head, device = self.model.get_output_embeddings(), ids.device
        half = torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with _timed(self.seconds["forward"], device), half, headless(head):
            hidden = self.model(input_ids=ids[:, :-1]).logits
        cut = hidden.detach().requires_grad_()
        with _timed(self.seconds["head"], device), half:
            targets = ids[:, 1:].flatten()
            loss = summed_cross_entropy(cut.flatten(0, 1), head.weight, targets)
            (loss / targets.numel()).backward()
        with _timed(self.seconds["backward"], device):
            hidden.backward(cut.grad)
        with _timed(self.seconds["optimizer"], device):
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()


def bench(config: BenchConfig) -> Record:
    """Record whose `rows` are the table: see `table` and `peers`.

    Raises ValueError for a size or pattern that has no name, a device that is not there or has no
    such precision, or an engine that cannot compute a pattern.
    """
    unknown = [size for size in config.sizes if size not in SHAPES]
    if unknown:
        raise ValueError(f"a size is one of {', '.join(SHAPES)}; got {', '.join(unknown)}")
    device = torch.device(config.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' needs a GPU, and torch sees none; use --device cpu")
    check_machine(config.loop, device.type, 1)
    config = replace(config, precision=config.loop.precision)
    machine.keep_memory()
    rows, about = [], {"peak_gflops": peak(device, config.loop.dtype)}
    for size in config.sizes:
        rows += _of_size(size, config, device, about["peak_gflops"])
    label = f"{config.device}-{'-'.join(config.sizes)}"
    return Record(
        id=run_id("bench", label, asdict(config) | {"rows": rows}),  # measured again, kept beside
        kind="bench",
        params=asdict(config),
        metrics=about | {"rows": rows},
        data_fingerprint="",
        env=machine.environment(),
    )


def contestants(shape: Shape, config: BenchConfig, device: torch.device) -> list[Contestant]:
    """The dense model and each pattern at each sparsity that it can have, equally initialized."""
    made = [_contestant(DENSE, 0.0, shape, config, device)]
    for sparsity in config.sparsities:
        for pattern in config.patterns:
            # 2:4 is half, diagonal:4 three quarters, 128x128 wants whole blocks
            if can_have((shape.n_embd, shape.n_embd), sparsity, pattern):
                made.append(_contestant(pattern, sparsity, shape, config, device))
    return made


def table(field: list[Contestant], shape: Shape, peak_gflops: float, tokens: int) -> list[dict]:
    """One row a contestant and part: seconds and speed-up (medians, quartiles), against theory.

    `blocks` is forward and backward, `step` all four parts. `gflops` counts what the mathematics
    needs, kept weights only; `peak_share` is its share of the dense product measured beside.
    """
    dense = _with_sums(field[0].seconds)
    rows = []
    for one in field:
        seconds = _with_sums(one.seconds)
        rows += [_row(one, part, seconds[part], dense[part]) for part in seconds]
        needed = flops.training(shape, tokens, one.sparsity).total / 1e9
        step = rows[-1]
        step["gflops"] = needed / step["seconds"]
        step["peak_share"] = step["gflops"] / peak_gflops
        step["theory"] = flops.training(shape, tokens).total / 1e9 / needed
        step["matrix_bytes"] = matrix_bytes(one)
    return rows


def told(record: Record) -> str:
    """Table of the steps for reading: a line a contestant, speed-ups by part."""
    lines = [
        f"{record.env['device']}, {record.env['threads']} threads, "
        f"precision {record.params.get('precision', 'no')}, "
        f"dense product {record.metrics['peak_gflops']:,.0f} GFLOP/s",
        f"{'size':<7}{'pattern':<14}{'removed':>8}{'engine':>16}{'step s':>9}{'blocks x':>10}"
        f"{'step x':>8}{'quartiles':>14}{'theory x':>10}{'of peak':>9}{'state x':>9}",
    ]
    rows = record.metrics["rows"]
    dense_bytes = {row["size"]: row["matrix_bytes"] for row in rows[::-1] if row.get("theory") == 1}
    for row in (row for row in rows if row["part"] == "step"):
        blocks = next((r for r in rows if r["part"] == "blocks" and _same(r, row)), None)
        line = (
            f"{row['size']:<7}{row['pattern']:<14}{row['sparsity']:>8.0%}{row['engine']:>16}"
            f"{row['seconds']:>9.3f}{blocks['speedup'] if blocks else float('nan'):>10.2f}"
            f"{row['speedup']:>8.2f}{row['speedup_low']:>8.2f}-{row['speedup_high']:.2f}"
        )
        if "theory" in row:
            state = row["matrix_bytes"] / dense_bytes[row["size"]]
            line += f"{row['theory']:>11.2f}{row['peak_share']:>9.0%}{state:>9.2f}"
        lines.append(line)
    return "\n".join(lines)


def matrix_bytes(one: Contestant) -> int:
    """Bytes of gradients and Adam's moments of the blocks' matrices: what sparsity saves."""
    if one.sparsity:
        held = [layer.values for layer in sparse.layers(one.model)]
    else:
        held = [module.weight for _, module in sparse.sparsifiable(one.model)]
    moments = [v for p in held for k, v in one.optimizer.state[p].items() if k != "step"]
    return sum(t.numel() * t.element_size() for t in [*moments, *held])  # a gradient is as large


def peak(device: torch.device, dtype: torch.dtype) -> float:
    """GFLOP/s of a large dense product at its best, in the type that training multiplies in."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    taken: list[float] = []
    for _ in range(20):
        with _timed(taken, device):
            a @ b
    return 2 * size**3 / min(taken) / 1e9


def _of_size(
    size: str, config: BenchConfig, device: torch.device, peak_gflops: float
) -> list[dict]:
    context = min(SHAPES[size].context, config.tokens)
    shape = replace(SHAPES[size], context=context)
    field = contestants(shape, config, device)
    generator = torch.Generator().manual_seed(0)
    rows_of_ids = config.tokens // context
    ids = torch.randint(2, shape.vocab_size, (rows_of_ids, context + 1), generator=generator)
    ids = ids.to(device)
    trainer, beside = None, []
    if config.peers:
        theirs = models.build(shape, seed=0).to(device)  # which the Trainer changes
        trainer = peers.TrainerSteps(theirs, ids, config.loop.precision)
    if config.peers and config.half_on_cpu:
        beside = [_contestant(DENSE, 0.0, shape, replace(config, precision="no"), device)]
    for turn in tqdm(range(1 + config.rounds), desc=f"bench {size}", leave=False):
        for one in [*field, *beside]:
            one.step(ids)
            if turn == 0:  # measures, chooses, compiles, warms up
                one.seconds = {part: [] for part in PARTS}
        if trainer:
            trainer.steps(counted=turn > 0)
    rows = table(field, shape, peak_gflops, ids[:, 1:].numel())
    if trainer:
        rows.append(_peer_row("hf trainer", "step", trainer.seconds, field[0]))
        for one in beside:
            rows.append(_peer_row(FLOAT, "step", _with_sums(one.seconds)["step"], field[0]))
        if not config.half_on_cpu:  # torch has its formats in float32
            rows += peers.formats(shape, config.tokens, max(config.sparsities), device)
    return [{"size": size} | row for row in rows]


def _contestant(
    pattern: str, sparsity: float, shape: Shape, config: BenchConfig, device: torch.device
) -> Contestant:
    model = models.build(shape, seed=0)
    if sparsity:
        sparse.sparsify(model, sparsity, pattern, engine=config.engine)
    optimizer = train.make_optimizer(model.to(device), config.loop)
    return Contestant(pattern, sparsity, model, optimizer, config.loop.precision)


def _with_sums(parts: dict[str, list[float]]) -> dict[str, list[float]]:
    def add(names: Iterable[str]) -> list[float]:
        return [sum(turn) for turn in zip(*(parts[name] for name in names), strict=True)]

    return parts | {"blocks": add(["forward", "backward"]), "step": add(PARTS)}


def _row(one: Contestant, part: str, seconds: list[float], dense: list[float]) -> dict[str, Any]:
    about = {"pattern": one.name, "sparsity": one.sparsity, "engine": one.engine, "part": part}
    return about | against(seconds, dense)


def _peer_row(name: str, part: str, seconds: list[float], dense: Contestant) -> dict[str, Any]:
    steps = _with_sums(dense.seconds)["step"]
    about = {"pattern": DENSE, "sparsity": 0.0, "engine": name, "part": part}
    return about | against(seconds, steps)


def against(seconds: list[float], dense: list[float]) -> dict[str, float]:
    """Median seconds with quartiles, and the speed-up over dense, turn by turn, with its own.

    >>> against([1.0, 1.0, 1.0], [2.0, 2.0, 2.0])["speedup"]
    2.0
    """
    ratios = [d / s for d, s in zip(dense, seconds, strict=True)]
    return spread("seconds", seconds) | spread("speedup", ratios)


def _same(one: dict, other: dict) -> bool:
    return all(one[k] == other[k] for k in ("size", "pattern", "sparsity", "engine"))


@contextmanager
def _timed(into: list[float], device: torch.device) -> Iterator[None]:
    began = time.perf_counter()
    yield
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    into.append(time.perf_counter() - began)
