"""Products with a sparse matrix on the CPU, as torch operators with gradients.

Decisions: the kernels of `native` are opaque operators, which `torch.compile` keeps whole and whose
shapes are declared beside them; an autograd function ties gradients to them, at less overhead than
an operator's own, which small layers feel. With bfloat16 activations weights stay float32, as does
their gradient, and only grouped layouts are computed. The index of a matrix travels as plain
tensors: three for a grouped layout, nine for a scattered one (four for the matrix, four for its
transpose, and the order that turns the one's weights into the other's). `place` serves who
multiplies the dense matrix after all: torch's own scatter and gather run on one thread.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mediswift import native
from mediswift.layouts import Layout, grouped_index, scattered_index, turned

GROUPED = "only where sixteen neighboring outputs keep the same inputs (16x1, 16x16, diagonal)"


def index(plan: Layout) -> list[Tensor]:
    """Index tensors, int32, of a sparse matrix for `linear`."""
    if plan.groups is not None:
        return list(grouped_index(plan))
    mask = plan.mask
    return [*scattered_index(mask), *scattered_index(mask.T.contiguous()), turned(mask)]


@torch.library.custom_op("mediswift::native_place", mutates_args=())
def place(values: Tensor, order: Tensor, size: int) -> Tensor:
    """Vector of `size` numbers: kept weights at their flat places `order` (int32), zeros elsewhere.

    No place may come twice, and none beyond `size`. float32 or float64, on the CPU.
    """
    result = values.new_empty(size)
    values = values.contiguous()
    native.call("place", values.dtype, size, values.numel(), order, values, result)
    return result


@place.register_fake
def _(values, order, size):
    return values.new_empty(size)


@torch.library.custom_op("mediswift::native_collect", mutates_args=())
def collect(full: Tensor, order: Tensor) -> Tensor:
    """The numbers of `full` at the flat places `order` (int32), in the shape of `order`."""
    result = full.new_empty(order.shape)
    native.call("reorder", full.dtype, order.numel(), order, full.contiguous(), result)
    return result


@collect.register_fake
def _(full, order):
    return full.new_empty(order.shape)


def linear(
    x: Tensor, values: Tensor, bias: Tensor | None, index: list[Tensor], outputs: int
) -> Tensor:
    """Outputs (T, O) of inputs `x` (T, I): x times the transposed sparse matrix, plus the bias.

    `values` are the kept weights in their layout. On the CPU, float32 or float64, or bfloat16
    inputs of a grouped layout. Differentiable. Raises TypeError for other types.
    """
    if x.dtype == native.HALF and len(index) != 3:
        raise TypeError(f"native computes {x.dtype} {GROUPED}; use engine='masked'")
    return _Linear.apply(x, values, bias, outputs, *index)


@torch.library.custom_op("mediswift::native_forward", mutates_args=())
def forward(
    x: Tensor, values: Tensor, bias: Tensor | None, index: list[Tensor], outputs: int
) -> Tensor:
    """Outputs of `linear`, without a gradient."""
    x, values, bias = x.contiguous(), _real(values, x), None if bias is None else _real(bias, x)
    tokens, inputs = x.shape
    y = x.new_empty(tokens, outputs)
    if len(index) == 3:
        sizes = (tokens, inputs, outputs, len(index[2]))
        native.call("grouped_forward", x.dtype, *sizes, *index, values, bias, x, y)
    else:
        _scattered(x, values, bias, index[:4], y)
    return y


@forward.register_fake
def _(x, values, bias, index, outputs):
    return x.new_empty(x.shape[0], outputs)


@torch.library.custom_op("mediswift::native_input_gradient", mutates_args=())
def input_gradient(grad: Tensor, values: Tensor, index: list[Tensor], inputs: int) -> Tensor:
    """Gradient (T, I) of the inputs from that of the outputs, `grad` (T, O)."""
    grad, values = grad.contiguous(), _real(values, grad)
    tokens, outputs = grad.shape
    result = grad.new_empty(tokens, inputs)
    if len(index) == 3:
        sizes = (tokens, inputs, outputs, len(index[2]))
        native.call("grouped_input_gradient", grad.dtype, *sizes, *index, values, grad, result)
    else:
        columns = torch.empty_like(values)
        native.call("reorder", grad.dtype, values.numel(), index[8], values, columns)
        _scattered(grad, columns, None, index[4:8], result)
    return result


@input_gradient.register_fake
def _(grad, values, index, inputs):
    return grad.new_empty(grad.shape[0], inputs)


@torch.library.custom_op("mediswift::native_weight_gradient", mutates_args=())
def weight_gradient(grad: Tensor, x: Tensor, values: Tensor, index: list[Tensor]) -> Tensor:
    """Gradient of the kept weights, in their layout: products over the tokens, only where kept."""
    x = x.contiguous()
    grad = (grad.to(x.dtype) if x.dtype == native.HALF else grad).contiguous()
    result = values.new_empty(values.shape, dtype=_summed_in(values, x))
    sizes = (*x.shape, grad.shape[1])
    if len(index) == 3:
        called = ("grouped_weight_gradient", x.dtype, *sizes, len(index[2]), *index)
    else:
        blocks = len(index[0]) // grad.shape[1]
        called = ("scattered_weight_gradient", x.dtype, *sizes, blocks, *index[:4], values.numel())
    native.call(*called, x, grad, result)
    return result.to(values.dtype)


@weight_gradient.register_fake
def _(grad, x, values, index):
    return torch.empty_like(values)


def _summed_in(numbers: Tensor, x: Tensor) -> torch.dtype:
    # The kernels of bfloat16 read weights, and sum, in float32
    return torch.float32 if x.dtype == native.HALF else numbers.dtype


def _real(numbers: Tensor, x: Tensor) -> Tensor:
    return numbers.to(_summed_in(numbers, x)).contiguous()


def _scattered(
    x: Tensor, values: Tensor, bias: Tensor | None, index: list[Tensor], y: Tensor
) -> None:
    sizes = (*x.shape, y.shape[1], len(index[0]) // y.shape[1])
    native.call("scattered_forward", x.dtype, *sizes, *index, values, bias, x, y)


class _Linear(torch.autograd.Function):
    # Less overhead a call than the gradients that an operator can be given, and compiles as well
    @staticmethod
    def forward(ctx, x, values, bias, outputs, *index):
        ctx.save_for_backward(x, values, *index)
        ctx.biased = bias is not None
        return forward(x, values, bias, list(index), outputs)

    @staticmethod
    def backward(ctx, grad):
        x, values, *index = ctx.saved_tensors
        wants_x, wants_values, wants_bias, *_ = ctx.needs_input_grad
        return (
            input_gradient(grad, values, index, x.shape[1]) if wants_x else None,
            weight_gradient(grad, x, values, index) if wants_values else None,
            grad.sum(0, dtype=_summed_in(grad, grad)) if ctx.biased and wants_bias else None,
            *[None] * (1 + len(index)),
        )


place.register_autograd(
    lambda ctx, grad: (collect(grad, *ctx.saved_tensors), None, None),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[1]),
)
