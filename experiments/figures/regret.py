"""Cost of picking a difficulty by each rule: test risk at its pick minus the least measured
one, on data sizes 4 or more times beyond those it was fitted to. Diamonds are means over tasks
with 90% bootstrap intervals over tasks and bases; ticks are the means of each study. Further left
is better, and 0 is the measured optimum. The best constant is that of the other tasks. What is best
for other bases at that very data size is no rule, but shows how low a regret can be expected.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis.regret_means import average_regret
from experiments.figures import style

TITLE = "What each rule for the difficulty costs"
TABLES = ("regret",)
KINDS = {
    "predictor": ("the rule that is used", style.colour(0, 3)),
    "constant": ("constant of other tasks", style.colour(1, 3)),
    "fit": ("other rules", style.colour(2, 3)),
    "naive": ("naive rules", "white"),
    "oracle": ("knows other bases' answer", "#c0c0c0"),
}
"""Name in the legend and colour of the diamond, by the kind of a rule."""
DIAMOND: dict[str, Any] = {"marker": "D", "markersize": 8, "markeredgecolor": style.INK}
TICK: dict[str, Any] = {"marker": "|", "markersize": 11, "color": "#8c8c8c", "linestyle": "none"}


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """One line per rule, the least regret on top."""
    regrets = tables["regret"]
    means = average_regret(regrets)
    figure = Figure(figsize=(8.6, 0.42 * len(means) + 1.5))
    axis = figure.subplots()
    for place, row in enumerate(means.to_dict("records")):
        own = regrets.loc[regrets["rule"] == row["rule"]]
        ticks = own.groupby(["run", "study"])["regret"].mean().tolist()
        axis.plot(ticks, [place] * len(ticks), gid="study", **TICK)
        _mean(axis, place, row)
    # The rules' names at the left, the predictor's in bold.
    axis.set_yticks(
        range(len(means)), [style.readable(rule, style.MOST_IN_LEGEND) for rule in means["rule"]]
    )
    for label, kind in zip(axis.get_yticklabels(), means["kind"], strict=True):
        label.set_fontweight("bold" if kind == "predictor" else "normal")
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.axvline(0.0, color=style.INK, linewidth=0.8)
    axis.set_xlabel("regret: test risk above that of the best difficulty (0–1 loss)")
    axis.set_ylabel("rule that picks the difficulty")
    axis.annotate(f"mean, {style.BAND_LABEL}", (1.02, 1.02), xycoords="axes fraction")
    handles = [
        style.key(
            f"{name}, mean and {style.BAND_LABEL}", color="none", markerfacecolor=face, **DIAMOND
        )
        for name, face in KINDS.values()
    ]
    handles.append(style.key("one study", **TICK))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _mean(axis: Axes, place: int, row: Mapping[Hashable, Any]) -> None:
    """Draw the mean of one rule with its interval, and write both at the right of the panel."""
    axis.errorbar(
        row["regret"],
        place,
        xerr=[[row["regret"] - row["low"]], [row["high"] - row["regret"]]],
        color=style.INK,
        markerfacecolor=KINDS[row["kind"]][1],
        elinewidth=1.6,
        capsize=5,
        zorder=4,
        **DIAMOND,
    )
    axis.annotate(
        f"{row['regret']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
        (1.02, place),
        xycoords=("axes fraction", "data"),
        va="center",
        weight="bold" if row["kind"] == "predictor" else "normal",
    )
