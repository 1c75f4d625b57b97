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

from experiments.llm.difficulty.scales import Direction, Measure, hard_is_high, is_measure

if TYPE_CHECKING:
    import pandas as pd
    from jaxtyping import Bool, Float, Int

Missing = Literal["drop"]
"""Treatment of problems that lack a measure, if it is no error."""


@dataclass(frozen=True)
class Buckets:
    """Levels 1 (easiest) to k of a measure, between inner edges.

    A value at an edge belongs to the easier of its two buckets, so that equal values are never
    separated. Edges from the training problems are used for the test problems too. The result of
    `dataclasses.asdict` can be stored as JSON, and ``Buckets(**record)`` reads it back.

    Attributes:
      measure: the measure that is cut.
      edges: the k − 1 inner edges in the measure's own unit, from easy to hard: rising if higher
        values are harder, else falling.
      harder: which values are harder, see `experiments.llm.difficulty.scales.hard_is_high`.
    """

    measure: Measure
    edges: tuple[float, ...]
    harder: Direction | None = None

    def __post_init__(self) -> None:
        rises = hard_is_high(self.measure, self.harder)
        edges = tuple(float(edge) for edge in self.edges)
        object.__setattr__(self, "edges", edges)
        steps = np.diff(self._hardness(edges)) if len(edges) else np.array([])
        if not len(edges) or (steps <= 0).any():
            order = "rise" if rises else "fall"
            raise ValueError(
                f"edges of {self.measure} must be one or more numbers that {order} "
                f"(from easy to hard), got {edges}"
            )

    @classmethod
    def fixed(
        cls, measure: Measure, edges: Sequence[float], harder: Direction | None = None
    ) -> Buckets:
        """Buckets between the given inner edges, in any order.

        Raises:
          ValueError: if the measure is unknown, or an edge is not a number or is given twice.
        """
        rises = hard_is_high(measure, harder)
        return cls(measure, tuple(sorted(edges, reverse=not rises)), harder)

    @classmethod
    def quantiles(
        cls, measure: Measure, values: Any, number: int, harder: Direction | None = None
    ) -> Buckets:
        """Buckets with equal numbers of problems, as nearly as equal values allow.

        Edge j is the value for which the share of problems that are not harder is nearest to
        j / `number`; if two values are equally near, the easier one.

        Args:
          measure: the measure that is cut.
          values: the measure of each problem.
          number: number of buckets.
          harder: which values are harder.

        Raises:
          ValueError: if the measure is unknown or missing for a problem, if there are fewer
            problems than buckets, or so many equal values that a bucket would be empty.
        """
        hardness = _hardness(measure, values, harder)
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
        sign = 1.0 if hard_is_high(measure, harder) else -1.0
        edges = tuple((sign * levels[places]).tolist())
        sizes = np.diff([0, *(counts.cumsum()[places]), len(hardness)])
        if (sizes == 0).any():
            raise ValueError(
                f"bucket {int(np.argmin(sizes)) + 1} of {number} would be empty: {measure} has so "
                f"many equal values ({len(levels)} different ones in {len(hardness)} problems) "
                f"that the edges would be {list(edges)}, with {sizes.tolist()} problems; take "
                f"fewer buckets, or fixed edges"
            )
        return cls(measure, edges, harder)

    @classmethod
    def cut(
        cls,
        measure: Measure,
        values: Any,
        number: int,
        edges: Sequence[float] = (),
        harder: Direction | None = None,
    ) -> Buckets:
        """Buckets by `fixed` if edges are given, else by `quantiles`."""
        if edges:
            return cls.fixed(measure, edges, harder)
        return cls.quantiles(measure, values, number, harder)

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
        edges = self._hardness(self.edges)
        buckets = np.searchsorted(edges, self._hardness(values), side="left") + 1
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
        rises = hard_is_high(self.measure, self.harder)
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

    def _hardness(self, values: Any) -> Float[np.ndarray, " problems"]:
        return _hardness(self.measure, values, self.harder)


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
        there = [name for name in table if is_measure(str(name))]
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
    measure: Measure,
    values: Any,
    *,
    drop_easiest: float = 0.0,
    drop_hardest: float = 0.0,
    harder: Direction | None = None,
) -> Bool[np.ndarray, " problems"]:
    """Leave out the easiest or the hardest problems: true for those that remain.

    The shares are exact up to one problem: among equal values at the cut, a fixed shuffle decides.
    So a larger share leaves out every problem that a smaller share leaves out.

    Args:
      measure: the measure that orders the problems.
      values: the measure of each problem.
      drop_easiest: share of problems to leave out at the easy end.
      drop_hardest: share at the hard end.
      harder: which values are harder.

    Raises:
      ValueError: if the measure is unknown or missing for a problem, a share is not in [0, 1), or
        nothing would remain.
    """
    hardness = _hardness(measure, values, harder)
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
      harder: which values of the measure are harder.
      missing: what becomes of problems without a value; None for an error.
    """

    measure: Measure
    number: int = 3
    edges: tuple[float, ...] = ()
    drop_easiest: float = 0.0
    drop_hardest: float = 0.0
    harder: Direction | None = None
    missing: Missing | None = None

    def __post_init__(self) -> None:
        # Here, so that figures, which read measures, load nothing of the simulator.
        from synth.arguments import check_number, check_whole

        hard_is_high(self.measure, self.harder)
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
        numbers = _numbers(values)
        remains = np.isfinite(numbers) if self.missing == "drop" else np.ones(len(numbers), bool)
        remains[remains] = window(
            self.measure,
            numbers[remains],
            drop_easiest=self.drop_easiest,
            drop_hardest=self.drop_hardest,
            harder=self.harder,
        )
        if self.measure == "op":
            return remains, None
        kept = numbers[remains]
        return remains, Buckets.cut(self.measure, kept, self.number, self.edges, self.harder)


def _numbers(values: Any) -> Float[np.ndarray, " problems"]:
    """Values as floating-point numbers; NaN where they are missing."""
    import pandas as pd

    return pd.Series(values, dtype="Float64").to_numpy(np.float64, na_value=np.nan)


def _hardness(
    measure: Measure, values: Any, harder: Direction | None = None
) -> Float[np.ndarray, " problems"]:
    """Check values, and change their sign if needed so that higher means harder."""
    sign = 1.0 if hard_is_high(measure, harder) else -1.0
    numbers = _numbers(values)
    check_complete(measure, numbers)
    return sign * numbers


def check_complete(measure: Measure, numbers: Float[np.ndarray, " problems"]) -> None:
    """Raise ValueError, which counts them and names the first, if values are missing."""
    if missing := np.flatnonzero(~np.isfinite(numbers)).tolist():
        raise ValueError(
            f"{measure} must be a finite number for every problem, but it is missing for "
            f"{len(missing)} of {len(numbers)}, the first in row {missing[0]} (--missing drop "
            f"leaves them out)"
        )
