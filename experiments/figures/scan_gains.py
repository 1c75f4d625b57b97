"""Test accuracy above the untouched base after fine-tuning a checkpoint, over the number of
training examples, one line for each training difficulty. Bars are 90% intervals over seeds and test
problems; below the grey line fine-tuning does harm.

The table is `experiments.llm.scan.answers.write_answers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis.answers import Answers
from experiments.analysis.studies import Study, studies_of_answers
from experiments.figures import style

TITLE = "Accuracy above the untouched base"
TABLES = ("answers",)


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """One panel a study, one line a level."""
    table = tables["answers"]
    studies = studies_of_answers(table)
    figure, axes = style.panels([study.title for study in studies])
    handles: dict[int, Any] = {}
    for axis, study in zip(axes[0], studies, strict=True):
        gains = Answers.of(table, study).gains()
        axis.axhline(0, color="grey", linewidth=1.4)
        levels = sorted(set(gains["difficulty"]))
        for position, level in enumerate(levels):
            own = gains.loc[gains["difficulty"] == level]
            # Moved aside by a little, so that the bars of other levels stay visible.
            step = 1.05 ** (position - (len(levels) - 1) / 2)
            handles[level] = axis.errorbar(
                own["data_size"] * step,
                100 * own["gain"],
                yerr=100 * abs(own[["low", "high"]].to_numpy().T - own["gain"].to_numpy()),
                capsize=2,
                elinewidth=1.0,
                label=f"d = {level}",
                **style.look(position, len(levels)),
            )
        style.size_axis(axis, sorted(set(gains["data_size"])))
    style.outer_labels(axes, style.SIZE_LABEL, "accuracy above the base (points)")
    base = style.key("base, not\nfine-tuned", color="grey", linewidth=1.4)
    upright: dict[str, Any] = {"marker": "|", "markersize": 14, "linestyle": "none"}
    bars = style.key("90% intervals\nover seeds and\ntest problems", color="grey", **upright)
    style.side_legend(
        figure,
        [*(handles[level] for level in sorted(handles, reverse=True)), base, bars],
        "training difficulty d",
    )
    return figure


def finding(tables: Mapping[str, pd.DataFrame]) -> str:
    """Say of each study where the data help most, and whether that moves to harder data."""
    table = tables["answers"]
    return " ".join(
        _finding(Answers.of(table, study), study) for study in studies_of_answers(table)
    )


def _finding(answers: Answers, study: Study) -> str:
    """The best level at the smallest and the largest data size, and the contrast between them."""
    small, large = int(answers.data_sizes[0]), int(answers.data_sizes[-1])
    gains = answers.gains()
    best = {
        size: int(own.loc[own["gain"].idxmax(), "difficulty"])
        for size, own in gains.groupby("data_size")
    }
    cells = " and ".join(f"d = {best[n]} at n = {n}" for n in dict.fromkeys((small, large)))
    words = f"{study.title[:1].upper()}{study.title[1:]}: best is {cells}."
    if (move := answers.move()) is None:
        return words
    is_clear = move.low > 0 or move.high < 0
    direction = "harder" if move.mean > 0 else "easier"
    says = f"so the balance moves to {direction} data" if is_clear else "so no move can be told"
    points = [f"{100 * value:+.1f}" for value in (move.mean, move.low, move.high)]
    return (
        f"{words} From n = {small} to {large} the hardest level gains {points[0]} points "
        f"[{points[1]}, {points[2]}] on the easiest one, {says}."
    )
