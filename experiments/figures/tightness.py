"""Looseness of each certificate: the bound divided by the measured risk of the predictor that it is
about, over the number of examples. One is perfect. Where the predictor made no error on the fresh
draws, the ratio is a lower limit (arrow), taken at one error.

Means over bases and seeds.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from experiments.figures import style

TABLES = ("certificates",)
TICKS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Ratio over data size, one panel per difficulty, one line per method."""
    certificates = tables["certificates"]
    names = list(certificates["method"].unique())
    levels = sorted(certificates["difficulty"].unique())
    figure, axes = style.panels(style.level_titles(certificates, levels), width=2.4)
    looks = {name: style.look(place, len(names)) for place, name in enumerate(names)}
    has_limits = False
    for axis, level in zip(axes[0], levels, strict=True):
        cells = certificates.loc[certificates["difficulty"] == level]
        for method, look in looks.items():
            of_method = cells.loc[cells["method"] == method]
            if of_method.empty:
                continue
            # Divide by the measured risk, or by that of one error in all fresh draws.
            means = of_method.pivot_table(["risk_bound", "gibbs_risk"], "data_size")
            fresh = of_method.pivot_table("num_fresh", "data_size", aggfunc="sum")["num_fresh"]
            risk, least = means["gibbs_risk"], 1 / fresh
            ratio = means["risk_bound"] / np.maximum(risk, least)
            axis.plot(ratio.index, ratio, **look)
            # Arrows where the ratio is a lower limit.
            limits = ratio[risk < least]
            has_limits |= len(limits) > 0
            axis.plot(
                limits.index, 1.25 * limits, "^", color=style.INK, markersize=5, linestyle="none"
            )
        axis.axhline(1.0, color=style.INK, linewidth=1.0)
        style.size_axis(axis, sorted(certificates["data_size"].unique()))
        axis.tick_params(axis="x", labelrotation=60)
    is_wide = axes[0, 0].get_ylim()[1] > TICKS[1]
    for axis in axes[0]:
        if is_wide:
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(FixedLocator(TICKS))
            axis.yaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    style.outer_labels(axes, "examples n", "certificate / measured risk")
    handles = [style.key(method, **look) for method, look in looks.items()]
    if has_limits:
        arrow = {"color": style.INK, "marker": "^", "linestyle": "none"}
        handles.append(style.key("no error seen:\nat least", **arrow))
    style.side_legend(figure, handles)
    style.ledger_title(figure, certificates)
    return figure
