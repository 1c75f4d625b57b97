"""Divergences in nats: the binary KL, its inverses, and the KL of Gaussians.

**Precision.** Called with concrete numbers, every function works in float64, whatever the global
setting of JAX, and returns NumPy float64: a scalar for scalars, else an array of the broadcast
shape. `binary_kl`, its inverses and `gaussian_kl` can also be traced (by ``jit``, ``grad``,
``vmap``). They then work in the dtype of the traced arguments (float32 or float64), and round
concrete arguments to it, so that a float32 objective can be differentiated through them. Concrete
probabilities and nats out of range, or NaN, raise ValueError; traced ones give NaN. Text, booleans
and masked arrays are no numbers, and are refused.

**Outward rounding.** An inverse of the binary KL is never on the wrong side of the true root,
because it solves for c plus a margin that exceeds the error in evaluating the KL. Assume that every
operation, the logarithm included, is right to a relative eps (`numpy.finfo`; rounding to nearest
gives half of that), and so are 1 - q and p - q. The KL is the sum of two deviances, neither
negative. If x and m are within a factor of two, `_deviance` is a difference A - B with
|B| <= 0.16 A. A is right to 6 eps and B to 20 eps, and so the deviance, with the tail of its
series, to 11 eps. Otherwise it is m - x less x ln(m/x). That loses most digits at m = x/2, where
0.19 x is left of -0.5 x and -0.69 x: 30 eps. So the KL is right to 32 eps, however near each other
q and p are. The margin is 64 eps, which leaves 30 for the rounding of c itself.

The price is small: at the float next to the returned p, on the inner side, the KL is at most
c (1 + 100 eps). As the KL is convex, p lies beyond the root by at most 100 eps |p - q| and one
step: in float64, 3e-14 |p - q| and the last digit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from theory.checks import check_range, host_array, is_traced, same_kind

MARGIN = 64
"""Relative margin on c, in units of eps."""


def _in_float64(function: Callable[..., Array], *arguments: np.ndarray) -> Any:
    """Apply a compiled elementwise function to concrete arrays, in float64.

    Arrays are flattened and filled up to blocks of one of three sizes, so that at most three
    programs are ever compiled.
    """
    arrays = np.broadcast_arrays(*arguments)
    size, shape = arrays[0].size, arrays[0].shape
    block = 16 if size <= 16 else 256 if size <= 256 else 4096
    blocks = max(1, math.ceil(size / block))
    filled = [np.resize(array, (blocks, block)) for array in arrays]
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        values = np.concatenate([function(*rows) for rows in zip(*filled, strict=True)])
    return values[:size].reshape(shape)[()]


# ------------------------------------------------------------------------------------ The binary KL


def _deviance(x: Array, m: Array, difference: Array) -> Array:
    """Compute x ln(x/m) + m - x given difference = m - x: never negative, and right to 30 eps.

    After Loader (2000), "Fast and accurate computation of binomial probabilities". Near x = m,
    with s = (m - x)/(m + x), it is (m - x) s - 2x (s^3/3 + s^5/5 + ...).
    """
    dtype = x.dtype
    positive = jnp.where(x > 0, x, jnp.ones((), dtype))
    s = difference / (positive + m)
    square = s * s
    series = jnp.zeros_like(s)
    for k in reversed(range(16)):
        series = series * square + 1 / (2 * k + 3)
    near = difference * s - 2 * x * s * square * series
    far = difference - x * jnp.log(m / positive)
    return jnp.where(x > 0, jnp.where(abs(s) < 1 / 3, near, far), m)


def _kl(q: Array, p: Array) -> Array:
    return _deviance(q, p, p - q) + _deviance(1 - q, 1 - p, q - p)


def _log_odds(p: Array) -> Array:
    """ln(p/(1-p)), but finite at 0 and 1, so that a slope times a tangent of zero is zero."""
    limits = jnp.finfo(p.dtype)
    p = jnp.clip(p, limits.tiny, 1 - limits.eps)
    return jnp.log(p) - jnp.log1p(-p)


@jax.custom_jvp
@jax.jit
def _binary_kl(q: Array, p: Array) -> Array:
    valid = (q >= 0) & (q <= 1) & (p >= 0) & (p <= 1)
    return jnp.where(valid, _kl(q, p), jnp.nan)


@_binary_kl.defjvp
def _(primals, tangents):
    (q, p), (dq, dp) = primals, tangents
    by_p = (p - q) / jnp.maximum(p * (1 - p), jnp.finfo(p.dtype).tiny)
    return _binary_kl(q, p), (_log_odds(q) - _log_odds(p)) * dq + by_p * dp


def binary_kl(q: Float[ArrayLike, "*shape"], p: Float[ArrayLike, "*shape"]) -> Any:
    """KL(Bernoulli(q) ‖ Bernoulli(p)) in nats, to a relative 32 eps.

    Infinite where p is 0 or 1 and q is not. Slopes at q = 0 or 1, which are infinite, are replaced
    by those at the nearest number inside.

    Args:
      q, p: probabilities that broadcast.

    Returns:
      NumPy float64, or an array of the dtype of the traced arguments.

    Raises:
      ValueError: if a concrete argument lies outside [0, 1].

    Example:
      >>> print(f"{binary_kl(0.1, 0.2):.6f}")
      0.036690
    """
    if is_traced(q, p):
        return _binary_kl(*same_kind(q, p))
    return _in_float64(_binary_kl, check_range("q", q, 0, 1), check_range("p", p, 0, 1))


# ------------------------------------------------------------------------------------- Its inverses


def _bits(x: Array) -> Array:
    """The integer with the same bits; for floats from 0 to 1 it has the same order."""
    return jax.lax.bitcast_convert_type(x, f"int{jnp.finfo(x.dtype).bits}")


def _is_positive(x: Array) -> Array:
    """Return whether x > 0 by its bits, because XLA compares subnormal numbers as zeros."""
    return _bits(x) > 0


def _raised(x: Array, least: float) -> Array:
    """Raise positive numbers to `least` at least, and keep zeros."""
    return jnp.where(_is_positive(x), jnp.maximum(x, least), 0)


def _outer_root(
    divergence: Callable[[Array], Array], inner: Array, outer: Array, c: Array
) -> Array:
    """Find the root of divergence = c between `inner`, where it is 0, and `outer`, rounded outward.

    A bisection over the floats in between, taken as integers, so that it ends at neighbouring
    floats whatever their size. At the inner one the divergence may be c. The outer one is returned:
    there it exceeds c for certain, or it is `outer` itself.
    """
    limits = jnp.finfo(c.dtype)
    # Raise c above the level at which underflow would matter, and add the margin.
    target = _raised(c, float(limits.tiny / limits.eps**2)) * (1 + MARGIN * limits.eps)
    start, end = _bits(inner), _bits(outer)
    direction = jnp.sign(end - start)

    def advance(place, step):
        further = place + direction * step
        beyond = divergence(jax.lax.bitcast_convert_type(further, c.dtype)) > target
        return jnp.where(beyond | ((end - further) * direction <= 0), place, further), None

    # Steps in decreasing powers of two; there are fewer than 2^(bits - 2) floats from 0 to 1.
    steps = [1 << k for k in reversed(range(limits.bits - 2))]
    place, _ = jax.lax.scan(advance, start, jnp.array(steps, start.dtype))
    root = jax.lax.bitcast_convert_type(place + direction, c.dtype)
    # Towards 0 the root may be subnormal, which the divergence took for 0. So return 0, which is
    # also right if the known argument is 0, as then no other number is within c.
    return jnp.where(root <= limits.tiny, 0, root)


def _inverse(
    divergence: Callable[[Array, Array], Array],
    outer: float,
    slopes: Callable[[Array, Array], tuple[Array, Array]],
    second: float,
) -> Callable[..., Array]:
    """Build the function that solves divergence(known, unknown) = c for the unknown.

    Args:
      divergence: zero where its arguments are equal, and growing from there.
      outer: the end between which and `known` to search, 0 or 1.
      slopes: function of known and unknown; gives the derivatives of the unknown by known and by c.
      second: factor of the second term of the derivative by c, see `_series`.

    Returns:
      A function of (known, c), compiled and differentiable; NaN where they are out of range.
    """

    @jax.custom_jvp
    @jax.jit
    def inverse(known: Array, c: Array) -> Array:
        valid = (known >= 0) & (known <= 1) & (c >= 0)
        inner = _raised(known, float(jnp.finfo(c.dtype).tiny))
        end = jnp.full_like(inner, outer)
        root = _outer_root(lambda unknown: divergence(inner, unknown), inner, end, c)
        return jnp.where(valid, jnp.where(_is_positive(c), root, known), jnp.nan)

    @inverse.defjvp
    def _(primals, tangents):
        (known, c), (by_known, by_c) = primals, tangents
        unknown = inverse(known, c)
        is_near, *series = _series(known, c, 1.0 if outer else -1.0, second)
        slope_by_known, slope_by_c = (
            jnp.where(is_near, near, far)
            for near, far in zip(series, slopes(known, unknown), strict=True)
        )
        return unknown, slope_by_known * by_known + slope_by_c * by_c

    return inverse


def _series(known: Array, c: Array, direction: float, second: float) -> tuple[Array, Array, Array]:
    """Derivatives of the unknown where c is so small that they follow from c alone.

    There the difference of the two floats has few right digits, or none: in float32 the numbers
    next to 0.3 are already at c = 2e-15. With x = sqrt(2 c / (known (1 - known))), negative
    towards 0, and a = 1 - 2 known, the derivatives are 1 + a x/2 + O(x²) by the known argument and
    1/x + second a + O(x) by c.

    Returns:
      Whether the terms left out are smaller than what the difference loses, about eps / x; and the
      derivatives by the known argument and by c.
    """
    usable = (known * (1 - known) > 0) & (c > 0)
    variance = jnp.where(usable, known * (1 - known), 1)
    # Two roots, as the quotient might overflow or underflow.
    x = direction * jnp.sqrt(2 * jnp.where(usable, c, 1)) / jnp.sqrt(variance)
    is_near = usable & (abs(x) ** 3 * (1 - known) < jnp.finfo(c.dtype).eps)
    asymmetry = 1 - 2 * known
    return is_near, 1 + asymmetry * x / 2, 1 / x + second * asymmetry


def _slopes(q: Array, p: Array) -> tuple[Array, Array]:
    """Derivatives of p by q and by c under kl(q‖p) = c."""
    by_c = p * (1 - p) / jnp.where(p == q, jnp.inf, p - q)
    return jnp.where(p == q, 1, (_log_odds(p) - _log_odds(q)) * by_c), by_c


def _slopes_first(r: Array, p: Array) -> tuple[Array, Array]:
    """Derivatives of p by r and by c under kl(p‖r) = c."""
    by_c = 1 / jnp.where((p == r) | (p == 1), jnp.inf, _log_odds(p) - _log_odds(r))
    variance = jnp.maximum(r * (1 - r), jnp.finfo(r.dtype).tiny)
    return jnp.where(p == r, 1, by_c * (p - r) / variance), by_c


_upper = _inverse(_kl, 1.0, _slopes, 2 / 3)
_lower = _inverse(_kl, 0.0, _slopes, 2 / 3)
_upper_first = _inverse(lambda r, p: _kl(p, r), 1.0, _slopes_first, 1 / 3)


def kl_inverse(q: Float[ArrayLike, "*shape"], c: Float[ArrayLike, "*shape"]) -> Any:
    """The largest p with kl(q‖p) <= c, rounded up (the module states by how much).

    Slopes, with D = (1-q)/(1-p) - q/p, are 1/D by c and (ln((1-q)/(1-p)) - ln(q/p))/D by q.
    Infinite slopes are replaced, so that a zero tangent stays zero: the slope by q at q = 0 is that
    at the smallest normal number, and the slope by c at c = 0, where p = q, is 0.

    Args:
      q: probabilities, such as empirical risks.
      c: nats, 0 or more; infinity gives 1. A positive c below 1e-276 (float64) counts as 1e-276.

    Returns:
      p, in [q, 1]; NumPy float64, or an array of the dtype of the traced arguments.

    Raises:
      ValueError: if a concrete q lies outside [0, 1] or a concrete c is negative.

    Example:
      >>> print(f"{kl_inverse(0.02, 0.01):.10f}")
      0.0465159211
    """
    if is_traced(q, c):
        return _upper(*same_kind(q, c))
    return _in_float64(_upper, check_range("q", q, 0, 1), check_range("c", c, 0, math.inf))


def kl_inverse_lower(q: Float[ArrayLike, "*shape"], c: Float[ArrayLike, "*shape"]) -> Any:
    """The smallest p with kl(q‖p) <= c, rounded down; otherwise as `kl_inverse`.

    Args:
      q: probabilities.
      c: nats, 0 or more; infinity gives 0.

    Raises:
      ValueError: if a concrete q lies outside [0, 1] or a concrete c is negative.

    Example:
      >>> print(f"{kl_inverse_lower(0.5, 0.02):.10f}")
      0.4009917164
    """
    if is_traced(q, c):
        return _lower(*same_kind(q, c))
    return _in_float64(_lower, check_range("q", q, 0, 1), check_range("c", c, 0, math.inf))


def kl_inverse_first(r: Float[ArrayLike, "*shape"], c: Float[ArrayLike, "*shape"]) -> Any:
    """The largest p with kl(p‖r) <= c, by the *first* argument of kl, rounded up.

    This is the worst risk under a distribution within c nats of the one that gives risk r. It is 1
    from c = ln(1/r) on. With the log-odds ratio A = ln(p/r) - ln((1-p)/(1-r)) its slopes are 1/A by
    c and (p - r)/(r(1 - r) A) by r; both are 0 where p = 1, and 0 and 1 where p = r.

    Args:
      r: probabilities.
      c: nats, 0 or more; infinity gives 1.

    Raises:
      ValueError: if a concrete r lies outside [0, 1] or a concrete c is negative.

    Example:
      >>> print(f"{kl_inverse_first(0.1, 0.05):.6f}")
      0.206729
    """
    if is_traced(r, c):
        return _upper_first(*same_kind(r, c))
    return _in_float64(_upper_first, check_range("r", r, 0, 1), check_range("c", c, 0, math.inf))


# ---------------------------------------------------------------------------------------- Gaussians


def gaussian_kl(shift: Float[ArrayLike, "*shape"], log_ratio: Float[ArrayLike, "*shape"]) -> Any:
    """KL(posterior ‖ prior) in nats of Gaussians with diagonal covariance, over all coordinates.

    Half the sum of expm1(2r) - 2r + shift², a form that keeps its digits if the scales nearly
    agree.

    Args:
      shift: (posterior mean - prior mean) / prior scale, for each coordinate.
      log_ratio: r = ln(posterior scale / prior scale), for each coordinate.

    Returns:
      One number: NumPy float64, or of the dtype of the traced arguments.

    Example:
      >>> print(f"{gaussian_kl([1.0, 0.0], [0.0, -0.5]):.6f}")
      0.683940
    """
    if is_traced(shift, log_ratio):
        shift, log_ratio = same_kind(shift, log_ratio)
        return 0.5 * jnp.sum(jnp.expm1(2 * log_ratio) - 2 * log_ratio + shift * shift)
    given = (("shift", shift), ("log_ratio", log_ratio))
    arrays = (host_array(name, values, "numbers").astype(np.float64) for name, values in given)
    shift, log_ratio = np.broadcast_arrays(*arrays)
    with np.errstate(over="ignore"):
        return 0.5 * np.sum(np.expm1(2 * log_ratio) - 2 * log_ratio + shift * shift)
