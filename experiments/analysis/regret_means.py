"""Average regrets over tasks, with intervals over tasks and bases.

Input is the table that `experiments.analysis.regret.judge` makes. Tasks count alike, however many
runs they have. The bootstrap draws tasks with replacement, and within each origin of a drawn task
its bases, each with all its cases, so that runs which share bases are resampled together. Seeds are
not resampled: a base's regret already contains their noise, and drawing them again would make the
least of the means noisier, and so every regret larger. Imports no JAX, so that figures may use it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from experiments.analysis.bootstrap import TAILS

CASE = ["run", "study", "base", "fitted_up_to", "data_size"]


def average_regret(regrets: pd.DataFrame, *, replicates: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Mean regret of each rule over tasks.

    Args:
      regrets: rows of `experiments.analysis.regret.judge`, of every rule in the same cases.
      replicates, seed: of the bootstrap.

    Returns:
      One row per rule, the least regret first: rule; kind; regret, low, high (90% interval);
      skill, skill_low, skill_high, one minus the regret over that of the best constant of other
      tasks (NaN without one); moved, unmoved, the regret in cases whose best level moves and in the
      others (NaN without such cases); worst, the largest mean regret of a study; rank_correlation
      and error, over the cases in which they are defined; num_cases, num_tasks.

    Raises:
      ValueError: if there is not exactly one predictor, or a rule lacks a case.
    """
    kinds = dict(zip(regrets["rule"], regrets["kind"], strict=True))
    if len([rule for rule, kind in kinds.items() if kind == "predictor"]) != 1:
        raise ValueError(f"regrets: kind must be 'predictor' for one rule, got {kinds}")
    # One row per case and one column per rule.
    values = ["regret", "rank_correlation", "error"]
    cases = regrets.pivot(index=[*CASE, "task", "moved"], columns="rule", values=values)
    costs = cases["regret"].loc[:, list(kinds)].to_numpy()
    if np.isnan(costs).any():
        missing = dict(zip(kinds, np.isnan(costs).sum(axis=0).tolist(), strict=True))
        raise ValueError(f"regrets: every rule needs every case, these lack some: {missing}")
    # Means over tasks, and their quantiles over the bootstrap's weighted means.
    tasks, bases, moved = (
        cases.index.get_level_values(name).to_numpy() for name in ("task", "base", "moved")
    )
    equal = _by_task(np.ones((1, len(tasks))), tasks, np.ones((1, len(set(tasks)))))
    table = pd.DataFrame({"rule": list(kinds), "kind": list(kinds.values())})
    table["regret"] = (equal @ costs)[0]
    draws = _drawn(bases.tolist(), tasks, replicates, seed) @ costs
    table[["low", "high"]] = np.quantile(draws, TAILS, axis=0).T
    # Skill against the constant; a constant without any regret leaves none to be had.
    table[["skill", "skill_low", "skill_high"]] = np.nan
    constants = [place for place, kind in enumerate(kinds.values()) if kind == "constant"]
    if constants and float((equal @ costs)[0, constants[0]]) > 0:
        reference = draws[:, constants]
        ratios = np.divide(draws, reference, out=np.full_like(draws, np.nan), where=reference > 0)
        table["skill"] = 1 - table["regret"] / table["regret"][constants[0]]
        high, low = np.nanquantile(ratios, TAILS, axis=0)
        table["skill_low"], table["skill_high"] = 1 - low, 1 - high
    for name, chosen in (("moved", moved.astype(bool)), ("unmoved", ~moved.astype(bool))):
        table[name] = np.nan
        if chosen.any():
            within = _by_task(
                np.ones((1, chosen.sum())), tasks[chosen], np.ones((1, len(set(tasks[chosen]))))
            )
            table[name] = (within @ costs[chosen])[0]
    by_study = regrets.pivot_table(index=["run", "study"], columns="rule", values="regret")
    table["worst"] = by_study.loc[:, list(kinds)].to_numpy().max(axis=0)
    for name in ("rank_correlation", "error"):
        table[name] = cases[name].loc[:, list(kinds)].mean().to_numpy()
    table["num_cases"], table["num_tasks"] = len(costs), len(set(tasks))
    return table.sort_values("regret", kind="stable", ignore_index=True)


def _by_task(times: np.ndarray, tasks: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Weights of the cases [replicate, case], which add up to 1.

    Args:
      times: how often each case's base was drawn [replicate, case].
      tasks: of each case [case].
      counts: how often each task was drawn [replicate, task], tasks in sorted order.
    """
    weights = np.zeros_like(times, dtype=float)
    for place, task in enumerate(sorted(set(tasks))):
        own = tasks == task
        within = times[:, own] / times[:, own].sum(axis=1, keepdims=True)
        weights[:, own] = within * counts[:, [place]]
    return weights / counts.sum(axis=1, keepdims=True)


def _drawn(bases: list[str], tasks: np.ndarray, replicates: int, seed: int) -> np.ndarray:
    """Weights of the cases in each replicate [replicate, case]."""
    generator = np.random.default_rng(seed)
    origins: dict[str, list[str]] = {}
    for base in sorted(set(bases)):
        origins.setdefault(base.rsplit("/", maxsplit=1)[0], []).append(base)
    times = {}
    for names in origins.values():
        shares = np.full(len(names), 1 / len(names))
        drawn = generator.multinomial(len(names), shares, replicates)
        times |= dict(zip(names, drawn.T, strict=True))
    number = len(set(tasks))
    counts = generator.multinomial(number, np.full(number, 1 / number), replicates)
    return _by_task(np.stack([times[base] for base in bases], axis=1), tasks, counts)
