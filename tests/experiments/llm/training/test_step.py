"""An optimiser step: token-weighted micro-batches, AdamW, adapters, meshes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.llm.text.loader import Batch
from experiments.llm.training import lora
from experiments.llm.training.config import StepConfig
from experiments.llm.training.loss import loss_sums
from experiments.llm.training.step import make_step, place, start
from experiments.storage.sharding import make_mesh, parameter_shardings
from synth import blockwise
from synth.config import DecoderConfig, Execution, Lora, Optimiser
from synth.decoder import initialise
from tests.xla_flags import XLA_FLAGS

DECODER = DecoderConfig(
    vocab_size=32,
    hidden_size=16,
    intermediate_size=32,
    num_kv_heads=2,
    positions="sequential",
    max_positions=64,
    unroll=False,
)
ROWS, LENGTH = 8, 12
PLAIN = StepConfig()


def make_batch(micro: int = 1, seed: int = 0) -> Batch:
    """Rows with solutions of very different lengths, the longest ones in the first micro-batch."""
    random = np.random.default_rng(seed)
    lengths = np.sort(random.integers(1, LENGTH - 2, ROWS))[::-1]
    places = np.arange(LENGTH)
    tokens = random.integers(1, 32, (ROWS, LENGTH)).astype(np.int32)
    mask = (places >= 2) & (places < 2 + lengths[:, None])
    segments = np.where(places < 2 + lengths[:, None], 0, -1)
    fields = (tokens, np.broadcast_to(places, tokens.shape), segments, mask)
    return Batch(*(field.reshape(micro, ROWS // micro, LENGTH) for field in fields))


def run(batch, config=PLAIN, decoder=DECODER, parameters=None, mesh=None, steps=3):
    parameters = initialise(decoder, jax.random.key(0)) if parameters is None else parameters
    parameters = jax.tree.map(jnp.copy, parameters)
    if mesh is not None:
        parameters = jax.device_put(parameters, parameter_shardings(parameters, mesh))
    frozen, state = start(decoder, parameters, config, mesh=mesh)
    step, losses = make_step(decoder, config, mesh), []
    for _ in range(steps):
        state, metrics = step(frozen, state, place(batch, mesh), jnp.float32(0.01))
        losses.append(float(metrics.loss))
    return frozen, state, losses


def close(first, second, tolerance=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), first, second
    )


@pytest.mark.parametrize("loss", ["sft", "dft"])
def test_micro_batches_add_up_by_tokens(loss):
    config = StepConfig(loss=loss)
    _, whole, losses = run(make_batch(1), config)
    _, parts, part_losses = run(make_batch(4), config)
    np.testing.assert_allclose(part_losses, losses, rtol=1e-5)
    close(parts.trained, whole.trained)


def test_micro_batches_of_padding_are_left_out(monkeypatch):
    computed = []

    def counted(*args, **kwargs):
        jax.debug.callback(lambda: computed.append(1))
        return loss_sums(*args, **kwargs)

    monkeypatch.setattr("experiments.llm.training.step.loss_sums", counted)
    batch = make_batch(2)
    nothing = jax.tree.map(np.zeros_like, batch)
    padded = jax.tree.map(lambda *fields: np.concatenate(fields), batch, nothing, nothing)
    _, state, losses = run(padded, steps=1)
    jax.effects_barrier()
    assert (padded.tokens.shape[0], len(computed)) == (6, 2)
    _, expected, expected_losses = run(batch, steps=1)
    assert losses == expected_losses
    close(state.trained, expected.trained)


def test_a_mean_of_means_would_be_seen():
    """Equal weights for micro-batches would give another loss: the test above can fail."""
    parameters = initialise(DECODER, jax.random.key(0))
    batch = make_batch(4)
    parts = (batch.tokens, batch.positions, batch.loss_mask)

    @jax.jit
    def sums_of(tokens, positions, loss_mask):
        return loss_sums(DECODER, parameters, tokens, positions, loss_mask, "sft")

    sums = [sums_of(*rows) for rows in zip(*parts, strict=True)]
    mean_of_means = float(np.mean([loss.sum() / weight.sum() for loss, weight in sums]))
    _, _, losses = run(batch, steps=1)
    assert abs(mean_of_means - losses[0]) > 1e-3


def test_it_is_adamw():
    config = StepConfig(optimiser=Optimiser(weight_decay=0.1, b2=0.999, clip=0.5))
    _, state, losses = run(make_batch(), config, steps=3)
    assert losses[-1] < losses[0]
    decays = jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key not in ("gain", "bias"), initialise(DECODER, jax.random.key(0))
    )
    reference = optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.adamw(0.01, b2=0.999, weight_decay=0.1, mask=decays),
    )
    parameters, batch = initialise(DECODER, jax.random.key(0)), make_batch()

    @jax.grad
    def gradient(parameters):
        loss, weight = loss_sums(
            DECODER, parameters, batch.tokens[0], batch.positions[0], batch.loss_mask[0], "sft"
        )
        return loss.sum() / weight.sum()

    @jax.jit
    def updated(parameters, moments):
        update, moments = reference.update(gradient(parameters), moments, parameters)
        return optax.apply_updates(parameters, update), moments

    with jax.numpy_dtype_promotion("standard"):
        moments = reference.init(parameters)
        for _ in range(3):
            parameters, moments = updated(parameters, moments)
    close(state.trained, parameters, 1e-4)


def test_adapters_alone_are_trained():
    decoder = dataclasses.replace(DECODER, execution=Execution("float32", remat=True))
    base = initialise(decoder, jax.random.key(0))
    adapted, parameters = lora.attach(decoder, base, Lora(rank=2), jax.random.key(1))
    frozen, state, losses = run(make_batch(), decoder=adapted, parameters=parameters, steps=4)
    assert losses[-1] < losses[0]
    jax.tree.map(np.testing.assert_array_equal, frozen, base)
    assert set(state.trained) == {"layers"}
    moved = [leaf for leaf in jax.tree.leaves(state.trained) if np.asarray(leaf).any()]
    assert len(moved) == 2 * 7
    moments = optax.tree.get(state.moments, "mu")
    assert jax.tree.structure(moments) == jax.tree.structure(state.trained)


SLOW = pytest.mark.slow  # each compiles two steps; one axis with adapters and one without are fast


@pytest.mark.parametrize(
    ("axis", "adapters"),
    [
        ("data", False),
        ("fsdp", True),
        *(
            pytest.param(axis, adapters, marks=SLOW)
            for axis, adapters in [
                ("fsdp", False),
                ("tp", False),
                ("data", True),
                ("tp", True),
            ]
        ),
    ],
)
def test_two_devices_are_as_good_as_one(axis, adapters, monkeypatch):
    """Also where attention has several blocks, and the loss several chunks."""
    monkeypatch.setattr(blockwise, "LEAST", 5)
    config = StepConfig(chunk_tokens=5, packed=True)
    decoder, parameters = DECODER, initialise(DECODER, jax.random.key(0))
    if adapters:
        decoder = dataclasses.replace(decoder, execution=Execution("float32"))
        decoder, parameters = lora.attach(decoder, parameters, Lora(rank=2), jax.random.key(1))
    given = {"config": config, "decoder": decoder, "parameters": parameters}
    _, one, losses = run(make_batch(2), **given)
    mesh = make_mesh(**{axis: 2})
    _, two, mesh_losses = run(make_batch(2), **given, mesh=mesh)
    np.testing.assert_allclose(mesh_losses, losses, rtol=1e-5)
    close(two.trained, one.trained)
    # The new state has the old shardings, so that the second step is not compiled again.
    places = parameter_shardings(two.trained, mesh)
    same = jax.tree.map(
        lambda leaf, place: leaf.sharding.is_equivalent_to(place, leaf.ndim), two.trained, places
    )
    assert jax.tree.all(same), same
    assert make_step(decoder, config, mesh)._cache_size() == 1  # pyright: ignore


def test_a_lone_host_device_computes_on_every_core(monkeypatch):
    """The flags give it one thread, as they should each device of a mesh."""
    assert "--xla_cpu_multi_thread_eigen=false" in XLA_FLAGS
    options = []

    def jit(function, **settings):
        options.append(settings["compiler_options"])
        return function

    monkeypatch.setattr(jax, "jit", jit)
    half = dataclasses.replace(DECODER, execution=Execution("bfloat16"))
    for decoder, mesh in ((DECODER, None), (half, None), (DECODER, make_mesh(data=2))):
        make_step(decoder, StepConfig(chunk_tokens=7), mesh)
    threads = {"xla_cpu_multi_thread_eigen": True}
    assert options == [threads, threads | {"xla_backend_optimization_level": 3}, None]
    make_step.cache_clear()


def test_bfloat16_computes_and_float32_keeps():
    decoder = dataclasses.replace(DECODER, execution=Execution("bfloat16", remat=True))
    _, state, losses = run(make_batch(), decoder=decoder)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.trained)} == {jnp.dtype("float32")}
    _, _, exact = run(make_batch())
    np.testing.assert_allclose(losses, exact, rtol=0.02)
    assert losses != exact
