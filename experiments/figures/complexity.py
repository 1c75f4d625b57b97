"""Does the generalization bound grow with difficulty and shrink with n, as the paper assumes? Left:
what the bound adds to the risk on the sample, for posteriors trained from the base. Right: the KL
in nats at which a posterior, on its way from the base, gets its risk down; a curve further up or
right is harder to learn.

The titles count the comparisons of neighbouring cells, or of pairs of levels, that agree with the
claim. Means over bases and seeds; the largest n on the right.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis import premise
from experiments.figures import style

TITLE = "Nats that a lower risk costs"
TABLES = ("certificates", "complexity")


@style.styled
def plot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Two panels: generalization term over data size, and risk over nats; a line per difficulty."""
    certificates, complexity = tables["certificates"], tables["complexity"]
    method = complexity["method"].iloc[0]
    terms = premise.generalization_terms(certificates, method)
    largest = max(complexity["data_size"])
    paths = premise.nats_at_risk(complexity, method, largest)
    figure = Figure(figsize=(10.2, 4.3))
    left, right = figure.subplots(1, 2)
    handles = []
    levels = list(terms.index)
    for position, level in enumerate(levels):
        look = style.look(position, len(levels))
        handles += left.plot(terms.columns, terms.loc[level], label=f"d = {level}", **look)
        if level in paths:
            right.plot(paths[level]["kl"], paths[level]["risk"], **look)
    style.size_axis(left, list(terms.columns))
    left.set_ylim(bottom=0)
    left.set_ylabel("risk bound − risk on the sample")
    counts = [f"grows with d in {premise.grows_with_difficulty(terms)} steps"]
    if len(terms.columns) > 1:
        counts.append(f"shrinks with n in {premise.shrinks_with_size(terms)}")
    left.set_title(f"Generalization term of “{method}”\n" + ",\n".join(counts), fontsize=10)
    right.set_xlabel("KL from the base (nats)")
    right.set_ylabel("risk on the sample (0–1 loss)")
    right.set_ylim(bottom=0)
    right.set_title(
        f"Nats spent at n = {largest}\nthe harder level needs more\n"
        f"at equal risk in {premise.harder_costs_more(paths)} pairs",
        fontsize=10,
    )
    style.side_legend(figure, handles, "training difficulty d")
    style.ledger_title(figure, certificates)
    return figure
