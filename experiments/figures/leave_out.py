"""What leaving out the hardest or the easiest examples does to test accuracy, by the number of
training examples n: the difference to training on all levels, for each share left out. Above the
zero line leaving out helps. Bars are 90% intervals, paired over bases.

Figure 2 of the paper, whose claim 4 is that leaving out hard examples helps at small n and hurts at
large n, and that leaving out easy ones does the reverse. Drawn where a table has the mixtures
``range`` and ``above``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis import optimum
from experiments.analysis.statistics import t_interval
from experiments.figures import style

TITLE = "Leaving out the hardest or the easiest examples"
TABLES = ("table",)


def applies(tables: Mapping[str, pd.DataFrame]) -> bool:
    """Return whether the table has both mixtures."""
    return {"range", "above"} <= set(tables["table"]["train_mixture"])


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Two panels: without the hardest, and without the easiest; a row for each loss.

    Raises:
      ValueError: if the table lacks one of the mixtures.
    """
    table = tables["table"]
    studies = {(study.train_mixture, study.loss): study for study in optimum.studies(table)}
    losses = sorted({loss for _, loss in studies}, key=str, reverse=True)
    if not applies(tables):
        raise ValueError("table: needs the mixtures 'range' and 'above'")
    titles = ("without the hardest", "without the easiest")
    figure, axes = style.panels(titles, rows=len(losses))
    handles = {}
    for row, loss in enumerate(losses):
        kept = {
            mixture: optimum.cube(table, studies[mixture, loss], "test_risk")
            for mixture in ("range", "above")
        }
        # All levels: the range up to the hardest.
        everything = kept["range"].units[-1]
        hardest = int(kept["range"].difficulties[-1])
        for column, mixture in enumerate(("range", "above")):
            axis, cube = axes[row, column], kept[mixture]
            axis.axhline(0.0, color=style.INK, linewidth=1.0)
            left_out = hardest - cube.difficulties if mixture == "range" else cube.difficulties - 1
            shown = np.flatnonzero(left_out > 0)
            # The least left out comes first.
            shown = shown[np.argsort(left_out[shown])]
            for position, level in enumerate(shown):
                gain, low, high = t_interval(everything - cube.units[level])
                share = round(100 * float(left_out[level]) / hardest)
                step = 1.04 ** (position - (len(shown) - 1) / 2)
                key = (column, share)
                handles[key] = axis.errorbar(
                    cube.data_sizes * step,
                    gain,
                    yerr=[gain - low, high - gain],
                    capsize=2,
                    elinewidth=1.0,
                    label=f"{share}% left out",
                    **style.look(position, len(shown)),
                )
            style.size_axis(axis, cube.data_sizes.tolist())
            axis.yaxis.set_major_formatter(lambda value, _: f"{round(100 * value, 6):g}")
            if len(losses) > 1:
                style.corner_label(axis, str(loss).upper())
    style.outer_labels(axes, style.SIZE_LABEL, "change of test accuracy\n(points)")
    for column in (0, 1):
        own = [handle for (place, _), handle in handles.items() if place == column]
        axes[0, column].legend(handles=own[: len(own)], loc="best", fontsize=8)
    style.note_left_out(figure, optimum.left_out(table))
    return figure
