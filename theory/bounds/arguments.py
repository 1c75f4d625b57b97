"""Checks of the arguments that all bounds share, and the rounding of their results.

Bounds work on concrete numbers, in NumPy's float64, and on values that ``jit``, ``grad`` or
``vmap`` traces, in the dtype of these. A bound writes its formula once, with the functions below
that do the same for both.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from theory.checks import check_count, check_range, is_traced, same_kind


def check_arguments(
    empirical_risk: Float[ArrayLike, "*cells"],
    kl: Float[ArrayLike, "*cells"],
    num_examples: Int[ArrayLike, "*cells"],
    delta: Float[ArrayLike, "*cells"],
    *,
    fewest: int = 1,
) -> tuple[Any, Any, Any, Any]:
    """Check the arguments of a bound, and return them as float64 arrays that broadcast.

    Traced values cannot be checked. If there are any, all arguments are returned in one shape and
    in the dtype of the traced ones, with NaN as the risk wherever a traced value is out of range.

    Args:
      empirical_risk, kl, num_examples, delta: see any bound.
      fewest: least number of examples.

    Raises:
      ValueError: if a concrete risk lies outside [0, 1], a KL is negative, there are fewer than
        `fewest` examples, delta lies outside (0, 1), or the shapes do not broadcast.
    """
    # As float64, because twice a large int64 would wrap round.
    arguments = (
        known_range("empirical_risk", empirical_risk, 0, 1),
        known_range("kl", kl, 0, np.inf),
        _known_count("num_examples", num_examples, fewest),
        known_range("delta", delta, 0, 1, ends=False),
    )
    shapes = [np.shape(argument) for argument in arguments]
    try:
        np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise ValueError(
            f"empirical_risk, kl, num_examples and delta must broadcast, got shapes {shapes}"
        ) from error
    if not is_traced(*arguments):
        return arguments
    risk, kl, n, delta = same_kind(*arguments)
    inside = (risk >= 0) & (risk <= 1) & (kl >= 0) & (n >= fewest) & (delta > 0) & (delta < 1)
    return jnp.where(inside, risk, jnp.nan), kl, n, delta


def known_range(
    name: str, values: ArrayLike, lowest: float, highest: float, *, ends: bool = True
) -> Any:
    """Check that values lie in an interval, as `check_range` does, unless they are traced."""
    return values if is_traced(values) else check_range(name, values, lowest, highest, ends=ends)


def _known_count(name: str, values: ArrayLike, lowest: int) -> Any:
    """Check counts unless they are traced, and return them as float64."""
    if is_traced(values):
        return values
    return check_count(name, values, lowest).astype(np.float64)


def check_concrete(name: str, values: Any, reason: str) -> None:
    """Refuse a traced value where a bound computes with it before compilation.

    Raises:
      ValueError: with the reason.
    """
    if is_traced(values):
        raise ValueError(
            f"{name} must not be traced by jit, grad or vmap, because {reason}: pass a number, or "
            f"name it in static_argnames"
        )


def check_fixed(kl: Float[ArrayLike, "*cells"]) -> None:
    """Refuse a KL other than 0, for bounds of a hypothesis that was fixed before the sample.

    Raises:
      ValueError: if a `kl` is not 0.
    """
    check_concrete("kl", kl, "a test-set bound needs a KL of 0")
    values = check_range("kl", kl, 0, np.inf)
    if np.any(values != 0):
        raise ValueError(
            "kl must be 0, as a test-set bound is for a hypothesis fixed before the sample; "
            f"got {values[values != 0][0]}"
        )


def like(traced: Any, values: Any) -> Any:
    """Return concrete values in dtype and shape of the risk from `check_arguments`, if traced."""
    if not is_traced(traced):
        return values
    return jnp.broadcast_to(jnp.asarray(values, traced.dtype), traced.shape)


def _numpy_or_jax(values: Any) -> Any:
    # Where one argument is traced, `check_arguments` turns the others into arrays of JAX.
    return jnp if isinstance(values, jax.Array) else np


def log(values: Any) -> Any:
    """Natural logarithm."""
    return _numpy_or_jax(values).log(values)


def sqrt(values: Any) -> Any:
    """Square root."""
    return _numpy_or_jax(values).sqrt(values)


def expm1(values: Any) -> Any:
    """e to the power of the values, less 1."""
    return _numpy_or_jax(values).expm1(values)


def rounded_up(bound: Any) -> Any:
    """Raise a bound in closed form above its rounding errors (of a few eps), and clip it at 1."""
    if isinstance(bound, jax.Array):
        return jnp.minimum(bound * (1 + 16 * float(jnp.finfo(bound.dtype).eps)), 1.0)
    return np.minimum(bound * (1 + 16 * np.finfo(np.float64).eps), 1.0)[()]
