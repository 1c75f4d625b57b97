"""The extrapolation gap itself, from the risks of all levels."""

from __future__ import annotations

import numpy as np
from jaxtyping import ArrayLike, Float

from theory.checks import check_range
from theory.distributions import check_distributions
from theory.shift.arguments import check_levels, excess


def extrapolation_gap(
    slice_risk: Float[ArrayLike, "*cells levels"],
    test: Float[ArrayLike, "*cells levels"],
    train: Float[ArrayLike, "*cells levels"],
) -> Float[np.ndarray, "*cells"]:
    """Test risk minus the training mixture's risk, exactly; shape [*cells]."""
    risk, test, train = _check_arguments(slice_risk, test, train)
    return np.sum(risk * (test - train), axis=-1)


def gap_by_increments(
    slice_risk: Float[ArrayLike, "*cells levels"],
    test: Float[ArrayLike, "*cells levels"],
    train: Float[ArrayLike, "*cells levels"],
) -> Float[np.ndarray, "*cells"]:
    """The same gap [*cells] as a sum over levels j of (F_S(j) - F_T(j)) (r(j + 1) - r(j)).

    Equal to `extrapolation_gap` by summation by parts. The conditional bounds follow from this
    form: only the rises of the risk matter, each weighed by how much easier training is below it.
    """
    risk, test, train = _check_arguments(slice_risk, test, train)
    return np.sum(np.diff(risk) * excess(test, train), axis=-1)


def _check_arguments(
    slice_risk: ArrayLike, test: ArrayLike, train: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    test, train = check_distributions(test=test, train=train)
    risk = check_range("slice_risk", slice_risk, 0, 1)
    return check_levels("slice_risk", risk, test.shape[-1]), test, train
