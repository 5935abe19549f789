"""Figures of an exam: is a model as sure as it is right, and what a convention does to its number.

Decisions: as in `figures`: a table in, a figure out; dense is gray, every axis carries its unit.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from mediswift.figures import BLUE, DENSE, GREEN, ORANGE


def reliability(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Accuracy against confidence by bin (`Report.reliability`), a line a model, at most three.

    On the dotted line a model is as sure as it is right, below it surer than right. The larger a
    dot, the more questions. Raises ValueError for more models than can be told apart.
    """
    figure, axes = plt.subplots(figsize=(5, 4.2), layout="constrained")
    axes.plot([1 / 3, 1], [1 / 3, 1], color=DENSE, ls=":", label="as sure as right")
    for (name, table), color in zip(tables.items(), (BLUE, ORANGE, GREEN), strict=False):
        axes.plot(table["confidence"], table["accuracy"], color=color, lw=1, label=name)
        sizes = 20 + 280 * table["n"] / table["n"].sum()
        axes.scatter(table["confidence"], table["accuracy"], s=sizes, color=color, alpha=0.7)
    if len(tables) > 3:
        raise ValueError(f"Three models can be told apart, got {len(tables)}; choose some.")
    axes.set(xlabel="confidence: probability of the given answer", ylabel="share of true answers")
    axes.set(xlim=(0.3, 1.02), ylim=(-0.04, 1.04))
    figure.legend(frameon=False, loc="outside upper center", ncols=2)
    return figure


def protocols(table: pd.DataFrame) -> Figure:
    """Accuracy of one model by protocol (`protocols.compare`): three marks a protocol.

    The first and the last have their 95 % intervals.
    """
    figure, axes = plt.subplots(figsize=(7, 0.6 * len(table) + 1.5), layout="constrained")
    places = np.arange(len(table))[::-1]
    marks = [
        ("ours", "our prompt, its rows", DENSE, "o", ("low", "high")),
        ("likeliest", "its prompt, likeliest answer", BLUE, "^", ("likeliest", "likeliest")),
        ("read", "its prompt, its reading", ORANGE, "s", ("read_low", "read_high")),
    ]
    for shift, (column, label, color, marker, (low, high)) in zip(
        (0.2, 0, -0.2), marks, strict=True
    ):
        value = table[column]
        widths = [value - table[low], table[high] - value]
        axes.errorbar(value, places + shift, xerr=widths, fmt=marker, color=color, label=label)
    axes.set(xlabel="accuracy (%)", yticks=places, yticklabels=table.index, xlim=(-2, 102))
    axes.set_ylim(-0.6, len(table) - 0.4)
    figure.legend(frameon=False, ncols=3, loc="outside upper center")
    return figure
