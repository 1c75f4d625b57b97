r"""Parity of a bit string, at once or bit by bit.

Knob: `difficulty`, the number of bits. Length grows with it: d + 4 tokens, or 3 d + 3 with a
scratchpad, which restates each bit and gives the parity so far.

Worked examples (difficulty 2)::

    at once     | 1 1 : 0 .
    scratchpad  | 1 1 : 1 1 1 0 .

What is known: transformers that learn parity at once do not generalise to longer strings; with a
scratchpad of the right form they can (Zhou et al. 2023, arXiv 2310.16028). So this is a negative
and a positive control.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from synth.task import PADDING, ArrayTask, Example, check_difficulty, join


@dataclass(frozen=True)
class Parity(ArrayTask):
    """Tell whether the number of ones is odd; difficulty is the number of bits.

    Attributes:
      hardest: largest difficulty.
      scratchpad: the solution restates the bits with the parity so far; if false, it is the parity.

    Raises:
      ValueError: if a field is out of range.
    """

    name: ClassVar[str] = "parity"

    hardest: int = 12
    scratchpad: bool = False

    def __post_init__(self) -> None:
        if self.hardest < 1:
            raise ValueError(f"hardest must be at least 1, got {self.hardest}")

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Padding, markers and bits."""
        return ("<pad>", "|", ":", ".", "0", "1")

    def max_length(self, difficulty: int) -> int:
        """Tokens at `difficulty`: d + 4, or 3 d + 3 with a scratchpad."""
        check_difficulty(difficulty, self.hardest)
        return 3 * difficulty + 3 if self.scratchpad else difficulty + 4

    def log_num_problems(self, difficulty: int) -> float:
        """Natural log of the number of strings of `difficulty` bits."""
        check_difficulty(difficulty, self.hardest)
        return difficulty * math.log(2)

    def sample(self, key: PRNGKeyArray, difficulty: Int[Array, ""]) -> Example:
        """Draw one string of `difficulty` bits, uniformly."""
        bar, colon, end, zero = (self.vocabulary.index(each) for each in "|:.0")
        needed = jnp.arange(self.hardest) < difficulty
        bits = jax.random.randint(key, (self.hardest,), 0, 2)
        parities = jnp.cumsum(bits) % 2
        string = jnp.where(needed, bits + zero, PADDING)
        if self.scratchpad:
            so_far = jnp.where(needed, parities + zero, PADDING)
            answer = jnp.stack([string, so_far], axis=1).ravel()
        else:
            answer = parities[difficulty - 1][None] + zero
        problem = jnp.concatenate([jnp.array([bar]), string, jnp.array([colon])])
        return join(problem, jnp.append(answer, end), self.max_length(self.hardest))
