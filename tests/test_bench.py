"""Tests of mediswift.bench, peers and clock. Run with: pytest tests/test_bench.py."""

import json
import math

import pandas as pd
import pytest
import torch

from mediswift import bench, clock, flops, native, peers, records, sparse
from mediswift.__main__ import main

ENGINE = "masked" if native.why_not() else "native"  # a machine may have no compiler
TINY = bench.BenchConfig(
    sizes=("tiny",), patterns=("unstructured", "16x1", "2:4"), tokens=256, rounds=3, engine=ENGINE
)


@pytest.fixture(scope="module")
def record():
    return bench.bench(TINY)


def rows_of(record, **wanted):
    rows = record.metrics["rows"]
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def test_every_contestant_has_every_part(record):
    for name in ("dense", "unstructured", "16x1"):
        parts = [r["part"] for r in rows_of(record, pattern=name) if r["engine"] in bench_engines()]
        assert parts == [*bench.PARTS, "blocks", "step"], name
    assert not rows_of(record, pattern="2:4")  # it cannot have three quarters removed
    assert {r["engine"] for r in rows_of(record, pattern="16x1")} == {ENGINE}


def bench_engines():
    return ("dense", ENGINE)


def test_a_step_is_the_sum_of_its_parts_and_dense_is_the_measure(record):
    for row in rows_of(record, pattern="dense", engine="dense"):
        assert row["speedup"] == row["speedup_low"] == row["speedup_high"] == 1
    for row in rows_of(record, part="step"):
        assert row["seconds_low"] <= row["seconds"] <= row["seconds_high"]
        assert row["speedup_low"] <= row["speedup"] <= row["speedup_high"]
    each = bench.contestants(bench.SHAPES["tiny"], TINY, torch.device("cpu"))[0]
    each.seconds = {"forward": [1.0], "head": [2.0], "backward": [3.0], "optimizer": [4.0]}
    summed = bench._with_sums(each.seconds)
    assert (summed["blocks"], summed["step"]) == ([4.0], [10.0])


def test_theory_memory_and_rate_stand_in_the_row_of_the_step(record):
    (dense,) = rows_of(record, pattern="dense", engine="dense", part="step")
    (thin,) = rows_of(record, pattern="16x1", part="step")
    shape = bench.replace(bench.SHAPES["tiny"], context=256)
    assert thin["theory"] == pytest.approx(flops.reduction(shape, 0.75))
    assert thin["matrix_bytes"] == dense["matrix_bytes"] / 4
    assert dense["gflops"] == pytest.approx(
        flops.training(shape, 256).total / dense["seconds"] / 1e9
    )
    assert dense["peak_share"] == dense["gflops"] / record.metrics["peak_gflops"]


def test_a_contestants_step_is_a_training_step():
    shape = bench.replace(bench.SHAPES["tiny"], context=32)
    one, other = bench.contestants(
        shape, bench.replace(TINY, patterns=("16x1",)), torch.device("cpu")
    )
    ids = torch.randint(2, 512, (2, 33), generator=torch.Generator().manual_seed(0))
    for contestant in (one, other):
        before = {n: p.detach().clone() for n, p in contestant.model.named_parameters()}
        want = contestant.model(input_ids=ids[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(want.flatten(0, 1), ids[:, 1:].flatten())
        gradients = torch.autograd.grad(loss, list(contestant.model.parameters()))
        total = math.sqrt(sum(float(g.square().sum()) for g in gradients))
        seen = {}
        contestant.optimizer.register_step_pre_hook(
            lambda *_, c=contestant, s=seen: s.update(
                {n: p.grad.clone() for n, p in c.model.named_parameters()}
            )
        )
        contestant.step(ids)
        for (name, old), gradient in zip(before.items(), gradients, strict=True):
            torch.testing.assert_close(seen[name], gradient / max(1.0, total), rtol=1e-3, atol=1e-6)
            assert not torch.equal(contestant.model.get_parameter(name), old)
    assert sparse.layers(other.model)


def test_peers_stand_beside(record):
    (trainer,) = rows_of(record, engine="hf trainer")
    assert trainer["pattern"] == "dense" and trainer["part"] == "step" and trainer["speedup"] > 0
    for name in ("torch csr", "torch bsr"):
        (row,) = rows_of(record, engine=name)
        assert row["part"] == "product forward" and row["speedup"] > 0
    assert not rows_of(bench.bench(bench.replace(TINY, peers=False, rounds=2)), engine="torch csr")


def test_in_half_precision_the_dense_step_of_float32_runs_along(half_kernels):
    half = bench.bench(bench.replace(TINY, precision="bf16", patterns=("16x1",), rounds=2))
    (plain,), (thin,) = rows_of(half, engine=bench.FLOAT), rows_of(half, engine=ENGINE, part="step")
    assert plain["part"] == "step" and plain["speedup"] > 0 and thin["pattern"] == "16x1"
    assert not rows_of(half, engine="torch csr") and rows_of(half, engine="hf trainer")
    assert "precision bf16" in bench.told(half)


def test_a_cpu_without_half_precision_is_told_so(no_bf16):
    with pytest.raises(ValueError, match="bf16' on a CPU that does not"):
        bench.bench(bench.replace(TINY, precision="bf16"))


def test_the_trainer_trains_the_same_model_in_silence(capsys):
    (dense,) = bench.contestants(
        bench.SHAPES["tiny"], bench.replace(TINY, patterns=()), torch.device("cpu")
    )
    before = {n: p.detach().clone() for n, p in dense.model.named_parameters()}
    steps = peers.TrainerSteps(dense.model, torch.randint(2, 512, (2, 33)))
    steps.steps(counted=False)
    assert steps.seconds == []
    steps.steps(counted=True)
    assert len(steps.seconds) == 1
    assert not any(torch.equal(p, before[n]) for n, p in dense.model.named_parameters())
    assert capsys.readouterr().out == ""


def test_the_table_can_be_read_and_the_record_kept(record, tmp_path, capsys):
    lines = bench.told(record).splitlines()
    assert lines[2].split()[:4] == ["tiny", "dense", "0%", "dense"]
    words = ["bench", "--sizes", "tiny", "--patterns", "16x1", "--tokens", "64", "--rounds", "2"]
    assert main([*words, "--no-peers", "--json", "--out", str(tmp_path)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["pattern"] for row in rows} == {"dense", "16x1"}
    assert records.newest(tmp_path, "bench").metrics["rows"] == rows


def test_what_is_measured_again_is_kept_beside():
    config = bench.replace(TINY, patterns=(), peers=False, rounds=1)
    assert bench.bench(config).id != bench.bench(config).id


def test_what_cannot_be_timed_is_an_error(capsys):
    with pytest.raises(ValueError, match=r"a size is one of d512, .*; got d513"):
        bench.bench(bench.replace(TINY, sizes=("d513",)))
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="'cuda' needs a GPU"):
            bench.bench(bench.replace(TINY, device="cuda"))
    with pytest.raises(ValueError, match="a pattern is 'unstructured'.*got '16y1'"):
        bench.bench(bench.replace(TINY, patterns=("16y1",)))
    with pytest.raises(ValueError, match="engine 'bmm' cannot compute this layer"):
        bench.bench(bench.replace(TINY, engine="bmm"))
    with pytest.raises(ValueError, match="got '16y1'"):
        clock.matrix_speedups(32, ["16y1"], [0.5])
    assert main(["bench", "--sizes", "d513"]) == 1
    assert "a size is one of" in capsys.readouterr().err


def test_a_matrix_is_timed_by_pattern_and_sparsity():
    table = clock.matrix_speedups(32, ["unstructured", "2:4", "16x1"], [0.5, 0.75], tokens=64)
    found = list(zip(table["sparsity"], table["pattern"], strict=True))
    assert found == [
        (0.5, "unstructured"), (0.5, "2:4"), (0.5, "16x1"), (0.75, "unstructured"), (0.75, "16x1"),
    ]  # fmt: skip
    assert (table["speedup"] > 0).all() and set(table["engine"]) <= {"native", "masked"}


def test_break_even_lies_between_what_was_measured():
    rows = [("a", 0.5, 0.8), ("a", 0.75, 1.2), ("b", 0.5, 1.1), ("b", 0.75, 2.0), ("c", 0.9, 0.9)]
    found = clock.break_even(pd.DataFrame(rows, columns=["pattern", "sparsity", "speedup"]))
    assert found["a"] == pytest.approx(0.625)
    assert math.isnan(found["b"]) and math.isnan(found["c"])


def test_the_newest_record_of_a_kind_is_found(record, tmp_path):
    records.write(record, tmp_path / "one")
    later = bench.replace(record, created_utc="2999-01-01T00:00:00Z")
    records.write(later, tmp_path / "two")
    assert records.newest(tmp_path, "bench").created_utc == later.created_utc
    other = bench.replace(later, params=later.params | {"rounds": 99})
    records.write(other, tmp_path / "three")
    assert records.newest(tmp_path, "bench", rounds=99).params["rounds"] == 99
    with pytest.raises(FileNotFoundError, match="kind 'bench', rounds=98"):
        records.newest(tmp_path, "bench", rounds=98)
    with pytest.raises(FileNotFoundError, match="no record of kind 'contest'"):
        records.newest(tmp_path, "contest")
