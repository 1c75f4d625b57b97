"""Values on hover: the points of a figure's lines get titles in its SVG, which browsers show.

No figure itself, because it has no `plot`.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.figures import style

PREFIX = "point"
NO_POINTS = {"", "none", "None", " ", None, "_", "|"}
"""Markers that stand for no point: none at all, and the caps of error bars."""
MARKER = re.compile(r"(<use [^>]*?)/>")


def mark(figure: Figure) -> dict[str, list[str]]:
    """Give each line with markers a name, under which Matplotlib writes it into the SVG.

    Returns:
      The title of each point that is drawn, by the name of its line.
    """
    texts = {}
    for position, axis in enumerate(figure.axes):
        # The line of error bars has its label in their container.
        labels = {
            id(box[0]): str(box.get_label())
            for box in axis.containers
            if isinstance(box, ErrorbarContainer)
        }
        for place, line in enumerate(axis.lines):
            if line.get_marker() in NO_POINTS or line.get_gid():
                continue
            name = f"{PREFIX}-{position}-{place}"
            line.set_gid(name)
            texts[name] = _texts(axis, line, labels.get(id(line), str(line.get_label())))
    return texts


def _texts(axis: Axes, line: Line2D, label: str) -> list[str]:
    """Panel, label and values of each finite point of a line."""
    known = [part for part in (axis.get_title(), "" if label.startswith("_") else label) if part]
    points = np.column_stack([np.ravel(line.get_xdata()), np.ravel(line.get_ydata())])
    finite = points.astype(float)[np.isfinite(points.astype(float)).all(axis=1)]
    values = [f"{_nearest_tick(axis, x):g}: {y:.3g}" for x, y in finite]
    said = (" ".join(", ".join([*known, value]).split()) for value in values)
    return [style.readable(each) for each in said]


def _nearest_tick(axis: Axes, x: float) -> float:
    """The tick that a point stands for, if it was only moved aside to be seen; else x itself."""
    ticks = np.asarray(axis.get_xticks(), dtype=float)
    scale = axis.xaxis.get_transform().transform
    places, own = scale(ticks), float(scale(np.array([x]))[0])
    if not np.isfinite(own) or len(ticks) < 2:
        return x
    nearest = int(np.nanargmin(np.abs(places - own)))
    is_near = abs(places[nearest] - own) < 0.3 * np.diff(np.sort(places)).min()
    return float(ticks[nearest]) if is_near else x


def add_titles(path: Path, texts: dict[str, list[str]]) -> None:
    """Write titles into an SVG; a line whose points were not all drawn is left as it is.

    Args:
      path: the file that `mark`'s figure was saved to.
      texts: as `mark` returned them.
    """
    svg = path.read_text(encoding="utf-8")
    for name, titles in texts.items():
        start = svg.find(f'<g id="{name}">')
        if start < 0:
            continue
        end = svg.find(f'<g id="{PREFIX}-', start + 1)
        stop = _end_of_group(svg, start) if end < 0 else min(end, _end_of_group(svg, start))
        group = svg[start:stop]
        if len(MARKER.findall(group)) != len(titles):
            continue
        given = iter(titles)
        titled = MARKER.sub(
            lambda use, given=given: f"{use[1]}><title>{escape(next(given))}</title></use>", group
        )
        svg = svg[:start] + titled + svg[stop:]
    path.write_text(svg, encoding="utf-8")


def _end_of_group(svg: str, start: int) -> int:
    """Position behind the end tag of the group that begins at `start`."""
    depth = 0
    for tag in re.compile(r"<g[ >]|</g>").finditer(svg, start):
        depth += 1 if tag[0] != "</g>" else -1
        if depth == 0:
            return tag.end()
    return len(svg)
