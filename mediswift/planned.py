"""The run that a plan is made for, and the devices that it may be planned on.

Decisions: what training would refuse is not planned. The rules are training's own: a plan makes the
configuration of the run, asks for the processes it would start, and lets the engine look at a
matrix. What only the machine itself can say, such as whether a kernel is installed, is not asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property

from mediswift import models, schedule
from mediswift.configs import PretrainConfig
from mediswift.engines import AUTO, ENGINES
from mediswift.layouts import Layout, layout
from mediswift.masks import make_mask
from mediswift.patterns import FanIn, Unstructured, parse
from mediswift.typed import settle


@dataclass(frozen=True)
class Card:
    """A device that a run is planned for. Source: its vendor's datasheet."""

    memory: float
    """Bytes."""
    watts: float
    """Power limit of the board."""


CARDS = {
    "h200": Card(141e9, 700),  # NVIDIA H200 Tensor Core GPU, SXM
    "h100": Card(80e9, 700),  # NVIDIA H100 Tensor Core GPU, SXM5
    "a100": Card(80e9, 400),  # NVIDIA A100 80GB, SXM4
}
PROBE = 512
"""Width of the matrix whose index is measured, where the pattern fits any."""


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """The run, and what it is to run on."""

    size: str
    tokens: float
    sparsity: float = 0.75
    pattern: str = "unstructured"
    engine: str = "masked"
    """A name in `engines.ENGINES`; auto, which only training can measure, is planned as masked."""
    device: str = "h200"
    """A name in `CARDS`, or cpu."""
    gpus: int = 1
    sharded: bool = False
    """FSDP2: parameters, gradients and moments divided among the devices."""
    recompute: bool = False
    """Keep what enters a block alone, and compute the rest again for the backward pass."""
    precision: str = "bf16"
    batch_tokens: int = 524_288
    micro_batch: int = 0
    """Rows of a forward pass; 0 = the most that fit, a power of two."""
    gflops: float = 0.0
    """Measured GFLOP/s of a dense training step on one device; 0 = out of a bench record."""
    speedup: float = 0.0
    """Measured speed-up of the sparse step; 0 = out of the same record, else 1."""

    def __post_init__(self) -> None:
        """Refuse what there is no plan for, and what training would refuse."""
        settle(self)
        if self.device != "cpu" and self.device not in CARDS:
            raise ValueError(f"a device is cpu or one of {', '.join(CARDS)}; got {self.device!r}")
        if self.gpus < 1 or self.gflops < 0 or self.speedup < 0:
            raise ValueError(
                "gpus are 1 or more, gflops and speedup above 0, or 0 to take a record's; got "
                f"gpus={self.gpus}, gflops={self.gflops:g} and speedup={self.speedup:g}"
            )
        schedule.check_machine(self.loop, self.kind, self.gpus)
        if self.sparsity:
            self._check_engine()

    @cached_property
    def loop(self) -> schedule.Config:
        """What the training loop would be told."""
        run = PretrainConfig(
            size=self.size, corpus="", tokens=int(self.tokens), batch_tokens=self.batch_tokens,
            lr=1.0, sparsity=self.sparsity, pattern=self.pattern, precision=self.precision,
            engine=self.engine,
        )  # fmt: skip
        return replace(run.loop, micro_batch=self.micro_batch or 1)

    @property
    def kind(self) -> str:
        """Type of the device: cpu or cuda."""
        return "cpu" if self.device == "cpu" else "cuda"

    @property
    def computed(self) -> str:
        """Engine that is planned with."""
        return "masked" if self.engine == AUTO else self.engine

    @property
    def most(self) -> int:
        """Rows that a device has of each batch."""
        return -(-self.loop.batch // self.gpus)

    def _check_engine(self) -> None:
        matrix = probe(models.shape(self.size).n_embd, self.sparsity, self.pattern)
        if why_not := ENGINES[self.computed].unfit(matrix, self.kind, self.loop.dtype):
            raise ValueError(
                f"an engine computes the pattern on the device, got {self.pattern} on "
                f"{self.device}: {why_not}; use engine='masked', which computes any"
            )


@cache
def probe(width: int, sparsity: float, pattern: str) -> Layout:
    """A block's smallest matrix, (width, width): where it can have the pattern, all of them can.

    A smaller one where the pattern fits any.

    >>> probe(64, 0.75, "16x16").mask.shape
    torch.Size([64, 64])
    """
    side = min(width, PROBE) if isinstance(parse(pattern), Unstructured | FanIn) else width
    return layout(make_mask((side, side), sparsity, pattern, seed=0, name="probe"))
