"""Tests of mediswift.blocks. Run with: pytest tests/test_blocks.py.

The kernels run in Triton's interpreter, on a CPU. On a machine with a GPU, compiled and in bfloat16
too: pytest --noconftest tests/test_blocks.py.
"""

import subprocess
import sys

import pytest
import torch

from mediswift import blocks

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
STEPS = torch.tensor(
    [
        [1, 0, 0, 1],
        [0, 0, 0, 0],  # an empty row; the third column is empty too
        [1, 1, 0, 1],
    ],
    dtype=torch.bool,
)


@pytest.fixture
def products(monkeypatch):
    """The module where its products run: on a GPU, or in the interpreter."""
    pytest.importorskip("triton", reason="needs the extra 'gpu'")
    if not GPU:
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    return blocks


def draw(tokens, size, dtype=torch.float32, mask=STEPS):
    """Inputs, kept blocks, gradient of the outputs, and schedule, for blocks of one size."""
    generator = torch.Generator().manual_seed(tokens * size)
    plan = blocks.schedule(mask)
    shapes = (tokens, plan.width * size), (len(plan.rows), size, size), (tokens, plan.height * size)
    drawn = [torch.randn(shape, generator=generator) / shape[-1] ** 0.5 for shape in shapes]
    return *(each.to(DEVICE, dtype) for each in drawn), plan.to(DEVICE)


def dense(weight, plan):
    """The matrix (O, I) that the kept blocks stand for, in float64."""
    size = weight.shape[-1]
    matrix = weight.new_zeros(plan.height, size, plan.width, size, dtype=torch.float64)
    matrix[plan.rows.long(), :, plan.columns.long(), :] = weight.double()
    return matrix.reshape(plan.height * size, plan.width * size)


def kept(matrix, plan):
    """Kept blocks of a dense matrix, in the schedule's order."""
    cut = matrix.view(plan.height, matrix.shape[0] // plan.height, plan.width, -1)
    return cut[plan.rows.long(), :, plan.columns.long(), :]


def same(found, wanted, dtype=torch.float32):
    tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
    torch.testing.assert_close(found.double(), wanted, rtol=tolerance, atol=tolerance)


def test_a_schedule_lists_the_blocks_by_rows_and_by_columns():
    plan = blocks.schedule(STEPS)
    assert (plan.height, plan.width) == (3, 4)
    assert plan.rows.tolist() == [0, 0, 2, 2, 2]
    assert plan.columns.tolist() == [0, 3, 0, 1, 3]
    assert plan.row_starts.tolist() == [0, 2, 2, 5]
    assert plan.column_starts.tolist() == [0, 2, 3, 3, 5]
    assert plan.turned.tolist() == [0, 2, 3, 1, 4]
    assert plan.turned_rows.tolist() == [0, 2, 2, 0, 2]
    tensors = [value for value in vars(plan).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 6 and {tensor.dtype for tensor in tensors} == {torch.int32}


def test_a_schedule_moves_to_a_device_whole():
    moved = blocks.schedule(STEPS).to("meta")
    tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert (moved.height, moved.width) == (3, 4)


HALVES = [torch.float16, *([torch.bfloat16] if GPU else [])]  # the interpreter has no bfloat16
CASES = [(torch.float32, size, tokens) for size in (16, 64) for tokens in (1, 17, 130)]
CASES += [(dtype, size, 130) for dtype in (torch.float32, *HALVES) for size in (32, 128)]
each_case = pytest.mark.parametrize(("dtype", "size", "tokens"), CASES)


@each_case
def test_outputs_are_those_of_the_dense_matrix(products, dtype, size, tokens):
    x, weight, _, plan = draw(tokens, size, dtype)
    y = products.forward(x, weight, plan)
    assert y.dtype == dtype
    same(y, x.double() @ dense(weight, plan).T, dtype)
    assert not y[:, size : 2 * size].any()  # exact zeros where no block is kept


@each_case
def test_input_gradients_are_those_of_the_dense_matrix(products, dtype, size, tokens):
    _, weight, grad, plan = draw(tokens, size, dtype)
    found = products.input_gradient(grad, weight, plan)
    assert found.dtype == dtype
    same(found, grad.double() @ dense(weight, plan), dtype)
    assert not found[:, 2 * size : 3 * size].any()


@each_case
def test_weight_gradients_are_those_of_the_dense_matrix(products, dtype, size, tokens):
    x, _, grad, plan = draw(tokens, size, dtype)
    found = products.weight_gradient(x, grad, plan)
    assert found.dtype == torch.float32  # and as exact, from half-precision inputs too
    same(found, kept(grad.double().T @ x.double(), plan))


@pytest.mark.parametrize("part", [16, 40, 1000])
def test_tokens_in_parts_sum_to_the_same_weight_gradient(products, monkeypatch, part):
    monkeypatch.setattr(products, "PART", part)
    x, _, grad, plan = draw(130, 16)
    same(products.weight_gradient(x, grad, plan), kept(grad.double().T @ x.double(), plan))


def test_the_same_inputs_give_the_same_bits(products, monkeypatch):
    monkeypatch.setattr(products, "PART", 16)
    x, weight, grad, plan = draw(130, 32)
    first, second = (
        (
            products.forward(x, weight, plan),
            products.input_gradient(grad, weight, plan),
            products.weight_gradient(x, grad, plan),
        )
        for _ in range(2)
    )
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_inputs_may_be_slices_and_gradients_expanded(products):
    x, weight, _, plan = draw(17, 16)
    wide = torch.cat([x, x], dim=1)[:, : x.shape[1]]  # tokens lie apart
    ones = torch.ones((), device=DEVICE).expand(17, 48)  # as sum().backward() hands it
    matrix = dense(weight, plan)
    same(products.forward(wide, weight, plan), x.double() @ matrix.T)
    same(products.forward(x.T.contiguous().T, weight, plan), x.double() @ matrix.T)
    same(products.input_gradient(ones, weight, plan), ones.double() @ matrix)
    same(products.weight_gradient(wide, ones, plan), kept(ones.double().T @ x.double(), plan))


@pytest.mark.parametrize(("tokens", "mask"), [(0, STEPS), (5, torch.zeros(2, 3, dtype=torch.bool))])
def test_nothing_to_multiply_gives_zeros(products, tokens, mask):
    x, weight, grad, plan = draw(tokens, 16, mask=mask)
    assert products.forward(x, weight, plan).tolist() == torch.zeros_like(grad).tolist()
    assert products.input_gradient(grad, weight, plan).tolist() == torch.zeros_like(x).tolist()
    assert products.weight_gradient(x, grad, plan).tolist() == torch.zeros_like(weight).tolist()


def test_compiled_code_keeps_the_products_whole(products):
    x, weight, grad, plan = draw(17, 16)

    @torch.compile(backend="aot_eager", fullgraph=True, dynamic=True)
    def step(x, weight, grad):
        y = products.forward(x, weight, plan) + 1
        return y, products.input_gradient(grad, weight, plan), products.weight_gradient(x, y, plan)

    y, found, gradient = step(x, weight, grad)
    assert torch.equal(y, products.forward(x, weight, plan) + 1)
    assert torch.equal(found, products.input_gradient(grad, weight, plan))
    assert torch.equal(gradient, products.weight_gradient(x, y, plan))


def test_the_operators_promise_what_they_return(products):
    x, weight, grad, plan = draw(17, 16)
    checks = ("test_schema", "test_faketensor")
    operators = torch.ops.mediswift
    for arguments in (
        (x, weight, plan.row_starts, plan.columns, None),
        (grad, weight, plan.column_starts, plan.turned_rows, plan.turned),
    ):
        torch.library.opcheck(operators.block_product, arguments, test_utils=checks)
    arguments = (x, grad, plan.rows, plan.columns, 16)
    torch.library.opcheck(operators.block_outer, arguments, test_utils=checks)


@pytest.mark.parametrize("mask", [STEPS.int(), STEPS[0], STEPS[:0]])
def test_a_schedule_needs_a_boolean_matrix(mask):
    with pytest.raises(ValueError, match="boolean matrix with one entry a block.*every b-th row"):
        blocks.schedule(mask)


X, WEIGHT, GRAD, PLAN = draw(5, 16)
FIT = {"x": X, "weight": WEIGHT, "grad": GRAD, "plan": PLAN}
NEEDS = {
    "forward": ("x", "weight", "plan"),
    "input_gradient": ("grad", "weight", "plan"),
    "weight_gradient": ("x", "grad", "plan"),
}


@pytest.mark.parametrize(
    ("function", "changed", "message"),
    [
        ("forward", {"x": GRAD}, r"x needs .*4 blocks x 16 = 64\), got \(5, 48\); flatten"),
        ("forward", {"x": X[None]}, r"got \(1, 5, 64\); flatten batch and context"),
        ("forward", {"x": X.half()}, "x and weight need one type .*float16.*float32"),
        ("forward", {"weight": WEIGHT[1:]}, r"the 5 kept blocks .* got \(4, 16, 16\); gather"),
        ("forward", {"weight": WEIGHT[:, :8, :8]}, "side of 16, 32, 64, 128; got 8; try 64"),
        ("forward", {"x": X.long(), "weight": WEIGHT.long()}, "got torch.int64; cast it"),
        ("forward", {"plan": PLAN.to("meta")}, r"one device.*plan\.to\(device\)"),
        ("input_gradient", {"grad": X}, r"grad needs .*3 blocks x 16 = 48\), got \(5, 64\)"),
        ("weight_gradient", {"x": X[1:]}, r"one number of tokens, got .*\(4, 64\).*\(5, 48\)"),
        ("weight_gradient", {"grad": GRAD.half()}, "float16.*cast the gradient to the type of x"),
        ("weight_gradient", {"grad": GRAD[:, :40]}, "got 13; try 64"),
    ],
)
def test_what_does_not_fit_is_said(function, changed, message):
    arguments = [(FIT | changed)[name] for name in NEEDS[function]]
    with pytest.raises(ValueError, match=message):
        getattr(blocks, function)(*arguments)


@pytest.mark.skipif(GPU, reason="a GPU multiplies bfloat16")
def test_the_interpreter_refuses_what_it_would_get_wrong(products):
    x, weight, _, plan = draw(5, 16, torch.bfloat16)
    with pytest.raises(RuntimeError, match="cannot multiply bfloat16; use float32 or float16"):
        products.forward(x, weight, plan)


def test_a_cpu_is_told_what_the_products_need(monkeypatch):
    pytest.importorskip("triton", reason="needs the extra 'gpu'")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    x, weight, _, plan = draw(5, 16)
    assert blocks.available() == GPU
    with pytest.raises(RuntimeError, match="need a GPU, got tensors on cpu.*TRITON_INTERPRET=1"):
        blocks.forward(x.cpu(), weight.cpu(), plan.to("cpu"))


ABSENT = """
import sys
sys.modules["triton"] = None  # as if it were not installed
import torch
from mediswift import blocks

plan = blocks.schedule(torch.ones(1, 1, dtype=torch.bool))
assert not blocks.available()
blocks.forward(torch.ones(1, 16), torch.ones(1, 16, 16), plan)
"""


def test_without_triton_the_module_says_how_to_get_it():
    done = subprocess.run([sys.executable, "-c", ABSENT], capture_output=True, text=True)
    assert done.returncode == 1
    assert "RuntimeError: block-sparse products need Triton" in done.stderr
    assert "pip install 'mediswift[gpu]'" in done.stderr


def test_the_products_are_available_in_the_interpreter(products):
    assert products.available()
