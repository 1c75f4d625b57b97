"""Attention in blocks against the plain form: values, gradients, packing, memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synth import blockwise
from synth.attention import attend, causal_mask
from synth.blockwise import attend_in_blocks

ROWS, HEADS, KV_HEADS, SIZE = 2, 6, 2, 8


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blockwise, "LEAST", 8)


def inputs(length, dtype="float32"):
    """Queries, keys, values, and a slope of the output."""
    keys = jax.random.split(jax.random.key(0), 4)
    heads = (HEADS, KV_HEADS, KV_HEADS, HEADS)
    return tuple(
        jax.random.normal(key, (ROWS, number, length, SIZE)).astype(dtype)
        for key, number in zip(keys, heads, strict=True)
    )


def plain(query, key, value, segments=None):
    return attend(query, key, value, causal_mask((ROWS, query.shape[-2]), segments))


def values_and_slopes(attention, query, key, value, slope, segments=None):
    output, pull = jax.vjp(lambda *x: attention(*x, segments), query, key, value)
    return output, *pull(slope)


# One block, blocks of one size, a shorter last block, and so many that blocks must grow.
@pytest.mark.parametrize("length", [8, 16, 21, 100])
@pytest.mark.parametrize("packed", [False, True])
def test_values_and_gradients_are_those_of_the_plain_form(length, packed):
    assert len(blockwise._blocks(length)) == {8: 1, 16: 2, 21: 3, 100: 8}[length]
    segments = None
    if packed:
        ends = jnp.array([[length // 3], [length // 2]])
        segments = (jnp.arange(length)[None] >= ends).astype(int)
    ours, expected = (
        jax.jit(functools.partial(values_and_slopes, form))(*inputs(length), segments)
        for form in (attend_in_blocks, plain)
    )
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.slow  # compiles many shapes
def test_leading_axes_may_be_mapped_or_missing():
    query, key, value, _ = inputs(21)
    together = attend_in_blocks(query, key, value)
    np.testing.assert_allclose(
        jax.vmap(attend_in_blocks)(query, key, value), together, rtol=0, atol=2e-6
    )
    alone = attend_in_blocks(query[0], key[0], value[0])
    np.testing.assert_allclose(alone, together[0], rtol=0, atol=2e-6)


@pytest.mark.slow  # compiles two types
def test_bfloat16_is_near_and_keeps_its_type():
    ours = values_and_slopes(attend_in_blocks, *inputs(21, "bfloat16"))
    exact = values_and_slopes(plain, *inputs(21))
    for one, other in zip(ours, exact, strict=True):
        assert one.dtype == jnp.bfloat16
        error = np.asarray(one, np.float32) - np.asarray(other)
        assert np.linalg.norm(error) < 0.02 * np.linalg.norm(other)


def test_large_scores_do_not_overflow():
    query, key, value, slope = inputs(21)
    for array in values_and_slopes(attend_in_blocks, 1e3 * query, key, value, slope):
        assert np.isfinite(array).all()


def test_no_scores_are_kept_and_those_above_the_diagonal_not_computed():
    length = 128
    shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in inputs(length)]

    def costs(form):
        compiled = jax.jit(functools.partial(values_and_slopes, form)).lower(*shapes).compile()
        memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
        assert memory is not None
        assert cost is not None
        return memory.temp_size_in_bytes, cost["flops"]

    memory, flops = costs(attend_in_blocks)
    plain_memory, plain_flops = costs(plain)
    scores = ROWS * HEADS * length**2 * 4
    assert plain_memory > scores
    assert memory < 0.8 * plain_memory
    # Eight blocks meet 9/16 of the keys; scores are computed twice, seven products for six.
    assert flops < 0.8 * plain_flops
