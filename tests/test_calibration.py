"""Calibration: whether a model is as sure as it is right."""

import numpy as np
import pytest

from mediswift import calibration


def test_probabilities_are_shares_of_the_three_however_small():
    rows = [{"yes": -1000.0, "no": -1001.0, "maybe": -1002.0}]
    expected = np.exp([0, -1, -2]) / np.exp([0, -1, -2]).sum()
    assert calibration.probabilities(rows)[0] == pytest.approx(expected)


def test_a_bin_holds_its_upper_end():
    table = calibration.reliability([1 / 3, 0.34, 1.0, 0.0], [1, 0, 1, 0], bins=3)
    assert table["n"].tolist() == [2, 1, 1]
    assert table["low"].tolist() == pytest.approx([0, 1 / 3, 2 / 3])
    assert table["accuracy"].tolist() == [0.5, 0, 1]


def test_error_written_out():
    # bins (0.8, 0.87] and (0.53, 0.6]: 0.4 * |0.5 - 0.85| + 0.6 * |2/3 - 0.6|
    sure, right = [0.85] * 2 + [0.6] * 3, [1, 0, 1, 1, 0]
    assert calibration.expected_error(sure, right) == pytest.approx(
        0.4 * 0.35 + 0.6 * (2 / 3 - 0.6)
    )
    assert calibration.expected_error([1.0, 1.0], [True, True]) == 0


def test_a_calibrated_model_has_a_small_error():
    rng = np.random.default_rng(0)
    sure = rng.uniform(1 / 3, 1, 100_000)
    assert calibration.expected_error(sure, rng.uniform(size=100_000) < sure) < 0.01


@pytest.mark.parametrize(("sure", "right"), [([], []), ([0.5], [1, 0]), ([1.5], [1])])
def test_what_is_no_confidence_is_refused(sure, right):
    with pytest.raises(ValueError, match=r"a confidence in \[0, 1\] and an outcome a question"):
        calibration.reliability(sure, right)
