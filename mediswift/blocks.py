"""Block-sparse matrix products on a GPU: removed blocks are neither stored, read nor multiplied.

Decisions: the mask never changes, so it is turned once into a schedule, a few integers that say
which blocks each program reads. The kernels are Triton's: tensor cores in half precision, exact
products in float32 (no TF32), and sums in float32 always. Nothing is added atomically and no tile
is chosen by timing, so the same inputs give the same bits. The products are opaque operators, which
`torch.compile` keeps whole: `triton_op` would trace into the kernels, which fails in the
interpreter (TRITON_INTERPRET=1, on a CPU). Gradients are plain functions, for a layer to wire up.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

try:
    import triton
    import triton.language as tl
except ImportError:  # the extra "gpu"; whatever else is in this project works without it
    triton = tl = None

SIZES = (16, 32, 64, 128)
"""Sides that a block may have: a tensor core multiplies 16 at least. Use 64 or 128 for speed."""


class Tile(NamedTuple):
    """How a kernel cuts its work, and how it hides the time that memory takes."""

    tokens: int
    """Tokens of one output tile, which is as wide as a block."""
    step: int
    """Longest stretch of the summed axis that is read at once."""
    warps: int
    buffers: int
    """Steps in shared memory: one is multiplied while the others arrive."""


HALF = Tile(tokens=128, step=64, warps=4, buffers=3)
"""At most 96 KiB of shared memory, so that an H100 multiplies one tile while it writes another."""
FULL = Tile(tokens=64, step=16, warps=8, buffers=2)
"""Exact float32 has no tensor core: small steps keep the operands in registers."""
TILES = {torch.float32: FULL, torch.bfloat16: HALF, torch.float16: HALF}
PROGRAMS = 512
"""Programs that fill a large GPU: fewer kept blocks share out the tokens. The device is not asked,
for another number of parts would sum in another order."""
PART = 1024  # the fewest tokens worth a part of their own


@dataclass(frozen=True, eq=False)
class Schedule:
    """Which blocks each program reads: int32 tensors for N kept blocks, and the mask's size.

    Block n of the weights is the n-th kept one in reading order, row by row.
    """

    rows: Tensor
    """(N,) Block row of each kept block."""
    columns: Tensor
    """(N,) Block column of each kept block."""
    row_starts: Tensor
    """(height + 1,) Where each block row starts among the kept blocks; last, their number."""
    column_starts: Tensor
    """(width + 1,) The same of each block column among `turned`."""
    turned: Tensor
    """(N,) Numbers of the kept blocks, read column by column."""
    turned_rows: Tensor
    """(N,) Block row of each of those."""
    height: int
    width: int

    def to(self, device: torch.device | str) -> Schedule:
        """Return the same schedule on `device`."""
        tensors = {name: v.to(device) for name, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)


def schedule(blocks: Tensor) -> Schedule:
    """Schedule of a boolean mask of blocks (height, width), True = kept; on the mask's device.

    Raises ValueError on anything but a boolean matrix.

    >>> plan = schedule(torch.tensor([[True, False, True], [True, False, False]]))
    >>> plan.columns.tolist(), plan.row_starts.tolist(), plan.turned.tolist()
    ([0, 2, 0], [0, 2, 3], [0, 2, 1])
    """
    if blocks.dtype != torch.bool or blocks.dim() != 2 or not blocks.numel():
        raise ValueError(
            f"a schedule is made from a boolean matrix with one entry a block, got {blocks.dtype} "
            f"{tuple(blocks.shape)}; take every b-th row and column of the mask of the weights"
        )
    rows, columns = blocks.nonzero(as_tuple=True)
    turned = columns.argsort(stable=True)
    starts = [pad(blocks.sum(axis).cumsum(0), (1, 0)) for axis in (1, 0)]
    numbers = [rows, columns, *starts, turned, rows[turned]]
    return Schedule(*(each.int() for each in numbers), *blocks.shape)


def available() -> bool:
    """Whether the products can run here: Triton, and a GPU or TRITON_INTERPRET=1."""
    return triton is not None and (torch.cuda.is_available() or _interpreted())


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def forward(x: Tensor, weight: Tensor, plan: Schedule) -> Tensor:
    """Outputs (T, O) of inputs `x` (T, I), in their type: x times the transposed sparse matrix.

    `weight` (N, b, b) holds the kept blocks as (outputs, inputs), in the schedule's order. Outputs
    whose blocks are all removed are zero. There is no bias.

    Raises ValueError when shapes, types or devices do not fit, RuntimeError without Triton or GPU.
    """
    _check("x", x, weight, plan, plan.width)
    return _product(x, weight, plan.row_starts, plan.columns, None)


def input_gradient(grad: Tensor, weight: Tensor, plan: Schedule) -> Tensor:
    """Gradient (T, I) of the inputs, from that of the outputs (T, O): grad times the matrix.

    Arguments and errors as in `forward`. Inputs whose blocks are all removed get zeros.
    """
    _check("grad", grad, weight, plan, plan.height)
    return _product(grad, weight, plan.column_starts, plan.turned_rows, plan.turned)


def weight_gradient(x: Tensor, grad: Tensor, plan: Schedule) -> Tensor:
    """Gradient (N, b, b) of the kept blocks, in float32, from `x` (T, I) and `grad` (T, O).

    Errors as in `forward`. A caller with half-precision weights rounds the sum, once.
    """
    size = grad.shape[-1] // plan.height
    _check_tokens("grad", grad, size, plan, plan.height)
    _check_tokens("x", x, size, plan, plan.width)
    if x.dtype != grad.dtype or x.shape[0] != grad.shape[0]:
        raise ValueError(
            f"x and grad need one type and one number of tokens, got {x.dtype} {tuple(x.shape)} "
            f"and {grad.dtype} {tuple(grad.shape)}; cast the gradient to the type of x"
        )
    return _outer(x, grad, plan.rows, plan.columns, size)


def _check(name: str, tokens: Tensor, weight: Tensor, plan: Schedule, blocks: int) -> None:
    kept, size = plan.rows.shape[0], weight.shape[-1]
    if tuple(weight.shape) != (kept, size, size):
        raise ValueError(
            f"weight holds the {kept} kept blocks of the schedule as (N, b, b), got "
            f"{tuple(weight.shape)}; gather them with the mask that the schedule was made from"
        )
    _check_tokens(name, tokens, size, plan, blocks)
    if tokens.dtype != weight.dtype or tokens.device != weight.device:
        raise ValueError(
            f"{name} and weight need one type and one device, got {tokens.dtype} on "
            f"{tokens.device} and {weight.dtype} on {weight.device}; use weight.to({name})"
        )


def _check_tokens(name: str, tokens: Tensor, size: int, plan: Schedule, blocks: int) -> None:
    if size not in SIZES:
        raise ValueError(f"blocks have a side of {', '.join(map(str, SIZES))}; got {size}; try 64")
    if tokens.dim() != 2 or tokens.shape[1] != blocks * size:
        raise ValueError(
            f"{name} needs the shape (tokens, {blocks} blocks x {size} = {blocks * size}), got "
            f"{tuple(tokens.shape)}; flatten batch and context, or use this matrix's schedule"
        )
    if tokens.dtype not in TILES:
        raise ValueError(f"{name} is float32, bfloat16 or float16, got {tokens.dtype}; cast it")
    if tokens.device != plan.rows.device:
        raise ValueError(
            f"{name} and schedule are on one device, got {tokens.device} and {plan.rows.device}; "
            "move the schedule once with plan.to(device)"
        )


@torch.library.custom_op("mediswift::block_product", mutates_args=())
def _product(
    x: Tensor, weight: Tensor, starts: Tensor, sources: Tensor, turned: Tensor | None
) -> Tensor:
    x, size, tile = _rows(x), weight.shape[1], TILES[x.dtype]
    y = x.new_empty(len(x), (len(starts) - 1) * size)
    # Blocks of outputs count fastest: all programs of one tile of tokens run together, so x comes
    # from memory once, and the kept weights of a matrix stay in the level-2 cache
    grid = (len(starts) - 1, -(-len(x) // tile.tokens))
    sizes = {"SIZE": size, "TILE": tile.tokens, "STEP": min(size, tile.step)}
    stages = 2 * tile.buffers - 1  # Triton spends as many again on fetching a block's place first
    every = (x, weight.contiguous(), y, starts, sources, turned, len(x), x.stride(0))
    _launch(_product_kernel, grid, tile.warps, stages, *every, **sizes)
    return y


@_product.register_fake
def _(x, weight, starts, sources, turned):
    return x.new_empty(x.shape[0], (starts.shape[0] - 1) * weight.shape[1])


@torch.library.custom_op("mediswift::block_outer", mutates_args=())
def _outer(x: Tensor, grad: Tensor, rows: Tensor, columns: Tensor, size: int) -> Tensor:
    x, grad, tile = _rows(x), _rows(grad), TILES[x.dtype]
    parts = max(1, min(-(-PROGRAMS // max(1, len(rows))), -(-len(x) // PART)))
    span = -(-len(x) // (parts * tile.step)) * tile.step  # whole steps; the last may be short
    sums = x.new_empty(parts, len(rows), size, size, dtype=torch.float32)
    # Blocks count fastest: those of one part read the same tokens at about the same time
    grid, sizes = (len(rows), parts), {"SIZE": size, "STEP": tile.step}
    every = (x, grad, sums, rows, columns, len(x), x.stride(0), grad.stride(0), span)
    _launch(_outer_kernel, grid, tile.warps, tile.buffers, *every, **sizes)
    return sums[0] if parts == 1 else sums.sum(0)


@_outer.register_fake
def _(x, grad, rows, columns, size):
    return x.new_empty(rows.shape[0], size, size, dtype=torch.float32)


def _rows(x: Tensor) -> Tensor:
    # A token's features lie in one piece, tokens may lie apart; sum().backward() has stride 0
    return x if x.stride(1) == 1 else x.contiguous()


def _launch(function: Callable, grid: tuple, warps: int, stages: int, x: Tensor, *rest, **sizes):
    kernel = _kernel(function)
    if not (x.is_cuda or _interpreted()):
        raise RuntimeError(
            f"block-sparse products need a GPU, got tensors on {x.device}; move them to 'cuda', or "
            "start with TRITON_INTERPRET=1 to try them slowly on a CPU"
        )
    if _interpreted() and x.dtype == torch.bfloat16:  # it would multiply the bits as integers
        raise RuntimeError("Triton's interpreter cannot multiply bfloat16; use float32 or float16")
    if all(grid):
        with torch.cuda.device_of(x):  # Triton launches on the current device
            kernel[grid](x, *rest, **sizes, num_warps=warps, num_stages=stages)


@cache
def _kernel(function: Callable) -> Any:
    # No decorator: Triton decides here, not at import, whether to compile or to interpret
    if triton is None:
        raise RuntimeError(
            "block-sparse products need Triton, which cannot be imported here; get it with "
            "pip install 'mediswift[gpu]' (Linux), or choose another engine"
        )
    return triton.jit(function, do_not_specialize=["tokens"])  # compiled once for any batch


def _product_kernel(
    x, weight, y, starts, sources, turned, tokens, stride,
    SIZE: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Write one tile (TILE, SIZE) of y; `turned` (or None) says to multiply by blocks as stored."""
    target = tl.program_id(0)
    token = tl.program_id(1) * TILE + tl.arange(0, TILE)[:, None]
    real = token < tokens
    step, side = tl.arange(0, STEP), tl.arange(0, SIZE)
    x += token.to(tl.int64) * stride + step[None, :]
    if turned is None:  # (inputs, outputs) of a block stored as (outputs, inputs)
        weight += step[:, None] + side[None, :] * SIZE
    else:
        weight += step[:, None] * SIZE + side[None, :]
    total = tl.full((TILE, SIZE), 0, tl.float32)
    first, last = tl.load(starts + target), tl.load(starts + target + 1)
    for part in range(first * (SIZE // STEP), last * (SIZE // STEP)):
        entry = part // (SIZE // STEP)
        shift = part % (SIZE // STEP) * STEP
        left = tl.load(x + (tl.load(sources + entry) * SIZE + shift), mask=real, other=0.0)
        if turned is None:
            right = tl.load(weight + (entry.to(tl.int64) * SIZE * SIZE + shift))
        else:
            block = tl.load(turned + entry).to(tl.int64)
            right = tl.load(weight + (block * SIZE + shift) * SIZE)
        total = tl.dot(left, right, total, input_precision="ieee")
    y += token.to(tl.int64) * (tl.num_programs(0) * SIZE) + target * SIZE + side[None, :]
    tl.store(y, total.to(y.dtype.element_ty), mask=real)


def _outer_kernel(
    x, grad, sums, rows, columns, tokens, x_stride, grad_stride, span,
    SIZE: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Write the gradient (SIZE, SIZE) of one kept block, summed over one span of the tokens."""
    entry, part = tl.program_id(0), tl.program_id(1)
    step, side = tl.arange(0, STEP), tl.arange(0, SIZE)
    x += tl.load(columns + entry) * SIZE + side[None, :]
    grad += tl.load(rows + entry) * SIZE + side[:, None]
    total = tl.full((SIZE, SIZE), 0, tl.float32)
    for start in range(part * span, tl.minimum(part * span + span, tokens), STEP):
        token = (start + step).to(tl.int64)
        real = token < tokens
        left = tl.load(grad + token[None, :] * grad_stride, mask=real[None, :], other=0.0)
        right = tl.load(x + token[:, None] * x_stride, mask=real[:, None], other=0.0)
        total = tl.dot(left, right, total, input_precision="ieee")
    sums += (part * tl.num_programs(0) + entry).to(tl.int64) * SIZE * SIZE
    tl.store(sums + side[:, None] * SIZE + side[None, :], total)
