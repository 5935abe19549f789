"""Plans beside what they plan: real models, counted activations, recorded speeds."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mediswift import models, native, plan, records, sparse
from mediswift.__main__ import main
from mediswift.loss import headless
from mediswift.planned import Card, PlanConfig

RESULTS = Path(__file__).parent.parent / "results"
SHAPE = models.shape("tiny", n_embd=128, context=128)
CASES = [
    (0.0, "unstructured", "masked"),
    (0.75, "unstructured", "masked"),
    (0.75, "16x1", "native"),
    (0.75, "diagonal:4", "bmm"),
]

ON_A_CPU = {"native": {"device": "cpu", "precision": "no"}}


def config(**changes):
    return PlanConfig(**{"size": "xl", "tokens": 1e9, "gflops": 1e5} | changes)


def build(shape, sparsity, pattern, engine):
    model = models.build(shape, seed=0)
    if sparsity:
        sparse.sparsify(model, sparsity, pattern, 0, engine)
    return model


def saved_bytes(model, rows, precision):
    """Bytes that the blocks keep for their backward pass, each storage once."""
    own = [*model.parameters(), *model.buffers()]
    found = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no place is reused
        return tensor

    ids = torch.randint(2, SHAPE.vocab_size, (rows, SHAPE.context))
    half = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, half, headless(model.get_output_embeddings()):
        model(input_ids=ids)
    for tensor in own:
        found.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(size for size, _ in found.values())


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize(("sparsity", "pattern", "engine"), CASES)
def test_a_layer_keeps_what_the_plan_says(sparsity, pattern, engine, precision):
    if (engine, precision) == ("native", "bf16") and native.why_not(native.HALF):
        pytest.skip(native.why_not(native.HALF))
    chosen = {"sparsity": sparsity, "pattern": pattern, "engine": engine, "precision": precision}
    chosen = config(**ON_A_CPU.get(engine, {}) | chosen)
    counted, planned = [], []
    for layers in (1, 3):
        shape = replace(SHAPE, n_layer=layers)
        counted.append(saved_bytes(build(shape, sparsity, pattern, engine), 4, precision))
        planned.append(plan.memory(chosen, shape, 4)["activations"])
    assert planned[1] - planned[0] == pytest.approx(counted[1] - counted[0], rel=0.01)


def test_recomputing_keeps_what_enters_each_block_and_one_block_whole():
    counted, planned, chosen = [], [], config(sparsity=0.0, precision="no", recompute=True)
    for layers in (1, 3):
        shape = replace(SHAPE, n_layer=layers)
        model = build(shape, 0.0, "unstructured", "masked").train()
        model.activation_checkpointing_enable()
        counted.append(saved_bytes(model, 4, "no"))
        planned.append(plan.memory(chosen, shape, 4)["activations"])
    entering = (counted[1] - counted[0]) / 2
    assert (planned[1] - planned[0]) / 2 == pytest.approx(entering, rel=0.01)
    kept = plan.memory(replace(chosen, recompute=False), replace(SHAPE, n_layer=1), 4)
    assert planned[0] == pytest.approx(kept["activations"] + entering, rel=0.01)


@pytest.mark.parametrize(("sparsity", "pattern", "engine"), CASES)
def test_parameters_moments_and_index_are_those_of_a_model(sparsity, pattern, engine):
    model = build(SHAPE, sparsity, pattern, engine)
    chosen = {"sparsity": sparsity, "pattern": pattern, "engine": engine}
    chosen = config(**ON_A_CPU.get(engine, {}) | chosen)
    counts = plan.parameters(chosen, SHAPE)
    assert counts["trained"] == sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters())
    model(input_ids=torch.zeros(1, 4, dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    held = plan.memory(chosen, SHAPE, 1)
    states = [v for state in optimizer.state.values() for k, v in state.items() if k != "step"]
    assert held["moments"] == sum(v.nbytes for v in states)
    assert held["gradients"] == sum(p.grad.nbytes for p in model.parameters())
    buffers = [b for layer in sparse.layers(model) for b in layer.buffers(recurse=False)]
    indexed = sum(b.nbytes for b in buffers)  # that of bmm grows with the sides, and is nothing
    assert held["index"] == pytest.approx(indexed, rel=0.1, abs=held["parameters"] / 50)


@pytest.mark.parametrize("size", ["med", "xl"])
def test_the_papers_sizes_build_without_memory(size):
    shape = models.shape(size)
    with torch.device("meta"):
        model = models.build(shape, seed=0)
    counts = plan.parameters(config(size=size), shape)
    assert counts["dense"] == sum(p.numel() for p in model.parameters())


def test_a_sparse_block_of_the_papers_med_builds_without_memory():
    shape = models.shape("med", n_layer=1)
    with torch.device("meta"):
        model = models.build(shape, seed=0)
    sparse.sparsify(model, 0.75, "16x16", 0, "masked")
    assert sum(p.numel() for p in model.parameters()) == plan.parameters(config(), shape)["trained"]


def test_shards_divide_what_is_trained_and_nothing_else():
    shape = models.shape("xl")
    whole, shard = (plan.memory(config(gpus=8, sharded=s), shape, 2) for s in (False, True))
    assert whole["exchange"] == whole["gradients"] > shard["exchange"]
    for part in whole.keys() - {"total", "exchange"}:
        share = 8 if part in ("parameters", "gradients", "moments") else 1
        assert shard[part] == pytest.approx(whole[part] / share)


@pytest.mark.parametrize("device", ["h200", "h100", "a100"])
def test_the_micro_batch_is_the_largest_that_fits(device):
    shape, chosen = models.shape("xl"), config(device=device)
    rows, room = plan.largest(chosen, shape), plan.CARDS[device].memory
    assert plan.memory(chosen, shape, rows)["total"] <= room
    assert plan.memory(chosen, shape, 2 * rows)["total"] > room
    step = config(device=device, batch_tokens=2 * shape.context)
    assert plan.largest(step, shape) == 2  # no more than a step has


def test_what_does_not_fit_is_said(monkeypatch):
    monkeypatch.setitem(plan.CARDS, "h200", Card(1e9, 700))
    needed = plan.plan(config())
    assert needed["config"]["micro_batch"] == 0
    assert "not even one row fits" in plan.told(needed)


def test_given_rows_that_do_not_fit_are_planned_and_said():
    fits, wide = (plan.plan(config(micro_batch=rows)) for rows in (16, 64))
    assert (fits["fits"], wide["fits"]) == (True, False)
    assert wide["memory_bytes"]["total"] > plan.CARDS["h200"].memory
    assert "does not fit into the 141 GB of one h200: take fewer rows" in plan.told(wide)
    assert "fit into" not in plan.told(fits)
    assert plan.plan(config(device="cpu", precision="no"))["fits"] is None


def test_a_micro_batch_is_no_more_than_a_device_has_of_a_batch():
    needed = plan.plan(config(gpus=8, micro_batch=64))
    assert needed["config"]["micro_batch"] == 32
    assert needed["memory_bytes"] == plan.plan(config(gpus=8, micro_batch=32))["memory_bytes"]
    assert "micro-batches of 32 rows: a device has no more of a batch" in plan.told(needed)


def test_auto_is_planned_as_masked_and_said():
    auto, masked = (plan.plan(config(engine=engine)) for engine in ("auto", "masked"))
    assert auto["memory_bytes"] == masked["memory_bytes"]
    assert "engine auto planned as masked" in plan.told(auto)
    assert masked["assumed"] == plan.plan(config(engine="auto", sparsity=0.0))["assumed"] == []


def test_hours_follow_from_the_rate_and_saved_flops_are_not_saved_hours():
    one, eight = (plan.plan(config(gpus=n))["time"] for n in (1, 8))
    assert one["hours"] == one["dense_hours"] == pytest.approx(8 * eight["hours"])
    assert one["device_hours"] == pytest.approx(eight["device_hours"])
    assert one["energy_kwh"] == pytest.approx(one["hours"] * 0.7)
    assert plan.plan(config(speedup=2.0))["time"]["hours"] == pytest.approx(one["hours"] / 2)
    dense = plan.plan(config(sparsity=0.0))["flops"]["total"]
    assert one["dense_hours"] == pytest.approx(dense / 1e14 / 3600)


def test_a_rate_comes_out_of_a_record_of_the_same_device():
    chosen = config(device="cpu", gflops=0.0, pattern="16x1", engine="native", precision="no")
    hours = plan.plan(chosen, RESULTS)["time"]
    record = records.load(RESULTS / hours["rate"] / "record.json")
    assert record.kind == "bench" and record.env["device"] == "cpu"
    rows = [row for row in record.metrics["rows"] if row["part"] == "step"]
    assert hours["gflops"] in [row["gflops"] for row in rows if row["engine"] == "dense"]
    assert hours["speedup"] in [row["speedup"] for row in rows if row["pattern"] == "16x1"]


@pytest.mark.parametrize("lacks", [{"size": "d1024"}, {"pattern": "16x1"}], ids=str)
def test_a_newer_record_of_smaller_steps_or_of_other_patterns_gives_no_rate(tmp_path, lacks):
    whole = records.newest(RESULTS, "bench", sizes=["d512", "d1024"], precision="no")
    rows = [row for row in whole.metrics["rows"] if not lacks.items() <= row.items()]
    part = replace(whole, id="bench-part", metrics={"rows": rows}, created_utc="2999")
    for record in (whole, part):
        records.write(record, tmp_path / record.id)
    asked = config(device="cpu", gflops=0.0, precision="no", pattern="16x1")
    assert plan.plan(asked, tmp_path)["time"]["rate"] == whole.id
    assert plan.plan(replace(asked, pattern="16x16"), tmp_path)["time"]["rate"] == (
        whole.id if "size" in lacks else part.id
    )


def test_without_a_rate_there_are_no_hours(tmp_path):
    hours = plan.plan(config(gflops=0.0), tmp_path)["time"]
    assert set(hours) == {"missing"}
    assert "no measured rate for h200: give --gflops, or run" in hours["missing"]


def test_the_command_line_says_the_same(capsys):
    words = ["plan", "--size", "xl", "--tokens", "104.86e9", "--sparsity", "0.75"]
    words += ["--device", "h200", "--gpus", "8", "--gflops", "3e5"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    needed = json.loads(capsys.readouterr().out)
    assert text.rstrip() == plan.told(needed)
    assert needed["flops"]["reduction"] == pytest.approx(2.53, abs=0.01)
