"""Attention against its definition."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synth.attention import attend

ROWS, LENGTH, SIZE = 3, 5, 4


def by_definition(query, key, value, visible):
    """A softmax over the visible keys for each query, one head after the other."""
    served = query.shape[-3] // key.shape[-3]
    heads = []
    for head in range(query.shape[-3]):
        own = head // served
        scores = query[:, head] @ key[:, own].swapaxes(-1, -2) / math.sqrt(query.shape[-1])
        powers = jnp.where(visible, jnp.exp(scores), 0.0)
        heads.append(powers @ value[:, own] / powers.sum(axis=-1, keepdims=True))
    return jnp.stack(heads, axis=1)


def drawn(heads: int, kv_heads: int, keys: int = LENGTH):
    """Queries, keys, values, and the slope of the output."""
    shapes = [(heads, LENGTH), (kv_heads, keys), (kv_heads, keys), (heads, LENGTH)]
    keys_of = jax.random.split(jax.random.key(heads), len(shapes))
    return [
        jax.random.normal(key, (ROWS, *shape, SIZE))
        for key, shape in zip(keys_of, shapes, strict=True)
    ]


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_output_and_gradient_are_those_of_the_definition(kv_heads):
    *arguments, slope = drawn(4, kv_heads)
    causal = jnp.tril(jnp.ones((LENGTH, LENGTH), bool))
    # The second row does not see its first key; its first query sees only itself.
    visible = jnp.stack([causal, causal.at[1:, 0].set(False), causal])

    def both(function):
        def run(*arguments):
            output, pulled = jax.vjp(lambda *each: function(*each, visible), *arguments)
            return output, pulled(slope)

        return jax.jit(run)(*arguments)

    (output, slopes), (expected, expected_slopes) = both(attend), both(by_definition)
    np.testing.assert_allclose(output, expected, atol=1e-5)
    for own, other in zip(slopes, expected_slopes, strict=True):
        assert np.abs(other).max() > 0.1
        np.testing.assert_allclose(own, other, atol=1e-5)


def test_members_mapped_equal_one_after_the_other():
    *arguments, slope = drawn(2, 2)
    visible = jnp.tril(jnp.ones((LENGTH, LENGTH), bool))

    def slopes(query, key, value, slope):
        return jax.vjp(lambda q, k, v: attend(q, k, v, visible), query, key, value)[1](slope)

    mapped = jax.jit(jax.vmap(slopes))(*arguments, slope)
    for row in range(ROWS):
        alone = jax.jit(slopes)(*(each[row] for each in (*arguments, slope)))
        for one, other in zip(mapped, alone, strict=True):
            np.testing.assert_allclose(one[row], other, atol=1e-6)


def test_16_bit_arguments_give_16_bit_slopes_near_those_of_32():
    *arguments, slope = drawn(4, 2)
    visible = jnp.broadcast_to(jnp.tril(jnp.ones((LENGTH, LENGTH), bool)), (ROWS, LENGTH, LENGTH))

    def slopes(arguments, slope):
        return jax.vjp(lambda q, k, v: attend(q, k, v, visible), *arguments)[1](slope)

    wide = jax.jit(slopes)(arguments, slope)
    halves = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (arguments, slope))
    for own, other in zip(jax.jit(slopes)(*halves), wide, strict=True):
        assert own.dtype == jnp.bfloat16
        np.testing.assert_allclose(own.astype(jnp.float32), other, atol=0.05)
