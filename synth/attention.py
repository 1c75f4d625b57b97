"""Scaled dot-product attention with grouped heads, by several programs.

Axes as in `synth.decoder`: ``length`` (tokens of a sequence), ``keys`` (tokens that may be attended
to), ``size`` (width of a head).
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def attend(
    query: Float[Array, "*rows heads length size"],
    key: Float[Array, "*rows kv_heads keys size"],
    value: Float[Array, "*rows kv_heads keys size"],
    visible: Bool[Array, "*rows length keys"],
) -> Float[Array, "*rows heads length size"]:
    """Scaled dot-product attention with grouped heads; softmax in float32.

    Args:
      query, key, value: of each head; a key-value head serves ``heads / kv_heads`` query heads.
      visible: true where a token may attend to a key.
    """
    *rows, heads, length, size = query.shape
    kv_heads = key.shape[-3]
    # Merge the query heads of a key-value head with the length, so that both products have the
    # heads of keys and values as their batch.
    grouped = query.reshape(*rows, kv_heads, -1, size)
    scores = jnp.einsum("...qd,...kd->...qk", grouped, key, preferred_element_type=jnp.float32)
    scores = scores.reshape(*rows, heads, length, -1) / math.sqrt(size)
    scores = jnp.where(visible[..., None, :, :], scores, -1e30)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    grouped = weights.reshape(*rows, kv_heads, -1, weights.shape[-1])
    return jnp.einsum("...qk,...kd->...qd", grouped, value).reshape(query.shape)


def attend_fused(
    query: Float[Array, "*rows heads length size"],
    key: Float[Array, "*rows kv_heads length size"],
    value: Float[Array, "*rows kv_heads length size"],
    visible: Bool[Array, "*rows length length"] | None,
    implementation: Literal["xla", "cudnn"],
) -> Float[Array, "*rows heads length size"]:
    """`attend` by `jax.nn.dot_product_attention`; None for `visible` is the causal mask."""

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
