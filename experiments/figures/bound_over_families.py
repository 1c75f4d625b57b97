"""Total bounds on the test risk over the measured test risk of the same predictor, as in the figure
of one run, for several task families: the levels 1 to d, at the smallest and the largest number of
examples. Stars are least values; hollow points of the monotone bound are levels where measured
risks contradict its assumption.

Levels of different families are not comparable.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis import certified
from experiments.figures import bound_over_curve, style

TITLE = "The bound over the measured curve, by family"
TABLES = ("totals",)


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """A column for each family; the smallest n above, the largest below."""
    table = tables["totals"]
    families = list(dict.fromkeys(table["family"]))
    figure = Figure(figsize=(2.9 * len(families) + 2.2, 6.2))
    axes = figure.subplots(2, len(families), sharex="col", sharey=True, squeeze=False)
    for column, family in enumerate(families):
        own = table.loc[table["family"] == family]
        curves, least = certified.curves(own), certified.minima(own)
        sizes = sorted(own["data_size"].unique())
        for row, n in enumerate((sizes[0], sizes[-1])):
            axis = axes[row, column]
            chosen = (each.loc[each["data_size"] == n] for each in (curves, least))
            cells, lowest = chosen
            bound_over_curve.draw_panel(axis, cells.sort_values("difficulty"), lowest)
            axis.set_xticks(cells["difficulty"].tolist())
            axis.annotate(
                f"n = {n:,}", (0.03, 0.04), xycoords="axes fraction", weight="bold", fontsize=9
            )
        axes[0, column].set_title(family)
    style.outer_labels(axes, "training difficulty d\n(levels 1..d)", "test risk (0–1 loss)")
    style.side_legend(figure, bound_over_curve.handles())
    figure.suptitle(
        "in each family all bounds hold at once with probability 0.95 "
        f"(in all {len(families)} with at least {1 - 0.05 * len(families):.2f})",
        fontsize=9,
    )
    return figure
