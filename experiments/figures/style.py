"""Style of all figures: type, colours, markers, axes, panels and legends.

Colours come from viridis, whose order survives printing in grey; markers and line styles repeat
that order, so that no figure depends on colour alone. No figure itself, because it has no `plot`.
"""

from __future__ import annotations

import functools
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, NullLocator

Plot = Callable[[Mapping[str, pd.DataFrame]], Figure]
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")
LINES = ("-", "--", "-.", ":")
MOST_CHARACTERS, MOST_LINES, MOST_IN_LEGEND = 300, 20, 48
"""Of a text in a figure: characters of a line, and lines; characters of a line in a legend."""

INK = "#222222"
SIZE_LABEL = "training examples n"
LEVEL_LABEL = "training difficulty d\n(hardest level)"
UNITS = {
    "addition": "digits",
    "chain": "operations",
    "chain-running": "operations",
    "dyck": "depth",
    "expressions": "operators",
    "group-words": "letters",
    "group-words-cyclic": "letters",
    "igsm": "operations",
    "igsm-terse": "operations",
    "parity": "bits",
    "parity-scratchpad": "bits",
    "pointer": "hops",
}
"""Unit of difficulty, by name of the task."""
ACCURACY_LABEL = "test accuracy (exact match)"
RISK_LABEL = "risk (0–1 loss)"
BAND_LABEL = "90% interval"


def difficulty_unit(table: pd.DataFrame) -> str:
    """Return the unit of difficulty in a table of one task; "level" if it is not known."""
    tasks = set(table["task"]) if "task" in table else set()
    return UNITS.get(tasks.pop(), "level") if len(tasks) == 1 else "level"


def difficulty_label(table: pd.DataFrame) -> str:
    """Label of an axis of training difficulty, with its unit."""
    unit = difficulty_unit(table)
    return LEVEL_LABEL if unit == "level" else f"training difficulty d\n(hardest level, {unit})"


@functools.cache
def settings() -> dict[Any, Any]:
    """Matplotlib's settings under which every figure is drawn and saved."""
    import seaborn  # here, because its import takes a second that only drawing should cost

    return {
        **seaborn.axes_style("ticks"),
        "font.size": 10.0,
        "axes.titlesize": 11.0,
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e3e3e3",
        "grid.linewidth": 0.7,
        "legend.frameon": False,
        "legend.fontsize": 9.0,
        "lines.linewidth": 1.8,
        "lines.markersize": 6.0,
        "hatch.linewidth": 0.8,
        "figure.constrained_layout.use": True,
        "figure.facecolor": "white",
        # Names in a table are no formulas: a dollar sign is a dollar sign.
        "text.parse_math": False,
        # A fixed salt gives the elements of an SVG the same names in every run.
        "svg.hashsalt": "sweetspot",
    }


def styled(plot: Plot) -> Plot:
    """Decorator of every figure's `plot`, which then runs under `settings`."""

    @functools.wraps(plot)
    def plot_with_settings(tables: Mapping[str, pd.DataFrame]) -> Figure:
        with matplotlib.rc_context(settings()):
            figure = plot(tables)
        for text in figure.findobj(Text):
            text.set_text(readable(text.get_text()))  # pyright: ignore[reportAttributeAccessIssue]
        for text in (text for legend in figure.legends for text in legend.get_texts()):
            text.set_text(readable(text.get_text(), MOST_IN_LEGEND))
        return figure

    return plot_with_settings


def readable(text: str, most: int = MOST_CHARACTERS) -> str:
    """Text from a table as a figure shows it: in few lines, none long, and all printable.

    Args:
      text: the text.
      most: characters of a line.
    """
    lines = text.split("\n")
    cut = [*lines[:MOST_LINES], "…"] if len(lines) > MOST_LINES else lines
    shown = [line if len(line) <= most else f"{line[:most]}…" for line in cut]
    printable = ("".join(c if c.isprintable() else "?" for c in line) for line in shown)
    return "\n".join(printable)


def colour(position: int, number: int) -> tuple[float, float, float, float]:
    """Colour of an ordered series: dark is small or easy; the palest yellow is left out."""
    return matplotlib.colormaps["viridis"](0.85 * position / max(number - 1, 1))


def look(position: int, number: int) -> dict[str, Any]:
    """Colour, marker and line style of one line among `number` ordered ones."""
    return {
        "color": colour(position, number),
        "marker": MARKERS[position % len(MARKERS)],
        "linestyle": LINES[position % len(LINES)],
    }


def key(label: str, **properties: Any) -> Line2D:
    """Entry of a legend for a line or a marker, with properties of `Line2D`."""
    return Line2D([], [], label=label, **properties)


def band_key(label: str = BAND_LABEL) -> Patch:
    """Entry of a legend for the shaded bands of any colour."""
    return Patch(color="grey", alpha=0.3, label=label)


def panels(
    titles: Sequence[str], *, rows: int = 1, width: float = 4.2, height: float = 3.6
) -> tuple[Figure, np.ndarray]:
    """Make a figure with one titled column per study and shared axes.

    Args:
      titles: one per column.
      rows: panels in a column.
      width, height: of a panel, inches.

    Returns:
      The figure and its axes [row, column].

    Raises:
      ValueError: if there is no title.
    """
    if not titles:
        raise ValueError("table: no member has finished, so there is nothing to draw")
    # 2 inches for a legend at the right, whatever the number of panels.
    figure = Figure(figsize=(width * len(titles) + 2.0, height * rows + 0.4))
    axes = figure.subplots(rows, len(titles), sharex=True, sharey=True, squeeze=False)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    return figure, axes


def panel_grid(
    titles: Sequence[str], *, columns: int = 3, width: float = 4.2, height: float = 3.6
) -> tuple[Figure, list[Axes]]:
    """Make a figure with one titled panel per title in rows, each with axes of its own.

    Args:
      titles: one per panel.
      columns: panels in a row, at most.
      width, height: of a panel, inches.

    Returns:
      The figure and its axes in the order of the titles.
    """
    columns = min(columns, len(titles))
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(width * columns + 2.0, height * rows + 0.6))
    axes = [figure.add_subplot(rows, columns, place) for place in range(1, len(titles) + 1)]
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title)
    return figure, axes


def level_titles(certificates: pd.DataFrame, levels: Sequence[int]) -> list[str]:
    """Title of each level's panel: the training mixture that its certificates are about."""
    stated = "train_mixture" in certificates
    kinds = set(certificates["train_mixture"]) if stated else {"range"}
    words = "difficulty {}" if kinds == {"exact"} else "trained on 1..{}"
    return [words.format(level) for level in levels]


def ends_and_middle(values: Sequence[Any]) -> list[Any]:
    """The first, a middle and the last of some values, without repeats."""
    return [values[place] for place in sorted({0, len(values) // 2, len(values) - 1})]


def size_axis(axis: Axes, sizes: Sequence[int]) -> None:
    """Make x the data size: logarithmic, with the sizes themselves as ticks."""
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_locator(FixedLocator(list(sizes)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xlabel(SIZE_LABEL)
    if len(sizes) == 1:
        # From a single point Matplotlib would choose arbitrary limits, different in each panel.
        axis.set_xlim(sizes[0] / 2, sizes[0] * 2)


def percent_axis(axis: Axes) -> None:
    """Write the ticks of y, a share, as percents: whole ones unless a tick lies between them."""
    axis.yaxis.set_major_formatter(lambda share, _: f"{round(100 * share, 6):g}%")


def corner_label(axis: Axes, text: str) -> None:
    """Write into the panel's upper left corner, such as "n = 16"."""
    axis.annotate(text, (0.02, 0.97), xycoords="axes fraction", va="top", weight="bold")


def side_legend(figure: Figure, handles: list, title: str | None = None) -> None:
    """Put one legend for all panels at the right of the figure, outside the data."""
    figure.legend(handles=handles, title=title, loc="outside right center", alignment="left")


def outer_labels(axes: np.ndarray, x: str, y: str) -> None:
    """Label x under the lowest panels and y left of the first column."""
    for axis in axes[-1]:
        axis.set_xlabel(x)
    for axis in axes[:, 0]:
        axis.set_ylabel(y)


def ledger_line(certificates: pd.DataFrame) -> str:
    """Split of delta over the certificates of a table, in one line."""
    ledger = json.loads(certificates["ledger"].iloc[0])
    each = ledger["delta"] / ledger["num_cells"]
    return (
        f"all bounds hold at once with probability {1 - ledger['delta']:g}: "
        f"δ = {ledger['delta']:g} = {ledger['num_cells']} claims × {each:.2g}; "
        f"trained posteriors split theirs over Monte Carlo and bound"
    )


def note_left_out(figure: Figure, sentences: Sequence[str]) -> None:
    """Name above all panels the cells that are not drawn, if there are any.

    Args:
      figure: the figure.
      sentences: as `experiments.analysis.optimum.left_out` gives them.
    """
    width = int(13 * figure.get_figwidth())
    if sentences:
        lines = [textwrap.fill(sentence, width) for sentence in sentences]
        figure.suptitle("\n".join(lines), fontsize=9)


def ledger_title(figure: Figure, certificates: pd.DataFrame) -> None:
    """Put the ledger above all panels, in lines that fit on the page."""
    width = int(13 * figure.get_figwidth())
    line = ledger_line(certificates)
    if len(line) > width:
        line = "\n".join(textwrap.fill(part, width) for part in line.split("; "))
    figure.suptitle(line, fontsize=9)
