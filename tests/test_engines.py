"""Tests of mediswift.engines. Run with: pytest tests/test_engines.py.

`triton` runs in Triton's interpreter; what needs a GPU's sparse tensor cores is refused without.
"""

import pytest
import torch
from torch.nn.functional import linear

from mediswift import blocks, engines, native
from mediswift.engines import ENGINES, possible
from mediswift.layouts import layout
from mediswift.masks import make_mask

PATTERNS = {  # sparsity, outputs, inputs
    "unstructured": (0.75, 80, 52),
    "fan-in": (0.75, 37, 71),  # nothing is a multiple of a register
    "1:4": (0.75, 48, 36),
    "2:4": (0.5, 40, 44),
    "16x1": (0.75, 64, 37),
    "16x16": (0.75, 96, 64),
    "64x64": (0.5, 128, 192),
    "diagonal:4": (0.75, 192, 36),
}
TOKENS = [0, 1, 7, 16, 17, 130]
each_pattern = pytest.mark.parametrize("pattern", PATTERNS)


def draw(pattern, tokens=5, dtype=torch.float32, shape=None, sparsity=None):
    """Inputs, kept weights, bias, gradient of the outputs, and layout."""
    fixed, *own = PATTERNS.get(pattern, (sparsity, *(shape or ())))
    outputs, inputs = shape or own
    mask = make_mask((outputs, inputs), sparsity or fixed, pattern, seed=0, name="w")
    plan = layout(mask)
    generator = torch.Generator().manual_seed(tokens)
    shapes = (tokens, inputs), tuple(plan.order().shape), (outputs,), (tokens, outputs)
    drawn = [torch.randn(s, generator=generator, dtype=dtype) for s in shapes]
    return *(t.requires_grad_() for t in drawn[:3]), drawn[3], plan


def step(name, x, values, bias, grad, plan):
    """Outputs and all gradients that an engine computes."""
    engine = ENGINES[name]
    y = engine.product(x, values, bias, engine.index(plan), len(plan.mask))
    of = [tensor for tensor in (x, values, bias) if tensor is not None]
    return [y.detach(), *torch.autograd.grad(y, of, grad.to(y.dtype))]


def same(found, wanted, tolerance=1e-5):
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        scale = max(1.0, other.abs().max().item() if other.numel() else 0.0)
        torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=tolerance)


@pytest.fixture
def interpreter(monkeypatch):
    """Triton where it needs no GPU."""
    pytest.importorskip("triton", reason="needs the extra 'gpu'")
    monkeypatch.setenv("TRITON_INTERPRET", "1")


# What they compute


@each_pattern
def test_masked_is_the_dense_product_of_the_kept_weights(pattern):
    x, values, bias, grad, plan = draw(pattern, 17, torch.float64)
    weight = torch.zeros(plan.mask.shape, dtype=torch.float64)
    weight.view(-1)[plan.order()] = values.detach()
    assert torch.equal(weight != 0, plan.mask)
    wanted = linear(x, weight.requires_grad_(), bias)
    of_x, of_weight, of_bias = torch.autograd.grad(wanted, [x, weight, bias], grad)
    of_values = of_weight.flatten()[plan.order()]
    same(step("masked", x, values, bias, grad, plan), [wanted, of_x, of_values, of_bias], 1e-12)


@each_pattern
def test_masked_is_the_same_with_and_without_a_compiler(kernels, monkeypatch, pattern):
    given = draw(pattern, 17)
    with_one = step("masked", *given)
    monkeypatch.setattr(native, "why_not", lambda: "found none")
    monkeypatch.setattr(native, "call", lambda *_: pytest.fail("a kernel was called"))
    assert all(map(torch.equal, with_one, step("masked", *given)))


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("tokens", TOKENS)
@each_pattern
def test_every_engine_of_a_cpu_equals_masked(kernels, pattern, tokens, biased):
    x, values, bias, grad, plan = draw(pattern, tokens)
    names = possible(plan, "cpu", torch.float32)
    assert names == ["masked", "native", *(["bmm"] if pattern == "diagonal:4" else [])]
    given = (x, values, bias if biased else None, grad, plan)
    wanted = step("masked", *given)
    for name in names[1:]:
        same(step(name, *given), wanted)


SMALL = {"unstructured": (9, 11), "1:4": (5, 8), "16x1": (32, 5), "diagonal:2": (32, 6)}


SMALL_CASES = [(name, pattern) for name in ("masked", "native") for pattern in SMALL]


@pytest.mark.parametrize(("name", "pattern"), [*SMALL_CASES, ("bmm", "diagonal:2")])
def test_gradients_are_those_of_small_differences(kernels, name, pattern):
    sparsity = 0.5 if pattern == "diagonal:2" else 0.75
    x, values, bias, _, plan = draw(pattern, 3, torch.float64, SMALL[pattern], sparsity)
    engine, index = ENGINES[name], ENGINES[name].index(plan)
    assert torch.autograd.gradcheck(
        lambda *given: engine.product(*given, index, len(plan.mask)), (x, values, bias)
    )


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("run", [16, 48])
def test_bmm_computes_any_diagonal_of_whole_runs(groups, run):
    shape, sparsity = (groups * run, groups * 3), 1 - 1 / groups
    given = draw(f"diagonal:{groups}", 7, shape=shape, sparsity=sparsity)
    assert "bmm" in possible(given[-1], "cpu", torch.float32)
    same(step("bmm", *given), step("masked", *given))


@pytest.mark.parametrize("name", ["masked", "bmm", "native"])
def test_products_follow_autocast(name, request):
    if name == "native":
        request.getfixturevalue("half_kernels")
    x, values, bias, grad, plan = draw("diagonal:4", 17)
    wanted = step("masked", x, values, bias, grad, plan)
    with torch.autocast("cpu", torch.bfloat16):
        y, *gradients = step(name, x, values, bias, grad, plan)
    assert y.dtype == torch.bfloat16 and {g.dtype for g in gradients} == {torch.float32}
    same([y.float(), *gradients], wanted, 2e-2)


# Triton's, interpreted


@pytest.mark.parametrize("side", engines.SIDES)
@pytest.mark.parametrize("tokens", [1, 17])
@pytest.mark.parametrize("biased", [True, False])
def test_triton_equals_masked(interpreter, side, tokens, biased):
    x, values, bias, grad, plan = draw(
        f"{side}x{side}", tokens, shape=(2 * side, 3 * side), sparsity=0.5
    )
    assert "triton" in possible(plan, "cpu", torch.float32)
    given = (x, values, bias if biased else None, grad, plan)
    same(step("triton", *given), step("masked", *given))


def test_triton_computes_in_the_type_of_autocast_and_keeps_gradients_exact(interpreter):
    given = draw("64x64", 17)
    wanted = step("masked", *given)
    with torch.autocast("cpu", torch.float16):
        y, *gradients = step("triton", *given)
    assert y.dtype == torch.float16 and {g.dtype for g in gradients} == {torch.float32}
    same([y.float(), *gradients], wanted, 4e-3)


def test_triton_takes_the_largest_whole_blocks(interpreter):
    sides = {"64x64": 64, "128x128": 128, "64x128": 64, "256x128": 128}
    for pattern, side in sides.items():
        *_, plan = draw(pattern, shape=(256, 256), sparsity=0.5)
        tiles = ENGINES["triton"].index(plan)[0]
        assert tiles.shape[1:] == (side, side)
        assert torch.equal(tiles.flatten().sort().values, torch.arange(int(plan.mask.sum())))


# 2:4, its compressed weights replaced by plain ones


@pytest.mark.parametrize("biased", [True, False])
def test_two_of_four_has_the_gradients_of_masked(monkeypatch, biased):
    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", lambda weight: weight)
    x, values, bias, grad, plan = draw("2:4", 17)
    given = (x, values, bias if biased else None, grad, plan)
    same(step("2:4", *given), step("masked", *given))
    with torch.autocast("cpu", torch.bfloat16):
        y, *gradients = step("2:4", *given)
    assert y.dtype == torch.bfloat16 and {g.dtype for g in gradients} == {torch.float32}
    same([y.float(), *gradients], step("masked", *given), 2e-2)


# What they refuse


def refusal(name, pattern="unstructured", device="cpu", dtype=torch.float32, **shape):
    return ENGINES[name].refuses(draw(pattern, **shape)[-1], device, dtype)


def test_masked_refuses_nothing():
    for device, dtype in (("cuda", torch.float16), ("cpu", torch.bfloat16), ("mps", torch.float32)):
        assert refusal("masked", device=device, dtype=dtype) == ""


@pytest.mark.parametrize(
    ("device", "dtype"),
    [("cuda", torch.float32), ("cuda", torch.bfloat16), ("cpu", torch.float16)],
)
def test_native_refuses_other_devices_and_types(device, dtype):
    assert refusal("native", device=device, dtype=dtype) == (
        f"native computes float32 or bfloat16 on a CPU, not {dtype} on {device}"
    )


def test_native_computes_bfloat16_of_groups_where_the_processor_does(half_kernels, monkeypatch):
    half = {"dtype": torch.bfloat16}
    assert refusal("native", "16x1", **half) == refusal("native", "diagonal:4", **half) == ""
    assert "only where sixteen neighboring outputs" in refusal("native", "unstructured", **half)
    monkeypatch.setattr(native, "multiplies_bf16", lambda: False)
    native.why_not.cache_clear()
    assert "does not multiply bfloat16" in refusal("native", "16x1", **half)
    native.why_not.cache_clear()


@pytest.mark.parametrize(
    ("pattern", "shape"),
    [("unstructured", (64, 32)), ("16x1", (64, 32)), ("diagonal:4", (32, 32))],  # runs of 8
)
def test_bmm_refuses_what_is_no_stack_of_matrices(pattern, shape):
    assert "needs pattern='diagonal:GROUPS'" in refusal("bmm", pattern, shape=shape, sparsity=0.75)


def test_bmm_refuses_groups_of_unequal_sizes():
    for height, width in ([16, 16, 32], [4, 4, 4]), ([16, 16, 16], [2, 4, 6]):
        parts = [torch.ones(h, w, dtype=torch.bool) for h, w in zip(height, width, strict=True)]
        plan = layout(torch.block_diag(*parts).bool())
        assert plan.groups is not None and ENGINES["bmm"].refuses(plan, "cpu", torch.float32)


def test_triton_refuses_a_cpu_other_blocks_and_double_precision(monkeypatch):
    assert "needs a GPU" in refusal("triton", "64x64")
    monkeypatch.setattr(blocks, "available", lambda: True)
    assert refusal("triton", "64x64") == ""
    assert "whole blocks of (128, 64) weights" in refusal("triton", "16x16")
    assert "not torch.float64" in refusal("triton", "64x64", dtype=torch.float64)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "needs a GPU" in refusal("triton", "64x64")  # a CPU beside a GPU
    assert refusal("triton", "64x64", device="cuda", dtype=torch.bfloat16) == ""


def test_two_of_four_refuses_all_but_its_pattern_in_half_precision_on_a_gpu():
    half = {"device": "cuda", "dtype": torch.bfloat16}
    fit = {"shape": (64, 128), "sparsity": 0.5}
    assert "needs half precision on a GPU, not" in refusal("2:4", "2:4", **fit)
    assert refusal("2:4", "2:4", **fit, **half) == ""
    assert "needs pattern='2:4' and sizes in 64s" in refusal("2:4", "unstructured", **fit, **half)
    assert "sizes in 64s" in refusal("2:4", "2:4", **half)


def test_possible_engines_are_those_that_do_not_refuse(monkeypatch):
    plan = draw("diagonal:4")[-1]
    for name, engine in ENGINES.items():
        monkeypatch.setattr(engine, "refuses", lambda *_, n=name: "" if n == "bmm" else "no")
    assert possible(plan, "cpu", torch.float32) == ["bmm"]
