"""Tests of mediswift.stats. Run with: pytest tests/test_stats.py."""

import math

import numpy as np
import pytest

from mediswift import stats


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3 (score).
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_equals_the_published_table(correct, n, low, high):
    assert stats.wilson(correct, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_is_symmetric_and_stays_inside():
    low, high = stats.wilson(20, 20)
    assert high == 1.0
    assert (1 - high, 1 - low) == pytest.approx(stats.wilson(0, 20))
    assert stats.wilson(5, 10, level=0.99)[0] < stats.wilson(5, 10)[0]


@pytest.mark.parametrize(("correct", "n"), [(3, 2), (-1, 2), (0, 0)])
def test_wilson_refuses_impossible_counts(correct, n):
    with pytest.raises(ValueError, match=f"got correct={correct}, n={n}"):
        stats.wilson(correct, n)


def test_macro_f1_equals_scikit_learn():
    # scikit-learn's manual: f1_score([0, 1, 2, 0, 1, 2], [0, 2, 1, 0, 0, 1], average="macro")
    assert stats.macro_f1(list("abcabc"), list("acbaab")) == pytest.approx(0.8 / 3)


def test_macro_f1_averages_only_the_classes_that_occur():
    assert stats.macro_f1(["yes", "no"], ["yes", "no"]) == 1.0
    assert stats.macro_f1(["yes", "no"], ["yes", "maybe"]) == pytest.approx(1 / 3)


def test_confusion_and_recall_written_out():
    labels, predictions = ["yes", "yes", "no", "maybe"], ["yes", "no", "no", "yes"]
    counts = stats.confusion(labels, predictions, ["yes", "no", "maybe"])
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert stats.recall(labels, predictions) == {"maybe": 0.0, "no": 1.0, "yes": 0.5}
    assert "maybe" not in stats.recall(["yes"], ["maybe"])


def test_confusion_names_the_unknown_class_and_refuses_unequal_columns():
    with pytest.raises(ValueError, match=r"one of \['yes', 'no'\], got \['perhaps'\]"):
        stats.confusion(["yes"], ["perhaps"], ["yes", "no"])
    with pytest.raises(ValueError, match="got 1 and 2"):
        stats.confusion(["yes"], ["no", "no"], ["yes", "no"])


def test_bootstrap_of_a_share_is_close_to_its_normal_interval():
    correct = np.arange(1000) < 600
    low, high = stats.bootstrap(np.mean, correct, seed=1)
    half = 1.96 * math.sqrt(0.6 * 0.4 / 1000)
    assert (low, high) == pytest.approx((0.6 - half, 0.6 + half), abs=0.006)
    assert (low, high) == stats.bootstrap(np.mean, correct, seed=1)
    assert (low, high) != stats.bootstrap(np.mean, correct, seed=2)


def test_bootstrap_keeps_the_rows_of_its_columns_together():
    column = ["yes", "no", "yes", "maybe"]
    assert stats.bootstrap(stats.macro_f1, column, column, seed=0) == (1.0, 1.0)


def test_mcnemar_equals_the_exact_binomial_test():
    # scipy.stats.binomtest(5, 20).pvalue = 43400 / 2**20
    difference = stats.paired_difference(
        [1] * 15 + [0] * 5 + [1] * 10, [0] * 15 + [1] * 5 + [1] * 10
    )
    assert difference.p == 43400 / 2**20
    assert difference.difference == pytest.approx(10 / 30)
    assert difference.n == 30 and difference.distinguishable


def test_the_multinomial_draw_is_the_paired_bootstrap():
    a, b = np.arange(200) % 3 > 0, np.arange(200) % 5 > 1
    by_rows = stats.bootstrap(lambda x, y: x.mean() - y.mean(), a, b, seed=0, resamples=10_000)
    difference = stats.paired_difference(a, b)
    assert (difference.low, difference.high) == pytest.approx(by_rows, abs=0.006)


def test_paired_difference_is_antisymmetric_and_zero_on_equals():
    a, b = [1, 1, 0, 1, 0, 1], [1, 0, 0, 0, 1, 1]
    ab, ba = stats.paired_difference(a, b), stats.paired_difference(b, a)
    assert (ab.difference, ab.p) == (-ba.difference, ba.p)
    same = stats.paired_difference(a, a)
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_difference_prints_one_line():
    line = str(stats.Difference(-0.014, -0.04, 0.012, 0.31, 500))
    assert line == "-1.4 points [-4.0, +1.2], McNemar p = 0.31: not distinguishable"
    assert str(stats.Difference(0.1, 0.05, 0.15, 1e-6, 500)).endswith("p < 0.001: distinguishable")
    # A p that rounds to 0.05 must not read as its own contradiction.
    assert "p = 0.049: distinguishable" in str(stats.Difference(0.1, 0.0, 0.2, 0.049, 500))


@pytest.mark.parametrize(
    ("df", "t"),
    # Two-sided 95 %, any printed t table.
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (10, 2.2281), (30, 2.0423)],
)
def test_student_t_equals_the_table(df, t):
    assert stats.student_t(df) == pytest.approx(t, abs=5e-5)


def test_student_t_at_another_level():
    assert stats.student_t(5, level=0.99) == pytest.approx(4.0321, abs=5e-5)


def test_over_seeds_written_out():
    mean = stats.over_seeds([1.0, 2.0, 3.0])
    assert (mean.mean, mean.n) == (2.0, 3)
    assert mean.standard_error == pytest.approx(1 / math.sqrt(3))
    assert mean.high - mean.mean == pytest.approx(4.302653 / math.sqrt(3), abs=1e-5)
    assert str(mean) == "2 [-0.4841, 4.484] (s.e. 0.58, n = 3 runs)"


def test_one_seed_has_no_interval_and_a_failed_one_is_refused():
    one = stats.over_seeds([0.5])
    assert math.isnan(one.standard_error) and math.isnan(one.low)
    assert str(one) == "0.5 (n = 1 run: no interval)"
    with pytest.raises(ValueError, match=r"finite value or more, got \[0.5, nan\]"):
        stats.over_seeds([0.5, math.nan])
    with pytest.raises(ValueError, match=r"got \[\]"):
        stats.over_seeds([])
