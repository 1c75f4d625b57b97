r"""Pointer chain: follow k arrows of a random permutation.

Knob: `difficulty`, the number of hops. Length is the same at every level.

The problem lists all arrows as pairs of nodes in random order. Then follow `hardest` slots, as many
of them ``+`` as there are hops and the rest ``-``, and the start. The solution is the path from the
start, filled up to `hardest` hops with ``-``; without a chain of thought it is the last node only.

The start lies on a cycle of more than `hardest` nodes, so that no other number of hops leads to the
same node. All such problems are equally likely.

Worked examples (5 nodes, hardest 3, difficulty 2)::

    path    | c a ; a d ; d b ; e c ; b e ; + + - a : a d b - .
    answer  | c a ; a d ; d b ; e c ; b e ; + + - a : b .

What is known: without a chain of thought, transformers need depth of order log k for k hops, and
that suffices (Sanford et al. 2024, arXiv 2402.09268). With the path, 8 nodes and ``sequential``
positions, two layers of width 32 learn 1 to 4 hops in 2500 steps; with randomised positions they
get 14% of single hops right (one base each).
"""

from __future__ import annotations

import math
import string
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from synth.task import ArrayTask, Example, check_difficulty, join

NODES = string.ascii_letters


@dataclass(frozen=True)
class Pointer(ArrayTask):
    """Follow the arrows of a permutation; difficulty is the number of hops.

    Attributes:
      hardest: largest difficulty.
      num_nodes: nodes of the permutation, more than `hardest`; None for ``hardest + 4``.
      chain_of_thought: the solution is the path; if false, its last node only.

    Raises:
      ValueError: if a field is out of range.
    """

    name: ClassVar[str] = "pointer"

    hardest: int = 12
    num_nodes: int | None = None
    chain_of_thought: bool = True

    def __post_init__(self) -> None:
        if self.hardest < 1:
            raise ValueError(f"hardest must be at least 1, got {self.hardest}")
        if self.hardest >= len(NODES):
            raise ValueError(f"hardest must be at most {len(NODES) - 1}, got {self.hardest}")
        if not self.hardest < self._num_nodes <= len(NODES):
            raise ValueError(
                f"num_nodes must be between {self.hardest + 1} and {len(NODES)} for hardest = "
                f"{self.hardest}, got {self._num_nodes}"
            )

    @property
    def _num_nodes(self) -> int:
        return self.hardest + 4 if self.num_nodes is None else self.num_nodes

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Padding, markers, slots and nodes."""
        return ("<pad>", "|", ":", ".", ";", "+", "-", *NODES[: self._num_nodes])

    def max_length(self, difficulty: int) -> int:
        """Tokens at any difficulty: three for each node, two for each hop up to `hardest`, and 5.

        Without a chain of thought there is one token for each hop.
        """
        check_difficulty(difficulty, self.hardest)
        answer = self.hardest + 1 if self.chain_of_thought else 1
        return 3 * self._num_nodes + self.hardest + answer + 4

    def log_num_problems(self, difficulty: int) -> float:
        """Natural log of the number of distinct problems: permutation, start and order of pairs.

        Out of n! permutations, (n - 1)! have a given node on a cycle of a given size.
        """
        check_difficulty(difficulty, self.hardest)
        log_orders = math.lgamma(self._num_nodes + 1)
        return 2 * log_orders + math.log(self._num_nodes - self.hardest)

    def sample(self, key: PRNGKeyArray, difficulty: Int[Array, ""]) -> Example:
        """Draw a permutation, a start on a long cycle and an order of the pairs, uniformly."""
        size = self._num_nodes
        bar, colon, end, between, on, off, first = (self.vocabulary.index(c) for c in "|:.;+-a")
        # One draw for everything, since each call of the generator compiles slowly.
        uniform = jax.random.uniform(key, (4, size))
        longer = jnp.floor(uniform[3, 0] * (size - self.hardest)).astype(int)
        cycle = self.hardest + 1 + longer
        # `node` is a random order of the nodes. The first `cycle` of them, the start at their head,
        # form its cycle; the others are permuted freely.
        place = jnp.arange(size)
        node, order = jnp.argsort(uniform[0]), jnp.argsort(uniform[1])
        others = jnp.argsort(jnp.where(place < cycle, -1.0, uniform[2]))
        target = node[jnp.where(place < cycle, (place + 1) % cycle, others)]
        pairs = jnp.stack([node + first, target + first, jnp.full(size, between)], axis=1)[order]
        # Slots that state the number of hops, then the path; the cycle is longer than any path.
        hop = jnp.arange(self.hardest + 1)
        register = jnp.where(hop[1:] <= difficulty, on, off)
        if self.chain_of_thought:
            answer = jnp.where(hop <= difficulty, node[hop] + first, off)
        else:
            answer = node[difficulty][None] + first
        problem = [
            jnp.array([bar]),
            pairs.ravel(),
            register,
            jnp.stack([node[0] + first, jnp.int32(colon)]),
        ]
        solution = jnp.append(answer, end)
        return join(jnp.concatenate(problem), solution, self.max_length(self.hardest))
