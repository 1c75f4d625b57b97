"""Slack of each certificate: the bound minus the measured risk of the predictor that it is about,
over the number of examples. Zero is perfect. Where a bound says nothing, because it is 1 (hollow),
slack is small only if the predictor is bad.

Means over bases and seeds.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from experiments.figures import style

TITLE = "How loose the certificates are"
TABLES = ("certificates",)
VACUOUS = 1 - 1e-9


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Slack over data size, one panel per difficulty, one line per method."""
    certificates = tables["certificates"]
    names = list(certificates["method"].unique())
    levels = sorted(certificates["difficulty"].unique())
    figure, axes = style.panels(style.level_titles(certificates, levels), width=2.4)
    looks = {name: style.look(place, len(names)) for place, name in enumerate(names)}
    for axis, level in zip(axes[0], levels, strict=True):
        cells = certificates.loc[certificates["difficulty"] == level]
        for method, look in looks.items():
            of_method = cells.loc[cells["method"] == method]
            if of_method.empty:
                continue
            means = of_method.pivot_table(["risk_bound", "gibbs_risk"], "data_size")
            slack = means["risk_bound"] - means["gibbs_risk"]
            axis.plot(slack.index, slack, label=method, **look)
            vacuous = slack[means["risk_bound"] >= VACUOUS]
            hollow = look | {"linestyle": "none", "markerfacecolor": "white"}
            axis.plot(vacuous.index, vacuous, label=method, **hollow)
        style.size_axis(axis, sorted(certificates["data_size"].unique()))
        axis.tick_params(axis="x", labelrotation=60)
    # All panels share this axis, whose top is known once all are drawn.
    axes[0, 0].set_ylim(bottom=0)
    style.outer_labels(axes, "examples n", "certificate − measured risk")
    handles = [style.key(method, **look) for method, look in looks.items()]
    hollow = {"color": "grey", "marker": "o", "markerfacecolor": "white", "linestyle": "none"}
    handles.append(style.key("the bound is 1", **hollow))
    style.side_legend(figure, handles)
    style.ledger_title(figure, certificates)
    return figure
