"""Our iGSM problems against those of the reference generator: one panel per statistic of the text,
over the op count. Squares with bars are means of the reference and their 99.75% intervals, the line
is ours. A ring marks a mean of ours outside the interval: about one in four hundred by chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.figures import style

TITLE = "Our iGSM beside the reference"
TABLES = ("fidelity",)
PANELS = {
    "problem_words": ("words of the problem", "words"),
    "solution_words": ("words of the solution", "words"),
    "sentences": ("sentences", "sentences"),
    "distractors": ("distractors", "sentences"),
    "steps": ("steps of the solution", "steps"),
    "depth": ("longest chain of steps", "steps"),
    "answer_zero": ("answer is 0", "share of problems"),
    "operands": ("quantities in a sentence", "mean number"),
    "constant": ("… equals a number", "share of sentences"),
    "copy": ("… equals another one", "share of sentences"),
    "more": ("… more than", "share of sentences"),
    "times": ("… times as much as", "share of sentences"),
    "sum": ("… the sum of", "share of sentences"),
    "difference": ("… the difference of", "share of sentences"),
}
"""Title and unit of each panel; the number of operations is the op count itself and not drawn."""
REFERENCE, OURS = style.INK, style.colour(1, 3)
RING: dict[str, Any] = {
    "marker": "o",
    "linestyle": "none",
    "markersize": 9,
    "markerfacecolor": "none",
    "markeredgecolor": REFERENCE,
}


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Means over the op count, one panel per statistic."""
    table = tables["fidelity"]
    names = [name for name in PANELS if name in set(table["statistic"])]
    titles = [PANELS[name][0] for name in names]
    figure, axes = style.panel_grid(titles, columns=5, width=2.6, height=2.3)
    for axis, name in zip(axes, names, strict=True):
        part = table.loc[table["statistic"] == name].sort_values("difficulty")
        levels, reference, ours, low, high = (
            part[each].to_numpy() for each in ("difficulty", "reference", "ours", "low", "high")
        )
        axis.vlines(levels, low, high, color=REFERENCE, linewidth=1.2)
        axis.plot(levels, reference, "s", color=REFERENCE, markersize=3.5)
        axis.plot(levels, ours, "-", color=OURS, linewidth=2.2)
        outside = ~part["inside"].to_numpy(bool)
        axis.plot(levels[outside], ours[outside], markeredgewidth=1.5, **RING)
        axis.set_ylim(0, 1.08 * float(np.nanmax([*high, *ours])))
        axis.set_xlabel("op count")
        axis.set_ylabel(PANELS[name][1])
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(4))
        if name == "answer_zero" or PANELS[name][1] == "share of sentences":
            style.percent_axis(axis)
    handles = [
        style.key("reference,\n99.75% interval", color=REFERENCE, marker="s", markersize=4),
        style.key("sweetspot", color=OURS, linewidth=2.2),
        style.key("outside", **RING),
    ]
    style.side_legend(figure, handles)
    theirs, ours = (table[name].to_numpy().min() for name in ("num_reference", "num_ours"))
    figure.suptitle(
        f"{theirs} problems of the reference and {ours:,} of ours at each op count: "
        f"{np.sum(~table['inside'].to_numpy(bool))} of {len(table)} means outside",
        fontsize=10,
    )
    return figure
