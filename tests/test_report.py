"""A report: every figure follows from its predictions, and it prints beside the majority class."""

import json

import pytest

from mediswift.report import Report


def make_report(pairs, **fields):
    rows = [{"pmid": f"S{i}", "label": a, "prediction": b} for i, (a, b) in enumerate(pairs)]
    return Report(rows, "reasoning_required", **fields)


PAIRS = [("yes", "yes")] * 5 + [("yes", "no")] + [("no", "no")] * 2 + [("maybe", "no")] * 2


def test_report_written_out():
    report = make_report(PAIRS, truncated=1)
    assert report.confusion.tolist() == [[5, 1, 0], [0, 2, 0], [0, 2, 0]]
    assert (report.accuracy, report.majority, report.n) == (0.7, 0.6, 10)
    # 7 of 10: 0.3968 to 0.8922 (Wilson 1927). F1: yes 10/11, no 4/7, maybe 0.
    assert (report.low, report.high) == pytest.approx((0.3968, 0.8922), abs=5e-5)
    assert report.macro_f1 == pytest.approx((10 / 11 + 4 / 7) / 3)
    assert report.recall == {"yes": 5 / 6, "no": 1.0, "maybe": 0.0}
    assert str(report).splitlines() == [
        "          accuracy             macro-F1     n",
        "model     70.0 [39.7, 89.2]        49.4    10",
        "majority  60.0 [31.3, 83.2]        25.0    10",
        "model - majority: +10.0 points [-20.0, +40.0], McNemar p = 1.00: not distinguishable",
        "reasoning_required; 95 % Wilson intervals; 1 contexts cut to fit",
        "true        yes     no  maybe  given",
        "yes           5      1      0",
        "no            0      2      0",
        "maybe         0      2      0",
    ]


def test_metrics_are_plain_json():
    metrics = make_report(PAIRS, truncated=1).metrics()
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert metrics["confusion"] == [[5, 1, 0], [0, 2, 0], [0, 2, 0]]  # rows are true answers
    assert set(metrics) == {
        *("accuracy", "low", "high", "macro_f1", "n", "truncated", "unanswered"),
        *("macro_f1_low", "macro_f1_high"),
        *("majority_accuracy", "confusion"),
        *("recall_yes", "recall_no", "recall_maybe"),
    }


def test_reports_are_compared_by_pmid_whatever_their_order():
    ours, theirs = make_report(PAIRS), make_report([(label, label) for label, _ in PAIRS])
    backwards = Report(theirs.predictions[::-1], theirs.setting)
    assert ours.difference(backwards) == ours.difference(theirs)
    assert ours.difference(theirs).difference == pytest.approx(-0.3)


def test_reports_on_other_questions_are_not_compared_and_none_is_no_report():
    with pytest.raises(ValueError, match="2 PMIDs such as S8 are in one only"):
        make_report(PAIRS).difference(make_report(PAIRS[:8]))
    with pytest.raises(ValueError, match="got none"):
        make_report([])
