"""The map of the study for each task family: mean test accuracy for each number of training
examples and training difficulty (numbers in percent), with the ridge of interpolated optima and
their 90% intervals over bases. Colours run from each panel's lowest to its highest accuracy,
and levels of different families are not comparable: compare where the ridges go, not their heights.
"""

from __future__ import annotations

from collections.abc import Mapping

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
    """One heat map per family, each with its own levels and colour scale."""
    panels = list(families.family_studies(tables["families"]))
    figure, axes = style.panel_grid([title for title, _, _ in panels], width=4.0, height=3.6)
    for axis, (_, rows, study) in zip(axes, panels, strict=True):
        accuracy_map.draw_panel(axis, rows, study, accuracy_map.accuracy_scale(rows, [study]))
        axis.set_ylabel(style.LEVEL_LABEL)
    colours = ScalarMappable(Normalize(0, 1), "viridis")
    bar = figure.colorbar(colours, ax=axes, label=style.ACCURACY_LABEL, pad=0.02, aspect=40)
    bar.set_ticks([0, 1], labels=["lowest in\nthe panel", "highest in\nthe panel"])
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    accuracy_map.legend(figure, columns=min(3, len(panels)))
    style.note_left_out(figure, families.left_out(tables["families"]))
    return figure
