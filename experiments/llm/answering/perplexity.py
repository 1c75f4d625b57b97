"""Perplexity of given solutions under a model."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from experiments.llm.answering.batches import padded_batches
from experiments.llm.text.encoding import Encoded, check_examples
from experiments.llm.training.loss import loss_sums
from experiments.storage.sharding import row_split, spread
from synth.config import DecoderConfig
from synth.decoder import Parameters

LOGIT_TOKENS = 2048
"""Tokens of a batch whose logits are in memory at once: 1.2 GB with 152 thousand token ids."""

SHORTEST = 64
"""Padded lengths, in tokens, are this one and its multiples by 3/2, 2, 3, 4, 6, 8 …"""


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

    The end marker does not count as a part of the solution: a base that never saw chats does not
    expect it, however easy the problem is.

    Args:
      decoder: shape of the model.
      parameters: its weights.
      encoded: problems and solutions; the rest of a truncated solution counts.
      mesh: devices that hold the parameters and share the rows of each batch.
      batch_tokens: tokens of a batch, including padding.
      advance: called with the number of examples that are done since the last call.

    Raises:
      ValueError: if `batch_tokens` is below 1; see also
        `experiments.llm.text.encoding.check_examples`.
    """
    if batch_tokens < 1:
        raise ValueError(f"batch_tokens must be at least 1, got {batch_tokens}")
    check_examples(encoded, decoder)
    lengths = encoded.lengths
    starts = encoded.prompt_lengths.astype(np.int32)
    ends = np.minimum(starts + encoded.solution_lengths, lengths).astype(np.int32)
    widths = [padded_length(length, decoder.max_positions) for length in lengths.tolist()]
    split = row_split(mesh)

    def batch_size(width: int, number: int) -> int:
        """As many rows as `batch_tokens` allow; the mesh splits them into equal parts."""
        size = min(max(1, batch_tokens // width), number)
        return -(-size // split) * split

    nats = np.empty(len(lengths))
    for batch in padded_batches(encoded.tokens, np.array(widths, int), batch_size):
        arrays = (batch.tokens, starts[batch.filled], ends[batch.filled])
        batch_nats = _program(
            decoder,
            parameters,
            *(spread(array, mesh) for array in arrays),
            mesh=mesh,
            chunk_tokens=max(1, LOGIT_TOKENS // len(batch.tokens)),
        )
        nats[batch.rows] = np.asarray(batch_nats)[: len(batch.rows)]
        advance(len(batch.rows))
    return np.exp(nats / (ends - starts))


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
      tokens: sequences, padded at the end with any token.
      starts, ends: places of the first token that counts and of the first after the last one.
      mesh: if given, every device gets all results (static).
      chunk_tokens: tokens of each row whose logits are in memory at once (static).
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
    """Smallest padded length (see `SHORTEST`) for a sequence, but at most `longest`."""
    step = SHORTEST
    while step < length:
        if 3 * step // 2 >= length:
            return min(3 * step // 2, longest)
        step *= 2
    return min(step, longest)
