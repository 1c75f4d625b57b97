"""Fine-tuning against NumPy, mapped against single runs, and the order of examples."""

import dataclasses
import functools
import math
import re

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.sharding import AxisType, PartitionSpec

from synth import finetune as module
from synth.config import DecoderConfig, FinetuneConfig, Optimiser
from synth.decoder import draw_positions, initialise, logits
from synth.finetune import (
    Stratum,
    TrainingData,
    epoch_order,
    finetune,
    loss_and_gradient,
    num_parts,
    pretrain,
    token_losses,
)
from synth.task import PADDING
from tests import reference

DECODER = DecoderConfig(
    vocab_size=6,
    hidden_size=8,
    intermediate_size=12,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    max_positions=16,
    position_start=4,
    position_gap=2,
)
CONFIG = FinetuneConfig(6, 1e-2, optimiser=Optimiser(batch_size=4))
NUM_ROWS, LENGTH, MEMBERS = 10, 8, 4
ROWS_IN_EPOCHS, NUM_DRAWS = 8, 20

traces = []


@functools.partial(jax.jit, static_argnums=0)
def train(decoder, base, data, config, key):
    traces.append(config)
    return finetune(decoder, base, data, config, key)


order_of = jax.jit(epoch_order, static_argnums=(2, 3))


@pytest.fixture(scope="module")
def base():
    return initialise(DECODER, jax.random.key(0))


@pytest.fixture(scope="module")
def data():
    """Rows of several lengths: three prompt tokens, a solution, padding."""
    generator = np.random.default_rng(0)
    tokens = generator.integers(1, DECODER.vocab_size, (NUM_ROWS, LENGTH)).astype(np.int32)
    end = generator.integers(5, LENGTH + 1, (NUM_ROWS, 1))
    index = np.arange(LENGTH)[None]
    tokens = np.where(index < end, tokens, PADDING)
    return TrainingData(
        jnp.asarray(tokens), jnp.asarray((index >= 3) & (index < end)), jnp.int32(7)
    )


@pytest.fixture(scope="module")
def result(base, data):
    return train(DECODER, base, data, CONFIG, jax.random.key(1))


def leaves(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def assert_close(actual, expected, *, atol):
    expected = leaves(expected)
    for name, leaf in leaves(actual).items():
        np.testing.assert_allclose(leaf, expected[name], rtol=0, atol=atol, err_msg=name)


def assert_equal(actual, expected):
    expected = leaves(expected)
    for name, leaf in leaves(actual).items():
        np.testing.assert_array_equal(leaf, expected[name], err_msg=name)


# One member.


def test_result_depends_on_the_arguments_alone(base, data, result):
    before = jax.tree.map(np.array, base)
    assert_equal(train(DECODER, base, data, CONFIG, jax.random.key(1)), result)
    assert_equal(base, before)
    moved = [np.abs(a - b).max() for a, b in zip(*map(leaf_list, (result[0], base)), strict=True)]
    assert min(moved) > 0
    other, _ = train(DECODER, base, data, CONFIG, jax.random.key(2))
    assert np.abs(other["head"] - result[0]["head"]).max() > 1e-4
    assert result[1].shape == (CONFIG.steps,)


def leaf_list(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def test_padding_changes_nothing(base, data, result):
    wider = dataclasses.replace(
        data,
        tokens=jnp.pad(data.tokens, ((0, 0), (0, 5)), constant_values=PADDING),
        loss_mask=jnp.pad(data.loss_mask, ((0, 0), (0, 5))),
    )
    assert_close(train(DECODER, base, wider, CONFIG, jax.random.key(1)), result, atol=1e-4)


def test_rows_beyond_num_examples_never_matter(base, data, result):
    outside = jnp.arange(NUM_ROWS)[:, None] >= data.num_examples
    garbage = dataclasses.replace(
        data,
        tokens=jnp.where(outside, 5 - data.tokens % 5, data.tokens),
        loss_mask=data.loss_mask ^ outside,
    )
    assert_equal(train(DECODER, base, garbage, CONFIG, jax.random.key(1)), result)
    inside = dataclasses.replace(data, tokens=data.tokens.at[0, 3].set(5 - data.tokens[0, 3]))
    changed, _ = train(DECODER, base, inside, CONFIG, jax.random.key(1))
    assert np.abs(changed["head"] - result[0]["head"]).max() > 0


def test_tokens_after_the_solution_never_matter(base, data, result):
    after = (data.tokens == PADDING) & ~data.loss_mask
    assert after.any()
    changed = dataclasses.replace(data, tokens=jnp.where(after, 5, data.tokens))
    assert_equal(train(DECODER, base, changed, CONFIG, jax.random.key(1)), result)


def test_one_trace_serves_all_sizes_and_learning_rates(base, data, result):
    before, distinct = len(traces), set()
    for size in (1, 7, NUM_ROWS):
        for rate in (1e-3, CONFIG.learning_rate):
            config = dataclasses.replace(CONFIG, learning_rate=rate)
            member = dataclasses.replace(data, num_examples=jnp.int32(size))
            losses = train(DECODER, base, member, config, jax.random.key(1))[1]
            distinct.add(tuple(np.asarray(losses).tolist()))
    assert len(traces) == before > 0
    assert len(distinct) == 6
    assert tuple(np.asarray(result[1]).tolist()) in distinct


def test_too_large_a_learning_rate_shows_as_values_that_are_not_finite(base, data, result):
    config = dataclasses.replace(CONFIG, learning_rate=1e30)
    broken = train(DECODER, base, data, config, jax.random.key(1))
    assert not all(np.isfinite(leaf).all() for leaf in leaf_list(broken))
    assert all(np.isfinite(leaf).all() for leaf in leaf_list(result))


# Many members.


def sharded(num_devices):
    mesh = jax.make_mesh(
        (num_devices,),
        ("members",),
        axis_types=(AxisType.Auto,),
        devices=jax.devices()[:num_devices],
    )
    spec = PartitionSpec("members")

    def over_devices(function):
        return jax.shard_map(
            lambda arguments: jax.lax.map(function, arguments),
            mesh=mesh,
            in_specs=(spec,),
            out_specs=spec,
            check_vma=False,
        )

    return over_devices


@pytest.mark.parametrize(
    "mapping",
    [
        pytest.param(jax.vmap, marks=pytest.mark.slow),
        lambda function: lambda arguments: jax.lax.map(function, arguments),
        sharded(1),
        sharded(2),
    ],
    ids=["vmap", "map", "one device", "two devices"],
)
def test_mapped_members_equal_single_runs(mapping, data):
    bases = jax.vmap(lambda key: initialise(DECODER, key))(
        jax.random.split(jax.random.key(3), MEMBERS)
    )
    sizes = jnp.array([1, 4, 7, NUM_ROWS], jnp.int32)
    rates = jnp.array([1e-3, 3e-3, 1e-2, 2e-2], jnp.float32)
    keys = jax.random.key_data(jax.random.split(jax.random.key(4), MEMBERS))

    def member(arguments):
        base, size, rate, key = arguments
        config = dataclasses.replace(CONFIG, learning_rate=rate)
        own = dataclasses.replace(data, num_examples=size)
        return finetune(DECODER, base, own, config, jax.random.wrap_key_data(key))

    trained = jax.jit(mapping(member))((bases, sizes, rates, keys))
    for index in range(MEMBERS):
        arguments = jax.tree.map(lambda leaf, index=index: leaf[index], (bases, sizes, rates, keys))
        single = train(
            DECODER,
            arguments[0],
            dataclasses.replace(data, num_examples=arguments[1]),
            # A Python float, as in the other runs, so that all share one program.
            dataclasses.replace(CONFIG, learning_rate=float(arguments[2])),
            jax.random.wrap_key_data(arguments[3]),
        )
        assert_close(
            jax.tree.map(lambda leaf, index=index: leaf[index], trained), single, atol=2e-4
        )


# The optimiser and the loss, against NumPy.


@pytest.mark.parametrize(
    "config",
    [
        FinetuneConfig(6, 1e-2, "sft", Optimiser(4, "cosine", 0.3, 0.1, b2=0.95, clip=0.5)),
        FinetuneConfig(6, 1e-2, "dft", Optimiser(4, "constant", 0.0, clip=1e3)),
    ],
    ids=lambda config: config.optimiser.schedule,
)
def test_steps_equal_the_reference(config, base, data):
    key = jax.random.key(5)
    trained, losses = train(DECODER, base, data, config, key)

    key_order, key_positions = jax.random.split(key)
    order = np.asarray(
        order_of(key_order, data.num_examples, NUM_ROWS, config.steps * config.optimiser.batch_size)
    ).reshape(config.steps, config.optimiser.batch_size)
    gradient_of = jax.jit(loss_and_gradient, static_argnums=(0, 4))
    warmup = math.ceil(config.optimiser.warmup * config.steps)
    parameters = {name: leaf.astype(np.float64) for name, leaf in leaves(base).items()}
    first = {name: np.zeros_like(leaf) for name, leaf in parameters.items()}
    second = {name: np.zeros_like(leaf) for name, leaf in parameters.items()}
    structure, clipped_steps = jax.tree.structure(base), 0
    for step, rows in enumerate(order):
        tree = jax.tree.unflatten(structure, [jnp.float32(leaf) for leaf in parameters.values()])
        loss, gradient = gradient_of(
            DECODER,
            tree,
            [(data.tokens[rows], data.loss_mask[rows])],
            jax.random.fold_in(key_positions, step),
            config.loss,
        )
        np.testing.assert_allclose(losses[step], loss, rtol=1e-4)
        raw = {name: leaf.astype(np.float64) for name, leaf in leaves(gradient).items()}
        gradients = reference.clip_by_global_norm(raw, config.optimiser.clip)
        clipped_steps += any((gradients[name] != raw[name]).any() for name in raw)
        rate = config.learning_rate
        if step < warmup:
            rate *= (step + 1) / (warmup + 1)
        elif config.optimiser.schedule == "cosine":
            share = (step - warmup) / (config.steps - warmup)
            rate *= 0.5 * (1 + math.cos(math.pi * share))
        for name in parameters:
            parameters[name], first[name], second[name] = reference.adamw(
                parameters[name],
                gradients[name],
                first[name],
                second[name],
                step + 1,
                learning_rate=rate,
                b2=config.optimiser.b2,
                weight_decay=config.optimiser.weight_decay,
            )
    assert clipped_steps == (config.steps if config.optimiser.clip < 1 else 0)
    for name in ("embedding", "head", "norm/gain", "layers/query/kernel", "layers/down/kernel"):
        # Leave out gradients that are nearly zero, as rounding decides their sign.
        settled = np.sqrt(second[name]) > 1e-5
        assert settled.mean() > 0.5
        moved = np.abs(parameters[name] - leaves(base)[name])
        assert moved[settled].max() > 5e-3
        np.testing.assert_allclose(
            leaves(trained)[name][settled],
            parameters[name][settled],
            rtol=0,
            atol=1e-4,
            err_msg=name,
        )


@pytest.mark.parametrize("loss", ["sft", "dft"])
def test_the_loss_of_a_batch_is_the_mean_over_solution_tokens(loss, base, data):
    key = jax.random.key(6)
    tokens, loss_mask = np.asarray(data.tokens[:3]), np.asarray(data.loss_mask[:3])
    jitted = jax.jit(loss_and_gradient, static_argnums=(0, 4))
    mean, _ = jitted(DECODER, base, [(tokens, loss_mask)], key, loss)
    total, count = 0.0, 0
    for row, mask, row_key in zip(tokens, loss_mask, jax.random.split(key, 3), strict=True):
        positions = np.asarray(draw_positions(DECODER, row_key, LENGTH))
        scores = reference.decoder_logits(DECODER, base, row, positions)
        for place in range(1, LENGTH):
            if mask[place]:
                exponentials = np.exp(scores[place - 1])
                probability = exponentials[row[place]] / exponentials.sum()
                total -= math.log(probability) * (probability if loss == "dft" else 1.0)
                count += 1
    assert count == loss_mask.sum() > 3
    np.testing.assert_allclose(mean, total / count, rtol=1e-4)


@pytest.mark.parametrize(("cached_rows", "parts"), [(6, 1), (3, 2), (2, 3), (1, 6), (0, 6)])
def test_a_batch_in_parts_has_the_loss_and_gradient_of_the_whole(
    cached_rows, parts, base, data, monkeypatch
):
    key, rows = jax.random.key(7), 6
    batch = DECODER, base, [(data.tokens[:rows], data.loss_mask[:rows])], key, "sft"
    # Rows with different numbers of solution tokens: a mean of the parts' means would differ.
    assert len(set(np.asarray(data.loss_mask[:rows].sum(axis=1)))) > 1
    monkeypatch.setattr(module, "num_parts", lambda *_: 1)
    whole = jax.jit(lambda: loss_and_gradient(*batch))()
    monkeypatch.setattr(module, "num_parts", num_parts)
    widest = max(DECODER.intermediate_size, DECODER.vocab_size)
    monkeypatch.setattr(module, "CACHED_BYTES", cached_rows * 4 * (LENGTH - 1) * widest)
    assert num_parts(DECODER, rows, LENGTH - 1) == parts
    assert_close(jax.jit(lambda: loss_and_gradient(*batch))(), whole, atol=1e-6)


def test_groups_of_a_batch_have_the_loss_and_gradient_of_the_whole(base, data):
    """Whether short examples are padded to the longest one changes nothing."""
    key, padding = jax.random.key(7), 3
    longer = ((0, 0), (0, padding))
    tokens, loss_mask = jnp.pad(data.tokens[:6], longer), jnp.pad(data.loss_mask[:6], longer)
    short, long = (data.tokens[:4], data.loss_mask[:4]), (tokens[4:], loss_mask[4:])
    run = jax.jit(loss_and_gradient, static_argnums=(0, 4))
    whole = run(DECODER, base, [(tokens, loss_mask)], key, "sft")
    assert_close(run(DECODER, base, [short, long], key, "sft"), whole, atol=1e-6)


@pytest.mark.parametrize(
    ("batch_size", "length", "parts"), [(64, 24, 4), (16, 34, 2), (16, 64, 4), (64, 84, 16)]
)
def test_a_batch_has_the_number_of_parts_that_was_fastest(batch_size, length, parts):
    toy = DecoderConfig(vocab_size=12, hidden_size=32, intermediate_size=96, num_heads=4)
    assert num_parts(toy, batch_size, length) == parts


def test_a_batch_is_whole_on_an_accelerator(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert num_parts(DECODER, 64, 10_000) == 1


@pytest.mark.parametrize("num_steps", [1, 7])
def test_a_traced_number_of_steps_gives_the_run_of_that_many(num_steps, base, data):
    """In whole epochs, in which the order of the rows does not depend on the longest run."""
    own = dataclasses.replace(data, num_examples=jnp.int32(4))
    settings = {"learning_rate": 1e-2, "optimiser": Optimiser(batch_size=4)}
    most, few = (FinetuneConfig(steps=steps, **settings) for steps in (9, num_steps))
    key = jax.random.key(5)

    def traced(steps):
        return finetune(DECODER, base, own, most, key, steps)

    parameters, losses = jax.jit(traced)(jnp.int32(num_steps))
    expected, own_losses = jax.jit(lambda: finetune(DECODER, base, own, few, key))()
    assert_close(parameters, expected, atol=1e-6)
    np.testing.assert_allclose(losses[:num_steps], own_losses, rtol=1e-5)
    assert not losses[num_steps:].any()


def test_dft_has_the_gradient_of_the_negative_probability(base, data):
    """d(-sg(p) log p) = -p dp / p = -dp, by the chain rule."""
    tokens, positions = data.tokens[0], jnp.arange(LENGTH) * 2

    def dft(parameters):
        return token_losses(DECODER, parameters, tokens, positions, "dft").sum()

    def negative_probability(parameters):
        scores = jax.nn.softmax(logits(DECODER, parameters, tokens, positions))
        return -scores[jnp.arange(LENGTH - 1), tokens[1:]].sum()

    gradient, expected = jax.jit(
        lambda base: (jax.grad(dft)(base), jax.grad(negative_probability)(base))
    )(base)
    assert max(np.abs(leaf).max() for leaf in leaf_list(expected)) > 1e-2
    assert_close(gradient, expected, atol=1e-5)


# The order of examples.


@hypothesis.given(num_examples=st.integers(1, ROWS_IN_EPOCHS), seed=st.integers(0, 2**31 - 1))
def test_epochs_hold_each_row_once(num_examples, seed):
    key = jax.random.key(seed)
    order = np.asarray(order_of(key, jnp.int32(num_examples), ROWS_IN_EPOCHS, NUM_DRAWS))
    assert order.shape == (NUM_DRAWS,)
    *complete, last = reference.epochs(order, num_examples)
    assert all(sorted(epoch) == list(range(num_examples)) for epoch in complete)
    assert len(set(last)) == len(last)
    assert set(last) <= set(range(num_examples))


def test_every_row_is_as_likely_at_every_place():
    num_examples, num_keys, draws = 4, 4000, 7
    orders = jax.jit(jax.vmap(lambda key: epoch_order(key, jnp.int32(num_examples), 6, draws)))(
        jax.random.split(jax.random.key(7), num_keys)
    )
    counts = [np.bincount(place, minlength=num_examples) for place in np.asarray(orders).T]
    # The last draws come from an incomplete epoch.
    assert len(counts) == draws
    for count in counts:
        assert scipy.stats.chisquare(count).pvalue > 1e-4
    # Every epoch is shuffled anew: its first row is independent of the previous epoch's.
    pairs = np.asarray(orders[:, 0]) * num_examples + np.asarray(orders[:, num_examples])
    assert scipy.stats.chisquare(np.bincount(pairs, minlength=num_examples**2)).pvalue > 1e-4


# Configuration.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"learning_rate": math.nan}, "learning_rate must be positive, got nan"),
        ({"loss": "dpo"}, "loss must be one of ('sft', 'dft'), got 'dpo'"),
    ],
)
def test_configuration_refuses(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        FinetuneConfig(**{"steps": 5} | fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"warmup": 1.0}, "warmup must lie in [0, 1), got 1.0"),
        ({"warmup": -0.1}, "warmup must lie in [0, 1), got -0.1"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative"),
        ({"clip": 0.0}, "clip positive"),
        ({"b2": 1.0}, "b2 in (0, 1); got 0.0, 1.0 and 1.0"),
        ({"schedule": "linear"}, "schedule must be one of ('cosine', 'constant'), got 'linear'"),
    ],
)
def test_optimiser_refuses(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Optimiser(**fields)


def test_configuration_is_a_tree_of_its_learning_rate():
    assert jax.tree.leaves(CONFIG) == [CONFIG.learning_rate]
    rebuilt = jax.tree.map(jnp.float32, CONFIG)
    assert dataclasses.replace(rebuilt, learning_rate=CONFIG.learning_rate) == CONFIG


# Pre-training.


def test_pretraining_learns_to_copy():
    def sample(key):
        letter = jax.random.randint(key, (), 2, DECODER.vocab_size)
        tokens = jnp.stack([jnp.int32(1), letter, jnp.int32(1), letter])
        return tokens, jnp.arange(4) == 3

    config = FinetuneConfig(80, 3e-2, optimiser=Optimiser(batch_size=16))
    strata = (Stratum(16, sample),)
    compiled = jax.jit(pretrain, static_argnums=(0, 1, 2))
    parameters, losses = compiled(DECODER, strata, config, jax.random.key(8))
    assert losses[0] > 1
    assert losses[-10:].mean() < 0.1
    assert_equal(compiled(DECODER, strata, config, jax.random.key(8))[0], parameters)
    other = compiled(DECODER, strata, config, jax.random.key(9))[0]
    assert np.abs(other["embedding"] - parameters["embedding"]).max() > 0.1
