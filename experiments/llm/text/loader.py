"""Batches of encoded examples, one for each optimiser step.

A batch is a function of the seed and the step: a run that resumes at step k gets the same batches
as one that started at 0, in any process. All batches have one shape, so that one program is
compiled.
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

from experiments.distribution import install_hint
from experiments.llm.text.encoding import Encoded

PADDING = -1
"""Segment of padding, which no token of an example attends to."""

PREFETCH = 4
"""Number of batches that are made ahead."""


def nested(
    rows: Int[np.ndarray, " rows"], size: int, *, seed: int, stream: str
) -> Int[np.ndarray, " size"]:
    """Choose the first rows of a shuffled order: a smaller choice is a prefix of a larger one.

    Args:
      rows: rows to choose from.
      size: number of rows to choose.
      seed: of the order, at least 0.
      stream: name of the order; orders of different names are independent.

    Raises:
      ValueError: if `size` is not from 1 to the number of rows.
    """
    if not 1 <= size <= len(rows):
        raise ValueError(f"size must be from 1 to the number of rows, {len(rows)}, got {size}")
    key = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8])
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(key,)))
    return np.asarray(rows)[generator.permutation(len(rows))[:size]]


def num_shown(num_examples: int, epochs: float) -> int:
    """Number of examples in so many epochs over `num_examples`, at least 1."""
    # Rounded before `ceil`: in floating point 0.1 · 30 is slightly more than 3.
    return max(1, math.ceil(round(num_examples * epochs, 6)))


def num_steps(num_examples: int, epochs: float, batch_size: int) -> int:
    """Number of optimiser steps that show every example `epochs` times, at least 1."""
    return -(-num_shown(num_examples, epochs) // batch_size)


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Pack items into few bins by first fit decreasing.

    The longest item comes first, and each goes into the first bin with room for it. The number of
    bins is at most 11/9 of the fewest possible, plus one (Johnson, 1973).

    Args:
      lengths: of the items, at most `capacity` each.
      capacity: of a bin.

    Returns:
      For each bin the numbers of its items.
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
      tokens: token ids; 0 in padding.
      positions: position of each token within its example, from 0.
      segments: number of each token's example within its row; `PADDING` in padding.
      loss_mask: true on what the loss counts, see `Encoded`.
    """

    tokens: Int[Array | np.ndarray, "micro rows length"]
    positions: Int[Array | np.ndarray, "micro rows length"]
    segments: Int[Array | np.ndarray, "micro rows length"]
    loss_mask: Bool[Array | np.ndarray, "micro rows length"]


class Loader:
    """The batches of a run by optimiser step.

    Examples come in epochs, each in an order of its own; a step takes the next `batch_size` of
    them, also across the end of an epoch. With `packed`, a step has the same examples in fewer
    rows.

    Attributes:
      steps: optimiser steps of the run.
      rows: number of rows of every micro-batch.
      mean_rows: rows that a step computes, padding included, on average.
      length: tokens of a row, padding included.

    Args:
      encoded: the examples.
      batch_size: examples in a step, over all micro-batches and devices.
      steps: of the run.
      seed: of the orders, at least 0.
      accumulation: micro-batches in a step.
      packed: put several examples into a row.
      row_multiple: the number of rows of a micro-batch is rounded up to a multiple of it.
      length_multiple: the longest example's length is rounded up to a multiple of it.
      length: tokens of a row; None for the rounded length of the longest example.
      num_examples: examples of the whole run, if the last step has fewer than the others; None for
        ``steps * batch_size``.

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
        # A step may need the orders of two epochs, and grain's thread may be some steps ahead.
        self._order = functools.lru_cache(maxsize=4)(self._draw_order)
        # Every batch has as many rows as the fullest step needs.
        needed = [len(self._packing(step)) for step in range(steps)] if packed else [batch_size]
        self.rows = _round_up(-(-max(needed) // accumulation), row_multiple)
        # A step computes whole micro-batches, up to the last one with an example.
        self.mean_rows = float(np.mean([_round_up(rows, self.rows) for rows in needed]))

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> Batch:
        """Make the batch of a step."""
        if not 0 <= index < self.steps:
            raise IndexError(f"step must be from 0 to {self.steps - 1}, got {index}")
        shape = (self._accumulation * self.rows, self.length)
        tokens, positions = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        segments, loss_mask = np.full(shape, PADDING, np.int32), np.zeros(shape, bool)
        # Lay the examples of each row one behind the other.
        for row, examples in enumerate(self._packing(index)):
            start = 0
            for segment, example in enumerate(examples):
                stop = start + self._lengths[example]
                tokens[row, start:stop] = self._encoded.tokens[example]
                positions[row, start:stop] = np.arange(stop - start)
                segments[row, start:stop] = segment
                loss_mask[row, start:stop] = self._encoded.loss_mask(example)
                start = stop
        # Cut the rows into micro-batches.
        micro = (self._accumulation, self.rows, self.length)
        arrays = (tokens, positions, segments, loss_mask)
        return Batch(*(array.reshape(micro) for array in arrays))

    def examples(self, step: int) -> list[int]:
        """Numbers in `encoded` of the examples of a step, in shuffled order."""
        start = step * self.batch_size
        places = range(start, min(start + self.batch_size, self.num_examples))
        size = len(self._lengths)
        return [int(self._order(place // size)[place % size]) for place in places]

    def epochs_after(self, steps: int) -> float:
        """Epochs that so many steps show."""
        return min(steps * self.batch_size, self.num_examples) / len(self._lengths)

    def steps_until(self, epochs: int) -> int:
        """Steps that show so many whole epochs."""
        return -(-epochs * len(self._lengths) // self.batch_size)

    def iterate(self, start: int = 0) -> Iterator[Batch]:
        """Iterate over the batches from a step to the end, made ahead in a thread of grain's.

        Raises:
          ImportError: if `grain` is not installed.
          ValueError: if `start` is not from 0 to the number of steps.
        """
        try:
            import grain
        except ImportError as error:
            raise ImportError(f"loading needs: {install_hint('llm')}") from error
        if not 0 <= start <= self.steps:
            raise ValueError(f"start must be from 0 to {self.steps}, got {start}")
        remaining = grain.MapDataset.source(self)[start:]
        return iter(remaining.to_iter_dataset(grain.ReadOptions(1, PREFETCH)))

    def _draw_order(self, epoch: int) -> Int[np.ndarray, " examples"]:
        seeds = np.random.SeedSequence(self._seed, spawn_key=(epoch,))
        return np.random.default_rng(seeds).permutation(len(self._lengths))

    def _packing(self, step: int) -> list[list[int]]:
        """Numbers in `encoded` of the examples in each row of a step."""
        examples = self.examples(step)
        if not self._packed:
            return [[example] for example in examples]
        lengths = [self._lengths[example] for example in examples]
        return [[examples[item] for item in row] for row in first_fit(lengths, self.length)]


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
