r"""Addition of two numbers, the least significant digit first.

Knob: `difficulty`, the number of digits of each number (leading zeros allowed). Length grows with
it: 6 d + 4 tokens, 3 d + 5 without a scratchpad, one less interleaved.

From the least significant digit on, each digit of the sum depends on two digits and a carry. The
scratchpad restates both digits and gives the sum's digit and the carry, so that each step needs
only the step before it and the next two digits; the last carry is the sum's highest digit. The
numbers may stand apart, as usual, or interleaved, with the digits of a place side by side.

Worked examples (38 + 95 = 133, difficulty 2)::

    apart               | 8 3 + 5 9 : 8 5 3 1 3 9 3 1 .
    interleaved         | 8 5 3 9 : 8 5 3 1 3 9 3 1 .
    without scratchpad  | 8 3 + 5 9 : 3 3 1 .

What is known: transformers learn reversed addition, and training on their own answers to slightly
longer sums takes them from 10 to 100 digits (Lee et al. 2025, arXiv 2502.01612). Without the
scratchpad, two layers of width 32 add numbers of two digits after 2500 steps, but not of three.
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
class Addition(ArrayTask):
    """The sum of two numbers; difficulty is the number of digits of each.

    Attributes:
      hardest: largest difficulty.
      base: of the number system, at least 2; digits from ten on are written in decimal.
      interleaved: digits of the same place stand side by side; if false, the numbers stand apart.
      scratchpad: the solution restates the digits and gives every carry; if false, it is the sum.

    Raises:
      ValueError: if a field is out of range.
    """

    name: ClassVar[str] = "addition"

    hardest: int = 12
    base: int = 10
    interleaved: bool = False
    scratchpad: bool = True

    def __post_init__(self) -> None:
        if self.hardest < 1:
            raise ValueError(f"hardest must be at least 1, got {self.hardest}")
        if self.base < 2:
            raise ValueError(f"base must be at least 2, got {self.base}")

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Padding, markers, the plus sign where it is needed, and digits."""
        sign = () if self.interleaved else ("+",)
        return ("<pad>", "|", ":", ".", *sign, *(str(digit) for digit in range(self.base)))

    def max_length(self, difficulty: int) -> int:
        """Tokens at `difficulty`: 6 d + 4, or 3 d + 5 without scratchpad; one less interleaved."""
        check_difficulty(difficulty, self.hardest)
        length = 6 * difficulty + 3 if self.scratchpad else 3 * difficulty + 4
        return length + (not self.interleaved)

    def log_num_problems(self, difficulty: int) -> float:
        """Natural log of the number of pairs of numbers with `difficulty` digits."""
        check_difficulty(difficulty, self.hardest)
        return 2 * difficulty * math.log(self.base)

    def sample(self, key: PRNGKeyArray, difficulty: Int[Array, ""]) -> Example:
        """Draw two numbers of `difficulty` digits, uniformly."""
        zero = self.vocabulary.index("0")
        digits = jax.random.randint(key, (2, self.hardest), 0, self.base)
        needed = jnp.arange(self.hardest) < difficulty

        def step(carry, pair):
            total = carry + pair.sum()
            carry = total // self.base
            return carry, (total % self.base, carry)

        # Digits above those in use are zero, so the last carry becomes the sum's highest digit.
        used = jnp.where(needed[None], digits, 0)
        extended = jnp.concatenate([used, jnp.zeros((2, 1), int)], axis=1)
        _, (sums, carries) = jax.lax.scan(step, jnp.int32(0), extended.T)
        # The problem: both numbers in one of the two arrangements.
        tokens = jnp.where(needed[None], digits + zero, PADDING)
        if self.interleaved:
            body = tokens.T.ravel()
        else:
            plus = jnp.array([self.vocabulary.index("+")])
            body = jnp.concatenate([tokens[0], plus, tokens[1]])
        bar, colon, end = (jnp.array([self.vocabulary.index(each)]) for each in "|:.")
        if self.scratchpad:
            steps = jnp.stack([*digits, sums[:-1], carries[:-1]], axis=1) + zero
            answer = jnp.where(needed[:, None], steps, PADDING).ravel()
        else:
            answer = jnp.where(jnp.arange(self.hardest + 1) <= difficulty, sums + zero, PADDING)
        return join(
            jnp.concatenate([bar, body, colon]),
            jnp.concatenate([answer, end]),
            self.max_length(self.hardest),
        )
