"""Read configurations back from manifests."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_type_hints

T = TypeVar("T")


def from_record(kind: type[T], record: Mapping[str, Any]) -> T:
    """Rebuild a configuration from JSON of its `dataclasses.asdict`.

    Args:
      kind: its class, a dataclass; fields that are dataclasses themselves are rebuilt as well.
      record: as `experiments.storage.results.read_manifest` gives it; a field that is missing gets
        its default here. `open_run` compares records as they are, so that
        `experiments.storage.migration` must state a new field.

    Raises:
      ValueError: if a field is unknown or out of range.
    """
    hints = get_type_hints(kind)
    if unknown := sorted(set(record) - set(hints)):
        raise ValueError(f"config must have fields among {list(hints)}, got {unknown}")
    return kind(**{name: _value(hints[name], value) for name, value in record.items()})


def _value(hint: Any, value: Any) -> Any:
    """Convert one field: JSON has lists for tuples, and objects for dataclasses."""
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, dict):
        for kind in (hint, *get_args(hint)):
            if isinstance(kind, type) and dataclasses.is_dataclass(kind):
                return from_record(kind, value)
    return value
