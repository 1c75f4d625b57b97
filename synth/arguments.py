"""Checks that several configurations make, each with its error message in one place."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def check_least(config: Any, least: float, *names: str) -> None:
    """Refuse fields below `least`.

    Raises:
      ValueError: names the first such field and its value.
    """
    for name in names:
        if getattr(config, name) < least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(config, name)}")


def check_positive(config: Any, *names: str) -> None:
    """Refuse fields that are not above 0, NaN included.

    Raises:
      ValueError: names the first such field and its value.
    """
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be positive, got {getattr(config, name)}")


def check_choice(config: Any, name: str, accepted: Collection[Any]) -> None:
    """Refuse a field that is none of the accepted values.

    Raises:
      ValueError: names field, values and what was given.
    """
    if (value := getattr(config, name)) not in accepted:
        raise ValueError(f"{name} must be one of {accepted}, got {value!r}")


def check_some(config: Any, name: str, accepted: Collection[Any]) -> None:
    """Refuse a field that is empty, or holds a value that is not accepted.

    Raises:
      ValueError: names field, values and what was given.
    """
    values = getattr(config, name)
    if not values or set(values) - set(accepted):
        raise ValueError(f"{name} must be some of {accepted}, got {values}")


def check_increasing(config: Any, *names: str) -> None:
    """Refuse fields that are not distinct integers of at least 1 in increasing order, or empty.

    Raises:
      ValueError: names the first such field and its value.
    """
    for name in names:
        values = getattr(config, name)
        if not values or min(values) < 1 or list(values) != sorted(set(values)):
            raise ValueError(
                f"{name} must be distinct integers of at least 1, increasing; got {values}"
            )
