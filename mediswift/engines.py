"""Ways to compute a linear layer from its kept weights: `masked`, `native`, `bmm`, `triton`, `2:4`.

Decisions: an engine is three functions over plain tensors: whether it can (here, or on a machine
that is only planned), the index that it needs (made once from the mask), and the product with its
gradients. `masked` is the reference: it makes the dense matrix and multiplies, on any device. All
engines read the same kept weights in the same layout, so a model may change its engine at any time.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from mediswift import blocks, native, products
from mediswift.layouts import LINE, Layout

SIDES = (128, 64)
"""Sides of blocks that are worth a GPU's while, the larger first."""
NO_TRITON = "triton needs a GPU and the extra 'gpu'"


class Engine:
    """What all engines have in common: they compute whatever does not make them unfit."""

    def unfit(self, matrix: Layout, device: str, dtype: torch.dtype) -> str:
        """Why it computes this on no such device; "" when it can, where it is installed."""
        return ""

    def refuses(self, matrix: Layout, device: str, dtype: torch.dtype) -> str:
        """Why this engine cannot, on this machine; "" when it can."""
        return self.unfit(matrix, device, dtype)


class Masked(Engine):
    """The dense product: kept weights are put where they belong, zeros elsewhere."""

    def index(self, matrix: Layout) -> list[Tensor]:
        """Tensors that `product` needs, made once."""
        order = matrix.order()
        return [order if native.why_not() else order.int()]  # int32 says that kernels are there

    def product(
        self, x: Tensor, values: Tensor, bias: Tensor | None, index: list[Tensor], outputs: int
    ) -> Tensor:
        """Outputs (T, O) of inputs `x` (T, I)."""
        return linear(x, dense(values, index[0], outputs, x.shape[1]), bias)


class Native(Engine):
    """Our kernels on the CPU, for any pattern."""

    def unfit(self, matrix: Layout, device: str, dtype: torch.dtype) -> str:
        """Why it computes this on no such device; "" when it can, where it is installed."""
        if device != "cpu" or dtype not in native.SOURCES:
            return f"native computes float32 or bfloat16 on a CPU, not {dtype} on {device}"
        scattered = dtype == native.HALF and matrix.groups is None
        return f"native computes {dtype} {products.GROUPED}" if scattered else ""

    def refuses(self, matrix: Layout, device: str, dtype: torch.dtype) -> str:
        """Why this engine cannot, on this machine; "" when it can."""
        return self.unfit(matrix, device, dtype) or native.why_not(dtype)

    def index(self, matrix: Layout) -> list[Tensor]:
        """Tensors that `product` needs, made once."""
        return products.index(matrix)

    def product(
        self, x: Tensor, values: Tensor, bias: Tensor | None, index: list[Tensor], outputs: int
    ) -> Tensor:
        """Outputs (T, O) of inputs `x` (T, I)."""
        return products.linear(x.to(computed_in(x)), values, bias, index, outputs)


class Bmm(Engine):
    """Block-diagonal matrices as a stack of small dense ones: `torch.bmm`, on any device."""

    def unfit(self, matrix: Layout, device: str, dtype: torch.dtype) -> str:
        """Why it computes this on no such device; "" when it can, where it is installed."""
        return "" if _stack(matrix) else "bmm needs pattern='diagonal:GROUPS' in whole runs of 16"

    def index(self, matrix: Layout) -> list[Tensor]:
        """Tensors that `product` needs, made once: inputs of each group, place of each run."""
        kept = matrix.mask[matrix.groups]
        each = kept[:: len(kept) // _stack(matrix)].nonzero()[:, 1]
        return [each.view(_stack(matrix), -1), (matrix.groups // LINE).argsort()]

    def product(
        self, x: Tensor, values: Tensor, bias: Tensor | None, index: list[Tensor], outputs: int
    ) -> Tensor:
        """Outputs (T, O) of inputs `x` (T, I)."""
        inputs, places = index
        groups, width = inputs.shape
        stack = values.view(groups, -1, width, LINE).transpose(1, 2).reshape(groups, width, -1)
        dealt = x.index_select(1, inputs.flatten()).view(-1, groups, width).transpose(0, 1)
        runs = torch.bmm(dealt, stack).transpose(0, 1).reshape(-1, outputs // LINE, LINE)
        y = runs.index_select(1, places).flatten(1)
        return y if bias is None else y + bias.to(y.dtype)


class Triton(Engine):
    """Whole blocks on a GPU, half precision: the kernels of `blocks`."""

    def unfit(self, matrix: Layout, device: str, dtype: torch.dtype) -> str:
        """Why it computes this on no such device; "" when it can, where it is installed."""
        interpreted = blocks.available() and not torch.cuda.is_available()
        if device != "cuda" and not interpreted:
            return NO_TRITON
        if dtype not in blocks.TILES:
            return f"triton computes float32 or half precision, not {dtype}"
        return "" if _side(matrix) else f"triton needs whole blocks of {SIDES} weights a side"

    def refuses(self, matrix: Layout, device: str, dtype: torch.dtype) -> str:
        """Why this engine cannot, on this machine; "" when it can."""
        return self.unfit(matrix, device, dtype) if blocks.available() else NO_TRITON

    def index(self, matrix: Layout) -> list[Tensor]:
        """Tensors that `product` needs, made once: the schedule, and where each weight lies."""
        side = _side(matrix)
        coarse = matrix.mask[::side, ::side]
        plan = blocks.schedule(coarse)
        place = torch.empty(matrix.mask.numel(), dtype=torch.int64)
        order = matrix.order().flatten()
        place[order] = torch.arange(len(order))
        tiles = place.view(len(coarse), side, -1, side).transpose(1, 2)[coarse]
        back = torch.empty_like(tiles.flatten())
        back[tiles.flatten()] = torch.arange(tiles.numel())
        return [tiles, back, *(v for v in vars(plan).values() if isinstance(v, Tensor))]

    def product(
        self, x: Tensor, values: Tensor, bias: Tensor | None, index: list[Tensor], outputs: int
    ) -> Tensor:
        """Outputs (T, O) of inputs `x` (T, I)."""
        y = _Blocks.apply(x.to(computed_in(x)), values, *index)
        return y if bias is None else y + bias.to(y.dtype)


class TwoFour(Engine):
    """2:4 on a GPU's sparse tensor cores: the forward product alone, gradients are dense."""

    def unfit(self, matrix: Layout, device: str, dtype: torch.dtype) -> str:
        """Why it computes this on no such device; "" when it can, where it is installed."""
        if device != "cuda" or dtype not in (torch.bfloat16, torch.float16):
            return f"2:4 needs half precision on a GPU, not {dtype} on {device}"
        outputs, inputs = matrix.mask.shape
        fits = inputs % 64 == 0 and outputs % 64 == 0
        groups = matrix.mask.view(-1, 4).sum(1) if fits else torch.tensor([4])
        return "" if int(groups.max()) <= 2 else "2:4 needs pattern='2:4' and sizes in 64s"

    def index(self, matrix: Layout) -> list[Tensor]:
        """Tensors that `product` needs, made once."""
        return [matrix.order()]

    def product(
        self, x: Tensor, values: Tensor, bias: Tensor | None, index: list[Tensor], outputs: int
    ) -> Tensor:
        """Outputs (T, O) of inputs `x` (T, I)."""
        y = _TwoFour.apply(x.to(computed_in(x)), values, index[0], outputs)
        return y if bias is None else y + bias.to(y.dtype)


ENGINES = {"masked": Masked(), "native": Native(), "bmm": Bmm(), "triton": Triton()}
ENGINES["2:4"] = TwoFour()
AUTO = "auto"
"""Not an engine: the fastest of them, by timing."""


def check_name(engine: str) -> None:
    """Refuse what is no engine."""
    if engine not in (AUTO, *ENGINES):
        raise ValueError(f"an engine is one of {', '.join((AUTO, *ENGINES))}; got {engine!r}")


def dense(values: Tensor, order: Tensor, outputs: int, inputs: int) -> Tensor:
    """Dense matrix (O, I) with the kept weights at their flat places `order`, differentiable.

    >>> dense(torch.ones(2, 1), torch.tensor([[0], [3]]), 2, 2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    size = outputs * inputs
    on_cpu = values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64)
    if on_cpu and order.dtype == torch.int32:
        return products.place(values, order, size).view(outputs, inputs)
    flat = values.new_zeros(size).scatter(0, order.flatten().long(), values.flatten())
    return flat.view(outputs, inputs)


def computed_in(x: Tensor) -> torch.dtype:
    """Type that a product of `x` is computed in: autocast's where it is on, else its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def possible(matrix: Layout, device: str, dtype: torch.dtype) -> list[str]:
    """Names of the engines that can compute this matrix there, `masked` among them."""
    return [name for name, engine in ENGINES.items() if not engine.refuses(matrix, device, dtype)]


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, values, tiles, back, *plan):
        weight = values.flatten().to(x.dtype)[tiles]
        _, _, row_starts, column_starts, *_ = plan
        ctx.plan = blocks.Schedule(*plan, len(row_starts) - 1, len(column_starts) - 1)
        ctx.save_for_backward(x, weight, back)
        ctx.like = values
        return blocks.forward(x, weight, ctx.plan)

    @staticmethod
    def backward(ctx, grad):
        x, weight, back = ctx.saved_tensors
        grad = grad.to(x.dtype).contiguous()
        of_x = blocks.input_gradient(grad, weight, ctx.plan)
        of_weight = blocks.weight_gradient(x, grad, ctx.plan).flatten()[back]
        nothing = [None] * (len(ctx.needs_input_grad) - 2)
        return of_x, of_weight.view_as(ctx.like).to(ctx.like.dtype), *nothing


class _TwoFour(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, values, order, outputs):
        weight = dense(values, order, outputs, x.shape[1]).to(x.dtype)
        ctx.save_for_backward(x, weight, order)
        ctx.like = values
        return linear(x, torch.sparse.to_sparse_semi_structured(weight))

    @staticmethod
    def backward(ctx, grad):
        x, weight, order = ctx.saved_tensors
        of_weight = (grad.T @ x).flatten()[order.flatten()]
        return grad @ weight, of_weight.view_as(ctx.like).to(ctx.like.dtype), None, None


def _stack(matrix: Layout) -> int:
    # Number of dense groups that a matrix is made of, 0 when it is not
    if matrix.groups is None:
        return 0
    kinds, sizes = torch.unique(matrix.mask, dim=0, return_counts=True)
    apart = bool((kinds.sum(0) == 1).all()) and len(set(kinds.sum(1).tolist())) == 1
    return len(kinds) if apart and len(set(sizes.tolist())) == 1 else 0


def _side(matrix: Layout) -> int:
    # Largest side of whole blocks that the mask is made of, 0 when it is not
    outputs, inputs = matrix.mask.shape
    for side in SIDES:
        if outputs % side == 0 and inputs % side == 0:
            tiles = matrix.mask.view(outputs // side, side, inputs // side, side)
            if bool((tiles == tiles[:, :1, :, :1]).all()):
                return side
    return 0
