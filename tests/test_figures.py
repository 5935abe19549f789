"""Tests of mediswift.figures. Run with: pytest tests/test_figures.py."""

import inspect

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from mediswift import figures

HISTORY = pd.DataFrame(
    {
        "tokens": [1000, 2000, 3000, 4000],
        "loss": [6.0, 5.0, 4.5, 4.2],
        "validation_loss": [np.nan, 5.1, np.nan, 4.4],
    }
)
MASK = np.array([[True, False, False, False], [False, True, False, True]])
MOVED = pd.DataFrame(
    {"kind": ["q_proj", "fc1"] * 2, "layer": list("0011"), "cosine_distance": [0.1, 0.2, 0.3, 0.4]}
)
ACCURACIES = pd.DataFrame(
    {"name": ["dense", "sparse"], "accuracy": [0.5, 0.6], "low": [0.4, 0.5], "high": [0.6, 0.7]}
)
COSTS = pd.DataFrame(
    {"linear": [0.8, 0.2], "attention": [0.15, 0.15], "head": [0.05, 0.05]}, ["dense", "75 %"]
)
RUNS = pd.DataFrame(
    {
        "theoretical_flops": [1e15, 3e15],
        "bits_per_byte": [2.1, 1.9],
        "sparsity": [0.75, 0.0],
        "size": ["demo", "demo"],
    }
)
SPEEDUPS = pd.DataFrame(
    {
        "pattern": ["16x1", "16x1"], "sparsity": [0.5, 0.75], "speedup": [1.4, 2.5],
        "speedup_low": [1.3, 2.4], "speedup_high": [1.5, 2.6],
    }
)  # fmt: skip
PARTS = pd.DataFrame(
    {
        "size": "d512", "model": ["dense"] * 2 + ["16x1"] * 2, "part": ["forward", "head"] * 2,
        "seconds": [0.2, 0.1, 0.1, 0.1],
    }
)  # fmt: skip
DIFFERENCES = pd.DataFrame(
    {"name": ["unstructured", "16x1", "2:4"],
     "difference": [None, 0.1, 0.3], "low": [None, 0.0, 0.2], "high": [None, 0.2, 0.4]}
)  # fmt: skip
LOSSES = pd.DataFrame(
    {
        "sparsity": [0.0, 0.0, 0.875], "loss": [4.7, 5.7, 5.0], "predicted": [4.75, 5.65, 5.1],
        "held_out": [4.9, 5.5, None],
    }
)  # fmt: skip
NAMES = None  # an axis of names: its ticks say what stands there, and it has no unit

# How each figure is called, and the units that its x axis and its y axis must name
CASES = {
    "lengths": (([120, 300, 90], 256), "tokens", "documents"),
    "packed": ((np.array([[0, 5, 6, 0], [7, 8, 0, 9]]), 0), "tokens", "row"),
    "masks": (({"unstructured": MASK, "2:4": ~MASK},), "inputs", "outputs"),
    "flops_by_term": ((COSTS,), "FLOPs", NAMES),
    "loss_curves": (({"dense": HISTORY, "75 % sparse": HISTORY},), "tokens", "nats per token"),
    "revival": ((np.zeros(9), np.linspace(-1, 1, 9)), "value of a removed weight", "weights"),
    "movement": ((MOVED,), NAMES, "cosine distance"),
    "answer_scores": (({"dense": {"yes": -1.0, "no": -2.0}}, "yes"), "answer", "probability"),
    "confusion": ((np.array([[3, 1], [2, 4]]), ["yes", "no"]), "given answer", "true answer"),
    "accuracies": ((ACCURACIES, {"majority": 55.2, "human": 78.0}), "%", NAMES),
    "speedups": ((SPEEDUPS, {0.5: 1.6, 0.75: 2.2}), "fraction", "times"),
    "step_parts": ((PARTS, ("forward", "head")), "seconds", NAMES),
    "differences": ((DIFFERENCES, "above (nats per token)"), "nats per token", NAMES),
    "predicted_losses": ((LOSSES,), "nats per token", "nats per token"),
    "loss_against": ((RUNS,), "FLOPs", "bits per byte"),
}


@pytest.fixture(autouse=True)
def canvas(monkeypatch, tmp_path):
    """No window, an empty folder to be in, every figure closed at the end."""
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    with matplotlib.rc_context():
        figures.theme()
        yield
    plt.close("all")


def draw(name):
    return getattr(figures, name)(*CASES[name][0])


def test_differences_leave_out_what_they_are_to():
    axes = draw("differences").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["16x1", "2:4"]


def test_differences_show_both_intervals_where_there_are_two():
    both = DIFFERENCES.assign(questions_low=-0.5, questions_high=0.5)
    figure = figures.differences(both, "above (points)")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "over questions", "over seeds"
    ]  # fmt: skip
    (thin,) = [c for c in figure.axes[0].collections if c.get_label() == "over questions"]
    assert {tuple(end[:, 0]) for end in thin.get_segments()} == {(-0.5, 0.5)}
    assert not draw("differences").legends


def test_predicted_losses_are_filled_and_held_out_ones_hollow():
    axes = draw("predicted_losses").axes[0]
    _, dense, dense_out, sparse, sparse_out, key = axes.lines
    assert dense.get_xydata().tolist() == [[4.7, 4.75], [5.7, 5.65]]
    assert dense_out.get_xydata().tolist() == [[4.7, 4.9], [5.7, 5.5]]
    assert [line.get_mfc() for line in (dense_out, sparse_out, key)] == ["none"] * 3
    assert [line.get_color() for line in (dense, dense_out)] == [figures.DENSE] * 2
    assert sparse.get_color() == sparse_out.get_color() != figures.DENSE
    assert np.isnan(sparse_out.get_ydata()).all()  # what could not be predicted is not drawn
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["dense", "87.5 % removed", "by the law without its group"]


def test_every_figure_is_tried_here():
    public = {
        name
        for name, function in inspect.getmembers(figures, inspect.isfunction)
        if function.__module__ == figures.__name__ and not name.startswith("_")
    }
    assert public - {"theme"} == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_a_figure_has_axes_with_units_and_writes_nothing(name, tmp_path):
    figure = draw(name)
    assert isinstance(figure, Figure)
    figure.canvas.draw()  # what cannot be laid out or printed fails here, as a warning or an error
    axes = figure.axes[0]
    for axis, unit in ((axes.xaxis, CASES[name][1]), (axes.yaxis, CASES[name][2])):
        ticks = [label.get_text() for label in axis.get_ticklabels()]
        assert unit in axis.get_label_text() if unit else all(ticks) and len(ticks) > 1
    assert list(tmp_path.iterdir()) == []


def test_masks_are_drawn_as_they_are_written():
    left, right = draw("masks").axes
    drawn = left.collections[0].get_array().reshape(MASK.shape)
    assert np.array_equal(drawn[::-1], MASK)  # a mesh grows upward, a matrix downward
    assert (left.get_title(), right.get_title()) == ("unstructured", "2:4")


def test_packed_rows_change_shade_where_a_document_begins():
    shades = draw("packed").axes[0].images[0].get_array()
    assert shades.tolist() == [[1, 1, 1, 2], [2, 2, 3, 3]]


def test_loss_curves_go_through_the_losses():
    axes = draw("loss_curves").axes[0]
    raw, validated = axes.lines[:2]
    assert raw.get_ydata().tolist() == HISTORY["loss"].tolist()
    assert validated.get_xydata().tolist() == [[2000, 5.1], [4000, 4.4]]
    assert matplotlib.colors.same_color(raw.get_color(), figures.DENSE)  # dense is always gray
    assert not matplotlib.colors.same_color(axes.lines[2].get_color(), figures.DENSE)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["dense", "75 % sparse"]


def test_a_history_without_validation_is_drawn_as_well():
    plain = HISTORY.drop(columns="validation_loss")
    axes = figures.loss_curves({"dense": plain}).axes[0]
    assert len(axes.lines) == 2 and axes.get_legend()


def test_accuracies_are_in_percent_with_their_intervals():
    figure = draw("accuracies")
    axes = figure.axes[0]
    (points, _, bars), *_ = axes.containers
    assert points.get_xdata().tolist() == [50, 60]
    ends = [segment[:, 0].tolist() for segment in bars[0].get_segments()]
    assert np.allclose(ends, [[40, 60], [50, 70]])
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["majority 55.2", "human 78.0"]


def test_answer_scores_are_shares_of_the_three():
    heights = [bar.get_height() for bar in draw("answer_scores").axes[0].patches]
    yes = np.exp(-1) / (np.exp(-1) + np.exp(-2))
    assert [h for h in heights if h] == pytest.approx([yes, 1 - yes])


def test_confusion_prints_its_counts():
    texts = [text.get_text() for text in draw("confusion").axes[0].texts]
    assert texts == ["3", "1", "2", "4"]


def test_revival_of_nothing_is_drawn_too():
    assert isinstance(figures.revival(np.zeros(3), np.zeros(3)), Figure)
