"""Decoding and gradients against stored numbers of `transformers`; live in `test_parity`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.experiments.llm.agree import check_gradient, check_greedy
from tests.golden import regenerate as golden


@pytest.fixture(scope="module")
def stored():
    return np.load(golden.FILE)


@pytest.mark.parametrize("name", golden.GREEDY)
def test_greedy_decoding_of_20_prompts_in_one_batch(name, stored):
    decoder = golden.CONFIGS[name]
    parameters = jax.tree.map(jnp.asarray, golden.weights(decoder))
    expected = stored[f"greedy {name}"]
    assert expected.shape == (20, golden.NEW_TOKENS)
    check_greedy(decoder, parameters, golden.prompts(decoder), expected, golden.STOP)


def test_gradient_of_the_sft_loss(stored, tmp_path):
    decoder = golden.CONFIGS[golden.GRADIENT]
    parameters = jax.tree.map(jnp.asarray, golden.weights(decoder))
    expected = {
        name.removeprefix("gradient "): stored[name]
        for name in stored.files
        if name.startswith("gradient ")
    }
    check_gradient(
        decoder,
        parameters,
        *golden.examples(decoder),
        expected,
        tmp_path / "gradient",
        chunk_tokens=10,
    )
