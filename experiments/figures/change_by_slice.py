"""Effect of fine-tuning by test level: accuracy minus that of the base on the same test slice,
for the easiest, a middle and the hardest training difficulty. Bands are paired 90% intervals
over bases; below the zero line fine-tuning has made the model worse.

Claim 5 of the paper (its figure 6): easy training lifts the easy slices only; hard training at
small n may lower all.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from experiments.analysis import optimum
from experiments.figures import style

TITLE = "What fine-tuning changes, by test level"
TABLES = ("table",)


def _change(table: pd.DataFrame, study: optimum.Study) -> pd.DataFrame:
    """Change of risk by slice: the columns of `mean_interval` and slice."""
    rows = optimum.study_rows(table, study)
    slices = sorted(rows.loc[rows["metric"] == "risk", "slice"].dropna().unique())
    changes = {
        level: optimum.mean_interval(table, study, "risk", test_slice=level, minus_base=True)
        for level in map(int, slices)
    }
    return pd.concat(changes).reset_index(0, names="slice")


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Lines for three difficulties; smallest n above, largest below, one column per study."""
    table = tables["table"]
    studies = optimum.studies(table)
    figure, axes = style.panels([study.title for study in studies], rows=2, height=2.7)
    handles: dict[int, Line2D] = {}
    for column, study in enumerate(studies):
        change = _change(table, study)
        levels = sorted(change["difficulty"].unique())
        # A grid of one or two levels has no middle one apart from its ends.
        shown = sorted({levels[0], levels[len(levels) // 2], levels[-1]})
        sizes = sorted(change["data_size"].unique())
        for row, n in enumerate((sizes[0], sizes[-1])):
            axis = axes[row, column]
            axis.axhline(0.0, color=style.INK, linewidth=1.0)
            axis.set_title("\n".join([study.title] * (row == 0) + [f"n = {n}"]))
            for position, difficulty in enumerate(shown):
                is_line = (change["data_size"] == n) & (change["difficulty"] == difficulty)
                line = change.loc[is_line]
                look = style.look(position, len(shown)) | {"markersize": 4.5}
                slices, colour = line["slice"], look["color"]
                low, high = -line["high"], -line["low"]
                axis.fill_between(slices, low, high, color=colour, alpha=0.2, linewidth=0)
                (handles[difficulty],) = axis.plot(
                    slices, -line["mean"], label=f"d = {difficulty}", **look
                )
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=""))
    style.outer_labels(axes, "test difficulty (level)", "change of accuracy\n(points)")
    legend: list[Artist] = [handles[difficulty] for difficulty in sorted(handles)]
    legend.append(style.key("base (no change)", color=style.INK, linewidth=1.0))
    legend.append(style.band_key(f"{style.BAND_LABEL}, paired"))
    style.side_legend(figure, legend, "training difficulty d")
    style.note_left_out(figure, optimum.left_out(table))
    return figure
