"""The best training difficulty d* for each number of training examples n, interpolated, with its
90% interval over bases, and its move from the smallest to the largest n. Dots: levels that cannot
be told from the best. Hatched: beyond the grid, not tested; a hollow marker: the optimum may lie
there. The paper claims a move to harder data.

Claim 1 of the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator

from experiments.analysis import optimum
from experiments.analysis.verdicts import verdict
from experiments.figures import style

TITLE = "The best difficulty over the amount of data"
TABLES = ("table",)
ALIKE: dict[str, Any] = {
    "marker": "o",
    "markersize": 5,
    "color": "#8c8c8c",
    "linestyle": "none",
    "zorder": 3,
}


def draw_panel(axis: Axes, table: pd.DataFrame, study: optimum.Study, title: str) -> None:
    """Draw one study's best level over data size, on axes of its own."""
    levels = sorted(optimum.study_rows(table, study)["difficulty"].unique())
    best = optimum.optimum(table, study)
    moved = optimum.shift(table, study)
    signs = moved.move.signs
    unit = " levels" if str(moved.move) != "unknown" else ""
    axis.set_title(
        f"{title}\nmove: {moved.move}{unit}\n"
        + (f"harder in {signs.positive} of {signs.number} {moved.unit}s" if signs.number else "")
    )
    # Hatched: levels beyond the grid.
    margin = (levels[-1] - levels[0]) / 6 or 1.0
    for start, end in ((levels[0], levels[0] - margin), (levels[-1], levels[-1] + margin)):
        axis.axhspan(start, end, facecolor="#f3f3f3", edgecolor="#c4c4c4", hatch="////", lw=0)
        axis.axhline(start, color="#8c8c8c", linewidth=1.0, linestyle="--")
    axis.set_ylim(levels[0] - margin, levels[-1] + margin)
    # The optimum and its interval at each n: a cap at an end, none where it is open.
    axis.plot(best["data_size"], best["position"], color=style.colour(1, 4))
    low, high = (best[end].clip(*axis.get_ylim()) for end in ("low", "high"))
    axis.vlines(best["data_size"], low, high, color=style.INK, linewidth=1.4)
    ends = pd.concat([best["low"], best["high"]]).replace([-np.inf, np.inf], np.nan)
    axis.plot([*best["data_size"]] * 2, ends, "_", color=style.INK, markersize=12)
    for row in best.to_dict("records"):
        alike = row["optimum"].best
        axis.plot([row["data_size"]] * len(alike), alike, **ALIKE)
        axis.plot(
            row["data_size"],
            row["position"],
            marker="D",
            markersize=9,
            markerfacecolor="white" if row["is_open"] else style.colour(1, 4),
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
        style.key("optimum d*", markerfacecolor=style.colour(1, 4), **diamond),
        style.key("it may lie\nbeyond the grid", markerfacecolor="white", **diamond),
        style.key(style.BAND_LABEL, marker="|", markersize=14, **upright),
        style.key("cannot be told\nfrom the best", **ALIKE),
        Patch(facecolor="#f3f3f3", edgecolor="#c4c4c4", hatch="////", label="not tested"),
    ]
    style.side_legend(figure, handles)


def finding(tables: Mapping[str, pd.DataFrame]) -> str:
    """The verdict on each study."""
    table = tables["table"]
    studies = optimum.studies(table)
    said = [verdict(optimum.shift(table, study))[1] for study in studies]
    if len(studies) == 1:
        return said[0]
    return " ".join(f"{study.title}: {each}" for study, each in zip(studies, said, strict=True))


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """The best level over data size, one panel per study."""
    table = tables["table"]
    studies = optimum.studies(table)
    figure, axes = style.panels([study.title for study in studies])
    for axis, study in zip(axes[0], studies, strict=True):
        draw_panel(axis, table, study, study.title)
    unit = style.difficulty_unit(table)
    style.outer_labels(axes, style.SIZE_LABEL, f"best training difficulty d\n({unit})")
    legend(figure)
    style.note_left_out(figure, optimum.left_out(table))
    return figure
