"""The map of the study for each task family: mean test accuracy minus that of the untouched base,
in points, for each number of training examples and training difficulty, with the ridge of
interpolated optima and their 90% intervals over bases. One scale of colours for all families;
levels of different families are not comparable: compare where the ridges go, not their heights.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from experiments.analysis import families
from experiments.figures import map as accuracy_map
from experiments.figures import style

TITLE = "The map in each family"
TABLES = ("families",)


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """One heat map per family, each with its own levels, all with one scale of colours."""
    panels = list(families.family_studies(tables["families"]))
    figure, axes = style.panel_grid([title for title, _, _ in panels], width=4.0, height=3.6)
    above = [accuracy_map.accuracies(rows, study, minus_base=True) for _, rows, study in panels]
    scale = Normalize(min(map(np.nanmin, above)), max(map(np.nanmax, above)))
    for axis, (_, rows, study) in zip(axes, panels, strict=True):
        accuracy_map.draw_panel(axis, rows, study, scale, minus_base=True)
        axis.set_ylabel(style.LEVEL_LABEL)
    colours = ScalarMappable(scale, "viridis")
    label = "test accuracy above the untouched base (points)"
    bar = figure.colorbar(colours, ax=axes, label=label, pad=0.02, aspect=40)
    bar.ax.yaxis.set_major_formatter(lambda share, _: f"{round(100 * share, 6):+g}")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    accuracy_map.legend(figure, columns=min(3, len(panels)))
    style.note_left_out(figure, families.left_out(tables["families"]))
    return figure
