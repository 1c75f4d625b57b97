"""What names a task of reasoning-gym, its knobs, and the number and seed of its problems::

    reasoning-gym:chain_sum?terms=2..6&digits=1&size=500&seed=7

The knob with several values, here ``terms``, is the difficulty: each value is a level.

The library draws problem i of seed s from s + i, so that seeds 7 and 8 would share nearly all
problems. Here the library's seed is a hash of task, knobs and seed: other seeds, and other levels,
draw other problems. The size is no part of it: a larger one adds problems and changes none, but for
the few tasks that look at it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from experiments.llm.problems.gym.knobs import CURRICULUM, Knob, knobs_of, settings
from experiments.llm.problems.gym.library import PREFIX, library
from synth.arguments import check_whole, closest

MOST = 1_000_000
"""The most problems of a source."""

SIZE, SEED = 500, 0
"""Where a source states none."""

SHAPE = f"{PREFIX}NAME?KNOB=VALUE&KNOB=FROM..TO&size={SIZE}&seed={SEED}"

_WHOLE = re.compile(r"-?[0-9]{1,12}")
_RANGE = re.compile(f"({_WHOLE.pattern})\\.\\.({_WHOLE.pattern})")


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
    size: int = SIZE
    seed: int = SEED

    def levels(self) -> list[tuple[int | None, Draws]]:
        """Number of each level, and its problems.

        The number is the knob's value if all its values are whole, or else its rank from 1. Without
        levels it is None, and the problems are all.
        """
        if self.level is None:
            return [(None, self)]
        is_whole = all(map(_WHOLE.fullmatch, self.values))
        return [
            (int(value) if is_whole else rank, self._at(self.level, value))
            for rank, value in enumerate(self.values, start=1)
        ]

    def _at(self, level: str, value: str) -> Draws:
        """The problems of one level."""
        return dataclasses.replace(self, fixed=(*self.fixed, (level, value)), level=None, values=())

    def name(self, *, size: bool = True) -> str:
        """Name the problems of one level as `parse` reads it; without `size` for all sizes."""
        stated = [*sorted(self.fixed), *[("size", self.size)] * size, ("seed", self.seed)]
        return f"{self.task}?" + "&".join(f"{knob}={value}" for knob, value in stated)

    def dataset(self) -> Any:
        """Make the library's data set of one level.

        Raises:
          ValueError: if the task refuses the values.
        """
        digest = hashlib.sha256(self.name(size=False).encode()).digest()
        seed = int.from_bytes(digest[:4], "big") >> 1
        fields = settings(self.task, self.fixed)
        try:
            return library().create_dataset(self.task, **fields, seed=seed, size=self.size)
        # Each task checks its values in its own way, most by assertions.
        except Exception as error:
            told = " ".join(str(error).split()) or type(error).__name__
            named = " and ".join(f"{knob}={value}" for knob, value in self.fixed) or "its defaults"
            raise ValueError(f"reasoning-gym's {self.task} refuses {named}: {told}") from error


def parse(source: str) -> Draws:
    """Read a source such as ``reasoning-gym:chain_sum?terms=2..6&size=500&seed=7``.

    Args:
      source: `PREFIX`, which may be left out, and the name of a task. After a question mark its
        knobs, each with one value, a range of whole numbers ``2..6``, or several values ``2,4,8``.
        A knob that takes a list has one value, the members between commas. ``size`` is the number
        of problems of each level, ``seed`` that of the draws.

    Raises:
      ImportError: if the library is not installed.
      ValueError: if there is no such task or knob, if a value cannot be read, if more than one knob
        has several values, or if two set one field.
    """
    name, _, query = source.removeprefix(PREFIX).partition("?")
    known = library().factory.DATASETS
    if name not in known:
        near = closest(name, known)
        raise ValueError(f"source must be {PREFIX}NAME, a task of it, got {name!r}{near}")
    # Numbers first: what is left are knobs.
    stated = _stated(query, source)
    size = _whole("size", stated.pop("size", str(SIZE)), 1)
    seed = _whole("seed", stated.pop("seed", str(SEED)), 0)
    knobs = knobs_of(name)
    if unknown := [knob for knob in stated if knob not in knobs]:
        near, every = closest(unknown[0], knobs), ", ".join(sorted(knobs))
        raise ValueError(
            f"reasoning-gym's {name} must be given knobs among {every}, or size and seed, "
            f"got {unknown[0]!r}{near}"
        )
    # Find the knob that has several values.
    values = {knob: _values(knobs[knob], text) for knob, text in stated.items()}
    several = [knob for knob, text in stated.items() if _is_level(knobs[knob], text)]
    if len(several) > 1:
        raise ValueError(f"source must have one knob with several values, got {sorted(several)}")
    level = several[0] if several else None
    _check_set_once(knobs[knob] for knob in stated)
    levels = tuple(values.pop(level)) if level is not None else ()
    if len(levels) * size > MOST:
        raise ValueError(f"source must name at most {MOST:,} problems, got {len(levels)} x {size}")
    fixed = tuple((knob, value) for knob, (value,) in values.items())
    return Draws(name, fixed, level, levels, size, seed)


def _stated(query: str, source: str) -> dict[str, str]:
    """Texts of the values in what follows the question mark."""
    stated: dict[str, str] = {}
    for part in query.split("&") if query else []:
        knob, _, value = part.partition("=")
        if not knob or not value:
            raise ValueError(f"source must be {SHAPE}, got {part!r} in {source!r}")
        if knob in stated:
            raise ValueError(f"source must state {knob!r} once, got {source!r}")
        stated[knob] = value
    return stated


def _whole(name: str, text: str, least: int) -> int:
    """Read the size or the seed."""
    value = int(text) if _WHOLE.fullmatch(text) else text
    check_whole(name, value, least, MOST if name == "size" else 2**31 - 1)
    return int(value)


def _is_level(knob: Knob, text: str) -> bool:
    """Whether a knob is the difficulty: a curriculum's level is, whether one or several."""
    is_several = "," in text or _RANGE.fullmatch(text) is not None
    return knob.name == CURRICULUM or (is_several and not knob.is_list)


def _values(knob: Knob, text: str) -> list[str]:
    """Texts of a knob's values, each once and each read."""
    if knob.is_list:
        values = [text]
    elif match := _RANGE.fullmatch(text):
        first, last = int(match[1]), int(match[2])
        if not 0 <= last - first < MOST:
            raise ValueError(f"{knob.name} must rise, as in 2..6, got {text!r}")
        values = [str(value) for value in range(first, last + 1)]
    else:
        values = text.split(",")
    read = [knob.read(value) for value in values]
    if any(value in read[:place] for place, value in enumerate(read)):
        raise ValueError(f"{knob.name} must have different values, got {text!r}")
    return values


def _check_set_once(knobs: Iterable[Knob]) -> None:
    """Refuse two knobs that set the same field."""
    by_field: dict[str, str] = {}
    for knob in knobs:
        for field in knob.fields:
            if field in by_field:
                both = [by_field[field], knob.name]
                raise ValueError(f"source must set {field} once, got it from {both}")
            by_field[field] = knob.name
