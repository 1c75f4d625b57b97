"""Catoni's bound, with one constant or the best of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from theory.bounds.arguments import check_arguments, expm1, known_range, log, rounded_up
from theory.checks import check_range, is_traced, same_kind

GRID = tuple(2.0**power for power in range(-7, 5))
"""From 1/128 to 16: within a factor of sqrt(2) of the best constant for n up to about 10^6."""


def catoni(
    empirical_risk: Float[ArrayLike, "*cells"],
    kl: Float[ArrayLike, "*cells"],
    *,
    num_examples: Int[ArrayLike, "*cells"],
    delta: Float[ArrayLike, "*cells"],
    c: Float[ArrayLike, "*cells"] = 1.0,
) -> Any:
    r"""Bound the Gibbs risk by an exponential of empirical risk and KL, linear in its exponent.

    With n examples, $R \le (1 - \exp(-cL - (K + \ln(1/\delta))/n)) / (1 - e^{-c})$. No constant in
    it grows with n. The best c is near the log-odds ratio of the bound to L.

    Args:
      empirical_risk: L, the posterior-average loss on the sample, in [0, 1].
      kl: K, KL(posterior ‖ prior), in nats.
      num_examples: n, the size of the sample.
      delta: probability with which the bound may fail, in (0, 1).
      c: positive constant, **fixed before the sample was seen**.

    Returns:
      The bound, rounded up and clipped at 1.

    Raises:
      ValueError: if an argument is out of range, or they do not broadcast.

    Valid when:
      The loss lies in [0, 1], the examples are i.i.d., and prior and c were fixed before the sample
      was seen. It holds for all posteriors at once, but not for all c: use `catoni_grid` to choose.

    References:
      Catoni (2007), "PAC-Bayesian supervised classification: the thermodynamics of statistical
      learning".

    Example:
      >>> print(f"{catoni(0.1, 10.0, num_examples=1000, delta=0.05):.4f}")
      0.1690
    """
    risk, kl, n, delta = check_arguments(empirical_risk, kl, num_examples, delta)
    return _bound(risk, kl, n, delta, known_range("c", c, 0, np.inf, ends=False))


def _bound(risk: Any, kl: Any, n: Any, delta: Any, c: Any) -> Any:
    """The bound for arguments that have been checked, but for a traced c."""
    if is_traced(risk, c):
        risk, kl, n, delta, c = same_kind(risk, kl, n, delta, c)
        c = jnp.where(c > 0, c, jnp.nan)
    return rounded_up(expm1(-c * risk - (kl - log(delta)) / n) / expm1(-c))


def catoni_grid(
    empirical_risk: Float[ArrayLike, "*cells"],
    kl: Float[ArrayLike, "*cells"],
    *,
    num_examples: Int[ArrayLike, "*cells"],
    delta: Float[ArrayLike, "*cells"],
    grid: Sequence[float] = GRID,
) -> Any:
    """The smallest of `catoni` over a finite grid of constants, each at its share of delta.

    Args:
      empirical_risk: posterior-average loss on the sample, in [0, 1].
      kl: KL(posterior ‖ prior), in nats.
      num_examples: size of the sample.
      delta: probability with which the bound may fail, in (0, 1); each constant gets an equal part.
      grid: positive constants, **fixed before the sample was seen**.

    Returns:
      The bound, rounded up and clipped at 1.

    Raises:
      ValueError: if an argument is out of range, they do not broadcast, or the grid is empty.

    Valid when:
      The loss lies in [0, 1], the examples are i.i.d., and prior and grid were fixed before the
      sample was seen. It holds for all posteriors and all constants of the grid at once.

    References:
      Catoni (2007), "PAC-Bayesian supervised classification: the thermodynamics of statistical
      learning"; the union over a grid is elementary.

    Example:
      >>> print(f"{catoni_grid(0.1, 10.0, num_examples=1000, delta=0.05):.4f}")
      0.1611
    """
    constants = check_range("grid", list(grid), 0, np.inf, ends=False)
    if constants.ndim != 1 or not constants.size:
        raise ValueError(f"grid must be a sequence of positive numbers, got {grid!r}")
    arguments = check_arguments(empirical_risk, kl, num_examples, delta)
    risk, kl, n, whole = (argument[..., np.newaxis] for argument in arguments)
    return _bound(risk, kl, n, whole / constants.size, constants).min(axis=-1)
