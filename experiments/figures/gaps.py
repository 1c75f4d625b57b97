"""Test risk in three pieces: train risk, generalization gap, extrapolation gap. Read each group
from left to right: every piece starts where the last one ended, a hatched piece goes down, and
the last one ends at the test risk (diamond, with its 90% interval over bases). The paper claims
that the first gap grows with difficulty and shrinks with n, and that the second shrinks with
difficulty.

Claim 2 of the paper. The smallest, a middle and the largest n are shown.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from experiments.analysis import optimum
from experiments.analysis.statistics import Interval, line_change
from experiments.figures import style

TITLE = "The generalization and the extrapolation gap"
TABLES = ("table",)
PIECES = ("train_risk", *optimum.GAPS)
BAR_WIDTH = 0.22


def finding(tables: Mapping[str, pd.DataFrame]) -> str:
    """Say whether the gaps change with d and n as the paper claims, by a line through each base."""
    table, said = tables["table"], []
    for study in optimum.studies(table):
        gaps = {name: optimum.cube(table, study, name) for name in optimum.GAPS}
        levels, sizes = (
            getattr(gaps[optimum.GAPS[0]], axis) for axis in ("difficulties", "data_sizes")
        )
        if len(levels) < 2 or len(sizes) < 2:
            continue
        first, second = (gaps[name].units for name in optimum.GAPS)
        least, most, hardest = f"{sizes[0]:,}", f"{sizes[-1]:,}", levels[-1]
        over_d, over_n = (functools.partial(line_change, axis) for axis in (levels, np.log(sizes)))
        changes = (
            (f"the generalization gap at n = {least} grows with d", over_d(first[:, 0]), 1),
            (f"that gap at d = {hardest} shrinks with n", over_n(first[-1]), -1),
            (f"the extrapolation gap at n = {most} shrinks with d", over_d(second[:, -1]), -1),
        )
        words = [_agrees(claim, change, sign) for claim, change, sign in changes]
        said.append(f"{study.title}, {'; '.join(words)}.")
    return " ".join(said)


def _agrees(claim: str, change: Interval, sign: int) -> str:
    """A claim, whether the change has its sign, and the change from the first to the last cell."""
    ends = f"{change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"
    if change.low > 0 or change.high < 0:
        holds = (change.mean > 0) == (sign > 0)
        return f"{'' if holds else 'it is not so that '}{claim} ({ends})"
    return f"it cannot be told whether {claim} ({ends})"


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Waterfalls over difficulty; smallest n above, largest below, a column for each study."""
    table = tables["table"]
    studies = optimum.studies(table)
    shown = {
        study: style.ends_and_middle(optimum.cube(table, study, "test_risk").data_sizes.tolist())
        for study in studies
    }
    rows = max(map(len, shown.values()), default=1)
    figure, axes = style.panels([study.title for study in studies], rows=rows, height=2.6)
    for column, study in enumerate(studies):
        names = (*PIECES, "test_risk")
        frames = {name: optimum.mean_interval(table, study, name) for name in names}
        for row, n in enumerate(shown[study]):
            axis = axes[row, column]
            _waterfalls(axis, {k: part.loc[part["data_size"] == n] for k, part in frames.items()})
            style.corner_label(axis, f"n = {n}")
        for row in range(len(shown[study]), rows):
            axes[row, column].set_visible(False)
    # Room for the label of n above the highest bar; all panels share this axis.
    axes[0, 0].set_ylim(top=1.12 * axes[0, 0].get_ylim()[1])
    style.outer_labels(axes, style.difficulty_label(table), style.RISK_LABEL)
    handles = [
        *(
            Patch(
                color=style.colour(position, len(PIECES)),
                label=("+ " if position else "") + name.replace("_", " "),
            )
            for position, name in enumerate(PIECES)
        ),
        style.key("= test risk, 90% interval", color=style.INK, marker="D", linestyle=":"),
        Patch(facecolor="white", edgecolor=style.INK, hatch="xxx", label="negative piece"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    style.note_left_out(figure, optimum.left_out(table))
    return figure


def _waterfalls(axis: Axes, frames: Mapping[str, pd.DataFrame]) -> None:
    """Draw one group of bars per difficulty; `frames` holds intervals of `PIECES` and test risk."""
    risk = frames["test_risk"]
    places = np.arange(len(risk))
    # The pieces, each on top of the ones before.
    level = np.zeros(len(risk))
    for position, name in enumerate(PIECES):
        piece = frames[name]["mean"].to_numpy()
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
        # A line from the end of this piece to the start of the next one.
        end = x + BAR_WIDTH * 1.5
        axis.hlines(level, x - BAR_WIDTH / 2, end, color=style.INK, linewidth=0.9)
    # Their sum, the test risk, stands at the right of the group.
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
