"""Decoding and gradients against stored numbers of `transformers`; live in `test_parity`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import checkpoint
from experiments.llm.loss import loss_sums
from synth.generate import generate_batch, prompt_batches
from tests.golden import regenerate as golden


@pytest.fixture(scope="module")
def stored():
    return np.load(golden.FILE)


@pytest.mark.parametrize("name", golden.GREEDY)
def test_greedy_decoding_of_20_prompts_in_one_batch(name, stored):
    config = golden.CONFIGS[name]
    expected = stored[f"greedy {name}"]
    (batch,) = prompt_batches(golden.prompts(config), batch_size=20, multiple=48)
    decode = jax.jit(generate_batch, static_argnums=0, static_argnames=("max_new_tokens", "stop"))
    found, lengths = decode(
        config,
        jax.tree.map(jnp.asarray, golden.weights(config)),
        batch.prompts,
        batch.lengths,
        max_new_tokens=golden.NEW_TOKENS,
        stop=golden.STOP,
    )
    for row, tokens, length in zip(batch.rows, found, lengths, strict=True):
        new = expected[row]
        assert tokens[:length].tolist() == new[new >= 0].tolist()
    assert 0 < (expected[:, -1] < 0).sum() < 20


def test_gradient_of_the_sft_loss(stored, tmp_path):
    """Every parameter's gradient, through the names of the files."""
    config = golden.CONFIGS[golden.GRADIENT]
    tokens, loss_mask = golden.examples(config)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)

    @jax.jit
    @jax.grad
    def gradient(parameters):
        arrays = (jnp.asarray(tokens), positions, jnp.asarray(loss_mask))
        total, weight = loss_sums(config, parameters, *arrays, "sft", chunk_tokens=10)
        return total.sum() / weight.sum()

    parameters = jax.tree.map(jnp.asarray, golden.weights(config))
    checkpoint.save(tmp_path / "gradient", config, gradient(parameters))
    ours = load_file(tmp_path / "gradient" / "model.safetensors")
    assert {f"gradient {name}" for name in ours} == {
        name for name in stored.files if name.startswith("gradient")
    }
    for name, found in ours.items():
        expected = stored[f"gradient {name}"]
        assert np.linalg.norm(expected) > 0
        assert np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(expected), name
