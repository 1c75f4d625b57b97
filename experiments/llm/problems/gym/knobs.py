"""Knobs of a task: what a source can set of it.

A knob is a field of the task's configuration (``min_terms``); a pair of a least and a greatest
value, both set to one value (``terms``, or ``num_terms`` where the task's curriculum calls it so);
or ``level``, all fields that the task's curriculum moves, as it sets them at a level.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.llm.problems.gym.library import library

CURRICULUM = "level"
"""Knob that stands for all that a curriculum moves."""


@dataclass(frozen=True)
class Knob:
    """A knob of a task, which a source can set.

    Attributes:
      name: in a source.
      fields: of the task's configuration, all set to the value.
      kind: their annotation.
      default: value of a single field, from which the kind of a list's members is read where the
        annotation does not state it.
    """

    name: str
    fields: tuple[str, ...]
    kind: Any
    default: Any = None

    @property
    def _plain(self) -> Any:
        """The kind, without "or None"."""
        if typing.get_origin(self.kind) in (typing.Union, types.UnionType):
            return next(kind for kind in typing.get_args(self.kind) if kind is not type(None))
        return self.kind

    @property
    def is_list(self) -> bool:
        """True if the knob takes a list of values."""
        kind = typing.get_origin(self._plain) or self._plain
        return isinstance(kind, type) and issubclass(kind, Sequence) and not issubclass(kind, str)

    def read(self, text: str) -> Any:
        """Read a value; members of a list stand between commas.

        Raises:
          ValueError: if the text is none of its values.
        """
        if not self.is_list:
            return self._read(self._plain, text)
        stated = [kind for kind in typing.get_args(self._plain) if kind is not Ellipsis]
        kind = stated[0] if stated else type(next(iter(self.default or ()), ""))
        return [self._read(kind, member) for member in text.split(",")]

    def _read(self, kind: Any, text: str) -> Any:
        """Read one value, or one member of a list."""
        if kind in (int, float, str):
            try:
                return kind(text)
            except ValueError:
                number = "a whole number" if kind is int else "a number"
                raise ValueError(f"{self.name} must be {number}, got {text!r}") from None
        # Everything else that can be written is one of a few words.
        if kind is bool:
            accepted: dict[str, Any] = {"true": True, "false": False}
        elif typing.get_origin(kind) is typing.Literal:
            accepted = {str(choice): choice for choice in typing.get_args(kind)}
        elif isinstance(kind, type) and issubclass(kind, enum.Enum):
            accepted = {str(choice.value): choice for choice in kind}
        else:
            raise ValueError(f"{self.name} cannot be set in a source: it takes no number or word")
        if text not in accepted:
            raise ValueError(f"{self.name} must be one of {list(accepted)}, got {text!r}")
        return accepted[text]


@functools.lru_cache
def knobs_of(task: str) -> dict[str, Knob]:
    """Everything that a source can set of a task, by name, but for its ``size`` and ``seed``."""
    fields = {
        field.name: field for field in dataclasses.fields(library().factory.DATASETS[task][1])
    }
    del fields["size"], fields["seed"]
    knobs = [Knob(name, (name,), field.type, _default(field)) for name, field in fields.items()]
    # Pairs of a least and a greatest value, by their stem and by the curriculum's name.
    for low in fields:
        stem = low.removeprefix("min_")
        if stem != low and f"max_{stem}" in fields:
            knobs.append(Knob(stem, (low, f"max_{stem}"), fields[low].type))
    attributes = _attributes(_curriculum(task))
    for attribute in attributes:
        if len(pair := _fields(attribute)) == 2:
            knobs.append(Knob(attribute.name, pair, fields[pair[0]].type))
    if attributes:
        knobs.append(Knob(CURRICULUM, (), int))
    # Of two with one name, the first: a field goes before a pair.
    return {knob.name: knob for knob in reversed(knobs)}


def settings(task: str, stated: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Fields of a task's configuration that knobs set.

    Args:
      task: its name.
      stated: knobs and their values as text. What a curriculum sets gives way to other knobs.

    Raises:
      ValueError: if a value cannot be read, or the curriculum has no such level.
    """
    knobs, fields = knobs_of(task), {}
    for name, text in sorted(stated, key=lambda pair: pair[0] != CURRICULUM):
        value = knobs[name].read(text)
        if name == CURRICULUM:
            fields |= _set_by_curriculum(task, value)
        fields |= dict.fromkeys(knobs[name].fields, value)
    return fields


def _set_by_curriculum(task: str, level: int) -> dict[str, Any]:
    """Fields that the task's curriculum sets at a level, counted from 0."""
    curriculum = _curriculum(task)
    attributes = _attributes(curriculum)
    most = max(len(attribute.levels) for attribute in attributes) - 1
    if not 0 <= level <= most:
        raise ValueError(f"level of reasoning-gym's {task} must be 0 to {most}, got {level}")
    # An attribute with fewer levels stays at its last.
    curriculum.set_global_level(level)
    configuration = curriculum.generate_configuration()
    names = [name for attribute in attributes for name in _fields(attribute)]
    return {name: getattr(configuration, name) for name in names}


def _curriculum(task: str) -> Any:
    """The task's curriculum; None if it has none."""
    factory = library().factory
    return factory.create_curriculum(task) if factory.has_curriculum(task) else None


def _attributes(curriculum: Any) -> list[Any]:
    """Attributes that a curriculum moves."""
    return [] if curriculum is None else list(curriculum.attributes.values())


def _fields(attribute: Any) -> tuple[str, ...]:
    """Fields of the configuration that an attribute of a curriculum moves: one, or a pair."""
    if hasattr(attribute, "lower_field_name"):
        return attribute.lower_field_name, attribute.upper_field_name
    return (attribute.field_name,)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default
