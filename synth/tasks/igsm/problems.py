"""Draw iGSM problems as text, by difficulty, preset and seed, in any number of processes."""

from __future__ import annotations

import functools
import hashlib
import itertools
import multiprocessing
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Literal, get_args

import numpy as np

from synth.tasks.igsm.draw import draw, draw_num_ops
from synth.tasks.igsm.graph import Drawn, Settings
from synth.tasks.igsm.names import CHAINS, Category, draw_names
from synth.tasks.igsm.text import Detail, OutOfSymbolsError, Question, Wording
from synth.tasks.igsm.work import Operand, work

Split = Literal["train", "test"]
NUM_BINS = 23
BINS: dict[Split, range] = {"train": range(16), "test": range(16, NUM_BINS)}
"""Bins of `template_bin` that belong to each split, as in the reference."""
DEGENERATE = 3
"""Up to this op count there are too few templates to split them."""
_CHUNK = 64
"""Problems that a worker process draws at a time."""


@dataclass(frozen=True)
class Preset:
    """A way of drawing and writing problems, by name.

    Attributes:
      settings: the distribution of problems.
      detail: style and completeness of solutions.
      question: stands ``last`` or ``first``.
      chains: categories that names are drawn from.
      max_distractors: most sentences that the question does not need; a problem with more is drawn
        again. None for any number.

    Raises:
      ValueError: if `max_distractors` is negative.
    """

    settings: Settings
    detail: Detail = field(default_factory=Detail)
    question: Question = "last"
    chains: tuple[tuple[Category, ...], ...] = CHAINS
    max_distractors: int | None = None

    def __post_init__(self) -> None:
        if self.max_distractors is not None and self.max_distractors < 0:
            raise ValueError(
                f"max_distractors must be at least 0, or None, got {self.max_distractors}"
            )

    def accepts(self, drawn: Drawn) -> bool:
        """True if a problem has at most `max_distractors` distractors."""
        return self.max_distractors is None or drawn.num_distractors <= self.max_distractors


FEW_NAMES = tuple(Category(category.name, (category.kinds[0][:4],)) for category in CHAINS[0])
"""One chain with as many items in each category as the widest layer has."""


PRESETS: dict[str, Preset] = {
    "med": Preset(Settings("light", max_op=15, max_edge=20)),
    "hard": Preset(Settings("light", max_op=21, max_edge=28)),
    "paper": Preset(Settings("heavy")),
    "length_matched": Preset(Settings("heavy", max_edge=28, min_edge=24)),
    "tiny": Preset(
        Settings("heavy", modulus=5, shuffle=6),
        Detail("name only", canonical=True),
        question="first",
        chains=(FEW_NAMES,),
        max_distractors=2,
    ),
}
"""Ways of drawing and writing problems, by name.

- ``med`` and ``hard`` are those of Ye et al.
- ``paper`` is that of Liu et al., arXiv 2605.12906: heavy, op fixed, and
  ``max_edge = floor(4 op / 3) + 1``.
- ``length_matched`` keeps the number of edges, and so of sentences, in the same range at every op,
  so that op is not confounded with the length of the problem.
- ``tiny`` is for models of some hundred thousand parameters, trained in minutes on two processor
  cores: modulo 5, the question first, the sentences in an order of computation, at most two of them
  distractors, 16 names of items, and one solution for a problem. Solutions use names and not
  letters, so that a model trained on short solutions has met every word of longer ones.
"""


@dataclass(frozen=True)
class Problem:
    """One problem as text.

    Attributes:
      problem, solution, answer: the text, the steps, and the number asked for.
      difficulty: operations that the answer needs.
      template: bin of the problem's template, 0 to 22; see `template_bin`.
    """

    problem: str
    solution: str
    answer: int
    difficulty: int
    template: int


def template_bin(drawn: Drawn) -> int:
    """Bin of a problem's template, 0 to 22: SHA-256 of the template modulo 23.

    The template is the solution's steps in order, with parameters numbered as they occur and
    every constant left out: problems that differ only in names, constants and symbols share it.
    """
    number = {parameter: index for index, parameter in enumerate(drawn.order)}

    def word(operand: Operand) -> str:
        if operand.kind == "number":
            return "n"
        return f"p{number[operand.index]}" if operand.kind == "parameter" else f"s{operand.index}"

    lines = []
    for parameter in drawn.order:
        worked = work(drawn, parameter)
        kind = "abstract" if drawn.structure.is_abstract(parameter) else "instance"
        steps = [f"{word(step.left)}{step.sign}{word(step.right)}" for step in worked.steps]
        lines.append(" ".join([kind, *(steps or [word(only) for only in [worked.only] if only])]))
    digest = hashlib.sha256("\n".join(lines).encode()).digest()
    return int.from_bytes(digest) % NUM_BINS


def problems(
    difficulty: int | None,
    count: int,
    *,
    seed: int,
    preset: str = "paper",
    processes: int = 1,
    split: Split | None = None,
    start: int = 0,
) -> Iterator[Problem]:
    """Draw problems with exactly `difficulty` operations, or with an op count drawn for each.

    Problem ``i`` depends on ``(seed, preset, split, difficulty, i)`` alone: fewer problems are a
    prefix of more, and the number of processes changes nothing. Seeds are hashed, so neighbouring
    seeds share nothing.

    Args:
      difficulty: the op count, at least 1; None to draw it by the preset's law, up to its `max_op`.
      count: number of problems, at least 0.
      seed: of the stream, at least 0.
      preset: a name in `PRESETS`.
      processes: worker processes; 1 draws in the calling process.
      split: draw each problem again until its template lies in the ``train`` or ``test`` bins.
      start: number of the first problem.

    Raises:
      ValueError: if an argument is out of range; raised by the call, not by the iteration.

    Warns:
      UserWarning: if `split` is asked for at a difficulty with hardly any templates.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {sorted(PRESETS)}, got {preset!r}")
    for name, number, least in (
        ("difficulty", 1 if difficulty is None else difficulty, 1),
        ("count", count, 0),
        ("seed", seed, 0),
        ("processes", processes, 1),
        ("start", start, 0),
    ):
        if number < least:
            raise ValueError(f"{name} must be at least {least}, got {number}")
    if split is not None and split not in get_args(Split):
        raise ValueError(f"split must be one of {get_args(Split)} or None, got {split!r}")
    settings = PRESETS[preset].settings
    settings.check(settings.max_op if difficulty is None else difficulty)
    if split is not None and difficulty is not None and difficulty <= DEGENERATE:
        _check_split(settings, difficulty, split)
    one = partial(_problem, seed, preset, split, difficulty)
    numbers = range(start, start + count)
    return map(one, numbers) if processes == 1 else _parallel(one, numbers, processes)


@functools.cache
def _template_bins(settings: Settings, difficulty: int) -> frozenset[int]:
    """Bins of the templates of 300 problems: nearly all bins in use, if there are few templates."""
    rng = Random(0)
    return frozenset(template_bin(draw(settings, difficulty, rng)) for _ in range(300))


def _check_split(settings: Settings, difficulty: int, split: Split) -> None:
    """Warn that there are few templates; raise ValueError if the split holds none of them."""
    bins = _template_bins(settings, difficulty)
    if not bins.intersection(BINS[split]):
        raise ValueError(
            f"split {split!r} holds no template of difficulty {difficulty}, whose templates fall "
            f"in bins {sorted(bins)}; use disjoint keys up to difficulty {DEGENERATE}"
        )
    warnings.warn(
        f"at difficulty {difficulty} there are so few templates that a split by template "
        f"separates kinds of problems, not problems; use disjoint keys up to {DEGENERATE}",
        stacklevel=3,
    )


def _problem(
    seed: int, preset: str, split: Split | None, difficulty: int | None, index: int
) -> Problem:
    # A hash of everything that the problem depends on seeds its generator.
    spawn_key = (zlib.crc32(f"{preset} {split} {difficulty}".encode()), index)
    words = np.random.SeedSequence(seed, spawn_key=spawn_key).generate_state(4)
    rng, chosen = Random(int.from_bytes(words.tobytes(), "little")), PRESETS[preset]
    num_ops = draw_num_ops(chosen.settings, rng) if difficulty is None else difficulty
    # Draw until a problem has the right template, few enough distractors and enough letters.
    while True:
        drawn = draw(chosen.settings, num_ops, rng)
        if not chosen.accepts(drawn):
            continue
        template = template_bin(drawn)
        if split is not None and template not in BINS[split]:
            continue
        wording = Wording(drawn, draw_names(drawn.structure.widths, rng, chosen.chains))
        try:
            solution = wording.solution(chosen.detail, rng)
        except OutOfSymbolsError:
            continue
        return Problem(wording.problem(chosen.question), solution, drawn.answer, num_ops, template)


def _some(one: partial[Problem], numbers: range) -> list[Problem]:
    return [one(number) for number in numbers]


def _parallel(one: partial[Problem], numbers: range, processes: int) -> Iterator[Problem]:
    # Spawn, as a fork while JAX's threads run may deadlock.
    context = multiprocessing.get_context("spawn")
    parts = [numbers[i : i + _CHUNK] for i in range(0, len(numbers), _CHUNK)]
    with ProcessPoolExecutor(processes, mp_context=context) as executor:
        # Keep two parts per process under way, so that memory does not grow with the count.
        waiting = [executor.submit(_some, one, part) for part in parts[: 2 * processes]]
        rest = iter(parts[2 * processes :])
        try:
            while waiting:
                yield from waiting.pop(0).result()
                waiting += [executor.submit(_some, one, part) for part in itertools.islice(rest, 1)]
        finally:
            for future in waiting:
                future.cancel()
