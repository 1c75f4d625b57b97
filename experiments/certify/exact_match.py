"""The loss that a certificate is about: 1 unless the whole reference solution is reproduced.

A solution counts as reproduced if each of its tokens, end marker included, is the most likely one
given the reference before it. One forward pass computes that. Greedy decoding gives the reference
exactly in the same cases, up to the rounding of the two programs.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from experiments.llm.training.loss import loss_sums
from synth.config import DecoderConfig
from synth.decoder import Parameters, head_kernel, hidden_states
from theory.posterior import ExampleLoss


def example_loss(decoder: DecoderConfig, chunk_tokens: int) -> ExampleLoss:
    """Return the loss of a whole solution in nats, and its 0-1 loss.

    A program that uses one of the two pays for one pass, because the compiler drops the other.

    Args:
      decoder: shape of the model.
      chunk_tokens: tokens whose logits are held at once.

    Returns:
      A function of parameters, an example (tokens [length], loss mask [length], padded on the
      right) and a key that it does not use: positions are sequential.
    """

    def loss(parameters, example, key):
        tokens, loss_mask = example
        positions = jnp.arange(tokens.size)
        nats, _ = loss_sums(
            decoder, parameters, tokens, positions, loss_mask, "sft", chunk_tokens=chunk_tokens
        )
        right = is_reproduced(
            decoder, parameters, tokens, positions, loss_mask, chunk_tokens=chunk_tokens
        )
        return nats, ~right

    return loss


def is_reproduced(
    decoder: DecoderConfig,
    parameters: Parameters,
    tokens: Int[Array, " length"],
    positions: Int[Array, " length"],
    loss_mask: Bool[Array, " length"],
    *,
    chunk_tokens: int,
) -> Bool[Array, ""]:
    """Return whether the argmax is right at every solution token, a few tokens' logits at a time.

    Args:
      decoder: shape of the model (static).
      parameters: its weights.
      tokens, positions: the sequence.
      loss_mask: true on solution tokens.
      chunk_tokens: tokens whose logits are held at once (static).
    """
    hidden = hidden_states(decoder, parameters, tokens, positions)
    head = head_kernel(decoder, parameters)
    chunk = min(chunk_tokens, tokens.size)
    num_chunks = -(-tokens.size // chunk)
    missing = num_chunks * chunk - tokens.size
    # The last token predicts nothing.
    counts = jnp.pad(loss_mask[1:], (0, missing + 1)).reshape(num_chunks, chunk)
    labels = jnp.pad(tokens[1:], (0, missing + 1)).reshape(num_chunks, chunk)
    hidden = jnp.pad(hidden, ((0, missing), (0, 0))).reshape(num_chunks, chunk, -1)

    def are_right(inputs):
        hidden, labels, counts = inputs
        scores = jnp.matmul(hidden, head, preferred_element_type=jnp.float32)
        return jnp.all((scores.argmax(axis=1) == labels) | ~counts)

    return jax.lax.map(are_right, (hidden, labels, counts)).all()
