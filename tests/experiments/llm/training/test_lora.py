"""Adapters change nothing at first, are trained alone, and are merged without changing outputs."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.llm.training import lora
from experiments.storage import checkpoint
from synth.config import DecoderConfig, Execution, Lora
from synth.decoder import initialise, logits
from tests.golden import regenerate as golden

DECODER = golden.CONFIGS["qwen2"]
SETTINGS = Lora(rank=3, alpha=6.0, kernels=("query", "value", "down"))
compiled_logits = jax.jit(logits, static_argnums=0)


@pytest.fixture(scope="module")
def base():
    return jax.tree.map(jnp.asarray, golden.weights(DECODER))


@pytest.fixture(scope="module")
def attached(base):
    return lora.attach(DECODER, base, SETTINGS, jax.random.key(0))


@pytest.fixture(scope="module")
def trained(attached):
    """Adapters away from zero, as after training."""
    frozen, adapters = lora.split(attached[1])
    moved = jax.tree.map(
        lambda leaf: leaf + jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), adapters
    )
    return lora.join(frozen, moved)


def scores_of(decoder, parameters):
    return np.asarray(compiled_logits(decoder, parameters, *golden.inputs(DECODER)))


def test_new_adapters_change_nothing(base, attached):
    np.testing.assert_array_equal(scores_of(*attached), scores_of(DECODER, base))


def test_adapters_have_the_layout_of_the_decoder(attached):
    decoder, parameters = attached
    shapes = jax.eval_shape(lambda: initialise(decoder, jax.random.key(0)))
    assert jax.tree.structure(parameters) == jax.tree.structure(shapes)
    assert [leaf.shape for leaf in jax.tree.leaves(parameters)] == [
        leaf.shape for leaf in jax.tree.leaves(shapes)
    ]
    layers = parameters["layers"]
    assert {name for name in layers if "lora_a" in layers[name]} == set(SETTINGS.kernels)
    assert layers["down"]["lora_a"].shape == (2, 24, 3)
    assert layers["down"]["lora_b"].shape == (2, 3, 16)


def test_live_output_is_the_definition(trained):
    """One kernel computed by hand: ``kernel + alpha / rank · a @ b``, in float64."""
    layer = trained["layers"]["query"]
    kernel, a, b = (np.asarray(layer[name], np.float64) for name in ("kernel", "lora_a", "lora_b"))
    merged = lora.merge(dataclasses.replace(DECODER, lora=SETTINGS), trained)[1]
    for number in range(DECODER.num_layers):
        expected = kernel[number] + 6.0 / 3.0 * a[number] @ b[number]
        np.testing.assert_allclose(
            merged["layers"]["query"]["kernel"][number], expected, rtol=1e-5, atol=1e-5
        )


def test_merged_equals_live(base, attached, trained):
    live = scores_of(attached[0], trained)
    decoder, merged = lora.merge(attached[0], trained)
    assert decoder == DECODER
    assert jax.tree.structure(merged) == jax.tree.structure(base)
    np.testing.assert_allclose(scores_of(decoder, merged), live, rtol=0, atol=1e-4)
    assert np.abs(live - scores_of(DECODER, base)).max() > 0.1
    np.testing.assert_array_equal(merged["layers"]["up"]["kernel"], base["layers"]["up"]["kernel"])


def test_split_and_join_are_inverse(base, trained):
    frozen, adapters = lora.split(trained)
    assert jax.tree.structure(frozen) == jax.tree.structure(base)
    assert set(adapters["layers"]) == set(SETTINGS.kernels)
    again = lora.join(frozen, adapters)
    assert jax.tree.structure(again) == jax.tree.structure(trained)
    jax.tree.map(np.testing.assert_array_equal, again, trained)


@functools.partial(jax.jit, static_argnums=0)
def gradient_of_adapters(decoder, frozen, adapters):
    def total(adapters):
        scores = logits(
            decoder, lora.join(frozen, adapters), *map(jnp.asarray, golden.inputs(DECODER))
        )
        return jnp.sin(scores).sum()

    return jax.grad(total)(adapters)


@pytest.mark.parametrize("base_dtype", ["float32", "bfloat16"])
def test_adapters_are_trained_alone(base, base_dtype):
    """The base keeps its 16 bits; gradients are float32, and at first zero for `a` alone."""
    stored = jax.tree.map(lambda leaf: leaf.astype(base_dtype), base)
    decoder, parameters = lora.attach(DECODER, stored, SETTINGS, jax.random.key(0))
    decoder = dataclasses.replace(decoder, execution=Execution(dtype=base_dtype))
    frozen, adapters = lora.split(parameters)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(frozen)} == {base_dtype}
    gradient = gradient_of_adapters(decoder, frozen, adapters)
    assert jax.tree.structure(gradient) == jax.tree.structure(adapters)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert leaf.dtype == jnp.float32
        assert np.asarray(leaf).any() == (path[-1].key == "lora_b")


def test_type_of_activations_must_be_stated_where_parameters_have_two(base):
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), base)
    decoder, parameters = lora.attach(DECODER, half, SETTINGS, jax.random.key(0))
    message = "execution must state a dtype where parameters have several, got ['bfloat16', 'float"
    with pytest.raises(ValueError, match=re.escape(message)):
        compiled_logits(decoder, parameters, *golden.inputs(DECODER))


def test_an_adapter_does_not_depend_on_the_others(base, attached):
    alone = lora.attach(
        DECODER, base, dataclasses.replace(SETTINGS, kernels=("value",)), jax.random.key(0)
    )[1]
    for leaf in lora.LEAVES:
        np.testing.assert_array_equal(
            alone["layers"]["value"][leaf], attached[1]["layers"]["value"][leaf]
        )
    pairs = [attached[1]["layers"][name]["lora_a"] for name in ("query", "value")]
    assert not np.array_equal(*pairs)


def test_scale_of_a_is_that_of_the_inputs():
    decoder = DecoderConfig(7, 64, 128, num_layers=3)
    base = initialise(decoder, jax.random.key(0))
    _, parameters = lora.attach(decoder, base, Lora(rank=32), jax.random.key(1))
    for name, inputs in (("query", 64), ("down", 128)):
        deviation = np.std(np.asarray(parameters["layers"][name]["lora_a"]))
        np.testing.assert_allclose(deviation, inputs**-0.5, rtol=0.05)
        assert not np.asarray(parameters["layers"][name]["lora_b"]).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"alpha": 0.0}, "alpha must be positive, got 0.0"),
        ({"kernels": ()}, "kernels must be some of ('query', 'key', 'value', 'output', 'gate',"),
        ({"kernels": ("head",)}, "got ('head',)"),
    ],
)
def test_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Lora(**changes)


def test_misuse_is_refused(base, attached, tmp_path):
    decoder, parameters = attached
    with pytest.raises(ValueError, match="decoder must have no adapters yet"):
        lora.attach(decoder, parameters, SETTINGS, jax.random.key(0))
    with pytest.raises(ValueError, match="decoder must have adapters to merge"):
        lora.merge(DECODER, base)
    with pytest.raises(ValueError, match="lora must be merged into the kernels first"):
        checkpoint.save(tmp_path / "new", decoder, parameters)
