"""Certified risk bounds (filled markers) over the measured risk of the same predictor (hollow) and
the risk of the plainly fine-tuned member (black), on fresh draws of the training mixture. Upper
row: half of the sample is held out (all of it, for a checkpoint that was made from other data), so
that every certificate is close to the test-set bound. Lower row: the prior stands at the base (or
at that checkpoint) and all of the sample trains the posterior. All bounds hold at once with the
probability in the title; means over bases and seeds, bars from lowest to highest.

The bounds come from `sweetspot bound`; how delta was split is in the title and in the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures import style

TITLE = "Certified and measured risk on the training mixture"
TABLES = ("certificates",)
HELD_OUT = ("test-set", "checkpoint", "held-out", "candidates")
"""Methods of the upper row; all others are in the lower one."""
PLAIN: dict[str, Any] = {"color": style.INK, "marker": ".", "linewidth": 2.2}


def _rows(certificates: pd.DataFrame) -> list[list[str]]:
    """Methods of the table for the upper and the lower row; a row without any is left out."""
    names = list(certificates["method"].unique())
    upper = [method for method in HELD_OUT if method in names]
    lower = [method for method in names if method not in upper]
    return [row for row in (upper, lower) if row]


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Risk over data size: a column for each of three levels, rows by what the prior has seen."""
    certificates = tables["certificates"]
    levels = sorted(certificates["difficulty"].unique())
    levels = style.ends_and_middle(levels)
    rows = _rows(certificates)
    names = [method for row in rows for method in row]
    # One look per method, the same in every panel.
    looks = {
        name: style.look(place, len(names)) | {"linestyle": "-"} for place, name in enumerate(names)
    }
    titles = style.level_titles(certificates, levels)
    figure, axes = style.panels(titles, rows=len(rows), width=3.0, height=2.9)
    for row, shown in enumerate(rows):
        for axis, level in zip(axes[row], levels, strict=True):
            style.size_axis(axis, sorted(certificates["data_size"].unique()))
            cells = certificates.loc[certificates["difficulty"] == level]
            _panel(axis, cells, {method: looks[method] for method in shown})
            axis.tick_params(axis="x", labelrotation=60)
            axis.set_ylim(-0.03, 1.03)
            axis.set_xlabel("")
        axes[row, 0].annotate(
            _row_label(certificates, shown),
            (0.97, 0.97),
            xycoords="axes fraction",
            ha="right",
            va="top",
            weight="bold",
            fontsize=8,
        )
    style.outer_labels(axes, "examples n", style.RISK_LABEL)
    # The legend: filled markers for the bounds, and one hollow grey marker for all measured risks.
    handles = [style.key("plain fine-tuning\n(measured)", **PLAIN)]
    handles += [style.key(f"{name}: bound", **look) for name, look in looks.items()]
    hollow = {"color": "grey", "marker": "o", "markerfacecolor": "white", "linestyle": ":"}
    handles.append(style.key("the same predictor,\nmeasured", **hollow))
    style.side_legend(figure, handles)
    style.ledger_title(figure, certificates)
    return figure


def _panel(axis: Axes, cells: pd.DataFrame, looks: Mapping[str, dict[str, Any]]) -> None:
    """Draw the certificates of one difficulty by the methods of one row."""
    plain = cells.pivot_table("plain_risk", "data_size")["plain_risk"]
    axis.plot(plain.index, plain, zorder=3, **PLAIN)
    for method, look in looks.items():
        of_method = cells.loc[cells["method"] == method]
        if of_method.empty:
            continue
        means, low, high = (
            of_method.pivot_table(["risk_bound", "gibbs_risk"], "data_size", aggfunc=each)
            for each in ("mean", "min", "max")
        )
        axis.plot(means.index, means["risk_bound"], zorder=4, **look)
        axis.vlines(means.index, low["risk_bound"], high["risk_bound"], look["color"], lw=1.0)
        hollow = look | {"linestyle": ":", "linewidth": 1.2, "markerfacecolor": "white"}
        axis.plot(means.index, means["gibbs_risk"], zorder=4, **hollow)


def _row_label(certificates: pd.DataFrame, shown: list[str]) -> str:
    """Say which part of the sample the prior of these methods has not seen."""
    if set(shown) <= set(HELD_OUT):
        # A checkpoint that was made from other data leaves all of the sample to test it.
        is_whole = bool(np.all(certificates["num_examples"] == certificates["data_size"]))
        return "all n held out" if is_whole else "n / 2 held out"
    is_checkpoint = certificates["prior"].str.contains("checkpoint").any()
    return f"all n train;\nprior at the {'checkpoint' if is_checkpoint else 'base'}"
