"""Pre-training: what a run is, what it leaves, and that it can be stopped at any time."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from mediswift import checkpoints, demo, flops, models, pretrain, records, schedule, sparse, train
from mediswift.linear import SparseLinear
from mediswift.runs import load_history, load_model

TINY = pretrain.profile("tiny")
LONG = replace(TINY, batch_tokens=512, tokens=512 * 150)
GOLDEN = Path(__file__).parent / "golden" / "pretrain_tiny.txt"


def forbid(*_, **__):
    raise AssertionError("it is trained already")


def tensors(folder):
    return checkpoints.read(folder)[1]


@pytest.fixture(scope="module")
def ingredients(runs, pretrained):
    return pretrain.load_materials(TINY, runs)


# The numbers


def test_the_loss_follows_the_golden_curve(runs, pretrained):
    curve = load_history(pretrained.id, runs).set_index("step")["loss"]
    found = "".join(f"{step} {loss:.6f}\n" for step, loss in curve.items())
    golden = dict(line.split() for line in GOLDEN.read_text(encoding="utf-8").splitlines())
    wanted = {int(step): float(loss) for step, loss in golden.items()}
    assert curve.to_dict() == pytest.approx(wanted, rel=1e-3), (  # other CPUs round otherwise
        "the same configuration gives other numbers: if that is meant, raise pretrain.RECIPE, "
        f"say why in CHANGELOG.md, and let {GOLDEN.name} be\n{found}"
    )


# What a run leaves


def test_a_second_call_finds_the_run(runs, pretrained, monkeypatch):
    monkeypatch.setattr(train, "fit", forbid)
    assert pretrain.pretrain(TINY, runs) == pretrained


def test_the_model_needs_nothing_of_ours_and_is_masked_exactly(runs, pretrained):
    folder = runs / pretrained.id
    model = AutoModelForCausalLM.from_pretrained(folder / "model", local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model", local_files_only=True)
    masks = sparse.load_masks(folder)
    assert (masks.sparsity, masks.digest) == (TINY.sparsity, pretrained.mask_digest)
    for name, mask in masks.masks.items():
        assert torch.equal(model.get_parameter(name) != 0, mask)
    loss = model(**(inputs := tokenizer("A cell.", return_tensors="pt")), labels=inputs.input_ids)
    assert loss.loss.isfinite()


def test_the_record_says_what_was_chosen_and_measured(runs, pretrained):
    cost = flops.training(TINY.shape, TINY.tokens, 0.75)
    metrics = pretrained.metrics
    assert pretrained.params == asdict(TINY)
    assert metrics["tokens_trained"] == TINY.tokens
    assert metrics["theoretical_flops"] == cost.total
    terms = [metrics[f"theoretical_flops_{term}"] for term in ("linear", "attention", "head")]
    assert terms == [cost.linear, cost.attention, cost.head]
    assert metrics["theoretical_reduction"] == flops.reduction(TINY.shape, 0.75)
    assert metrics["non_embedding_parameters"] == flops.parameters(TINY.shape)
    assert metrics["trained_parameters"] < 0.3 * metrics["non_embedding_parameters"]
    assert metrics["contaminated_documents_removed"] == 0
    assert metrics["process_peak_memory_bytes"] > 0
    assert pretrained.env["device"] == "cpu"
    last = load_history(pretrained.id, runs).iloc[-1]
    assert metrics["validation_loss_nats"] == last["validation_loss"]
    assert (runs / pretrained.parent / "record.json").exists()


def test_contaminated_documents_are_in_the_record(tmp_path):
    pmids = list(json.loads((demo.DATA / "pubmedqa_labels.json").read_text()))[:2]
    leaked = [{"pmid": pmid, "title": f"Leaked {pmid}", "abstract": "It heals."} for pmid in pmids]
    sample = (demo.DATA / "sample" / "abstracts.jsonl").read_text(encoding="utf-8")
    path = tmp_path / "leaky.jsonl"
    path.write_text(sample + "\n".join(map(json.dumps, leaked)), encoding="utf-8")
    record = pretrain.pretrain(replace(TINY, corpus=f"jsonl:{path}", tokens=1024), tmp_path)
    assert record.metrics["contaminated_documents_removed"] == 2


def test_contaminated_documents_stay_only_when_asked_for(tmp_path):
    pmid = next(iter(json.loads((demo.DATA / "pubmedqa_labels.json").read_text())))
    leaked = {"pmid": pmid, "title": "Leaked", "abstract": "Xylophones heal. " * 30}
    sample = (demo.DATA / "sample" / "abstracts.jsonl").read_text(encoding="utf-8")
    path = tmp_path / "leaky.jsonl"
    path.write_text(sample + json.dumps(leaked), encoding="utf-8")
    clean = replace(TINY, corpus=f"jsonl:{path}")
    leaky = replace(clean, keep_contaminated=True)
    without, within = (pretrain.load_materials(config, tmp_path) for config in (clean, leaky))
    assert without.record.id != within.record.id
    assert within.record.metrics["contaminated_kept"] == 1
    assert within.record.metrics["kept"] == without.record.metrics["kept"] + 1
    assert "keep_contaminated" not in without.record.params
    assert within.record.params["keep_contaminated"] is True


def test_a_dense_run_starts_from_the_same_weights_and_has_no_masks(tmp_path):
    thin, whole = pretrain.make_model(TINY), pretrain.make_model(replace(TINY, sparsity=0.0))
    for name, mask in sparse.masks_of(thin).masks.items():
        assert torch.equal(thin.state_dict()[name], whole.get_parameter(name) * mask)
    record = pretrain.pretrain(replace(TINY, sparsity=0.0, tokens=1024), tmp_path)
    assert record.mask_digest == ""
    assert sparse.load_masks(tmp_path / record.id) is None


def test_density_scaling_starts_kept_weights_larger_and_nothing_else():
    plain, scaled = (pretrain.make_model(replace(TINY, density_scaling=s)) for s in (False, True))
    for name, weight in plain.named_parameters():
        factor = 2 if name.endswith(".values") else 1  # a quarter is kept
        assert torch.equal(scaled.get_parameter(name), factor * weight)
    widest = scaled.get_parameter("biogpt.layers.0.fc1.values")
    assert widest.std().item() == pytest.approx(2 * models.initial_spread(TINY.shape), rel=0.05)


def test_a_scaled_run_is_another_one_and_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    config = replace(TINY, tokens=8_192, engine="masked", density_scaling=True)
    record = pretrain.pretrain(config, tmp_path / "whole")
    assert record.params["density_scaling"] is True
    plain = pretrain.pretrain(replace(config, density_scaling=False), tmp_path / "whole")
    assert plain.id != record.id and plain.mask_digest == record.mask_digest
    assert plain.metrics["validation_loss_nats"] != record.metrics["validation_loss_nats"]

    def stop(step, loop):
        if step == 4:
            signal.raise_signal(signal.SIGTERM)
        return schedule.learning_rate(step, loop)

    monkeypatch.setattr(train, "learning_rate", stop)
    with pytest.raises(KeyboardInterrupt, match="stopped after step 5"):
        pretrain.pretrain(config, tmp_path / "cut")
    monkeypatch.undo()
    again = pretrain.pretrain(config, tmp_path / "cut")
    one, other = (tensors(tmp_path / name / record.id) for name in ("whole", "cut"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert again.metrics["validation_loss_nats"] == record.metrics["validation_loss_nats"]


def test_a_few_rows_can_validate(runs, ingredients, tmp_path):
    config = replace(TINY, tokens=1024, validation_rows=2)
    record = pretrain.pretrain(config, tmp_path)
    rows = torch.from_numpy(np.stack([ingredients.validation[row] for row in range(2)]))
    model = load_model(record.id, tmp_path)
    with torch.no_grad():
        loss = cross_entropy(model(rows[:, :-1]).logits.flatten(0, 1), rows[:, 1:].flatten())
    assert record.metrics["validation_loss_nats"] == pytest.approx(loss.item(), rel=1e-5)


def test_activations_computed_again_make_the_same_run(tmp_path, monkeypatch):
    config = replace(TINY, tokens=2_048, engine="masked")
    runs = [replace(config, recompute=again) for again in (False, True)]
    passes, forward = [], SparseLinear.forward
    monkeypatch.setattr(SparseLinear, "forward", lambda *x: passes.append(1) or forward(*x))
    kept = pretrain.pretrain(runs[0], tmp_path / "False")
    once = len(passes)
    again = pretrain.pretrain(runs[1], tmp_path / "True")
    assert len(passes) - once > once  # it does compute them again
    assert kept.id == again.id and again.params["recompute"]
    one, other = (tensors(tmp_path / str(c.recompute) / kept.id) for c in runs)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


# What a run is

CHANGES = {
    "size": "demo", "tokens": 30_720, "batch_tokens": 2_048, "lr": 1e-3, "micro_batch": 1,
    "sparsity": 0.5, "pattern": "1:4", "seed": 1, "warmup": 0.1, "precision": "bf16",
    "validations": 4, "validation_rows": 2, "keep_contaminated": True, "density_scaling": True,
    "moves": "rigl", "moves_every": 10, "moves_fraction": 0.2,
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_every_field_makes_another_run(ingredients, pretrained, name):
    moving = {"moves": "set"} if name.startswith("moves_") else {}  # else it says nothing
    base = replace(TINY, **moving)
    changed = replace(base, **{name: CHANGES[name]})
    assert pretrain._run_id(TINY, ingredients) == pretrained.id
    assert pretrain._run_id(changed, ingredients) != pretrain._run_id(base, ingredients)


def test_every_field_but_text_and_how_it_is_computed_is_among_them(ingredients):
    assert CHANGES.keys() == {f.name for f in fields(TINY)} - set(pretrain.HOW)
    other = replace(TINY, engine="masked", sharded=True, recompute=True)  # the last bits alone
    assert pretrain._run_id(other, ingredients) == pretrain._run_id(TINY, ingredients)


def test_a_run_without_what_came_later_keeps_the_id_that_it_had():
    text = SimpleNamespace(fingerprint="text"), SimpleNamespace(fingerprint="held out")
    of_text = SimpleNamespace(train=text[0], validation=text[1])
    found = [pretrain._run_id(replace(TINY, sparsity=s), of_text) for s in (0.75, 0.0)]
    assert found == [
        "pretrain-tiny-s75-unstructured-seed0-3c513cce37",
        "pretrain-tiny-s0-unstructured-seed0-53b7bc9166",
    ]
    scaled = pretrain._run_id(replace(TINY, density_scaling=True), of_text)
    assert scaled.startswith("pretrain-tiny-s75-unstructured-scaled-seed0-")


def test_masks_that_move_are_those_that_a_run_leaves(tmp_path):
    config = replace(TINY, tokens=8_192, moves="rigl", moves_every=2)
    record = pretrain.pretrain(config, tmp_path)
    masks = sparse.load_masks(tmp_path / record.id)
    assert record.id.startswith("pretrain-tiny-s75-unstructured-rigl-seed0-")
    assert masks.digest == record.mask_digest
    assert record.mask_digest != sparse.masks_of(pretrain.make_model(config)).digest
    masks.check(load_model(record.id, tmp_path))


def test_the_text_makes_the_run_and_not_its_address(ingredients, pretrained, tmp_path):
    lines = (demo.DATA / "sample" / "abstracts.jsonl").read_text(encoding="utf-8").splitlines()
    for name, kept in (("same", lines), ("other", lines[:-1])):
        (tmp_path / name).with_suffix(".jsonl").write_text("\n".join(kept), encoding="utf-8")
    same, other = (
        replace(TINY, corpus=f"jsonl:{tmp_path / name}.jsonl") for name in ("same", "other")
    )
    ids = [
        pretrain._run_id(config, pretrain.load_materials(config, tmp_path))
        for config in (same, other)
    ]
    assert ids[0] == pretrained.id != ids[1]


def test_a_dense_run_is_one_run_whatever_the_pattern(ingredients):
    dense = [replace(TINY, sparsity=0, pattern=pattern) for pattern in ("unstructured", "2:4")]
    dense.append(replace(TINY, sparsity=0.0, density_scaling=True))
    assert len({pretrain._run_id(config, ingredients) for config in dense}) == 1


def test_a_finished_run_is_read_where_it_could_not_be_trained(
    ingredients, pretrained, tmp_path, no_bf16
):
    mixed = replace(TINY, precision="bf16")
    with pytest.raises(ValueError, match="precision='bf16' on a CPU that does not"):
        pretrain.pretrain(mixed, tmp_path)
    made = replace(pretrained, id=pretrain._run_id(mixed, ingredients), params=asdict(mixed))
    records.write(made, tmp_path / made.id)
    assert pretrain.pretrain(mixed, tmp_path) == made


@pytest.fixture(scope="module")
def moved(runs, pretrained, tmp_path_factory):
    """Folder with the run alone, and its configuration with the text at another address."""
    folder = tmp_path_factory.mktemp("moved")
    shutil.copytree(runs / pretrained.id, folder / pretrained.id)
    shutil.copyfile(demo.DATA / "sample" / "abstracts.jsonl", folder / "text.jsonl")
    return folder, replace(TINY, corpus=f"jsonl:{folder / 'text.jsonl'}")


def test_runs_of_moved_text_are_found_at_any_sparsity_and_seed(moved, ingredients, pretrained):
    folder, config = moved
    other = replace(TINY, sparsity=0.5, pattern="2:4", seed=3)
    other = replace(pretrained, id=pretrain._run_id(other, ingredients), params=asdict(other))
    records.write(other, folder / other.id)
    assert pretrain.find(config, folder) == sorted([pretrained, other], key=lambda r: r.id)
    shutil.rmtree(folder / other.id)
    assert pretrain.find(replace(config, seed=7, sparsity=0.0), folder) == [pretrained]


def test_runs_of_another_profile_recipe_or_text_are_not_found(moved, monkeypatch):
    folder, config = moved
    assert pretrain.find(replace(config, lr=1e-3), folder) == []
    lines = (folder / "text.jsonl").read_text(encoding="utf-8").splitlines()
    (folder / "less.jsonl").write_text("\n".join(lines[:-1]), encoding="utf-8")
    assert pretrain.find(replace(config, corpus=f"jsonl:{folder / 'less.jsonl'}"), folder) == []
    monkeypatch.setattr(pretrain, "RECIPE", pretrain.RECIPE + 1)
    assert pretrain.find(config, folder) == []


def test_the_door_needs_a_configuration(capsys):
    assert pretrain.main([]) == pretrain.main(["--help"]) == 2
    assert "usage: python -m mediswift.pretrain CONFIG.json" in capsys.readouterr().err


def test_the_door_says_what_is_wrong_in_a_line(capsys, tmp_path):
    (tmp_path / "typo.json").write_text(json.dumps(asdict(TINY) | {"sparcity": 0.75}))
    for name, message in (("typo.json", "sparcity"), ("none.json", "none.json")):
        assert pretrain.main([str(tmp_path / name), str(tmp_path)]) == 1
        said = capsys.readouterr().err
        assert said.startswith("mediswift.pretrain: ") and said.count("\n") == 1
        assert message in said


# Stopped


def start(config, folder, *launcher):
    """The command line's run of `config`, in a process group of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(asdict(config)))
    command = ["-m", "mediswift.pretrain", folder / "config.json", folder]
    return subprocess.Popen(
        [sys.executable, *launcher, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def stop(process, sent):
    """Send a signal at the first validation."""
    while "validation" not in process.stdout.readline():
        assert process.poll() is None, process.stderr.read()
    os.killpg(process.pid, sent)


def test_two_jobs_at_once_train_once(tmp_path, pretrained):
    both = [start(TINY, tmp_path) for _ in "ab"]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    steps = load_history(pretrained.id, tmp_path)["step"]
    assert steps.is_monotonic_increasing and steps.is_unique
    assert steps.iloc[-1] == TINY.steps
    assert "".join(out for out, _ in said).count("steps on") == 1  # one trained, one found
    folders = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert folders == {pretrained.parent, pretrained.id}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, pretrain.pretrain(LONG, folder)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Two stopped runs by their signal. They start at once: most of their time is imports."""
    folder = tmp_path_factory.mktemp("stopped")
    both = {sent: start(LONG, folder / sent.name) for sent in (signal.SIGINT, signal.SIGTERM)}
    try:
        for sent, process in both.items():
            stop(process, sent)
        return folder, {sent: process.communicate(timeout=60)[0] for sent, process in both.items()}
    finally:
        for process in both.values():
            process.kill()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_goes_on_to_the_same_bits(stopped, uninterrupted, sent):
    folder, said = stopped[0] / sent.name, stopped[1][sent]
    whole, record = uninterrupted
    at = int(tensors(folder / record.id)["step/biogpt.embed_tokens.weight"])
    assert LONG.loop.evaluate_every <= at < LONG.steps
    assert f"stopped after step {at}; call again to go on" in said
    again = pretrain.pretrain(LONG, folder)
    one, other = tensors(folder / record.id), tensors(whole / record.id)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert again.metrics["validation_loss_nats"] == record.metrics["validation_loss_nats"]


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.mark.slow
def test_two_processes_from_the_command_line_are_stopped_and_go_on(tmp_path):
    config = replace(LONG, batch_tokens=2_048, micro_batch=1)
    process = start(config, tmp_path / "two", *TORCHRUN)
    stop(process, signal.SIGINT)
    assert "call again to go on" in process.communicate(timeout=60)[0]
    process = start(config, tmp_path / "two", *TORCHRUN)
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    record = pretrain.pretrain(config, tmp_path / "one")
    assert said.count(record.id) == 2  # its header and its record, each once
    one, two = tensors(tmp_path / "one" / record.id), tensors(tmp_path / "two" / record.id)
    for name in one:
        # A key's bias has no gradient but rounding, which Adam scales up
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=1e-4)
