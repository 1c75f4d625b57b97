"""The figures of a report: their order, their titles and captions, and the pictures themselves."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from experiments import figures
from experiments.pages.page import readable

MEDIA_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
SECTIONS = {
    "Where is the best difficulty?": (
        "map",
        "optimum_over_size",
        "accuracy_over_difficulty",
        "accuracy_over_size",
        "leave_out",
    ),
    "Why there?": ("gaps", "gap_parts", "change_by_slice", "base_accuracy"),
    "What can be certified?": (
        "bound_over_curve",
        "certified_optimum",
        "certificates",
        "certified_gaps",
        "tightness",
        "complexity",
    ),
}
"""Titles of the sections and names of their figures, in the order of the argument."""
REST = "More figures"


@dataclass(frozen=True)
class Picture:
    """One figure on the page.

    Attributes:
      name: of the figure.
      title: in words.
      caption: what it shows in any run.
      finding: what it shows in this one; empty if the figure does not say.
      drawing: an SVG element, or an image element with the picture as data.
    """

    name: str
    title: str
    caption: str
    finding: str
    drawing: Markup


def sections(
    paths: Sequence[Path], tables: Mapping[str, pd.DataFrame]
) -> list[tuple[str, list[Picture]]]:
    """Titles of the sections and their pictures, without empty sections.

    Args:
      paths: SVG or PNG files as `figures.draw` returns them; the SVG is taken where there are both.
      tables: that they were drawn from.

    Raises:
      ValueError: if a path is neither SVG nor PNG.
    """
    chosen: dict[str, Path] = {}
    for path in map(Path, paths):
        if path.suffix not in MEDIA_TYPES:
            raise ValueError(f"figure_paths: {path} must end in one of {list(MEDIA_TYPES)}")
        if path.stem not in chosen or path.suffix == ".svg":
            chosen[path.stem] = path
    placed = {name for names in SECTIONS.values() for name in names}
    order = SECTIONS | {REST: tuple(name for name in chosen if name not in placed)}
    pictures = [
        (title, [_picture(chosen[name], tables) for name in names if name in chosen])
        for title, names in order.items()
    ]
    return [(title, shown) for title, shown in pictures if shown]


def _picture(path: Path, tables: Mapping[str, pd.DataFrame]) -> Picture:
    name = path.stem
    title, caption, finding = name.replace("_", " "), "", ""
    if name in figures.FIGURES:
        title, caption = figures.title(name), figures.caption(name)
        finding = figures.finding(name, tables)
    draw = _inline if path.suffix == ".svg" else _image
    words = readable(f"{title}: {caption}")
    return Picture(name, title, caption, finding, draw(path, words))


def _image(path: Path, words: str) -> Markup:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    source = f"data:{MEDIA_TYPES[path.suffix]};base64,{data}"
    return Markup('<img src="{}" alt="{}">').format(source, words)


def _inline(path: Path, words: str) -> Markup:
    """The SVG as an element, so that values show on hover; names that are used get the figure's."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text[text.index("<svg") :]
    own = re.sub(r"\W", "", path.stem)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    text = re.sub(
        r' id="([^"]*)"',
        lambda name: f' id="{own}-{name[1]}"' if name[1] in used else "",
        text,
    )
    text = re.sub(r'(href="|url\()#', rf"\g<1>#{own}-", text)
    # The element's size: its box stays, the page decides the width.
    opening, rest = text.split(">", 1)
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', opening)[1])  # type: ignore[index]
    opening = re.sub(r' (?:width|height|version|xmlns[:\w]*)="[^"]*"', "", opening)
    label = Markup(' role="img" aria-label="{}" style="--natural: {}px"').format(
        words, f"{width:.0f}"
    )
    return Markup(opening) + label + Markup(">" + rest)
