"""A notebook that is asked to stop: what trains in it leaves a checkpoint."""

import os
import signal
import subprocess
import sys
import time

import pytest
from test_runner import make_notebook

from mediswift import checkpoints, kernel

TRAIN = """
from mediswift import pretrain
config = pretrain.profile("tiny", tokens=20_480_000, seed=seed)
pretrain.pretrain(config, runs)
"""
SLEEP = """
import time
from pathlib import Path
Path(runs).mkdir()
time.sleep(600)
"""
PARAMETERS = 'seed: int = 0\nruns: str = "runs"\n'
PATIENCE = 120


def start(notebook, runs, output):
    words = [sys.executable, "-m", "mediswift", "run", str(notebook), "--output", str(output)]
    return subprocess.Popen(
        [*words, "-p", "runs", str(runs)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip


def wait_for(found):
    for _ in range(10 * PATIENCE):
        if there := found():
            return there
        time.sleep(0.1)
    raise AssertionError("it did not come in time")


@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_a_notebook_that_is_asked_to_stop_leaves_a_checkpoint(tmp_path, send):
    notebook = make_notebook(tmp_path / "long.ipynb", TRAIN, parameters=PARAMETERS)
    runs, output = tmp_path / "runs", tmp_path / "out.ipynb"
    process = start(notebook, runs, output)
    (said,) = wait_for(lambda: [p for p in runs.glob("*/metrics.jsonl") if p.stat().st_size])
    send(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "long.ipynb was asked to stop: stopped after step" in errors
    assert checkpoints.newest(said.parent)
    assert not output.exists() and output.with_suffix(".failed.ipynb").exists()


def test_a_cell_that_does_not_train_is_interrupted(tmp_path):
    notebook = make_notebook(tmp_path / "long.ipynb", SLEEP, parameters=PARAMETERS)
    process = start(notebook, tmp_path / "runs", tmp_path / "out.ipynb")
    wait_for((tmp_path / "runs").exists)
    process.terminate()
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and "long.ipynb was asked to stop" in errors


def test_signals_are_heard_as_before_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with kernel.handing_on() as stopped:
        assert signal.getsignal(signal.SIGTERM) != before
        signal.raise_signal(signal.SIGTERM)
        assert stopped.is_set()
    assert signal.getsignal(signal.SIGTERM) == before
