r"""Dyck words of bounded depth: close the brackets that a prefix leaves open.

Knob: `difficulty`, the depth. A problem of level d is a word over brackets of several kinds and a
neutral letter ``-``. At most d brackets are open at any point of the word, and d at its end. The
word has the same length at every level; the solution closes the open brackets, innermost first, in
d + 1 tokens.

Neutral letters are needed because a word of brackets only has a length of the same parity as its
final depth, and so could not have the same length at every level. All words of a level are equally
likely.

Worked example (two kinds, 8 letters, difficulty 2)::

    | ( ) - [ [ ] - ( : ) ] .

What is known: two layers of attention suffice for words of bounded depth, at any length (Yao et al.
2021, arXiv 2105.11115): a positive control.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from synth.task import PADDING, ArrayTask, Example, check_difficulty, join

BRACKETS = ("()", "[]", "{}", "<>")


Counts = list[list[int]]
"""Number of ways to go on, by depth at the end and depth now, never deeper than at the end."""


def _one_letter_more(fewer: Counts, num_kinds: int) -> Counts:
    """Counts of words with one letter more in front: neutral, closing or opening."""
    return [
        [
            ends[now]
            + (ends[now - 1] if now > 0 else 0)
            + (num_kinds * ends[now + 1] if now < end else 0)
            for now in range(end + 1)
        ]
        for end, ends in enumerate(fewer)
    ]


@functools.cache
def num_words(hardest: int, length: int, num_kinds: int) -> list[Counts]:
    """Exact counts of words of 0 to `length` letters that end at depth 0 to `hardest`.

    Entry ``[letters][end][now]`` counts the ways from depth `now` to depth `end` in that many
    letters; ``now = 0`` counts whole words.
    """
    counts = [[[int(now == end) for now in range(end + 1)] for end in range(hardest + 1)]]
    for _ in range(length):
        counts.append(_one_letter_more(counts[-1], num_kinds))
    return counts


@functools.cache
def shortest_length(hardest: int, num_kinds: int) -> int:
    """Fewest letters at which no level up to `hardest` has fewer words than the level below it."""
    counts, length = num_words(hardest, 0, num_kinds)[0], 0
    while True:
        by_level = [ends[0] for ends in counts[1:]]
        if by_level[-1] and by_level == sorted(by_level):
            return length
        counts, length = _one_letter_more(counts, num_kinds), length + 1


@functools.cache
def step_probabilities(
    hardest: int, length: int, num_kinds: int
) -> Float[np.ndarray, "length ends depths 2"]:
    """Probabilities of the next letter under which all words of a level are equally likely.

    Axes: letters so far; depth at the end, 0 to `hardest`; depth now, 0 to `hardest`; then the
    probability of an opening letter, and that of an opening or closing one.
    """
    # A letter's probability is its share of the ways to go on.
    counts = num_words(hardest, length, num_kinds)
    table = np.zeros((length, hardest + 1, hardest + 1, 2), np.float32)
    for so_far in range(length):
        now_counts, then_counts = counts[length - so_far], counts[length - so_far - 1]
        for end, (here, then) in enumerate(zip(now_counts, then_counts, strict=True)):
            for now, total in enumerate(here):
                if total:
                    opening = num_kinds * then[now + 1] if now < end else 0
                    closing = then[now - 1] if now > 0 else 0
                    table[so_far, end, now] = opening / total, (opening + closing) / total
    return table


@dataclass(frozen=True)
class Dyck(ArrayTask):
    """Close the open brackets of a word; difficulty is its depth.

    Attributes:
      hardest: largest difficulty.
      length: letters of a word, the same at every level; None for ``4 * hardest``.
      num_kinds: kinds of brackets, 1 to 4.

    Raises:
      ValueError: if a field is out of range, or `length` is so short that a level has fewer
        problems than the one below it.
    """

    name: ClassVar[str] = "dyck"

    hardest: int = 12
    length: int | None = None
    num_kinds: int = 2

    def __post_init__(self) -> None:
        if self.hardest < 1:
            raise ValueError(f"hardest must be at least 1, got {self.hardest}")
        if not 1 <= self.num_kinds <= len(BRACKETS):
            raise ValueError(
                f"num_kinds must be between 1 and {len(BRACKETS)}, got {self.num_kinds}"
            )
        shortest = shortest_length(self.hardest, self.num_kinds)
        if self.num_letters < shortest:
            raise ValueError(
                f"length must be at least {shortest} for {self.num_kinds} kinds and hardest = "
                f"{self.hardest}, so that no level has fewer problems than the one before; "
                f"got {self.num_letters}"
            )

    @property
    def num_letters(self) -> int:
        """Letters of a word."""
        return 4 * self.hardest if self.length is None else self.length

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Padding, markers, the neutral letter, opening and closing brackets."""
        kinds = BRACKETS[: self.num_kinds]
        return ("<pad>", "|", ":", ".", "-", *(k[0] for k in kinds), *(k[1] for k in kinds))

    def max_length(self, difficulty: int) -> int:
        """Tokens at `difficulty` d: the letters of a word, and d + 3."""
        check_difficulty(difficulty, self.hardest)
        return self.num_letters + difficulty + 3

    def log_num_problems(self, difficulty: int) -> float:
        """Natural log of the number of words of depth `difficulty` that end there."""
        check_difficulty(difficulty, self.hardest)
        counts = num_words(self.hardest, self.num_letters, self.num_kinds)
        return math.log(counts[-1][difficulty][0])

    def sample(self, key: PRNGKeyArray, difficulty: Int[Array, ""]) -> Example:
        """Draw one word, uniformly out of those of depth `difficulty` that end there."""
        neutral = self.vocabulary.index("-")
        first_open, first_close = neutral + 1, neutral + 1 + self.num_kinds
        chances = jnp.asarray(step_probabilities(self.hardest, self.num_letters, self.num_kinds))
        # One draw for direction and kind, since each call of the generator compiles slowly.
        direction, kind = jax.random.uniform(key, (2, self.num_letters))
        kinds = jnp.floor(kind * self.num_kinds).astype(int)

        # Draw the word letter by letter, with a stack of the kinds of the open brackets.
        def step(state, letter):
            depth, stack = state
            chance, direction, kind = letter
            opens, moves = direction < chance[depth, 0], direction < chance[depth, 1]
            closing = first_close + stack[depth - 1]
            token = jnp.where(opens, first_open + kind, jnp.where(moves, closing, neutral))
            stack = stack.at[depth].set(jnp.where(opens, kind, stack[depth]))
            return (depth + jnp.where(opens, 1, jnp.where(moves, -1, 0)), stack), token

        start = jnp.int32(0), jnp.zeros(self.hardest + 1, int)
        (_, stack), word = jax.lax.scan(step, start, (chances[:, difficulty], direction, kinds))
        # Close them from the top of the stack.
        place = jnp.arange(self.hardest)[::-1]
        closing = jnp.where(place < difficulty, first_close + stack[place], PADDING)
        bar, colon, end = (jnp.array([self.vocabulary.index(each)]) for each in "|:.")
        problem = jnp.concatenate([bar, word, colon])
        return join(problem, jnp.concatenate([closing, end]), self.max_length(self.hardest))
