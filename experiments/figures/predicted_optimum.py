"""The best difficulty that is recommended from a pilot with few data, over the one measured later
at 4 or more times as many. On the diagonal the two are the same level. Bars are the range of the
recommendation; hollow: the pilot could not tell the levels apart, and nothing is recommended.
Points that would lie on each other are moved aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiments.figures import style

TITLE = "Recommended and measured best difficulty"
TABLES = ("prediction",)
ASIDE = 0.09
"""Distance between points of the same levels, in levels."""


def points(table: pd.DataFrame) -> pd.DataFrame:
    """One row per prediction: its columns, and ``measured``, the best level at its data size."""
    names = ["run", "study", "data_size"]
    measured = table.loc[table["kind"] == "measured", [*names, "best_difficulty"]]
    measured = measured.rename(columns={"best_difficulty": "measured"})
    found = table.loc[table["kind"] == "predicted"].merge(measured, on=names)
    # Aside, in the order of the table, around the level itself.
    alike = found.groupby(["measured", "best_difficulty"])
    place, number = alike.cumcount(), alike["run"].transform("size")
    return found.assign(x=found["measured"] + ASIDE * (place - (number - 1) / 2))


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """One panel; a look for each kind of training mixture."""
    found = points(tables["prediction"])
    figure = Figure(figsize=(7.4, 4.6))
    axis = figure.subplots()
    both = [found[name] for name in ("measured", "best_difficulty", "low", "high")]
    ends = [min(each.min() for each in both) - 1, max(each.max() for each in both) + 1]
    axis.plot(ends, ends, color="grey", linewidth=1.0)
    studies = list(dict.fromkeys(found["study"]))
    handles: list[Line2D] = []
    for position, study in enumerate(studies):
        look: dict[str, Any] = {**style.look(position, len(studies)), "linestyle": "none"}
        own = found.loc[found["study"] == study]
        axis.vlines(own["x"], own["low"], own["high"], color=look["color"], linewidth=1.0)
        for abstains, face in ((False, look["color"]), (True, "white")):
            rows = own.loc[own["abstains"] == abstains]
            shown: dict[str, Any] = {**look, "markerfacecolor": face}
            axis.plot(rows["x"], rows["best_difficulty"], label=study, **shown)
        handles.append(style.key(study, **look))
    for each in (axis.xaxis, axis.yaxis):
        each.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("best difficulty as measured")
    axis.set_ylabel("best difficulty as recommended")
    hollow = {"color": "grey", "marker": "o", "markerfacecolor": "white", "linestyle": "none"}
    handles.append(style.key("not recommended", **hollow))
    handles.append(style.key("the same level", color="grey", linewidth=1.0))
    handles.append(style.key("range", color="grey", marker="|", markersize=12, linestyle="none"))
    style.side_legend(figure, handles, "training data")
    return figure
