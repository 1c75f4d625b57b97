"""Problems of a task of reasoning-gym, drawn in worker processes with a time limit.

`ORIGINS` keeps where each problem came from, ``chain_sum?digits=1&terms=3&size=500&seed=7#12``.
A scorer needs more of a problem than its text; it draws the problem again from there.
"""

from __future__ import annotations

import functools
import random
import warnings
import zlib
from typing import Any

import numpy as np

from experiments.llm.problems.gym.library import ENVIRONMENT, library
from experiments.llm.problems.gym.solutions import Entry, NoStepsError, solution
from experiments.llm.problems.gym.source import parse
from experiments.llm.problems.workers import Lost, map_in_workers

ORIGINS = "reasoning_gym"
"""Column of a data set with the origin of each problem."""

CHUNK, SECONDS = 50, 120.0
"""Problems that a process draws at once, and the time that they may take."""

Drawn = tuple[str, str, str, str]
"""A problem, its solution, its answer and its origin; ``""`` where there is no solution."""


def draw_columns(source: str) -> dict[str, list[Any]]:
    """Draw the problems of a source.

    Args:
      source: see `experiments.llm.problems.gym.source.parse`.

    Returns:
      Columns problem, solution, answer, `ORIGINS`, and op if there are levels; rows take the levels
      in turn.

    Raises:
      ImportError: if the library is not installed.
      ValueError: see `parse`; if the task refuses the values of its knobs, states no solutions,
        or takes too long.
    """
    draws = parse(source)
    levels = draws.levels()
    # Values that a task refuses are an error before the first problem is drawn.
    for _, level in levels:
        level.dataset()
    # Draw every level in pieces.
    pieces = [
        (level.name(), start, min(start + CHUNK, draws.size))
        for _, level in levels
        for start in range(0, draws.size, CHUNK)
    ]
    drawn = map_in_workers(draw, pieces, timeout=SECONDS, prepare=library, environment=ENVIRONMENT)
    # Put the levels together, a problem of each in turn.
    every = [problem for piece in drawn for problem in _checked(draws.task, piece)]
    rows = [
        (*every[place * draws.size + index], number)
        for index in range(draws.size)
        for place, (number, _) in enumerate(levels)
    ]
    kept = _with_solutions(draws.task, rows)
    names = ["problem", "solution", "answer", ORIGINS, *(["op"] if draws.level else [])]
    return {name: [row[place] for row in kept] for place, name in enumerate(names)}


def _with_solutions(task: str, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Leave out problems without solutions, with a warning that counts them."""
    kept = [row for row in rows if row[1]]
    if not kept:
        raise ValueError(f"reasoning-gym's {task} must state solutions, got none in {len(rows)}")
    if len(kept) < len(rows):
        warnings.warn(
            f"{len(rows) - len(kept)} of {len(rows)} problems of {task} are left out: they have no "
            f"solution, or its steps do not end in their answer",
            stacklevel=2,
        )
    return kept


def _checked(task: str, piece: list[Drawn] | Lost) -> list[Drawn]:
    """Return problems, or say why they could not be drawn."""
    if not isinstance(piece, Lost):
        return piece
    reason = {
        "timeout": f"{CHUNK} take longer than {SECONDS:g} s (choose easier values of its knobs)",
        "crash": "its process ended",
        "error": " ".join(piece.detail.split()),
    }
    raise ValueError(f"reasoning-gym's {task} draws no problems: {reason[piece.reason]}")


def draw(piece: tuple[str, int, int]) -> list[Drawn]:
    """Draw problems in a worker process.

    Args:
      piece: name of the problems of one level, the first index, and the one after the last.
    """
    name, start, stop = piece
    return [_drawn(name, index) for index in range(start, stop)]


def _drawn(name: str, index: int) -> Drawn:
    """Draw one problem."""
    entry = entry_of(name, index)
    try:
        written = solution(name.partition("?")[0], entry)
    except NoStepsError:
        written = ""
    return entry["question"], written, entry["answer"] or "", f"{name}#{index}"


def entry_of(name: str, index: int) -> Entry:
    """Draw one problem as the library states it.

    A few tasks draw from the global generators of Python and NumPy: these are set first, so that
    the problem depends on its origin alone.
    """
    task, place = dataset(name), f"{name}#{index}"
    random.seed(place)
    np.random.seed(zlib.crc32(place.encode()))  # noqa: NPY002 (what those tasks use)
    return task[index]


@functools.lru_cache(maxsize=64)
def dataset(name: str) -> Any:
    """The library's data set of one level, by its name."""
    ((_, draws),) = parse(name).levels()
    return draws.dataset()
