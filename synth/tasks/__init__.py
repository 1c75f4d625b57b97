"""All tasks, by name.

`TASKS` is the only list: a new task is one file in this folder and one line in it.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, get_type_hints

from synth.arguments import closest

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
      name: a key of `TASKS`, or ``module:attribute`` of a `Task`, of a class of them, or of a
        function that is annotated as returning one. Importing runs the module: take such a name
        from the user, never from a file.
      options: fields of the task, by name.
      hardest: value of the field `hardest`, if the task has one and `options` do not set it.

    Raises:
      ValueError: if the name is unknown, the import fails or gives something else (which is not
        called), or an option is missing or not a field.
    """
    from synth.task import Task

    options = dict(options or {})
    if name not in TASKS and ":" not in name:
        raise ValueError(
            f"task must be one of {sorted(TASKS)} or a 'module:attribute', got {name!r}"
            f"{closest(name, TASKS)}"
        )
    place, fields = TASKS.get(name, (name, {}))
    found = _imported(name, place)
    if isinstance(found, Task):
        if options:
            raise ValueError(f"task {name!r} is built already, its options must be none: {options}")
        return found
    factory = partial(found, **fields)
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


def _imported(name: str, place: str) -> Any:
    """Import a task, its class or a function that returns one; nothing is called.

    Raises:
      ValueError: if the import fails, or what it gives is none of these.
    """
    from synth.task import Task

    module, _, attribute = place.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"task {name!r} cannot be imported as module:attribute ({error})"
        ) from error
    made = found
    if inspect.isfunction(found):
        try:
            made = get_type_hints(found).get("return")
        except (NameError, TypeError):
            made = None  # an annotation that names nothing promises nothing
    if isinstance(found, Task) or (inspect.isclass(made) and issubclass(made, Task)):
        return found
    raise ValueError(
        f"task {name!r} must be a synth.task.Task, a class of them, or a function annotated as "
        f"returning one (def {attribute}(...) -> Task), got {found!r}"
    )


__all__ = ["TASKS", "make_task"]
