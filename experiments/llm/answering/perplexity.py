"""How well a model foresees given solutions: nats of each, and its perplexity."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from experiments.llm.text.encoding import Encoded
from experiments.llm.training.loss import loss_sums
from experiments.storage.sharding import row_split, spread
from synth.config import DecoderConfig
from synth.decoder import Parameters

LOGIT_TOKENS = 2048
"""Tokens of a batch whose logits are held at once: 1.2 GB over a vocabulary of 152 thousand."""

SHORTEST = 64
"""Sequences are padded to this many tokens or to its multiples by 3/2, 2, 3, 4, 6, 8 …"""


def perplexities(
    decoder: DecoderConfig,
    parameters: Parameters,
    encoded: Encoded,
    *,
    mesh: Mesh | None = None,
    batch_tokens: int = 16_384,
    advance: Callable[[int], object] = lambda count: None,
) -> Float[np.ndarray, " examples"]:
    """Perplexity of each solution given its problem: exp of the mean nats of its tokens.

    The end marker is no part of the solution, as in its length: a base that was never shown chats
    does not know the marker, however easy the problem.

    Args:
      decoder: shape of the model.
      parameters: its weights.
      encoded: problems and solutions; of a truncated one, what is left counts.
      mesh: where the parameters are; rows of a batch are spread over it too.
      batch_tokens: tokens of a batch, padding counted.
      advance: called with the number of examples that are done since the last call.

    Raises:
      ValueError: if `batch_tokens` is below 1, or see `check`.
    """
    if batch_tokens < 1:
        raise ValueError(f"batch_tokens must be at least 1, got {batch_tokens}")
    check(decoder, encoded)
    lengths = encoded.lengths
    starts = encoded.prompt_lengths.astype(np.int32)
    ends = np.minimum(starts + encoded.solution_lengths, lengths).astype(np.int32)
    nats = np.empty(len(lengths))
    for rows, padded in _batches(encoded, lengths, decoder.max_positions, batch_tokens, mesh):
        filled = np.pad(rows, (0, len(padded) - len(rows)), mode="edge")
        batch = (padded, starts[filled], ends[filled])
        found = _program(
            decoder,
            parameters,
            *(spread(array, mesh) for array in batch),
            mesh=mesh,
            chunk_tokens=max(1, LOGIT_TOKENS // len(padded)),
        )
        nats[rows] = np.asarray(found)[: len(rows)]
        advance(len(rows))
    return np.exp(nats / (ends - starts))


def check(decoder: DecoderConfig, encoded: Encoded) -> None:
    """Refuse examples that the decoder cannot read, before any work.

    Raises:
      ValueError: if an example has more tokens than the decoder has positions, or a token that it
        does not know.
    """
    lengths, context = encoded.lengths, decoder.max_positions
    if (long := lengths > context).any():
        raise ValueError(
            f"examples must fit into the context of the checkpoint, {context} tokens, but "
            f"{long.sum()} of {len(lengths)} are longer, the longest {lengths.max()}; the first is "
            f"row {encoded.rows[long.argmax()]}"
        )
    unknown = [
        row
        for row, tokens in zip(encoded.rows, encoded.tokens, strict=True)
        if tokens.max() >= decoder.vocab_size
    ]
    if unknown:
        raise ValueError(
            f"examples have tokens beyond the {decoder.vocab_size} of the checkpoint, the first in "
            f"row {unknown[0]}: does the tokenizer belong to it?"
        )


def example_nats(
    decoder: DecoderConfig,
    parameters: Parameters,
    tokens: Int[Array, "batch length"],
    starts: Int[Array, " batch"],
    ends: Int[Array, " batch"],
    *,
    mesh: Mesh | None = None,
    chunk_tokens: int = 512,
) -> Float[Array, " batch"]:
    """Nats of each row's tokens from its start up to its end, given those before.

    Args:
      decoder: shape of the model (static).
      parameters: its weights.
      tokens: sequences, padded behind with any token.
      starts, ends: places of the first token that counts, and of the first after those.
      mesh: if given, every device gets all results (static).
      chunk_tokens: tokens of each row whose logits are held at once (static).
    """
    places = jnp.arange(tokens.shape[1])

    def one(tokens, start, end):
        counts = (places >= start) & (places < end)
        total, _ = loss_sums(
            decoder, parameters, tokens, places, counts, "sft", chunk_tokens=chunk_tokens
        )
        return total

    nats = jax.vmap(one)(tokens, starts, ends)
    if mesh is not None:
        nats = jax.lax.with_sharding_constraint(nats, NamedSharding(mesh, PartitionSpec()))
    return nats


_program = jax.jit(example_nats, static_argnums=0, static_argnames=("mesh", "chunk_tokens"))


def padded_length(length: int, longest: int) -> int:
    """The least length of the ladder (see `SHORTEST`) that holds `length`, at most `longest`."""
    step = SHORTEST
    while step < length:
        if 3 * step // 2 >= length:
            return min(3 * step // 2, longest)
        step *= 2
    return min(step, longest)


def _batches(
    encoded: Encoded,
    lengths: Int[np.ndarray, " examples"],
    longest: int,
    batch_tokens: int,
    mesh: Mesh | None,
) -> Iterator[tuple[Int[np.ndarray, " rows"], Int[np.ndarray, "batch length"]]]:
    """Examples of similar length, and their tokens padded to one of few shapes."""
    widths = np.array([padded_length(length, longest) for length in lengths.tolist()], int)
    split = row_split(mesh)
    # The longest first: what does not fit into memory is told at once.
    for width in np.unique(widths)[::-1]:
        members = np.flatnonzero(widths == width)
        size = min(max(1, batch_tokens // int(width)), len(members))
        size = -(-size // split) * split
        for start in range(0, len(members), size):
            rows = members[start : start + size]
            padded = np.zeros((size, width), np.int32)
            for place, row in enumerate(np.pad(rows, (0, size - len(rows)), mode="edge")):
                padded[place, : lengths[row]] = encoded.tokens[row]
            yield rows, padded
