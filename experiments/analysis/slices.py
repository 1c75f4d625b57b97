"""Test risk by groups of slices: what a mixture's training did below, on and above its own levels.

The extrapolation gap is the test risk minus the in-distribution risk. With a test that has all
levels equally often it is a sum over test levels, and `parts` splits that sum:

- *backward*: levels easier than the mixture's easiest. What is lost there was forgotten.
- *inside*: the mixture's own levels, in other proportions than it has them.
- *forward*: levels harder than its hardest. What is lost there does not carry over.

`groups` gives the plain mean risk on the levels below the mixture, and on those that the untouched
bases do not know.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.analysis import optimum
from experiments.analysis.studies import Study, study_rows

UNKNOWN_BELOW = 0.1
"""Levels of which the bases get a smaller share right, on average, are unknown to them."""


@dataclass(frozen=True)
class Slices:
    """Risks of a study by test level.

    Attributes:
      levels: of the test [level].
      risk: of the members [level, difficulty, data_size, base].
      base_risk: mean over the untouched bases [level].
      difficulties, data_sizes: of the cells.
      in_distribution: risk on the training mixture [difficulty, data_size, base].
    """

    levels: np.ndarray
    risk: np.ndarray
    base_risk: np.ndarray
    difficulties: np.ndarray
    data_sizes: np.ndarray
    in_distribution: np.ndarray


def read(table: pd.DataFrame, study: Study) -> Slices:
    """Arrange the risks by slice of one study.

    Raises:
      ValueError: if the table lacks the risk of a member, or of the bases, on a slice.
    """
    rows = study_rows(table, study)
    levels = np.sort(rows.loc[rows["metric"] == "risk", "slice"].dropna().unique()).astype(int)
    cubes = [optimum.cube(table, study, "risk", test_slice=int(level)) for level in levels]
    inside = optimum.cube(table, study, "in_distribution_risk")
    base = [
        optimum.cube(table, study.untrained, "risk", test_slice=int(level)).mean for level in levels
    ]
    return Slices(
        levels,
        np.stack([each.units for each in cubes]),
        np.array(base)[:, 0, 0],
        inside.difficulties,
        inside.data_sizes,
        inside.units,
    )


def span(study: Study, difficulty: int, hardest: int, window_width: int) -> tuple[int, int]:
    """Easiest and hardest level of a cell's training mixture, see `SweepConfig.mixture`.

    Args:
      study: names the kind of mixture.
      difficulty: of the cell.
      hardest: of the study's difficulties.
      window_width: of a window.

    Raises:
      ValueError: if the mixture is none of these.
    """
    easiest = {
        "range": 1,
        "exact": difficulty,
        "window": max(1, difficulty - window_width),
        "above": difficulty,
    }
    if study.train_mixture not in easiest:
        raise ValueError(f"mixture must be one of {[*easiest]}, got {study.train_mixture[:80]!r}")
    hardest_level = hardest if study.train_mixture == "above" else difficulty
    return easiest[study.train_mixture], hardest_level


def parts(table: pd.DataFrame, study: Study, *, window_width: int = 2) -> dict[str, np.ndarray]:
    """Split the extrapolation gap of every member.

    Args:
      table: the tidy result table.
      study: which cells.
      window_width: of the mixture ``window``, as the run's configuration states it.

    Returns:
      ``backward``, ``inside`` and ``forward`` [difficulty, data_size, base]; they sum to the gap.
    """
    slices = read(table, study)
    above = (slices.risk - slices.in_distribution) / len(slices.levels)
    split = {name: np.zeros_like(slices.in_distribution) for name in PARTS}
    for index, (is_below, is_inside, is_beyond) in enumerate(_marks(slices, study, window_width)):
        for name, marked in zip(PARTS, (is_below, is_inside, is_beyond), strict=True):
            split[name][index] = above[marked, index].sum(axis=0)
    return split


PARTS = ("backward", "inside", "forward")


def groups(table: pd.DataFrame, study: Study, *, window_width: int = 2) -> dict[str, np.ndarray]:
    """Mean risk of every member on groups of test levels; the arguments are those of `parts`.

    Returns:
      ``easier than the mixture``, ``unknown to the base`` and ``all levels``
      [difficulty, data_size, base]; NaN where a group has no level.
    """
    slices = read(table, study)
    is_unknown = 1 - slices.base_risk < UNKNOWN_BELOW
    easier = np.full_like(slices.in_distribution, np.nan)
    for index, (is_below, _, _) in enumerate(_marks(slices, study, window_width)):
        if is_below.any():
            easier[index] = slices.risk[is_below, index].mean(axis=0)
    nothing = np.full_like(easier, np.nan)
    unknown = slices.risk[is_unknown].mean(axis=0) if is_unknown.any() else nothing
    return {
        "easier than the mixture": easier,
        "unknown to the base": unknown,
        "all levels": slices.risk.mean(axis=0),
    }


def _marks(slices: Slices, study: Study, window_width: int) -> list[tuple[np.ndarray, ...]]:
    """For each difficulty, which test levels lie below, inside and beyond its mixture."""
    marks = []
    for difficulty in slices.difficulties:
        low, high = span(study, int(difficulty), int(slices.difficulties[-1]), window_width)
        is_below, is_beyond = slices.levels < low, slices.levels > high
        marks.append((is_below, ~is_below & ~is_beyond, is_beyond))
    return marks
