"""Several processes (gloo, CPU): what they share, save and hand on is what one process has."""

import json
import signal
from dataclasses import replace

import pytest
import torch
from accelerate import debug_launcher
from accelerate.state import AcceleratorState
from test_train import ANSWERS, CONFIG, NOISY, Trap, make_model, state

from mediswift import checkpoints, train

ONE_EACH = replace(CONFIG, micro_batch=1)  # a batch of 4: up to four processes
SCALED = replace(ONE_EACH, density_scaling=True)


def fit(folder, examples=ANSWERS, sharded=False, config=ONE_EACH):
    """Sparse model, trained by however many call this; True when it was asked to stop."""
    AcceleratorState._reset_state(reset_partial_state=True)  # forked: this is another process
    try:
        train.fit(make_model(sparsity=0.5), examples, config, folder, ANSWERS, sharded)
    except KeyboardInterrupt:
        return True
    return False


def stop_in_step(folder, step, processes, sharded):
    calls = step * ONE_EACH.batch // processes
    trap = Trap(calls, lambda: signal.raise_signal(signal.SIGTERM), ANSWERS)
    assert fit(folder, trap, sharded)


def finish(folder, sharded):
    assert not fit(folder, sharded=sharded)


def assert_equal_runs(one, other):
    one, other = state(one), state(other)
    assert other["step/transformer.wte.weight"] == ONE_EACH.steps
    assert one.keys() == other.keys()
    for name in one:
        if not name.endswith(NOISY):
            torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sharded", [False, True], ids=["copied", "sharded"])
@pytest.mark.parametrize("processes", [1, 4])
def test_what_two_saved_goes_on_in_one_and_in_four(tmp_path, processes, sharded):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train.fit(make_model(sparsity=0.5), ANSWERS, ONE_EACH, whole)
    debug_launcher(stop_in_step, (cut, 5, 2, sharded), num_processes=2)
    assert state(cut)["step/transformer.wte.weight"] == 5
    if processes == 1:  # nothing to share: `sharded` says nothing
        train.fit(make_model(sparsity=0.5), ANSWERS, ONE_EACH, cut, sharded=sharded)
    else:
        debug_launcher(finish, (cut, sharded), num_processes=processes)
    assert_equal_runs(whole, cut)


def test_a_checkpoint_of_shards_is_whole_and_a_model_reads_it(tmp_path):
    debug_launcher(finish, (tmp_path / "two", True), num_processes=2)
    model = make_model(sparsity=0.5)
    train.fit(model, ANSWERS, ONE_EACH, tmp_path / "one", ANSWERS)
    assert_equal_runs(tmp_path / "one", tmp_path / "two")
    whole = checkpoints.newest(tmp_path / "one")[0][0].stat().st_size
    pieces = [path.stat().st_size for path in checkpoints.newest(tmp_path / "two")[0]]
    assert len(pieces) == 2
    assert max(pieces) < 0.75 * whole
    read = make_model(sparsity=0.5)
    checkpoints.restore(tmp_path / "two", read)
    for name, wanted in state(tmp_path / "two").items():
        if name.startswith("parameter/"):
            assert torch.equal(read.get_parameter(name.partition("/")[2]), wanted)
    validation = [load_rows(tmp_path / name)[-1]["validation_loss"] for name in ("one", "two")]
    assert validation[0] == pytest.approx(validation[1], rel=1e-4)


def finish_scaled(folder, sharded):
    assert not fit(folder, sharded=sharded, config=SCALED)


@pytest.mark.parametrize("sharded", [False, True], ids=["copied", "sharded"])
def test_kept_weights_learn_at_their_own_rate_in_each_of_two(tmp_path, sharded):
    debug_launcher(finish_scaled, (tmp_path / "two", sharded), num_processes=2)
    train.fit(make_model(sparsity=0.5), ANSWERS, SCALED, tmp_path / "one")
    train.fit(make_model(sparsity=0.5), ANSWERS, ONE_EACH, tmp_path / "plain")
    assert_equal_runs(tmp_path / "one", tmp_path / "two")
    with pytest.raises(AssertionError):  # a run without it would be seen
        assert_equal_runs(tmp_path / "plain", tmp_path / "two")


def load_rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
