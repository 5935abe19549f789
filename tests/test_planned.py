"""What a plan is made for: refused where training would refuse it, and by the same rules."""

import pytest

from mediswift import blocks, models
from mediswift.patterns import count, parse
from mediswift.planned import PlanConfig, probe


def config(**changes):
    return PlanConfig(**{"size": "xl", "tokens": 1e9, "gpus": 8} | changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": "h300"}, "cpu or one of h200, h100, a100; got 'h300'"),
        ({"precision": "fp8"}, "precision is no or bf16; got 'fp8'"),
        ({"engine": "fast"}, "an engine is one of auto, masked, .*; got 'fast'"),
        ({"sparsity": 75}, "did you mean 0.75"),
        ({"pattern": "2:4"}, "0.5"),
        ({"pattern": "2of4"}, "a pattern is"),
        ({"pattern": "3x3"}, r"a matrix of whole blocks, got \(2048, 2048\)"),
        ({"gpus": 0}, "gpus are 1 or more, .*; got gpus=0"),
        ({"gflops": -5}, "above 0, or 0 to take a record's; got .* gflops=-5 "),
        ({"speedup": -2}, "above 0, or 0 to take a record's; got .* speedup=-2"),
        ({"tokens": 0}, "at most tokens, got batch_tokens=524288 and tokens=0"),
        ({"batch_tokens": 0}, "a positive multiple of the context 2048 .* batch_tokens=0"),
        ({"batch_tokens": -5}, "a positive multiple of the context 2048 .* batch_tokens=-5"),
        ({"batch_tokens": 100}, "a positive multiple of the context 2048 .* batch_tokens=100"),
        ({"micro_batch": -1}, "1 <= micro_batch <= batch, .* micro_batch=-1"),
        ({"micro_batch": 4096}, "1 <= micro_batch <= batch, .* micro_batch=4096, batch=256"),
        ({"gpus": 257}, "257 processes for a batch of 256; raise the batch, or start fewer"),
        ({"device": "cpu"}, "precision='bf16' on a CPU that does not"),
        ({"engine": "triton"}, "got unstructured on h200: triton needs whole blocks"),
        ({"engine": "bmm"}, "on h200: bmm needs pattern='diagonal:GROUPS'.*; use engine='masked'"),
        ({"engine": "native"}, "on h200: native computes float32 or bfloat16 on a CPU"),
        ({"engine": "2:4", "pattern": "2:4", "sparsity": 0.5, "precision": "no"}, "half precision"),
    ],
)
def test_what_cannot_be_planned_is_refused(change, message, no_bf16):
    with pytest.raises(ValueError, match=message):
        config(**change)


@pytest.mark.parametrize("engine", ["triton", "2:4"])
def test_an_engine_of_gpus_is_not_planned_on_a_cpu(engine):
    with pytest.raises(ValueError, match=r"on cpu: .* needs .*GPU"):
        config(engine=engine, device="cpu", precision="no", pattern="64x64")


def test_an_engine_is_planned_that_is_not_installed_here(monkeypatch):
    monkeypatch.setattr(blocks, "available", lambda: False)
    assert config(engine="triton", pattern="128x128").computed == "triton"
    assert config(engine="2:4", pattern="2:4", sparsity=0.5).computed == "2:4"


@pytest.mark.parametrize("engine", ["auto", "masked", "triton"])
def test_a_dense_run_needs_no_engine(engine):
    assert config(engine=engine, sparsity=0).loop.batch == 256


@pytest.mark.parametrize(("gpus", "most"), [(1, 256), (8, 32), (3, 86), (256, 1)])
def test_a_device_has_its_share_of_a_batch(gpus, most):
    chosen = config(gpus=gpus)
    assert chosen.most == most == max(len(range(i, chosen.loop.batch, gpus)) for i in range(gpus))


@pytest.mark.parametrize("pattern", ["128x128", "unstructured"])
def test_the_probe_is_a_matrix_of_the_run_or_like_one(pattern):
    width = models.shape("small").n_embd
    mask = probe(width, 0.75, pattern).mask
    assert len(mask) == (width if pattern == "128x128" else 512)
    assert mask.sum() == count(parse(pattern), mask.shape, 0.75)
