"""Sparsity patterns as data: which weights of a matrix may be kept together, and how many.

Decisions: a pattern is a value with a string form; `keep` turns uniform scores into a mask and does
nothing else, so it can be tested on matrices written out by hand. A matrix is always read as
(outputs, inputs). The highest scores are kept, and exactly as many as the sparsity says (never a
Bernoulli draw, whose density wanders). `alive` then gives a row or column that lost all of its
weights one of a fuller one's, as far as the count allows: a dead output or input is never trained.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from mediswift.flops import check_sparsity

RUN = 16
"""Outputs that a block-diagonal matrix moves together: a vector register's worth, so that a kernel
reads and writes whole runs."""


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
class FanIn:
    """Every output keeps equally many inputs, wherever they are: written "fan-in"."""

    def check(self, sparsity: float) -> None:
        """Raise ValueError unless the pattern can have this sparsity."""
        check_sparsity(sparsity)

    def keep(self, scores: Tensor, sparsity: float) -> Tensor:
        """Mask of `scores` (O, I) with the `kept(I, sparsity)` highest of each row kept."""
        self.check(sparsity)
        return _highest(scores, kept(scores.shape[1], sparsity))

    def __str__(self) -> str:
        """Return the string form that `parse` reads."""
        return "fan-in"


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
        _fixed(self, sparsity, 1 - self.n / self.m)

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
    """Whole rectangles are kept or removed, written "16x16" (outputs x inputs).

    "16x1" keeps or removes columns of sixteen outputs: as fine as a vector kernel allows.
    """

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


@dataclass(frozen=True)
class BlockDiagonal:
    """Outputs and inputs are dealt to groups, each group dense in itself: written "diagonal:4".

    The deal is a random permutation on each side, drawn anew for every matrix, so that what one
    matrix keeps apart the next one mixes. Outputs move in runs of `RUN`, where they divide so.
    """

    groups: int

    def check(self, sparsity: float) -> None:
        """Raise ValueError unless the pattern can have this sparsity."""
        _fixed(self, sparsity, 1 - 1 / self.groups)

    def keep(self, scores: Tensor, sparsity: float) -> Tensor:
        """Mask of `scores` (O, I): the order of its first column and row deals the groups."""
        self.check(sparsity)
        outputs, inputs = scores.shape
        if outputs % self.groups or inputs % self.groups:
            raise ValueError(
                f"{self} needs outputs and inputs that are multiples of {self.groups}, got "
                f"{tuple(scores.shape)}; change n_embd or use pattern='unstructured'"
            )
        run = math.gcd(outputs // self.groups, RUN)
        group_of_output = _dealt(scores[::run, 0], self.groups).repeat_interleave(run)
        return group_of_output[:, None] == _dealt(scores[0], self.groups)[None]

    def __str__(self) -> str:
        """Return the string form that `parse` reads."""
        return f"diagonal:{self.groups}"


Pattern = Unstructured | FanIn | NM | Block | BlockDiagonal


def parse(pattern: str) -> Pattern:
    """Pattern from its string form; the only place that reads it.

    >>> parse("2:4")
    NM(n=2, m=4)
    """
    if pattern == "unstructured":
        return Unstructured()
    if pattern == "fan-in":
        return FanIn()
    if match := re.fullmatch(r"diagonal:([1-9]\d*)", pattern):
        return BlockDiagonal(int(match[1]))
    if match := re.fullmatch(r"([1-9]\d*):([1-9]\d*)", pattern):
        return NM(int(match[1]), int(match[2]))
    if match := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", pattern):
        return Block(int(match[1]), int(match[2]))
    raise ValueError(
        "a pattern is 'unstructured', 'fan-in', N:M such as '2:4', ROWSxCOLS such as '16x16', or "
        f"'diagonal:GROUPS' such as 'diagonal:4'; got {pattern!r}"
    )


def kept(size: int, sparsity: float) -> int:
    """How many of `size` weights stay at `sparsity`: the whole part, as in the authors' library.

    >>> kept(35, 0.5)
    17
    """
    return math.floor(size * (1 - sparsity) + 1e-6)  # 10 * (1 - 0.9) is 0.99...


def count(pattern: Pattern, shape: tuple[int, int], sparsity: float) -> int:
    """How many weights a mask of `shape` (O, I) keeps, without drawing it.

    >>> count(parse("16x1"), (32, 64), 0.75), count(parse("fan-in"), (32, 64), 0.9)
    (512, 192)
    """
    outputs, inputs = shape
    if isinstance(pattern, NM | BlockDiagonal):
        return round(outputs * inputs * (1 - sparsity))
    if isinstance(pattern, FanIn):
        return outputs * kept(inputs, sparsity)
    whole = pattern.rows * pattern.cols if isinstance(pattern, Block) else 1
    return whole * kept(outputs * inputs // whole, sparsity)


def alive(pattern: Pattern, mask: Tensor, scores: Tensor) -> Tensor:
    """Return `mask` (O, I) with the same counts, and a kept weight in every row and column.

    A weight moves within the run of weights whose count is part of the pattern: a group of N:M, a
    row of constant fan-in, else the whole matrix; of blocks whole ones move. Where fewer weights
    than rows or columns are kept, some stay dead.

    >>> mask = torch.tensor([[True, True], [False, False]])
    >>> alive(Unstructured(), mask, torch.tensor([[0.9, 0.8], [0.1, 0.2]])).tolist()
    [[True, False], [False, True]]
    """
    if isinstance(pattern, Block):
        each = slice(None, None, pattern.rows), slice(None, None, pattern.cols)
        coarse = alive(Unstructured(), mask[each].clone(), scores[each])
        return coarse.repeat_interleave(pattern.rows, 0).repeat_interleave(pattern.cols, 1)
    budget = {NM: getattr(pattern, "m", 0), FanIn: mask.shape[1]}.get(type(pattern), mask.numel())
    return mask if mask.any(0).all() and mask.any(1).all() else _revived(mask, scores, budget)


def _fixed(pattern: Pattern, sparsity: float, only: float) -> None:
    check_sparsity(sparsity)
    if abs(sparsity - only) > 1e-9:
        raise ValueError(
            f"pattern {pattern} fixes the sparsity at {only:g}, got {sparsity}; "
            "use that value or pattern='unstructured'"
        )


def _highest(scores: Tensor, k: int) -> Tensor:
    # Stable, so that equal scores are kept from the left and the count is exact even among ties
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, True)


def _dealt(scores: Tensor, groups: int) -> Tensor:
    # Group of each place when the places, in the order of their scores, are cut into equal groups
    order = scores.argsort(stable=True)
    return torch.empty_like(order).scatter_(
        0, order, torch.arange(len(order)) // (len(order) // groups)
    )


def _revived(mask: Tensor, scores: Tensor, budget: int) -> Tensor:
    mask, scores = mask.clone(), scores.contiguous()
    for dim in (1, 0):
        for dead in (~mask.any(dim)).nonzero().flatten().tolist():
            order = scores.select(1 - dim, dead).argsort(descending=True, stable=True)
            for place in order.tolist():
                row, col = (dead, place) if dim else (place, dead)
                if _swapped(mask, scores, budget, row, col):
                    break
            else:
                if budget >= mask.shape[1]:  # where nobody has one to spare, the next finds none
                    break
    return mask


def _swapped(mask: Tensor, scores: Tensor, budget: int, row: int, col: int) -> bool:
    # Keep (row, col) instead of the lowest in its budget whose row and column keep another
    start = (row * mask.shape[1] + col) // budget * budget
    members = start + mask.view(-1)[start : start + budget].nonzero().flatten()
    rows, cols = members // mask.shape[1], members % mask.shape[1]
    spare = (mask.sum(1)[rows] > 1) | (rows == row)
    spare &= (mask.sum(0)[cols] > 1) | (cols == col)
    if not spare.any():
        return False
    mask.view(-1)[members[spare][scores.view(-1)[members[spare]].argmin()]] = False
    mask[row, col] = True
    return True
