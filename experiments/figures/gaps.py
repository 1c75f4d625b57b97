"""Test risk in three pieces: train risk, generalization gap, extrapolation gap. Read each group
from left to right: every piece starts where the last one ended, a hatched piece goes down, and
the last one ends at the test risk (diamond, with its 90% bootstrap interval). The paper claims
that the first gap grows with difficulty and shrinks with n, and that the second shrinks with
difficulty.

Claim 2 of the paper. The smallest and the largest n are shown.
"""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from experiments.analysis import optimum
from experiments.figures import style

TABLES = ("table",)
PIECES = ("train_risk", *optimum.GAPS)
BAR_WIDTH = 0.22


@matplotlib.rc_context(style.RC)
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Waterfalls over difficulty; smallest n above, largest below, one column per study."""
    table = tables["table"]
    studies = optimum.studies(table)
    figure, axes = style.panels([study.title for study in studies], rows=2, height=2.9)
    for column, study in enumerate(studies):
        frames = {name: optimum.mean_interval(table, study, name) for name in PIECES}
        risks = optimum.mean_interval(table, study, "test_risk")
        sizes = sorted(risks["data_size"].unique())
        for row, n in enumerate((sizes[0], sizes[-1])):
            axis = axes[row, column]
            risk = risks[risks["data_size"] == n]
            places = np.arange(len(risk))
            level = np.zeros(len(risk))
            for position, name in enumerate(PIECES):
                frame = frames[name]
                piece = frame.loc[frame["data_size"] == n, "mean"].to_numpy()
                x = places + BAR_WIDTH * (position - 1.5)
                bars = axis.bar(
                    x,
                    piece,
                    BAR_WIDTH,
                    bottom=level,
                    color=style.colour(position, len(PIECES)),
                    edgecolor="white",
                    linewidth=0.6,
                    gid=name,
                )
                for bar, value in zip(bars, piece, strict=True):
                    bar.set_hatch("xxx" if value < 0 else "")
                level = level + piece
                # From the end of a piece to the start of the next one.
                end = x + BAR_WIDTH * 1.5
                axis.hlines(level, x - BAR_WIDTH / 2, end, color=style.INK, linewidth=0.9)
            axis.errorbar(
                places + BAR_WIDTH * 1.5,
                risk["mean"],
                yerr=[risk["mean"] - risk["low"], risk["high"] - risk["mean"]],
                color=style.INK,
                marker="D",
                markersize=5,
                linestyle=":",
                linewidth=1.2,
                elinewidth=1.4,
                capsize=3,
            )
            axis.set_xticks(places, [f"{level}" for level in risk["difficulty"]])
            axis.grid(visible=False, axis="x")
            axis.axhline(0.0, color=style.INK, linewidth=0.8)
            axis.annotate(
                f"n = {n}", (0.02, 0.97), xycoords="axes fraction", va="top", weight="bold"
            )
    top = axes[0, 0].get_ylim()[1]
    # Room for the label of n above the highest bar.
    axes[0, 0].set_ylim(top=1.12 * top)
    style.outer_labels(axes, style.DIFFICULTY_LABEL, "risk (0–1 loss)")
    names = [name.replace("_", " ") for name in PIECES]
    handles = [
        *(
            Patch(
                color=style.colour(position, len(PIECES)), label=("+ " if position else "") + name
            )
            for position, name in enumerate(names)
        ),
        Line2D(
            [], [], color=style.INK, marker="D", linestyle=":", label="= test risk, 90% interval"
        ),
        Patch(facecolor="white", edgecolor=style.INK, hatch="xxx", label="negative piece"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure
