"""The extrapolation gap in two parts, over training difficulty: forward, on test levels harder than
the training mixture, and backward, on easier ones. Below zero the member does better there than on
its own mixture. Bands are 90% intervals over bases.

Claim 2 of the paper, second half: the gap shrinks with difficulty. Which part does?
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis import optimum, slices
from experiments.analysis.statistics import t_interval
from experiments.figures import style

TITLE = "The extrapolation gap in two parts: forgetting and reach"
TABLES = ("table",)
SPLIT_PARTS = ("backward", "forward")
SPLIT = ("exact", "above")
"""Mixtures whose easiest level the table states; one that begins at level 1 has no easier ones."""


def applies(tables: Mapping[str, pd.DataFrame]) -> bool:
    """Return whether the table has a mixture with easier levels below it."""
    return bool({*SPLIT} & {*tables["table"]["train_mixture"]})


def finding(tables: Mapping[str, pd.DataFrame]) -> str:
    """Both parts at the easiest and the hardest level, with the most data."""
    table, said = tables["table"], []
    for study in optimum.studies(table):
        if study.train_mixture not in SPLIT:
            continue
        found = slices.parts(table, study)
        levels = optimum.cube(table, study, "test_risk").difficulties
        for place in sorted({0, len(levels) - 1}):
            back, ahead = (float(np.nanmean(found[name][place, -1])) for name in SPLIT_PARTS)
            said.append(f"at d = {levels[place]} backward {back:+.2f}, forward {ahead:+.2f}")
    return f"with the most data, {'; '.join(said)}."


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """A panel for the smallest, a middle and the largest n; a row for each study.

    Raises:
      ValueError: if the table has no such mixture.
    """
    table = tables["table"]
    studies = [each for each in optimum.studies(table) if each.train_mixture in SPLIT]
    if not studies:
        raise ValueError(f"table: needs one of the mixtures {SPLIT}")
    sizes = [optimum.cube(table, each, "test_risk").data_sizes for each in studies]
    shown = [style.ends_and_middle(own.tolist()) for own in sizes]
    figure, axes = style.panels(
        [""] * max(map(len, shown)), rows=len(studies), width=3.2, height=3.0
    )
    handles = {}
    for row, (study, own) in enumerate(zip(studies, shown, strict=True)):
        found, all_sizes = slices.parts(table, study), sizes[row].tolist()
        levels = optimum.cube(table, study, "test_risk").difficulties
        for column, n in enumerate(own):
            axis, at = axes[row, column], all_sizes.index(n)
            axis.axhline(0.0, color=style.INK, linewidth=1.0)
            title = f"n = {n:,}"
            axis.set_title(title if len(studies) == 1 else f"{study.title}\n{title}")
            for position, name in enumerate(SPLIT_PARTS):
                mean, low, high = t_interval(found[name][:, at])
                look = style.look(position, 2)
                axis.fill_between(levels, low, high, color=look["color"], alpha=0.2, linewidth=0)
                words = {
                    "backward": "backward: test levels\neasier than the mixture",
                    "forward": "forward: test levels\nharder than the mixture",
                }
                (handles[name],) = axis.plot(levels, mean, label=words[name], **look)
            total = np.sum([found[name][:, at] for name in slices.PARTS], axis=0)
            (handles["sum"],) = axis.plot(
                levels,
                t_interval(total)[0],
                color=style.INK,
                linestyle=":",
                linewidth=1.6,
                label="their sum:\nthe extrapolation gap",
            )
    style.outer_labels(axes, style.difficulty_label(table), style.RISK_LABEL)
    style.side_legend(figure, [*handles.values(), style.band_key()])
    style.note_left_out(figure, optimum.left_out(table))
    return figure
