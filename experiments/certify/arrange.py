"""Problems of each difficulty as padded arrays: the sample first, fresh ones after it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from experiments.llm.text.encoding import Encoded
from experiments.llm.text.loader import nested
from synth.config import DecoderConfig


def check_rows(samples: Mapping[int, Encoded], rows_trained_on: Iterable[int]) -> None:
    """Refuse problems on which a risk says nothing about further problems.

    Args:
      samples: problems of each difficulty, all of one problem set.
      rows_trained_on: rows of the same problem set that the checkpoint was trained on.

    Raises:
      ValueError: if there are no problems, one occurs twice, or one was trained on.
    """
    if not samples:
        raise ValueError("samples must hold problems of at least one difficulty, got none")
    rows = np.concatenate([np.asarray(each.rows) for each in samples.values()])
    distinct, counts = np.unique(rows, return_counts=True)
    if (counts > 1).any():
        raise ValueError(
            f"rows of samples must be distinct, over all difficulties, but {(counts > 1).sum()} "
            f"occur more than once, the first is {distinct[counts > 1][0]}"
        )
    both = np.intersect1d(distinct, np.fromiter(rows_trained_on, np.int64))
    if both.size:
        raise ValueError(
            f"samples must hold no row that the checkpoint was trained on: its risk there says "
            f"nothing about further problems. {both.size} of {rows.size} rows are in "
            f"rows_trained_on, the first is {both[0]}"
        )


@dataclass(frozen=True)
class Level:
    """Problems of one difficulty: the largest sample, then fresh ones.

    Attributes:
      tokens: padded on the right.
      loss_mask: true on solution tokens.
      num_fresh: how many of the last rows are fresh.
    """

    tokens: Int[np.ndarray, "rows length"]
    loss_mask: Bool[np.ndarray, "rows length"]
    num_fresh: int

    @property
    def sample(self) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and loss mask of the largest sample; a smaller one is its beginning."""
        return self.tokens[: -self.num_fresh], self.loss_mask[: -self.num_fresh]

    @property
    def fresh(self) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and loss mask of the fresh problems."""
        return self.tokens[-self.num_fresh :], self.loss_mask[-self.num_fresh :]

    def digest(self) -> str:
        """Fingerprint of the arrays."""
        return hashlib.sha256(self.tokens.tobytes() + self.loss_mask.tobytes()).hexdigest()


def arrange(
    samples: Mapping[int, Encoded],
    decoder: DecoderConfig,
    *,
    largest: int,
    num_fresh: int,
    seed: int,
) -> dict[int, Level]:
    """Shuffle the problems of each difficulty, and pad them: equally many of each, easiest first.

    Args:
      samples: problems of each difficulty.
      decoder: of the checkpoint that reads them.
      largest: number of problems in the largest sample.
      num_fresh: most fresh problems; fewer if a difficulty has fewer.
      seed: of the shuffling.

    Raises:
      ValueError: if a difficulty has too few problems, or the decoder cannot read one or has
        nothing to predict in it.
    """
    # Every difficulty must have fresh problems beyond the largest sample.
    for level, encoded in samples.items():
        if len(encoded) <= largest:
            raise ValueError(
                f"difficulty {level} must have more problems than the largest of data_sizes, "
                f"{largest}, so that the risk can be measured on the others; got {len(encoded)}"
            )
        _check_readable(level, encoded, decoder)
    # One shape for all: the fewest fresh problems, and the longest tokens.
    num_fresh = min(num_fresh, *(len(encoded) - largest for encoded in samples.values()))
    length = max(len(tokens) for encoded in samples.values() for tokens in encoded.tokens)
    levels = {}
    for level in sorted(samples):
        encoded = samples[level]
        order = nested(
            np.arange(len(encoded)), largest + num_fresh, seed=seed, stream=f"certify {level}"
        )
        tokens = np.zeros((len(order), length), np.int32)
        loss_mask = np.zeros((len(order), length), bool)
        for row, index in enumerate(order):
            own = encoded.tokens[index]
            tokens[row, : len(own)] = own
            loss_mask[row, encoded.prompt_lengths[index] : len(own)] = True
        levels[level] = Level(tokens, loss_mask, num_fresh)
    return levels


def _check_readable(level: int, encoded: Encoded, decoder: DecoderConfig) -> None:
    """Refuse problems that the decoder cannot read whole, or with nothing to predict."""
    if encoded.tokens_cut is not None and (cut := int((encoded.tokens_cut > 0).sum())):
        raise ValueError(
            f"solutions must be whole, but {cut} of difficulty {level} are truncated, and a bound "
            f"would be about their beginnings; drop them, or encode with a larger max_length"
        )
    for tokens, prompt_length, row in zip(
        encoded.tokens, encoded.prompt_lengths, encoded.rows, strict=True
    ):
        if not 1 <= prompt_length < len(tokens):
            raise ValueError(
                f"problems must have tokens of prompt and solution, but row {row} of difficulty "
                f"{level} has {prompt_length} of {len(tokens)} in its prompt"
            )
        if len(tokens) > decoder.max_positions:
            raise ValueError(
                f"problems must have at most max_positions = {decoder.max_positions} tokens, but "
                f"row {row} of difficulty {level} has {len(tokens)}"
            )
        if tokens.max() >= decoder.vocab_size or tokens.min() < 0:
            raise ValueError(
                f"tokens must be below vocab_size = {decoder.vocab_size}: row {row} of difficulty "
                f"{level} was encoded with another tokenizer"
            )
