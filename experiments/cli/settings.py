"""Configuration files: the flags of a command as YAML, read and written.

A file holds the values of a command's flags, by the flags' names without dashes in front. Names
with dots may be nested. Before tyro parses a command line, what a file states is written into it
as flags; those that the command line has itself stay as they are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from experiments.cli.arguments import ALIASES, flag_name
from experiments.cli.help import has_no_name, is_annotated
from experiments.storage.untrusted import check_file
from synth.arguments import closest

READ, WRITE = "--config", "--write-config"
COMMAND = "command"
"""Key that names the command; a file may leave it out."""

MEBIBYTES, DEPTH = 1, 12
"""The most of a file, and the most levels that it nests."""


@dataclass(frozen=True)
class Files:
    """The configuration files that a command line names.

    Attributes:
      words: the command line without them.
      read, write: the file to read values from, and the file to write all values to.

    Raises:
      ValueError: if `write` exists.
    """

    words: tuple[str, ...]
    read: Path | None = None
    write: Path | None = None

    def __post_init__(self) -> None:
        if self.write is not None and self.write.exists():
            raise ValueError(f"write_config must name a new file, {self.write} exists")


def named_in(words: Sequence[str]) -> Files:
    """Take the flags ``--config FILE`` and ``--write-config FILE`` out of a command line.

    Raises:
      ValueError: if a file's name is missing.
    """
    kept, found, rest = [], {}, iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")
        if name not in (READ, WRITE):
            kept.append(word)
            continue
        value = value if equals else next(rest, "")
        if not value or value.startswith("-"):
            raise ValueError(f"{name} must be followed by a file, got {value or 'nothing'!r}")
        found[name] = Path(value)
    return Files(tuple(kept), found.get(READ), found.get(WRITE))


@dataclass(frozen=True)
class Flag:
    """A flag of a command.

    Attributes:
      key: its name in a file.
      hint: the type of its value.
      value: its default, or the value that it has.
      is_positional: whether its value is a word of its own, without the flag.
    """

    key: str
    hint: Any
    value: Any
    is_positional: bool

    @property
    def names(self) -> tuple[str, str]:
        """Its name on the command line, and that where its value is false."""
        before, dot, last = self.key.rpartition(".")
        return flag_name(self.key), flag_name(f"{before}{dot}no-{last}")

    def words(self, value: Any) -> list[str]:
        """Words of a command line that state a value."""
        name, negative = self.names
        if self.is_positional:
            return [] if value is None else [str(value)]
        if isinstance(value, bool):
            return [name if value else negative]
        if isinstance(value, Mapping):
            return [name, *(str(word) for pair in value.items() for word in pair)]
        if isinstance(value, list):
            return [name, *map(_word, value)]
        # In one word: a text may begin with dashes.
        return [f"{name}={_word(value)}"]


def _word(value: Any) -> str:
    return "none" if value is None else str(value)


def flags_of(command: Callable[..., Any], values: Mapping[str, Any] | None = None) -> list[Flag]:
    """Flags of a command, in order.

    Args:
      command: a command.
      values: its arguments; None for their defaults.
    """
    hints = get_type_hints(command, include_extras=True)
    found: list[Flag] = []
    for name, parameter in inspect.signature(command).parameters.items():
        value = parameter.default if values is None else values[name]
        found += _flags("", name, hints[name], value)
    return found


def _flags(before: str, name: str, hint: Any, value: Any) -> Iterator[Flag]:
    """The flag of an argument or field, or the flags of the configuration that it holds."""
    kind, extras = (get_args(hint)[0], get_args(hint)[1:]) if is_annotated(hint) else (hint, ())
    is_given = dataclasses.is_dataclass(value) and not isinstance(value, type)
    kind = type(value) if is_given else kind
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        # An optional configuration that is left out has no flags.
        if not any(dataclasses.is_dataclass(each) for each in get_args(kind)):
            yield Flag(f"{before}{name}", kind, value, tyro.conf.Positional in extras)
        return
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        inner = getattr(value, field.name) if is_given else _default(field)
        within = before if has_no_name(extras) else f"{before}{name}."
        yield from _flags(within, field.name, hints[field.name], inner)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


# Reading.


def read_settings(path: Path) -> dict[str, Any]:
    """Read the values of a configuration file by their keys; nested keys are joined with dots.

    Raises:
      FileNotFoundError: if there is no file.
      ValueError: if it is no YAML of keys and values, too large, nests too deeply, has a key twice,
        or has an alias, which may stand for more than memory holds.
    """
    check_file(path, most_mebibytes=MEBIBYTES)
    import yaml

    depth = 0
    try:
        text = path.read_text(encoding="utf-8")
        # Events come without recursion, and before anything is built.
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH:
                raise ValueError(f"nests more than {DEPTH} levels")
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"has the alias *{event.anchor}; write its value instead")
        content = yaml.load(text, Loader=_loader())
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read as YAML: {reason}") from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise ValueError(f"{path} must hold keys and values, such as 'seed: 0', got {kind}")
    return dict(_joined(content, "", path))


def _loader() -> type[Any]:
    """YAML's safe loader, which refuses a key that stands twice."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key) for key, _ in node.value]
            for number, key in enumerate(keys):
                if key in keys[:number]:
                    raise ValueError(f"has the key {key!r} twice")
            return super().construct_mapping(node, deep)

    return Loader


def _joined(content: Mapping[Any, Any], before: str, path: Path) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if not isinstance(key, str):
            raise ValueError(f"{path}: keys must be names of flags, got {before}{key!r}")
        name = f"{before}{key.replace('-', '_')}"
        if isinstance(value, Mapping) and value:
            yield from _joined(value, f"{name}.", path)
        else:
            yield name, value


def command_words(settings: dict[str, Any], words: Sequence[str], path: Path) -> list[str]:
    """Write the command's positional words, which a file states, into a command line.

    Args:
      settings: of the file; what is written or replaced is taken out of it.
      words: the command line, its command first.
      path: of the file.

    Returns:
      The command line with them, unless it has such words itself.

    Raises:
      ValueError: if the file is of another command.
    """
    number = 2 if words[:1] == ["llm"] else 1
    name, rest = " ".join(words[:number]), list(words[number:])
    if (stated := settings.pop(COMMAND, name)) != name:
        raise ValueError(f"{path} is a configuration of {stated!r}, got the command {name!r}")
    own = next((place for place, word in enumerate(rest) if word.startswith("-")), len(rest))
    # A preset follows its recipe, and is a flag as well.
    stated = [settings.pop(key, None) for key in ("recipe", "size", "directory")]
    if own > 1:
        settings.pop("preset", None)
    inserted = [] if own else [str(word) for word in stated if word is not None]
    return [*words[:number], *inserted, *rest]


def stated_words(
    settings: Mapping[str, Any], command: Callable[..., Any], words: Sequence[str], path: Path
) -> list[str]:
    """Flags of a command line for what a file states and the command line does not.

    Args:
      settings: of the file, by key.
      command: whose flags they are.
      words: the command line.
      path: of the file.

    Raises:
      ValueError: names the key, if there is no such flag, or its value is of another type.
    """
    flags = {flag.key: flag for flag in flags_of(command)}
    own = {flag_name(word.partition("=")[0].removeprefix("--")) for word in words}
    given: dict[str, Any] = {}
    for key, value in settings.items():
        key = ALIASES.get(flag_name(key), flag_name(key)).removeprefix("--").replace("-", "_")
        # Parts of a mapping that a flag takes as a whole.
        whole = next((name for name in flags if key.startswith(f"{name}.")), None)
        if whole is not None and _accepts(flags[whole].hint, {}):
            given.setdefault(whole, {})[key.removeprefix(f"{whole}.")] = value
        elif key in flags:
            given[key] = value
        else:
            raise ValueError(f"{path}: {key!r} is no flag of the command{closest(key, flags)}")
    found: list[str] = []
    for key, value in given.items():
        flag = flags[key]
        if not _accepts(flag.hint, value):
            shown = f"{type(value).__name__} {str(value)!r:.100}"
            raise ValueError(f"{path}: {key} must be {_told(flag.hint)}, got {shown}")
        if not {*flag.names, *(a for a, name in ALIASES.items() if name == flag.names[0])} & own:
            found += flag.words(value)
    return found


def _accepts(hint: Any, value: Any) -> bool:
    """Return whether a value of a file is of a flag's type."""
    hint = get_args(hint)[0] if is_annotated(hint) else hint
    kind, inside = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, types.UnionType):
        return any(_accepts(each, value) for each in inside)
    if kind is Literal:
        return value in inside
    if kind in (tuple, list, Sequence):
        return isinstance(value, list) and all(_accepts(inside[0], each) for each in value)
    if kind is dict:
        return isinstance(value, dict) and all(_accepts(inside[1], one) for one in value.values())
    if kind is type(None):
        return value is None
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is float:
        # YAML 1.1 takes 5e-5, without a point, for text.
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            return isinstance(float(value), float)
        return False
    return isinstance(value, int if kind is int else (str, int, float))


def _told(hint: Any) -> str:
    """A flag's type in words."""
    hint = get_args(hint)[0] if is_annotated(hint) else hint
    kind, inside = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, types.UnionType):
        return " or ".join(map(_told, inside))
    if kind is Literal:
        return f"one of {inside}"
    if kind in (tuple, list, Sequence):
        return f"a list, each {_told(inside[0])}"
    words = {bool: "true or false", int: "a whole number", float: "a number", type(None): "null"}
    return words.get(kind, "keys with values" if kind is dict else "text")


# Writing.


def captured(command: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Return a function with a command's signature that returns its arguments, and runs nothing."""

    def capture(**arguments: Any) -> dict[str, Any]:
        return arguments

    capture.__doc__ = command.__doc__
    capture.__signature__ = inspect.signature(command)  # type: ignore[attr-defined]
    capture.__annotations__ = get_type_hints(command, include_extras=True)
    return capture


def write_settings(path: Path, name: str, command: Callable[..., Any], values: Any) -> None:
    """Write a configuration file that states the value of every flag.

    Args:
      path: the new file.
      name: of the command.
      command: the command.
      values: its arguments.
    """
    import yaml

    content: dict[str, Any] = {COMMAND: name}
    for flag in flags_of(command, values):
        if flag.is_positional and flag.value is None:
            continue
        *before, last = flag.key.split(".")
        inside = content
        for part in before:
            inside = inside.setdefault(part, {})
        inside[last] = _plain(flag.value)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    path.parent.mkdir(parents=True, exist_ok=True)
    from experiments.storage.writing import write_atomically  # here, as its pandas takes a second

    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def _plain(value: Any) -> Any:
    """A value as YAML has it."""
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return value if isinstance(value, (bool, int, float, str)) or value is None else str(value)
