"""Several processes from one: the same run, its lines as they come, and one error when it fails."""

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import load_file

from mediswift import checkpoints, launch, pretrain, records, runner, train

TINY = replace(pretrain.profile("tiny"), tokens=4_096)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """The started processes import this mediswift."""
    monkeypatch.setenv("PYTHONPATH", str(runner.ROOT))


def forbid(*_, **__):
    raise AssertionError("the processes trained it already")


def test_two_processes_make_the_run_that_is_found_here_afterwards(tmp_path, monkeypatch, capsys):
    alone = launch.pretrain(TINY, tmp_path / "one")
    assert "processes" not in alone.params and alone.env["processes"] == 1
    monkeypatch.setattr(train, "fit", forbid)
    capsys.readouterr()
    both = launch.pretrain(TINY, tmp_path / "two", nproc=2)
    assert both.env["processes"] == 2
    assert both.id == alone.id  # how many train it is no part of what it is
    assert pretrain.pretrain(TINY, tmp_path / "two") == both
    assert f"{both.id}: 4 steps" in capsys.readouterr().out
    loss = "validation_loss_nats"
    assert both.metrics[loss] == pytest.approx(alone.metrics[loss], rel=1e-4)


@pytest.mark.parametrize("sparsity", [0.0, 0.75])
def test_two_processes_with_a_part_of_the_model_each_make_the_same_run(tmp_path, sparsity):
    config = replace(TINY, sparsity=sparsity, engine="masked")
    alone = pretrain.pretrain(config, tmp_path / "one")
    shared = replace(config, sharded=True, recompute=True)
    both = launch.pretrain(shared, tmp_path / "two", nproc=2)
    assert (both.id, both.mask_digest) == (alone.id, alone.mask_digest)
    one, two = (
        load_file(tmp_path / name / alone.id / "model" / "model.safetensors")
        for name in ("one", "two")
    )
    assert one.keys() == two.keys()
    for name in one:
        if not name.endswith("k_proj.bias"):  # no gradient but rounding, which Adam scales up
            torch.testing.assert_close(one[name], two[name], atol=1e-4, rtol=1e-3)


def test_a_run_that_is_there_is_not_trained_again(runs, pretrained):
    before = (runs / pretrained.id / "record.json").stat().st_mtime_ns
    assert launch.pretrain(pretrain.profile("tiny"), runs, nproc=2) == pretrained
    assert (runs / pretrained.id / "record.json").stat().st_mtime_ns == before


def test_what_a_process_complains_of_is_the_error(tmp_path):
    few = replace(TINY, tokens=1_024, batch_tokens=TINY.shape.context)
    with pytest.raises(RuntimeError, match="2 processes for a batch of 1; raise the batch"):
        launch.pretrain(few, tmp_path, nproc=2)
    assert not list(tmp_path.glob("pretrain-*/record.json"))


@pytest.mark.parametrize(("nproc", "gpus"), [(0, 0), (-1, 8), (3, 2)])
def test_more_processes_than_gpus_are_refused(monkeypatch, nproc, gpus):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda *_: gpus > 0)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: gpus)
    with pytest.raises(ValueError, match=f"got {nproc}, and this machine has {gpus}: lower it"):
        launch.check(nproc)
    launch.check(2)


def test_an_interrupt_here_leaves_a_checkpoint_there(tmp_path):
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job of `&` ignores it
    long = replace(TINY, tokens=4_096_000)

    def interrupt_when_it_trains():
        while not list(tmp_path.glob("pretrain-*/metrics.jsonl")):
            if done.wait(0.1):
                return
        os.kill(os.getpid(), signal.SIGINT)
        done.wait(0.5)
        os.kill(os.getpid(), signal.SIGINT)  # as a notebook's kernel gets it, again and again

    done = threading.Event()
    watcher = threading.Thread(target=interrupt_when_it_trains)
    watcher.start()
    try:
        with pytest.raises(KeyboardInterrupt, match="stopped after step .*; call again to go on"):
            launch.pretrain(long, tmp_path, nproc=2)
    finally:
        done.set()
        watcher.join()
        signal.signal(signal.SIGINT, handler)
    (folder,) = tmp_path.glob("pretrain-*")
    assert checkpoints.read(folder)[0].step
    assert not (folder / "record.json").exists()
    with records.alone(folder):  # free again, or the next call would wait
        pass


def test_processes_have_time_for_a_step_and_a_checkpoint():
    """torchrun kills who has not ended after half a minute, unless it is told otherwise."""
    words = launch.command("config.json", "runs", 2)
    assert int(words[words.index("--shutdown-timeout") + 1]) >= 3600


def test_accelerate_launch_makes_the_same_run(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(asdict(TINY)), encoding="utf-8")
    words = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    words += ["-m", "mediswift.pretrain", str(path), str(tmp_path / "theirs")]
    subprocess.run(words, check=True, capture_output=True, cwd=tmp_path)
    ours = pretrain.pretrain(TINY, tmp_path / "ours")
    theirs = tmp_path / "theirs" / ours.id
    assert records.load(theirs / "record.json").params == ours.params
    one, other = (checkpoints.read(f)[1] for f in (tmp_path / "ours" / ours.id, theirs))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
