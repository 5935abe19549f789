"""Checkpoints: all of a run's state comes back, or an error says what to do."""

import os
from pathlib import Path

import pytest
import torch
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


@pytest.mark.parametrize("kept", [0, 4, 200, -1], ids=["empty", "no size", "header", "last byte"])
def test_a_truncated_file_says_what_to_do(saved, kept):
    path = saved[0] / checkpoints.FILE
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"safetensors is damaged .*; delete it to start"):
        checkpoints.load(saved[0], *make(), "abc")


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


def test_only_the_newest_is_kept(saved):
    checkpoints.save(saved[0], *make(), Progress(step=4, fingerprint="abc"))
    assert [path.name for path in saved[0].iterdir()] == [checkpoints.FILE]
    assert checkpoints.load(saved[0], *make(), "abc").step == 4
