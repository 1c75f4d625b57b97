"""Scaled dot-product attention with grouped heads, by several programs.

Axes as in `synth.decoder`: ``length`` (tokens of a sequence), ``keys`` (tokens that may be attended
to), ``size`` (width of a head).
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

ATTENDED = "attended"
"""Name of what the backward pass needs besides queries, keys and values (`checkpoint_name`)."""


def attend(
    query: Float[Array, "*rows heads length size"],
    key: Float[Array, "*rows kv_heads keys size"],
    value: Float[Array, "*rows kv_heads keys size"],
    visible: Bool[Array, "*rows length keys"],
) -> Float[Array, "*rows heads length size"]:
    """Scaled dot-product attention with grouped heads; softmax in float32.

    Args:
      query, key, value: of each head; a key-value head serves ``heads / kv_heads`` query heads.
      visible: true where a token may attend to a key; at least one for each token, if the gradient
        is asked for.
    """
    return _attend(query, key, value, visible)


@jax.custom_vjp
def _attend(query, key, value, visible):
    return _forward(query, key, value, visible)[0]


def _forward(query, key, value, visible):
    *rows, heads, length, size = query.shape
    # Merge the query heads of a key-value head with the length, so that all products have the heads
    # of keys and values as their batch.
    grouped = query.reshape(*rows, key.shape[-3], -1, size)
    scores = jnp.einsum("...qd,...kd->...qk", grouped, key, preferred_element_type=jnp.float32)
    scores = scores.reshape(*rows, heads, length, -1) / math.sqrt(size)
    scores = jnp.where(visible[..., None, :, :], scores, -1e30)
    weights = jax.nn.softmax(scores, axis=-1).reshape(*grouped.shape[:-1], -1)
    weights = checkpoint_name(weights, ATTENDED)
    attended = jnp.einsum("...qk,...kd->...qd", weights.astype(value.dtype), value)
    attended = checkpoint_name(attended.reshape(query.shape), ATTENDED)
    return attended, (grouped, key, value, weights)


def _backward(kept, slope):
    query, key, value, weights = kept
    shape, slope = slope.shape, slope.reshape(query.shape)
    to_value = _over_queries(weights.astype(value.dtype), slope)
    # With weights w = softmax(scores), the slope of a score is w (s − Σ w s), where s is the slope
    # of its weight.
    to_weights = jnp.einsum("...qd,...kd->...qk", slope, value, preferred_element_type=jnp.float32)
    mean = (weights * to_weights).sum(axis=-1, keepdims=True)
    to_scores = weights * (to_weights - mean) / math.sqrt(query.shape[-1])
    to_scores = to_scores.astype(query.dtype)
    to_query = jnp.einsum("...qk,...kd->...qd", to_scores, key)
    return to_query.reshape(shape), _over_queries(to_scores, query), to_value, None


_attend.defvjp(_forward, _backward)


def _over_queries(
    weights: Float[Array, "*rows queries keys"], x: Float[Array, "*rows queries size"]
) -> Float[Array, "*rows keys size"]:
    """Sum of the queries' vectors for each key, with weights.

    XLA on CPUs multiplies small matrices fast only if the sum runs along the rows of the first one.
    So `x` is transposed before the product, and not by it: a tenth of a toy's step is saved.
    """
    turned = jax.lax.optimization_barrier(x.swapaxes(-1, -2))
    return jnp.einsum("...dq,...qk->...dk", turned, weights).swapaxes(-1, -2)


def causal_mask(
    shape: tuple[int, ...], segments: Int[Array, "*rows length"] | None = None
) -> Bool[Array, "*rows length length"]:
    """Mask in which each token sees itself and earlier ones, all of its own segment.

    Args:
      shape: ``(*rows, length)``.
      segments: number of the sequence that each token belongs to; None for one sequence a row.
    """
    length = shape[-1]
    visible = jnp.broadcast_to(jnp.tril(jnp.ones((length, length), bool)), (*shape, length))
    if segments is None:
        return visible
    return visible & (segments[..., :, None] == segments[..., None, :])


def attend_fused(
    query: Float[Array, "*rows heads length size"],
    key: Float[Array, "*rows kv_heads length size"],
    value: Float[Array, "*rows kv_heads length size"],
    segments: Int[Array, "*rows length"] | None,
    implementation: Literal["xla", "cudnn"],
) -> Float[Array, "*rows heads length size"]:
    """`attend` under `causal_mask`, by `jax.nn.dot_product_attention`."""
    # Without segments the implementation's own causal mask skips the work above the diagonal.
    visible = None
    if segments is not None:
        visible = causal_mask(segments.shape, segments)

    def as_jax_wants(x):
        """Rows as one leading axis, and heads after the sequence."""
        return x.reshape(-1, *x.shape[-3:]).swapaxes(1, 2)

    attended = jax.nn.dot_product_attention(
        *map(as_jax_wants, (query, key, value)),
        mask=None if visible is None else visible.reshape(-1, 1, *visible.shape[-2:]),
        is_causal=visible is None,
        # The default scale is a NumPy scalar, which strict dtype promotion refuses.
        scale=1 / math.sqrt(query.shape[-1]),
        implementation=implementation,
    )
    return attended.swapaxes(1, 2).reshape(query.shape)
