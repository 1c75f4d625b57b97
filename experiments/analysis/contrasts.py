"""Contrasts: comparisons of cells that a recipe writes down before the run that tests them.

A recipe lists its contrasts under `PREREGISTERED`. Each is a sum of cells' metrics with weights,
and the claim says that it is above zero. It is computed for each base, which is the unit.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """One cell's metric, times a weight.

    Attributes:
      weight: factor of the metric; it may be negative.
      difficulty, data_size: of the cell; 0 and 0 for the untouched base.
      loss: of the cell.
      mixture: of the cell, as in the column ``train_mixture``.
      metric: a name in the column ``metric``.
      levels: first and last test level whose mean is taken; None for a metric that has no slices.
    """

    weight: float
    difficulty: int
    data_size: int
    loss: str = "sft"
    mixture: str = "exact"
    metric: str = "test_risk"
    levels: tuple[int, int] | None = None

    @classmethod
    def of_base(cls, weight: float, levels: tuple[int, int] | None = None) -> Term:
        """The untouched base's test risk, or its mean risk on some levels."""
        metric = "test_risk" if levels is None else "risk"
        return cls(weight, 0, 0, loss="none", mixture="none", metric=metric, levels=levels)


@dataclass(frozen=True)
class Contrast:
    """A comparison that a claim predicts to be above zero.

    Attributes:
      claim: number of the paper's claim, as docs/results.md lists them.
      says: what is compared, in words that go on "... is above zero" or stand alone.
      terms: the weighted cells.
    """

    claim: int
    says: str
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Move:
    """The prediction that the best level at `to_size` is harder than at `from_size` (claim 1)."""

    claim: int
    says: str
    from_size: int
    to_size: int
    loss: str = "sft"
    mixture: str = "exact"


@dataclass(frozen=True)
class Rise:
    """The prediction that the best level rises from run to run of one recipe (claim 6).

    Attributes:
      claim: number of the paper's claim.
      says: what is compared, in words.
      presets: of the runs, in the order in which the best level is predicted to rise.
      data_size: at which the best levels are compared.
    """

    claim: int
    says: str
    presets: tuple[str, ...]
    data_size: int
    loss: str = "sft"
    mixture: str = "exact"


@dataclass(frozen=True)
class Covered:
    """The prediction that certificates lie above the measured test risk in every cell (claim 8).

    Attributes:
      claim: number of the paper's claim.
      says: what is compared, in words.
      method: of the certificates, a value of the column ``method``.
      bound: their column, a bound on the test risk.
    """

    claim: int
    says: str
    method: str
    bound: str = "test_bound_unconditional"


Prediction = Contrast | Move | Rise | Covered
