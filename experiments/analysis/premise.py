"""The paper's premise: the generalization bound grows with difficulty and shrinks with n.

Input are the tables that `experiments.certify.members` writes. The generalization term of a
certificate is its bound minus the risk on the sample. The final KL need not grow with difficulty:
at a hard level the optimiser stops early, where more nats would cost more than they lower the risk.
So nats are compared at equal risk, along the way from the prior to each posterior.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Trend:
    """Number of comparisons that have the claimed sign.

    Attributes:
      agree: comparisons with the claimed sign.
      number: comparisons in all.
    """

    agree: int
    number: int

    def __str__(self) -> str:
        return f"{self.agree} of {self.number}"


def risk_bounds(certificates: pd.DataFrame, method: str) -> pd.DataFrame:
    """Mean bound: difficulties down, data sizes across."""
    return _means(certificates, method, "risk_bound")


def generalization_terms(certificates: pd.DataFrame, method: str) -> pd.DataFrame:
    """Mean bound minus mean risk on the sample: difficulties down, data sizes across."""
    return risk_bounds(certificates, method) - _means(certificates, method, "empirical_risk")


def _means(certificates: pd.DataFrame, method: str, column: str) -> pd.DataFrame:
    cells = certificates.loc[certificates["method"] == method]
    return cells.pivot_table(column, "difficulty", "data_size")


def grows_with_difficulty(terms: pd.DataFrame) -> Trend:
    """Steps to the next harder level, at equal n, at which the term grows."""
    steps = np.diff(terms.to_numpy(), axis=0)
    return Trend(int((steps > 0).sum()), int(np.isfinite(steps).sum()))


def shrinks_with_size(terms: pd.DataFrame) -> Trend:
    """Steps to the next larger n, at equal difficulty, at which the term shrinks."""
    steps = np.diff(terms.to_numpy(), axis=1)
    return Trend(int((steps < 0).sum()), int(np.isfinite(steps).sum()))


def nats_at_risk(complexity: pd.DataFrame, method: str, data_size: int) -> dict[int, pd.DataFrame]:
    """KL and risk along the way from prior to posterior by difficulty, means over members."""
    chosen = (complexity["method"] == method) & (complexity["data_size"] == data_size)
    cells = complexity.loc[chosen]
    paths = {}
    for difficulty, path in cells.groupby("difficulty"):
        members = path.groupby(["base_seed", "cell_seed"])
        step = members.cumcount()
        paths[difficulty] = path.groupby(step)[["kl", "risk"]].mean()
    return paths


def harder_costs_more(paths: dict[int, pd.DataFrame]) -> Trend:
    """Pairs of levels of which the harder needs more nats at the lowest risk that both reach.

    A pair also agrees if the harder level never reaches the risk at which the easier one starts: no
    number of nats along its way is enough.
    """
    agree, number = 0, 0
    levels = sorted(paths)
    for position, easier in enumerate(levels):
        for harder in levels[position + 1 :]:
            number += 1
            start, lowest = paths[easier]["risk"].iloc[0], min(paths[easier]["risk"])
            target = max(lowest, min(start, *paths[harder]["risk"]))
            agree += _nats(paths[harder], target) > _nats(paths[easier], target)
    return Trend(agree, number)


def _nats(path: pd.DataFrame, risk: float) -> float:
    """The least KL on a path at which its risk is at most `risk`; infinite if it never is."""
    reached = path.loc[path["risk"] <= risk, "kl"]
    return float(reached.min()) if len(reached) else np.inf
