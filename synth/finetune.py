"""Pre-train a base and fine-tune it: pure functions of parameters, data and a key.

One call trains one member; a study maps over `base`, `data`, `config` (its learning rate) and `key`
with `jax.vmap` or `jax.lax.map`. Keys are split by purpose.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray

from synth.config import DecoderConfig, FinetuneConfig, Loss, Schedule
from synth.decoder import Parameters, draw_positions, initialise, logits


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainingData:
    """The first `num_examples` rows of a pool.

    Attributes:
      tokens: token ids, padded on the right.
      loss_mask: true on solution tokens.
      num_examples: rows to train on; may be traced, so that data sizes share a program.
    """

    tokens: Int[Array, "examples length"]
    loss_mask: Bool[Array, "examples length"]
    num_examples: Int[Array, ""]


jax.tree_util.register_dataclass(
    FinetuneConfig,
    data_fields=["learning_rate"],
    meta_fields=[name for name in FinetuneConfig.__dataclass_fields__ if name != "learning_rate"],
)


def token_losses(
    decoder: DecoderConfig,
    parameters: Parameters,
    tokens: Int[Array, "*rows length"],
    positions: Int[Array, "*rows length"],
    loss: Loss,
) -> Float[Array, "*rows length-1"]:
    """Loss in nats at each token after the first, of a sequence or rows of them.

    Args:
      decoder: shape of the model (static).
      parameters: its weights.
      tokens, positions: a sequence, or rows of them.
      loss: ``sft`` or ``dft``, see `FinetuneConfig` (static).
    """
    label = tokens[..., 1:]
    log_probability = jax.nn.log_softmax(
        logits(decoder, parameters, tokens[..., :-1], positions[..., :-1])
    )
    chosen = jnp.take_along_axis(log_probability, label[..., None], axis=-1)[..., 0]
    weight = jax.lax.stop_gradient(jnp.exp(chosen)) if loss == "dft" else 1.0
    return -weight * chosen


def batch_positions(
    decoder: DecoderConfig, keys: PRNGKeyArray, length: int
) -> Int[Array, "batch length"]:
    """Draw the positions of each sequence of a batch, see `draw_positions`."""
    return jax.vmap(lambda key: draw_positions(decoder, key, length))(keys)


CACHED_BYTES = 5 * 2**15
"""Of the largest array of a part of a batch on a CPU: a sixth of a core's second-level cache."""


def num_parts(decoder: DecoderConfig, batch_size: int, length: int) -> int:
    """Number of equal parts of a batch whose activations stay in the cache of a CPU's core.

    Elsewhere one. Smaller parts save no more than the calls of XLA's many small kernels cost, so
    that the scores of attention, which grow with the square of the length, do not count.

    Args:
      decoder: shape of the model.
      batch_size: number of sequences.
      length: tokens of each.
    """
    if jax.default_backend() != "cpu":
        return 1
    widest = max(decoder.intermediate_size, decoder.vocab_size)
    largest = CACHED_BYTES // (4 * length * widest)
    return next(
        parts
        for parts in range(1, batch_size + 1)
        if batch_size % parts == 0 and (batch_size // parts <= largest or parts == batch_size)
    )


Rows = tuple[Int[Array, "rows length"], Bool[Array, "rows length"]]
"""Tokens of examples of one padded length, and their loss masks: true on solution tokens."""


def loss_and_gradient(
    decoder: DecoderConfig,
    parameters: Parameters,
    batch: Sequence[Rows],
    key: PRNGKeyArray,
    loss: Loss,
) -> tuple[Float[Array, ""], Parameters]:
    """Mean loss in nats over the solution tokens of a batch, at drawn positions; its gradient.

    Both are summed over the groups of the batch, and over parts of each, see `num_parts`.

    Args:
      decoder: shape of the model (static).
      parameters: its weights.
      batch: its examples, in groups of one padded length each.
      key: for the positions.
      loss: ``sft`` or ``dft``, see `FinetuneConfig` (static).
    """
    total = jnp.stack([loss_mask[:, 1:].sum() for _, loss_mask in batch]).sum().astype(jnp.float32)
    keys = jax.random.split(key, sum(len(tokens) for tokens, _ in batch))

    def of_part(tokens, loss_mask, positions):
        def share(parameters):
            losses = token_losses(decoder, parameters, tokens, positions, loss)
            return (losses * loss_mask[:, 1:].astype(losses.dtype)).sum() / total

        return jax.value_and_grad(share)(parameters)

    def add(total, part):
        return jax.tree.map(jnp.add, total, of_part(*part)), None

    result = (jnp.float32(0.0), jax.tree.map(jnp.zeros_like, parameters))
    for tokens, loss_mask in batch:
        size, length = tokens.shape
        group = (tokens, loss_mask, batch_positions(decoder, keys[:size], length))
        keys, parts = keys[size:], num_parts(decoder, size, length - 1)
        if parts == 1:
            result, _ = add(result, group)
        else:
            group = jax.tree.map(lambda leaf, n=parts: leaf.reshape(n, -1, leaf.shape[1]), group)
            result, _ = jax.lax.scan(add, result, group)
    return result


def epoch_order(
    key: PRNGKeyArray, num_examples: Int[Array, ""], num_rows: int, num_draws: int
) -> Int[Array, " draws"]:
    """Draw rows of a pool in shuffled epochs over its first `num_examples` rows.

    Every row appears once in each complete epoch; an incomplete one is a uniform subset.

    Args:
      key: a JAX key.
      num_examples: rows in use, at most `num_rows`; may be traced.
      num_rows: rows of the pool (static).
      num_draws: number of draws (static).

    Returns:
      Row of each draw.
    """
    # `rows` starts with the rows in use, in random order. Each epoch takes all of them, in an order
    # of its own: draws are sorted by epoch, and at random within it.
    key_rows, key_epochs = jax.random.split(key)
    rank = jax.random.uniform(key_rows, (num_rows,))
    rows = jnp.argsort(jnp.where(jnp.arange(num_rows) < num_examples, rank, jnp.inf))
    draw = jnp.arange(num_draws)
    shuffled = jnp.lexsort((jax.random.uniform(key_epochs, (num_draws,)), draw // num_examples))
    return rows[(draw % num_examples)[shuffled]]


def scheduled_rate(
    step: ArrayLike,
    peak: float | Float[Array, ""],
    *,
    steps: int | Int[Array, ""],
    warmup: float,
    schedule: Schedule,
) -> Array:
    """Learning rate of a step: a linear warm-up, then the schedule.

    Args:
      step: number of the step, from 0.
      peak: the rate after the warm-up.
      steps: number of steps; may be traced.
      warmup: share of the steps in the warm-up.
      schedule: ``cosine`` falls from the peak to zero, ``constant`` keeps the peak.
    """
    step, steps = jnp.asarray(step, jnp.float32), jnp.asarray(steps, jnp.float32)
    rising = jnp.ceil(warmup * steps)
    rise = jnp.minimum(1.0, (step + 1.0) / (rising + 1.0))
    progress = jnp.clip((step - rising) / jnp.maximum(1.0, steps - rising), 0.0, 1.0)
    fall = 0.5 * (1 + jnp.cos(jnp.pi * progress)) if schedule == "cosine" else 1.0
    return peak * rise * fall


def _transformation(
    config: FinetuneConfig, steps: int | Int[Array, ""]
) -> optax.GradientTransformation:
    optimiser = config.optimiser

    def rate(step: ArrayLike) -> Array:
        return scheduled_rate(
            step,
            config.learning_rate,
            steps=steps,
            warmup=optimiser.warmup,
            schedule=optimiser.schedule,
        )

    return optax.chain(
        optax.clip_by_global_norm(optimiser.clip),
        optax.adamw(rate, b2=optimiser.b2, weight_decay=optimiser.weight_decay),
    )


def _train(
    decoder: DecoderConfig,
    parameters: Parameters,
    config: FinetuneConfig,
    batch: Callable[[Int[Array, ""]], Sequence[Rows]],
    key: PRNGKeyArray,
    steps: int | Int[Array, ""],
) -> tuple[Parameters, Float[Array, " steps"]]:
    """Run optimiser steps.

    Args:
      decoder: shape of the model (static).
      parameters: to start from.
      config: settings.
      batch: from the number of a step to its batch, see `loss_and_gradient`.
      key: for the positions of each step.
      steps: how many, at most `config.steps`; may be traced.

    Returns:
      The trained parameters, and the loss before each step; zero for steps that are not taken.
    """
    transformation = _transformation(config, steps)

    def step(index, carry):
        parameters, state, losses = carry
        loss, gradient = loss_and_gradient(
            decoder, parameters, batch(index), jax.random.fold_in(key, index), config.loss
        )
        # optax mixes scalars of different types, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            update, state = transformation.update(gradient, state, parameters)
            parameters = jax.tree.map(jnp.add, parameters, update)
        return parameters, state, losses.at[index].set(loss)

    with jax.numpy_dtype_promotion("standard"):
        state = transformation.init(parameters)
    start = parameters, state, jnp.zeros(config.steps)
    parameters, _, losses = jax.lax.fori_loop(0, steps, step, start)
    return parameters, losses


def finetune(
    decoder: DecoderConfig,
    base: Parameters,
    data: TrainingData,
    config: FinetuneConfig,
    key: PRNGKeyArray,
    steps: Int[Array, ""] | None = None,
) -> tuple[Parameters, Float[Array, " steps"]]:
    """Fine-tune one member: a pure function of its arguments.

    Args:
      decoder: shape of the model (static).
      base: parameters to start from; left untouched.
      data: the training examples.
      config: settings of the run.
      key: a JAX key; the only source of randomness.
      steps: how many of `config.steps` the run takes, default all; may be traced, so that runs of
        different lengths share a program.

    Returns:
      The fine-tuned parameters, and the loss in nats per solution token before each step, zero for
      steps that are not taken. In a run that diverges some losses are not finite.
    """
    key_order, key_positions = jax.random.split(key)
    batch_size = config.optimiser.batch_size
    order = epoch_order(
        key_order, data.num_examples, len(data.tokens), config.steps * batch_size
    ).reshape(config.steps, batch_size)

    def batch(step):
        return [(data.tokens[order[step]], data.loss_mask[order[step]])]

    taken = config.steps if steps is None else steps
    return _train(decoder, base, config, batch, key_positions, taken)


class Stratum(NamedTuple):
    """Examples of a batch that are drawn alike and padded to one length.

    Attributes:
      num_examples: of each batch.
      sample: function from a key to tokens and loss mask of one example.
    """

    num_examples: int
    sample: Callable[[PRNGKeyArray], tuple[Int[Array, " length"], Bool[Array, " length"]]]


def pretrain(
    decoder: DecoderConfig,
    strata: Sequence[Stratum],
    config: FinetuneConfig,
    key: PRNGKeyArray,
) -> tuple[Parameters, Float[Array, " steps"]]:
    """Train a base from scratch on fresh draws.

    Args:
      decoder: shape of the model (static).
      strata: what every batch is made of.
      config: settings of the run.
      key: a JAX key.

    Returns:
      The base's parameters, and the loss in nats per solution token before each step.

    Raises:
      ValueError: if the strata do not make a batch.
    """
    sizes, size = [stratum.num_examples for stratum in strata], config.optimiser.batch_size
    if sum(sizes) != size:
        raise ValueError(f"strata must make a batch of {size} examples, got {sizes}")
    key_init, key_data, key_positions = jax.random.split(key, 3)

    def batch(step):
        keys = jax.random.split(jax.random.fold_in(key_data, step), size)
        ends = itertools.accumulate(sizes)
        return [
            jax.vmap(stratum.sample)(keys[end - stratum.num_examples : end])
            for end, stratum in zip(ends, strata, strict=True)
        ]

    start = initialise(decoder, key_init)
    return _train(decoder, start, config, batch, key_positions, config.steps)
