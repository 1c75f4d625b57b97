"""The best training difficulty for each number of training examples n, with the 90% bootstrap
interval of the best level, and the bootstrap probability that it is harder at the largest n than at
the smallest. Hatched: beyond the grid, not tested; a hollow marker at the grid's edge is a limit
(censored), not an optimum. The paper claims a move to harder data.

Claim 1 of the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator

from experiments.analysis import optimum
from experiments.figures import style

TABLES = ("table",)


def draw_panel(axis: Axes, table: pd.DataFrame, study: optimum.Study, title: str) -> None:
    """Draw one study's best level over data size, on axes of its own."""
    levels = sorted(optimum.study_rows(table, study)["difficulty"].unique())
    best = optimum.optimum(table, study)
    moved = optimum.shift(table, study)
    axis.set_title(
        f"{title}\nP(harder at n = {moved.largest_size} than at "
        f"{moved.smallest_size}): {optimum.format_probability(moved.probability_harder)}"
    )
    # Hatched: levels beyond the grid.
    margin = (levels[-1] - levels[0]) / 6 or 1.0
    for start, end in ((levels[0], levels[0] - margin), (levels[-1], levels[-1] + margin)):
        axis.axhspan(start, end, facecolor="#f3f3f3", edgecolor="#c4c4c4", hatch="////", lw=0)
        axis.axhline(start, color="#8c8c8c", linewidth=1.0, linestyle="--")
    axis.set_ylim(levels[0] - margin, levels[-1] + margin)
    # The best level and its interval at each n.
    axis.plot(best["data_size"], best["best_difficulty"], color=style.colour(1, 4))
    axis.errorbar(
        best["data_size"],
        best["best_difficulty"],
        yerr=[best["best_difficulty"] - best["low"], best["high"] - best["best_difficulty"]],
        fmt="none",
        ecolor=style.INK,
        elinewidth=1.4,
        capsize=6,
    )
    for row in best.to_dict("records"):
        axis.plot(
            row["data_size"],
            row["best_difficulty"],
            marker="D",
            markersize=9,
            markerfacecolor="white" if row["censored"] else style.colour(1, 4),
            markeredgecolor=style.INK,
            zorder=4,
        )
    axis.yaxis.set_major_locator(FixedLocator(levels))
    style.size_axis(axis, best["data_size"].tolist())


def legend(figure: Figure) -> None:
    """Name the marks of the panels at their right."""
    diamond: dict[str, Any] = {"color": "none", "marker": "D", "markeredgecolor": style.INK}
    upright: dict[str, Any] = {"color": style.INK, "linestyle": "none", "markeredgewidth": 1.4}
    handles = [
        style.key("best difficulty", markerfacecolor=style.colour(1, 4), **diamond),
        style.key("at the grid's edge\n(censored)", markerfacecolor="white", **diamond),
        style.key(style.BAND_LABEL, marker="|", markersize=14, **upright),
        Patch(facecolor="#f3f3f3", edgecolor="#c4c4c4", hatch="////", label="not tested"),
    ]
    style.side_legend(figure, handles)


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """The best level over data size, one panel per study."""
    table = tables["table"]
    studies = optimum.studies(table)
    figure, axes = style.panels([study.title for study in studies])
    for axis, study in zip(axes[0], studies, strict=True):
        draw_panel(axis, table, study, study.title)
    style.outer_labels(axes, style.SIZE_LABEL, "best training difficulty d\n(operations)")
    legend(figure)
    style.note_left_out(figure, optimum.left_out(table))
    return figure
