"""What arguments of several commands have in common: how they are called in help, and checks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

Positional = tyro.conf.Positional
Directory = Annotated[Path, tyro.conf.arg(metavar="DIRECTORY")]
NewDirectory = Annotated[Path | None, tyro.conf.arg(metavar="DIRECTORY")]
"""A directory for results, which a command names itself unless it is told."""

RunDirectory = Annotated[Positional[Path | None], tyro.conf.arg(metavar="[DIRECTORY]")]
"""The directory that a command is about, as its first word; ``--results`` says the same."""

ResultsFlag = Annotated[Path | None, tyro.conf.arg(metavar="DIRECTORY")]
RunDirectories = Annotated[Positional[tuple[Path, ...]], tyro.conf.arg(metavar="[DIRECTORY ...]")]
ResultsFlags = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="[DIRECTORY ...]")]
Recipe = Annotated[Positional[str], tyro.conf.arg(metavar="RECIPE")]
Preset = Annotated[Positional[str | None], tyro.conf.arg(metavar="[PRESET]")]
Model = Annotated[str, tyro.conf.arg(metavar="MODEL")]
"""A folder or hub id of a checkpoint."""

REGISTRY = ConstructorRegistry()
"""How values are called in help, where a flag says nothing better."""

_WORDS: dict[Any, str] = {int: "INTEGER", float: "NUMBER", str: "TEXT"}
ALIASES = {"--grader": "--grader.name"}
"""Short names of flags, and the names that they stand for."""


@REGISTRY.primitive_rule
def _plain_words(kind: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Call a value INTEGER, NUMBER or TEXT, not by the name of its type in Python."""
    word = _WORDS.get(kind.type)
    if word is None:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=word,
        instance_from_str=lambda words: kind.type(words[0]),  # type: ignore[operator]
        is_instance=lambda value: _fits(value, kind.type),
        str_from_instance=lambda value: [str(value)],
    )


def _fits(value: Any, kind: Any) -> bool:
    """Return whether a default is of a type; a whole number is a number too."""
    return isinstance(value, (int, float) if kind is float else kind) and (
        kind is str or not isinstance(value, bool)
    )


@REGISTRY.primitive_rule
def _none(kind: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Write None as ``none``, and read both."""
    if kind.type is not type(None):
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="none",
        instance_from_str=lambda words: None,
        is_instance=lambda value: value is None,
        str_from_instance=lambda value: ["none"],
        choices=("none", "None"),
    )


def flag_name(key: str) -> str:
    """Return the flag of a field, whose parts are joined with dots."""
    return f"--{key.replace('_', '-')}"


def check_given_once(words: Sequence[str]) -> None:
    """Refuse a flag that is given twice: only its last values would count.

    Args:
      words: of a command line.

    Raises:
      ValueError: names the flag, and how a list is written.
    """
    seen: set[str] = set()
    for word in words:
        name = word.partition("=")[0].replace("_", "-")
        name = ALIASES.get(name, name)
        if not name.startswith("--") or name == "--":
            continue
        if name in seen:
            raise ValueError(
                f"{name} must be given once, with all its values (such as {name} A B), got it twice"
            )
        seen.add(name)


def one_directory(directory: Path | None, results: Path | None) -> Path:
    """Return the directory that a command is about.

    Args:
      directory: its first word.
      results: the value of ``--results``.

    Raises:
      ValueError: if neither or both are given.
    """
    if directory is not None and results is None:
        return directory
    if directory is None and results is not None:
        return results
    raise ValueError(
        f"results must be one directory, given as the first word or with --results, "
        f"got {'none' if results is None else f'{directory} and {results}'}"
    )


def several_directories(
    directories: Sequence[Path], results: Sequence[Path], *, least: int = 1
) -> list[Path]:
    """Return the directories that a command is about.

    Args:
      directories: its first words.
      results: the values of ``--results``.
      least: how many must be given.

    Raises:
      ValueError: if both are given, or too few.
    """
    if (directories and results) or len(directories) + len(results) < least:
        raise ValueError(
            f"results must be directories, given as the first words or with --results, "
            f"got {' '.join(map(str, [*directories, *results])) or 'none'}"
        )
    return [*directories, *results]
