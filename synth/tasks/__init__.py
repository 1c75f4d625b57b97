"""Every task by name. `TASKS` is the only list: a new task is one file here and one line below."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from synth.task import Task
from synth.tasks.addition import Addition
from synth.tasks.chain import Chain
from synth.tasks.dyck import Dyck
from synth.tasks.expressions import Expressions
from synth.tasks.group_words import GroupWords
from synth.tasks.igsm import IGSM
from synth.tasks.parity import Parity
from synth.tasks.pointer import Pointer

TASKS: dict[str, Callable[..., Task]] = {
    "addition": Addition,
    "chain": Chain,
    "chain-running": partial(Chain, layout="running"),
    "dyck": Dyck,
    "expressions": Expressions,
    "group-words": GroupWords,
    "group-words-cyclic": partial(GroupWords, group="Z60"),
    "igsm": IGSM,
    "igsm-terse": partial(IGSM, form="terse"),
    "parity": Parity,
    "parity-scratchpad": partial(Parity, scratchpad=True),
    "pointer": Pointer,
}


def make_task(
    name: str, options: Mapping[str, Any] | None = None, *, hardest: int | None = None
) -> Task:
    """Build a task from its name in `TASKS`, or from ``module:attribute`` for one's own.

    Args:
      name: a key of `TASKS`, or the import path of a `Task` class or a function returning one.
      options: fields of the task, by name.
      hardest: value of the field `hardest`, where the task has one and `options` do not set it.

    Raises:
      ValueError: if the name is unknown, the import fails, or an option is missing or not a field.
    """
    options = dict(options or {})
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            factory = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"task {name!r} cannot be imported as module:attribute ({error})"
            ) from error
    elif name in TASKS:
        factory = TASKS[name]
    else:
        raise ValueError(
            f"task must be one of {sorted(TASKS)} or a 'module:attribute', got {name!r}"
        )
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


__all__ = ["TASKS", "Chain", "make_task"]
