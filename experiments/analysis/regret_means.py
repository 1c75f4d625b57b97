"""Average regrets over runs, studies and data sizes, with intervals over bases.

Input is the table that `experiments.analysis.regret.judge` makes. The bootstrap draws bases with
replacement among those of the same origin, each with all its cases, so that runs which share bases
are resampled together. Runs and data sizes are not resampled: no interval here covers other tasks.
Seeds are not resampled either: a base's regret already contains their noise, and drawing them again
would make the least of the means noisier, and so every regret larger. Imports no JAX, so that
figures may use it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from experiments.analysis.bootstrap import TAILS

CASE = ["run", "study", "base", "fitted_up_to", "data_size"]


def average_regret(regrets: pd.DataFrame, *, replicates: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Mean regret of each rule, every case counting once.

    Args:
      regrets: rows of `experiments.analysis.regret.judge`, of every rule in the same cases.
      replicates, seed: of the bootstrap.

    Returns:
      One row per rule, the least regret first: rule; kind; regret, low, high (90% interval);
      more, more_low, more_high: regret minus the predictor's, paired; rank_correlation, over the
      cases in which it is defined; num_cases.

    Raises:
      ValueError: if there is not exactly one predictor, or a rule lacks a case.
    """
    kinds = dict(zip(regrets["rule"], regrets["kind"], strict=True))
    if len(predictors := [rule for rule, kind in kinds.items() if kind == "predictor"]) != 1:
        raise ValueError(f"regrets: kind must be 'predictor' for one rule, got {kinds}")
    # One row per case and one column per rule.
    cases = regrets.pivot(index=CASE, columns="rule", values=["regret", "rank_correlation"])
    costs = cases["regret"].loc[:, list(kinds)].to_numpy()
    if np.isnan(costs).any():
        missing = dict(zip(kinds, np.isnan(costs).sum(axis=0).tolist(), strict=True))
        raise ValueError(f"regrets: every rule needs every case, these lack some: {missing}")
    # Means over cases, and their quantiles over the bootstrap's weighted means.
    weights = _drawn(cases.index.get_level_values("base").tolist(), replicates, seed)
    table = pd.DataFrame({"rule": list(kinds), "kind": list(kinds.values())})
    more = costs - costs[:, [list(kinds).index(predictors[0])]]
    for name, prefix, values in (("regret", "", costs), ("more", "more_", more)):
        draws = weights @ values / weights.sum(axis=1, keepdims=True)
        table[name] = values.mean(axis=0)
        table[[f"{prefix}low", f"{prefix}high"]] = np.quantile(draws, TAILS, axis=0).T
    table["rank_correlation"] = cases["rank_correlation"].loc[:, list(kinds)].mean().to_numpy()
    table["num_cases"] = len(costs)
    return table.sort_values("regret", kind="stable", ignore_index=True)


def _drawn(bases: list[str], replicates: int, seed: int) -> np.ndarray:
    """Draw how often each case counts: integers [replicate, case], given each case's base."""
    generator = np.random.default_rng(seed)
    origins: dict[str, list[str]] = {}
    for base in sorted(set(bases)):
        origins.setdefault(base.rsplit("/", maxsplit=1)[0], []).append(base)
    times = {}
    for names in origins.values():
        shares = np.full(len(names), 1 / len(names))
        drawn = generator.multinomial(len(names), shares, replicates)
        times |= dict(zip(names, drawn.T, strict=True))
    return np.stack([times[base] for base in bases], axis=1)
