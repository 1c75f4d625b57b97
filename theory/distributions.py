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

from theory.checks import check_range


def _distributions(
    p: Float[ArrayLike, "*shape levels"], q: Float[ArrayLike, "*shape levels"]
) -> tuple[Float[np.ndarray, "*shape levels"], Float[np.ndarray, "*shape levels"]]:
    """Return both as float64, after checking that they are distributions over the same levels."""
    p, q = check_range("p", p, 0, 1), check_range("q", q, 0, 1)
    if not p.ndim or not q.ndim or p.shape[-1] != q.shape[-1]:
        raise ValueError(
            f"p and q must have the same levels on their last axis, got shapes {p.shape}, {q.shape}"
        )
    for name, array in (("p", p), ("q", q)):
        total = array.sum(axis=-1)
        if not np.allclose(total, 1, rtol=0, atol=1e-6):
            raise ValueError(f"{name} must sum to 1 over the levels, got sums {total}")
    return p, q


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
    p, q = _distributions(p, q)
    return 0.5 * np.sum(np.abs(p - q), axis=-1)


def wasserstein(p: Float[ArrayLike, "*shape levels"], q: Float[ArrayLike, "*shape levels"]) -> Any:
    """Wasserstein-1 distance in levels, neighbours 1 apart: the sum of |difference of CDFs|."""
    p, q = _distributions(p, q)
    return np.sum(np.abs(np.cumsum(p - q, axis=-1)), axis=-1)


def chi_square(p: Float[ArrayLike, "*shape levels"], q: Float[ArrayLike, "*shape levels"]) -> Any:
    """Chi-square divergence of p from q, sum of (p - q)²/q; infinite if q lacks support."""
    p, q = _distributions(p, q)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sum(np.where(p == q, 0.0, (p - q) ** 2 / q), axis=-1)


def kl_divergence(
    p: Float[ArrayLike, "*shape levels"], q: Float[ArrayLike, "*shape levels"]
) -> Any:
    """KL(p ‖ q) in nats, sum of p ln(p/q); infinite if q lacks support."""
    p, q = _distributions(p, q)
    return np.maximum(np.sum(rel_entr(p, q), axis=-1), 0.0)


def max_ratio(p: Float[ArrayLike, "*shape levels"], q: Float[ArrayLike, "*shape levels"]) -> Any:
    """Largest p/q, the largest importance weight; infinite if q lacks support."""
    p, q = _distributions(p, q)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.max(np.where(p > 0, p / q, 0.0), axis=-1)
