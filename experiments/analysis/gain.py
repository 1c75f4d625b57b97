"""The gain of fine-tuning on the untouched base, at the best difficulty of each data size.

The level is chosen on the other bases, so that the gain is not that of the luckiest of many cells.
A base and its members have the same test draws: their difference has less noise than either.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from experiments.analysis import optimum, statistics
from experiments.analysis.statistics import Interval
from experiments.analysis.studies import Study


def base_accuracy(table: pd.DataFrame, study: Study) -> Interval:
    """Test accuracy of the untouched bases, with its 90% interval over bases (or seeds)."""
    risk = optimum.cube(table, study.untrained, "test_risk").units[0, 0]
    return statistics.estimate(1 - risk)


def gains(table: pd.DataFrame, study: Study) -> dict[int, Interval]:
    """Test accuracy above that of the base, by data size, with 90% intervals over bases.

    Raises:
      ValueError: if the table has no rows of the untouched bases.
    """
    above = optimum.cube(table, study, "test_risk", minus_base=True)
    # Of one base, the level cannot be chosen on another.
    units = above.units if above.unit == "base" else np.full_like(above.units, np.nan)
    honest = -statistics.honest_risk(units)
    return {
        int(size): statistics.estimate(values)
        for size, values in zip(above.data_sizes, honest, strict=True)
    }


def worth_it(found: Mapping[int, Interval]) -> str:
    """Say at which data sizes fine-tuning at the best difficulty is better than not to.

    Args:
      found: see `gains`; sizes without an interval are passed over.

    Returns:
      A sentence; empty if no size has an interval.
    """
    found = {size: gain for size, gain in found.items() if np.isfinite(gain.low)}
    if not found:
        return ""
    better = [size for size, gain in found.items() if gain.low > 0]
    worse = [size for size, gain in found.items() if gain.high < 0]
    rest = [size for size in found if size not in better + worse]
    said, base = [], "the untouched base"
    if better:
        said.append(f"is better than {base} at n = {_listed(better)}")
    if rest:
        said.append(f"cannot be told from {'it' if better else base} at n = {_listed(rest)}")
    if worse:
        than = "" if said else f" than {base}"
        said.append(
            f"is worse{than} at n = {_listed(worse)}, where one should not fine-tune at all"
        )
    if rest and not worse:
        said[-1] += ", where one may as well not fine-tune"
    return f"Fine-tuning at the best difficulty {', and '.join(said)}."


def _listed(sizes: list[int]) -> str:
    return ", ".join(map(str, sizes))
