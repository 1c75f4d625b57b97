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

from experiments.llm.training.chunks import sum_over_chunks
from synth.config import DecoderConfig, Loss
from synth.decoder import Parameters, hidden_states, project


@jax.custom_vjp
def label_log_probability(
    scores: Float[Array, "*tokens vocab"], labels: Int[Array, "*tokens"]
) -> Float[Array, "*tokens"]:
    """Logarithm of the softmax of each token's scores at its label, in nats.

    The derivative is given in closed form, ``onehot − softmax``, from the exponentials that the
    value needs anyway; the derivative of a gather would write an array of zeros and scatter into
    it.
    """
    return _label_log_probability(scores, labels)[0]


def _label_log_probability(scores, labels):
    highest = scores.max(axis=-1, keepdims=True)
    exponentials = jnp.exp(scores - highest)
    total = exponentials.sum(axis=-1, keepdims=True)
    chosen = jnp.take_along_axis(scores, labels[..., None], axis=-1)
    return (chosen - highest - jnp.log(total))[..., 0], (exponentials, total, labels)


def _slope_of_scores(kept, slope):
    exponentials, total, labels = kept
    tokens = jax.lax.broadcasted_iota(labels.dtype, exponentials.shape, exponentials.ndim - 1)
    is_label = (tokens == labels[..., None]).astype(exponentials.dtype)
    return (is_label - exponentials / total) * slope[..., None], None


label_log_probability.defvjp(_label_log_probability, _slope_of_scores)


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
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Loss in nats, summed over the solution tokens of all rows, and their number.

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

    def chunk_sum(head, hidden, labels, weights):
        # Cast the head in here: the gradients of the chunks then add up in the head's own type.
        scores = project(decoder, head, hidden)
        log_probability = label_log_probability(scores, labels)
        if loss == "dft":
            weights = weights * jax.lax.stop_gradient(jnp.exp(log_probability))
        return -(weights * log_probability).sum()

    # The hidden state at a token predicts the next one; the last state has nothing to predict, and
    # padding gives it the weight 0.
    weights = counts.astype(jnp.float32)
    chunks = chunked(tokens[..., 1:], -1), chunked(weights, -1)
    name = "embedding" if decoder.tied_head else "head"
    head = {name: parameters[name]}
    return sum_over_chunks(chunk_sum, head, chunked(hidden, -2), chunks), weights.sum()
