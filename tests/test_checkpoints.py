"""Checkpoints: all of a run's state comes back, or an error says what to do."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from mediswift import checkpoints, parts
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


@pytest.mark.parametrize("left", ["checkpoint.safetensors", "checkpoint-0000003-1of2.safetensors"])
def test_files_that_are_no_whole_checkpoint_are_named(saved, left, capsys):
    folder, _ = saved
    (path,) = folder.iterdir()
    path.rename(folder / left)
    assert checkpoints.load(folder, *make(), "abc").step == 0
    said = capsys.readouterr().err
    assert f"{left} in {folder}: no whole checkpoint" in said and "going on from step 0" in said
    assert (folder / left).exists()


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


def path(folder, step=3):
    (only,) = checkpoints.paths(folder, step, 1)
    return only


CUTS = {"empty": 0, "no size": 4, "header": 200, "last byte": -1}


@pytest.mark.parametrize("kept", CUTS.values(), ids=CUTS)
def test_a_truncated_file_says_what_to_do(saved, kept):
    damage(path(saved[0]), kept)
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


def test_the_two_newest_are_kept_and_nothing_that_is_not_whole(two):
    folder = two[0]
    checkpoints.save(folder, *make(), replace(PROGRESS, step=5))
    others = [folder / "metrics.jsonl", folder / ".lock"]
    others += [path(folder, 1).with_name(path(folder, 1).name + checkpoints.DAMAGED)]
    half = [
        path(folder, 6).with_name(f".{path(folder, 6).name}"),
        checkpoints.paths(folder, 6, 2)[0],
    ]
    for each in others + half:  # a kill leaves a half-written one, or one of two parts
        each.touch()
    assert checkpoints.load(folder, *make(), "abc").step == 5
    checkpoints.tidy(folder)
    assert set(folder.iterdir()) == {path(folder, 4), path(folder, 5), *others}
    path(folder, 5).unlink()
    assert checkpoints.load(folder, *make(), "abc").step == 4


@pytest.mark.parametrize(
    "harm",
    [{"kept": kept} for kept in CUTS.values()] + [{"flipped": place} for place in (-1, -300, 300)],
    ids=str,
)
def test_the_newest_whole_one_is_used_and_the_other_named(two, harm, capsys):
    folder, before = two
    damage(path(folder, 4), **harm)
    model, optimizer = make(seed=1)
    assert checkpoints.load(folder, model, optimizer, "abc").step == 3
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    said = capsys.readouterr().err
    assert said.startswith(f"{path(folder, 4)} is damaged (")
    assert said.endswith("1of1.safetensors.damaged, going on from step 3\n")
    # the damaged one is none of the two that are kept
    checkpoints.save(folder, model, optimizer, replace(PROGRESS, step=5))
    checkpoints.tidy(folder)
    path(folder, 5).unlink()
    assert checkpoints.load(folder, *make(), "abc").step == 3


def test_no_byte_can_be_flipped_unnoticed(two):
    file = path(two[0], 4)
    whole = file.read_bytes()
    path(two[0], 3).unlink()
    for place in range(len(whole)):
        file.write_bytes(whole)
        damage(file, flipped=place)
        with pytest.raises(ValueError, match="is damaged"):
            checkpoints.load(two[0], *make(), "abc")
    file.write_bytes(whole)
    assert checkpoints.load(two[0], *make(), "abc").step == 4


def test_without_a_whole_one_both_are_named_and_nothing_is_moved(two):
    for step in (3, 4):
        damage(path(two[0], step), flipped=-1)
    with pytest.raises(
        ValueError, match=r"0004-.* is damaged .*0003-.* is damaged .*; delete them"
    ):
        checkpoints.load(two[0], *make(), "abc")
    assert set(two[0].iterdir()) == {path(two[0], 3), path(two[0], 4)}


def cut(folder, step, fingerprints=("abc", "abc")):
    """Cut the checkpoint of a step into the files of two processes, as sharding cuts tensors."""
    progress, tensors = checkpoints.read(folder)
    halves = {name: t.chunk(2) if t.dim() else (t, t) for name, t in tensors.items()}
    for part, file in enumerate(checkpoints.paths(folder, step, 2)):
        said = replace(progress, step=step, fingerprint=fingerprints[part])
        mine = {name: half[part].contiguous() for name, half in halves.items()}
        parts.write(file, mine, checkpoints.json.dumps(checkpoints.asdict(said)))


def test_the_parts_of_two_processes_are_one_checkpoint(saved):
    folder, wanted = saved
    cut(folder, 4)
    model, optimizer = make(seed=1)
    assert checkpoints.load(folder, model, optimizer, "abc") == replace(PROGRESS, step=4)
    found = advance(model, optimizer, 2)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    checkpoints.paths(folder, 4, 2)[1].unlink()
    assert checkpoints.load(folder, model, optimizer, "abc").step == 3


@pytest.mark.parametrize("part", [0, 1])
def test_one_damaged_part_is_enough(saved, part, capsys):
    cut(saved[0], 4)
    damage(checkpoints.paths(saved[0], 4, 2)[part], flipped=-1)
    assert checkpoints.load(saved[0], *make(), "abc").step == 3
    said = capsys.readouterr().err
    assert f"{part + 1}of2.safetensors is damaged" in said
    assert "no whole checkpoint" not in said  # of the part beside it, which is sound


def test_parts_of_two_runs_are_no_checkpoint(saved, capsys):
    cut(saved[0], 4, fingerprints=("abc", "xyz"))
    assert checkpoints.load(saved[0], *make(), "abc").step == 3
    assert "1of2.safetensors is damaged (it belongs to another run" in capsys.readouterr().err


def test_restore_and_read_give_what_was_saved(saved):
    model, _ = make(seed=1)
    checkpoints.restore(saved[0], model)
    progress, tensors = checkpoints.read(saved[0])
    assert progress == PROGRESS
    assert torch.equal(model[0].bias, tensors["parameter/0.bias"])
    assert tensors["step/0.bias"] == 3
    assert tensors["exp_avg/0.weight"].shape == tensors["exp_avg_sq/0.weight"].shape == (4, 4)


def test_one_of_another_model_is_refused(saved):
    model = nn.Linear(4, 4)
    with pytest.raises(ValueError, match="another model: .* parameters differ, the first is 0.bia"):
        checkpoints.load(saved[0], model, torch.optim.AdamW(model.parameters()), "abc")


@pytest.mark.parametrize("place", [parts, os], ids=["writing", "moving"])
def test_a_crash_while_saving_keeps_the_state_before(saved, monkeypatch, place):
    def fail(_, path, **__):
        if place is parts:
            Path(path).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(place, "save_file" if place is parts else "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        checkpoints.save(saved[0], *make(seed=1), Progress(step=9, fingerprint="abc"))
    assert checkpoints.load(saved[0], *make(), "abc").step == 3
