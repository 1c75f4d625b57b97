"""Total bounds on the test risk (lines) over the measured test risk of the same predictor (black),
by training difficulty; the level of each one's least value has a filled marker. The unconditional
bound holds whatever the risks of the levels are; the monotone one if the risk rises with
difficulty, and is hollow where measured risks contradict that; the literal one is the paper's
Proposition 4.1, square-root bound and total variation. All hold at once with the probability in the
title; means over bases.

Uniform on levels 1..d of T, the unconditional bound is 1 − (d/T)(1 − B): the share of the test that
training covers, times the reliability there that the bound B certifies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.analysis import certified
from experiments.figures import style

TITLE = "The bound over the measured curve"
TABLES = ("certificates",)
MOST_SIZES, MOST_METHODS, FEWEST_LEVELS = 4, 2, 3
SHOWN = ("held-out", "gains", "lora", "candidates", "test-set", "subspace", "full")
"""Methods in the order of preference; the first two that the table has are drawn."""
WORDS = {
    "held-out": "prior: tuned on half\nof the sample",
    "gains": "prior: the base;\nposterior over norm gains",
}
LABELS = {
    "unconditional": "bound, unconditional",
    "monotone": "bound, if the risk rises\nwith difficulty",
    "literal": "bound, Proposition 4.1\nas it stands",
}

MEASURED: dict[str, Any] = {"color": style.INK, "marker": "o", "markersize": 4, "linewidth": 3.0}


def applies(tables: Mapping[str, pd.DataFrame]) -> bool:
    """Return whether the table holds all total bounds, at enough levels for a curve."""
    table = tables["certificates"]
    has_all = all(f"{certified.BOUND_COLUMN}{each}" in table for each in certified.VARIANTS)
    return has_all and "train_mixture" in table and len({*table["difficulty"]}) >= FEWEST_LEVELS


def shown_methods(table: pd.DataFrame) -> list[str]:
    """Methods to draw: those of trained predictors; the untouched base if there are none."""
    there = set(table["method"])
    chosen = [name for name in SHOWN if name in there]
    return (chosen or sorted(there))[:MOST_METHODS]


def looks() -> dict[str, dict[str, Any]]:
    """Colour, marker and line of each variant, the same in all figures of total bounds."""
    number = len(certified.VARIANTS)
    return {name: style.look(place, number) for place, name in enumerate(certified.VARIANTS)}


def largest_sizes(sizes: list[int]) -> list[int]:
    """The largest data sizes, increasing: small ones certify next to nothing."""
    return sorted(sizes)[-MOST_SIZES:]


def finding(tables: Mapping[str, pd.DataFrame]) -> str:
    """Count the data sizes at which each least bound is near the least risk."""
    table = tables["certificates"]
    shown = table.loc[table["method"].isin(shown_methods(table))]
    found = certified.agreement(certified.minima(shown))
    said = [
        f"{row['variant']} {row['near']} of {row['pairs']}"
        + (f" ({row['vacuous']} vacuous)" if row["vacuous"] else "")
        for row in found.to_dict("records")
    ]
    return f"least bound within one level of the least risk, from n = 64 on: {'; '.join(said)}."


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """A column for each of the largest data sizes, a row for each of at most two methods."""
    certificates = tables["certificates"]
    table, least = certified.curves(certificates), certified.minima(certificates)
    methods = shown_methods(table)
    sizes = largest_sizes(table["data_size"].unique().tolist())
    figure, axes = style.panels(
        [f"n = {n:,}" for n in sizes], rows=len(methods), width=2.9, height=3.1
    )
    for row, method in enumerate(methods):
        for column, n in enumerate(sizes):
            own, lowest = (
                each.loc[(each["method"] == method) & (each["data_size"] == n)]
                for each in (table, least)
            )
            draw_panel(axes[row, column], own.sort_values("difficulty"), lowest)
    kinds = set(certificates["train_mixture"])
    label = "exactly d" if kinds == {"exact"} else "levels 1..d" if kinds == {"range"} else "d"
    style.outer_labels(axes, f"training difficulty d\n({label})", "")
    for axis, method in zip(axes[:, 0], methods, strict=True):
        axis.set_ylabel(f"{WORDS.get(method, method)}\n\ntest risk (0–1 loss)")
        axis.set_xticks(sorted(table["difficulty"].unique()))
    style.side_legend(figure, handles())
    style.ledger_title(figure, certificates)
    return figure


def handles() -> list[Line2D]:
    """Entries of the legend."""
    star = {"color": "grey", "marker": "*", "markersize": 13, "linestyle": "none"}
    return [
        *(style.key(LABELS[name], **look) for name, look in looks().items()),
        style.key("measured", **MEASURED),
        style.key("least value", **star),
    ]


def draw_panel(axis: Axes, cells: pd.DataFrame, least: pd.DataFrame) -> None:
    """Draw one method at one n: its measured risk, its bounds, and the least of each."""
    levels, risk = cells["difficulty"].to_numpy(), cells["test_risk"].to_numpy()
    axis.plot(levels, risk, zorder=3, **MEASURED)
    axis.plot(levels[risk.argmin()], risk.min(), "*", color=style.INK, markersize=13, zorder=5)
    by_variant = least.set_index("variant")
    for variant, look in looks().items():
        bound = cells[f"{certified.BOUND_COLUMN}{variant}"].to_numpy()
        line: dict[str, Any] = {**look, "marker": "none"}
        axis.plot(levels, bound, zorder=2, **line)
        hollow = cells["contradicted"].to_numpy() > 0.5 if variant == "monotone" else risk < 0
        for chosen, face in ((hollow, "white"), (~hollow, look["color"])):
            mark: dict[str, Any] = {
                **look,
                "linestyle": "none",
                "markersize": 4,
                "markerfacecolor": face,
            }
            axis.plot(levels[chosen], bound[chosen], zorder=3, **mark)
        place = by_variant["certified"][variant]
        if not np.isnan(place):
            height = by_variant["least_bound"][variant]
            axis.plot(place, height, "*", color=look["color"], markersize=13, zorder=5)
    axis.set_ylim(0, 1.05)
