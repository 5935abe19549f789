"""Boolean masks (True = kept) as pure functions of (seed, name, shape, sparsity, pattern).

Decisions: a mask never depends on call order, rank, device or process, so no mask is ever
broadcast. Scores are uniform; the highest are kept, exactly k of them per matrix (never a
Bernoulli draw, whose density wanders). A matrix is always read as (outputs, inputs): groups of N:M
run along the inputs, the axis that a matrix product sums over.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from mediswift.flops import check_sparsity


@dataclass(frozen=True)
class Unstructured:
    """Any weight may be kept: the paper's pattern."""

    def check(self, sparsity: float) -> None:
        """Raise ValueError unless the pattern can have this sparsity."""
        check_sparsity(sparsity)

    def keep(self, scores: Tensor, sparsity: float) -> Tensor:
        """Mask of `scores` (O, I) that keeps the highest `kept(O * I, sparsity)` of them."""
        self.check(sparsity)
        return _highest(scores.reshape(1, -1), kept(scores.numel(), sparsity)).view(scores.shape)

    def __str__(self) -> str:
        """Return the string form that `parse` reads."""
        return "unstructured"


@dataclass(frozen=True)
class NM:
    """N kept of every M neighbors along the input axis, written "2:4"."""

    n: int
    m: int

    def __post_init__(self) -> None:
        """Refuse a group that keeps nothing or more than it has."""
        if not 0 < self.n <= self.m:
            raise ValueError(f"N:M keeps 0 < N <= M weights of every M, got {self}; try '2:4'")

    def check(self, sparsity: float) -> None:
        """Raise ValueError unless the pattern can have this sparsity."""
        check_sparsity(sparsity)
        if abs(sparsity - (1 - self.n / self.m)) > 1e-9:
            raise ValueError(
                f"pattern {self} fixes the sparsity at {1 - self.n / self.m:g}, got {sparsity}; "
                "use that value or pattern='unstructured'"
            )

    def keep(self, scores: Tensor, sparsity: float) -> Tensor:
        """Mask of `scores` (O, I) with the N highest of each group of M kept."""
        self.check(sparsity)
        if scores.shape[1] % self.m:
            raise ValueError(
                f"{self} needs an input size that is a multiple of {self.m}, got "
                f"{scores.shape[1]}; change n_embd or use pattern='unstructured'"
            )
        return _highest(scores.reshape(-1, self.m), self.n).view(scores.shape)

    def __str__(self) -> str:
        """Return the string form that `parse` reads."""
        return f"{self.n}:{self.m}"


@dataclass(frozen=True)
class Block:
    """Whole rectangles are kept or removed, written "16x16" (outputs x inputs)."""

    rows: int
    cols: int

    def check(self, sparsity: float) -> None:
        """Raise ValueError unless the pattern can have this sparsity."""
        check_sparsity(sparsity)

    def keep(self, scores: Tensor, sparsity: float) -> Tensor:
        """Mask of `scores` (O, I) that keeps the blocks whose first score is highest."""
        self.check(sparsity)
        if scores.shape[0] % self.rows or scores.shape[1] % self.cols:
            raise ValueError(
                f"{self} blocks need a matrix of whole blocks, got {tuple(scores.shape)}; "
                "change n_embd or use pattern='unstructured'"
            )
        blocks = Unstructured().keep(scores[:: self.rows, :: self.cols], sparsity)
        return blocks.repeat_interleave(self.rows, 0).repeat_interleave(self.cols, 1)

    def __str__(self) -> str:
        """Return the string form that `parse` reads."""
        return f"{self.rows}x{self.cols}"


Pattern = Unstructured | NM | Block


def parse(pattern: str) -> Pattern:
    """Pattern from its string form: "unstructured", "N:M" or "RxC". The only place that reads it.

    >>> parse("2:4")
    NM(n=2, m=4)
    """
    if pattern == "unstructured":
        return Unstructured()
    if match := re.fullmatch(r"([1-9]\d*):([1-9]\d*)", pattern):
        return NM(int(match[1]), int(match[2]))
    if match := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", pattern):
        return Block(int(match[1]), int(match[2]))
    raise ValueError(
        f"a pattern is 'unstructured', N:M such as '2:4', or ROWSxCOLS such as '16x16'; got "
        f"{pattern!r}"
    )


def kept(size: int, sparsity: float) -> int:
    """How many of `size` weights stay at `sparsity`: the whole part, as in the authors' library.

    >>> kept(35, 0.5)
    17
    """
    return math.floor(size * (1 - sparsity) + 1e-6)  # 10 * (1 - 0.9) is 0.99...


def make_mask(
    shape: tuple[int, int], sparsity: float, pattern: str, *, seed: int, name: str
) -> Tensor:
    """Boolean mask of `shape` (O, I), the same in every process for the same arguments.

    >>> int(make_mask((8, 8), 0.75, "unstructured", seed=0, name="h.0.q").sum())
    16
    """
    return parse(pattern).keep(_scores(shape, seed, name), sparsity)


def _scores(shape: tuple[int, int], seed: int, name: str) -> Tensor:
    # blake2b, not hash(): Python's own differs from one process to the next
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=7).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest, "little"))
    return torch.rand(shape, generator=generator)


def _highest(scores: Tensor, k: int) -> Tensor:
    # Stable, so that equal scores are kept from the left and the count is exact even among ties
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, True)
