"""The total bound over training difficulty beside the measured test risk, and where each is least.

Input is a table of `experiments.certify.members`. The bound and the risk are of the same predictor,
and are averaged over bases and seeds. A bound says where the risk cannot be larger, not where it is
least, so that the level of the least bound is a choice like another: it is judged by its distance
from the level of the least measured risk, in steps of the grid, and by its regret.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

BOUND_COLUMN = "test_bound_"
VARIANTS = ("unconditional", "monotone", "literal")
"""Variants of `theory.total` that a table may hold, in the order of a legend."""
VACUOUS = 1 - 1e-9
"""From here on a bound says nothing."""
CELL = ["method", "train_mixture", "data_size"]


def curves(certificates: pd.DataFrame) -> pd.DataFrame:
    """Means over bases and seeds.

    Returns:
      One row per method, mixture, data size and difficulty: the means of test_risk, of risk_bound
      and of each variant's bound, and ``contradicted``, the share of rows whose measured risks
      contradict that the risk rises with difficulty.

    Raises:
      ValueError: if the table was made before it held all variants.
    """
    names = [f"{BOUND_COLUMN}{variant}" for variant in VARIANTS]
    if missing := [name for name in names if name not in certificates]:
        raise ValueError(f"certificates: the columns {missing} are missing; certify again")
    table = certificates.assign(contradicted=~certificates["is_monotone"].astype(bool))
    kept = [*CELL, "difficulty", "test_risk", "risk_bound", *names, "contradicted"]
    by_cell = table.loc[:, kept].groupby([*CELL, "difficulty"], sort=False)
    return pd.DataFrame(by_cell.mean()).reset_index()


def minima(certificates: pd.DataFrame) -> pd.DataFrame:
    """The level of the least bound and that of the least measured risk.

    Returns:
      One row per method, mixture, data size and variant: certified, the level of its least bound
      (NaN if the bound is 1 at every level); measured; steps, the distance in levels of the grid
      (NaN likewise); regret, the measured risk at ``certified`` above the least (NaN likewise);
      least_bound; contradicted, at ``certified`` (see `curves`).
    """
    rows = []
    for cell, group in curves(certificates).groupby(CELL, sort=False):
        cells = group.sort_values("difficulty")
        levels, risk, contradicted = (
            cells[name].to_numpy() for name in ("difficulty", "test_risk", "contradicted")
        )
        best = int(risk.argmin())
        for variant in VARIANTS:
            bound = cells[f"{BOUND_COLUMN}{variant}"].to_numpy()
            place = int(bound.argmin())
            # A bound of 1 everywhere picks no level.
            said = bound[place] < VACUOUS
            chosen = {
                "certified": levels[place],
                "steps": abs(place - best),
                "regret": risk[place] - risk[best],
            }
            rows.append(
                dict(zip(CELL, cell, strict=True))  # type: ignore[arg-type]
                | {"variant": variant, "measured": int(levels[best])}
                | {name: float(value) if said else np.nan for name, value in chosen.items()}
                | {"least_bound": float(bound[place]), "contradicted": float(contradicted[place])}
            )
    return pd.DataFrame(rows)


def agreement(found: pd.DataFrame, *, smallest_size: int = 64) -> pd.DataFrame:
    """Count the pairs in which the least bound is within one level of the grid from the least risk.

    Args:
      found: rows of `minima`, with more columns or without.
      smallest_size: data sizes below are not counted.

    Returns:
      One row per variant: near and pairs, numbers of rows; share; vacuous, pairs in which the bound
      says nothing, which count as not near; regret, the mean of the others.
    """
    counted = found.loc[found["data_size"] >= smallest_size]
    rows = []
    for variant, group in counted.groupby("variant", sort=False):
        near = int((group["steps"] <= 1).sum())
        row = {"variant": variant, "near": near, "pairs": len(group), "share": near / len(group)}
        row |= {"vacuous": int(group["certified"].isna().sum()), "regret": group["regret"].mean()}
        rows.append(row)
    return pd.DataFrame(rows)
