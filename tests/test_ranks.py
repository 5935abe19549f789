"""Several processes (gloo, CPU): what they share, save and hand on is what one process has."""

import signal
from dataclasses import replace

import pytest
import torch
from accelerate import debug_launcher
from accelerate.state import AcceleratorState
from test_train import ANSWERS, CONFIG, NOISY, Trap, make_model, state

from mediswift import train

ONE_EACH = replace(CONFIG, micro_batch=1)  # a batch of 4: up to four processes


def fit(folder, examples=ANSWERS):
    """Sparse model, trained by however many call this; True when it was asked to stop."""
    AcceleratorState._reset_state(reset_partial_state=True)  # forked: this is another process
    try:
        train.fit(make_model(sparsity=0.5), examples, ONE_EACH, folder)
    except KeyboardInterrupt:
        return True
    return False


def stop_in_step(folder, step, processes):
    calls = step * ONE_EACH.batch // processes
    assert fit(folder, Trap(calls, lambda: signal.raise_signal(signal.SIGTERM), ANSWERS))


def finish(folder):
    assert not fit(folder)


@pytest.mark.parametrize("processes", [1, 4])
def test_what_two_saved_goes_on_in_one_and_in_four(tmp_path, processes):
    train.fit(make_model(sparsity=0.5), ANSWERS, ONE_EACH, tmp_path / "whole")
    debug_launcher(stop_in_step, (tmp_path / "cut", 5, 2), num_processes=2)
    assert state(tmp_path / "cut")["step/transformer.wte.weight"] == 5
    if processes == 1:
        train.fit(make_model(sparsity=0.5), ANSWERS, ONE_EACH, tmp_path / "cut")
    else:
        debug_launcher(finish, (tmp_path / "cut",), num_processes=processes)
    one, other = state(tmp_path / "whole"), state(tmp_path / "cut")
    assert other["step/transformer.wte.weight"] == ONE_EACH.steps
    assert one.keys() == other.keys()
    for name in one:
        if not name.endswith(NOISY):
            torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=1e-4)
