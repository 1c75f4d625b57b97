r"""Words over the generators of a finite group: give the running product.

Knob: `difficulty`, the number of letters of the word. Length grows with it: 3 d + 4 tokens.

The problem is a start element and a word over a few generators; the solution restates each letter
and gives the product so far. An element of a permutation group is written as the images of
1, 2, 3 …, one of Z60 as a number. Letters act from left to right.

Worked examples (difficulty 2)::

    S3   | 132 b a : b 213 a 123 .
    S5   | 13425 a b : a 23415 b 34521 .
    A5   | 34125 a b : a 14235 b 25341 .
    Z60  | 5 b a : b 12 a 13 .

What is known: at once, a network of fixed depth cannot multiply words over A5 or S5 unless
TC0 = NC1 (Barrington 1989), but it can over Z60. Step by step, every group is a table of elements ×
letters. What transformers learn about tracking a state at one length transfers little to another
(Ebrahimi et al. 2026, arXiv 2602.18333).
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from synth.task import PADDING, ArrayTask, Example, check_difficulty, join

Group = Literal["S3", "S5", "A5", "Z60"]
Start = Literal["uniform", "identity"]
GENERATORS: dict[str, tuple[str, ...]] = {
    "S3": ("213", "231", "132", "312"),
    "S5": ("21345", "23451", "12354", "51234"),
    "A5": ("23145", "23451", "31245", "51234"),
    "Z60": ("1", "7", "59", "53"),
}
"""The element that each letter stands for, in order; the first two of a group generate it."""
LETTERS = "abcd"


@functools.cache
def elements(group: Group) -> tuple[str, ...]:
    """Names of a group's elements, the identity first."""
    kind, size = group[0], int(group[1:])
    if kind == "Z":
        return tuple(str(value) for value in range(size))
    orders = itertools.permutations(range(1, size + 1))
    return tuple("".join(map(str, each)) for each in orders if kind == "S" or _is_even(each))


def _is_even(order: tuple[int, ...]) -> bool:
    return sum(left > right for left, right in itertools.combinations(order, 2)) % 2 == 0


def _product(group: Group, left: str, right: str) -> str:
    """Name of the product that applies `left` first, then `right`."""
    if group[0] == "Z":
        return str((int(left) + int(right)) % int(group[1:]))
    return "".join(right[int(image) - 1] for image in left)


@functools.cache
def products(group: Group, num_generators: int) -> Int[np.ndarray, "elements generators"]:
    """Index of the product of each element with each generator."""
    names = elements(group)
    index = {name: i for i, name in enumerate(names)}
    generators = GENERATORS[group][:num_generators]
    return np.array(
        [[index[_product(group, name, each)] for each in generators] for name in names], np.int32
    )


@dataclass(frozen=True)
class GroupWords(ArrayTask):
    """The running product of a word over generators; difficulty is the number of letters.

    Attributes:
      hardest: largest difficulty.
      group: ``S3`` (6 elements), ``S5`` (120), ``A5`` (60) or ``Z60`` (60, commutative).
      num_generators: letters in use, 2 to 4.
      start: the word starts at a ``uniform`` element, so that short words use the whole table, or
        at the ``identity``, so that they stay near it.

    Raises:
      ValueError: if a field is out of range.
    """

    name: ClassVar[str] = "group-words"

    hardest: int = 12
    group: Group = "A5"
    num_generators: int = 2
    start: Start = "uniform"

    def __post_init__(self) -> None:
        if self.hardest < 1:
            raise ValueError(f"hardest must be at least 1, got {self.hardest}")
        if self.group not in get_args(Group):
            raise ValueError(f"group must be one of {get_args(Group)}, got {self.group!r}")
        if not 2 <= self.num_generators <= len(LETTERS):
            raise ValueError(
                f"num_generators must be between 2 and {len(LETTERS)}, got {self.num_generators}"
            )
        if self.start not in get_args(Start):
            raise ValueError(f"start must be one of {get_args(Start)}, got {self.start!r}")

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Padding, markers, letters and elements."""
        letters = LETTERS[: self.num_generators]
        return ("<pad>", "|", ":", ".", *letters, *elements(self.group))

    def max_length(self, difficulty: int) -> int:
        """Tokens at `difficulty`: 3 d + 4."""
        check_difficulty(difficulty, self.hardest)
        return 3 * difficulty + 4

    def log_num_problems(self, difficulty: int) -> float:
        """Natural log of the number of distinct problems with `difficulty` letters."""
        check_difficulty(difficulty, self.hardest)
        starts = len(elements(self.group)) if self.start == "uniform" else 1
        return math.log(starts) + difficulty * math.log(self.num_generators)

    def sample(self, key: PRNGKeyArray, difficulty: Int[Array, ""]) -> Example:
        """Draw one word of `difficulty` letters and its start, uniformly."""
        table = jnp.asarray(products(self.group, self.num_generators))
        # One draw gives start and letters, since each call of the generator compiles slowly.
        drawn = jax.random.randint(key, (self.hardest + 1,), 0, table.size)
        letters = drawn[1:] % self.num_generators
        start = drawn[0] // self.num_generators if self.start == "uniform" else jnp.int32(0)

        def step(element, letter):
            element = table[element, letter]
            return element, element

        _, running = jax.lax.scan(step, start, letters)
        # Ids of letters and elements follow those of the markers.
        bar, colon, end, first_letter = (self.vocabulary.index(each) for each in "|:.a")
        first_element = first_letter + self.num_generators
        needed = jnp.arange(self.hardest) < difficulty
        word = jnp.where(needed, letters + first_letter, PADDING)
        reached = jnp.where(needed, running + first_element, PADDING)
        problem = jnp.concatenate(
            [jnp.stack([jnp.int32(bar), start + first_element]), word, jnp.array([colon])]
        )
        solution = jnp.concatenate([jnp.stack([word, reached], axis=1).ravel(), jnp.array([end])])
        return join(problem, solution, self.max_length(self.hardest))
