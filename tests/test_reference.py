"""Reference versions against a second source, if there is one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from synth.finetune import epoch_order
from tests import reference


def test_adamw_with_clipping_agrees_with_optax():
    random = np.random.RandomState(0)
    parameters = {"a": random.standard_normal(5), "b": random.standard_normal((2, 3))}
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(0.1, b2=0.98, weight_decay=0.3)
    )
    theirs = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), parameters)
    with jax.numpy_dtype_promotion("standard"):
        state = optimiser.init(theirs)
    moments = {
        name: (np.zeros_like(leaf), np.zeros_like(leaf)) for name, leaf in parameters.items()
    }
    # The second gradient is long enough to be clipped, the others are not.
    for step, size in enumerate((0.1, 5.0, 0.2), start=1):
        gradients = {
            name: size * random.standard_normal(leaf.shape) for name, leaf in parameters.items()
        }
        clipped = reference.clip_by_global_norm(gradients, 1.0)
        for name in parameters:
            first, second = moments[name]
            parameters[name], first, second = reference.adamw(
                parameters[name],
                clipped[name],
                first,
                second,
                step,
                learning_rate=0.1,
                b2=0.98,
                weight_decay=0.3,
            )
            moments[name] = first, second
        with jax.numpy_dtype_promotion("standard"):
            update, state = optimiser.update(
                jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), gradients), state, theirs
            )
            theirs = optax.apply_updates(theirs, update)
    for ours, leaf in zip(parameters.values(), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(leaf, ours, rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_examples", [1, 5, 8])
def test_epochs_of_epoch_order_are_permutations_that_differ(num_examples):
    order = epoch_order(jax.random.key(0), jnp.array(num_examples), 8, 43)
    *whole, last = reference.epochs(np.asarray(order), num_examples)
    assert len(whole) == (43 - 1) // num_examples
    assert all(sorted(epoch) == sorted(whole[0]) for epoch in whole)
    assert sorted(whole[0]) == list(range(num_examples))
    assert len(set(last)) == len(last) <= num_examples
    # There are 40,320 orders of 8 rows, so five shuffles are distinct.
    if num_examples == 8:
        assert len({tuple(epoch) for epoch in whole}) == len(whole) == 5


def test_interpreter_refuses_what_is_not_a_chain():
    for problem in (
        "a = 1 ; ? a",
        "| a = 1 ; a = 2 ; ? a :",
        "| a = 1 ; b = 2 ; c = a + b ; ? c :",
    ):
        with pytest.raises(ValueError, match=r"between|not a definition|not unique"):
            reference.solve_chain(problem, 5)
