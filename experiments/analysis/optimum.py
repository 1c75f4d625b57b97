"""Reads the result table: means and intervals by cell, and the best difficulty by data size.

The table has one row per member, slice and metric. `studies` lists its studies (see
`experiments.analysis.studies`), `cube` arranges one metric, `mean_interval` gives each cell's mean,
`optimum` the best difficulty, `shift` whether it moves.

Uncertainty is a hierarchical bootstrap: base seeds are drawn with replacement, then seeds
within each drawn base (Davison and Hinkley 1997, Bootstrap Methods, section 3.8). One draw serves
every cell and metric of a study, so comparisons stay paired. Intervals are 90% percentile
intervals; from one base they do not contain the variation between bases, and from few bases they
are on the narrow side.

A cell in which every member diverged has no mean: it is NaN, and no optimum. `left_out` names these
cells, and whatever shows the others shows that too.

Axes of every array, in this order (`AXES`): difficulty, data size, base seed, seed.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd

# Offered here too, for those that use both.
from experiments.analysis.studies import UNTRAINED as UNTRAINED
from experiments.analysis.studies import Study as Study
from experiments.analysis.studies import left_out as left_out
from experiments.analysis.studies import studies as studies
from experiments.analysis.studies import study_rows as study_rows

AXES = ["difficulty", "data_size", "base_seed", "seed"]
TAILS = (0.05, 0.95)
MOST_NAMED = 10
"""Cells that an error names."""

MOST_MEMBERS = 20_000
"""Members of a cell: the replicates of the bootstrap need 16 kB of memory for each."""

GAPS = ("generalization_gap", "extrapolation_gap")
AT_OPTIMUM = ("test_risk", *GAPS, "train_risk", "in_distribution_risk")
LIMITS = {"hardest": "≥ ", "easiest": "≤ ", "": ""}
"""Sign before a best level, by the edge of the grid at which it is censored."""


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
        return _ratio(total, finite.sum(axis=(2, 3)))

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
        return _ratio(total, finite.sum(axis=3))

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
class Interval:
    """A mean and its 90% bootstrap interval, in the units of the metric."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.mean):
            return "–"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Shift:
    """Comparison of the best difficulties at the smallest and the largest data size.

    Attributes:
      smallest_size, largest_size: the two data sizes.
      best_at_smallest, best_at_largest: level of least mean test risk at each.
      censored_at_smallest, censored_at_largest: "easiest" or "hardest" where it is the grid's edge,
        or no further level has a finished member there.
      probability_harder: share of replicates whose best level is strictly harder at the largest
        size; NaN with one member a cell, which tells nothing about the noise.
      probability_interior: share whose best level at the smallest size is not at the grid's edge.
      easier_rise, harder_rise: test risk of the easier and the harder neighbour minus that of the
        best level, paired, at the smallest size; `None` where the grid has no such neighbour that
        did not diverge, or there is one member a cell.
      tied_size: the first of the two sizes at which all levels have the same risk, so that none is
        best; `None` if there is none.
    """

    smallest_size: int
    largest_size: int
    best_at_smallest: int
    best_at_largest: int
    censored_at_smallest: str
    censored_at_largest: str
    probability_harder: float
    probability_interior: float
    easier_rise: Interval | None
    harder_rise: Interval | None
    tied_size: int | None = None

    @property
    def neighbours_are_worse(self) -> bool:
        """True if both neighbours exist and both 90% intervals of the rises lie above zero."""
        return all(rise and rise.low > 0 for rise in (self.easier_rise, self.harder_rise))


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


def resample(metric: Cube, *, replicates: int = 2000, seed: int = 0) -> np.ndarray:
    """Draw how often each member counts in each replicate: integers [replicate, base, seed].

    A replicate draws bases with replacement; each time a base is drawn, it draws as many of its
    seeds, with replacement, as it has. The counts of a base with m seeds that was drawn k times are
    therefore one multinomial of k·m draws. Bases and seeds without data are never drawn. A
    replicate is dropped if it leaves a cell without a member that has some, because its cells
    could not be compared.

    Raises:
      ValueError: if that drops every replicate.
    """
    generator = np.random.default_rng(seed)
    present = np.asarray(np.isfinite(metric.values).any(axis=(0, 1)))
    bases = np.flatnonzero(present.sum(axis=1))
    drawn = generator.multinomial(len(bases), np.full(len(bases), 1 / len(bases)), size=replicates)
    counts = np.zeros((replicates, *present.shape), dtype=int)
    for times, base in zip(drawn.T, bases, strict=True):
        seeds = present[base].sum()
        counts[:, base] = generator.multinomial(times * seeds, present[base] / seeds)
    finite = np.isfinite(metric.values)
    members = np.einsum("rbs,dnbs->rdn", counts, finite.astype(float))
    kept = ((members > 0) | ~finite.any(axis=(2, 3))).all(axis=(1, 2))
    if not kept.any():
        raise ValueError(
            "table: too few members finished to resample them: every draw leaves some cell without "
            "a member"
        )
    return counts[kept]


def replicate_means(metric: Cube, counts: np.ndarray) -> np.ndarray:
    """Mean over members: [replicate, difficulty, data_size], NaN where none of a cell was drawn."""
    finite = np.isfinite(metric.values)
    total = np.einsum("rbs,dnbs->rdn", counts, np.where(finite, metric.values, 0.0))
    number = np.einsum("rbs,dnbs->rdn", counts, finite.astype(float))
    return _ratio(total, number)


def _ratio(total: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Total over number, NaN where the number is 0."""
    return np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)


def mean_interval(
    table: pd.DataFrame, study: Study, metric: str, *, replicates: int = 2000, seed: int = 0, **kind
) -> pd.DataFrame:
    """Mean and 90% interval by cell; `kind`: the arguments `test_slice`, `minus_base` of `cube`.

    Returns:
      One row per cell: difficulty, data_size, mean, low, high, num_members, num_missing. The first
      three numbers are NaN where every member diverged.
    """
    metrics = cube(table, study, metric, **kind)
    means = replicate_means(metrics, resample(metrics, replicates=replicates, seed=seed))
    # A cell is NaN in every replicate or in none.
    low, high = np.quantile(means, TAILS, axis=0)
    finite = np.isfinite(metrics.values)
    num_members = finite.sum(axis=(2, 3))
    cells = pd.MultiIndex.from_product([metrics.difficulties, metrics.data_sizes], names=AXES[:2])
    columns = {"mean": metrics.mean, "low": low, "high": high, "num_members": num_members}
    columns["num_missing"] = finite.any(axis=(0, 1)).sum() - num_members
    flat = {name: column.ravel() for name, column in columns.items()}
    return pd.DataFrame(flat, index=cells).reset_index()


def _best(means: np.ndarray) -> np.ndarray:
    """Position of the least mean over difficulties, the last axis but one; of ties the easiest."""
    return np.where(np.isnan(means), np.inf, means).argmin(axis=-2)


def _all_equal(means: np.ndarray) -> bool:
    """Return whether several levels have the same mean up to rounding: no level was learned."""
    finite = means[np.isfinite(means)]
    return len(finite) > 1 and bool(np.ptp(finite) < 1e-9)


def censored(position: int, levels: int) -> str:
    """Name of the edge of the grid at which a best level lies; empty inside the grid."""
    return "easiest" if position == 0 else "hardest" if position == levels - 1 else ""


def _edge(position: int, means: np.ndarray) -> str:
    """As `censored`, of the levels that have a mean."""
    finite = np.flatnonzero(np.isfinite(means))
    return censored(int(np.searchsorted(finite, position)), len(finite))


def optimum(
    table: pd.DataFrame, study: Study, *, replicates: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Find the difficulty of least mean test risk at each data size.

    Returns:
      One row per data_size at which a member finished: best_difficulty; low and high, the 5% and
      95% percentiles of the bootstrap's argmin (levels of the grid); censored, "easiest" or
      "hardest" where the best level is the edge of the grid, or of the levels that did not diverge
      there, so that the optimum may lie beyond; tied, where all levels have the same risk, so that
      none is best, and the easiest stands for all; and each name of AT_OPTIMUM there,
      with name_low and name_high (on the data that chose the level, so slightly optimistic).
    """
    # The best level: of the means, and of each replicate.
    risk = cube(table, study, "test_risk")
    counts = resample(risk, replicates=replicates, seed=seed)
    best, sizes = _best(risk.mean), np.arange(len(risk.data_sizes))
    drawn = risk.difficulties[_best(replicate_means(risk, counts))]
    low, high = np.quantile(drawn, TAILS, axis=0, method="inverted_cdf")
    result = pd.DataFrame({"data_size": risk.data_sizes})
    result["best_difficulty"], result["low"], result["high"] = risk.difficulties[best], low, high
    result["censored"] = [
        _edge(position, means) for position, means in zip(best, risk.mean.T, strict=True)
    ]
    result["tied"] = [_all_equal(means) for means in risk.mean.T]
    # Every metric at the best level of the means, over the same replicates.
    for name in AT_OPTIMUM:
        metric = cube(table, study, name)
        means = replicate_means(metric, counts)[:, best, sizes]
        result[name] = metric.mean[best, sizes]
        result[[f"{name}_low", f"{name}_high"]] = np.nanquantile(means, TAILS, axis=0).T
    return result


def shift(table: pd.DataFrame, study: Study, *, replicates: int = 2000, seed: int = 0) -> Shift:
    """Compare the best difficulty at the smallest and the largest data size (see `Shift`)."""
    risk = cube(table, study, "test_risk")
    means = replicate_means(risk, resample(risk, replicates=replicates, seed=seed))
    drawn = _best(means)
    first, final = (int(position) for position in _best(risk.mean)[[0, -1]])
    levels = np.flatnonzero(np.isfinite(risk.mean[:, 0]))
    # Resampling a single member repeats it: the replicates show no noise.
    is_one = int(np.isfinite(risk.values).any(axis=(0, 1)).sum()) == 1
    tied = [int(risk.data_sizes[at]) for at in (0, -1) if _all_equal(risk.mean[:, at])]

    def rise(step: int) -> Interval | None:
        place = int(np.searchsorted(levels, first)) + step
        if is_one or not 0 <= place < len(levels):
            return None
        neighbour = levels[place]
        low, high = np.quantile(means[:, neighbour, 0] - means[:, first, 0], TAILS)
        difference = risk.mean[neighbour, 0] - risk.mean[first, 0]
        return Interval(float(difference), float(low), float(high))

    return Shift(
        smallest_size=int(risk.data_sizes[0]),
        largest_size=int(risk.data_sizes[-1]),
        best_at_smallest=int(risk.difficulties[first]),
        best_at_largest=int(risk.difficulties[final]),
        censored_at_smallest=_edge(first, risk.mean[:, 0]),
        censored_at_largest=_edge(final, risk.mean[:, -1]),
        probability_harder=np.nan if is_one else float((drawn[:, -1] > drawn[:, 0]).mean()),
        probability_interior=float(((drawn[:, 0] > levels[0]) & (drawn[:, 0] < levels[-1])).mean()),
        tied_size=tied[0] if tied else None,
        easier_rise=rise(-1),
        harder_rise=rise(1),
    )


def format_probability(probability: float) -> str:
    """Two decimals; "> 0.99" or "< 0.01" for 1 and 0, which a finite bootstrap cannot show."""
    if np.isnan(probability):
        return "unknown from one member a cell"
    text = f"{probability:.2f}"
    return {"1.00": "> 0.99", "0.00": "< 0.01"}.get(text, text)


def headline(table: pd.DataFrame, *, replicates: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Text for the report and the documents: one row per study and data size.

    Columns: study, data_size, best_difficulty ("8 [6, 10]"), censored, and the test risk and the
    two gaps at that difficulty, each as "mean [low, high]". Where all levels have the same risk,
    the best is "none", and the gaps are those of the easiest.
    """
    rows = []
    for study in studies(table):
        for row in optimum(table, study, replicates=replicates, seed=seed).to_dict("records"):
            best = f"{row['best_difficulty']} [{row['low']}, {row['high']}]"
            if row["tied"]:
                best, row["censored"] = "none", ""
            text = {"study": study.title, "data_size": row["data_size"], "best_difficulty": best}
            text["censored"] = row["censored"]
            for name in ("test_risk", *GAPS):
                text[name] = str(Interval(row[name], row[f"{name}_low"], row[f"{name}_high"]))
            rows.append(text)
    return pd.DataFrame(rows)
