"""Folds and seeds: several runs as one number, with an interval over runs and questions."""

import pytest

from mediswift import folds, stats
from mediswift.report import Report


def make_report(hits, first=0, setting="reasoning_required"):
    rows = [
        {"pmid": f"S{first + i}", "label": "yes", "prediction": "yes" if hit else "no"}
        for i, hit in enumerate(hits)
    ]
    return Report(rows, setting)


def test_runs_on_the_same_questions_have_a_mean_and_two_intervals():
    runs = [make_report([1, 1, 0, 0]), make_report([1, 1, 1, 0]), make_report([1, 0, 1, 0])]
    found = folds.summarize(runs)
    assert found.accuracy == stats.over_seeds([0.5, 0.75, 0.5])
    assert found.low < found.accuracy.mean < found.high and found.n == 4
    assert "over runs and 4 questions" in str(found)


def test_runs_in_another_order_are_the_same():
    runs = [make_report([1, 1, 0, 0]), make_report([1, 0, 1, 0])]
    turned = [runs[0], Report(runs[1].predictions[::-1], "reasoning_required")]
    assert folds.summarize(turned) == folds.summarize(runs)


def test_the_crossed_bootstrap_is_wider_than_questions_alone():
    runs = [[1] * 60 + [0] * 40, [1] * 90 + [0] * 10]
    low, high = stats.crossed_bootstrap(runs)
    alone = stats.wilson(150, 200)
    assert low < alone[0] and high > alone[1]


def test_one_run_has_the_interval_of_its_questions():
    assert stats.crossed_bootstrap([[1] * 276 + [0] * 224]) == pytest.approx(
        stats.wilson(276, 500), abs=0.005
    )


def test_dev_parts_are_pooled_and_each_question_counts_once():
    parts = [make_report([1, 0], first=10 * i) for i in range(10)]
    assert (folds.pooled(parts).n, folds.pooled(parts).accuracy) == (20, 0.5)
    with pytest.raises(ValueError, match="answered twice"):
        folds.pooled([parts[0], parts[0]])


@pytest.mark.parametrize("join", [folds.summarize, folds.pooled])
def test_settings_are_not_mixed_and_none_is_no_summary(join):
    with pytest.raises(ValueError, match="never mixed"):
        join([make_report([1]), make_report([1], 5, setting="question_only")])
    with pytest.raises(ValueError, match="one run or more"):
        join([])
