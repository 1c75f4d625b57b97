"""Distances between distributions over levels of difficulty.

They take concrete numbers and return NumPy float64: a scalar for two distributions, else an array
of the broadcast leading axes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import rel_entr

from theory.checks import host_array


def check_distributions(
    **given: Float[ArrayLike, "*shape levels"],
) -> tuple[Float[np.ndarray, "*shape levels"], ...]:
    """Return distributions over the same levels in float64, their sums made exactly 1.

    Args:
      given: each by its name, which errors tell.

    Raises:
      ValueError: if one of them is no distribution, or they do not have the same levels.
    """
    checked = []
    for name, values in given.items():
        array = host_array(name, values, "probabilities").astype(np.float64)
        sums = array.sum(axis=-1, keepdims=True) if array.ndim else np.zeros(1)
        if not (array >= 0).all() or not (np.abs(sums - 1) <= 1e-6).all():
            raise ValueError(
                f"{name} must be probabilities [..., levels] that sum to 1 (within 1e-6), "
                f"got {array}"
            )
        checked.append(array / sums)
    levels = [array.shape[-1] for array in checked]
    if len(set(levels)) > 1:
        raise ValueError(
            f"{' and '.join(given)} must have the same levels, got {' and '.join(map(str, levels))}"
        )
    return tuple(checked)


def total_variation(
    p: Float[ArrayLike, "*shape levels"], q: Float[ArrayLike, "*shape levels"]
) -> Any:
    """Half the sum of |p - q|: the largest difference in the probability of an event.

    The other distances have the same arguments and errors.

    Args:
      p, q: distributions over the same levels, on the last axis; leading axes broadcast.

    Raises:
      ValueError: if they are not distributions over the same levels.
    """
    p, q = check_distributions(p=p, q=q)
    return 0.5 * np.sum(np.abs(p - q), axis=-1)


def wasserstein(p: Float[ArrayLike, "*shape levels"], q: Float[ArrayLike, "*shape levels"]) -> Any:
    """Wasserstein-1 distance in levels, neighbours 1 apart: the sum of |difference of CDFs|."""
    p, q = check_distributions(p=p, q=q)
    return np.sum(np.abs(np.cumsum(p - q, axis=-1)), axis=-1)


def chi_square(p: Float[ArrayLike, "*shape levels"], q: Float[ArrayLike, "*shape levels"]) -> Any:
    """Chi-square divergence of p from q, sum of (p - q)²/q; infinite if q lacks support."""
    p, q = check_distributions(p=p, q=q)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sum(np.where(p == q, 0.0, (p - q) ** 2 / q), axis=-1)


def kl_divergence(
    p: Float[ArrayLike, "*shape levels"], q: Float[ArrayLike, "*shape levels"]
) -> Any:
    """KL(p ‖ q) in nats, sum of p ln(p/q); infinite if q lacks support."""
    p, q = check_distributions(p=p, q=q)
    return np.maximum(np.sum(rel_entr(p, q), axis=-1), 0.0)


def max_ratio(p: Float[ArrayLike, "*shape levels"], q: Float[ArrayLike, "*shape levels"]) -> Any:
    """Largest p/q, the largest importance weight; infinite if q lacks support."""
    p, q = check_distributions(p=p, q=q)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.max(np.where(p > 0, p / q, 0.0), axis=-1)
