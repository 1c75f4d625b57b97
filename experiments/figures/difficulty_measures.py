"""Pass rate of the base over each measure of a problem's difficulty: a curve that falls from
left to right calls hard what the base fails at. Points are means of equal numbers of problems (of
each level, where few values are taken), bars their 90% intervals; bands are the standard deviation
between problems, narrow where the measure says nearly all.

The paper's figure 1 is the panel of the solution's length. Titles give Spearman's rank correlation
over single problems, with its 90% interval.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from experiments.figures import style
from experiments.llm.difficulty.agreement import pass_rate_over, present, rank_correlations
from experiments.llm.difficulty.scales import MEASURES, Measure, of_columns, scale

TITLE = "Measures of difficulty against each other"
TABLES = ("measures",)
TITLES: dict[Measure, str] = {
    "cot_tokens": "Length of the solution",
    "perplexity": "Loss on the solution",
    "op": "Stated difficulty",
}
"""Title of each panel, in their order: the paper's measure first. Columns of the data follow."""
COLOUR = style.colour(0, 3)
SHADE = 0.13
UPRIGHT = {"marker": "|", "markersize": 14, "markeredgewidth": 1.6}
HANDLES = [
    style.key("mean of a bin\nof problems", color=COLOUR, marker="o"),
    style.key("its 90% interval", color=COLOUR, linestyle="none", **UPRIGHT),
    Patch(color=COLOUR, alpha=SHADE, label="± standard deviation\nbetween problems"),
]
LOGARITHMIC = 4.0
"""Ratio of the last bin's centre to the first's from which the axis is logarithmic."""


def _shown(name: Measure, centres: np.ndarray) -> tuple[np.ndarray, str]:
    """Values of a measure as they are drawn, and the label of their axis.

    Of the perplexity its logarithm, the loss: perplexities of what a base knows are all near 1.
    """
    if name == "perplexity":
        return np.log(centres), "loss per solution token (nats)"
    return centres, scale(name).label


def _title(name: Measure) -> str:
    """Title of a measure's panel."""
    made = of_columns(name)
    if made is None:
        return TITLES[name]
    if made.kind == "rasch":
        return f"Passes of {len(made.columns)} models"
    return made.columns[0] if made.kind == "column" else f"{made.columns[0]} of {made.trials}"


def _direction(name: Measure) -> str:
    """Side of the harder problems in words; nothing for a column, as the table does not say."""
    known = scale(name).hard_is_high
    return "" if known is None else "  harder →" if known else "  ← harder"


def _value_axis(axis: Axes, centres: list[float], *, is_linear: bool, is_whole: bool) -> None:
    """Plain numbers, few of them; logarithmic where the measure spans octaves."""
    if not (is_linear or is_whole) and centres[0] > 0 and centres[-1] / centres[0] >= LOGARITHMIC:
        base = 10 if centres[-1] / centres[0] > 1000 else 2
        axis.set_xscale("log", base=base)
        axis.xaxis.set_major_locator(LogLocator(base=base, numticks=7))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=is_whole))


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """One panel per measure that is there.

    Raises:
      ValueError: if the table has no pass rates that differ, or nothing to set against them.
    """
    table = tables["measures"]
    there = present(table)
    others = [name for name in there if name not in MEASURES]
    names: list[Measure] = [*(name for name in TITLES if name in there), *others]
    titles = [*map(_title, names)]
    if "pass_rate" not in there or not names:
        raise ValueError(
            f"table measures: the figure needs the measure pass_rate and one of "
            f"{[*TITLES, 'column:NAME']}, each with more than one value; those are {there}"
        )
    figure, axes = style.panel_grid(titles, width=3.7)
    for axis, name, title in zip(axes, names, titles, strict=True):
        bins = pass_rate_over(table, name)
        centres, label = _shown(name, bins["centre"].to_numpy())
        axis.fill_between(
            centres,
            (bins["mean"] - bins["deviation"]).clip(lower=0.0),
            (bins["mean"] + bins["deviation"]).clip(upper=1.0),
            color=COLOUR,
            alpha=SHADE,
            linewidth=0,
        )
        axis.errorbar(
            centres,
            bins["mean"],
            yerr=[bins["mean"] - bins["low"], bins["high"] - bins["mean"]],
            color=COLOUR,
            marker="o",
            elinewidth=1.6,
            capsize=4,
        )
        both = rank_correlations(table.loc[:, [name, "pass_rate"]]).set_index("statistic")
        value, low, high = both.loc["spearman", ["value", "low", "high"]]
        # The minus sign of the type, which is as wide as the plus.
        text = f"Spearman {value:+.2f} [{low:+.2f}, {high:+.2f}]".replace("-", "−")
        axis.set_title(f"{title}\n{text}")
        axis.set_xlabel(f"{label}{_direction(name)}")
        axis.set_ylim(-0.03, 1.03)
        style.percent_axis(axis)
        is_share = name not in MEASURES and centres[-1] <= 1
        _value_axis(axis, centres.tolist(), is_linear=is_share, is_whole=name == "op")
    axes[0].set_ylabel("pass rate of the base\n(share of samples)")
    style.side_legend(figure, HANDLES)
    rates = table.loc[table["pass_rate"].notna(), "samples"]
    figure.suptitle(
        f"{len(rates):,} problems, {_range(rates)} samples of the base each", fontsize=10
    )
    return figure


def _range(samples: pd.Series) -> str:
    fewest, most = int(samples.min()), int(samples.max())
    return str(most) if fewest == most else f"{fewest} to {most}"
