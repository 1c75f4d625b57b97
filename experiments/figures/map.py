"""The map of the study: mean test accuracy for each number of training examples and training
difficulty (numbers in percent), with the ridge of interpolated optima and their 90% intervals over
bases. A hollow marker: the optimum may lie beyond the grid; its interval is open there.

Figures 3 and 4 of the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator

from experiments.analysis import optimum
from experiments.figures import style

TITLE = "Test accuracy over difficulty and amount of data"
TABLES = ("table",)
# White lines and black rings, each with an outline of the other: legible on every colour.
RIDGE: dict[str, Any] = {
    "color": "white",
    "path_effects": (withStroke(linewidth=4.0, foreground="black"),),
}
RING: dict[str, Any] = {
    "marker": "o",
    "markeredgecolor": "black",
    "markeredgewidth": 2.0,
    "path_effects": (withStroke(linewidth=4.5, foreground="white"),),
}
BORDER: dict[str, Any] = {"color": "black", "linestyle": (0, (1.2, 1)), "linewidth": 2.6}


def cell_edges(centres: np.ndarray) -> np.ndarray:
    """Edges half-way between neighbouring centres; one cell of width one if there is one centre."""
    steps = np.diff(centres) if len(centres) > 1 else np.ones(1)
    middles = centres[:-1] + np.diff(centres) / 2
    return np.concatenate([[centres[0] - steps[0] / 2], middles, [centres[-1] + steps[-1] / 2]])


def accuracies(table: pd.DataFrame, study: optimum.Study, *, minus_base: bool) -> np.ndarray:
    """Mean test accuracy of each cell, or how far it is above the untouched base's."""
    metric = optimum.cube(table, study, "test_risk", minus_base=minus_base)
    return -metric.mean if minus_base else 1 - metric.mean


def draw_panel(
    axis: Axes,
    table: pd.DataFrame,
    study: optimum.Study,
    scale: Normalize,
    *,
    minus_base: bool = False,
) -> None:
    """Draw one study's accuracies, with the ridge of best levels, on axes of its own."""
    # The cells, coloured by accuracy.
    metric = optimum.cube(table, study, "test_risk")
    accuracy = accuracies(table, study, minus_base=minus_base)
    sizes, levels = metric.data_sizes, metric.difficulties
    x_edges, y_edges = 2 ** cell_edges(np.log2(sizes)), cell_edges(levels.astype(float))
    axis.pcolormesh(
        x_edges, y_edges, accuracy, norm=scale, cmap="viridis", edgecolor="white", linewidth=0.5
    )
    for (row, column), value in np.ndenumerate(accuracy):
        is_missing = bool(np.isnan(value))
        # The number stands in the lower right corner: the ridge runs through the centres.
        is_light = is_missing or scale(value) > 0.55
        axis.text(
            float(x_edges[column + 1] * (x_edges[column] / x_edges[column + 1]) ** 0.05),
            float(y_edges[row] + 0.2 * (y_edges[row + 1] - y_edges[row])),
            "–" if is_missing else _percent(value, signed=minus_base),
            ha="right",
            va="center",
            color="black" if is_light else "white",
            zorder=3,
        )
    _outline_gains(axis, table, study, x_edges, y_edges)
    # The ridge of optima, and their intervals: a cap at an end, none where it is open.
    best = optimum.optimum(table, study)
    axis.plot(best["data_size"], best["position"], linewidth=2.2, **RIDGE)
    low, high = (best[end].clip(y_edges[0], y_edges[-1]) for end in ("low", "high"))
    axis.vlines(best["data_size"], low, high, linewidth=2.2, **RIDGE)
    ends = pd.concat([best["low"], best["high"]]).replace([-np.inf, np.inf], np.nan)
    axis.plot([*best["data_size"]] * 2, ends, "_", markersize=9, markeredgewidth=2, **RIDGE)
    for row in best.to_dict("records"):
        axis.plot(
            row["data_size"],
            row["position"],
            markersize=10,
            markerfacecolor="white" if row["is_open"] else "black",
            **RING,
        )
    style.size_axis(axis, sizes.tolist())
    axis.yaxis.set_major_locator(FixedLocator(levels.tolist()))
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)


def _percent(share: float, *, signed: bool) -> str:
    """A share in whole percents; a difference with its sign, and 0 without one."""
    number = round(100 * share)
    return f"{number:+d}" if signed and number else f"{number}"


def _outline_gains(
    axis: Axes,
    table: pd.DataFrame,
    study: optimum.Study,
    x_edges: np.ndarray,
    y_edges: np.ndarray,
) -> None:
    """Draw the border between the cells that are better than the untouched base and the others."""
    if optimum.UNTRAINED not in set(table["train_mixture"]):
        return
    is_better = optimum.cube(table, study, "test_risk", minus_base=True).mean < 0
    # Edges between neighbouring cells that differ: upright ones, then level ones.
    for row, column in np.argwhere(is_better[:, 1:] != is_better[:, :-1]):
        axis.plot([x_edges[column + 1]] * 2, y_edges[row : row + 2], **BORDER)
    for row, column in np.argwhere(is_better[1:] != is_better[:-1]):
        axis.plot(x_edges[column : column + 2], [y_edges[row + 1]] * 2, **BORDER)


def accuracy_scale(table: pd.DataFrame, studies: Sequence[optimum.Study]) -> Normalize:
    """A colour scale from the lowest to the highest mean test accuracy of the studies' cells."""
    accuracies = [1 - optimum.cube(table, study, "test_risk").mean for study in studies]
    return Normalize(
        min(np.nanmin(each) for each in accuracies), max(np.nanmax(each) for each in accuracies)
    )


def legend(figure: Figure, *, columns: int) -> None:
    """Name the marks of the panels below them."""
    ring = RING | {"color": "none", "markersize": 9}
    handles = [
        style.key("optimum d*", markerfacecolor="black", **ring),
        style.key("it may lie beyond the grid", markerfacecolor="white", **ring),
        style.key(f"ridge and {style.BAND_LABEL}", linewidth=2.2, **RIDGE),
        style.key("border to cells below\nthe untouched base", **BORDER),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def finding(tables: Mapping[str, pd.DataFrame]) -> str:
    """The most accurate cell of each study, and the untouched base."""
    table, said = tables["table"], []
    for study in optimum.studies(table):
        risk = optimum.cube(table, study, "test_risk")
        row, column = np.unravel_index(np.nanargmin(risk.mean), risk.mean.shape)
        cell = f"d = {risk.difficulties[row]}, n = {risk.data_sizes[column]:,}"
        said.append(
            f"{study.title}, the most accurate cell is {cell} ({1 - risk.mean[row, column]:.1%})"
        )
    if optimum.UNTRAINED in set(table["train_mixture"]):
        base = optimum.cube(table, optimum.studies(table)[0].untrained, "test_risk").mean
        said.append(f"the untouched base has {1 - base[0, 0]:.1%}")
    return "; ".join(said) + "."


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """One heat map per study, all with one colour scale."""
    table = tables["table"]
    studies = optimum.studies(table)
    figure, axes = style.panels([study.title for study in studies], width=4.4, height=3.9)
    scale = accuracy_scale(table, studies)
    for axis, study in zip(axes[0], studies, strict=True):
        draw_panel(axis, table, study, scale)
    style.outer_labels(axes, style.SIZE_LABEL, style.difficulty_label(table))
    colours = ScalarMappable(scale, "viridis")
    bar = figure.colorbar(colours, ax=axes, label=style.ACCURACY_LABEL, pad=0.02, aspect=30)
    style.percent_axis(bar.ax)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    legend(figure, columns=min(3, 1 + len(studies)))
    style.note_left_out(figure, optimum.left_out(table))
    return figure
