"""The level at which the total bound is least, over the number of examples, beside the one at which
the measured test risk of the same predictors is least (black); below, what training at the
certified level costs (regret, in points of test accuracy). A variant has no point where its bound
is 1 at every level.

Means over bases; the methods are those of the figure `bound_over_curve`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis import certified
from experiments.figures import bound_over_curve, style

TITLE = "Where the bound is least"
TABLES = ("certificates",)
applies = bound_over_curve.applies
MEASURED: dict[str, Any] = {"color": style.INK, "marker": "o", "markersize": 9, "linewidth": 4.5}
WIDTHS = (3.2, 2.2, 1.4)
"""Of the variants' lines: where several lie on each other, all can be seen."""


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """A column for each method; above the levels, below the regret."""
    certificates = tables["certificates"]
    least = certified.minima(certificates)
    methods = bound_over_curve.shown_methods(certificates)
    words = [bound_over_curve.WORDS.get(name, name) for name in methods]
    width, height = 3.6, 2.5
    figure = Figure(figsize=(width * len(methods) + 2.0, 2 * height + 0.4))
    axes = figure.subplots(2, len(methods), sharex=True, sharey="row", squeeze=False)
    looks = bound_over_curve.looks()
    for column, (method, title) in enumerate(zip(methods, words, strict=True)):
        above, below = axes[:, column]
        own = least.loc[least["method"] == method].sort_values("data_size")
        measured = own.drop_duplicates("data_size")
        style.size_axis(above, measured["data_size"].tolist())
        above.plot(measured["data_size"], measured["measured"], **MEASURED)
        for width, (variant, look) in zip(WIDTHS, looks.items(), strict=True):
            look = look | {"linewidth": width}
            rows = own.loc[own["variant"] == variant]
            above.plot(rows["data_size"], rows["certified"], **look)
            below.plot(rows["data_size"], 100 * rows["regret"], **look)
        above.set_title(title)
        above.set_xlabel("")
        above.set_yticks(sorted(certificates["difficulty"].unique()))
        below.axhline(0.0, color=style.INK, linewidth=1.0)
        style.size_axis(below, measured["data_size"].tolist())
    axes[0, 0].set_ylabel("level of the least value")
    axes[1, 0].set_ylabel("regret (points)")
    handles = [style.key("measured risk", **MEASURED)]
    handles += [
        style.key(bound_over_curve.LABELS[variant], **look) for variant, look in looks.items()
    ]
    style.side_legend(figure, handles)
    style.ledger_title(figure, certificates)
    return figure
