"""Accuracy of the untouched bases by test level: a thin line for each base, a thick one for their
mean. Bases that are good and not perfect fall off gradually; over a cliff there is little to gain.

The regime in which the claims of the paper are tested.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.analysis.settings import half_level
from experiments.analysis.studies import UNTRAINED
from experiments.figures import style

TITLE = "What the untouched bases know"
TABLES = ("table",)


def applies(tables: Mapping[str, pd.DataFrame]) -> bool:
    """Return whether the table has the bases' risk by test level."""
    table = tables["table"]
    return bool(((table["train_mixture"] == UNTRAINED) & (table["metric"] == "risk")).any())


def finding(tables: Mapping[str, pd.DataFrame]) -> str:
    """The level of which the bases get half right."""
    table = tables["table"]
    risks = table.loc[(table["train_mixture"] == UNTRAINED) & (table["metric"] == "risk")]
    accuracy = 1 - risks.groupby("slice")["value"].mean()
    level = half_level(accuracy.to_numpy(dtype=float), accuracy.index.to_numpy(dtype=float))
    if np.isnan(level):
        return "there is no level of which the bases get half right."
    return f"the bases get half of level {level:.1f} right, interpolated."


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """One panel."""
    table = tables["table"]
    chosen = (table["train_mixture"] == UNTRAINED) & (table["metric"] == "risk")
    accuracy = 1 - table.loc[chosen].pivot_table("value", "slice", "base_seed")
    figure = Figure(figsize=(6.4, 3.4))
    axis = figure.subplots()
    for base in accuracy:
        axis.plot(accuracy.index, accuracy[base], color="#9a9a9a", linewidth=0.9)
    axis.plot(
        accuracy.index,
        accuracy.mean(axis=1),
        color=style.INK,
        marker="o",
        markersize=4,
        linewidth=2.2,
    )
    # The levels that members of the run are trained on.
    trained = sorted(table.loc[table["train_mixture"] != UNTRAINED, "difficulty"].unique())
    axis.plot(
        trained,
        [-0.045] * len(trained),
        "^",
        color=style.colour(1, 4),
        markersize=7,
        clip_on=False,
    )
    axis.set_ylim(-0.05, 1.03)
    axis.set_xlabel(f"test difficulty ({style.difficulty_unit(table)})")
    axis.set_ylabel("accuracy of the base")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    style.percent_axis(axis)
    handles = [
        style.key(f"mean of {accuracy.shape[1]} bases", color=style.INK, marker="o", markersize=4),
        style.key("one base", color="#9a9a9a", linewidth=0.9),
        style.key(
            "levels d that members\nare trained on",
            color=style.colour(1, 4),
            marker="^",
            linestyle="none",
        ),
    ]
    style.side_legend(figure, handles)
    return figure
