"""HoC's figures: F1 against counts by hand and scikit-learn, intervals, baselines."""

import numpy as np
import pytest
from datasets import Dataset

from mediswift import hallmarks
from mediswift.hallmarks import LABELS, Report

A, B, C = LABELS[:3]


def report(*pairs, **options):
    rows = [
        {"pmid": str(i), "labels": labels, "prediction": said}
        for i, (labels, said) in enumerate(pairs)
    ]
    return Report(rows, **options)


def test_figures_by_hand():
    found = report(([A], [A]), ([A, B], [A, C]), ([], []), ([B], []))
    assert found.micro_f1 == pytest.approx(2 * 2 / (3 + 4))
    assert found.f1_by_label == {label: 0.0 for label in LABELS} | {A: 1.0}
    assert found.macro_f1 == pytest.approx(0.1)
    assert found.micro_f1_with_empty == pytest.approx(2 * 3 / (5 + 5))  # empty: one true, two named
    assert found.exact == 0.5


def test_figures_equal_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn")
    rng = np.random.default_rng(0)
    truth, said = rng.random((2, 60, 10)) < 0.3
    names = [[[n for n, is_in in zip(LABELS, row, strict=True) if is_in] for row in side]
             for side in (truth, said)]  # fmt: skip
    found = report(*zip(*names, strict=True))
    assert found.micro_f1 == pytest.approx(metrics.f1_score(truth, said, average="micro"))
    assert found.macro_f1 == pytest.approx(metrics.f1_score(truth, said, average="macro"))
    with_empty = [np.column_stack([side, ~side.any(1)]) for side in (truth, said)]
    wanted = metrics.f1_score(*with_empty, average="micro")
    assert found.micro_f1_with_empty == pytest.approx(wanted)
    assert found.low < found.micro_f1 < found.high


def test_two_reports_are_compared_document_by_document():
    pairs = [([A], [A])] * 8 + [([B], [])] * 4
    ours, theirs = report(*pairs), report(*[(labels, []) for labels, _ in pairs])
    difference, low, high = ours.difference(theirs)
    assert difference == ours.micro_f1 and 0 < low <= difference <= high
    assert ours.difference(ours) == (0, 0, 0)
    with pytest.raises(ValueError, match="the same documents, in the same order"):
        ours.difference(report(([A], [])))


def test_constants_read_nothing():
    training = Dataset.from_dict({"pmid": ["1", "2"], "labels": [[A, B], [B]]})
    test = Dataset.from_dict({"pmid": ["3", "4"], "labels": [[B], [A]]})
    none, every, commonest = hallmarks.constants(test, training)
    assert (none.micro_f1, none.micro_f1_with_empty) == (0, 0)
    assert every.micro_f1 == pytest.approx(2 * 2 / (20 + 2))
    assert commonest.answers.sum() == 2 and commonest.micro_f1 == 0.5
    assert [r.name for r in (none, every, commonest)] == [
        "no label", "all labels", "commonest label"
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Label not .* is present in all training examples")
def test_a_bag_of_words_learns_words():
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    texts = {A: "cells grow and divide", B: "vessels form near tumors"}
    rows = [{"pmid": str(i), "text": texts[y], "labels": [y]} for i, y in enumerate([A, B] * 6)]
    found = hallmarks.bag_of_words(Dataset.from_list(rows[:4]), Dataset.from_list(rows[4:]))
    assert found.exact == 1.0


def test_the_table_and_the_metrics_say_what_was_not_parsed():
    rows = [{"pmid": "1", "labels": [A], "prediction": [], "parsed": False}]
    found = Report(rows, truncated=1)
    assert found.metrics()["unparsed"] == 1
    assert "cut 1, unparsed 1" in str(found) and A in str(found)


def test_what_is_no_report_is_refused():
    with pytest.raises(ValueError, match="one document or more, got none"):
        Report([])
    with pytest.raises(ValueError, match="got fun"):
        report(([A], ["fun"]))
