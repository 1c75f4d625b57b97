r"""Gaussian posteriors on a block of parameters, trained by the bound that later certifies them.

The model is given as a function, ``example_loss(parameters, example, key)``, which returns for one
example the loss in nats and whether the prediction is wrong. A `Block` turns a vector of
coordinates into the model's parameters. The prior is N(0, scale²) on these coordinates, so the zero
vector is the model before training.

The 0-1 loss has no gradient, and the loss in nats is unbounded. So training uses
:math:`1 - e^{-\text{nats}/\tau}`, which lies in [0, 1]. `fit_posterior` and `gibbs_errors` handle
one posterior; map them over members.

Axes: ``size`` (coordinates of the block), ``draws`` (vectors of coordinates).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray

from theory.config import PosteriorConfig
from theory.divergence import gaussian_kl, kl_inverse

ExampleLoss = Callable[[Any, Any, PRNGKeyArray], tuple[Float[Array, ""], Bool[Array, ""]]]
"""``(parameters, example, key) -> (loss in nats, wrong)`` for one example."""


@dataclass(frozen=True)
class Block:
    """The coordinates that a posterior is a distribution over.

    Attributes:
      size: number of coordinates.
      apply: function from a vector of coordinates to the model's parameters; zero gives the prior's
        mean.
    """

    size: int
    apply: Callable[[Float[Array, " size"]], Any]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Gaussian:
    """A diagonal Gaussian, in units of its prior N(0, prior_scale²).

    Attributes:
      shift: mean divided by the prior's scale.
      log_ratio: natural log of its scale divided by the prior's.
      prior_scale: the prior's scale for each coordinate, or one for all.
    """

    shift: Float[Array, " size"]
    log_ratio: Float[Array, " size"]
    prior_scale: Float[Array, "*size"]

    @classmethod
    def prior(cls, size: int, prior_scale: ArrayLike) -> Gaussian:
        """The prior itself."""
        return cls(jnp.zeros(size), jnp.zeros(size), jnp.asarray(prior_scale, jnp.float32))

    @property
    def kl(self) -> Float[Array, ""]:
        """KL divergence from the prior in nats."""
        return gaussian_kl(self.shift, self.log_ratio)

    @property
    def mean(self) -> Float[Array, " size"]:
        return self.prior_scale * self.shift

    def draw(self, key: PRNGKeyArray) -> Float[Array, " size"]:
        """Draw one vector of coordinates."""
        noise = jax.random.normal(key, self.shift.shape)
        return self.prior_scale * (self.shift + jnp.exp(self.log_ratio) * noise)


def bounded(nats: Float[Array, "*batch"], temperature: ArrayLike) -> Float[Array, "*batch"]:
    """Map a loss in nats to [0, 1]; at temperature 1 it is the probability of a sampled error."""
    return -jnp.expm1(-nats / temperature)


def _cosine(config: PosteriorConfig) -> Callable[[ArrayLike], Array]:
    """Factor of the learning rates by step: a linear warm-up, then a cosine to zero.

    `optax.warmup_cosine_decay_schedule` rounds differently, which would change certificates.
    """
    warmup = math.ceil(config.warmup * config.steps)

    def factor(step: ArrayLike) -> Array:
        step = jnp.asarray(step, jnp.float32)
        rise = jnp.minimum(1.0, (step + 1.0) / (warmup + 1.0))
        progress = jnp.clip((step - warmup) / max(1, config.steps - warmup), 0.0, 1.0)
        return rise * 0.5 * (1 + jnp.cos(jnp.pi * progress))

    return factor


def fit_posterior(
    example_loss: ExampleLoss,
    block: Block,
    examples: Any,
    prior_scale: ArrayLike,
    config: PosteriorConfig,
    key: PRNGKeyArray,
    *,
    num_examples: Int[Array, ""],
    penalty: ArrayLike,
) -> tuple[Gaussian, Float[Array, " steps"]]:
    """Minimise the PAC-Bayes-kl bound on the bounded loss over diagonal Gaussians.

    Args:
      example_loss: the model, see `ExampleLoss`.
      block: coordinates of the posterior.
      examples: tree of arrays with a leading axis of examples.
      prior_scale: scale of the prior, one number or one for each coordinate.
      config: settings of the training.
      key: a JAX key.
      num_examples: examples in use, from the first; may be traced.
      penalty: term that the bound adds to the KL, in nats, such as ln(ξ(n) / δ); may be traced.

    Returns:
      The posterior, and the objective (an estimate of the bound on the bounded loss) by step.

    References:
      Dziugaite and Roy (2017), with the bound of Seeger (2002) and Maurer (2004) as the objective,
      as in Pérez-Ortiz et al. (2021).
    """
    # Schedules of the temperature and of the KL term's weight.
    decay = jnp.linspace(0.0, 1.0, config.steps)
    ratio = config.temperature / config.first_temperature
    temperatures = config.first_temperature * ratio ** jnp.minimum(1.0, 2 * decay)
    weights = jnp.minimum(1.0, decay / config.free) if config.free else jnp.ones(config.steps)
    start = Gaussian.prior(block.size, prior_scale)
    per_draw = config.batch_size // config.draws
    factor = _cosine(config)
    optimiser = optax.partition(
        {
            # In units of the prior's scale the KL term is a squared norm, so plain gradient steps
            # reduce the risk most per nat; Adam's steps of equal size in all coordinates do not.
            "shift": optax.chain(
                optax.clip_by_global_norm(1.0),
                optax.sgd(lambda step: config.learning_rate * factor(step), momentum=0.9),
            ),
            "log_ratio": optax.adam(lambda step: config.scale_learning_rate * factor(step)),
        },
        {"shift": "shift", "log_ratio": "log_ratio"},
    )

    def objective(variables, rows, temperature, weight, key):
        posterior = Gaussian(prior_scale=start.prior_scale, **variables)

        # Losses of the examples of one draw; then the bound on their mean over all draws.
        def of_draw(rows, key):
            key_draw, key_examples = jax.random.split(key)
            parameters = block.apply(posterior.draw(key_draw))
            keys = jax.random.split(key_examples, per_draw)
            batch = jax.tree.map(lambda leaf: leaf[rows], examples)
            return jax.vmap(lambda example, key: example_loss(parameters, example, key)[0])(
                batch, keys
            )

        nats = jax.vmap(of_draw)(
            rows.reshape(config.draws, per_draw), jax.random.split(key, config.draws)
        )
        loss = bounded(nats, temperature).mean()
        number = jnp.asarray(num_examples, loss.dtype)
        return kl_inverse(loss, weight * (posterior.kl + penalty) / number)

    def step(carry, inputs):
        variables, state = carry
        index, temperature, weight = inputs
        key_rows, key_loss = jax.random.split(jax.random.fold_in(key, index))
        rows = jax.random.randint(key_rows, (config.batch_size,), 0, num_examples)
        value, gradient = jax.value_and_grad(objective)(
            variables, rows, temperature, weight, key_loss
        )
        # optax mixes scalars of different types, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            update, state = optimiser.update(gradient, state, variables)
            variables = jax.tree.map(jnp.add, variables, update)
        return (variables, state), value

    variables = {"shift": start.shift, "log_ratio": start.log_ratio}
    with jax.numpy_dtype_promotion("standard"):
        state = optimiser.init(variables)
    inputs = (jnp.arange(config.steps), temperatures, weights)
    (variables, _), values = jax.lax.scan(step, (variables, state), inputs)
    return Gaussian(prior_scale=start.prior_scale, **variables), values


def gibbs_errors(
    example_loss: ExampleLoss,
    block: Block,
    posterior: Gaussian,
    examples: Any,
    key: PRNGKeyArray,
    *,
    num_examples: Int[Array, ""],
    num_draws: int,
    batch_size: int = 128,
) -> Bool[Array, " draws"]:
    """Evaluate draws from the posterior on a sample, each on one example.

    Every draw is a new vector from the posterior, and all examples in use get the same number of
    draws. So, given the sample, the draws are independent Bernoulli variables, and the expectation
    of their mean is the Gibbs risk.

    Args:
      example_loss, block, posterior, examples, key: as in `fit_posterior`.
      num_examples: examples in use, from the first, at most `num_draws`; may be traced.
      num_draws: number of draws (static).
      batch_size: draws evaluated at once, which bounds the memory.

    Returns:
      True for the draws that are wrong. Leave out those beyond the largest multiple of
      `num_examples`, which only some examples get.
    """

    def wrong(index):
        key_draw, key_example = jax.random.split(jax.random.fold_in(key, index))
        example = jax.tree.map(lambda leaf: leaf[index % num_examples], examples)
        return example_loss(block.apply(posterior.draw(key_draw)), example, key_example)[1]

    return jax.lax.map(wrong, jnp.arange(num_draws), batch_size=batch_size)
