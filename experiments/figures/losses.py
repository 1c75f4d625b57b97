"""Test accuracy after DFT minus that after SFT, over training difficulty, a line for each number of
training examples n. Above the zero line DFT is better. Bands are 90% intervals, paired over bases;
each loss has its own tuned learning rate where the run tunes it.

Claim 7 of the paper: DFT is better at small n on hard data, and worse at large n. Drawn where a
table has both losses.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from experiments.analysis import optimum
from experiments.analysis.statistics import t_interval
from experiments.figures import style

TITLE = "DFT beside SFT"
TABLES = ("table",)


def _pairs(table: pd.DataFrame) -> list[tuple[optimum.Study, optimum.Study]]:
    """Studies by SFT and by DFT that are alike but for the loss."""
    by_loss = {"sft": {}, "dft": {}}
    for study in optimum.studies(table):
        if study.loss in by_loss:
            rest = (study.train_mixture, study.compute, study.data_unit, study.task)
            by_loss[study.loss][rest] = study
    return [
        (own, by_loss["dft"][rest])
        for rest, own in by_loss["sft"].items()
        if rest in by_loss["dft"]
    ]


def applies(tables: Mapping[str, pd.DataFrame]) -> bool:
    """Return whether the table has a study by both losses."""
    return {"sft", "dft"} <= set(tables["table"]["loss"])


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """A panel for each mixture.

    Raises:
      ValueError: if the table does not have both losses.
    """
    table = tables["table"]
    pairs = _pairs(table)
    if not pairs:
        raise ValueError("table: needs members by both losses, 'sft' and 'dft'")
    titles = [f"trained on {sft.train_mixture} d" if len(pairs) > 1 else "" for sft, _ in pairs]
    figure, axes = style.panels(titles)
    handles = {}
    for axis, (sft, dft) in zip(axes[0], pairs, strict=True):
        plain, weighted = (optimum.cube(table, each, "test_risk") for each in (sft, dft))
        axis.axhline(0.0, color=style.INK, linewidth=1.0)
        for position, n in enumerate(plain.data_sizes):
            at = [each.data_sizes.tolist().index(n) for each in (plain, weighted)]
            gain = plain.units[:, at[0]] - weighted.units[:, at[1]]
            mean, low, high = t_interval(gain)
            look = style.look(position, len(plain.data_sizes))
            axis.fill_between(
                plain.difficulties, low, high, color=look["color"], alpha=0.15, linewidth=0
            )
            (handles[n],) = axis.plot(plain.difficulties, mean, label=f"n = {n:,}", **look)
        axis.xaxis.set_major_locator(FixedLocator(plain.difficulties.tolist()))
        axis.yaxis.set_major_formatter(lambda value, _: f"{round(100 * value, 6):g}")
    style.outer_labels(axes, style.difficulty_label(table), "accuracy, DFT minus SFT\n(points)")
    style.side_legend(figure, [*handles.values(), style.band_key()], style.SIZE_LABEL)
    style.note_left_out(figure, optimum.left_out(table))
    return figure
