"""What it costs to pick a difficulty by each rule: test risk at its pick minus the least measured
one, on data sizes 4 or more times beyond those it was fitted to. Diamonds are means over runs,
studies, bases and data sizes with 90% bootstrap intervals over bases; ticks are the means of each
study. Further left is better, and 0 is the measured optimum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.analysis.average import average_regret
from experiments.figures import style

TABLES = ("regret",)
KINDS = {
    "predictor": ("the predictor", style.colour(0, 3)),
    "fit": ("other fits to the pilot", style.colour(2, 3)),
    "naive": ("naive rules", "white"),
}


@matplotlib.rc_context(style.RC)
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """One line per rule, the least regret on top."""
    regrets = tables["regret"]
    means = average_regret(regrets)
    figure = Figure(figsize=(8.6, 0.42 * len(means) + 1.5))
    axis = figure.subplots()
    places = range(len(means))
    for place, row in zip(places, means.to_dict("records"), strict=True):
        own = regrets.loc[regrets["rule"] == row["rule"]]
        ticks = own.groupby(["run", "study"])["regret"].mean().tolist()
        axis.plot(ticks, [place] * len(ticks), "|", color="#8c8c8c", markersize=11, gid="study")
        axis.errorbar(
            row["regret"],
            place,
            xerr=[[row["regret"] - row["low"]], [row["high"] - row["regret"]]],
            color=style.INK,
            marker="D",
            markersize=8,
            markerfacecolor=KINDS[row["kind"]][1],
            markeredgecolor=style.INK,
            elinewidth=1.6,
            capsize=5,
            zorder=4,
        )
        axis.annotate(
            f"{row['regret']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
            (1.02, place),
            xycoords=("axes fraction", "data"),
            va="center",
            weight="bold" if row["kind"] == "predictor" else "normal",
        )
    axis.set_yticks(places, means["rule"].tolist())
    for label, kind in zip(axis.get_yticklabels(), means["kind"], strict=True):
        label.set_fontweight("bold" if kind == "predictor" else "normal")
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.axvline(0.0, color=style.INK, linewidth=0.8)
    axis.set_xlabel("regret: test risk above that of the best difficulty (0–1 loss)")
    axis.set_ylabel("rule that picks the difficulty")
    axis.annotate(f"mean, {style.BAND_LABEL}", (1.02, 1.02), xycoords="axes fraction")
    diamond: dict[str, Any] = {
        "color": "none",
        "marker": "D",
        "markersize": 8,
        "markeredgecolor": style.INK,
    }
    handles = [
        *(
            Line2D(
                [],
                [],
                markerfacecolor=face,
                label=f"{name}, mean and {style.BAND_LABEL}",
                **diamond,
            )
            for name, face in KINDS.values()
        ),
        Line2D(
            [], [], color="#8c8c8c", marker="|", markersize=11, linestyle="none", label="one study"
        ),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure
