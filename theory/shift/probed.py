"""Bounds from labels that are bought at each level."""

from __future__ import annotations

import numpy as np
from jaxtyping import ArrayLike, Float, Int

from theory.bounds.clopper_pearson import clopper_pearson
from theory.checks import check_count, check_range
from theory.distributions import check_distributions
from theory.shift.arguments import ShiftedBound, check_levels


def slice_upper_bounds(
    num_errors: Int[ArrayLike, "*cells levels"],
    num_examples: Int[ArrayLike, " levels"],
    *,
    delta: float,
) -> Float[np.ndarray, "*cells levels"]:
    """Bound the risks of all levels at once: Clopper-Pearson at delta / (levels with examples).

    A level without examples gets the bound 1.

    Valid when:
      The numbers of examples were fixed before any label was seen, and examples are independent
      draws of their level that training did not use. For a Gibbs risk, each example is judged by
      fresh weights of the posterior.

    References:
      Clopper and Pearson (1934); Langford (2005), Tutorial on practical prediction theory.
    """
    check_range("delta", delta, 0, 1, ends=False)
    examples = check_count("num_examples", num_examples, 0)
    errors = check_levels("num_errors", check_count("num_errors", num_errors, 0), examples.size)
    if examples.ndim != 1 or not (probed := np.count_nonzero(examples)):
        raise ValueError(f"num_examples must be counts [levels], not all 0; got {examples}")
    if (errors > examples).any():
        raise ValueError(f"num_errors must be at most num_examples {examples}, got {errors}")
    bounds, seen = np.ones(errors.shape), examples > 0
    bounds[..., seen] = clopper_pearson(
        errors[..., seen] / examples[seen], num_examples=examples[seen], delta=delta / probed
    )
    return bounds


def slice_intervals(
    num_errors: Int[ArrayLike, "*cells levels"],
    num_examples: Int[ArrayLike, " levels"],
    *,
    delta: float,
) -> tuple[Float[np.ndarray, "*cells levels"], Float[np.ndarray, "*cells levels"]]:
    """Bound the risks of all levels at once from below and above, with half of delta on each side.

    A level without examples gets [0, 1].

    Valid when:
      As for `slice_upper_bounds`.
    """
    check_range("delta", delta, 0, 1, ends=False)
    correct = np.asarray(num_examples) - np.asarray(num_errors)
    upper = slice_upper_bounds(num_errors, num_examples, delta=delta / 2)
    return 1 - slice_upper_bounds(correct, num_examples, delta=delta / 2), upper


def increment_intervals(
    lower: Float[ArrayLike, "*cells levels"], upper: Float[ArrayLike, "*cells levels"]
) -> tuple[Float[np.ndarray, "*cells levels-1"], Float[np.ndarray, "*cells levels-1"]]:
    """Bound the rises between neighbouring levels: `least` and `most`, each [*cells, levels - 1].

    Valid when:
      The intervals hold for all levels at once; then so do these, at the same delta.
    """
    lower, upper = np.asarray(lower), np.asarray(upper)
    return lower[..., 1:] - upper[..., :-1], upper[..., 1:] - lower[..., :-1]


def probe(
    num_errors: Int[ArrayLike, "*cells levels"],
    num_examples: Int[ArrayLike, " levels"],
    test: Float[ArrayLike, " levels"],
    *,
    delta: float,
) -> ShiftedBound:
    """Bound the test risk by labels bought at each level; no bound on R_S is needed.

    A level without examples counts with a risk of 1.

    Valid when:
      As for `slice_upper_bounds`, and the test shares p(problem | difficulty) with the probe.
    """
    (test,) = check_distributions(test=test)
    check_levels("num_examples", num_examples, len(test))
    upper = slice_upper_bounds(num_errors, num_examples, delta=delta)
    return ShiftedBound(
        np.minimum(upper @ test, 1.0), "probe-certified", "probe", int(np.sum(num_examples))
    )
