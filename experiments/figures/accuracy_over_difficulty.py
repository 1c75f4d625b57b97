"""Change of test accuracy against the untouched base (zero line) over the difficulty of the
training data, one line for each number of training examples n. Bands are 90% intervals, paired over
bases; a star marks the best level, hollow if the optimum may lie beyond the grid. The paper claims
an inverted U.

Claim 3 of the paper, first half. The caption says what to look for, not what was found: it stands
under the figure of every run.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from experiments.analysis import optimum
from experiments.figures import style

TITLE = "Test accuracy over training difficulty"
TABLES = ("table",)


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """One line per data size, one panel per study."""
    table = tables["table"]
    studies = optimum.studies(table)
    figure, axes = style.panels([study.title for study in studies])
    lines: dict[int, Line2D] = {}
    edge_is_best = False
    for axis, study in zip(axes[0], studies, strict=True):
        cells = optimum.mean_interval(table, study, "test_risk", minus_base=True)
        axis.axhline(0.0, color=style.INK, linewidth=1.0)
        best = optimum.optimum(table, study).set_index("data_size")
        sizes = np.unique(cells["data_size"].to_numpy())
        for position, n in enumerate(sizes):
            # The band and the line of this n.
            line = cells.loc[cells["data_size"] == n]
            look = style.look(position, len(sizes))
            levels, colour = line["difficulty"], look["color"]
            low, high = -line["high"], -line["low"]
            axis.fill_between(levels, low, high, color=colour, alpha=0.18, linewidth=0)
            (lines[n],) = axis.plot(levels, -line["mean"], label=f"n = {n}", **look)
            # The star at its best level.
            top = best.loc[n]
            is_censored = bool(top["is_open"])
            edge_is_best |= is_censored
            at_top = line.loc[levels == top["best_difficulty"], "mean"]
            axis.plot(
                top["best_difficulty"],
                -at_top.iloc[0],
                marker="*",
                markersize=17,
                markerfacecolor="white" if is_censored else colour,
                markeredgecolor=style.INK,
                zorder=4,
            )
        axis.xaxis.set_major_locator(FixedLocator(sorted(cells["difficulty"].unique())))
        axis.yaxis.set_major_formatter(lambda value, _: f"{round(100 * value, 6):g}")
    style.outer_labels(axes, style.difficulty_label(table), "change of test accuracy\n(points)")
    # The legend, with the hollow star only where there is one.
    star = {"color": "none", "marker": "*", "markersize": 13, "markeredgecolor": style.INK}
    handles: list[Artist] = [lines[n] for n in sorted(lines, reverse=True)]
    handles.append(style.key("best difficulty", markerfacecolor=style.INK, **star))
    if edge_is_best:
        label = "best, but it may lie\nbeyond the grid"
        handles.append(style.key(label, markerfacecolor="white", **star))
    handles.append(style.key("base (no change)", color=style.INK, linewidth=1.0))
    bands = style.band_key(f"{style.BAND_LABEL}, paired")
    style.side_legend(figure, [*handles, bands], style.SIZE_LABEL)
    style.note_left_out(figure, optimum.left_out(table))
    return figure
