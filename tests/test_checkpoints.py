"""Checkpoints: all of a run's state comes back, or an error says what to do."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mediswift import checkpoints
from mediswift.checkpoints import Progress

PROGRESS = Progress(step=3, tokens=96, seconds=1.5, fingerprint="abc")


def make(seed=0):
    """Two layers with one weight, and their optimizer."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    return model, torch.optim.AdamW(model.parameters(), lr=0.1)


def advance(model, optimizer, steps=3):
    for step in range(steps):
        model(torch.full((2, 4), 1.0 + step)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.state_dict()


@pytest.fixture
def saved(tmp_path):
    """Folder with a checkpoint of three steps, and the state two steps later."""
    model, optimizer = make()
    advance(model, optimizer)
    checkpoints.save(tmp_path, model, optimizer, PROGRESS)
    return tmp_path, advance(model, optimizer, 2)


def test_a_restored_run_takes_the_same_steps(saved):
    folder, wanted = saved
    model, optimizer = make(seed=1)
    assert checkpoints.load(folder, model, optimizer, "abc") == PROGRESS
    found = advance(model, optimizer, 2)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert model[0].weight is model[1].weight


def test_without_a_checkpoint_nothing_changes(tmp_path):
    model, optimizer = make()
    assert checkpoints.load(tmp_path, model, optimizer, "abc") == Progress(fingerprint="abc")
    assert torch.equal(model[0].weight, make()[0][0].weight)
    assert not optimizer.state


def test_another_run_is_refused_and_nothing_is_read_from_it(saved):
    model, optimizer = make(seed=1)
    with pytest.raises(ValueError, match="belongs to a run of abc, this one is xyz: choose"):
        checkpoints.load(saved[0], model, optimizer, "xyz")
    assert torch.equal(model[0].weight, make(seed=1)[0][0].weight)


def damage(path, kept=None, flipped=None):
    """Cut a file to so many bytes, or flip a bit of one byte."""
    content = bytearray(path.read_bytes()[:kept])
    if flipped is not None:
        content[flipped] ^= 1
    path.write_bytes(content)


CUTS = {"empty": 0, "no size": 4, "header": 200, "last byte": -1}


@pytest.mark.parametrize("kept", CUTS.values(), ids=CUTS)
def test_a_truncated_file_says_what_to_do(saved, kept):
    damage(saved[0] / checkpoints.FILE, kept)
    with pytest.raises(ValueError, match=r"safetensors is damaged .*; delete it to start"):
        checkpoints.load(saved[0], *make(), "abc")


@pytest.fixture
def two(saved):
    """Folder with checkpoints of step 3 and 4, and the tensors of the first."""
    model, optimizer = make()
    checkpoints.load(saved[0], model, optimizer, "abc")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    advance(model, optimizer, 1)
    checkpoints.save(saved[0], model, optimizer, replace(PROGRESS, step=4))
    return saved[0], before


def test_the_newest_is_kept_and_the_one_before(two):
    assert sorted(path.name for path in two[0].iterdir()) == [checkpoints.BEFORE, checkpoints.FILE]
    assert checkpoints.load(two[0], *make(), "abc").step == 4
    (two[0] / checkpoints.FILE).unlink()  # as a kill between the two moves leaves it
    assert checkpoints.load(two[0], *make(), "abc").step == 3


@pytest.mark.parametrize(
    "harm",
    [{"kept": kept} for kept in CUTS.values()] + [{"flipped": place} for place in (-1, -300, 300)],
    ids=str,
)
def test_the_newest_whole_one_is_used_and_the_other_named(two, harm, capsys):
    folder, before = two
    damage(folder / checkpoints.FILE, **harm)
    model, optimizer = make(seed=1)
    assert checkpoints.load(folder, model, optimizer, "abc").step == 3
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    said = capsys.readouterr().err
    assert said.startswith(f"{folder / checkpoints.FILE} is damaged (")
    assert said.endswith("going on from checkpoint.before.safetensors, step 3\n")
    # what comes next never replaces the last good one by the damaged one
    checkpoints.save(folder, model, optimizer, replace(PROGRESS, step=5))
    (folder / checkpoints.FILE).unlink()
    assert checkpoints.load(folder, *make(), "abc").step == 3


def test_no_byte_can_be_flipped_unnoticed(two):
    path = two[0] / checkpoints.FILE
    whole = path.read_bytes()
    (two[0] / checkpoints.BEFORE).unlink()
    for place in range(len(whole)):
        path.write_bytes(whole)
        damage(path, flipped=place)
        with pytest.raises(ValueError, match="is damaged"):
            checkpoints.load(two[0], *make(), "abc")
    path.write_bytes(whole)
    assert checkpoints.load(two[0], *make(), "abc").step == 4


def test_without_a_whole_one_both_are_named_and_nothing_is_moved(two):
    for name in (checkpoints.FILE, checkpoints.BEFORE):
        damage(two[0] / name, flipped=-1)
    with pytest.raises(ValueError, match=r"is damaged .*before.* is damaged .*; delete both to"):
        checkpoints.load(two[0], *make(), "abc")
    assert sorted(path.name for path in two[0].iterdir()) == [checkpoints.BEFORE, checkpoints.FILE]


def test_one_of_an_earlier_version_is_not_trusted(saved):
    save_file({"parameter/x": torch.zeros(1)}, saved[0] / checkpoints.FILE, {"progress": "{}"})
    with pytest.raises(ValueError, match="damaged .it has no checksum, as those of earlier"):
        checkpoints.load(saved[0], *make(), "abc")


def test_one_of_another_model_is_refused(saved):
    model = nn.Linear(4, 4)
    with pytest.raises(ValueError, match="another model: .* parameters differ, the first is 0.bia"):
        checkpoints.load(saved[0], model, torch.optim.AdamW(model.parameters()), "abc")


@pytest.mark.parametrize("place", [checkpoints, os], ids=["writing", "moving"])
def test_a_crash_while_saving_keeps_the_state_before(saved, monkeypatch, place):
    def fail(_, path, **__):
        if place is checkpoints:
            Path(path).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(place, "save_file" if place is checkpoints else "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        checkpoints.save(saved[0], *make(seed=1), Progress(step=9, fingerprint="abc"))
    assert checkpoints.load(saved[0], *make(), "abc").step == 3
