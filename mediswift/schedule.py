"""How to train, as pure functions of (configuration, step): what is due, at which rate, on what.

Decisions: nothing remembers where it was. A resumed run asks for step 1,234 and gets what an
uninterrupted one got, so no state of a data loader or a scheduler is ever saved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from mediswift.native import multiplies_bf16

SET, RIGL = "set", "rigl"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How masks move: `set` or `rigl`, by default at the pace of RigL's authors."""

    name: str
    every: int = 100
    """Steps between moves."""
    fraction: float = 0.3
    """Of the kept weights of each matrix, how many move at first."""
    until: float = 0.75
    """Fraction of the run after which nothing moves."""

    def __post_init__(self) -> None:
        """Refuse what is no rule."""
        if self.name not in (SET, RIGL):
            raise ValueError(f"masks move by {SET} or {RIGL}; got {self.name!r}")
        if self.every < 1 or not 0 < self.fraction < 1 or not 0 < self.until <= 1:
            raise ValueError(
                "moves need every >= 1, 0 < fraction < 1 and 0 < until <= 1, got "
                f"every={self.every}, fraction={self.fraction}, until={self.until}"
            )

    def moving(self, step: int, steps: int) -> float:
        """Fraction of the kept weights that moves after step `step` of `steps`, from 1 on.

        >>> [round(Rule(name="set").moving(step, 400), 3) for step in (100, 150, 200, 300)]
        [0.225, 0.0, 0.075, 0.0]
        """
        last = self.until * steps
        if step % self.every or step >= last:
            return 0.0
        return self.fraction / 2 * (1 + math.cos(math.pi * step / last))


@dataclass(frozen=True, kw_only=True)
class Config:
    """How to train: AdamW, linear warm-up, cosine decay, clipping, accumulation."""

    steps: int
    """Optimizer steps."""
    batch: int
    """Examples of one optimizer step, over all processes."""
    micro_batch: int
    """Examples of one forward pass in one process; gradients accumulate over the batch."""
    lr: float
    """Peak learning rate."""
    warmup_steps: int = 0
    """Steps of linear warm-up from zero."""
    final_lr: float = 0.1
    """Learning rate at the end, as a fraction of the peak."""
    weight_decay: float = 0.1
    """AdamW's, on matrices only."""
    density_scaling: bool = False
    """Multiply the rate of a sparse layer's kept weights by 1 / its density: see `density`."""
    beta2: float = 0.95
    clip: float = 1.0
    """Largest global gradient norm."""
    precision: str = "no"
    """Mixed precision: no | bf16 (on a GPU, or a CPU that multiplies it: others are far slower)."""
    evaluate_every: int = 0
    """Steps between validations; 0 = only at the end."""
    save_every: int = 0
    """Steps between checkpoints; 0 = only at the end."""
    log_every: int = 10
    """Steps between lines of metrics."""
    seed: int = 0
    """Order of the examples, dropout."""
    moves: Rule | None = None
    """How the masks of a sparse model move; None = they stay."""

    def __post_init__(self) -> None:
        """Refuse numbers that contradict each other."""
        if self.steps < 1 or not 1 <= self.micro_batch <= self.batch:
            raise ValueError(
                "training needs steps >= 1 and 1 <= micro_batch <= batch, got "
                f"steps={self.steps}, micro_batch={self.micro_batch}, batch={self.batch}"
            )
        if self.lr <= 0 or self.warmup_steps < 0:
            raise ValueError(
                "a rate is above 0, and its warm-up takes 0 steps or more; got "
                f"lr={self.lr:g} and warmup_steps={self.warmup_steps}"
            )
        if self.precision not in ("no", "bf16"):
            raise ValueError(f"precision is no or bf16; got {self.precision!r}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"a seed is 0 or more, and below 2^32; got {self.seed}")
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps={self.warmup_steps} exceeds steps={self.steps}")

    @property
    def dtype(self) -> torch.dtype:
        """Type that matrices are multiplied in."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32


def check_machine(config: Config, device: str, processes: int) -> None:
    """Raise ValueError unless `processes` processes, each on a `device` (cpu, cuda), can train so.

    A CPU that only imitates bf16 takes tens of times longer than without mixed precision, and
    every process needs an example of each batch.
    """
    if device == "cpu" and config.precision != "no" and not multiplies_bf16():
        raise ValueError(
            "mixed precision needs a GPU, or a CPU that multiplies bf16 (AVX512-BF16), got "
            f"precision={config.precision!r} on a CPU that does not, and is far slower so; use "
            "precision='no'"
        )
    if processes > config.batch:
        raise ValueError(
            f"every process needs an example of each step, got {processes} processes for a batch "
            f"of {config.batch}; raise the batch, or start fewer"
        )


def learning_rate(step: int, config: Config) -> float:
    """Rate of step `step` (from 0): linear warm-up, then a cosine down to `final_lr` of the peak.

    >>> learning_rate(0, Config(steps=10, batch=1, micro_batch=1, lr=1.0, warmup_steps=2))
    0.5
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.lr * (
        config.final_lr + (1 - config.final_lr) * (1 + math.cos(math.pi * done)) / 2
    )


def indices_of(step: int, examples: int, config: Config) -> np.ndarray:
    """Indices of the examples of step `step`, (batch,): each epoch is a new permutation.

    >>> sorted(indices_of(0, 4, Config(steps=1, batch=4, micro_batch=4, lr=1.0)).tolist())
    [0, 1, 2, 3]
    """
    positions = np.arange(step * config.batch, (step + 1) * config.batch)
    orders = [_permutation(config.seed, int(epoch), examples) for epoch in positions // examples]
    return np.array([order[p] for order, p in zip(orders, positions % examples, strict=True)])


def is_due(step: int, every: int) -> bool:
    """Whether something done every so many steps is due after `step`; 0 = never.

    >>> is_due(10, 5), is_due(10, 0)
    (True, False)
    """
    return every > 0 and step % every == 0


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, examples: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(examples)
