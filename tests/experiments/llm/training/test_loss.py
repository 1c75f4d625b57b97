"""The chunked loss against the plain one, its gradients against closed forms, packing."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.llm.training.loss import label_log_probability, loss_sums
from synth.config import Execution
from synth.decoder import hidden_states, logits
from synth.finetune import token_losses
from tests.golden import regenerate as golden

DECODER = dataclasses.replace(golden.CONFIGS["qwen2"], unroll=False)
TIED = golden.CONFIGS["llama3-rope"]
LENGTH = 12
STATIC = {"static_argnums": (0, 5), "static_argnames": "chunk_tokens"}
sums = jax.jit(loss_sums, **STATIC)
gradient_of_sums = jax.jit(jax.value_and_grad(loss_sums, argnums=1, has_aux=True), **STATIC)


def weights(decoder):
    return jax.tree.map(jnp.asarray, golden.weights(decoder))


def sequence(seed=0):
    """Tokens, positions, and a mask that has both values."""
    tokens, positions = golden.inputs(DECODER, seed)
    mask = np.random.RandomState(seed + 9).rand(LENGTH) < 0.6
    return jnp.asarray(tokens), jnp.asarray(positions), jnp.asarray(mask)


@pytest.mark.parametrize(
    ("decoder", "loss"),
    [(DECODER, "sft"), (DECODER, "dft"), (TIED, "sft")],
    ids=["sft", "dft", "tied"],
)
@pytest.mark.parametrize("chunk_tokens", [5, pytest.param(512, marks=pytest.mark.slow)])
def test_chunked_equals_unchunked(decoder, loss, chunk_tokens):
    tokens, positions, mask = sequence()
    parameters = weights(decoder)

    @jax.jit
    @jax.value_and_grad
    def plain(parameters):
        losses = token_losses(decoder, parameters, tokens, positions, loss)
        return (losses * mask[1:].astype(jnp.float32)).sum()

    expected, expected_gradient = plain(parameters)
    (total, weight), gradient = gradient_of_sums(
        decoder, parameters, tokens, positions, mask, loss, chunk_tokens=chunk_tokens
    )
    assert float(weight) == int(mask[1:].sum())
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    for ours, theirs in zip(
        jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * np.abs(theirs).max() + 1e-6)


@pytest.mark.parametrize("loss", ["sft", "dft"])
def test_gradient_of_the_head_equals_the_closed_form(loss):
    """Σ over tokens of ``h ⊗ (softmax − onehot)``, for DFT times the probability of the label."""
    tokens, positions, mask = sequence()
    parameters = weights(DECODER)
    hidden = np.asarray(hidden_states(DECODER, parameters, tokens, positions), np.float64)
    scores = hidden @ np.asarray(parameters["head"], np.float64)
    expected = np.zeros((DECODER.hidden_size, DECODER.vocab_size))
    for place in range(LENGTH - 1):
        if mask[place + 1]:
            label = int(tokens[place + 1])
            probability = np.exp(scores[place] - scores[place].max())
            probability /= probability.sum()
            factor = probability[label] if loss == "dft" else 1.0
            error = probability.copy()
            error[label] -= 1
            expected += factor * np.outer(hidden[place], error)
    _, gradient = gradient_of_sums(
        DECODER, parameters, tokens, positions, mask, loss, chunk_tokens=5
    )
    np.testing.assert_allclose(gradient["head"], expected, rtol=0, atol=1e-5)


def packed():
    """Three sequences, and the same three in one row with padding behind."""
    parts = [sequence(seed) for seed in range(3)]
    parts = [
        tuple(array[:size] for array in part) for part, size in zip(parts, (5, 9, 7), strict=True)
    ]
    rows = [jnp.pad(jnp.concatenate(arrays), (0, 3)) for arrays in zip(*parts, strict=True)]
    segments = jnp.repeat(jnp.arange(4), jnp.array([5, 9, 7, 3]), total_repeat_length=24)
    return parts, rows, segments


@pytest.mark.parametrize("attention", ["plain", "xla"])
def test_packed_equals_separate(attention):
    decoder = dataclasses.replace(DECODER, execution=Execution(attention=attention))
    parameters = weights(decoder)
    parts, (tokens, positions, mask), segments = packed()
    read = jax.jit(logits, static_argnums=0)
    together = read(decoder, parameters, tokens, positions, segments)
    unmasked = read(decoder, parameters, tokens, positions)
    start, total, count = 0, 0.0, 0.0
    for part in parts:
        alone = read(decoder, parameters, *part[:2])
        end = start + len(alone)
        np.testing.assert_allclose(together[start:end], alone, rtol=0, atol=1e-5)
        assert (np.abs(unmasked[start:end] - alone).max() > 0.1) == (start > 0)
        loss, weight = sums(decoder, parameters, *part, "sft", chunk_tokens=5)
        start, total, count = end, total + loss, count + weight
    # The mask holds the first token of a packed sequence, which must not count.
    assert mask[jnp.array([5, 14])].any()
    loss, weight = sums(
        decoder, parameters, tokens, positions, mask, "sft", segments=segments, chunk_tokens=5
    )
    assert weight == count
    np.testing.assert_allclose(loss, total, rtol=1e-5)


@pytest.mark.parametrize("chunk_tokens", [5, 512])
def test_rows_at_once_are_each_alone(chunk_tokens):
    """Loss, number of tokens and gradient are the sums of those of each row alone."""
    parameters = weights(DECODER)
    rows = [sequence(seed) for seed in range(3)]
    tokens, positions, mask = (jnp.stack(arrays) for arrays in zip(*rows, strict=True))

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def total(parameters):
        return loss_sums(
            DECODER, parameters, tokens, positions, mask, "sft", chunk_tokens=chunk_tokens
        )

    (loss, count), gradient = total(parameters)
    parts = [gradient_of_sums(DECODER, parameters, *row, "sft") for row in rows]
    np.testing.assert_allclose(loss, sum(loss for (loss, _), _ in parts), rtol=1e-6)
    assert count == sum(count for (_, count), _ in parts)
    expected = jax.tree.map(lambda *leaves: sum(leaves), *(part for _, part in parts))
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max() + 2e-6)


def test_derivative_of_the_label_is_that_of_a_gather():
    scores = 3 * jax.random.normal(jax.random.key(0), (4, 5, 7))
    labels = jax.random.randint(jax.random.key(1), (4, 5), 0, 7)

    def gathered(scores, labels):
        chosen = jnp.take_along_axis(jax.nn.log_softmax(scores), labels[..., None], axis=-1)
        return chosen[..., 0]

    for scale in (1.0, 100.0):
        (value, slope), (expected, expected_slope) = (
            jax.value_and_grad(lambda scores, f=f: jnp.sin(f(scores, labels)).sum())(scale * scores)
            for f in (label_log_probability, gathered)
        )
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-4)
        np.testing.assert_allclose(slope, expected_slope, rtol=0, atol=scale * 1e-6)


def test_bfloat16_activations_over_float32_parameters():
    half = dataclasses.replace(DECODER, execution=Execution(dtype="bfloat16", remat=True))
    parameters = weights(DECODER)
    tokens, positions, mask = sequence()
    (expected, _), exact = gradient_of_sums(DECODER, parameters, tokens, positions, mask, "sft")
    (total, _), gradient = gradient_of_sums(half, parameters, tokens, positions, mask, "sft")
    assert total.dtype == jnp.float32
    np.testing.assert_allclose(total, expected, rtol=0.02)
    assert total != expected
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(exact), strict=True):
        assert ours.dtype == jnp.float32
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        assert np.linalg.norm(ours - theirs) < 0.2 * np.linalg.norm(theirs)


def test_logits_of_one_chunk_at_a_time_are_in_memory():
    """Memory of the compiled program: logits of all tokens would be 16 times those of a chunk."""
    decoder = dataclasses.replace(DECODER, vocab_size=4096)
    shapes = jax.eval_shape(lambda: golden.weights(decoder))
    row = jax.ShapeDtypeStruct((1024,), jnp.int32)
    mask = jax.ShapeDtypeStruct((1024,), jnp.bool_)

    def temporary(chunk_tokens):
        lowered = gradient_of_sums.lower(
            decoder, shapes, row, row, mask, "sft", chunk_tokens=chunk_tokens
        )
        analysis = lowered.compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    # The logits of the row are 16 MB; other temporaries share some of that memory.
    assert temporary(1024) - temporary(64) > 0.4 * 1024 * 4096 * 4


def test_chunk_is_refused():
    with pytest.raises(ValueError, match=re.escape("chunk_tokens must be at least 1, got 0")):
        loss_sums(DECODER, weights(DECODER), *sequence(), "sft", chunk_tokens=0)
