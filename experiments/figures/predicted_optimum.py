"""The best difficulty predicted from a pilot with few data (frames), and the one measured later at
those data sizes (diamonds), with 90% bootstrap intervals. A diamond inside a frame: the prediction
was right. The pilot of a prediction ends where the legend says, at a quarter or less of the data
size that the prediction is for. A hollow diamond lies at the grid's edge (censored).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from experiments.figures import style

TITLE = "Predicted and measured best difficulty"
TABLES = ("prediction",)
COLUMNS = 3
DIAMOND: dict[str, Any] = {"marker": "D", "markersize": 8, "markeredgecolor": style.INK}
ABSTAINED: dict[str, Any] = {"marker": "x", "markersize": 12}


def _frames(ends: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Look of the predictions from each pilot; each frame encloses the one of a smaller pilot.

    Args:
      ends: largest data size of each pilot, increasing.
    """
    return {
        end: {
            "marker": ("s", "o", "h")[position % 3],
            "markersize": 15 + 6 * position,
            "markeredgewidth": 2.2,
            "markeredgecolor": style.colour(position, len(ends)),
            "color": "none",
        }
        for position, end in enumerate(ends)
    }


def _interval(axis: Axes, row: dict[str, Any], x: float, colour: Any) -> None:
    """Draw the interval of one best difficulty at x."""
    low, high = row["best_difficulty"] - row["low"], row["high"] - row["best_difficulty"]
    axis.errorbar(
        x,
        row["best_difficulty"],
        yerr=[[low], [high]],
        fmt="none",
        ecolor=colour,
        elinewidth=1.8,
        capsize=4,
        zorder=3,
    )


def _panel(axis: Axes, panel: pd.DataFrame, frames: dict[int, dict[str, Any]]) -> None:
    """Draw the measured and the predicted optima of one run and study."""
    measured = panel.loc[panel["kind"] == "measured"]
    axis.plot(measured["data_size"], measured["best_difficulty"], color=style.INK, zorder=1)
    for row in measured.to_dict("records"):
        face = "white" if row["censored"] else style.INK
        axis.plot(
            row["data_size"], row["best_difficulty"], markerfacecolor=face, zorder=4, **DIAMOND
        )
        _interval(axis, row, row["data_size"], style.INK)
    for row in panel.loc[panel["kind"] == "predicted"].to_dict("records"):
        frame = frames[row["fitted_up_to"]] | (ABSTAINED if row["abstains"] else {})
        axis.plot(row["data_size"], row["best_difficulty"], zorder=5, **frame)
        if row["low"] < row["high"]:
            # At the edge of the frame, beside the interval of the measured optimum.
            beside = row["data_size"] * 2.0 ** (0.3 * (1 + list(frames).index(row["fitted_up_to"])))
            _interval(axis, row, beside, frame["markeredgecolor"])
    levels = [int(level) for level in panel["levels"].iloc[0].split()]
    margin = (levels[-1] - levels[0]) / 7 or 1.0
    axis.set_ylim(levels[0] - margin, levels[-1] + margin)
    axis.yaxis.set_major_locator(FixedLocator(levels))
    style.size_axis(axis, measured["data_size"].tolist())
    axis.set_xlim(min(measured["data_size"]) / 1.8, max(measured["data_size"]) * 2.4)


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """One panel per run and study, in rows of `COLUMNS`."""
    table = tables["prediction"]
    is_predicted = table["kind"] == "predicted"
    frames = _frames(sorted(set(table.loc[is_predicted, "fitted_up_to"])))
    panels = [
        (f"{study}\n{run}", table.loc[(table["run"] == run) & (table["study"] == study)])
        for run, study in dict.fromkeys(zip(table["run"], table["study"], strict=True))
    ]
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(3.5 * columns + 2.2, 3.0 * rows + 0.4))
    axes = figure.subplots(rows, columns, squeeze=False)
    for position, (axis, (title, panel)) in enumerate(zip(axes.flat, panels, strict=False)):
        axis.set_title(title)
        _panel(axis, panel, frames)
        if position + columns < len(panels):
            axis.set_xlabel("")
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel("best training difficulty d\n(operations)")
    style.side_legend(figure, _keys(table, frames))
    return figure


def _keys(table: pd.DataFrame, frames: dict[int, dict[str, Any]]) -> list[Line2D]:
    """Entries of the legend, of marks that occur in the table alone."""
    predicted = table.loc[table["kind"] == "predicted"]
    ink: dict[str, Any] = {"color": "none", "markeredgecolor": style.INK}
    upright = {"marker": "|", "markersize": 14, "markeredgewidth": 1.8, "linestyle": "none"}
    entries: dict[str, dict[str, Any]] = {
        "measured": {"color": style.INK, "markerfacecolor": style.INK} | DIAMOND,
    }
    entries |= {
        f"predicted\nfrom n ≤ {end}": frame | {"markersize": 12} for end, frame in frames.items()
    }
    if any(predicted["abstains"]):
        entries["predicted, but\nnot recommended"] = ABSTAINED | ink | {"markeredgewidth": 2.2}
    if any(table.loc[table["kind"] == "measured", "censored"]):
        entries["measured, at the\ngrid's edge"] = DIAMOND | ink | {"markerfacecolor": "white"}
    entries[style.BAND_LABEL] = upright | {"color": style.INK}
    return [style.key(label, **look) for label, look in entries.items()]
