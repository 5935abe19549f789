"""Masks that move: by sparsimony's own masks, by gradients of the dense matrix, moments and all."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import debug_launcher
from accelerate.state import AcceleratorState
from test_train import ANSWERS, CONFIG, Killed, Trap, kill, make_model, same, state

from mediswift import dynamic, sparse, train
from mediswift.loss import summed_loss
from mediswift.schedule import Rule

MOVES = json.loads((Path(__file__).parent / "golden" / "sparsimony_moves.json").read_text())


@pytest.mark.parametrize("case", MOVES["cases"])
def test_masks_move_as_sparsimonys(case):
    mask, wanted = (torch.tensor(case[name]).bool() for name in ("mask", "moved"))
    weight, grad = (torch.tensor(case[name]).float() for name in ("weight", "grad"))
    count = int(case["fraction"] * int(mask.sum()))
    assert count == case["count"]
    assert torch.equal(dynamic.moved(mask, weight, grad.abs(), count), wanted)


def test_ties_go_to_the_first_and_nothing_moves_for_nothing():
    mask = torch.tensor([[True, True, False, False]])
    ones = torch.ones(1, 4)
    assert torch.equal(dynamic.moved(mask, ones, ones, 0), mask)
    assert dynamic.moved(mask, ones, torch.zeros(1, 4), 1).tolist() == [[True, True, False, False]]
    assert dynamic.moved(mask, ones, ones - torch.eye(4)[1], 1).tolist()[0] == [1, 0, 1, 0]


def test_the_pace_is_that_of_the_authors():
    rule = Rule(name="rigl", every=10, fraction=0.3, until=0.75)
    moves = {step: rule.moving(step, 80) for step in range(1, 81) if rule.moving(step, 80)}
    assert list(moves) == [10, 20, 30, 40, 50]  # 60 is the end, where the cosine is zero
    assert moves[30] == pytest.approx(0.15)
    assert moves[20] == pytest.approx(0.15 * (1 + math.cos(math.pi / 3)))


@pytest.mark.parametrize(
    "wrong", [{"name": "gmp"}, {"every": 0}, {"fraction": 1.0}, {"until": 0.0}], ids=str
)
def test_what_is_no_rule_is_refused(wrong):
    with pytest.raises(ValueError, match="got"):
        Rule(**({"name": "set"} | wrong))


def backward(model, cuts=((0, 1), (2, 3))):
    for cut in cuts:
        summed_loss(model, ANSWERS.batch(list(cut))).backward()


def dense_gradients(model):
    """What the plain dense model has, in double the passes."""
    plain = sparse.densify(model)
    plain.zero_grad()
    backward(plain)
    return {name: p.grad for name, p in plain.named_parameters()}


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("engine", ["masked", "native"])
def test_gradients_are_those_of_the_dense_matrix(engine, recompute):
    model = make_model(sparsity=0.5)
    for layer in sparse.layers(model):
        layer.use(engine)
    if recompute:
        model.activation_checkpointing_enable()
    model.train()
    with dynamic.watched(model) as found:
        backward(model)
    assert len(found) == len(sparse.layers(model))
    wanted = dense_gradients(model)
    for name, grad in found.items():
        torch.testing.assert_close(grad.T, wanted[f"{name}.weight"], atol=1e-5, rtol=1e-4)
    with dynamic.watched(make_model(sparsity=0.5), watch=False) as found:
        assert found == {}


@pytest.fixture
def trained():
    """Sparse model and its optimizer after a step."""
    model = make_model(sparsity=0.5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.0)
    backward(model)
    optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("rule", ["set", "rigl"])
def test_what_is_kept_stays_and_what_grows_starts_at_zero(trained, rule):
    model, optimizer = trained
    before = {n: p.detach().clone() for n, p in sparse.densify(copy(model)).named_parameters()}
    old = sparse.masks_of(model)
    moments = spread(model, optimizer)
    with dynamic.watched(model, rule == "rigl") as gradients:
        backward(model)
    optimizer.zero_grad()
    dynamic.move(model, optimizer, 0.3, 0, 5, gradients)
    new, after = sparse.masks_of(model), spread(model, optimizer)
    new.check(model)
    assert new.digest != old.digest
    for name, layer in named(model).items():
        was, now = old.masks[f"{name}.weight"], new.masks[f"{name}.weight"]
        assert int((was & ~now).sum()) == int((now & ~was).sum()) <= int(0.3 * was.sum())
        assert now.sum() == was.sum()
        weight = layer.weight.detach()
        assert torch.equal(weight[was & now], before[f"{name}.weight"][was & now])
        assert not weight[now & ~was].any()
        stays = moments[name].where(now, 0)
        assert torch.equal(after[name], stays)
        weakest = before[f"{name}.weight"].abs()
        assert weakest[was & ~now].max() <= weakest[was & now].max()


def test_a_moved_model_learns_and_computes_by_its_new_masks(trained):
    model, optimizer = trained
    dynamic.move(model, optimizer, 0.3, 0, 5, {})
    plain = sparse.densify(copy(model))
    batch = ANSWERS.batch([0, 1])
    torch.testing.assert_close(summed_loss(model, batch), summed_loss(plain, batch))
    optimizer.zero_grad()
    backward(model)
    optimizer.step()
    sparse.masks_of(model).check(model)


def test_moves_depend_on_the_step_alone(trained):
    model, optimizer = trained
    others = [copy(model) for _ in range(3)]
    for other, step in zip(others, (5, 5, 6), strict=True):
        dynamic.move(other, torch.optim.AdamW(other.parameters()), 0.3, 0, step, {})
    one, two, three = (sparse.masks_of(other).digest for other in others)
    assert one == two != three


MOVING = replace(CONFIG, moves=Rule(name="rigl", every=2, fraction=0.4, until=1.0), save_every=1)


@pytest.fixture(params=["set", "rigl"])
def config(request):
    return replace(MOVING, moves=replace(MOVING.moves, name=request.param))


def test_a_run_whose_masks_move_goes_on_bit_by_bit(tmp_path, config):
    whole, drawn = make_model(sparsity=0.5), make_model(sparsity=0.5)
    train.fit(whole, ANSWERS, config, tmp_path / "whole")
    with pytest.raises(Killed):
        examples = Trap(5 * config.batch // config.micro_batch, kill, ANSWERS)
        train.fit(make_model(sparsity=0.5), examples, config, tmp_path / "cut")
    cut = make_model(sparsity=0.5)
    train.fit(cut, ANSWERS, config, tmp_path / "cut")
    assert same(state(tmp_path / "whole"), state(tmp_path / "cut"))
    assert sparse.masks_of(cut).digest == sparse.masks_of(whole).digest
    assert sparse.masks_of(cut).digest != sparse.masks_of(drawn).digest
    masks = sparse.masks_of(cut)
    masks.save(tmp_path)
    assert sparse.load_masks(tmp_path).digest == masks.digest
    assert sparse.load_masks(tmp_path).moved


def test_without_a_rule_no_mask_is_saved(tmp_path):
    train.fit(make_model(sparsity=0.5), ANSWERS, CONFIG, tmp_path)
    assert not [name for name in state(tmp_path) if name.startswith("mask/")]


def fit_in_one_of_two(folder):
    AcceleratorState._reset_state(reset_partial_state=True)  # forked: this is another process
    train.fit(make_model(sparsity=0.5), ANSWERS, replace(MOVING, micro_batch=1), folder)


def test_two_processes_move_the_masks_of_one(tmp_path):
    model = make_model(sparsity=0.5)
    train.fit(model, ANSWERS, replace(MOVING, micro_batch=1), tmp_path / "one")
    debug_launcher(fit_in_one_of_two, (tmp_path / "two",), num_processes=2)
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    masks = [name for name in one if name.startswith("mask/")]
    assert len(masks) == len(sparse.layers(model))
    assert all(torch.equal(one[name], two[name]) for name in masks)


def shard_in_one_of_two(folder):
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(ValueError, match="masks that move need whole matrices"):
        train.fit(make_model(sparsity=0.5), ANSWERS, MOVING, folder, sharded=True)


def test_sharded_masks_do_not_move(tmp_path):
    debug_launcher(shard_in_one_of_two, (tmp_path,), num_processes=2)


def named(model):
    return sparse.named_layers(model)


def spread(model, optimizer):
    return {
        name: layer.spread(optimizer.state[layer.values]["exp_avg"])
        for name, layer in named(model).items()
    }


def copy(model):
    other = make_model()
    masks = sparse.masks_of(model)
    other.load_state_dict(model.state_dict())
    sparse.attach(other, masks, "masked")
    return other
