"""Tests of mediswift.choice. Run with: pytest tests/test_choice.py."""

import json
import logging
import time

import pytest
import torch

from mediswift import choice
from mediswift.engines import ENGINES
from mediswift.layouts import layout
from mediswift.masks import make_mask

CPU = torch.device("cpu")
SECONDS = {"dense": 2.0, "masked": 2.5, "native": 1.0}


def plan_of(pattern="diagonal:4", outputs=64, inputs=16):
    return layout(make_mask((outputs, inputs), 0.75, pattern, seed=0, name="w"))


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Where choices are remembered: nothing yet."""
    monkeypatch.setenv("MEDISWIFT_CACHE", str(tmp_path))
    return tmp_path / choice.FILE


@pytest.fixture
def measured(file, monkeypatch):
    """What was measured, in order; each time with the same result."""
    calls = []

    def measure(layout, tokens, device, dtype, bias):
        calls.append((tokens, dtype, bias))
        return SECONDS

    monkeypatch.setattr(choice, "measure", measure)
    return calls


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        ({"dense": 2.0, "masked": 2.5, "native": 1.0}, "native"),
        ({"dense": 2.0, "masked": 2.5, "native": 2.1, "bmm": 1.9}, "bmm"),
        ({"dense": 2.0, "masked": 2.5, "native": 2.1}, "masked"),  # slower than dense
        ({"dense": 2.0, "masked": 2.5, "native": 2.0}, "masked"),  # and no faster is no gain
        ({"dense": 2.0, "masked": 1.9, "native": 1.95}, "masked"),
        ({"dense": 2.0, "masked": 2.5}, "masked"),
    ],
)
def test_the_fastest_is_chosen_if_it_beats_dense(seconds, wanted):
    assert choice.chosen(seconds) == wanted
    assert choice.told(seconds).startswith(f"{wanted} (speed-up over dense: ")


def test_all_speed_ups_are_told_the_best_first():
    told = choice.told({"dense": 2.0, "masked": 2.5, "native": 1.6, "bmm": 1.0})
    assert told == "bmm (speed-up over dense: bmm 2.00, native 1.25, masked 0.80)"


def test_a_choice_is_made_once_remembered_and_told(kernels, file, measured, caplog):
    caplog.set_level(logging.INFO, "mediswift")
    for _ in range(2):
        assert choice.fastest(plan_of(), "diagonal:4", 100, CPU) == "native"
    assert measured == [(64, torch.float32, True)]
    ((key, seconds),) = json.loads(file.read_text()).items()
    assert seconds == SECONDS
    assert key.startswith("256 of 64x16 kept, diagonal:4, masked or native or bmm, 64 tokens, ")
    assert key.endswith(f", {kernels.name(torch.float32)}")  # other kernels are timed anew
    assert caplog.messages == [f"{key}: {choice.told(SECONDS)}"]


@pytest.mark.parametrize(
    ("tokens", "asked"), [(0, 16), (1, 16), (31, 16), (32, 32), (63, 32), (10**6, 4096)]
)
def test_tokens_are_a_power_of_two_within_bounds(file, measured, tokens, asked):
    choice.fastest(plan_of(), "", tokens, CPU, bias=False)
    assert measured == [(asked, torch.float32, False)]


def test_what_differs_is_measured_for_itself(kernels, file, measured, monkeypatch):
    default = {"layout": plan_of(), "pattern": "x", "tokens": 64, "device": CPU}
    changes = [
        {},
        {"tokens": 128},
        {"dtype": torch.bfloat16},
        {"pattern": "y"},
        {"layout": plan_of("16x1")},  # as many weights, of which bmm makes nothing
        {"layout": plan_of(inputs=32)},
    ]
    for change in changes:
        choice.fastest(**default | change)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    choice.fastest(**default)
    assert len(measured) == len(json.loads(file.read_text())) == len(changes) + 1


@pytest.mark.parametrize(
    "damage", [b"", b'{"x": {"dense"', b"\xff\xfe\x00", b'["x"]', b"null"], ids=repr
)
def test_a_damaged_file_is_made_again(file, measured, damage):
    file.write_bytes(damage)
    assert choice.fastest(plan_of(), "", 64, CPU) == "native"
    assert list(json.loads(file.read_text()).values()) == [SECONDS] and len(measured) == 1


def test_what_another_process_found_meanwhile_is_kept(file, monkeypatch):
    def measure(*_):
        file.write_text(json.dumps({"of another": SECONDS}))
        return SECONDS

    monkeypatch.setattr(choice, "measure", measure)
    choice.fastest(plan_of(), "", 64, CPU)
    known = json.loads(file.read_text())
    assert len(known) == 2 and "of another" in known


def test_who_measures_at_the_same_time_takes_the_first_answer(file, monkeypatch):
    others = {"dense": 2.0, "masked": 1.0, "native": 1.5}

    def measure(*_):
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(choice, "measure", lambda *_: others)
            assert choice.fastest(plan_of(), "", 64, CPU) == "masked"
        return SECONDS

    monkeypatch.setattr(choice, "measure", measure)
    assert choice.chosen(SECONDS) != "masked"
    assert choice.fastest(plan_of(), "", 64, CPU) == "masked"


# Measuring


def test_every_engine_that_can_races_dense(kernels):
    times = choice.race(plan_of(), 16, CPU, torch.float32)
    assert list(times) == ["dense", "masked", "native", "bmm"]
    assert all(len(taken) == choice.ROUNDS and min(taken) > 0 for taken in times.values())
    without_bias = choice.measure(plan_of("16x1"), 16, CPU, torch.float32, bias=False)
    assert list(without_bias) == ["dense", "masked", "native"]
    assert {type(seconds) for seconds in without_bias.values()} == {float}


def test_a_slow_engine_is_not_chosen(kernels, monkeypatch):
    product = ENGINES["native"].product

    def late(*given):
        time.sleep(0.02)
        return product(*given)

    monkeypatch.setattr(ENGINES["native"], "product", late)
    seconds = choice.measure(plan_of("16x1"), 16, CPU, torch.float32)
    assert seconds["native"] > 0.02 > seconds["dense"]
    assert choice.chosen(seconds) == "masked"


def test_medians_are_compared_and_the_first_round_is_not_counted(monkeypatch):
    seconds = iter([100, 100, 1, 7, 2, 7, 3, 7, 90, 7, 3, 7])
    monkeypatch.setattr(choice, "timed", lambda step, device: next(seconds))
    monkeypatch.setattr(choice, "candidates", lambda *_: {"dense": None, "masked": None})
    assert choice.measure(plan_of(), 16, CPU, torch.float32) == {"dense": 3, "masked": 7}


def test_measuring_leaves_the_random_numbers_and_nothing_else_behind():
    before = torch.get_rng_state()
    choice.measure(plan_of(), 16, CPU, torch.float32)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_candidates_compute_in_the_type_that_is_asked_for(dtype, monkeypatch):
    seen = []
    monkeypatch.setattr(choice, "_step", lambda *tensors: seen.append([t.dtype for t in tensors]))
    for candidate in choice.candidates(plan_of(), 16, CPU, dtype).values():
        candidate()
    weights = torch.float32  # as in training
    assert len(seen) >= 2 and all(s == [dtype, dtype, dtype, weights, weights] for s in seen)
