"""Going on: what the model and Adam start with, what is refused, and what is the same again."""

import shutil
from dataclasses import replace

import pytest
import torch

from mediswift import checkpoints, continuation, models, pretrain, records, sparse
from mediswift.continuation import ContinueConfig, go_on, make_model
from mediswift.finetune import FinetuneConfig, finetune
from mediswift.runs import load_model

BASE = pretrain.profile("tiny", tokens=8_192, validations=1, validation_rows=8)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folder with a sparse and a dense run."""
    folder = tmp_path_factory.mktemp("runs")
    for sparsity in (0.75, 0.0):
        pretrain.pretrain(replace(BASE, sparsity=sparsity), folder)
    return folder


def parent(runs, sparsity):
    (path,) = runs.glob(f"pretrain-tiny-s{sparsity:g}-*/record.json")
    return records.load(path)


def config(runs, sparsity=75, **changes):
    return ContinueConfig(parent=parent(runs, sparsity).id, tokens=4_096, lr=1e-3, **changes)


def started(runs, **changes):
    return make_model(config(runs, **changes), BASE, runs)


def test_zeros_are_the_same_model_dense(runs):
    model, moments = started(runs)
    wanted = load_model(parent(runs, 75).id, runs).state_dict()
    assert moments == {}
    assert not sparse.layers(model)
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())


def test_what_stays_is_sparse_by_the_same_masks(runs):
    model, _ = started(runs, removed="stay")
    assert sparse.masks_of(model).digest == parent(runs, 75).mask_digest


def test_initial_values_come_back_only_where_weights_were_removed(runs):
    model, _ = started(runs, removed="initial")
    zeros, _ = started(runs)
    drawn = models.build(BASE.shape, seed=BASE.seed)
    masks = sparse.load_masks(runs / parent(runs, 75).id)
    for name, value in model.named_parameters():
        mask = masks.masks.get(name, torch.ones_like(value, dtype=torch.bool))
        assert torch.equal(value[mask], zeros.get_parameter(name)[mask])
        assert torch.equal(value[~mask], drawn.get_parameter(name)[~mask])


@pytest.mark.parametrize("removed", ["stay", "zeros"])
def test_moments_are_the_parents_and_none_where_weights_were_removed(runs, removed):
    model, moments = started(runs, moments=True, removed=removed)
    _, before = checkpoints.read(runs / parent(runs, 75).id)
    masks = sparse.load_masks(runs / parent(runs, 75).id).masks
    for name, value in model.named_parameters():
        assert moments[f"exp_avg_sq/{name}"].shape == value.shape
        if name in masks:
            place = name.removesuffix("weight")
            assert not moments[f"exp_avg/{name}"][~masks[name]].any()
            kept = moments[f"exp_avg/{name}"][masks[name]]
            wanted = before[f"exp_avg/{place}values"]
            assert torch.equal(kept.sort().values, wanted.flatten().sort().values)
        else:
            assert torch.equal(moments[f"exp_avg/{name}"], before[f"exp_avg/{name}"])
        assert moments[f"step/{name}"] == BASE.steps


def test_moments_say_which_weight_they_are_of(runs):
    model = load_model(parent(runs, 75).id, runs)
    sparse.attach(model, sparse.load_masks(runs / parent(runs, 75).id))
    values = {f"exp_avg/{n}": p.detach() for n, p in model.named_parameters()}
    spread = continuation.spread(values, model)
    for name, weight in sparse.densify(model).named_parameters():
        assert torch.equal(spread[f"exp_avg/{name}"], weight)


def test_a_run_that_goes_on_is_found_again_and_fine_tuned(runs, monkeypatch):
    record = go_on(config(runs), runs)
    assert (record.kind, record.parent) == ("continue", parent(runs, 75).id)
    metrics = record.metrics
    assert metrics["tokens_trained"] == 4_096
    assert metrics["bits_per_byte_before"] == parent(runs, 75).metrics["bits_per_byte"]
    assert metrics["bits_per_byte"] < metrics["bits_per_byte_before"]
    before = parent(runs, 75).metrics["theoretical_flops"]
    assert metrics["theoretical_flops_with_parent"] - metrics["theoretical_flops"] == before
    masks = sparse.load_masks(runs / record.parent)
    assert masks.removed(load_model(record.id, runs)).any()
    tuned = finetune(FinetuneConfig(parent=record.id, questions="sample:", epochs=1), runs)
    assert tuned.parent == record.id
    monkeypatch.setattr(continuation, "_train", None)
    assert go_on(config(runs), runs) == record


def test_moments_change_the_first_steps(runs):
    plain, carried = go_on(config(runs), runs), go_on(config(runs, moments=True), runs)
    assert plain.metrics["validation_loss_nats"] != carried.metrics["validation_loss_nats"]


def test_what_stays_sparse_leaves_removed_weights_alone(runs):
    record = go_on(config(runs, removed="stay"), runs)
    assert record.mask_digest == parent(runs, 75).mask_digest
    masks = sparse.load_masks(runs / record.parent)
    assert not masks.removed(load_model(record.id, runs)).any()
    dense = go_on(config(runs, 0, removed="stay"), runs).metrics
    assert record.metrics["theoretical_flops"] < dense["theoretical_flops"]


@pytest.mark.parametrize("removed", ["stay", "zeros"])
def test_only_what_stays_sparse_is_scaled_and_nothing_moves_on(removed):
    config = ContinueConfig(parent="x", tokens=4_096, lr=1e-3, removed=removed)
    loop = continuation._loop(config, replace(BASE, density_scaling=True, moves="set"))
    assert loop.density_scaling == (removed == "stay")
    assert loop.moves is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"removed": "gone"}, "stay, or come back as zeros or initial values; got removed='gone'"),
        ({"tokens": 0}, "nothing to go on with: tokens=0"),
    ],
)
def test_a_bad_choice_is_refused_at_once(changes, message):
    with pytest.raises(ValueError, match=message):
        ContinueConfig(**{"parent": "x", "tokens": 1, "lr": 1e-3} | changes)


def test_nothing_comes_back_in_a_dense_run(runs):
    with pytest.raises(ValueError, match="is dense: nothing comes back; take removed='stay'"):
        go_on(config(runs, 0), runs)


def test_only_what_was_pre_trained_goes_on(runs):
    child = go_on(config(runs), runs)
    with pytest.raises(ValueError, match="is a pre-training run; .* is a 'continue'"):
        go_on(replace(config(runs), parent=child.id), runs)


def test_another_text_is_refused(runs, tmp_path):
    own = parent(runs, 75)
    shutil.copytree(runs / own.id, tmp_path / own.id)
    records.write(replace(own, data_fingerprint="another"), tmp_path / own.id)
    with pytest.raises(ValueError, match="read another, sample: is .* now"):
        go_on(config(runs), tmp_path)
