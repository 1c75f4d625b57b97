"""The fine-tuning loss of real checkpoints: sums over tokens, computed in chunks to save memory.

A sequence of 4096 tokens over a vocabulary of 152 thousand has 2.5 GB of logits in float32. Here
only the logits of one chunk of tokens are in memory at once, in the backward pass too. Losses and
numbers of solution tokens are returned as sums, which add up over micro-batches to those of the
whole batch.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from synth.config import DecoderConfig, Loss
from synth.decoder import Parameters, hidden_states, project


@jax.custom_jvp
def label_log_probability(
    scores: Float[Array, "*tokens vocab"], labels: Int[Array, "*tokens"]
) -> Float[Array, "*tokens"]:
    """Logarithm of the softmax of each token's scores at its label, in nats.

    The derivative is given in closed form, ``onehot − softmax``. It needs one pass over the scores
    and keeps nothing else for the backward pass; the derivative of a gather would write an array
    of zeros and scatter into it.
    """
    chosen = jnp.take_along_axis(scores, labels[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(scores, axis=-1)


@label_log_probability.defjvp
def _label_log_probability_jvp(primals, tangents):
    scores, labels = primals
    total = jax.nn.logsumexp(scores, axis=-1, keepdims=True)
    is_label = (
        jax.lax.broadcasted_iota(labels.dtype, scores.shape, scores.ndim - 1) == (labels[..., None])
    )
    slope = is_label.astype(scores.dtype) - jnp.exp(scores - total)
    chosen = jnp.take_along_axis(scores, labels[..., None], axis=-1)
    return (chosen - total)[..., 0], (slope * tangents[0]).sum(axis=-1)


def loss_sums(
    decoder: DecoderConfig,
    parameters: Parameters,
    tokens: Int[Array, "*rows length"],
    positions: Int[Array, "*rows length"],
    loss_mask: Bool[Array, "*rows length"],
    loss: Loss,
    *,
    segments: Int[Array, "*rows length"] | None = None,
    chunk_tokens: int = 512,
) -> tuple[Float[Array, "*rows"], Float[Array, "*rows"]]:
    """Loss of each sequence in nats, summed over its solution tokens, and their number.

    Args:
      decoder: shape of the model (static).
      parameters: its weights.
      tokens, positions: a sequence, or rows of them.
      loss_mask: true on the tokens whose prediction counts.
      loss: ``sft`` or ``dft``, as in `synth.config.FinetuneConfig` (static).
      segments: number of each token's sequence, if several are packed into a row; the first token
        of a sequence has nothing to be predicted from and never counts.
      chunk_tokens: tokens of every row whose logits are in memory at once (static).

    Raises:
      ValueError: if `chunk_tokens` is below 1.
    """
    if chunk_tokens < 1:
        raise ValueError(f"chunk_tokens must be at least 1, got {chunk_tokens}")
    hidden = hidden_states(decoder, parameters, tokens, positions, segments)
    # A token counts if it is in the mask and follows a token of its own sequence.
    counts = loss_mask[..., 1:]
    if segments is not None:
        counts = counts & (segments[..., 1:] == segments[..., :-1])
    *rows, length = tokens.shape
    chunk = min(chunk_tokens, length)
    num_chunks = -(-length // chunk)

    def chunked(array, axis):
        """Split an axis into chunks along a new first axis; zeros fill the last chunk."""
        missing = [(0, 0)] * array.ndim
        missing[axis] = (0, num_chunks * chunk - array.shape[axis])
        padded = jnp.pad(array, missing)
        after = padded.shape[axis + 1 :] if axis + 1 else ()
        return jnp.moveaxis(padded.reshape(*rows, num_chunks, chunk, *after), len(rows), 0)

    def chunk_sums(hidden, labels, weights):
        # Cast the head in here: the gradients of the chunks then add up in the head's own type.
        scores = project(decoder, parameters, hidden)
        log_probability = label_log_probability(scores, labels)
        if loss == "dft":
            weights = weights * jax.lax.stop_gradient(jnp.exp(log_probability))
        return -(weights * log_probability).sum(axis=-1)

    # The hidden state at a token predicts the next one; the last state has nothing to predict, and
    # padding gives it the weight 0.
    weights = counts.astype(jnp.float32)
    chunks = chunked(hidden, -2), chunked(tokens[..., 1:], -1), chunked(weights, -1)
    if num_chunks == 1:
        total = chunk_sums(*(array[0] for array in chunks))
    else:
        # Compute logits again in the backward pass: kept, those of all chunks would be in memory.
        body = jax.checkpoint(chunk_sums)
        total, _ = jax.lax.scan(
            lambda total, chunk: (total + body(*chunk), None), jnp.zeros(rows), chunks
        )
    return total, weights.sum(axis=-1)
