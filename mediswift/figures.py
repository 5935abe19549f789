"""Figures: a table in, a matplotlib figure out; no file is read or written and nothing is computed.

Decisions: one theme for all; seaborn's color-blind palette; dense is gray, sparse is colored, so
that a reader learns the code once; every axis carries its unit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

DENSE = "#4d4d4d"
BLUE, ORANGE, GREEN = sns.color_palette("colorblind", 3)
COSTS = {"theoretical_flops": "theoretical training FLOPs", "seconds": "seconds of training"}
"""What a run costs, by its name in a record."""
REMOVED_KEPT = ListedColormap(["#f3f1ec", "#1f4e79"])


def theme() -> None:
    """Set the look of all figures that follow."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind")
    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titleweight": "normal",
            "grid.color": "#e6e4df",
            "svg.hashsalt": "mediswift",
        }
    )


def lengths(tokens: Sequence[int], context: int) -> Figure:
    """Histogram of document lengths in tokens, with the model's context marked."""
    figure, axes = _axes((7, 3))
    sns.histplot(x=list(tokens), bins=40, ax=axes, color=BLUE, edgecolor="white")
    axes.axvline(context, color=ORANGE, lw=2)
    axes.annotate(
        f" context: {context}", (context, axes.get_ylim()[1] * 0.92), color=ORANGE, va="top"
    )
    axes.set(xlabel="length of a document (tokens)", ylabel="documents")
    return figure


def packed(rows: np.ndarray, end_of_text: int) -> Figure:
    """Packed rows (R, T) as strips: each document in one shade, so that the joints can be seen."""
    shades = np.cumsum(rows == end_of_text, axis=None).reshape(rows.shape) % 6
    figure, axes = _axes((7, 0.32 * len(rows) + 1))
    colors = ListedColormap(sns.color_palette("crest", 6))
    axes.imshow(shades, aspect="auto", cmap=colors, interpolation="nearest")
    axes.set(xlabel="position in the row (tokens)", ylabel="row", yticks=range(len(rows)))
    axes.grid(False)
    return figure


def masks(patterns: Mapping[str, np.ndarray]) -> Figure:
    """Masks side by side, a small square a weight: filled = kept, empty = removed."""
    figure, panels = plt.subplots(
        1, len(patterns), figsize=(2.6 * len(patterns), 3), layout="constrained", squeeze=False
    )
    for axes, (title, mask) in zip(panels[0], patterns.items(), strict=True):
        axes.pcolormesh(
            np.asarray(mask, dtype=int)[::-1], cmap=REMOVED_KEPT, vmin=0, vmax=1,
            edgecolors="white", linewidth=1.2 if len(mask) <= 16 else 0,
        )  # fmt: skip
        axes.set(title=title, xlabel="inputs", xticks=[], yticks=[], aspect="equal")
    panels[0][0].set_ylabel("outputs")
    return figure


def flops_by_term(table: pd.DataFrame) -> Figure:
    """Stacked bars of theoretical FLOPs: rows are models, columns the terms, values shares of
    dense."""
    figure, axes = _axes((7, 0.45 * len(table) + 1.2))
    colors = [BLUE, ORANGE, GREEN]
    table.iloc[::-1].plot.barh(stacked=True, ax=axes, color=colors, width=0.7, edgecolor="white")
    axes.set(xlabel="theoretical training FLOPs (dense of the same size = 1)", ylabel="")
    axes.legend(title="", ncols=3, loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    return figure


def loss_curves(histories: Mapping[str, pd.DataFrame], value: str = "loss") -> Figure:
    """Loss against tokens, a line a run; dots are validations on held-out documents."""
    figure, axes = _axes((7, 3.6))
    for (name, history), color in zip(histories.items(), _colors(histories), strict=True):
        axes.plot(history["tokens"], history[value], color=color, alpha=0.35, lw=1)
        if "validation_loss" in history:
            checked = history.dropna(subset="validation_loss")
            axes.plot(checked["tokens"], checked["validation_loss"], "o-", color=color, label=name)
        else:
            smooth = history[value].rolling(5, min_periods=1).mean()
            axes.plot(history["tokens"], smooth, color=color, label=name)
    axes.set(xlabel="tokens trained on", ylabel="loss (nats per token)")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1e3:,.0f}k")
    axes.legend(frameon=False)
    return figure


def revival(before: np.ndarray, after: np.ndarray) -> Figure:
    """Removed weights before and after dense fine-tuning: from one spike at zero to a spread."""
    figure, axes = _axes((7, 3))
    width = float(np.abs(after).max()) or 1.0
    bins = np.linspace(-width, width, 80)
    axes.hist(after, bins=bins, color=BLUE, label="after fine-tuning")
    axes.axvline(float(before.max()), color=ORANGE, lw=2, label="before: all exactly zero")
    axes.set(xlabel="value of a removed weight", ylabel="weights", yscale="log")
    axes.legend(frameon=False)
    return figure


def movement(table: pd.DataFrame) -> Figure:
    """Cosine distance of each matrix to itself before fine-tuning, by kind and layer."""
    figure, axes = _axes((7, 3.2))
    sns.stripplot(
        table, x="kind", y="cosine_distance", hue="layer", palette="crest", ax=axes, size=7
    )
    axes.set(xlabel="", ylabel="cosine distance moved", ylim=(0, None))
    axes.legend(title="layer", frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    return figure


def answer_scores(predictions: Mapping[str, Mapping[str, float]], label: str) -> Figure:
    """Probabilities of the three answers to one question, a group of bars a model."""
    figure, axes = _axes((7, 3))
    scores = pd.DataFrame({name: np.exp(pd.Series(p)) for name, p in predictions.items()})
    shares = (scores / scores.sum()).rename_axis("answer").reset_index().melt("answer")
    sns.barplot(
        shares, x="answer", y="value", hue="variable", ax=axes, palette=_colors(predictions)
    )
    axes.set(xlabel=f"answer (true: {label})", ylabel="probability among the three", ylim=(0, 1))
    axes.legend(title="", frameon=False)
    return figure


def confusion(counts: np.ndarray, answers: Sequence[str]) -> Figure:
    """Counts of true against given answers as a small heat map with the numbers in it."""
    figure, axes = _axes((3.8, 3.2))
    sns.heatmap(
        counts, annot=True, fmt="d", cmap="crest", cbar=False, square=True, ax=axes,
        xticklabels=answers, yticklabels=answers,
    )  # fmt: skip
    axes.set(xlabel="given answer", ylabel="true answer")
    return figure


def accuracies(table: pd.DataFrame, lines: Mapping[str, float]) -> Figure:
    """Accuracies with 95 % intervals (columns name, accuracy, low, high) and reference lines."""
    figure, axes = _axes((7, 0.5 * len(table) + 1.3))
    places = np.arange(len(table))[::-1]
    errors = [table["accuracy"] - table["low"], table["high"] - table["accuracy"]]
    axes.errorbar(
        100 * table["accuracy"], places, xerr=100 * np.array(errors),
        fmt="o", color=BLUE, capsize=4, lw=2,
    )  # fmt: skip
    for (name, value), color in zip(lines.items(), (DENSE, ORANGE, GREEN), strict=False):
        axes.axvline(value, color=color, ls="--", lw=1.5, label=f"{name} {value:.1f}")
    axes.set(xlabel="accuracy on the test questions (%)", yticks=places, yticklabels=table["name"])
    axes.set_ylim(-0.6, len(table) - 0.4)
    axes.margins(x=0.08)
    figure.legend(frameon=False, ncols=len(lines), loc="outside upper center")
    return figure


def loss_against(runs: pd.DataFrame, cost: str = "theoretical_flops") -> Figure:
    """Bits per byte against what a run costs, a column of `COSTS`, a dot a run, colored by
    sparsity."""
    figure, axes = _axes((7, 3.6))
    removed = runs["sparsity"].map(lambda s: f"{100 * s:g}% removed" if s else "dense").rename("")
    palette = dict(zip(removed.unique(), _colors(removed.unique()), strict=True))
    sns.scatterplot(
        runs,
        x=cost,
        y="bits_per_byte",
        hue=removed,
        style="size",
        palette=palette,
        s=110,
        ax=axes,
    )
    axes.set(xlabel=COSTS[cost], ylabel="held-out loss (bits per byte)")
    axes.set_xlim(0, None)
    axes.legend(frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    return figure


def predicted_losses(runs: pd.DataFrame) -> Figure:
    """Losses by a law against measured ones, a mark a run, colored by sparsity (`forecast`).

    Filled: `predicted` by the law through all runs. Hollow: `held_out`, by the law through all
    other sizes and sparsities, where there is one. On the dotted line both are the same.
    """
    figure, axes = _axes((7, 4.2))
    removed = runs["sparsity"].map(lambda s: f"{100 * s:g} % removed" if s else "dense")
    ends = [runs["loss"].min(), runs["loss"].max()]
    axes.plot(ends, ends, color=DENSE, ls=":", lw=1)
    for (name, own), color in zip(
        runs.groupby(removed, sort=False), _colors(removed.unique()), strict=True
    ):
        axes.plot(own["loss"], own["predicted"], "o", ms=4, color=color, label=name)
        axes.plot(own["loss"], own["held_out"], "o", ms=9, mfc="none", color=color)
    axes.plot([], [], "o", ms=9, mfc="none", color=DENSE, label="by the law without its group")
    axes.set(xlabel="measured loss (nats per token)", ylabel="predicted loss (nats per token)")
    axes.legend(frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    return figure


def speedups(table: pd.DataFrame, whole_step: Mapping[float, float]) -> Figure:
    """Speed-up of a matrix by sparsity, a line a pattern with quartiles, under the ideal.

    `whole_step` is the most that a whole training step can gain, by sparsity: Amdahl's line.
    """
    figure, axes = _axes((7, 4))
    ideal = np.linspace(0, table["sparsity"].max(), 100)
    axes.plot(ideal, 1 / (1 - ideal), color=DENSE, ls=":", label="ideal: 1 / (1 - s)")
    axes.plot(
        list(whole_step), list(whole_step.values()), color=DENSE, ls="--",
        label="most for a whole step (theory)",
    )  # fmt: skip
    axes.axhline(1, color=DENSE, lw=1)
    for name, rows in table.groupby("pattern", sort=False):
        below, above = rows["speedup"] - rows["speedup_low"], rows["speedup_high"] - rows["speedup"]
        axes.errorbar(
            rows["sparsity"], rows["speedup"], yerr=[below, above], marker="o", capsize=3,
            label=name,
        )  # fmt: skip
    axes.set(xlabel="fraction of weights removed", ylabel="speed-up over dense (times)")
    axes.legend(frameon=False)
    return figure


def step_parts(rows: pd.DataFrame, parts: Sequence[str]) -> Figure:
    """Stacked bars of one training step's seconds, a bar a model, a color a part."""
    table = rows[rows["part"].isin(parts)].pivot_table(
        index=["size", "model"], columns="part", values="seconds", sort=False
    )[list(parts)]
    figure, axes = _axes((7, 0.42 * len(table) + 1.2))
    table.iloc[::-1].plot.barh(stacked=True, ax=axes, width=0.7, edgecolor="white")
    axes.set_yticklabels([f"{size}, {model}" for size, model in table.index[::-1]])
    axes.set(xlabel="seconds of a training step (median)", ylabel="")
    axes.get_legend().remove()  # beside the narrow axes it would take their room
    figure.legend(frameon=False, ncols=len(parts), loc="outside upper center")
    return figure


def differences(table: pd.DataFrame, what: str) -> Figure:
    """Differences with 95 % intervals (columns name, difference, low, high) beside zero.

    Rows without a difference, what the others are measured by, are left out; `what` says what is
    above, with its unit. With the columns questions_low and questions_high, a thin bar below each
    is the interval over questions.
    """
    shown = table.dropna(subset="difference").reset_index()
    figure, axes = _axes((7, 0.42 * len(shown) + 1.2))
    places = np.arange(len(shown))[::-1]
    errors = [shown["difference"] - shown["low"], shown["high"] - shown["difference"]]
    axes.errorbar(
        shown["difference"],
        places,
        xerr=np.array(errors),
        fmt="o",
        color=BLUE,
        capsize=4,
        lw=2,
        label="over seeds",
    )
    if "questions_low" in shown:
        ends = (shown["questions_low"], shown["questions_high"])
        axes.hlines(places - 0.2, *ends, color=ORANGE, lw=1.5, label="over questions")
        figure.legend(frameon=False, loc="outside upper center", ncols=2)
    axes.axvline(0, color=DENSE, ls="--", lw=1.5)
    axes.set(xlabel=what, yticks=places, yticklabels=shown["name"])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    return figure


def _axes(size: tuple[float, float]) -> tuple[Figure, plt.Axes]:
    return plt.subplots(figsize=size, layout="constrained")


def _colors(names: Collection[str]) -> list:
    others = iter(sns.color_palette("colorblind", len(names)))
    return [DENSE if "dense" in name and "sparse" not in name else next(others) for name in names]
