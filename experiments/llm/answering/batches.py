"""Batches of sequences of similar length, padded at their ends to few shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class PaddedBatch:
    """Sequences padded to one length.

    Attributes:
      rows: numbers of the sequences.
      filled: the same numbers, followed by copies of the last one where the batch is not full.
      tokens: token ids of the sequences in `filled`, with zeros behind them.
    """

    rows: Int[np.ndarray, " rows"]
    filled: Int[np.ndarray, " batch"]
    tokens: Int[np.ndarray, "batch width"]


def padded_batches(
    sequences: Sequence[ArrayLike],
    widths: Int[np.ndarray, " sequences"],
    batch_size: Callable[[int, int], int],
) -> Iterator[PaddedBatch]:
    """Batches of sequences that have the same padded length.

    The widest batches come first: if one does not fit into memory, it fails at the start.

    Args:
      sequences: token ids of each.
      widths: padded length of each.
      batch_size: rows of a batch, given the width and the number of sequences with that width.

    Raises:
      ValueError: if a sequence is empty.
    """
    if empty := [row for row, sequence in enumerate(sequences) if not np.size(sequence)]:
        raise ValueError(f"sequences must have at least one token, but these are empty: {empty}")
    for width in np.unique(widths)[::-1].tolist():
        members = np.flatnonzero(widths == width)
        size = batch_size(width, len(members))
        for start in range(0, len(members), size):
            rows = members[start : start + size]
            filled = np.pad(rows, (0, size - len(rows)), mode="edge")
            tokens = np.zeros((size, width), np.int32)
            for target, row in zip(tokens, filled, strict=True):
                sequence = np.asarray(sequences[row])
                target[: len(sequence)] = sequence
            yield PaddedBatch(rows, filled, tokens)
