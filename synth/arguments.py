"""Checks that several configurations make, each with its error message in one place."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable
from numbers import Integral, Real
from typing import Any

LARGEST = 2**31 - 1
"""The largest whole number that is accepted: indices and counts are held in 32 bits."""

LARGEST_SEED = 2**32 - 1
"""The largest seed: JAX makes its keys from 32 bits, and would take a larger one modulo 2³²."""


def closest(word: str, known: Iterable[str]) -> str:
    """Return the end of an error message: ``; did you mean 'chain'?``, or nothing.

    Args:
      word: what was given.
      known: what is accepted.
    """
    found = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def check_least(config: Any, least: int, *names: str, most: int = LARGEST) -> None:
    """Refuse fields that are not whole numbers from `least` to `most`.

    Raises:
      ValueError: names the first such field and its value.
    """
    for name in names:
        check_whole(name, getattr(config, name), least, most)


def check_whole(name: str, value: Any, least: int, most: int = LARGEST) -> None:
    """Refuse a value that is not a whole number from `least` to `most`.

    Raises:
      ValueError: names the value.
    """
    if not _is_whole(value):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {_shortened(value)}")
    if value > most:
        raise ValueError(f"{name} must be at most {most}, got {_shortened(value)}")


def check_seed(config: Any, *names: str) -> None:
    """Refuse seeds that are not whole numbers of 32 bits, which JAX could not tell apart.

    Raises:
      ValueError: names the first such field and its value.
    """
    check_least(config, 0, *names, most=LARGEST_SEED)


def check_positive(config: Any, *names: str) -> None:
    """Refuse fields that are not finite and above 0.

    Raises:
      ValueError: names the first such field and its value.
    """
    for name in names:
        value = getattr(config, name)
        if _is_real(value) and not value > 0:
            raise ValueError(f"{name} must be positive, got {_shortened(value)}")
        check_number(name, value)


def check_not_negative(config: Any, *names: str) -> None:
    """Refuse fields that are not finite, or below 0.

    Raises:
      ValueError: names the first such field and its value.
    """
    for name in names:
        check_number(name, getattr(config, name))
        if getattr(config, name) < 0:
            raise ValueError(f"{name} must be at least 0, got {getattr(config, name)}")


def check_number(name: str, value: Any) -> None:
    """Refuse a value that is no finite number.

    Raises:
      ValueError: names the value.
    """
    try:
        is_finite = _is_real(value) and math.isfinite(float(value))
    except OverflowError:  # a whole number beyond all floats
        is_finite = False
    if not is_finite:
        raise ValueError(f"{name} must be a finite number, got {_shortened(value)}")


def check_rates(name: str, values: Collection[Any]) -> None:
    """Refuse learning rates that are none, or not all finite and positive.

    Raises:
      ValueError: names field and values.
    """
    for value in values:
        check_number(name, value)
    if not values or min(values) <= 0:
        raise ValueError(f"{name} must be positive, got {values}")


def check_choice(config: Any, name: str, accepted: Collection[Any]) -> None:
    """Refuse a field that is none of the accepted values.

    Raises:
      ValueError: names field, values and what was given.
    """
    if (value := getattr(config, name)) not in accepted:
        hint = closest(str(value), map(str, accepted))
        raise ValueError(f"{name} must be one of {accepted}, got {value!r}{hint}")


def check_some(config: Any, name: str, accepted: Collection[Any]) -> None:
    """Refuse a field that is empty, or holds a value that is not accepted.

    Raises:
      ValueError: names field, values and what was given.
    """
    values = getattr(config, name)
    if not values or set(values) - set(accepted):
        raise ValueError(f"{name} must be some of {accepted}, got {values}")


def check_increasing(config: Any, *names: str) -> None:
    """Refuse fields that are empty, or not whole numbers of at least 1 that increase.

    Raises:
      ValueError: names the first such field and its value.
    """
    for name in names:
        values = getattr(config, name)
        for value in values:
            check_whole(name, value, -LARGEST)
        if not values or min(values) < 1 or list(values) != sorted(set(values)):
            raise ValueError(
                f"{name} must be distinct integers of at least 1, increasing; got {values}"
            )


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _shortened(value: Any) -> str:
    """A value as it stands, or in powers of ten where it has very many digits."""
    if not _is_whole(value) or abs(value) < 10**30:
        return repr(value)
    # Not through a float, nor a string: both have limits.
    return f"about {'-' * (value < 0)}10^{int(int(abs(value)).bit_length() * math.log10(2))}"
