"""Tests of mediswift.products. Run with: pytest tests/test_products.py."""

import pytest
import torch
from torch.nn.functional import linear

from mediswift import products
from mediswift.layouts import layout
from mediswift.masks import make_mask

pytestmark = pytest.mark.usefixtures("kernels")
MASKS = {  # outputs, inputs, sparsity, pattern
    "unstructured": (48, 40, 0.75, "unstructured"),
    "odd": (37, 71, 0.5, "unstructured"),  # nothing is a multiple of a register
    "tall": (530, 70, 0.9, "fan-in"),  # more rows than a chunk, more columns than a block
    "2:4": (48, 40, 0.5, "2:4"),
    "one row": (1, 67, 0.5, "unstructured"),
    "lines": (48, 37, 0.7, "16x1"),
    "blocks": (64, 48, 0.5, "16x16"),
    "diagonal": (64, 36, 0.75, "diagonal:4"),
    "nothing": (32, 8, 0.999, "unstructured"),
    "scattered nothing": (7, 8, 0.999, "unstructured"),
}
each_mask = pytest.mark.parametrize("name", MASKS)


def draw(name, tokens, dtype=torch.float64):
    """Inputs, kept weights, bias, gradient of the outputs, and layout."""
    *shape, sparsity, pattern = MASKS[name]
    plan = layout(make_mask(tuple(shape), sparsity, pattern, seed=0, name="w"))
    generator = torch.Generator().manual_seed(tokens)
    shapes = (tokens, shape[1]), tuple(plan.order().shape), (shape[0],), (tokens, shape[0])
    return *(torch.randn(s, generator=generator, dtype=dtype) for s in shapes), plan


def dense(values, plan):
    matrix = values.new_zeros(plan.mask.numel())
    matrix[plan.order().flatten()] = values.flatten()
    return matrix.view(plan.mask.shape)


def same(found, wanted):
    tolerance = 1e-5 if found.dtype == torch.float32 else 1e-12
    scale = max(1.0, wanted.abs().max().item() if wanted.numel() else 0.0)
    torch.testing.assert_close(found.double() / scale, wanted / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tokens", [0, 1, 7, 16, 17, 130, 700])
@each_mask
def test_products_are_those_of_the_dense_matrix(name, tokens, dtype):
    x, values, bias, grad, plan = draw(name, tokens, dtype)
    index, matrix = products.index(plan), dense(values, plan).double()
    y = products.linear(x, values, bias, index, len(bias))
    of_x = products.input_gradient(grad, values, index, x.shape[1])
    of_values = products.weight_gradient(grad, x, values, index)
    assert {y.dtype, of_x.dtype, of_values.dtype} == {dtype}
    same(y, linear(x.double(), matrix, bias.double()))
    same(products.linear(x, values, None, index, len(bias)), linear(x.double(), matrix))
    same(of_x, grad.double() @ matrix)
    wanted = (grad.double().T @ x.double()).flatten()[plan.order()]
    assert of_values.shape == values.shape
    same(of_values, wanted)


@pytest.mark.parametrize("name", [name for name in MASKS if name != "tall"])  # it takes minutes
def test_gradients_are_those_of_small_differences(name):
    x, values, bias, _, plan = draw(name, 2)
    index = products.index(plan)
    inputs = [tensor.requires_grad_() for tensor in (x, values, bias)]
    assert torch.autograd.gradcheck(
        lambda x, values, bias: products.linear(x, values, bias, index, len(bias)), inputs
    )
    assert torch.autograd.gradcheck(
        lambda x, values: products.linear(x, values, None, index, len(bias)), inputs[:2]
    )


@pytest.mark.parametrize("wanted", ["x", "values", "bias"])
def test_only_what_is_asked_for_gets_a_gradient(wanted):
    x, values, bias, _, plan = draw("lines", 5)
    given = {"x": x, "values": values, "bias": bias}
    given[wanted].requires_grad_()
    products.linear(**given, index=products.index(plan), outputs=48).sum().backward()
    assert [name for name in given if given[name].grad is not None] == [wanted]


def threads_change_no_bit(x, values, bias, grad, plan):
    index, found = products.index(plan), []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(
                (
                    products.linear(x, values, bias, index, len(bias)),
                    products.input_gradient(grad, values, index, x.shape[1]),
                    products.weight_gradient(grad, x, values, index),
                )
            )
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@each_mask
def test_threads_change_no_bit(name):
    threads_change_no_bit(*draw(name, 700, torch.float32))


@pytest.mark.parametrize("name", ["odd", "lines"])
def test_tensors_may_lie_in_memory_as_they_like(name):
    x, values, bias, _, plan = draw(name, 17)
    index, matrix = products.index(plan), dense(values, plan)
    apart = torch.cat([x, x], 1)[:, : x.shape[1]]
    turned = values.T.contiguous().T
    assert not apart.is_contiguous()
    same(products.linear(apart, turned, bias, index, len(bias)), linear(x, matrix, bias))
    ones = torch.ones((), dtype=x.dtype).expand(17, len(bias))  # as sum().backward() hands it
    same(products.input_gradient(ones, turned, index, x.shape[1]), ones @ matrix)
    found = products.weight_gradient(ones, apart, turned, index)
    same(found, (ones.T @ x).flatten()[plan.order()])


@pytest.mark.parametrize("name", ["odd", "lines"])
@pytest.mark.parametrize("biased", [False, True])
def test_the_operators_promise_what_they_return(name, biased):
    x, values, bias, grad, plan = draw(name, 5, torch.float32)
    index, operators = products.index(plan), torch.ops.mediswift
    arguments = (x, values, bias if biased else None, index, len(bias))
    torch.library.opcheck(operators.native_forward, arguments)
    torch.library.opcheck(operators.native_input_gradient, (grad, values, index, x.shape[1]))
    torch.library.opcheck(operators.native_weight_gradient, (grad, x, values, index))
    order, size = plan.order().int(), plan.mask.numel()
    torch.library.opcheck(operators.native_place, (values.requires_grad_(), order, size))
    torch.library.opcheck(operators.native_collect, (torch.rand(size), order))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_mask
def test_weights_are_put_in_their_places_and_found_there(name, dtype):
    _, values, *_, plan = draw(name, 1, dtype)
    order, turned = plan.order().int(), values.T.contiguous().T
    full = products.place(turned.requires_grad_(), order, plan.mask.numel())
    assert torch.equal(full, dense(values, plan).flatten())
    assert torch.equal(products.collect(full.detach(), order), values)
    grad = torch.randn_like(full)
    (found,) = torch.autograd.grad(full, turned, grad)
    assert torch.equal(found, grad[plan.order()])


def test_gradients_of_gradients_are_refused():
    x, values, bias, _, plan = draw("lines", 5)
    y = products.linear(x.requires_grad_(), values, bias, products.index(plan), 48)
    (of_x,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        of_x.sum().backward()


@pytest.mark.parametrize(
    ("name", "dtype"), [("lines", torch.float16), ("unstructured", torch.bfloat16)]
)
def test_half_precision_says_the_way_out(name, dtype):
    x, values, bias, _, plan = draw(name, 5, torch.float32)
    with pytest.raises(TypeError, match="torch.*float16.*; use engine='masked'"):
        products.linear(x.to(dtype), values, bias, products.index(plan), 48)


# In bfloat16


@pytest.mark.parametrize("tokens", [0, 1, 7, 16, 17, 130, 700])
@pytest.mark.parametrize("name", ["lines", "blocks", "diagonal"])
def test_products_of_bfloat16_are_those_of_the_rounded_dense_matrix(half_kernels, name, tokens):
    x, values, bias, grad, plan = draw(name, tokens, torch.float32)
    in_bfloat16_as_rounded(x.bfloat16(), values, bias, grad.bfloat16(), plan)


ALMOST = {  # sixteen outputs' inputs that are no whole blocks
    "begins within a block": range(8, 24),
    "two halves": [*range(16, 24), *range(40, 48)],
    "one too many": range(16, 33),
    "one too few": range(16, 31),
}


@pytest.mark.parametrize("kept", ALMOST.values(), ids=ALMOST)
def test_what_is_almost_a_block_is_computed_as_well(half_kernels, kept):
    mask = torch.zeros(32, 64, dtype=torch.bool)
    mask[:16, list(kept)] = mask[16:, 32:48] = True
    plan = layout(mask)
    x, grad = torch.randn(20, 64).bfloat16(), torch.randn(20, 32).bfloat16()
    in_bfloat16_as_rounded(x, torch.randn(plan.order().shape), torch.randn(32), grad, plan)


def in_bfloat16_as_rounded(x, values, bias, grad, plan):
    index, matrix = products.index(plan), dense(values.bfloat16().double(), plan)
    x.requires_grad_(), values.requires_grad_(), bias.requires_grad_()
    y = products.linear(x, values, bias, index, len(bias))
    y.backward(grad)
    assert (y.dtype, x.grad.dtype, values.grad.dtype) == (grad.dtype, grad.dtype, torch.float32)
    rounded = 2**-8  # of the largest
    close(y, linear(x.double(), matrix, bias.double()), rounded)
    close(x.grad, grad.double() @ matrix, rounded)
    close(values.grad, (grad.double().T @ x.double()).flatten()[plan.order()], 1e-5)
    close(bias.grad, grad.double().sum(0), 1e-5)


def close(found, wanted, tolerance):
    scale = max(1.0, wanted.abs().max().item() if wanted.numel() else 0.0)
    error = (found.double() - wanted).abs().max().item() if wanted.numel() else 0.0
    assert error <= tolerance * scale


@pytest.mark.parametrize("name", ["lines", "blocks"])
def test_infinite_inputs_of_bfloat16_reach_their_outputs_alone(half_kernels, name):
    x, values, bias, _, plan = draw(name, 5, torch.float32)
    x[2, 3] = torch.inf
    y = products.linear(x.bfloat16(), values, None, products.index(plan), len(bias))
    reached = (torch.arange(5)[:, None] == 2) & (dense(values, plan)[:, 3] != 0)
    assert reached.any() and torch.equal(~y.isfinite(), reached)


@pytest.mark.parametrize("name", ["lines", "blocks"])
def test_threads_change_no_bit_of_bfloat16(half_kernels, name):
    x, values, bias, grad, plan = draw(name, 700, torch.float32)
    threads_change_no_bit(x.bfloat16(), values, bias, grad.bfloat16(), plan)


def test_the_operators_promise_what_they_return_in_bfloat16(half_kernels):
    x, values, bias, grad, plan = draw("lines", 5, torch.float32)
    x, grad = x.bfloat16(), grad.bfloat16()
    index, operators = products.index(plan), torch.ops.mediswift
    torch.library.opcheck(operators.native_forward, (x, values, bias, index, len(bias)))
    torch.library.opcheck(operators.native_input_gradient, (grad, values, index, x.shape[1]))
    torch.library.opcheck(operators.native_weight_gradient, (grad, x, values, index))


def test_weights_of_bfloat16_are_read_as_well(half_kernels):
    x, values, bias, _, plan = draw("lines", 5, torch.float32)
    given = [tensor.bfloat16().requires_grad_() for tensor in (x, values, bias)]
    y = products.linear(*given, products.index(plan), 48)
    y.sum().backward()
    assert {tensor.grad.dtype for tensor in given} == {torch.bfloat16}


@pytest.mark.parametrize("given", ["values", "bias"])
def test_types_do_not_mix(given):
    x, values, bias, _, plan = draw("lines", 5, torch.float32)
    arguments = {"x": x, "values": values, "bias": bias}
    arguments[given] = arguments[given].double()
    with pytest.raises(ValueError, match="takes torch.float32 and int32 tensors .*float64"):
        products.linear(**arguments, index=products.index(plan), outputs=48)
