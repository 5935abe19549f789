"""What a pre-training run is: everything that determines its numbers, in one frozen value.

Decisions: a configuration refuses what could only fail later, and says what the training loop is
told; it reads no text and makes no model. A profile is a whole configuration under a name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mediswift import engines, models, schedule
from mediswift.flops import Shape
from mediswift.patterns import parse
from mediswift.typed import settle

HOW = ("corpus", "engine", "sharded", "recompute")
"""Fields that change no number but in the last bits."""
LATER = {"keep_contaminated": False, "density_scaling": False, "moves": ""}
LATER |= {"moves_every": schedule.Rule.every, "moves_fraction": schedule.Rule.fraction}
"""Fields younger than the first runs: at these values a run's id knows nothing of them."""
MOST = 2**62
"""Tokens that can be counted."""
RECIPE = 2
"""Raised whenever the same configuration would give other numbers."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Everything that determines a pre-training run."""

    size: str
    """A name in `models.SIZES`."""
    corpus: str
    """Address of the documents."""
    tokens: int
    """Tokens to train on; rounded up to whole steps."""
    batch_tokens: int
    """Tokens of one optimizer step."""
    lr: float
    """Peak learning rate."""
    micro_batch: int = 4
    """Rows of one forward pass."""
    sparsity: float = 0.75
    """Fraction of weights removed from every matrix of every block."""
    pattern: str = "unstructured"
    """Shape of the zeros, as `patterns.parse` reads it."""
    engine: str = "auto"
    """What computes the sparse layers: see `engines`. No part of what a run is."""
    sharded: bool = False
    """Give each of several processes a part of the model (FSDP2). No part of what a run is."""
    recompute: bool = False
    """Compute activations again instead of keeping them. No part of what a run is."""
    seed: int = 0
    """Initialization, masks and order of the rows."""
    warmup: float = 0.05
    """Fraction of the steps spent warming up."""
    precision: str = "no"
    """Mixed precision: no | bf16 (on a GPU, or a CPU that multiplies it)."""
    validations: int = 5
    """How often to validate, evenly spread."""
    validation_rows: int = 0
    """Rows to validate on, the first of the held-out ones; 0 = all."""
    keep_contaminated: bool = False
    """Leave exam texts in what is read: only to measure what they are worth."""
    density_scaling: bool = False
    """Start kept weights larger, and let them learn faster, by the density: see `density`."""
    moves: str = ""
    """How masks move while training: set or rigl, see `dynamic`; "" = they stay, as the paper's."""
    moves_every: int = schedule.Rule.every
    """Steps between moves."""
    moves_fraction: float = schedule.Rule.fraction
    """Of the kept weights of each matrix, how many move at first."""

    def __post_init__(self) -> None:
        """Refuse what could only fail later, after the corpus has been read."""
        settle(self)
        pattern = parse(self.pattern)
        if self.sparsity:
            pattern.check(self.sparsity)
        else:  # a dense run is the same run, whatever is done to its sparse neighbors
            object.__setattr__(self, "pattern", "unstructured")
            object.__setattr__(self, "density_scaling", False)
            object.__setattr__(self, "moves", "")
        if self.moves and (self.pattern != "unstructured" or self.sharded):
            raise ValueError(
                "masks that move are unstructured, in whole matrices; got moves="
                f"{self.moves!r} with pattern={self.pattern!r} and sharded={self.sharded}"
            )
        if not self.moves:  # nor is it another one for what is not done
            object.__setattr__(self, "moves_every", LATER["moves_every"])
            object.__setattr__(self, "moves_fraction", LATER["moves_fraction"])
        context = models.shape(self.size).context
        whole = self.batch_tokens > 0 and self.batch_tokens % context == 0
        if not whole or self.tokens < self.batch_tokens:
            raise ValueError(
                f"batch_tokens is a positive multiple of the context {context} and at most tokens, "
                f"got batch_tokens={self.batch_tokens} and tokens={self.tokens}"
            )
        if self.tokens > MOST:
            raise ValueError(f"tokens are at most {MOST}, got {self.tokens}: train on fewer")
        if min(self.validations, self.validation_rows) < 0 or not 0 <= self.warmup <= 1:
            raise ValueError(
                "validations and validation_rows are 0 or more, and warmup is a fraction of the "
                f"steps; got validations={self.validations}, validation_rows="
                f"{self.validation_rows} and warmup={self.warmup:g}"
            )
        engines.check_name(self.engine)
        _ = self.loop  # refuses what the training loop refuses

    @property
    def shape(self) -> Shape:
        """Shape of the model."""
        return models.shape(self.size)

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return -(-self.tokens // self.batch_tokens)

    @property
    def rule(self) -> schedule.Rule | None:
        """How the masks move; None = they stay."""
        if not self.moves:
            return None
        return schedule.Rule(name=self.moves, every=self.moves_every, fraction=self.moves_fraction)

    @property
    def loop(self) -> schedule.Config:
        """What the training loop is told."""
        rows = self.batch_tokens // self.shape.context
        return schedule.Config(
            steps=self.steps,
            batch=rows,
            micro_batch=min(self.micro_batch, rows),
            lr=self.lr,
            warmup_steps=round(self.warmup * self.steps),
            precision=self.precision,
            evaluate_every=max(1, self.steps // max(1, self.validations)),
            save_every=max(1, self.steps // 10),
            seed=self.seed,
            density_scaling=self.density_scaling,
            moves=self.rule,
        )


PROFILES: dict[str, PretrainConfig] = {
    "tiny": PretrainConfig(
        size="tiny", corpus="sample:", tokens=20_480, batch_tokens=1_024, lr=3e-3
    ),
    "demo": PretrainConfig(
        size="demo", corpus="demo:", tokens=307_200, batch_tokens=1_024, lr=3e-3,
        warmup=0.1, validation_rows=48,
    ),
    "small": PretrainConfig(
        size="small", corpus="demo:", tokens=300_000_000, batch_tokens=131_072, lr=6e-4,
        micro_batch=16, precision="bf16",
    ),
    "med": PretrainConfig(
        size="med", corpus="demo:", tokens=104_857_600_000, batch_tokens=524_288, lr=2e-4,
        warmup=0.1, precision="bf16",
    ),
    "xl": PretrainConfig(
        size="xl", corpus="demo:", tokens=104_857_600_000, batch_tokens=524_288, lr=2e-4,
        warmup=0.1, precision="bf16", micro_batch=2,
    ),
}  # fmt: skip
"""tiny: tests, seconds, synthetic text. demo: CPU minutes. small: one GPU. med, xl: the paper's
scale."""


def profile(name: str, **changes: Any) -> PretrainConfig:
    """Return the configuration of a profile, with `changes` to its fields.

    >>> profile("demo", sparsity=0.5).sparsity
    0.5
    """
    if name not in PROFILES:
        raise ValueError(f"a profile is one of {', '.join(PROFILES)}; got {name!r}")
    return replace(PROFILES[name], **changes)
