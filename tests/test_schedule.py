"""What is due at a step, at which rate, on which examples: all of it a function of the step."""

from dataclasses import replace

import numpy as np
import pytest

from mediswift import schedule
from mediswift.schedule import Config, check_machine, indices_of, is_due, learning_rate

# 10 examples in batches of 4: epochs end inside a batch
CONFIG = Config(steps=8, batch=4, micro_batch=4, lr=1e-2, warmup_steps=2)


def test_learning_rates_written_out():
    config = Config(steps=6, batch=1, micro_batch=1, lr=1.0, warmup_steps=2, final_lr=0.1)
    rates = [learning_rate(step, config) for step in range(7)]
    # two steps up; then 0.1 + 0.45 (1 + cos) of 0, 45, 90, 135 and, after the end, 180 degrees
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.868198, 0.55, 0.231802, 0.1], abs=1e-6)


def test_every_epoch_is_another_order_of_all_examples():
    drawn = np.concatenate([indices_of(step, 10, CONFIG) for step in range(5)])
    first, second = drawn[:10].tolist(), drawn[10:].tolist()
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert indices_of(0, 10, replace(CONFIG, seed=1)).tolist() != first[:4]


def test_a_step_sees_the_same_whatever_was_asked_before():
    forward = [indices_of(step, 10, CONFIG).tolist() for step in range(20)]
    backward = [indices_of(step, 10, CONFIG).tolist() for step in reversed(range(20))]
    assert forward == backward[::-1]


def test_a_batch_may_hold_several_epochs():
    drawn = indices_of(0, 3, replace(CONFIG, batch=9))
    assert np.bincount(drawn).tolist() == [3, 3, 3]


def test_what_is_due_is_due_every_so_many_steps():
    assert [step for step in range(1, 9) if is_due(step, 3)] == [3, 6]
    assert not any(is_due(step, 0) for step in range(9))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps >= 1"),
        ({"micro_batch": 5}, "1 <= micro_batch <= batch, got .* micro_batch=5, batch=4"),
        ({"micro_batch": 0}, "1 <= micro_batch <= batch, got .* micro_batch=0, batch=4"),
        ({"warmup_steps": 9}, "warmup_steps=9 exceeds steps=8"),
        ({"precision": "fp16"}, "precision is no or bf16; got 'fp16'"),
        ({"seed": -1}, "a seed is 0 or more, and below 2\\^32; got -1"),
    ],
)
def test_contradicting_numbers_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)


def test_a_machine_that_cannot_train_so_is_refused(monkeypatch):
    for device, processes in (("cpu", 4), ("cuda", 1)):
        check_machine(CONFIG, device, processes)
    half = replace(CONFIG, precision="bf16")
    check_machine(half, "cuda", 4)
    monkeypatch.setattr(schedule, "multiplies_bf16", lambda: True)
    check_machine(half, "cpu", 4)
    monkeypatch.setattr(schedule, "multiplies_bf16", lambda: False)
    with pytest.raises(ValueError, match="precision='bf16' on a CPU that does not, .*; use"):
        check_machine(half, "cpu", 1)
    with pytest.raises(ValueError, match="5 processes for a batch of 4; raise the batch"):
        check_machine(CONFIG, "cuda", 5)
