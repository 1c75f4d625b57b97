"""The baseline of the grid in JAX: decoder and fine-tuning as one would write them at first.

A function of a batch, `optax`, one jitted step, and a Python loop over the steps; one run after the
other. The model is that of `synth.decoder` (`parity` compares them), without what `synth` does to
be fast.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from synth.config import DecoderConfig, FinetuneConfig
from synth.decoder import Parameters
from synth.finetune import TrainingData, batch_positions, loss_and_gradient


def _norm(x: Array, gain: Array, eps: float) -> Array:
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + eps) * gain[None, None, :]


def _rotate(x: Array, cosine: Array, sine: Array) -> Array:
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1)


def _layer(decoder: DecoderConfig, x: Array, layer: Parameters, angle: Array) -> Array:
    """Apply one layer to the residual stream [batch, length, width]."""
    batch, length, _ = x.shape
    h = _norm(x, layer["attention_norm"]["gain"], decoder.rms_norm_eps)

    def heads(name: str) -> Array:
        y = h @ layer[name]["kernel"] + layer[name]["bias"][None, None, :]
        return y.reshape(batch, length, -1, decoder.head_size).transpose(0, 2, 1, 3)

    query = _rotate(heads("query"), jnp.cos(angle), jnp.sin(angle))
    key = _rotate(heads("key"), jnp.cos(angle), jnp.sin(angle))
    scores = jnp.einsum("bhqd,bhkd->bhqk", query, key) / math.sqrt(decoder.head_size)
    causal = jnp.tril(jnp.ones((length, length), bool))[None, None]
    weights = jax.nn.softmax(jnp.where(causal, scores, -1e30), axis=-1)
    attended = jnp.einsum("bhqk,bhkd->bhqd", weights, heads("value"))
    x = x + attended.transpose(0, 2, 1, 3).reshape(batch, length, -1) @ layer["output"]["kernel"]
    h = _norm(x, layer["mlp_norm"]["gain"], decoder.rms_norm_eps)
    gated = jax.nn.silu(h @ layer["gate"]["kernel"]) * (h @ layer["up"]["kernel"])
    return x + gated @ layer["down"]["kernel"]


def loss(
    parameters: Parameters,
    decoder: DecoderConfig,
    tokens: Int[Array, "batch length"],
    loss_mask: Bool[Array, "batch length"],
    key: PRNGKeyArray,
) -> Float[Array, ""]:
    """Mean cross-entropy in nats over the solution tokens of a batch, at drawn positions."""
    keys = jax.random.split(key, len(tokens))
    positions = batch_positions(decoder, keys, tokens.shape[1])
    half = decoder.head_size // 2
    frequency = decoder.rope_theta ** (-jnp.arange(half) / half)
    angle = positions[:, None, :-1, None].astype(jnp.float32) * frequency[None, None, None, :]
    x = parameters["embedding"][tokens[:, :-1]]
    for index in range(decoder.num_layers):
        own = jax.tree.map(lambda leaf, index=index: leaf[index], parameters["layers"])
        x = _layer(decoder, x, own, angle)
    scores = _norm(x, parameters["norm"]["gain"], decoder.rms_norm_eps) @ parameters["head"]
    losses = optax.softmax_cross_entropy_with_integer_labels(scores, tokens[:, 1:])
    weights = loss_mask[:, 1:].astype(losses.dtype)
    return (losses * weights).sum() / weights.sum()


@functools.cache
def _programs(decoder: DecoderConfig, config: FinetuneConfig) -> tuple[Any, Any]:
    """The optimiser, and the compiled step."""
    settings = config.optimiser
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, math.ceil(settings.warmup * config.steps), config.steps
    )
    optimiser = optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.adamw(schedule, b2=settings.b2, weight_decay=settings.weight_decay),
    )

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(parameters, state, tokens, loss_mask, key):
        value, gradient = jax.value_and_grad(loss)(parameters, decoder, tokens, loss_mask, key)
        updates, state = optimiser.update(gradient, state, parameters)
        return optax.apply_updates(parameters, updates), state, value

    return optimiser, step


def finetune(
    decoder: DecoderConfig, base: Parameters, data: TrainingData, config: FinetuneConfig, seed: int
) -> tuple[Parameters, Float[np.ndarray, " steps"]]:
    """Fine-tune one member.

    Args:
      decoder: shape of the model, with biases and a head of its own.
      base: parameters to start from; left untouched.
      data: the training examples, on the host.
      config: how to train; the loss must be ``sft``, and the schedule ``cosine``.
      seed: of the order and the positions.

    Returns:
      The fine-tuned parameters, and the loss in nats per solution token before each step.
    """
    optimiser, step = _programs(decoder, config)
    parameters = jax.tree.map(jnp.array, base)
    state, key, losses = optimiser.init(parameters), jax.random.key(seed), []
    batches = _batches(np.random.default_rng(seed), int(data.num_examples), config)
    for rows in itertools.islice(batches, config.steps):
        key, own = jax.random.split(key)
        parameters, state, value = step(
            parameters, state, data.tokens[rows], data.loss_mask[rows], own
        )
        losses.append(value)
    return parameters, np.array(jax.device_get(losses))


def _batches(generator: np.random.Generator, num_examples: int, config: FinetuneConfig):
    """Rows of each batch; shuffled epochs follow each other without end."""
    left = np.empty(0, int)
    while True:
        while len(left) < config.optimiser.batch_size:
            left = np.concatenate([left, generator.permutation(num_examples)])
        yield left[: config.optimiser.batch_size]
        left = left[config.optimiser.batch_size :]


def parity(
    decoder: DecoderConfig, parameters: Parameters, data: TrainingData, key: PRNGKeyArray
) -> Mapping[str, float]:
    """Differences from `synth` on one batch, as those of `experiments.benchmarks.torch_loop`."""
    rows = data.tokens, data.loss_mask
    value, gradient = jax.jit(jax.value_and_grad(loss), static_argnums=1)(
        parameters, decoder, *rows, key
    )
    ours, our_gradient = jax.jit(loss_and_gradient, static_argnums=(0, 4))(
        decoder, parameters, [rows], key, "sft"
    )
    differences = jax.tree.map(
        lambda own, other: float(jnp.linalg.norm(own - other) / jnp.linalg.norm(own)),
        our_gradient,
        gradient,
    )
    return {
        "loss": abs(float(value) - float(ours)),
        "gradient": max(jax.tree.leaves(differences)),
    }
