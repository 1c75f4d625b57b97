"""Other test mixtures, from the risks by slice that a run stored: nothing is trained or drawn.

A run tests all levels equally often. The best difficulty may depend on that choice, so `reweighted`
replaces the test risk by a mean with other weights.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from experiments.analysis.optimum import MEMBER

RATIO = 0.85
"""Of the weights of neighbouring levels in the heavy mixtures."""


def mixtures(num_levels: int) -> dict[str, np.ndarray]:
    """Weights of the levels 1 to `num_levels` in each test mixture, summing to 1."""
    falling = RATIO ** np.arange(num_levels)
    weights = {"uniform": np.ones(num_levels), "easy-heavy": falling, "hard-heavy": falling[::-1]}
    return {name: each / each.sum() for name, each in weights.items()}


def reweighted(table: pd.DataFrame, weights: np.ndarray) -> pd.DataFrame:
    """The table with the test risk under another test mixture, and the gap that follows from it.

    Args:
      table: the tidy result table.
      weights: of the test levels, which sum to 1 [level].

    Raises:
      ValueError: if there is not one weight for each test level.
    """
    is_slice = table["metric"] == "risk"
    levels = sorted(int(level) for level in table.loc[is_slice, "slice"].dropna().unique())
    if len(weights) != len(levels):
        raise ValueError(
            f"weights must be one for each of {len(levels)} levels, got {len(weights)}"
        )
    by_level = dict(zip(levels, weights, strict=True))
    rows = table.loc[is_slice]
    weighted = rows["value"] * rows["slice"].astype(int).map(by_level)
    # A member that diverged has no values: its sum is NaN, not zero.
    keys = [rows[name] for name in MEMBER]
    new = weighted.groupby(keys).sum(min_count=len(levels)).rename("new").reset_index()
    is_risk = table["metric"] == "test_risk"
    old = table.loc[is_risk, [*MEMBER, "value"]].rename(columns={"value": "old"})
    risks = table[MEMBER].merge(new.merge(old, on=MEMBER), on=MEMBER, how="left")
    changed = table.copy()
    is_gap = table["metric"] == "extrapolation_gap"
    more = (risks["new"] - risks["old"]).set_axis(table.index)
    changed["value"] = table["value"] + more.where(is_risk | is_gap, 0.0)
    return changed
