"""Help on one screen: the main flags of a command. ``--help-all`` shows every flag.

A configuration has dozens of fields, each a flag. For the short help a command's signature is
copied, and what is not in `MAIN_FLAGS` is hidden in the copy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import shutil
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro

HELP = {"-h", "--help"}
HELP_ALL = "--help-all"
MAX_WIDTH = 100
"""Columns of running text at most."""

MAIN_FLAGS: Mapping[str, frozenset[str]] = {
    name: frozenset(flags.split())
    for name, flags in {
        "run": "recipe size out plan executor task mixtures difficulties data_sizes losses seeds",
        "bound": "directory results methods mixture difficulties data_sizes delta",
        "llm prepare": "model source split out max_length on_long",
        "llm difficulty": "model source out measures bucket_by harder number edges grader.name",
        "llm finetune": "model source out difficulty data_size loss compute compute_unit "
        "learning_rate batch_size",
        "llm evaluate": "model source out grader.name decoding.max_new_tokens decoding.samples "
        "decoding.temperature",
        "llm scan": "recipe size out plan checkpoint train.source test.source grader.name "
        "measure difficulties data_sizes seeds",
        "llm select": "directory source out budget budget_unit level selection loss order take_all "
        "accept_doubt push_to_hub",
        "llm bound": "model source out trained_by methods data_sizes delta",
    }.items()
}
"""Fields that the short help of a command shows. Those of a part stand behind its name and a dot;
commands that are not listed show all."""


class _Held(io.StringIO):
    """Standard output that is held back; tyro asks it what the terminal can show."""

    def __init__(self) -> None:
        super().__init__()
        self._terminal = sys.stdout

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._terminal, "encoding", "utf-8")

    def isatty(self) -> bool:
        return self._terminal.isatty()


@contextlib.contextmanager
def broken_between_words() -> Iterator[None]:
    """Break the running text of a help between words; tyro leaves that to the terminal."""
    held = _Held()
    try:
        with contextlib.redirect_stdout(held):
            yield
    finally:
        width = min(shutil.get_terminal_size().columns, MAX_WIDTH)
        for line in held.getvalue().splitlines():
            is_text = line[:1].isalnum() and "\x1b" not in line
            print(textwrap.fill(line, width, break_on_hyphens=False) if is_text else line)


def shortened(command: Callable[..., Any], main: Collection[str]) -> Callable[..., Any]:
    """Return a function with a command's signature, in which all but the main flags are hidden.

    Args:
      command: a command. It is not called, nor is the result meant to be.
      main: what to show, see `MAIN_FLAGS`.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters = []
    for parameter in inspect.signature(command).parameters.values():
        hint, default = _shown(hints[parameter.name], parameter.name, parameter.default, main)
        parameters.append(parameter.replace(annotation=hint, default=default))

    def short() -> None:
        raise AssertionError("help ends the program before the command begins")

    short.__doc__ = command.__doc__
    short.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    short.__annotations__ = {each.name: each.annotation for each in parameters}
    return short


def _shown(hint: Any, name: str, default: Any, main: Collection[str]) -> tuple[Any, Any]:
    """Type and default of a field: as they are, in part, or hidden."""
    kind, extras = (get_args(hint)[0], get_args(hint)[1:]) if is_annotated(hint) else (hint, ())
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        inside = {each.removeprefix(f"{name}.") for each in main if each.startswith(f"{name}.")}
        # A part without a name lends its fields to the whole.
        inside = {*main} if has_no_name(extras) else inside
        if inside & {field.name for field in dataclasses.fields(kind)} or has_no_name(extras):
            copy, default = _copy(kind, default, inside)
            return Annotated[(copy, *extras)] if extras else copy, default  # type: ignore[return-value]
    if name in main:
        return hint, default
    return Annotated[(hint, tyro.conf.Suppress)], default  # type: ignore[return-value]


def _copy(kind: type, default: Any, main: Collection[str]) -> tuple[type, Any]:
    """Copy a configuration's class with all but the main fields hidden, and its default."""
    hints = get_type_hints(kind, include_extras=True)
    fields, values = [], {}
    for field in dataclasses.fields(kind):
        value: Any = inspect.Parameter.empty
        if default is not inspect.Parameter.empty:
            value = getattr(default, field.name)
        elif field.default is not dataclasses.MISSING:
            value = field.default
        hint, value = _shown(hints[field.name], field.name, value, main)
        if value is inspect.Parameter.empty:
            fields.append((field.name, hint))
        else:
            values[field.name] = value
            fields.append((field.name, hint, _default(value)))
    copy = dataclasses.make_dataclass(kind.__name__, fields, frozen=True)
    copy.__doc__ = kind.__doc__
    return copy, default if default is inspect.Parameter.empty else copy(**values)


def _default(value: Any) -> Any:
    # Made anew for each instance: dataclasses refuse a default that can be changed.
    return dataclasses.field(default_factory=lambda: value)


def is_annotated(hint: Any) -> bool:
    """Return whether a type stands in `Annotated`."""
    return get_origin(hint) is Annotated


def has_no_name(extras: Collection[Any]) -> bool:
    """Return whether a part is annotated with an empty name, so that its flags have no prefix."""
    return any(getattr(extra, "name", None) == "" for extra in extras)
