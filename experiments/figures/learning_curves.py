"""Test accuracy over the number of training examples for each training difficulty: measured in the
pilot (points with 90% intervals), and predicted at the budget (open points, dashed lines). The
recommended difficulty is drawn thick.

The table is `experiments.analysis.curves.learning_curves`; ``recommend --figures`` draws it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures import style

TITLE = "Learning curves of each difficulty, up to the budget"
TABLES = ("curves",)
ASIDE = 0.03
"""Distance between the bars of neighbouring levels, in doublings of the data."""


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """One panel a study, one line a level."""
    table = tables["curves"]
    studies = list(dict.fromkeys(table["study"]))
    figure, axes = style.panel_grid(studies, width=4.6, height=3.6)
    levels = sorted(set(table["difficulty"]))
    handles = []
    for axis, study in zip(axes, studies, strict=True):
        handles = _draw(axis, table.loc[table["study"] == study], levels)
    predicted = {"color": "grey", "marker": "o", "markerfacecolor": "white", "linestyle": "--"}
    handles.append(style.key("predicted at the budget", **predicted))
    if bool(table["is_recommended"].any()):
        handles.append(style.key("recommended", color="grey", linewidth=4.0))
    style.side_legend(figure, handles, "training difficulty d")
    return figure


def _draw(axis: Axes, rows: pd.DataFrame, levels: list[int]) -> list[Any]:
    """Draw the curves of one study; return their keys for the legend."""
    handles = []
    for position, level in enumerate(levels):
        own = rows.loc[rows["difficulty"] == level].sort_values(["data_size", "kind"])
        look: dict[str, Any] = style.look(position, len(levels)) | {"linestyle": "-"}
        handles.append(style.key(str(level), **look))
        thick = 3.0 if bool(own["is_recommended"].any()) else 1.0
        # Moved aside by a little, so that the bars of other levels stay visible.
        factor = 2 ** (ASIDE * (position - (len(levels) - 1) / 2))
        measured = own.loc[own["kind"] == "measured"]
        ahead = pd.concat([measured.tail(1), own.loc[own["kind"] == "predicted"]])
        solid: dict[str, Any] = look | {"lw": thick}
        axis.plot(factor * measured["data_size"], measured["accuracy"], **solid)
        dashed: dict[str, Any] = look | {"linestyle": "--", "lw": thick, "marker": ""}
        axis.plot(factor * ahead["data_size"], ahead["accuracy"], **dashed)
        open_point: dict[str, Any] = look | {"markerfacecolor": "white", "linestyle": "none"}
        axis.plot(factor * ahead["data_size"].iloc[1:], ahead["accuracy"].iloc[1:], **open_point)
        axis.vlines(
            factor * own["data_size"], own["low"], own["high"], color=look["color"], lw=thick / 2
        )
    style.size_axis(axis, np.unique(rows["data_size"]).tolist())
    style.percent_axis(axis)
    axis.set_xlabel(style.SIZE_LABEL)
    axis.set_ylabel(style.ACCURACY_LABEL)
    return handles
