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

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.figures import style

TABLES = ("certificates",)
HELD_OUT = ("test-set", "checkpoint", "held-out", "candidates")
"""Methods of the upper row; all others are in the lower one."""


def methods(certificates: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Methods of the table for each row."""
    found = list(certificates["method"].unique())
    upper = [method for method in HELD_OUT if method in found]
    return upper, [method for method in found if method not in upper]


@matplotlib.rc_context(style.RC)
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Risk over data size: one column per difficulty, rows by what the prior has seen."""
    certificates = tables["certificates"]
    levels = sorted(certificates["difficulty"].unique())
    sizes = sorted(certificates["data_size"].unique())
    rows = [row for row in methods(certificates) if row]
    titles = style.level_titles(certificates, levels)
    figure, axes = style.panels(titles, rows=len(rows), width=2.4, height=2.9)
    # A checkpoint that was made from other data leaves all of the sample to test it.
    is_whole = bool(np.all(certificates["num_examples"] == certificates["data_size"]))
    held_out = "all n held out" if is_whole else "n / 2 held out"
    prior = "checkpoint" if certificates["prior"].str.contains("checkpoint").any() else "base"
    names = [method for row in rows for method in row]
    handles = {}
    for row, shown in enumerate(rows):
        for column, level in enumerate(levels):
            axis = axes[row, column]
            style.size_axis(axis, sizes)
            cells = certificates.loc[certificates["difficulty"] == level]
            plain = cells.pivot_table("plain_risk", "data_size")["plain_risk"]
            handles["plain fine-tuning\n(measured)"] = axis.plot(
                plain.index, plain, color=style.INK, marker=".", linewidth=2.2, zorder=3
            )[0]
            for method in shown:
                of_method = cells.loc[cells["method"] == method]
                if of_method.empty:
                    continue
                means, low, high = (
                    of_method.pivot_table(["risk_bound", "gibbs_risk"], "data_size", aggfunc=each)
                    for each in ("mean", "min", "max")
                )
                position = names.index(method)
                look = {
                    "color": style.colour(position, len(names)),
                    "marker": style.MARKERS[position],
                }
                handles[f"{method}: bound"] = axis.plot(
                    means.index, means["risk_bound"], **look, zorder=4
                )[0]
                axis.vlines(
                    means.index, low["risk_bound"], high["risk_bound"], look["color"], lw=1.0
                )
                axis.plot(
                    means.index,
                    means["gibbs_risk"],
                    **look,
                    markerfacecolor="white",
                    linestyle=":",
                    linewidth=1.2,
                    zorder=4,
                )
            axis.tick_params(axis="x", labelrotation=60)
            axis.set_ylim(-0.03, 1.03)
            axis.set_xlabel("")
        is_upper = set(shown) <= set(HELD_OUT)
        said = held_out if is_upper else f"all n train;\nprior at the {prior}"
        axes[row, 0].annotate(
            said,
            (0.97, 0.97),
            xycoords="axes fraction",
            ha="right",
            va="top",
            weight="bold",
            fontsize=8,
        )
    style.outer_labels(axes, "examples n", "risk (0–1 loss)")
    hollow = Line2D(
        [],
        [],
        color="grey",
        marker="o",
        markerfacecolor="white",
        linestyle=":",
        label="the same predictor,\nmeasured",
    )
    lines = [Line2D([], [], **_look(handle), label=name) for name, handle in handles.items()]
    style.side_legend(figure, [*lines, hollow])
    style.ledger_title(figure, certificates)
    return figure


def _look(line: Line2D) -> dict:
    return {
        "color": line.get_color(),
        "marker": line.get_marker(),
        "linewidth": line.get_linewidth(),
    }
