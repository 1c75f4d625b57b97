"""The data of a sweep, drawn from its master seed: which examples each member sees.

Streams are separated by keys alone: the training, test, validation and in-distribution draws of a
member are independent, and a smaller data size is a prefix of a larger one.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, PRNGKeyArray

from experiments.engine.phases import Phases
from experiments.sweep.grid import Member, MixtureKind, SweepConfig
from synth.task import Mixture, Pool, Task, pool, prompt_keys

STREAMS = ("train", "in_distribution", "test", "validation", "optimise", "certify")
POOLS = 64
"""Pools of each kind that are kept for members to come."""

BUCKET = 6
"""Test slices evaluated together, so that easy ones are not padded to the hardest one's length."""


def _cell(member: Member) -> Member:
    """A member in which fields that do not change its pools have one value."""
    return dataclasses.replace(member, data_size=0, loss="sft", learning_rate=0.0)


class Draws:
    """Pools and keys of a sweep; a pool that several members share is drawn once."""

    def __init__(self, config: SweepConfig, task: Task, *, phases: Phases | None = None):
        if task.hardest < config.test_hardest:
            raise ValueError(
                f"task {task.name!r} reaches difficulty {task.hardest}, "
                f"the sweep tests up to test_hardest = {config.test_hardest}"
            )
        self.config, self.task = config, task
        self._phases = phases or Phases()
        levels = list(config.test_levels)
        self.buckets = [levels[i : i + BUCKET] for i in range(0, len(levels), BUCKET)]
        self._means: dict[Mixture, float] = {}
        # All data sizes of a cell share one pool, all cells of a seed its test draws, and they run
        # close together. Older ones are dropped, so that memory does not grow with the grid.
        self._pool = functools.lru_cache(maxsize=POOLS)(self._draw_pool)
        self._slices = functools.lru_cache(maxsize=POOLS)(self._draw_slices)

    def key(self, purpose: str) -> PRNGKeyArray:
        """Key of one purpose of the whole sweep: ``bases``, ``members`` or ``lengths``."""
        master = jax.random.key(self.config.master_seed)
        return jax.random.fold_in(master, ("bases", "members", "lengths").index(purpose))

    def stream(self, name: str, base_seed: int, seed: int) -> PRNGKeyArray:
        """Key of one of `STREAMS` for one base seed and seed."""
        key = jax.random.fold_in(jax.random.fold_in(self.key("members"), base_seed), seed)
        return jax.random.fold_in(key, STREAMS.index(name))

    def cell_key(self, name: str, member: Member) -> PRNGKeyArray:
        """Key of one of `STREAMS` for a member's mixture; equal for all data sizes."""
        key = self.stream(name, member.base_seed, member.seed)
        key = jax.random.fold_in(key, get_args(MixtureKind).index(member.mixture))
        return jax.random.fold_in(key, member.difficulty)

    def mixture(self, member: Member) -> Mixture:
        """Training mixture of a member."""
        return self.config.mixture(member.mixture, member.difficulty)

    def mean_tokens(self, mixture: Mixture) -> float:
        """Mean length of an example in tokens, from 256 draws."""
        if mixture not in self._means:
            drawn = pool(self.task, self.key("lengths"), mixture, 256)
            self._means[mixture] = float(np.mean(drawn.num_tokens))
        return self._means[mixture]

    def rows(self, member: Member) -> int:
        """Rows of the training pool that all data sizes of a member's cell share."""
        largest = max(self.config.data_sizes)
        if self.config.data_unit == "examples":
            return largest
        # Half as many again as the budget buys on average: it buys more where draws are short.
        return math.ceil(1.5 * largest / self.mean_tokens(self.mixture(member))) + 16

    def training_pool(self, member: Member) -> Pool:
        """The pool whose prefix a member trains on."""
        return self._pool("train", _cell(member), self.rows(member))

    def in_distribution_pool(self, member: Member) -> Pool:
        """Fresh draws from a member's own training mixture."""
        return self._pool("in_distribution", _cell(member), self.config.risk_examples)

    def _draw_pool(self, stream: str, cell: Member, rows: int) -> Pool:
        key, mixture = self.cell_key(stream, cell), self.mixture(cell)
        length = self.task.max_length(mixture.hardest)
        with self._phases("draw"):
            return jax.block_until_ready(pool(self.task, key, mixture, rows, length=length))

    def slice_pools(self, stream: str, base_seed: int, seed: int) -> list[Pool]:
        """Test or validation draws: for each bucket, its slices one after the other."""
        return self._slices(stream, base_seed, seed)

    def _draw_slices(self, stream: str, base_seed: int, seed: int) -> list[Pool]:
        with self._phases("draw"):
            return jax.block_until_ready(
                [self._bucket(bucket, stream, base_seed, seed) for bucket in self.buckets]
            )

    def _bucket(self, levels: list[int], stream: str, base_seed: int, seed: int) -> Pool:
        config, root = self.config, self.stream(stream, base_seed, seed)
        examples = config.test_examples if stream == "test" else config.validation_examples
        length = self.task.max_length(levels[-1])
        drawn = functools.partial(pool, self.task, num_examples=examples, length=length)
        slices = [drawn(jax.random.fold_in(root, level), Mixture.exact(level)) for level in levels]
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), *slices)

    def by_slice(self, buckets: list[np.ndarray]) -> list[np.ndarray]:
        """Split the results of each bucket into those of its test slices."""
        return [
            part
            for levels, results in zip(self.buckets, buckets, strict=True)
            for part in np.split(np.asarray(results), len(levels))
        ]

    def num_examples(self, member: Member, drawn: Pool) -> int:
        """Number of examples a member trains on: its data size, or as many as the budget buys.

        Raises:
          ValueError: if the budget does not buy one example.
        """
        if self.config.data_unit == "examples":
            return member.data_size
        spent = np.cumsum(np.asarray(drawn.num_tokens))
        bought = int(np.searchsorted(spent, member.data_size, side="right"))
        if bought == 0:
            raise ValueError(
                f"data_sizes holds a budget of {member.data_size} tokens, too small for one "
                f"example at difficulty {member.difficulty} ({spent[0]} tokens)"
            )
        return bought

    def unseen(self, member: Member) -> list[Bool[np.ndarray, " examples"]]:
        """Mark, for each test slice, the problems that are not in the member's training data."""
        drawn = self.training_pool(member)
        trained = self.num_examples(member, drawn)
        seen = set(prompt_keys(jax.tree.map(lambda leaf: leaf[:trained], drawn)))
        tests = self.slice_pools("test", member.base_seed, member.seed)
        return self.by_slice(
            [np.array([key not in seen for key in prompt_keys(part)]) for part in tests]
        )
