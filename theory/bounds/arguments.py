"""Checks of the arguments that all bounds share, and the rounding of their results."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from theory.divergence import check_count, check_range


def check_arguments(
    empirical_risk: Float[ArrayLike, "*cells"],
    kl: Float[ArrayLike, "*cells"],
    num_examples: Int[ArrayLike, "*cells"],
    delta: Float[ArrayLike, "*cells"],
    *,
    fewest: int = 1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Check the arguments of a bound, and return them as arrays that broadcast.

    Args:
      empirical_risk, kl, num_examples, delta: see any bound.
      fewest: least number of examples.

    Raises:
      ValueError: if the risk lies outside [0, 1], the KL is negative, there are fewer than
        `fewest` examples, delta lies outside (0, 1), or the shapes do not broadcast.
    """
    arguments = (
        check_range("empirical_risk", empirical_risk, 0, 1),
        check_range("kl", kl, 0, np.inf),
        check_count("num_examples", num_examples, fewest),
        check_range("delta", delta, 0, 1, ends=False),
    )
    shapes = [argument.shape for argument in arguments]
    try:
        np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise ValueError(
            f"empirical_risk, kl, num_examples and delta must broadcast, got shapes {shapes}"
        ) from error
    return arguments


def check_fixed(kl: Float[np.ndarray, "*cells"]) -> None:
    """Refuse a KL other than 0, for bounds of a hypothesis that was fixed before the sample.

    Raises:
      ValueError: if a `kl` is not 0.
    """
    if np.any(kl != 0):
        raise ValueError(
            "kl must be 0, as a test-set bound is for a hypothesis fixed before the sample; "
            f"got {kl[kl != 0][0]}"
        )


def rounded_up(bound: Float[np.ndarray, "*cells"]) -> Any:
    """Raise a bound in closed form above its rounding errors (of a few eps), and clip it at 1."""
    return np.minimum(bound * (1 + 16 * np.finfo(np.float64).eps), 1.0)[()]
