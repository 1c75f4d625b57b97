"""Causal attention in blocks of queries, which keeps no scores for the backward pass.

A block of queries meets the keys up to its own end, so that nearly half of the products are
skipped. Kept for the backward pass are the output and the logarithm of each softmax's denominator,
from which scores are computed again (Dao et al. 2022, arXiv 2205.14135, whose kernel splits the
keys as well). For 512 tokens it takes half the time of `synth.attention.attend` on a CPU.

Axes as in `synth.attention`; ``block`` are the queries of a block, ``seen`` the keys up to its end.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from synth.attention import ATTENDED, attend, causal_mask

LEAST, MOST = 128, 8
"""Tokens of a block at least, and blocks of a sequence at most: each is compiled by itself."""


def attend_in_blocks(
    query: Float[Array, "*rows heads length size"],
    key: Float[Array, "*rows kv_heads length size"],
    value: Float[Array, "*rows kv_heads length size"],
    segments: Int[Array, "*rows length"] | None = None,
) -> Float[Array, "*rows heads length size"]:
    """`synth.attention.attend` under `synth.attention.causal_mask`, equal up to rounding."""
    *rows, _, length, _ = query.shape
    if length <= LEAST:
        return attend(query, key, value, causal_mask((*rows, length), segments))
    return _attend(query, key, value, segments)


def _blocks(length: int) -> list[slice]:
    size = max(LEAST, -(-length // MOST))
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


@jax.custom_vjp
def _attend(query, key, value, segments):
    return _forward(query, key, value, segments)[0]


def _forward(query, key, value, segments):
    outputs, denominators = [], []
    for block in _blocks(query.shape[-2]):
        scores = _scores(query, key, segments, block)
        highest = scores.max(axis=-1, keepdims=True)
        weights = jnp.exp(scores - highest)
        total = weights.sum(axis=-1, keepdims=True)
        attended = _per_query(weights.astype(value.dtype), value[..., : block.stop, :])
        outputs.append((attended.astype(jnp.float32) / total).astype(value.dtype))
        denominators.append((highest + jnp.log(total))[..., 0])
    output = checkpoint_name(jnp.concatenate(outputs, axis=-2), ATTENDED)
    denominator = checkpoint_name(jnp.concatenate(denominators, axis=-1), ATTENDED)
    return output, (query, key, value, segments, output, denominator)


def _backward(kept, slope):
    query, key, value, segments, output, denominator = kept
    # With weights w = softmax(scores), the slope of a score is w (s − Σ w s), where s is the slope
    # of its weight; the sum is the product of the output with its own slope.
    mean = (slope.astype(jnp.float32) * output.astype(jnp.float32)).sum(axis=-1)
    to_query, to_key, to_value = [], [], []
    for block in _blocks(query.shape[-2]):
        own, own_slope = query[..., block, :], slope[..., block, :]
        weights = jnp.exp(_scores(query, key, segments, block) - denominator[..., block, None])
        to_weights = _per_key(own_slope, value[..., : block.stop, :])
        to_scores = weights * (to_weights - mean[..., block, None]) / math.sqrt(query.shape[-1])
        to_scores = to_scores.astype(query.dtype)
        to_query.append(_per_query(to_scores, key[..., : block.stop, :]))
        to_key.append(_over_queries(to_scores, own, key))
        to_value.append(_over_queries(weights.astype(value.dtype), own_slope, value))
    return (
        jnp.concatenate(to_query, axis=-2),
        functools.reduce(jnp.add, to_key),
        functools.reduce(jnp.add, to_value),
        None,
    )


_attend.defvjp(_forward, _backward)


def _scores(query, key, segments, block: slice) -> Float[Array, "*rows heads block seen"]:
    """Scores of a block's queries, very low where a key is not visible."""
    scores = _per_key(query[..., block, :], key[..., : block.stop, :])
    scores = scores / math.sqrt(query.shape[-1])
    place, seen = (
        jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis)
        for axis in (scores.ndim - 2, scores.ndim - 1)
    )
    visible = place + block.start >= seen
    if segments is not None:
        same = segments[..., block, None] == segments[..., None, : block.stop]
        visible = visible & same[..., None, :, :]
    return jnp.where(visible, scores, -1e30)


# The query heads of a key-value head are merged with the length, so that all products have the
# heads of keys and values as their batch.


def _grouped(x: Array, kv_heads: int) -> Float[Array, "*rows kv_heads queries last"]:
    *rows, heads, length, last = x.shape
    return x.reshape(*rows, kv_heads, heads // kv_heads * length, last)


def _per_key(
    x: Float[Array, "*rows heads block size"], y: Float[Array, "*rows kv_heads seen size"]
) -> Float[Array, "*rows heads block seen"]:
    """Product of each query's vector with each key's, in float32."""
    grouped = _grouped(x, y.shape[-3])
    product = jnp.einsum("...qd,...kd->...qk", grouped, y, preferred_element_type=jnp.float32)
    return product.reshape(*x.shape[:-1], -1)


def _per_query(
    weights: Float[Array, "*rows heads block seen"], y: Float[Array, "*rows kv_heads seen size"]
) -> Float[Array, "*rows heads block size"]:
    """Weighted sum of the keys' vectors, for each query."""
    product = jnp.einsum("...qk,...kd->...qd", _grouped(weights, y.shape[-3]), y)
    return product.reshape(*weights.shape[:-1], -1)


def _over_queries(
    weights: Float[Array, "*rows heads block seen"],
    x: Float[Array, "*rows heads block size"],
    like: Float[Array, "*rows kv_heads length size"],
) -> Float[Array, "*rows kv_heads length size"]:
    """Weighted sum of the queries' vectors, for each key; zero for keys that are not seen."""
    grouped = (_grouped(each, like.shape[-3]) for each in (weights, x))
    product = jnp.einsum("...qk,...qd->...kd", *grouped)
    missing = like.shape[-2] - product.shape[-2]
    return jnp.pad(product, [(0, 0)] * (product.ndim - 2) + [(0, missing), (0, 0)])
