r"""Modular expressions: evaluate a fully parenthesised expression from the inside out.

Knob: `difficulty`, the number of operators. Length grows with it: 10 d + 4 tokens.

The expression is a binary tree over integers modulo p, written infix with one pair of parentheses
for each operator. The solution evaluates the operators in the order of their closing parentheses,
and restates both operands each time. Trees, operators and numbers are uniform and independent.

Worked example (modulo 5, difficulty 2)::

    | ( 3 * ( 4 + 3 ) ) : 4 + 3 = 2 ; 3 * 2 = 1 ; .

What is known: sums of many terms modulo p without intermediate steps are hard to learn, and become
easier when easy examples are mixed into the training data (Saxena et al. 2024, arXiv 2410.03569).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from synth.task import PADDING, ArrayTask, Example, check_difficulty, join

OPERATIONS = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
}


@dataclass(frozen=True)
class Expressions(ArrayTask):
    """Evaluate a fully parenthesised expression; difficulty is the number of operators.

    Attributes:
      hardest: largest difficulty.
      modulus: size of the number range, at least 2.
      operators: distinct signs out of ``+ - *``.

    Raises:
      ValueError: if a field is out of range.
    """

    name: ClassVar[str] = "expressions"

    hardest: int = 12
    modulus: int = 5
    operators: tuple[str, ...] = ("+", "-", "*")

    def __post_init__(self) -> None:
        object.__setattr__(self, "operators", tuple(self.operators))
        if self.hardest < 1:
            raise ValueError(f"hardest must be at least 1, got {self.hardest}")
        if self.modulus < 2:
            raise ValueError(f"modulus must be at least 2, got {self.modulus}")
        if not self.operators or len(set(self.operators)) < len(self.operators):
            raise ValueError(f"operators must be distinct and not empty, got {self.operators}")
        if set(self.operators) - set(OPERATIONS):
            raise ValueError(f"operators must be out of {tuple(OPERATIONS)}, got {self.operators}")

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Padding, markers, operators and numbers."""
        numbers = tuple(str(value) for value in range(self.modulus))
        return ("<pad>", "|", ":", ".", "(", ")", "=", ";", *self.operators, *numbers)

    def max_length(self, difficulty: int) -> int:
        """Tokens at `difficulty`: 10 d + 4."""
        check_difficulty(difficulty, self.hardest)
        return 10 * difficulty + 4

    def log_num_problems(self, difficulty: int) -> float:
        """Natural log of the number of expressions with `difficulty` operators."""
        check_difficulty(difficulty, self.hardest)
        trees = math.comb(2 * difficulty, difficulty) // (difficulty + 1)
        signs = difficulty * math.log(len(self.operators))
        return math.log(trees) + signs + (difficulty + 1) * math.log(self.modulus)

    def sample(self, key: PRNGKeyArray, difficulty: Int[Array, ""]) -> Example:
        """Draw one expression with `difficulty` operators, uniformly."""
        # One draw for everything, since each call of the generator compiles slowly.
        uniform = jax.random.uniform(key, (3, 2 * self.hardest + 1))
        first, last = _uniform_tree(uniform[0], difficulty)
        operators = jnp.floor(uniform[1, : self.hardest] * len(self.operators)).astype(int)
        numbers = jnp.floor(uniform[2, : self.hardest + 1] * self.modulus).astype(int)
        problem = self._infix(first, last, operators, numbers, difficulty)
        solution = self._evaluation(first, last, operators, numbers, difficulty)
        return join(problem, solution, self.max_length(self.hardest))

    def _ids(self, texts: str) -> list[int]:
        return [self.vocabulary.index(text) for text in texts]

    def _infix(
        self,
        first: Int[Array, " operators"],
        last: Int[Array, " operators"],
        operators: Int[Array, " operators"],
        numbers: Int[Array, " numbers"],
        difficulty: Int[Array, ""],
    ) -> Int[Array, " slots"]:
        """Write the expression between its markers.

        Each number follows as many opening parentheses as there are subexpressions that begin with
        it, and precedes as many closing ones as there are that end with it.
        """
        bar, colon, opening, closing = self._ids("|:()")
        number, sign = self._ids("0" + self.operators[0])
        place, slots = jnp.arange(self.hardest + 1), jnp.arange(self.hardest)
        used = jnp.arange(self.hardest) < difficulty
        begin = ((first[None] == place[:, None]) & used[None]).sum(axis=1)
        end = ((last[None] == place[:, None]) & used[None]).sum(axis=1)
        rows = [
            jnp.where(slots[None] < begin[:, None], opening, PADDING),
            jnp.where(place <= difficulty, numbers + number, PADDING)[:, None],
            jnp.where(slots[None] < end[:, None], closing, PADDING),
            jnp.append(jnp.where(used, operators + sign, PADDING), PADDING)[:, None],
        ]
        return jnp.concatenate(
            [jnp.array([bar]), jnp.concatenate(rows, axis=1).ravel(), jnp.array([colon])]
        )

    def _evaluation(
        self,
        first: Int[Array, " operators"],
        last: Int[Array, " operators"],
        operators: Int[Array, " operators"],
        numbers: Int[Array, " numbers"],
        difficulty: Int[Array, ""],
    ) -> Int[Array, " slots"]:
        """Write the steps of the evaluation, in the order of the closing parentheses."""
        used = jnp.arange(self.hardest) < difficulty
        size = self.hardest + 1
        # Operators by the number after which they close; those after the same one, innermost first.
        order = jnp.argsort(jnp.where(used, last * size - first, size * size))

        def step(values, index):
            # The value of a subexpression replaces its first number.
            left, right = values[first[index]], values[index + 1]
            results = jnp.stack([OPERATIONS[sign](left, right) for sign in self.operators])
            value = results[operators[index]] % self.modulus
            return values.at[first[index]].set(value), (left, right, value)

        _, (left, right, value) = jax.lax.scan(step, numbers, order)
        number, sign, equals, semicolon, end = self._ids("0" + self.operators[0] + "=;.")
        marks = jnp.ones_like(order)
        steps = jnp.stack(
            [
                left + number,
                operators[order] + sign,
                right + number,
                marks * equals,
                value + number,
                marks * semicolon,
            ],
            axis=1,
        )
        steps = jnp.where(used[:, None], steps, PADDING)
        return jnp.append(steps.ravel(), end)


def _uniform_tree(
    uniform: Float[Array, " nodes"], difficulty: Int[Array, ""]
) -> tuple[Int[Array, " operators"], Int[Array, " operators"]]:
    """Draw a uniform binary tree with `difficulty` inner nodes, by the cycle lemma.

    Exactly one rotation of a word of d inner nodes and d + 1 leaves is the preorder of a tree
    (Dvoretzky and Motzkin 1947), so uniform words give uniform trees.

    Args:
      uniform: ``2 hardest + 1`` uniform draws.
      difficulty: number of inner nodes, d.

    Returns:
      First and last leaf under the operator between leaf m and leaf m + 1, for m below d.
    """
    # A uniform word: inner nodes (+1) at the d smallest draws, leaves (-1) elsewhere. The rotation
    # starts after the place where the running sum is lowest for the first time.
    node = jnp.arange(uniform.size)
    size = 2 * difficulty + 1
    used = node < size
    rank = jnp.argsort(jnp.argsort(jnp.where(used, uniform, 2.0)))
    word = jnp.where(rank < difficulty, 1, -1)
    lowest = jnp.argmin(jnp.where(used, jnp.cumsum(word), size))
    is_inner = (word[(node + lowest + 1) % size] == 1) & used
    # A subtree ends as soon as it has one leaf more than inner nodes.
    after = jnp.cumsum(jnp.where(is_inner, 1, -1))
    before = after - jnp.where(is_inner, 1, -1)
    ended = (node[None] >= node[:, None]) & (after[None] < before[:, None])
    subtree_end = jnp.argmax(ended, axis=1)
    # The left subtree of an inner node starts at the next node, and the number of its last leaf is
    # that of the inner node's operator.
    leaves = jnp.cumsum(~is_inner)
    operator = jnp.where(is_inner, leaves[jnp.roll(subtree_end, -1)] - 1, uniform.size)
    operators = uniform.size // 2
    first = jnp.zeros(operators, int).at[operator].set(leaves, mode="drop")
    last = jnp.zeros(operators, int).at[operator].set(leaves[subtree_end] - 1, mode="drop")
    return first, last
