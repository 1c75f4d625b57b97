"""The decoder against a NumPy reference, decoding with a cache against reading, and positions."""

import dataclasses
import re

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synth import decoder as decoder_module
from synth.cached import read_prompt, read_token, ready_to_decode
from synth.config import DecoderConfig, Execution, Llama3Rope, Lora
from synth.decoder import (
    draw_positions,
    head_kernel,
    hidden_states,
    initialise,
    logits,
    num_parameters,
)
from tests import reference
from tests.golden import regenerate as golden

CONFIGS = golden.CONFIGS
compiled_logits = jax.jit(logits, static_argnums=0)
compiled_prompt = jax.jit(read_prompt, static_argnums=0, static_argnames="capacity")
compiled_token = jax.jit(read_token, static_argnums=0)


@dataclasses.dataclass(frozen=True)
class Case:
    """A decoder whose every parameter matters, one sequence, and its logits."""

    decoder: DecoderConfig
    parameters: dict
    tokens: np.ndarray
    positions: np.ndarray
    logits: np.ndarray


@pytest.fixture(scope="module", params=CONFIGS)
def case(request):
    decoder = CONFIGS[request.param]
    parameters = jax.tree.map(jnp.asarray, golden.weights(decoder, seed=2))
    tokens, positions = golden.inputs(decoder, seed=2)
    scores = compiled_logits(decoder, parameters, tokens, positions)
    return Case(decoder, parameters, tokens, positions, np.asarray(scores))


def test_logits_equal_the_reference(case):
    expected = reference.decoder_logits(case.decoder, case.parameters, case.tokens, case.positions)
    assert case.logits.shape == (golden.LENGTH, case.decoder.vocab_size)
    assert case.logits.dtype == np.float32
    np.testing.assert_allclose(case.logits, expected, rtol=0, atol=1e-4)


def test_every_parameter_matters(case):
    def total(parameters):
        scores = logits(case.decoder, parameters, case.tokens, case.positions)
        return (scores * jnp.cos(jnp.arange(scores.size)).reshape(scores.shape)).sum()

    # LLVM's optimiser would take most of the time.
    compiled = jax.jit(jax.grad(total), compiler_options={"xla_backend_optimization_level": 0})
    gradient = compiled(case.parameters)
    # Even the biases of keys matter: without rotation they would cancel in the softmax.
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        unused_rows = set(range(case.decoder.vocab_size)) - set(case.tokens.tolist())
        if path[-1].key == "embedding" and not case.decoder.tied_head:
            assert not np.asarray(leaf)[sorted(unused_rows)].any()
        else:
            assert np.asarray(leaf).all(), path


@pytest.mark.parametrize("changed", [1, 6, golden.LENGTH - 1])
def test_earlier_logits_do_not_see_a_later_token(case, changed):
    tokens = case.tokens.copy()
    tokens[changed] = (tokens[changed] + 1) % case.decoder.vocab_size
    scores = compiled_logits(case.decoder, case.parameters, tokens, case.positions)
    np.testing.assert_array_equal(scores[:changed], case.logits[:changed])
    assert (np.abs(scores[changed:] - case.logits[changed:]).max(axis=1) > 1e-4).all()


def test_only_differences_of_positions_matter(case):
    shifted = compiled_logits(case.decoder, case.parameters, case.tokens, case.positions + 11)
    np.testing.assert_allclose(shifted, case.logits, rtol=0, atol=1e-4)
    stretched = compiled_logits(case.decoder, case.parameters, case.tokens, 2 * case.positions)
    assert np.abs(stretched - case.logits).max() > 1e-2


@pytest.mark.parametrize("padding", [0, 3])
def test_prompt_then_token_by_token_equals_logits(case, padding):
    decoder, prompt = case.decoder, 4
    # Tokens in the padding must not matter.
    tokens, positions = (
        np.concatenate([np.full(padding, 9, np.int32), array[:prompt]])
        for array in (case.tokens, case.positions)
    )
    scores, cache = compiled_prompt(
        decoder,
        case.parameters,
        tokens,
        positions,
        first=jnp.array(padding),
        capacity=padding + golden.LENGTH + 5,
    )
    by_token = [np.asarray(scores)]
    for i in range(prompt, golden.LENGTH):
        scores, cache = compiled_token(
            decoder,
            case.parameters,
            case.tokens[i],
            case.positions[i],
            cache=cache,
            index=jnp.array(padding + i),
            length=jnp.array(i + 1),
        )
        by_token.append(np.asarray(scores))
    np.testing.assert_allclose(np.stack(by_token), case.logits[prompt - 1 :], rtol=0, atol=1e-4)
    for kept in (*(keys.mT for keys in cache.keys), *cache.values):
        assert kept.shape[-2] == cache.capacity
        assert np.asarray(kept)[..., : padding + golden.LENGTH, :].any(axis=(0, 2)).all()
        assert not np.asarray(kept)[..., padding + golden.LENGTH :, :].any()


def test_rows_with_a_cache_and_unstacked_layers(case):
    """Prompts of several lengths, padded on the left, give the logits that each gives alone."""
    decoder, capacity = case.decoder, golden.LENGTH
    first = np.array([0, 3, 5])
    tokens = np.stack([np.roll(case.tokens, start) for start in first])
    slots = np.arange(capacity)
    positions = np.maximum(slots[None] - first[:, None], 0)
    layers = ready_to_decode(decoder, case.parameters)
    scores, cache = compiled_prompt(
        decoder,
        case.parameters,
        tokens[:, :-1],
        positions[:, :-1],
        first=first,
        capacity=capacity,
    )
    last, _ = compiled_token(
        decoder,
        layers,
        tokens[:, -1],
        positions[:, -1],
        cache=cache,
        index=jnp.array(capacity - 1),
        length=capacity - first,
    )
    for row, start in enumerate(first):
        alone = compiled_logits(
            decoder, case.parameters, tokens[row, start:], slots[: capacity - start]
        )
        np.testing.assert_allclose(scores[row], alone[-2], rtol=0, atol=1e-4)
        np.testing.assert_allclose(last[row], alone[-1], rtol=0, atol=1e-4)


def test_a_prompt_must_fit_into_its_cache(case):
    with pytest.raises(ValueError, match="capacity must be at least the prompt's 12 tokens, got 7"):
        read_prompt(
            case.decoder,
            case.parameters,
            case.tokens,
            case.positions,
            first=jnp.array(0),
            capacity=7,
        )


def test_grouped_query_equals_repeated_heads():
    grouped = CONFIGS["qwen2-grouped"]
    full = dataclasses.replace(grouped, num_kv_heads=grouped.num_heads)
    parameters = golden.weights(grouped)

    def repeat(leaf):
        heads = leaf.reshape(*leaf.shape[:-1], grouped.num_kv_heads, grouped.head_size)
        repeated = heads.repeat(grouped.num_heads // grouped.num_kv_heads, axis=-2)
        return repeated.reshape(*leaf.shape[:-1], -1)

    layers = parameters["layers"]
    repeated = {name: jax.tree.map(repeat, layers[name]) for name in ("key", "value")}
    tokens, positions = golden.inputs(grouped)
    np.testing.assert_allclose(
        compiled_logits(full, {**parameters, "layers": layers | repeated}, tokens, positions),
        compiled_logits(grouped, parameters, tokens, positions),
        rtol=0,
        atol=1e-5,
    )


def test_unrolled_scan_equals_rolled_scan(case):
    other = dataclasses.replace(case.decoder, unroll=not case.decoder.unroll)
    scores = compiled_logits(other, case.parameters, case.tokens, case.positions)
    np.testing.assert_allclose(scores, case.logits, rtol=0, atol=1e-5)


def test_rows_and_vmap_equal_one_by_one():
    decoder = CONFIGS["qwen3"]
    parameters = golden.weights(decoder)
    tokens, positions = (
        np.stack(rows) for rows in zip(*(golden.inputs(decoder, s) for s in range(3)), strict=True)
    )
    mapped = jax.jit(jax.vmap(logits, (None, None, 0, 0)), static_argnums=0)
    for read in (compiled_logits, mapped):
        scores = read(decoder, parameters, tokens, positions)
        for row, ours in enumerate(scores):
            alone = compiled_logits(decoder, parameters, tokens[row], positions[row])
            np.testing.assert_allclose(ours, alone, rtol=0, atol=1e-5)


# Other ways to compute the same logits.


def test_hidden_states_times_head_are_the_logits(case):
    hidden = hidden_states(case.decoder, case.parameters, case.tokens, case.positions)
    assert hidden.shape == (golden.LENGTH, case.decoder.hidden_size)
    scores = hidden @ head_kernel(case.decoder, case.parameters)
    np.testing.assert_allclose(scores, case.logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["qwen2-grouped", "qwen3"])
def test_attention_of_jax_equals_ours(name):
    decoder = CONFIGS[name]
    parameters, (tokens, positions) = golden.weights(decoder), golden.inputs(decoder)
    fused = dataclasses.replace(decoder, execution=Execution(attention="xla"))
    for segments in (None, np.arange(golden.LENGTH) // 5):
        np.testing.assert_allclose(
            compiled_logits(fused, parameters, tokens, positions, segments),
            compiled_logits(decoder, parameters, tokens, positions, segments),
            rtol=0,
            atol=1e-5,
        )


@pytest.mark.parametrize("name", ["qwen2", "llama3-rope"])
def test_bfloat16_differs_by_its_rounding_alone(name):
    decoder = CONFIGS[name]
    parameters, (tokens, positions) = golden.weights(decoder), golden.inputs(decoder)
    half = dataclasses.replace(decoder, execution=Execution(dtype="bfloat16"))
    exact = compiled_logits(decoder, parameters, tokens, positions)
    rounded = compiled_logits(half, parameters, tokens, positions)
    assert rounded.dtype == jnp.float32
    error = np.linalg.norm(np.asarray(rounded - exact)) / np.linalg.norm(np.asarray(exact))
    assert 1e-4 < error < 0.05
    # Parameters stored in bfloat16 need no stated type.
    stored = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), parameters)
    np.testing.assert_array_equal(compiled_logits(decoder, stored, tokens, positions), rounded)


def test_cache_is_of_the_type_of_activations():
    decoder = dataclasses.replace(CONFIGS["qwen2"], execution=Execution(dtype="bfloat16"))
    parameters, (tokens, positions) = golden.weights(decoder), golden.inputs(decoder)
    scores, cache = read_prompt(
        decoder,
        parameters,
        jnp.asarray(tokens),
        jnp.asarray(positions),
        first=jnp.array(0),
        capacity=golden.LENGTH,
    )
    assert {kept.dtype for kept in (*cache.keys, *cache.values)} == {jnp.dtype(jnp.bfloat16)}
    expected = compiled_logits(decoder, parameters, tokens, positions)[-1]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=0.1)
    ready = ready_to_decode(decoder, parameters)
    assert {leaf.dtype for leaf in jax.tree.leaves(ready)} == {jnp.dtype(jnp.bfloat16)}
    step = {
        "cache": cache,
        "index": jnp.array(golden.LENGTH - 1),
        "length": jnp.array(golden.LENGTH),
    }
    last = jnp.asarray(tokens[-1]), jnp.asarray(positions[-1])
    again, _ = read_token(decoder, ready, *last, **step)
    cast_in_the_loop, _ = read_token(decoder, parameters, *last, **step)
    np.testing.assert_array_equal(again, cast_in_the_loop)
    np.testing.assert_allclose(again, expected, rtol=0, atol=0.1)


def test_parameters_of_two_types_need_a_stated_one():
    decoder = CONFIGS["qwen2"]
    parameters = golden.weights(decoder)
    parameters = parameters | {"embedding": jnp.asarray(parameters["embedding"], jnp.bfloat16)}
    with pytest.raises(ValueError, match=re.escape("got ['bfloat16', 'float32']")):
        compiled_logits(decoder, parameters, *golden.inputs(decoder))


@pytest.mark.parametrize("lora", [None, pytest.param(Lora(rank=2), marks=pytest.mark.slow)])
def test_what_is_kept_changes_memory_and_not_the_gradient(lora, monkeypatch):
    """Kept for the backward pass: everything, products, or each layer's input alone."""
    decoder = dataclasses.replace(CONFIGS["qwen2"], num_layers=8, unroll=False, lora=lora)
    parameters = jax.tree.map(jnp.asarray, golden.weights(decoder))

    def compiled(remat, length):
        changed = dataclasses.replace(decoder, execution=Execution(remat=remat))
        tokens = np.arange(length, dtype=np.int32) % 23
        gradient = jax.grad(
            lambda p: jnp.sin(logits(changed, p, jnp.asarray(tokens), jnp.asarray(tokens))).sum()
        )
        return jax.jit(gradient).lower(parameters).compile()

    gradients, memory = [], []
    for remat, keep in (
        (False, jax.checkpoint_policies.everything_saveable),
        (False, decoder_module.KEPT),
        (True, None),
    ):
        monkeypatch.setattr(decoder_module, "KEPT", keep)
        gradients.append(compiled(remat, 8)(parameters))
        analysis = compiled(remat, 256).memory_analysis()
        assert analysis is not None
        memory.append(analysis.temp_size_in_bytes)
    for other in gradients[1:]:
        for ours, theirs in zip(jax.tree.leaves(other), jax.tree.leaves(gradients[0]), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert memory[1] < 0.7 * memory[0]
    assert memory[2] < 0.7 * memory[1]


# Initial parameters.


LARGE = DecoderConfig(2000, hidden_size=64, num_layers=8, intermediate_size=128)


@pytest.fixture(scope="module")
def initial():
    """`initialise` of `LARGE` as a function of the seed, compiled once."""
    compiled = jax.jit(
        lambda key: initialise(LARGE, key), compiler_options={"xla_backend_optimization_level": 0}
    )
    return lambda seed: compiled(jax.random.key(seed))


def test_initial_parameters_depend_on_the_key_alone(initial):
    first, again, other = initial(0), initial(0), initial(1)
    for ours, theirs in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    kernel = np.asarray(first["layers"]["query"]["kernel"])
    # Stacked layers are drawn independently of each other, and so are the projections.
    for twin in (
        other["layers"]["query"]["kernel"],
        first["layers"]["key"]["kernel"],
        np.roll(kernel, 1, axis=0),
    ):
        correlation = np.corrcoef(kernel.ravel(), np.asarray(twin).ravel())[0, 1]
        assert abs(correlation) < 5 / np.sqrt(kernel.size)


def test_initial_scales(initial):
    parameters = initial(0)
    expected = {"query": 1 / 8, "up": 1 / 8, "output": 1 / 32, "down": 1 / 4 / np.sqrt(128)}
    for name, scale in expected.items():
        measured = np.std(np.asarray(parameters["layers"][name]["kernel"]))
        np.testing.assert_allclose(measured, scale, rtol=0.02)
    assert (np.asarray(parameters["norm"]["gain"]) == 1).all()
    assert not np.asarray(parameters["layers"]["query"]["bias"]).any()


def test_switches_decide_which_parameters_there_are():
    shapes = {
        name: jax.eval_shape(lambda decoder=decoder: initialise(decoder, jax.random.key(0)))
        for name, decoder in CONFIGS.items()
    }
    tied = {"qwen2-tied", "llama3-rope"}
    assert {name for name, tree in shapes.items() if "head" not in tree} == tied
    for name, tree in shapes.items():
        layers = tree["layers"]
        assert ("query_norm" in layers) == ("key_norm" in layers) == (name == "qwen3")
        for projection in ("query", "key", "value"):
            assert ("bias" in layers[projection]) == name.startswith("qwen2")
        assert "bias" not in layers["output"]
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(tree))
    # 32 × 23 embedding and head; a layer has 4 × 32² + 3 × 32 for attention, 3 × 32 × 96 for the
    # SwiGLU and 2 × 32 gains.
    toy = jax.eval_shape(lambda: initialise(DecoderConfig(23), jax.random.key(0)))
    layer = 4 * 32 * 32 + 3 * 32 + 3 * 32 * 96 + 2 * 32
    assert num_parameters(toy) == 2 * 32 * 23 + 2 * layer + 32


# Positions.

STUDY = DecoderConfig(23, max_positions=40, position_start=10, position_gap=4)
draw_many = jax.jit(jax.vmap(draw_positions, (None, 0, None)), static_argnums=(0, 2))


@hypothesis.given(seed=st.integers(0, 2**32 - 1), length=st.sampled_from([1, 2, 13, 40]))
def test_randomised_positions_increase_and_do_not_depend_on_length(seed, length):
    keys = jax.random.split(jax.random.key(seed), 8)
    whole = np.asarray(draw_many(STUDY, keys, 40))
    np.testing.assert_array_equal(draw_many(STUDY, keys, length), whole[:, :length])
    gaps = np.diff(whole, axis=1)
    assert gaps.min() >= 1
    assert gaps.max() <= STUDY.position_gap
    assert whole[:, 0].min() >= 0
    assert whole[:, 0].max() < STUDY.position_start


def test_randomised_positions_use_their_whole_range():
    drawn = np.asarray(draw_many(STUDY, jax.random.split(jax.random.key(0), 2000), 40))
    starts = np.bincount(drawn[:, 0], minlength=10)
    assert len(starts) == 10
    np.testing.assert_allclose(starts, 200, atol=5 * np.sqrt(200))
    # The spread is uniform on 1 .. 4 and nearly always seen among 39 gaps.
    spreads = np.bincount(np.diff(drawn, axis=1).max(axis=1), minlength=5)[1:]
    assert len(spreads) == 4
    np.testing.assert_allclose(spreads, 500, atol=5 * np.sqrt(500))


def test_sequential_positions_count_from_zero():
    decoder = dataclasses.replace(STUDY, positions="sequential")
    np.testing.assert_array_equal(draw_positions(decoder, jax.random.key(0), 7), np.arange(7))


@pytest.mark.parametrize("positions", ["sequential", "randomised"])
def test_sequences_beyond_max_positions_are_refused(positions):
    decoder = dataclasses.replace(STUDY, positions=positions)
    assert draw_positions(decoder, jax.random.key(0), 40).shape == (40,)
    with pytest.raises(
        ValueError, match="length must be at most max_positions = 40 tokens, got 41"
    ):
        draw_positions(decoder, jax.random.key(0), 41)


# Configs.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be at least 1, got 0"),
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"position_gap": 0}, "position_gap must be at least 1, got 0"),
        (
            {"num_heads": 4, "num_kv_heads": 3},
            "num_heads must be a multiple of num_kv_heads, got 4 and 3",
        ),
        ({"hidden_size": 30}, "hidden_size must be a multiple of num_heads where head_dim is"),
        ({"head_dim": 7}, "the width of a head must be even, got 7"),
        (
            {"positions": "random"},
            "positions must be one of ('sequential', 'randomised'), got 'random'",
        ),
    ],
)
def test_config_refuses(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        dataclasses.replace(STUDY, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"factor": 0.5}, "must be at least 1, got 0.5 and 128"),
        ({"low_frequency_factor": 4.0}, "below high_frequency_factor, got 4.0 and 4.0"),
    ],
)
def test_llama3_rope_refuses(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        dataclasses.replace(Llama3Rope(8.0, 1.0, 4.0, 128), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "float64"}, "dtype must be None or one of ('float32', 'bfloat16'), got 'float6"),
        ({"attention": "flash"}, "one of ('plain', 'xla', 'cudnn'), got 'flash'"),
    ],
)
def test_execution_refuses(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Execution(**changes)


def test_head_size():
    assert STUDY.head_size == 8
    assert dataclasses.replace(STUDY, head_dim=6, hidden_size=30).head_size == 6
