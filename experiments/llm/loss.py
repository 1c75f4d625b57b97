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

from synth.decoder import DecoderConfig, Parameters, head_kernel, hidden_states
from synth.finetune import Loss


def loss_sums(
    decoder: DecoderConfig,
    parameters: Parameters,
    tokens: Int[Array, " length"],
    positions: Int[Array, " length"],
    loss_mask: Bool[Array, " length"],
    loss: Loss,
    *,
    segments: Int[Array, " length"] | None = None,
    chunk_tokens: int = 512,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Loss of one sequence in nats, summed over its solution tokens, and their number.

    Args:
      decoder: shape of the model (static).
      parameters: its weights.
      tokens, positions: the sequence.
      loss_mask: true on the tokens whose prediction counts.
      loss: ``sft`` or ``dft``, as in `synth.finetune.FinetuneConfig` (static).
      segments: number of each token's own sequence where several are packed into this one; the
        first token of each has nothing to be predicted from, and never counts.
      chunk_tokens: tokens whose logits are held at once (static).

    Raises:
      ValueError: if `chunk_tokens` is below 1.
    """
    if chunk_tokens < 1:
        raise ValueError(f"chunk_tokens must be at least 1, got {chunk_tokens}")
    hidden = hidden_states(decoder, parameters, tokens, positions, segments)
    counts = loss_mask[1:]
    if segments is not None:
        counts = counts & (segments[1:] == segments[:-1])
    # The last token predicts nothing; padding to whole chunks counts for nothing either.
    chunk = min(chunk_tokens, tokens.size)
    num_chunks = -(-tokens.size // chunk)
    missing = num_chunks * chunk - tokens.size
    weights = jnp.pad(counts.astype(jnp.float32), (0, missing + 1))
    labels = jnp.pad(tokens[1:], (0, missing + 1))
    hidden = jnp.pad(hidden, ((0, missing), (0, 0)))

    @jax.checkpoint
    def chunk_sum(hidden, labels, weights):
        # The head is cast in here, so that its gradients add up over chunks in their own type.
        head = head_kernel(decoder, parameters)
        scores = jnp.matmul(hidden, head, preferred_element_type=jnp.float32)
        chosen = jnp.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
        log_probability = chosen - jax.nn.logsumexp(scores, axis=1)
        if loss == "dft":
            weights = weights * jax.lax.stop_gradient(jnp.exp(log_probability))
        return -(weights * log_probability).sum()

    def step(total, inputs):
        return total + chunk_sum(*inputs), None

    chunks = jax.tree.map(
        lambda array: array.reshape(num_chunks, chunk, *array.shape[1:]), (hidden, labels, weights)
    )
    total, _ = jax.lax.scan(step, jnp.float32(0), chunks)
    return total, weights.sum()


def batch_loss_sums(
    decoder: DecoderConfig,
    parameters: Parameters,
    tokens: Int[Array, "batch length"],
    positions: Int[Array, "batch length"],
    loss_mask: Bool[Array, "batch length"],
    loss: Loss,
    *,
    segments: Int[Array, "batch length"] | None = None,
    chunk_tokens: int = 512,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """`loss_sums` over a batch; `chunk_tokens` of every sequence are held at once."""

    def one(tokens, positions, loss_mask, segments):
        return loss_sums(
            decoder,
            parameters,
            tokens,
            positions,
            loss_mask,
            loss,
            segments=segments,
            chunk_tokens=chunk_tokens,
        )

    axes = (0, 0, 0, None if segments is None else 0)
    losses, weights = jax.vmap(one, axes)(tokens, positions, loss_mask, segments)
    return losses.sum(), weights.sum()
