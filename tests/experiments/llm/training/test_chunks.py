"""A sum over chunks against the sum of all terms: value, gradients, what is left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.llm.training.chunks import sum_over_chunks

WIDTH = 3


def term(shared, own, factor, flag):
    """A scalar that is not linear in anything, from constants of two types."""
    return factor * jnp.where(flag, jnp.sin(own @ shared["kernel"]), 2.0).sum()


def inputs(chunks):
    keys = jax.random.split(jax.random.key(0), 3)
    shared = {"kernel": jax.random.normal(keys[0], (WIDTH, 5))}
    own = jax.random.normal(keys[1], (chunks, 4, WIDTH))
    factors = jax.random.normal(keys[2], (chunks,))
    return shared, own, (factors, jnp.arange(chunks) % 3 != 1)


@pytest.mark.parametrize("chunks", [1, 2, 5])
@pytest.mark.parametrize("scale", [1.0, -2.5])
def test_value_and_gradients_are_those_of_the_plain_sum(chunks, scale):
    shared, own, constants = inputs(chunks)

    def ours(shared, own):
        return scale * sum_over_chunks(term, shared, own, constants)

    def plain(shared, own):
        return scale * jax.vmap(term, (None, 0, 0, 0))(shared, own, *constants).sum()

    np.testing.assert_allclose(ours(shared, own), plain(shared, own), rtol=1e-5)
    for asked in (0, 1, (0, 1)):
        value, slopes = jax.jit(jax.value_and_grad(ours, asked))(shared, own)
        expected, expected_slopes = jax.value_and_grad(plain, asked)(shared, own)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        for one, other in zip(
            jax.tree.leaves(slopes), jax.tree.leaves(expected_slopes), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_it_maps():
    shared, own, constants = inputs(3)
    batch = jnp.stack([own, own + 1])

    def gradient(own):
        return jax.grad(sum_over_chunks, 2)(term, shared, own, constants)

    for row, expected in zip(jax.vmap(gradient)(batch), batch, strict=True):
        np.testing.assert_allclose(row, gradient(expected), rtol=0, atol=1e-5)


def test_a_term_is_computed_once_and_no_gradient_that_nobody_asks_for():
    shared, own, constants = inputs(5)

    def products(asked):
        gradient = jax.grad(sum_over_chunks, asked)
        return str(jax.make_jaxpr(gradient, static_argnums=0)(term, shared, own, constants)).count(
            "dot_general"
        )

    # The first chunk and the scan over the others each have the term's product, and one more for
    # each gradient.
    assert products((1, 2)) == 2 * 3
    assert products(2) == 2 * 2
