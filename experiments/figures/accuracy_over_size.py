"""Test accuracy over the number of training examples n, one line for each training difficulty.
Bars are 90% intervals over bases; the grey line is the base before fine-tuning. The paper claims
that accuracy saturates logarithmically.

Claim 3 of the paper, second half.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from experiments.analysis import optimum
from experiments.figures import style

TITLE = "Test accuracy over the amount of data"
TABLES = ("table",)


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """One line per difficulty, one panel per study."""
    table = tables["table"]
    studies = optimum.studies(table)
    figure, axes = style.panels([study.title for study in studies])
    lines: dict[int, ErrorbarContainer] = {}
    for axis, study in zip(axes[0], studies, strict=True):
        # The base: a grey band and line across the panel.
        base = optimum.mean_interval(table, study.untrained, "test_risk").iloc[0]
        axis.axhspan(1 - base["high"], 1 - base["low"], color="grey", alpha=0.2, linewidth=0)
        base_line = axis.axhline(
            1 - base["mean"], color="grey", linewidth=1.4, label="base, not\nfine-tuned"
        )
        # A line with bars for each difficulty.
        cells = optimum.mean_interval(table, study, "test_risk")
        levels = np.unique(cells["difficulty"].to_numpy())
        for position, difficulty in enumerate(levels):
            line = cells.loc[cells["difficulty"] == difficulty]
            # A sideways step of a few percent keeps the bars of neighbouring lines apart.
            step = 1.05 ** (position - (len(levels) - 1) / 2)
            lines[difficulty] = axis.errorbar(
                line["data_size"] * step,
                1 - line["mean"],
                yerr=[line["high"] - line["mean"], line["mean"] - line["low"]],
                capsize=2,
                elinewidth=1.0,
                label=f"d = {difficulty}",
                **style.look(position, len(levels)),
            )
        style.size_axis(axis, sorted(cells["data_size"].unique()))
        style.percent_axis(axis)
    style.outer_labels(axes, style.SIZE_LABEL, style.ACCURACY_LABEL)
    bars = style.band_key(f"bars, band:\n{style.BAND_LABEL}")
    handles = [*(lines[level] for level in sorted(lines, reverse=True)), base_line, bars]
    style.side_legend(figure, handles, "training difficulty d")
    style.note_left_out(figure, optimum.left_out(table))
    return figure
