"""The fine-tuning loss of real checkpoints: sums over tokens, a few tokens' logits at a time.

A sequence of 4096 tokens over a vocabulary of 152 thousand has 2.5 GB of logits in float32. Here
the logits of one chunk of tokens exist at once, in the backward pass too. Losses and weights come
back as sums, so that micro-batches add up to the loss of the whole batch, however many solution
tokens each of them has.
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

    The derivative is given in closed form, ``onehot − softmax``: one pass over the scores and
    nothing kept but them, where that of a gather would write zeros and scatter into them.
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
      segments: number of each token's own sequence where several are packed into a row; the first
        token of each has nothing to be predicted from, and never counts.
      chunk_tokens: tokens of every row whose logits are held at once (static).

    Raises:
      ValueError: if `chunk_tokens` is below 1.
    """
    if chunk_tokens < 1:
        raise ValueError(f"chunk_tokens must be at least 1, got {chunk_tokens}")
    hidden = hidden_states(decoder, parameters, tokens, positions, segments)
    counts = loss_mask[..., 1:]
    if segments is not None:
        counts = counts & (segments[..., 1:] == segments[..., :-1])
    *rows, length = tokens.shape
    chunk = min(chunk_tokens, length)
    num_chunks = -(-length // chunk)

    def chunked(array, axis):
        """Chunks along a new first axis; what is missing at the end counts for nothing."""
        missing = [(0, 0)] * array.ndim
        missing[axis] = (0, num_chunks * chunk - array.shape[axis])
        padded = jnp.pad(array, missing)
        after = padded.shape[axis + 1 :] if axis + 1 else ()
        return jnp.moveaxis(padded.reshape(*rows, num_chunks, chunk, *after), len(rows), 0)

    def chunk_sums(hidden, labels, weights):
        # The head is cast in here, so that its gradients add up over chunks in their own type.
        scores = project(decoder, parameters, hidden)
        log_probability = label_log_probability(scores, labels)
        if loss == "dft":
            weights = weights * jax.lax.stop_gradient(jnp.exp(log_probability))
        return -(weights * log_probability).sum(axis=-1)

    # The last token predicts nothing.
    weights = counts.astype(jnp.float32)
    chunks = chunked(hidden, -2), chunked(tokens[..., 1:], -1), chunked(weights, -1)
    if num_chunks == 1:
        total = chunk_sums(*(array[0] for array in chunks))
    else:
        # Held for all chunks, logits would be in memory at once after all.
        body = jax.checkpoint(chunk_sums)
        total, _ = jax.lax.scan(
            lambda total, chunk: (total + body(*chunk), None), jnp.zeros(rows), chunks
        )
    return total, weights.sum(axis=-1)
