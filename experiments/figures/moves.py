"""The move of the best training difficulty from the smallest to the largest n, in levels, under
each setting: one thing changed at a time, and other test mixtures. Bars are 90% intervals over
bases; an arrow where the optimum may lie beyond the grid. Right of the zero line: to harder data.

Claim 1 of the paper, and whether it survives its controls.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.figures import style

TITLE = "Does the move of the best difficulty survive?"
TABLES = ("moves",)
MARKS = {"holds": "#000000", "fails": "white", "undecided": "#9a9a9a"}


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """One line per setting, in the order of the table, kinds apart."""
    table = tables["moves"]
    figure = Figure(figsize=(8.6, 0.42 * len(table) + 1.9))
    axis = figure.subplots()
    # A gap between kinds of settings.
    kinds = table["kind"].ne(table["kind"].shift()).cumsum().to_numpy()
    places = -(np.arange(len(table)) + 0.6 * (kinds - 1))
    ends = table[["move", "move_low", "move_high"]].replace([-np.inf, np.inf], np.nan)
    reach = 1.15 * float(np.nanmax(np.abs(ends.to_numpy()), initial=1.0))
    axis.set_xlim(-reach, reach)
    axis.axvline(0.0, color=style.INK, linewidth=1.0)
    for place, row in zip(places, table.to_dict("records"), strict=True):
        low, high = (float(np.clip(row[f"move_{end}"], -reach, reach)) for end in ("low", "high"))
        axis.hlines(place, low, high, color=style.INK, linewidth=1.4)
        for end, mark, limit in ((low, "<", row["move_low"]), (high, ">", row["move_high"])):
            axis.plot(end, place, mark if np.isinf(limit) else "|", color=style.INK, markersize=7)
        axis.plot(
            row["move"],
            place,
            "D",
            markersize=8,
            markerfacecolor=MARKS[row["verdict"]],
            markeredgecolor=style.INK,
        )
        words = f"n = {row['from_size']:,} to {row['to_size']:,}"
        axis.annotate(
            words, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8
        )
    axis.set_yticks(places, table["setting"])
    axis.set_xlabel("move of the best training difficulty d* (levels)")
    axis.grid(visible=False, axis="y")
    diamond = {"color": "none", "marker": "D", "markersize": 8, "markeredgecolor": style.INK}
    handles = [
        *(
            style.key(f"claim 1 {verdict}", markerfacecolor=colour, **diamond)
            for verdict, colour in MARKS.items()
        ),
        style.key(style.BAND_LABEL, color=style.INK, marker="|", linestyle="-"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure
