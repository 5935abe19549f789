"""A report: every figure follows from its predictions, and it prints beside the majority class."""

import json

import numpy as np
import pytest

from mediswift.report import Report, table


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


def with_scores(report, name="model"):
    """The same answers, each at a probability of 0.8."""
    others = np.log(0.1)
    rows = [
        row
        | {
            "scores": dict.fromkeys(("yes", "no", "maybe"), others)
            | {row["prediction"]: np.log(0.8)}
        }
        for row in report.predictions
    ]
    return Report(rows, report.setting, name=name)


def test_settings_are_never_mixed_but_a_yardstick_may_stand_beside():
    ours, rows = make_report(PAIRS), make_report(PAIRS).predictions
    blind = Report(rows, "question_only", name="question only")
    for mix in (lambda: ours.difference(blind), lambda: table([ours, blind])):
        with pytest.raises(ValueError, match="never mixed, got question_only, reasoning_required"):
            mix()
    yardstick = Report(rows, "question_only", name="question only", baseline=True)
    assert ours.difference(yardstick).difference == 0
    assert list(table([ours, yardstick]).index) == ["model", "question only"]


def test_a_table_is_in_percent_and_its_names_and_questions_are_one_set():
    made = table([with_scores(make_report(PAIRS))])
    assert made.loc["model", "accuracy"] == pytest.approx(70)
    assert made.loc["model", "calibration_error"] == pytest.approx(10)
    assert (
        made.loc["model", "f1_low"] < made.loc["model", "macro_f1"] < made.loc["model", "f1_high"]
    )
    assert np.isnan(table([make_report(PAIRS)]).loc["model", "calibration_error"])
    with pytest.raises(ValueError, match=r"\['model'\] twice"):
        table([make_report(PAIRS)] * 2)
    with pytest.raises(ValueError, match="in one only"):
        table([make_report(PAIRS), make_report(PAIRS[:8], name="few")])


def test_calibration_follows_from_the_scores():
    report = with_scores(make_report(PAIRS))
    assert report.confidence == pytest.approx([0.8] * 10)
    assert report.calibration_error == pytest.approx(0.1)
    assert report.metrics()["calibration_error"] == report.calibration_error
    with pytest.raises(ValueError, match="model has answers only"):
        make_report(PAIRS).confidence  # noqa: B018


def test_bootstrap_agrees_with_wilson_where_both_hold():
    report = make_report([("yes", "yes")] * 300 + [("no", "yes")] * 200)
    assert report.bootstrap_interval == pytest.approx((report.low, report.high), abs=0.005)


def test_no_answer_is_wrong_and_is_in_no_class():
    report = make_report([("yes", "yes"), ("yes", ""), ("no", "no")])
    assert (report.unanswered, report.accuracy) == (1, pytest.approx(2 / 3))
    assert report.macro_f1 == pytest.approx((2 / 3 + 1) / 2)
    assert report.confusion.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert "1 without an answer" in str(report)
