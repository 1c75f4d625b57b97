"""All tasks, by name.

`TASKS` is the only list: a new task is one file in this folder and one line in it.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synth.task import Task

TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "addition": ("synth.tasks.addition:Addition", {}),
    "chain": ("synth.tasks.chain:Chain", {}),
    "chain-running": ("synth.tasks.chain:Chain", {"layout": "running"}),
    "dyck": ("synth.tasks.dyck:Dyck", {}),
    "expressions": ("synth.tasks.expressions:Expressions", {}),
    "group-words": ("synth.tasks.group_words:GroupWords", {}),
    "group-words-cyclic": ("synth.tasks.group_words:GroupWords", {"group": "Z60"}),
    "igsm": ("synth.tasks.igsm.task:IGSM", {}),
    "igsm-terse": ("synth.tasks.igsm.task:IGSM", {"form": "terse"}),
    "parity": ("synth.tasks.parity:Parity", {}),
    "parity-scratchpad": ("synth.tasks.parity:Parity", {"scratchpad": True}),
    "pointer": ("synth.tasks.pointer:Pointer", {}),
}
"""Import path of each class, and fields it begins with. `make_task` imports it: names are known
without JAX."""


def make_task(
    name: str, options: Mapping[str, Any] | None = None, *, hardest: int | None = None
) -> Task:
    """Build a task from its name in `TASKS`, or from the import path of a task of your own.

    Args:
      name: a key of `TASKS`, or ``module:attribute`` of a `Task` class or a function returning a
        task.
      options: fields of the task, by name.
      hardest: value of the field `hardest`, if the task has one and `options` do not set it.

    Raises:
      ValueError: if the name is unknown, the import fails, or an option is missing or not a field.
    """
    from synth.task import Task

    options = dict(options or {})
    if name not in TASKS and ":" not in name:
        raise ValueError(
            f"task must be one of {sorted(TASKS)} or a 'module:attribute', got {name!r}"
        )
    place, fields = TASKS.get(name, (name, {}))
    module, _, attribute = place.partition(":")
    try:
        factory = partial(getattr(importlib.import_module(module), attribute), **fields)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"task {name!r} cannot be imported as module:attribute ({error})"
        ) from error
    accepted = inspect.signature(factory).parameters
    if unknown := sorted(set(options) - set(accepted)):
        raise ValueError(f"task {name!r} has no field {unknown}; it accepts {sorted(accepted)}")
    if hardest is not None and "hardest" in accepted:
        options.setdefault("hardest", hardest)
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        raise ValueError(f"task {name!r} cannot be built from {options} ({error})") from error
    task = factory(**options)
    if not isinstance(task, Task):
        raise ValueError(f"task {name!r} must build a synth.task.Task, got {type(task).__name__}")
    return task


__all__ = ["TASKS", "make_task"]
