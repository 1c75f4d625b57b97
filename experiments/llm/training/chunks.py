"""A sum over chunks, whose gradient is computed together with it, chunk by chunk."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Term = Callable[..., Float[Array, ""]]
"""``(shared, own, *constants) -> a scalar``"""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def sum_over_chunks(term: Term, shared: Any, own: Any, constants: Any) -> Float[Array, ""]:
    """Sum of ``term(shared, own[i], *constants[i])`` over i, one after the other.

    The pass that adds up the terms adds up their gradients too. So nothing of a term is kept for
    the backward pass or computed again in it, where it is only multiplied by the sum's slope.

    Args:
      term: of a chunk (static).
      shared: a tree of arrays that all terms share; nothing is computed for the gradient with
        respect to it unless that is asked for.
      own, constants: trees of arrays with the chunks along their first axis; constants, a tuple,
        have no gradient.
    """

    def add(total, chunk):
        return total + term(shared, chunk[0], *chunk[1]), None

    first, rest = _first_and_rest((own, constants))
    return jax.lax.scan(add, term(shared, first[0], *first[1]), rest)[0]


def _forward(term, shared, own, constants):
    is_asked = any(leaf.perturbed for leaf in jax.tree.leaves(shared, is_leaf=_is_primal))
    shared, own, constants = (_values(tree) for tree in (shared, own, constants))
    differentiated = jax.value_and_grad(term, (0, 1) if is_asked else 1)

    def sum_and_slopes(chunk):
        value, slopes = differentiated(shared, chunk[0], *chunk[1])
        return (value, slopes[0], slopes[1]) if is_asked else (value, None, slopes)

    def add(total, chunk):
        *new, to_own = sum_and_slopes(chunk)
        return jax.tree.map(jnp.add, total, tuple(new)), to_own

    # The first chunk starts the scan, as in `experiments.llm.training.step`.
    first, rest = _first_and_rest((own, constants))
    *total, to_first = sum_and_slopes(first)
    (value, to_shared), to_rest = jax.lax.scan(add, tuple(total), rest)
    to_own = jax.tree.map(lambda one, more: jnp.concatenate([one[None], more]), to_first, to_rest)
    return value, (to_shared, to_own)


def _backward(term, slopes, slope):
    del term
    to_shared, to_own = jax.tree.map(lambda leaf: slope.astype(leaf.dtype) * leaf, slopes)
    return to_shared, to_own, None


sum_over_chunks.defvjp(_forward, _backward, symbolic_zeros=True)


def _is_primal(x: Any) -> bool:
    return isinstance(x, jax.custom_derivatives.CustomVJPPrimal)


def _values(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.value, tree, is_leaf=_is_primal)


def _first_and_rest(chunks: Any) -> tuple[Any, Any]:
    return (
        jax.tree.map(lambda leaf: leaf[0], chunks),
        jax.tree.map(lambda leaf: leaf[1:], chunks),
    )
