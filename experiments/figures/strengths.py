"""The best training difficulty d* over what the untouched bases know, a line for each number of
training examples n. Right: bases that know harder levels. On the dotted line the best level is the
one of which the base gets half right. Bars are 90% intervals over bases.

Claim 6 of the paper: difficulty is relative to the base.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.figures import style

TITLE = "The best difficulty and what the base knows"
TABLES = ("strengths",)


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """One panel; a point for each run and data size."""
    table = tables["strengths"].sort_values("half_level")
    figure = Figure(figsize=(6.4, 3.9))
    axis = figure.subplots()
    sizes = sorted(table["data_size"].unique())
    halves, best = (table[name].to_numpy(dtype=float) for name in ("half_level", "position"))
    ends = np.array([halves.min() - 0.7, halves.max() + 0.7])
    axis.plot(ends, ends, color=style.INK, linestyle=":", linewidth=1.2)
    bottom, top = min(ends[0], best.min()) - 1.5, max(ends[1], best.max()) + 2.0
    handles = []
    for position, n in enumerate(sizes):
        line = table.loc[table["data_size"] == n]
        # Side by side, so that intervals do not hide each other.
        x = line["half_level"] + 0.08 * (position - (len(sizes) - 1) / 2)
        low, high = line["low"].clip(bottom, top), line["high"].clip(bottom, top)
        look = style.look(position, len(sizes))
        axis.vlines(x, low, high, color=look["color"], linewidth=1.3)
        (handle,) = axis.plot(x, line["position"], label=f"n = {n:,}", **look)
        handles.append(handle)
    axis.set_ylim(bottom, top)
    axis.set_xlabel("level of which the bases get half right (operations)")
    axis.set_ylabel("best training difficulty d*\n(operations)")
    handles += [
        style.key("half right", color=style.INK, linestyle=":", linewidth=1.2),
        style.key(style.BAND_LABEL, color=style.INK, marker="|", markersize=12, linestyle="none"),
    ]
    style.side_legend(figure, handles, style.SIZE_LABEL)
    return figure
