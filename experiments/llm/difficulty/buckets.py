"""Buckets and windows of problems, ordered by a measure of difficulty.

Buckets are levels of difficulty, 1 the easiest, so that a scan of any data set can vary difficulty
as the simulator does. A window leaves out the easiest or the hardest problems.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from jaxtyping import Bool, Float, Int

Measure = Literal["op", "cot_tokens", "pass_rate", "perplexity"]


@dataclass(frozen=True)
class Scale:
    """Meaning of a measure's values.

    Attributes:
      label: name and unit.
      hard_is_high: true if higher values mean harder problems.
    """

    label: str
    hard_is_high: bool


MEASURES: dict[Measure, Scale] = {
    "op": Scale("stated difficulty (level)", True),
    "cot_tokens": Scale("length of the solution (tokens)", True),
    "pass_rate": Scale("pass rate of the base (share of samples)", False),
    "perplexity": Scale("perplexity per solution token", True),
}
"""The only list of measures."""


@dataclass(frozen=True)
class Buckets:
    """Levels 1 (easiest) to k of a measure, between inner edges.

    A value at an edge belongs to the easier of its two buckets, so that equal values are never
    separated. Edges from the training problems are used for the test problems too. The result of
    `dataclasses.asdict` can be stored as JSON, and ``Buckets(**record)`` reads it back.

    Attributes:
      measure: the measure that is cut.
      edges: the k − 1 inner edges in the measure's own unit, from easy to hard: falling for
        ``pass_rate``, rising for other measures.
    """

    measure: Measure
    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_measure(self.measure)
        edges = tuple(float(edge) for edge in self.edges)
        object.__setattr__(self, "edges", edges)
        steps = np.diff(_hardness(self.measure, edges)) if len(edges) else np.array([])
        if not len(edges) or (steps <= 0).any():
            order = "rise" if MEASURES[self.measure].hard_is_high else "fall"
            raise ValueError(
                f"edges of {self.measure} must be one or more numbers that {order} "
                f"(from easy to hard), got {edges}"
            )

    @classmethod
    def fixed(cls, measure: Measure, edges: Sequence[float]) -> Buckets:
        """Buckets between the given inner edges, in any order.

        Raises:
          ValueError: if the measure is unknown, or an edge is not a number or is given twice.
        """
        _check_measure(measure)
        return cls(measure, tuple(sorted(edges, reverse=not MEASURES[measure].hard_is_high)))

    @classmethod
    def quantiles(cls, measure: Measure, values: Any, number: int) -> Buckets:
        """Buckets with equal numbers of problems, as nearly as equal values allow.

        Edge j is the value for which the share of problems that are not harder is nearest to
        j / `number`; if two values are equally near, the easier one.

        Args:
          measure: the measure that is cut.
          values: the measure of each problem.
          number: number of buckets.

        Raises:
          ValueError: if the measure is unknown or missing for a problem, if there are fewer
            problems than buckets, or so many equal values that a bucket would be empty.
        """
        hardness = _hardness(measure, values)
        if number < 2:
            raise ValueError(f"number of buckets must be at least 2, got {number}")
        if len(hardness) < number:
            raise ValueError(
                f"{number} buckets need at least as many problems, got {len(hardness)}"
            )
        levels, counts = np.unique(hardness, return_counts=True)
        # Compare the shares as whole numbers, without rounding. The hardest value is no edge, as no
        # problem is harder.
        not_harder = number * counts.cumsum()[:-1]
        wanted = len(hardness) * np.arange(1, number)
        distance = np.abs(not_harder[None] - wanted[:, None])
        places = distance.argmin(axis=1) if len(levels) > 1 else np.zeros(number - 1, int)
        # Turn hardness back into the measure's unit, and refuse buckets without problems.
        edges = tuple((_sign(measure) * levels[places]).tolist())
        sizes = np.diff([0, *(counts.cumsum()[places]), len(hardness)])
        if (sizes == 0).any():
            raise ValueError(
                f"bucket {int(np.argmin(sizes)) + 1} of {number} would be empty: {measure} has so "
                f"many equal values ({len(levels)} different ones in {len(hardness)} problems) "
                f"that the edges would be {list(edges)}, with {sizes.tolist()} problems; take "
                f"fewer buckets, or fixed edges"
            )
        return cls(measure, edges)

    @classmethod
    def cut(
        cls, measure: Measure, values: Any, number: int, edges: Sequence[float] = ()
    ) -> Buckets:
        """Buckets by `fixed` if edges are given, else by `quantiles`."""
        return cls.fixed(measure, edges) if edges else cls.quantiles(measure, values, number)

    @property
    def number(self) -> int:
        """Number of buckets."""
        return len(self.edges) + 1

    def assign(self, values: Any, *, least: int = 1) -> Int[np.ndarray, " problems"]:
        """Bucket of each problem, from 1 (easiest).

        Args:
          values: the measure of each problem.
          least: the fewest problems that a bucket may have; 0 for test sets, where some may be
            empty.

        Raises:
          ValueError: if a value is missing, or a bucket has fewer than `least` problems.
        """
        edges = _hardness(self.measure, self.edges)
        buckets = np.searchsorted(edges, _hardness(self.measure, values), side="left") + 1
        counts = np.bincount(buckets, minlength=self.number + 1)[1:]
        if (counts < least).any():
            short = (np.flatnonzero(counts < least) + 1).tolist()
            what = "are empty" if least == 1 else f"have fewer than {least} problems"
            raise ValueError(
                f"buckets {short} of {self.measure} {what}: edges {list(self.edges)} give "
                f"{counts.tolist()} problems, easiest first"
            )
        return buckets

    def describe(self) -> list[str]:
        """Describe the values of each bucket in words, the easiest first."""
        rises = MEASURES[self.measure].hard_is_high
        within, beyond = ("≤", ">") if rises else ("≥", "<")
        edges = [f"{edge:g}" for edge in self.edges]
        between = [
            f"{easy} < {self.measure} ≤ {hard}" if rises else f"{hard} ≤ {self.measure} < {easy}"
            for easy, hard in itertools.pairwise(edges)
        ]
        return [
            f"{self.measure} {within} {edges[0]}",
            *between,
            f"{self.measure} {beyond} {edges[-1]}",
        ]


def levels(
    table: pd.DataFrame, buckets: Buckets | None = None, *, least: int = 1
) -> Int[np.ndarray, " problems"]:
    """Difficulty of each problem in a table of measures: its bucket, or its stated op.

    Args:
      table: one row a problem, as `experiments.llm.difficulty.measures.measure` gives it.
      buckets: buckets of one of its columns; None for the stated op itself.
      least: see `Buckets.assign`.

    Raises:
      ValueError: if the table lacks the measure, for all problems or for some, or a bucket has
        fewer than `least` problems.
    """
    measure = buckets.measure if buckets else "op"
    if measure not in table:
        there = [name for name in MEASURES if name in table]
        raise ValueError(f"measure {measure!r} is not in the table, which has {there}")
    if buckets:
        return buckets.assign(table[measure], least=least)
    return _hardness(measure, table[measure]).astype(int)


WINDOW_SEED = 0
"""Seed of the order of problems with equal values, for all data sets and measures."""


def check_share(name: str, share: float) -> None:
    """Raise ValueError unless a share lies in [0, 1)."""
    if not 0 <= share < 1:
        raise ValueError(f"{name} must be a share in [0, 1), got {share}")


def window(
    measure: Measure, values: Any, *, drop_easiest: float = 0.0, drop_hardest: float = 0.0
) -> Bool[np.ndarray, " problems"]:
    """Leave out the easiest or the hardest problems: true for those that remain.

    The shares are exact up to one problem: among equal values at the cut, a fixed shuffle decides.
    So a larger share leaves out every problem that a smaller share leaves out.

    Args:
      measure: the measure that orders the problems.
      values: the measure of each problem.
      drop_easiest: share of problems to leave out at the easy end.
      drop_hardest: share at the hard end.

    Raises:
      ValueError: if the measure is unknown or missing for a problem, a share is not in [0, 1), or
        nothing would remain.
    """
    hardness = _hardness(measure, values)
    for name, share in (("drop_easiest", drop_easiest), ("drop_hardest", drop_hardest)):
        check_share(name, share)
    first = round(drop_easiest * len(hardness))
    last = len(hardness) - round(drop_hardest * len(hardness))
    if first >= last:
        raise ValueError(
            f"drop_easiest {drop_easiest} and drop_hardest {drop_hardest} leave nothing of "
            f"{len(hardness)} problems"
        )
    shuffle = np.random.default_rng(WINDOW_SEED).permutation(len(hardness))
    remains = np.zeros(len(hardness), bool)
    remains[np.lexsort((shuffle, hardness))[first:last]] = True
    return remains


@dataclass(frozen=True)
class Cut:
    """A cut of a data set into buckets, before its problems are measured.

    Attributes:
      measure: the measure that is cut; ``op`` keeps the stated levels.
      number: number of buckets of equal size; unused with `edges`.
      edges: inner edges of the buckets, in any order.
      drop_easiest, drop_hardest: shares of the problems to leave out; see `window`.
    """

    measure: Measure
    number: int = 3
    edges: tuple[float, ...] = ()
    drop_easiest: float = 0.0
    drop_hardest: float = 0.0

    def __post_init__(self) -> None:
        # Here, so that figures, which read measures, load nothing of the simulator.
        from synth.arguments import check_number, check_whole

        check_whole("number of buckets", self.number, 2)
        for edge in self.edges:
            check_number("edges", edge)
        for name in ("drop_easiest", "drop_hardest"):
            check_share(name, getattr(self, name))

    def apply(self, values: Any) -> tuple[Bool[np.ndarray, " problems"], Buckets | None]:
        """Return whether each problem remains, and the buckets of those that do; None for ``op``.

        Args:
          values: the measure of each problem.

        Raises:
          ValueError: see `window` and `Buckets.cut`.
        """
        remains = window(
            self.measure, values, drop_easiest=self.drop_easiest, drop_hardest=self.drop_hardest
        )
        if self.measure == "op":
            return remains, None
        return remains, Buckets.cut(self.measure, values[remains], self.number, self.edges)


def _check_measure(measure: str) -> None:
    if measure not in MEASURES:
        raise ValueError(f"measure must be one of {list(MEASURES)}, got {measure!r}")


def _hardness(measure: Measure, values: Any) -> Float[np.ndarray, " problems"]:
    """Check values, and change their sign if needed so that higher means harder."""
    import pandas as pd

    _check_measure(measure)
    numbers = pd.Series(values, dtype="Float64").to_numpy(np.float64, na_value=np.nan)
    if missing := np.flatnonzero(~np.isfinite(numbers)).tolist():
        raise ValueError(
            f"{measure} must be a finite number for every problem, but it is missing for "
            f"{len(missing)} of {len(numbers)}, the first in row {missing[0]}"
        )
    return _sign(measure) * numbers


def _sign(measure: Measure) -> float:
    """Factor from a measure to hardness, and back."""
    return 1.0 if MEASURES[measure].hard_is_high else -1.0
