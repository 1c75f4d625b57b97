"""Batches of encoded examples, one for each optimiser step.

A batch is a function of the seed and the step: whoever starts at step k gets what a run from the
start would get, in whatever process. All batches have one shape, so that one program is compiled.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Array, Bool, Int

from experiments.llm.text.encoding import Encoded

PADDING = -1
"""Segment of padding, which no token of an example sees."""

PREFETCH = 4
"""Batches that are made ahead."""


def nested(
    rows: Int[np.ndarray, " rows"], size: int, *, seed: int, stream: str
) -> Int[np.ndarray, " size"]:
    """The first rows of one shuffled order: a smaller choice is a prefix of a larger one.

    Args:
      rows: what to choose from.
      size: how many.
      seed: of the order, at least 0.
      stream: name of the order; the orders of two names have nothing to do with each other.

    Raises:
      ValueError: if there are not so many rows.
    """
    if not 1 <= size <= len(rows):
        raise ValueError(f"size must be from 1 to the number of rows, {len(rows)}, got {size}")
    key = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8])
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(key,)))
    return np.asarray(rows)[generator.permutation(len(rows))[:size]]


def num_steps(num_examples: int, epochs: float, batch_size: int) -> int:
    """Optimiser steps that show every example `epochs` times, at least 1."""
    # Rounded, or 0.1 · 30 would be more than 3.
    shown = max(1, math.ceil(round(num_examples * epochs, 6)))
    return -(-shown // batch_size)


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Pack items into as few bins as it easily can: the longest first, each where it fits first.

    Args:
      lengths: of the items, at most `capacity` each.
      capacity: of a bin.

    Returns:
      For each bin the numbers of its items. At most 11/9 of the fewest possible bins, plus one
      (Johnson, 1973).
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for item in sorted(range(len(lengths)), key=lambda item: -lengths[item]):
        length = lengths[item]
        place = next((bin for bin, left in enumerate(room) if length <= left), len(bins))
        if place == len(bins):
            bins.append([])
            room.append(capacity)
        bins[place].append(item)
        room[place] -= length
    return bins


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """The examples of a step; every array [micro-batches, rows, length].

    Attributes:
      tokens: token ids; 0 where there is none.
      positions: of each token within its example, from 0.
      segments: number of each token's example within its row; `PADDING` where there is none.
      loss_mask: true on solutions and their end markers.
    """

    tokens: Int[Array | np.ndarray, "micro rows length"]
    positions: Int[Array | np.ndarray, "micro rows length"]
    segments: Int[Array | np.ndarray, "micro rows length"]
    loss_mask: Bool[Array | np.ndarray, "micro rows length"]


class Loader:
    """The batches of a run by optimiser step.

    Examples come in epochs, each in an order of its own; a step takes the next `batch_size` of
    them, across the end of an epoch if need be. With `packed` the examples of a step are those
    that they are without it, in fewer rows.

    Attributes:
      steps: optimiser steps of the run.
      rows: rows of a micro-batch, the same in all.
      length: tokens of a row, padding included.

    Args:
      encoded: the examples.
      batch_size: examples in a step, over all micro-batches and devices.
      steps: of the run.
      seed: of the orders, at least 0.
      accumulation: micro-batches in a step.
      packed: put several examples into a row.
      row_multiple: rows of a micro-batch are a multiple of it.
      length_multiple: so is `length`, where it is not given.
      length: tokens of a row; None for the longest example.
      num_examples: examples of the whole run, where the last step has fewer than the others; None
        for ``steps * batch_size``.

    Raises:
      ValueError: if there are no examples, or an argument is out of range.
    """

    def __init__(
        self,
        encoded: Encoded,
        *,
        batch_size: int,
        steps: int,
        seed: int,
        accumulation: int = 1,
        packed: bool = False,
        row_multiple: int = 1,
        length_multiple: int = 64,
        length: int | None = None,
        num_examples: int | None = None,
    ):
        if not len(encoded):
            raise ValueError("encoded must hold examples, got none")
        for name, number, least in (
            ("batch_size", batch_size, 1),
            ("steps", steps, 1),
            ("seed", seed, 0),
            ("accumulation", accumulation, 1),
            ("row_multiple", row_multiple, 1),
            ("length_multiple", length_multiple, 1),
        ):
            if number < least:
                raise ValueError(f"{name} must be at least {least}, got {number}")
        fewest, most = (steps - 1) * batch_size + 1, steps * batch_size
        if num_examples is not None and not fewest <= num_examples <= most:
            raise ValueError(
                f"num_examples must be from {fewest} to {most} with {steps} steps of {batch_size}, "
                f"got {num_examples}"
            )
        longest = int(encoded.lengths.max())
        if length is not None and length < longest:
            raise ValueError(
                f"length must be at least the longest example's {longest}, got {length}"
            )
        self.steps, self.batch_size = steps, batch_size
        self.num_examples = num_examples or most
        self.length = length or _round_up(longest, length_multiple)
        self._encoded, self._lengths = encoded, encoded.lengths.tolist()
        self._seed, self._packed, self._accumulation = seed, packed, accumulation
        # A step may need two epochs' orders, and grain's thread may be a step ahead.
        self._order = functools.lru_cache(maxsize=4)(self._draw_order)
        needed = max(len(self._packing(step)) for step in range(steps)) if packed else batch_size
        self.rows = _round_up(-(-needed // accumulation), row_multiple)

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> Batch:
        """The batch of a step."""
        if not 0 <= index < self.steps:
            raise IndexError(f"step must be from 0 to {self.steps - 1}, got {index}")
        shape = (self._accumulation * self.rows, self.length)
        tokens, positions = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        segments, loss_mask = np.full(shape, PADDING, np.int32), np.zeros(shape, bool)
        for row, examples in enumerate(self._packing(index)):
            start = 0
            for segment, example in enumerate(examples):
                stop = start + self._lengths[example]
                tokens[row, start:stop] = self._encoded.tokens[example]
                positions[row, start:stop] = np.arange(stop - start)
                segments[row, start:stop] = segment
                loss_mask[row, start + self._encoded.prompt_lengths[example] : stop] = True
                start = stop
        micro = (self._accumulation, self.rows, self.length)
        arrays = (tokens, positions, segments, loss_mask)
        return Batch(*(array.reshape(micro) for array in arrays))

    def examples(self, step: int) -> list[int]:
        """Numbers in `encoded` of the examples of a step, as they come in the shuffled order."""
        start = step * self.batch_size
        places = range(start, min(start + self.batch_size, self.num_examples))
        size = len(self._lengths)
        return [int(self._order(place // size)[place % size]) for place in places]

    def iterate(self, start: int = 0) -> Iterator[Batch]:
        """Batches from a step to the end, made ahead by a thread of grain's.

        Raises:
          ImportError: if `grain` is not installed.
          ValueError: if there is no such step, nor is it the end.
        """
        try:
            import grain
        except ImportError as error:
            raise ImportError("loading needs: pip install 'sweetspot[llm]'") from error
        if not 0 <= start <= self.steps:
            raise ValueError(f"start must be from 0 to {self.steps}, got {start}")
        left = grain.MapDataset.source(self)[start:]
        return iter(left.to_iter_dataset(grain.ReadOptions(1, PREFETCH)))

    def _draw_order(self, epoch: int) -> Int[np.ndarray, " examples"]:
        seeds = np.random.SeedSequence(self._seed, spawn_key=(epoch,))
        return np.random.default_rng(seeds).permutation(len(self._lengths))

    def _packing(self, step: int) -> list[list[int]]:
        """Examples of each row of a step."""
        examples = self.examples(step)
        if not self._packed:
            return [[example] for example in examples]
        lengths = [self._lengths[example] for example in examples]
        return [[examples[item] for item in row] for row in first_fit(lengths, self.length)]


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
