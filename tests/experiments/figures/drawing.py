"""Drawing a figure in a test, and the check that all of it is visible."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from experiments import figures


def drawn(name: str, tables: Mapping[str, pd.DataFrame]) -> Figure:
    """A figure whose layout has been computed, which the canvas of a bare Figure does not do."""
    figure = figures.FIGURES[name].plot(tables)
    FigureCanvasAgg(figure).draw()
    return figure


def assert_has_a_caption(name: str) -> None:
    """Check that a figure's docstring begins with a paragraph of whole sentences."""
    wanted = f"{name}: its docstring's first paragraph, the caption, must end with a full stop"
    assert figures.caption(name).endswith("."), wanted


def assert_all_is_on_the_page(figure: Figure) -> None:
    """Check that nothing that is drawn lies outside the page."""
    page = figure.bbox
    texts = [each for each in figure.get_children() if isinstance(each, Text)]
    boxes = [each.get_window_extent() for each in (*figure.legends, *texts)]
    boxes += [axis.get_tightbbox() for axis in figure.axes if axis.get_visible()]
    for box in boxes:
        assert box is not None
        wanted = f"{box} must lie on the page {page}: is `plot` decorated with @style.styled?"
        assert page.x0 - 1 <= box.x0 <= box.x1 <= page.x1 + 1, wanted
        assert page.y0 - 1 <= box.y0 <= box.y1 <= page.y1 + 1, wanted
