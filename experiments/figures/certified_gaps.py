"""Test risk as the bound of each predictor takes it apart (right bar of each pair) and as measured
(left bar): risk on its own sample, what is added for the training mixture (generalization) and what
is added for the test mixture (extrapolation, whatever the risks of the levels are, which needs no
further data). The claim of the paper is that the second piece grows with difficulty and shrinks
with n while the third shrinks with difficulty.

The smallest and the largest n are shown. The certified third piece is the smallest of the
unconditional maps of `theory.shift`: where training is easier than the test, the map that assumes
that risk rises with difficulty is looser.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from experiments.figures import style

TITLE = "The two gaps, certified and measured"
TABLES = ("certificates",)
PIECES = ("on its own sample", "+ generalization", "+ extrapolation")
WIDTH = 0.38


def pieces(cells: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Means over members, by difficulty: the measured pieces, and those of the bounds."""
    ends = {
        "measured": ("empirical_risk", "gibbs_risk", "test_risk"),
        "certified": ("empirical_risk", "risk_bound", "test_bound_unconditional"),
    }
    split = {}
    for kind, names in ends.items():
        means = cells.pivot_table(list(names), "difficulty").loc[:, list(names)]
        steps = np.diff(means.to_numpy(), axis=1, prepend=0.0)
        split[kind] = pd.DataFrame(steps, means.index, pd.Index(PIECES))
    return split["measured"], split["certified"]


def _shown(methods: list[str]) -> list[str]:
    """A column for a predictor that is not trained by its bound, and one for a posterior that is.

    Where there is neither, the first method.
    """
    points = ("base", "checkpoint", "test-set", "held-out", "candidates")
    blocks = [name for name in methods if name not in points]
    shown = [name for name in ("candidates", "test-set") if name in methods][:1] + blocks[:1]
    return shown or methods[:1]


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Stacked bars over difficulty: rows for the smallest and largest n, columns for predictors."""
    certificates = tables["certificates"]
    shown = _shown(list(certificates["method"].unique()))
    levels = sorted(certificates["difficulty"].unique())
    sizes = sorted(certificates["data_size"].unique())
    sizes = list(dict.fromkeys((sizes[0], sizes[-1])))
    figure, axes = style.panels(shown, rows=len(sizes), width=3.9, height=2.8)
    for column, method in enumerate(shown):
        for row, size in enumerate(sizes):
            chosen = (certificates["method"] == method) & (certificates["data_size"] == size)
            _panel(axes[row, column], certificates.loc[chosen], levels)
            style.corner_label(axes[row, column], f"n = {size}")
    style.outer_labels(axes, style.difficulty_label(certificates), style.RISK_LABEL)
    handles = [
        *(
            Patch(color=style.colour(position, len(PIECES)), label=name)
            for position, name in enumerate(PIECES)
        ),
        Patch(facecolor="white", edgecolor="grey", label="left: measured"),
        Patch(facecolor="white", edgecolor=style.INK, linewidth=1.5, label="right: certified"),
    ]
    style.side_legend(figure, handles)
    style.ledger_title(figure, certificates)
    return figure


def _panel(axis: Axes, cells: pd.DataFrame, levels: list[int]) -> None:
    """Draw the pairs of bars of one predictor at one n; `levels` are those of the whole table."""
    # Panels share their axis, and not every predictor has every level.
    for side, split in zip((-0.5, 0.5), pieces(cells), strict=True):
        places = np.array([levels.index(level) for level in split.index])
        bottom = np.zeros(len(split))
        for position, name in enumerate(PIECES):
            axis.bar(
                places + side * (WIDTH + 0.03),
                split[name],
                WIDTH,
                bottom=bottom,
                color=style.colour(position, len(PIECES)),
                edgecolor="white" if side < 0 else style.INK,
                linewidth=0.9,
                gid=name,
            )
            bottom = bottom + split[name].to_numpy()
    axis.set_xticks(range(len(levels)), [str(level) for level in levels])
    axis.grid(visible=False, axis="x")
    axis.set_ylim(0, 1.05)
