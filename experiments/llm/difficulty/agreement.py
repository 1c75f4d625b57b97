"""Agreement of measures of difficulty: rank correlations, and the pass rate over each measure.

The input is a table of measures, one row a problem (`experiments.llm.difficulty.measures.measure`).
Intervals are 90%, over draws of problems. A pass rate of few samples is itself uncertain, which
makes its correlations smaller than those of the true pass rate.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from experiments.llm.difficulty.scales import MEASURES, Measure, is_measure

TAILS = (0.05, 0.95)
"""Quantiles at the ends of an interval."""

FEWEST = 5
"""Fewest problems for the interval of a correlation."""

PROBLEMS_IN_BIN = 20
"""Average number of problems in a bin below which there are fewer bins than asked for."""


def present(table: pd.DataFrame) -> list[Measure]:
    """Measures in a table that do not have one value for all problems."""
    others = [name for name in table if name not in MEASURES and is_measure(str(name))]
    names: list[Measure] = [*(name for name in MEASURES if name in table), *map(str, others)]
    return [name for name in names if len(np.unique(_complete(table, [name]))) > 1]


def _complete(table: pd.DataFrame, names: Sequence[str]) -> Float[np.ndarray, "problems names"]:
    """Values of these columns, for the problems that lack none of them."""
    columns = [
        table[name].astype("Float64").to_numpy(np.float64, na_value=np.nan) for name in names
    ]
    numbers = np.stack(columns, axis=1)
    return numbers[np.isfinite(numbers).all(axis=1)]


def rank_correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Spearman's and Kendall's (tau-b) correlations of all pairs of measures.

    A negative correlation with the pass rate means that problems which the measure calls hard are
    hard for the base.

    Args:
      table: one row a problem; a problem that lacks a measure is left out of that measure's pairs.

    Returns:
      One row per pair and statistic: first, second, statistic, value, low and high (90% interval)
      and num_problems.

    Raises:
      ValueError: if fewer than two measures differ between problems, or a pair has fewer than
        `FEWEST` problems.

    References:
      Bonett and Wright (2000), Psychometrika 65: standard errors of Fisher's transform. In
      simulations with half of the pass rates at 0 or 1, 86 to 94% of the intervals held the truth.
    """
    names = present(table)
    if len(names) < 2:
        raise ValueError(
            f"a rank correlation needs two measures that differ, the table has {names}"
        )
    rows = []
    for first, second in itertools.combinations(names, 2):
        pair = _complete(table, [first, second])
        if len(pair) < FEWEST:
            raise ValueError(
                f"a rank correlation of {first} and {second} needs at least {FEWEST} problems "
                f"that have both, got {len(pair)}"
            )
        rows += [
            {"first": first, "second": second, **row, "num_problems": len(pair)}
            for row in _correlations(*pair.T)
        ]
    return pd.DataFrame(rows)


def _correlations(first: np.ndarray, second: np.ndarray) -> list[dict[str, float | str]]:
    """Both statistics of one pair, with intervals from Fisher's transform."""
    if len(set(first)) == 1 or len(set(second)) == 1:
        missing = {"value": np.nan, "low": np.nan, "high": np.nan}
        return [{"statistic": name, **missing} for name in ("spearman", "kendall")]
    # SciPy's results have no static types.
    spearman = float(stats.spearmanr(first, second)[0])  # type: ignore[arg-type]
    kendall = float(stats.kendalltau(first, second)[0])  # type: ignore[arg-type]
    errors = {
        "spearman": np.sqrt((1 + spearman**2 / 2) / (len(first) - 3)),
        "kendall": np.sqrt(0.437 / (len(first) - 4)),
    }
    rows = []
    for name, value in (("spearman", spearman), ("kendall", kendall)):
        # The transform is infinite at 1: stay just below.
        centre = np.arctanh(np.clip(value, -1 + 1e-12, 1 - 1e-12))
        low, high = np.tanh(centre + stats.norm.ppf(TAILS) * errors[name])
        rows.append({"statistic": name, "value": value, "low": low, "high": high})
    return rows


def pass_rate_over(table: pd.DataFrame, measure: Measure, *, bins: int = 10) -> pd.DataFrame:
    """Mean pass rate in bins of a measure with equal numbers of problems.

    If the measure has few different values, as op counts do, each value is a bin.

    Args:
      table: one row a problem, with ``pass_rate``, ``samples`` and the measure.
      measure: the measure that is cut into bins.
      bins: the most bins.

    Returns:
      One row per bin, in order of the measure: centre (median of the measure), mean (pass rate),
      low and high (its 90% interval), deviation (standard deviation of the pass rate between its
      problems) and num_problems.

    Raises:
      ValueError: if the table lacks a column, or no problem has both.
    """
    columns = [measure, "pass_rate", "samples"]
    if missing := [name for name in columns if name not in table]:
        raise ValueError(f"the table must have columns {columns}, it lacks {missing}")
    rows = _complete(table, columns)
    if not len(rows):
        raise ValueError(f"the table must have problems with both {measure} and pass_rate")
    # Edges are all values if they are few, else quantiles.
    values, rates, samples = rows.T
    edges = np.unique(values)
    if len(edges) > 2 * bins:
        number = int(np.clip(len(rows) // PROBLEMS_IN_BIN, 2, bins))
        shares = np.arange(1, number + 1) / number
        edges = np.unique(np.quantile(values, shares, method="inverted_cdf"))
    # Summarise the problems of each bin.
    bin_of = np.searchsorted(edges, values)
    summaries = []
    for number in range(len(edges)):
        own = bin_of == number
        low, high = mean_interval(rates[own], samples[own])
        summaries.append(
            {
                "centre": np.median(values[own]),
                "mean": rates[own].mean(),
                "low": low,
                "high": high,
                "deviation": rates[own].std(),
                "num_problems": own.sum(),
            }
        )
    return pd.DataFrame(summaries)


def mean_interval(rates: np.ndarray, samples: np.ndarray) -> tuple[float, float]:
    """90% interval for the mean pass rate of problems like these.

    Wilson's interval for an effective number of draws: as many independent draws as would give the
    mean the variance that is observed between problems, but at least the number of problems, and at
    most that of their samples. So the interval has a width even if every sample failed.

    Args:
      rates: share of each problem's samples that pass.
      samples: number of samples of each problem.

    References:
      Wilson (1927); Kish (1965), Survey Sampling, for the effective number of draws.
    """
    mean, variance = rates.mean(), rates.var(ddof=1) if len(rates) > 1 else 0.0
    draws = float(len(rates))
    if 0 < mean < 1:
        wanted = mean * (1 - mean) * len(rates) / variance if variance > 0 else np.inf
        draws = float(np.clip(wanted, len(rates), samples.sum()))
    z = stats.norm.ppf(TAILS[1])
    centre = (mean + z**2 / (2 * draws)) / (1 + z**2 / draws)
    half = z / (1 + z**2 / draws) * np.sqrt(mean * (1 - mean) / draws + z**2 / (4 * draws**2))
    # Wilson's interval contains the mean and lies in [0, 1]; rounding must not change that.
    return float(np.clip(centre - half, 0.0, mean)), float(np.clip(centre + half, mean, 1.0))
