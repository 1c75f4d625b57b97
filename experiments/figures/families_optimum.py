"""The best training difficulty for each number of training examples n, one panel per task family,
interpolated, with its 90% interval over bases, and its move from the smallest to the largest n.
Dots: levels that cannot be told from the best. Levels of different families are not comparable.
Hatched: beyond the grid, not tested; a hollow marker: the optimum may lie there.

Claim 1 of the paper, beyond its own task.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis import families
from experiments.figures import optimum_over_size, style

TITLE = "The best difficulty in each family"
TABLES = ("families",)


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """The best level over data size, one panel per family, each with its own levels."""
    panels = list(families.family_studies(tables["families"]))
    figure, axes = style.panel_grid([title for title, _, _ in panels], width=4.0, height=3.4)
    for axis, (title, rows, study) in zip(axes, panels, strict=True):
        optimum_over_size.draw_panel(axis, rows, study, title)
        axis.set_ylabel("best training difficulty d")
    optimum_over_size.legend(figure)
    style.note_left_out(figure, families.left_out(tables["families"]))
    return figure
