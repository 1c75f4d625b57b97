"""Tasks of the library reasoning-gym as a source of problems, and their own scorers.

A source names a task and its knobs::

    reasoning-gym:chain_sum?terms=2..6&digits=1&size=500&seed=7

The knob with several values, here ``terms``, is the difficulty: each value is a level. A knob is a
field of the task's configuration (``min_terms``), a pair of them without its ``min_`` and ``max_``,
set to one value (``terms``, or ``num_terms`` as the task's curriculum calls it), or ``level``: all
knobs that the task's curriculum moves, as it sets them at that level.

The library draws problem i of seed s from s + i, so that seeds 7 and 8 would share nearly all
problems. Here the library's seed is a hash of task, knobs and seed: other seeds, and other levels,
draw other problems. Problems are drawn in processes with one fixed hash seed, as some tasks walk
over sets of strings: the same source draws the same problems everywhere.

`COLUMN` keeps where each problem came from, ``chain_sum?digits=1&terms=3&size=500&seed=7#12``. A
scorer needs more of a problem than its text; it draws the problem again from there.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import importlib.util
import re
import types
import typing
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.distribution import install_hint
from experiments.llm.problems.worked import NoStepsError, solution
from experiments.llm.problems.workers import Lost, map_in_workers
from synth.arguments import check_whole, closest

PREFIX = "reasoning-gym:"
COLUMN = "reasoning_gym"
"""Column of a data set with the origin of each problem."""

CURRICULUM = "level"
"""Knob that stands for all that a curriculum moves."""

MOST = 1_000_000
"""The most problems of a source, and the most of one level."""

CHUNK, CHUNK_SECONDS = 50, 120.0
"""Problems that a process draws at once, and the time that they may take."""

ENVIRONMENT = {"PYTHONHASHSEED": "0"}
"""Of the processes that draw: the order of sets of strings is then the same in each."""

_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")
_SHAPE = f"{PREFIX}NAME?KNOB=VALUE&KNOB=FROM..TO&size=500&seed=0"


@dataclass(frozen=True)
class Draws:
    """Problems of one task.

    Attributes:
      task: its name in reasoning-gym.
      fixed: knobs with one value, and their values as text.
      level: the knob whose values are the levels; None without levels.
      values: of that knob, as text.
      size: problems of each level.
      seed: of the draws.
    """

    task: str
    fixed: tuple[tuple[str, str], ...] = ()
    level: str | None = None
    values: tuple[str, ...] = ()
    size: int = 500
    seed: int = 0

    def levels(self) -> list[tuple[int | None, Draws]]:
        """Number of each level and its problems: the knob's value if whole, else its rank."""
        if self.level is None:
            return [(None, self)]
        is_whole = all(re.fullmatch(r"-?\d+", value) for value in self.values)
        return [
            (
                int(value) if is_whole else rank,
                dataclasses.replace(
                    self, fixed=(*self.fixed, (self.level, value)), level=None, values=()
                ),
            )
            for rank, value in enumerate(self.values, start=1)
        ]

    def origin(self) -> str:
        """Name the problems of one level, as `parse` reads it."""
        return f"{self.task}?{self._stated(('size', str(self.size)), ('seed', str(self.seed)))}"

    def _stated(self, *more: tuple[str, str]) -> str:
        return "&".join(f"{knob}={value}" for knob, value in (*sorted(self.fixed), *more))

    def dataset(self) -> Any:
        """The library's data set of one level.

        Raises:
          ValueError: if the task refuses the settings.
        """
        key = f"{self.task}?{self._stated(('seed', str(self.seed)))}"
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) >> 1
        settings = _settings(self.task, self.fixed)
        try:
            return _library().create_dataset(self.task, **settings, seed=seed, size=self.size)
        # Each task checks its settings in its own way, most by assertions.
        except Exception as error:
            told = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"reasoning-gym's {self.task} refuses {self._stated() or 'its defaults'}: {told}"
            ) from error


def is_gym(source: object) -> bool:
    """Return whether a source is a task of reasoning-gym."""
    return str(source).startswith(PREFIX)


def check_installed() -> None:
    """Refuse to go on without the library.

    Raises:
      ImportError: says how it is installed.
    """
    if importlib.util.find_spec("reasoning_gym") is None:
        raise ImportError(f"tasks of reasoning-gym need: {install_hint('gym')}")


def _library() -> Any:
    """The module reasoning_gym; it takes a second to load."""
    check_installed()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import reasoning_gym
    return reasoning_gym


# Names of problems: task, knobs, size, seed.


def parse(source: str) -> Draws:
    """Read a source such as ``reasoning-gym:chain_sum?terms=2..6&size=500&seed=7``.

    Args:
      source: what `PREFIX` is followed by, with or without it: the name of a task, and after a
        question mark its knobs, each with one value, a range of whole numbers ``2..6``, or several
        values ``2,4,8``. ``size`` is the number of problems of each level, ``seed`` that of the
        draws. A knob that takes a list takes its members between commas, as one value.

    Raises:
      ImportError: if the library is not installed.
      ValueError: if there is no such task or knob, if a value cannot be read, or if more than one
        knob has several values.
    """
    name, _, query = source.removeprefix(PREFIX).partition("?")
    known = _library().factory.DATASETS
    if name not in known:
        near = closest(name, known)
        raise ValueError(f"source must be {PREFIX} and a task of the library, got {name!r}{near}")
    # Split the query into knobs and texts of values.
    stated: dict[str, str] = {}
    for part in query.split("&") if query else []:
        knob, _, value = part.partition("=")
        if not knob or not value:
            raise ValueError(f"source must be {_SHAPE}, got {part!r} in {source!r}")
        if knob in stated:
            raise ValueError(f"source must state {knob!r} once, got {source!r}")
        stated[knob] = value
    size, seed = (_whole(stated, part, default) for part, default in (("size", 500), ("seed", 0)))
    check_whole("size", size, 1, MOST)
    check_whole("seed", seed, 0)
    # Find the knob that has several values: its values are the levels.
    knobs, several, fixed = _knobs(name), {}, {}
    for knob, text in stated.items():
        if knob not in knobs:
            raise ValueError(_no_knob(name, knob, knobs))
        values = _values(text) if not knobs[knob].is_list else [text]
        target = several if len(values) > 1 or knob == CURRICULUM or ".." in text else fixed
        target[knob] = values
    if len(several) > 1:
        raise ValueError(f"source must have one knob with several values, got {sorted(several)}")
    for knob, values in {**fixed, **several}.items():
        for value in values:
            knobs[knob].read(knob, value)
    level, values = next(iter(several.items()), (None, []))
    if len(values) * size > MOST:
        raise ValueError(f"source must name at most {MOST:,} problems, got {source!r}")
    draws = Draws(
        name, tuple((k, v) for k, (v,) in fixed.items()), level, tuple(values), size, seed
    )
    _check_set_once(draws, knobs)
    return draws


def _whole(stated: dict[str, str], part: str, default: int) -> int:
    """Take a whole number out of what a source states."""
    text = stated.pop(part, str(default))
    if not re.fullmatch(r"-?\d{1,12}", text):
        raise ValueError(f"{part} must be a whole number, got {text!r}")
    return int(text)


def _values(text: str) -> list[str]:
    """Values of a knob: ``2..6`` or ``2,4,8`` are several, each once."""
    if match := _RANGE.fullmatch(text):
        first, last = int(match[1]), int(match[2])
        if not 0 <= last - first < MOST:
            raise ValueError(f"ranges must rise, as 2..6, got {text!r}")
        return [str(value) for value in range(first, last + 1)]
    values = text.split(",")
    if len(set(values)) < len(values) or not all(values):
        raise ValueError(f"values must differ, as in 2,4,8, got {text!r}")
    return values


def _no_knob(task: str, knob: str, knobs: Mapping[str, Knob]) -> str:
    return (
        f"reasoning-gym's {task} has no knob {knob!r}{closest(knob, knobs)}; it has "
        f"{', '.join(sorted(knobs))}, size and seed"
    )


def _check_set_once(draws: Draws, knobs: Mapping[str, Knob]) -> None:
    """Refuse two knobs that set the same field, but for those of a curriculum."""
    by_field: dict[str, str] = {}
    named = [knob for knob, _ in draws.fixed] + [draws.level] * (draws.level is not None)
    for knob in named:
        for field in knobs[knob].fields:
            if field in by_field:
                raise ValueError(
                    f"source must set {field} once, got {by_field[field]!r} and {knob!r}"
                )
            by_field[field] = knob


# Knobs of a task.


@dataclass(frozen=True)
class Knob:
    """What a source can set.

    Attributes:
      fields: of the task's configuration, set to the same value.
      kind: their annotation.
      default: value of the first; tells the kind of members where the annotation does not.
    """

    fields: tuple[str, ...]
    kind: Any
    default: Any = None

    @property
    def is_list(self) -> bool:
        """Whether a value has members."""
        kind = typing.get_origin(self._plain) or self._plain
        return isinstance(kind, type) and issubclass(kind, Sequence) and kind is not str

    @property
    def _plain(self) -> Any:
        """The kind, without "or None"."""
        if typing.get_origin(self.kind) in (typing.Union, types.UnionType):
            return next(kind for kind in typing.get_args(self.kind) if kind is not type(None))
        return self.kind

    def read(self, name: str, text: str) -> Any:
        """Read a value of the knob `name`.

        Raises:
          ValueError: if the text is none.
        """
        if not self.is_list:
            return _read(name, self._plain, text)
        stated = [kind for kind in typing.get_args(self._plain) if kind is not Ellipsis]
        kind = stated[0] if stated else type(next(iter(self.default or ()), ""))
        return [_read(name, kind, member) for member in text.split(",")]


def _read(name: str, kind: Any, text: str) -> Any:
    """Read one value of a kind."""
    if typing.get_origin(kind) is typing.Literal:
        accepted = {str(choice): choice for choice in typing.get_args(kind)}
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        accepted = {str(choice.value): choice for choice in kind}
    elif kind is bool:
        accepted = {"true": True, "false": False}
    elif kind in (int, float, str):
        try:
            return kind(text)
        except ValueError:
            whole = "a whole number" if kind is int else "a number"
            raise ValueError(f"{name} must be {whole}, got {text!r}") from None
    else:
        raise ValueError(f"{name} cannot be set in a source: it is no number, word or list of them")
    if text not in accepted:
        raise ValueError(f"{name} must be one of {list(accepted)}, got {text!r}")
    return accepted[text]


@functools.lru_cache
def _knobs(task: str) -> dict[str, Knob]:
    """Everything that a source can set of a task, by name."""
    fields = {field.name: field for field in dataclasses.fields(_configuration(task))}
    del fields["size"], fields["seed"]
    knobs = {name: Knob((name,), field.type, _default(field)) for name, field in fields.items()}
    # Pairs of a least and a greatest value, by their stem and by the curriculum's name.
    for name in fields:
        stem = name.removeprefix("min_")
        if stem != name and f"max_{stem}" in fields:
            knobs.setdefault(stem, Knob((name, f"max_{stem}"), fields[name].type))
    curriculum = _curriculum(task)
    for attribute in curriculum.attributes.values() if curriculum else ():
        if hasattr(attribute, "lower_field_name"):
            pair = (attribute.lower_field_name, attribute.upper_field_name)
            knobs.setdefault(attribute.name, Knob(pair, fields[pair[0]].type))
    if curriculum and curriculum.attributes:
        knobs[CURRICULUM] = Knob((), int)
    return knobs


def _configuration(task: str) -> Any:
    return _library().factory.DATASETS[task][1]


def _curriculum(task: str) -> Any | None:
    """The task's curriculum; None if it has none."""
    factory = _library().factory
    return factory.create_curriculum(task) if factory.has_curriculum(task) else None


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _settings(task: str, fixed: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Fields of a task's configuration; what a curriculum sets gives way to other knobs."""
    knobs, settings = _knobs(task), {}
    for name, text in sorted(fixed, key=lambda pair: pair[0] != CURRICULUM):
        value = knobs[name].read(name, text)
        if name == CURRICULUM:
            settings |= _curriculum_settings(task, value)
        settings |= dict.fromkeys(knobs[name].fields, value)
    return settings


def _curriculum_settings(task: str, level: int) -> dict[str, Any]:
    """Fields that the task's curriculum sets at a level, counted from 0."""
    curriculum = _curriculum(task)
    most = max(len(attribute.levels) for attribute in curriculum.attributes.values()) - 1
    if not 0 <= level <= most:
        raise ValueError(f"level of reasoning-gym's {task} must be 0 to {most}, got {level}")
    curriculum.set_global_level(level)
    configuration = curriculum.generate_configuration()
    named = set()
    for attribute in curriculum.attributes.values():
        is_pair = hasattr(attribute, "lower_field_name")
        pair = ("lower_field_name", "upper_field_name") if is_pair else ("field_name",)
        named |= {getattr(attribute, name) for name in pair}
    return {name: getattr(configuration, name) for name in sorted(named)}


# Problems and scores.


def draw_columns(source: str) -> dict[str, list[Any]]:
    """Draw the problems of a source.

    Returns:
      Columns problem, solution, answer, `COLUMN`, and op if there are levels; rows take the levels
      in turn.

    Raises:
      ImportError: if the library is not installed.
      ValueError: see `parse`; if the task refuses its settings, states no solutions, or takes too
        long.
    """
    draws = parse(source)
    levels = draws.levels()
    for _, level in levels:
        level.dataset()
    # Draw each level in pieces, in processes.
    starts = range(0, draws.size, CHUNK)
    requests = [
        (level.origin(), start, min(start + CHUNK, draws.size))
        for start in starts
        for _, level in levels
    ]
    pieces = map_in_workers(
        draw, requests, timeout=CHUNK_SECONDS, prepare=_library, environment=ENVIRONMENT
    )
    # Put them together, the levels in turn.
    rows: list[tuple[Any, ...]] = []
    for place in range(len(starts)):
        beside = pieces[place * len(levels) : (place + 1) * len(levels)]
        if lost := next((piece for piece in beside if isinstance(piece, Lost)), None):
            raise ValueError(_reason(draws.task, lost))
        for index, problems in enumerate(zip(*beside, strict=True), start=starts[place]):
            for (number, level), problem in zip(levels, problems, strict=True):
                rows.append((*problem, f"{level.origin()}#{index}", number))
    kept = [row for row in rows if row[1] is not None]
    _tell_dropped(draws.task, kept, len(rows))
    columns = [list(column) for column in zip(*kept, strict=True)]
    names = ["problem", "solution", "answer", COLUMN, *(["op"] if draws.level else [])]
    return dict(zip(names, columns, strict=False))


def _tell_dropped(task: str, kept: Sequence[tuple[Any, ...]], number: int) -> None:
    """Count the problems without worked steps; refuse a task that states no solutions at all."""
    if any(not row[1] for row in kept):
        raise ValueError(
            f"reasoning-gym's {task} states no answers, so that nothing can be trained"
        )
    if not kept:
        raise ValueError(f"none of {number} problems of {task} has steps that end in its answer")
    if len(kept) < number:
        warnings.warn(
            f"{number - len(kept)} of {number} problems of {task} are left out: their worked "
            f"steps do not end in their answer",
            stacklevel=2,
        )


def _reason(task: str, lost: Lost) -> str:
    """Say why a piece of problems could not be drawn."""
    told = {
        "timeout": f"it took more than {CHUNK_SECONDS:g} s for {CHUNK} problems",
        "crash": "its process ended",
        "error": lost.detail,
    }
    return f"reasoning-gym's {task} draws no problems with these knobs: {told[lost.reason]}"


@functools.lru_cache(maxsize=64)
def _dataset(origin: str) -> Any:
    """Data set of an origin without its index."""
    ((_, draws),) = parse(origin).levels()
    return draws.dataset()


def draw(request: tuple[str, int, int]) -> list[tuple[str, str | None, str]]:
    """Draw problems in a worker process.

    Args:
      request: origin without index, the first index, and the one after the last.

    Returns:
      Problem, solution and answer of each; None as a solution whose steps cannot be written.
    """
    origin, start, stop = request
    task, _, _ = origin.partition("?")
    dataset, problems = _dataset(origin), []
    for index in range(start, stop):
        entry = dataset[index]
        try:
            written = solution(task, entry)
        except NoStepsError:
            written = None
        problems.append((entry["question"], written, entry["answer"] or ""))
    return problems
