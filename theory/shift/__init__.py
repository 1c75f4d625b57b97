"""The extrapolation gap: from a bound on the training mixture's risk to one on the test risk.

Training and test share p(problem | difficulty) and differ in their distributions of difficulty,
which are known. Then the gap is a number (`extrapolation_gap`), and a bound on the training
mixture's risk R_S becomes one on the test risk R_T in one of three layers of trust:

- **unconditional**: holds whatever the risks of the levels are, at no extra delta;
- **conditional**: holds if the risk depends on difficulty as assumed; `is_monotone`, `is_lipschitz`
  and `has_increments` test whether measured risks contradict the assumption;
- **probe-certified**: labels are bought at each level, and their number is reported.

Axes: ``levels``, the difficulties in increasing order, the same for all arguments of a call;
``*cells``, any leading shape, for many posteriors at once. F_S and F_T are the distribution
functions of difficulty in training and test, r(j) is the risk at level j.

Arguments, the same in every function:

- `risk_bound` [*cells]: bound on the training mixture's risk R_S, in [0, 1].
- `slice_risk` [*cells, levels]: risk at each level, in [0, 1].
- `test`, `train` [*cells, levels]: probabilities of the difficulties in the test and in training;
  their leading axes broadcast against those of the risks.
- `num_errors` [*cells, levels]: wrong examples at each level.
- `num_examples` [levels]: labelled examples at each level; 0 where nothing was measured.
- `lower`, `upper` [levels]: ends of simultaneous intervals for the slice risks, such as
  `slice_intervals` gives; 0 and 1 at a level that was not measured.
- `least`, `most` [levels - 1]: smallest and largest rise of the risk from a level to the next.
- `delta`: probability that the result fails, in (0, 1).

ValueError is raised if an argument is out of range, the levels differ in number, or no level has
examples. Every map and gap requires that training and test share p(problem | difficulty); further
conditions are under "Valid when". Results are exact up to rounding in float64.
"""

from __future__ import annotations

from theory.shift.arguments import Layer, ShiftedBound
from theory.shift.conditional_maps import (
    has_increments,
    increments,
    is_lipschitz,
    is_monotone,
    lipschitz,
    monotone,
)
from theory.shift.gap import extrapolation_gap, gap_by_increments
from theory.shift.probed import increment_intervals, probe, slice_intervals, slice_upper_bounds
from theory.shift.unconditional_maps import (
    UNCONDITIONAL,
    chi_square,
    importance,
    kl_dro,
    neyman_pearson,
    total_variation,
    unconditional,
    weighted_importance,
)

__all__ = [
    "UNCONDITIONAL",
    "Layer",
    "ShiftedBound",
    "chi_square",
    "extrapolation_gap",
    "gap_by_increments",
    "has_increments",
    "importance",
    "increment_intervals",
    "increments",
    "is_lipschitz",
    "is_monotone",
    "kl_dro",
    "lipschitz",
    "monotone",
    "neyman_pearson",
    "probe",
    "slice_intervals",
    "slice_upper_bounds",
    "total_variation",
    "unconditional",
    "weighted_importance",
]
