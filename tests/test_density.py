"""Density scaling: what a sparse layer gives, and how a step moves it, is as for a dense one."""

from dataclasses import replace

import pytest
import torch
from test_train import CONFIG, ROWS, make_model
from torch import nn

from mediswift import density, masks, sparse, train
from mediswift.linear import SparseLinear

SCALED = replace(CONFIG, density_scaling=True)
SIZE = 512


def layer(sparsity, pattern="unstructured"):
    """Square layer as a model has it before its first step, without a bias."""
    torch.manual_seed(0)
    dense = nn.Linear(SIZE, SIZE, bias=False)
    nn.init.normal_(dense.weight, std=0.02)
    if not sparsity:
        return dense
    mask = masks.make_mask((SIZE, SIZE), sparsity, pattern, seed=0, name="a")
    return SparseLinear(dense.weight, None, mask, engine="masked", pattern=pattern)


# How it starts

each_mask = pytest.mark.parametrize(
    ("sparsity", "pattern"),
    [(0.5, "unstructured"), (0.75, "unstructured"), (0.9, "unstructured"), (0.75, "16x1")],
)


@each_mask
def test_kept_weights_start_wider_by_the_root_of_the_density(sparsity, pattern):
    found = layer(sparsity, pattern)
    drawn = found.values.detach().clone()
    assert density.scale_weights(found) is found
    assert found.values.std().item() == pytest.approx(0.02 * (1 - sparsity) ** -0.5, rel=0.01)
    torch.testing.assert_close(found.values, drawn * density.density(found) ** -0.5)
    assert found.values.requires_grad and found.values.is_leaf


@each_mask
def test_what_a_layer_gives_is_as_large_as_the_dense_ones(sparsity, pattern):
    x = torch.randn(64, SIZE, generator=torch.Generator().manual_seed(1))
    wanted = layer(0.0)(x).std().item()
    assert layer(sparsity, pattern)(x).std().item() < 0.75 * wanted
    found = density.scale_weights(layer(sparsity, pattern))(x).std().item()
    assert found == pytest.approx(wanted, rel=0.05)


def test_each_layer_is_scaled_by_its_own_density_and_nothing_else_is():
    model, untouched = make_model(sparsity=0.6), make_model(sparsity=0.6)
    density.scale_weights(model)
    for one, other in zip(sparse.layers(model), sparse.layers(untouched), strict=True):
        kept = other.values.numel() / (other.in_features * other.out_features)
        torch.testing.assert_close(one.values, other.values * kept**-0.5)
    assert len({density.density(one) for one in sparse.layers(model)}) > 1  # counts are whole
    for name, value in untouched.named_parameters():
        assert name.endswith(".values") or torch.equal(model.get_parameter(name), value)
    sparse.masks_of(model).check(model)


# How it learns


@each_mask
def test_a_step_changes_what_a_layer_gives_as_much_as_the_dense_ones(sparsity, pattern):
    x = torch.randn(1, SIZE, generator=torch.Generator().manual_seed(1))

    def moved(model, config):
        before = model(x)
        optimizer = train.make_optimizer(model, replace(config, weight_decay=0.0))
        before.sum().backward()
        optimizer.step()
        return (before - model(x)).mean().item()

    wanted = moved(layer(0.0), CONFIG)
    assert moved(layer(sparsity, pattern), CONFIG) < 0.6 * wanted
    assert moved(layer(sparsity, pattern), SCALED) == pytest.approx(wanted, rel=0.05)


def changes(config, folder):
    """By how much one training step changed each parameter."""
    model, before = make_model(sparsity=0.6), make_model(sparsity=0.6)
    train.fit(model, ROWS, replace(config, steps=1, warmup_steps=0), folder)
    return {name: (p - before.get_parameter(name)).detach() for name, p in model.named_parameters()}


def test_the_first_step_is_the_rate_over_the_density_for_kept_weights_alone(tmp_path):
    found, plain = changes(SCALED, tmp_path / "a"), changes(CONFIG, tmp_path / "b")
    drawn = sparse.masks_of(make_model(sparsity=0.6)).masks
    kept = {
        name.replace(".weight", ".values"): mask.float().mean().item()
        for name, mask in drawn.items()
    }
    assert len(kept) == 8
    for name in found:
        if name not in kept:
            assert torch.equal(found[name], plain[name])
            continue
        torch.testing.assert_close(found[name], plain[name] / kept[name], atol=1e-6, rtol=1e-4)
        # Adam's first step is the rate itself, but for weight decay and a gradient near epsilon
        assert found[name].abs().median().item() == pytest.approx(CONFIG.lr / kept[name], rel=0.02)


def test_the_factor_holds_at_every_step_of_the_schedule(tmp_path, monkeypatch):
    rates, make = [], train.make_optimizer

    def watched(model, config):
        optimizer = make(model, config)
        optimizer.register_step_pre_hook(
            lambda *_: rates.append([group["lr"] for group in optimizer.param_groups])
        )
        return optimizer

    monkeypatch.setattr(train, "make_optimizer", watched)
    rows = train.fit(make_model(sparsity=0.75), ROWS, SCALED, tmp_path)
    wanted = [[row["lr"], row["lr"], row["lr"] * 4] for row in rows]
    assert rates == wanted and len(rates) == CONFIG.steps


def test_groups_are_by_density_and_hold_every_parameter_once():
    model = make_model(sparsity=0.6)
    model.transformer.h[0].mlp.c_fc.values.requires_grad_(False)
    groups = train.make_optimizer(model, SCALED).param_groups
    held = [id(p) for group in groups for p in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in model.parameters() if p.requires_grad}
    scaled = [group for group in groups if "factor" in group]
    by_factor = {group["factor"]: {id(p) for p in group["params"]} for group in scaled}
    assert len(by_factor) == len(scaled) > 1
    for one in sparse.layers(model):
        if one.values.requires_grad:
            assert id(one.values) in by_factor[1 / density.density(one)]
    assert {group["weight_decay"] for group in scaled} == {CONFIG.weight_decay}


def test_without_it_groups_are_two_and_know_no_factor():
    groups = train.make_optimizer(make_model(sparsity=0.6), CONFIG).param_groups
    assert len(groups) == 2 and not any("factor" in group for group in groups)
    assert {group["lr"] for group in groups} == {CONFIG.lr}


# What it refuses


def test_a_dense_model_has_no_density_to_scale_by(tmp_path):
    dense = sparse.densify(make_model(sparsity=0.5))
    for refused in (density.scale_weights, density.values_by_factor):
        with pytest.raises(ValueError, match="this GPT2LMHeadModel has none: sparse.sparsify"):
            refused(dense)
    with pytest.raises(ValueError, match="or leave density_scaling out"):
        train.fit(dense, ROWS, SCALED, tmp_path)


def test_a_matrix_that_is_too_small_to_keep_anything_is_left_alone():
    empty = SparseLinear(torch.ones(2, 2), None, torch.zeros(2, 2, dtype=torch.bool))
    whole = SparseLinear(torch.ones(2, 2), None, torch.ones(2, 2, dtype=torch.bool))
    model = density.scale_weights(nn.Sequential(empty, whole))
    assert torch.equal(model[1].values, torch.ones(4, 1))
