"""Figures of an exam: what is in the table is what is drawn."""

import matplotlib
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from mediswift import calibration, exam_figures


@pytest.fixture(autouse=True)
def canvas():
    matplotlib.use("Agg")
    yield
    plt.close("all")


def test_reliability_draws_each_bin_where_it_is():
    table = calibration.reliability([0.4, 0.9, 0.95], [0, 1, 1], bins=2)
    figure = exam_figures.reliability({"dense": table})
    figure.canvas.draw()
    drawn = figure.axes[0].collections[0].get_offsets().tolist()
    assert drawn == table[["confidence", "accuracy"]].values.tolist()
    assert "probability" in figure.axes[0].get_xlabel() and "share" in figure.axes[0].get_ylabel()


def test_more_models_than_can_be_told_apart_are_refused():
    table = calibration.reliability([0.4], [1])
    with pytest.raises(ValueError, match="got 4; choose some"):
        exam_figures.reliability(dict.fromkeys("abcd", table))


def test_protocols_are_drawn_in_percent():
    columns = {"ours": [55.0, 56.0], "likeliest": [50.0, 40.0], "read": [50.0, 0.0]}
    ends = {"low": [50.0, 51.0], "high": [60.0, 62.0]}
    ends |= {"read_low": [45.0, 0.0], "read_high": [56.0, 3.0]}
    figure = exam_figures.protocols(pd.DataFrame(columns | ends, index=["one", "two"]))
    figure.canvas.draw()
    axes = figure.axes[0]
    drawn = [(mark.lines[0], mark.lines[2][0]) for mark in axes.containers]
    assert [list(dots.get_xdata()) for dots, _ in drawn] == list(columns.values())
    bars = [[list(bar[:, 0]) for bar in lines.get_segments()] for _, lines in drawn]
    assert (bars[0], bars[2]) == ([[50, 60], [51, 62]], [[45, 56], [0, 3]])
    assert [t.get_text() for t in axes.get_yticklabels()] == ["one", "two"]
    assert "%" in axes.get_xlabel()
