"""Reads the result table: means and intervals by cell, and the best difficulty by data size.

The table has one row per member, slice and metric. `studies` lists its studies (see
`experiments.analysis.studies`), `cube` arranges one metric, `mean_interval` gives each cell's mean,
`optimum` the best difficulty, `shift` how far it moves.

Intervals are over bases, with the seeds of a base averaged first; with a single base they are over
its seeds, and whatever shows them says that (see `Cube.unit`). What is computed from the numbers
of the bases is in `experiments.analysis.statistics`.

A cell in which every member diverged has no mean: it is NaN, and no optimum. `left_out` names these
cells, and whatever shows the others shows that too.

Axes of every array, in this order (`AXES`): difficulty, data size, base seed, seed.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.analysis import statistics, vertex
from experiments.analysis.statistics import Interval

# Offered here too, for those that use both.
from experiments.analysis.studies import UNTRAINED as UNTRAINED
from experiments.analysis.studies import Study as Study
from experiments.analysis.studies import left_out as left_out
from experiments.analysis.studies import studies as studies
from experiments.analysis.studies import study_rows as study_rows
from experiments.analysis.vertex import Move, Optimum

AXES = ["difficulty", "data_size", "base_seed", "seed"]
MEMBER = [*AXES, "train_mixture", "loss", "learning_rate"]
"""Columns that tell members apart."""

MOST_NAMED = 10
"""Cells that an error names."""

MOST_MEMBERS = 20_000
"""Members of a cell: a table with more is damaged."""

GAPS = ("generalization_gap", "extrapolation_gap")
AT_OPTIMUM = ("test_risk", *GAPS, "train_risk", "in_distribution_risk")


@dataclass(frozen=True)
class Cube:
    """One metric of one study: `values` [difficulty, data_size, base, seed], NaN where missing.

    Every level, data size and base of its axes has a finished member.
    """

    values: np.ndarray
    difficulties: np.ndarray
    data_sizes: np.ndarray
    base_seeds: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Mean over the members that there are: [difficulty, data_size], NaN where none is."""
        finite = np.isfinite(self.values)
        total = np.where(finite, self.values, 0.0).sum(axis=(2, 3))
        return ratio(total, finite.sum(axis=(2, 3)))

    @property
    def unit(self) -> str:
        """What intervals are over: "base", or "seed" if all members are of one base."""
        return "base" if self.values.shape[2] > 1 else "seed"

    @property
    def units(self) -> np.ndarray:
        """Mean over the seeds of each base: [difficulty, data_size, base], NaN where none is.

        With one base, the members themselves: [difficulty, data_size, seed]. They do not show the
        variation between bases.
        """
        if self.unit == "seed":
            return self.values[:, :, 0]
        finite = np.isfinite(self.values)
        total = np.where(finite, self.values, 0.0).sum(axis=3)
        return ratio(total, finite.sum(axis=3))

    def only(
        self,
        *,
        levels: np.ndarray | None = None,
        sizes: np.ndarray | None = None,
        bases: np.ndarray | None = None,
    ) -> Cube:
        """The same metric at some levels, data sizes and bases, each marked by True."""
        marked = (
            np.ones(length, bool) if marks is None else marks
            for marks, length in zip((levels, sizes, bases), self.values.shape, strict=False)
        )
        level, size, base = (np.flatnonzero(marks) for marks in marked)
        return Cube(
            self.values[np.ix_(level, size, base)],
            self.difficulties[level],
            self.data_sizes[size],
            self.base_seeds[base],
        )


@dataclass(frozen=True)
class Shift:
    """The best difficulties at the smallest and the largest data size, and the move between.

    Attributes:
      smallest_size, largest_size: the two data sizes.
      smallest, largest: the optimum at each.
      move: from one to the other.
      unit: what the intervals are over, "base" or "seed" (see `Cube.unit`).
      number: bases or seeds behind them.
      step: least distance between neighbouring levels of the grid; infinite with one level.
    """

    smallest_size: int
    largest_size: int
    smallest: Optimum
    largest: Optimum
    move: Move
    unit: str
    number: int
    step: float


def _arranged(rows: pd.DataFrame, axes: list, metric: str, test_slice: int | None) -> np.ndarray:
    """Values of a metric by the values of `AXES` that `axes` lists, NaN where there is none.

    Raises:
      ValueError: if a member occurs twice, a cell has no row, or no cell has a value.
    """
    in_slice = rows["slice"].isna() if test_slice is None else rows["slice"].eq(test_slice)
    in_slice = in_slice.fillna(False).astype(bool)
    recorded = rows.loc[in_slice & (rows["metric"] == metric)]
    chosen = recorded.loc[recorded["status"] == "ok"]
    where = f"metric {metric!r}" + ("" if test_slice is None else f", slice {test_slice}")
    if len(twice := chosen.loc[chosen.duplicated(AXES)]):
        raise ValueError(f"table: {where} has two values at {twice.iloc[0][AXES].to_dict()}")
    # A cell whose members diverged has rows without values; one that was not run has none.
    found = set(zip(recorded["difficulty"], recorded["data_size"], strict=True))
    missing = (cell for cell in itertools.product(axes[0], axes[1]) if cell not in found)
    if absent := list(itertools.islice(missing, MOST_NAMED + 1)):
        cells = ", ".join(f"(difficulty {level}, data_size {size})" for level, size in absent)
        more = " and others" if len(absent) > MOST_NAMED else ""
        raise ValueError(f"table: {where} has no member in {cells}{more}")
    full = chosen.set_index(AXES)["value"].reindex(pd.MultiIndex.from_product(axes, names=AXES))
    values = full.to_numpy(dtype=float).reshape([len(axis) for axis in axes])
    if not np.isfinite(values).any():
        raise ValueError(f"table: {where} has no member with status 'ok'")
    return values


def cube(
    table: pd.DataFrame,
    study: Study,
    metric: str,
    *,
    test_slice: int | None = None,
    minus_base: bool = False,
) -> Cube:
    """Arrange a metric by difficulty, data size, base and seed, of the members that finished.

    A level or data size at which every member diverged is left out; a single such cell is NaN.

    Args:
      table: the tidy result table.
      study: which cells.
      metric: a name in the column `metric`.
      test_slice: a test difficulty for the metrics by slice; `None` for the aggregated ones.
      minus_base: subtract the base's value at the same base seed and seed.

    Raises:
      ValueError: if no member has status "ok", a cell has no row, or a member occurs twice.
    """
    rows = study_rows(table, study)
    finished = rows.loc[rows["status"] == "ok"]
    axes = [np.unique(finished[name].to_numpy()) for name in AXES]
    if len(axes[2]) * len(axes[3]) > MOST_MEMBERS:
        raise ValueError(
            f"table: a cell must have at most {MOST_MEMBERS:,} members, got {len(axes[2]):,} bases "
            f"and {len(axes[3]):,} seeds"
        )
    values = _arranged(rows, axes, metric, test_slice)
    if minus_base:
        base_rows = study_rows(table, study.untrained)
        values = values - _arranged(base_rows, [[0], [0], *axes[2:]], metric, test_slice)
    return Cube(values, *axes[:3])


def ratio(total: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Total over number, NaN where the number is 0."""
    return np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)


def mean_interval(table: pd.DataFrame, study: Study, metric: str, **kind) -> pd.DataFrame:
    """Mean and 90% interval by cell; `kind`: the arguments `test_slice`, `minus_base` of `cube`.

    Returns:
      One row per cell: difficulty, data_size, mean, low, high, num_members, num_missing. The mean
      is the mean over bases of the means over their seeds. It is NaN where every member diverged;
      low and high are NaN where fewer than two bases (or seeds, see `Cube.unit`) are left.
    """
    metrics = cube(table, study, metric, **kind)
    mean, low, high = statistics.t_interval(metrics.units)
    finite = np.isfinite(metrics.values)
    num_members = finite.sum(axis=(2, 3))
    cells = pd.MultiIndex.from_product([metrics.difficulties, metrics.data_sizes], names=AXES[:2])
    columns = {"mean": mean, "low": low, "high": high, "num_members": num_members}
    columns["num_missing"] = finite.any(axis=(0, 1)).sum() - num_members
    flat = {name: column.ravel() for name, column in columns.items()}
    return pd.DataFrame(flat, index=cells).reset_index()


def optima(risk: Cube) -> list[Optimum]:
    """The optimum of a risk at each of its data sizes."""
    return [vertex.optimum(risk.difficulties, each) for each in np.moveaxis(risk.units, 1, 0)]


def optimum(table: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Find the difficulty of least test risk at each data size.

    Returns:
      One row per data_size at which a member finished: optimum, the `Optimum` itself;
      best_difficulty, the level of the grid with the least mean; position, low and high, d* and its
      interval; censored and tied as in `Optimum`; is_open, see there; each name of AT_OPTIMUM at
      the best level, with name_low and name_high (on the data that chose the level, so slightly
      optimistic); and honest_risk with its interval, the test risk of a level chosen on the other
      bases.
    """
    risk = cube(table, study, "test_risk")
    found = optima(risk)
    result = pd.DataFrame({"data_size": risk.data_sizes, "optimum": found})
    result["best_difficulty"] = [int(each.level) for each in found]
    for name in ("position", "low", "high", "censored", "tied", "is_open"):
        result[name] = [getattr(each, name) for each in found]
    # Every metric at the best level.
    best = np.searchsorted(risk.difficulties, result["best_difficulty"])
    at_best = {
        name: cube(table, study, name).units[best, np.arange(len(found))] for name in AT_OPTIMUM
    }
    for name, values in (at_best | {"honest_risk": statistics.honest_risk(risk.units)}).items():
        mean, low, high = statistics.t_interval(values)
        result[name], result[f"{name}_low"], result[f"{name}_high"] = mean, low, high
    return result


def shift(table: pd.DataFrame, study: Study) -> Shift:
    """Compare the optimum at the smallest and at the largest data size (see `Shift`)."""
    risk = cube(table, study, "test_risk")
    found = optima(risk)
    return Shift(
        smallest_size=int(risk.data_sizes[0]),
        largest_size=int(risk.data_sizes[-1]),
        smallest=found[0],
        largest=found[-1],
        move=vertex.move(found),
        unit=risk.unit,
        number=int(np.isfinite(risk.units).any(axis=(0, 1)).sum()),
        step=float(np.diff(risk.difficulties.astype(float)).min(initial=np.inf)),
    )


def intervals_are_over(table: pd.DataFrame) -> str:
    """Say what the intervals of a table are over, in a sentence for wherever they are shown."""
    trained = table.loc[table["train_mixture"] != UNTRAINED]
    bases, seeds = trained["base_seed"].nunique(), trained["seed"].nunique()
    if bases > 1:
        return f"Means over {bases} bases with Student's 90% intervals."
    if seeds > 1:
        return (
            f"Means over {seeds} seeds of one base with Student's 90% intervals over seeds; the "
            f"variation between bases is not in them."
        )
    return "One member a cell: no intervals."


def headline(table: pd.DataFrame) -> pd.DataFrame:
    """Text for the report and the documents: one row per study and data size.

    Columns: study; data_size; optimum, d* with its interval; best_levels, those that cannot be
    told from the best; the test risk and the two gaps at the best level of the grid; and
    honest_risk, each as "mean [low, high]".
    """
    rows = []
    for study in studies(table):
        for row in optimum(table, study).to_dict("records"):
            found: Optimum = row["optimum"]
            levels = ", ".join(f"{level:g}" for level in found.best)
            text = {"study": study.title, "data_size": row["data_size"], "optimum": str(found)}
            text["best_levels"] = "all" if found.tied else levels
            for name in ("test_risk", *GAPS, "honest_risk"):
                text[name] = str(Interval(row[name], row[f"{name}_low"], row[f"{name}_high"]))
            rows.append(text)
    return pd.DataFrame(rows)
