"""Checks of arguments that are numbers, concrete or traced.

Concrete numbers are checked and returned as NumPy float64 or int64. Text, booleans and masked
arrays are no numbers, and are refused. A value that ``jit``, ``grad`` or ``vmap`` traces is not
known yet, and is only brought to a common dtype.
"""

from __future__ import annotations

import numbers
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

LARGEST_COUNT = 2**62
"""Counts are at most this, so that sums of two and of a count and 1 stay within int64."""


def host_array(name: str, values: Any, kind: str) -> np.ndarray:
    """Return concrete numbers as an array of the type that they have.

    Args:
      name: name of the argument, for the error.
      values: numbers.
      kind: what they must be, for the error.

    Raises:
      ValueError: if they are traced, masked, or no numbers at all.
    """
    if is_traced(values):
        raise ValueError(
            f"{name} must be known before compilation here, got one traced by jit, grad or vmap"
        )
    if isinstance(values, np.ma.MaskedArray):
        raise ValueError(f"{name} must be {kind}, got a masked array: fill it or leave entries out")
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} must be {kind}, got {values!r}") from error
    if array.dtype == object:
        is_number = all(
            isinstance(each, numbers.Real) and not isinstance(each, bool) for each in array.flat
        )
    else:
        is_number = jnp.issubdtype(array.dtype, np.integer) or is_floating(array.dtype)
    if not is_number:
        raise ValueError(f"{name} must be {kind}, got {values!r}")
    return array


def check_range(
    name: str, values: ArrayLike, lowest: float, highest: float, *, ends: bool = True
) -> Float[np.ndarray, "*shape"]:
    """Return values as float64, after checking that all of them lie in an interval.

    Args:
      name: name of the argument, for the error.
      values: a number or an array of numbers.
      lowest, highest: the interval.
      ends: whether the interval includes its ends.

    Raises:
      ValueError: if a value is not a number, is NaN or lies outside.
    """
    array = host_array(name, values, "a number or numbers").astype(np.float64)
    if ends:
        inside, interval = (lowest <= array) & (array <= highest), f"[{lowest}, {highest}]"
    else:
        inside, interval = (lowest < array) & (array < highest), f"({lowest}, {highest})"
    if not inside.all():
        raise ValueError(f"{name} must lie in {interval}, got {array[~inside][0]}")
    return array


def check_count(name: str, values: ArrayLike, lowest: int) -> Int[np.ndarray, "*shape"]:
    """Return values as int64, after checking that all are integers of at least `lowest`.

    Raises:
      ValueError: if a value is not an integer, is too small, or exceeds `LARGEST_COUNT`.
    """
    array = host_array(name, values, "an integer or integers")
    if array.dtype == object:
        is_whole = all(isinstance(each, numbers.Integral) for each in array.flat)
    else:
        is_whole = jnp.issubdtype(array.dtype, np.integer)
    if not is_whole:
        raise ValueError(f"{name} must be an integer or integers, got {values!r}")
    if not (array >= lowest).all():
        raise ValueError(f"{name} must be at least {lowest}, got {array[array < lowest][0]}")
    if not (array <= LARGEST_COUNT).all():
        too_large = array[array > LARGEST_COUNT][0]
        raise ValueError(f"{name} must be at most 2^62 = {LARGEST_COUNT}, got {too_large}")
    return array.astype(np.int64)


def is_floating(dtype: Any) -> bool:
    """Return whether a dtype is of floating-point numbers, bfloat16 and its like included."""
    return bool(jnp.issubdtype(dtype, jnp.floating))


def is_traced(*arguments: Any) -> bool:
    """Return whether an argument stands for a value not known yet, under jit, grad or vmap."""
    return any(isinstance(argument, Tracer) for argument in arguments)


def same_kind(*arguments: ArrayLike) -> list[Array]:
    """Broadcast arguments, some of them traced, in the dtype of the traced ones."""
    traced = [argument for argument in arguments if isinstance(argument, Tracer)]
    dtype = jnp.result_type(*traced)
    if not is_floating(dtype):
        dtype = jnp.result_type(float)
    return jnp.broadcast_arrays(*(jnp.asarray(argument, dtype) for argument in arguments))
