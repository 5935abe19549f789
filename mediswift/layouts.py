"""How the kept weights of a matrix lie in memory: a pure function of its mask.

Decisions: where each sixteen neighboring outputs keep the same inputs ("grouped"), a kept input is
a line of sixteen weights; any other mask is "scattered", row after row. The layout never depends on
the machine or the engine, so a checkpoint of one run continues on any. Kept weights are a matrix
(lines, width), not a vector: optimizers give weight decay to what has two dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

LINE = 16
"""Outputs of a group: `TILE` of panels.h."""
COLUMNS, CHUNK = 64, 256
"""Columns of a block, so that its packed inputs fit the first cache, and rows of a chunk."""


@dataclass(frozen=True, eq=False)
class Layout:
    """A sparse matrix: which weights are kept, and which outputs share their inputs."""

    mask: Tensor
    """True = kept, (O, I) bool, on the CPU."""
    groups: Tensor | None
    """First output of each group, (G,) int64; None where outputs share nothing. Groups with equal
    inputs stand side by side, so a block-diagonal matrix is a stack of matrices."""

    def order(self) -> Tensor:
        """Flat index in the (O, I) matrix of each kept weight, (lines, width) int64.

        Made anew each time: it is larger than the weights.
        """
        if self.groups is None:
            return self.mask.flatten().nonzero().flatten()[:, None]
        group, col = self.mask[self.groups].nonzero(as_tuple=True)
        outputs = self.groups[group][:, None] + torch.arange(LINE)
        return outputs * self.mask.shape[1] + col[:, None]


def layout(mask: Tensor) -> Layout:
    """Layout of the kept weights of a boolean mask (O, I).

    >>> layout(torch.eye(2, dtype=torch.bool)).order().tolist()
    [[0], [3]]
    """
    mask = mask.cpu()
    outputs, inputs = mask.shape
    if outputs % LINE == 0:
        runs = mask.view(-1, LINE, inputs)
        if bool((runs == runs[:, :1]).all()):
            return Layout(mask, _by_inputs(runs[:, 0]) * LINE)
    return Layout(mask, None)


def grouped_index(plan: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """Index of the grouped kernels, int32: first line of each group (G + 1), input of each line,
    first output of each group (G)."""
    kept = plan.mask[plan.groups]
    first_line = pad(kept.sum(1).cumsum(0), (1, 0))
    return first_line.int(), kept.nonzero()[:, 1].int(), plan.groups.int()


def scattered_index(mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Index of the scattered kernels, int32: of each segment its row, first weight and length, and
    of each weight its input.

    A segment is what a row keeps in a block of columns; segments are ordered by chunk of rows,
    block and length.
    """
    rows, cols = mask.shape
    blocks = -(-cols // COLUMNS)
    length = pad(mask, (0, blocks * COLUMNS - cols)).view(rows, blocks, COLUMNS).sum(2)
    first = (length.flatten().cumsum(0) - length.flatten()).view(rows, blocks)
    row, block = torch.arange(rows)[:, None], torch.arange(blocks)[None]
    rank = ((row // CHUNK * blocks + block) * (COLUMNS + 1) + length).flatten()
    order = rank.argsort(stable=True)
    each_row = row.expand(rows, blocks).flatten()
    return (
        each_row[order].int(),
        first.flatten()[order].int(),
        length.flatten()[order].int(),
        mask.nonzero()[:, 1].int(),
    )


def turned(mask: Tensor) -> Tensor:
    """Order, (kept,) int32, that reads row-major kept weights as those of the transposed mask."""
    place = torch.zeros(mask.shape, dtype=torch.int32)
    place[mask] = torch.arange(int(mask.sum()), dtype=torch.int32)
    return place.T[mask.T].contiguous()


def _by_inputs(runs: Tensor) -> Tensor:
    # Order of the groups that brings equal ones together, in the order of their first appearance
    _, kind = torch.unique(runs, dim=0, return_inverse=True)
    places = torch.arange(len(kind))
    first = torch.full_like(places, len(kind)).scatter_reduce(0, kind, places, "amin")
    return first[kind].argsort(stable=True)
