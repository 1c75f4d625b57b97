"""Gaussian posteriors over a block of parameters: train them by the bound, and certify them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from experiments.certify.blocks import BLOCKS, adapters, within
from experiments.certify.config import BLOCK_SETTINGS, CheckpointConfig
from experiments.certify.exact_match import example_loss
from synth.config import DecoderConfig, Lora
from synth.decoder import Parameters, draw_positions
from synth.finetune import token_losses
from synth.gaps import is_correct
from theory.certificate import BOUND, MONTE_CARLO, Certificate, Ledger, certify
from theory.divergence import gaussian_kl
from theory.maurer import log_xi
from theory.posterior import Block, ExampleLoss, Gaussian, fit_posterior, gibbs_errors

PATH_STEPS, PATH_DRAWS = 9, 1024
"""Steps from prior to posterior at which KL and risk are recorded, and draws behind each risk (a
sample larger than PATH_DRAWS is represented by its first examples)."""

FRESH_DRAWS = 4
"""Draws of the weights for each fresh example, for a measured Gibbs risk."""


def halved(ledger: Ledger, *, grid: int = 1) -> Ledger:
    """The account of a trained posterior: half for its Monte Carlo estimate, half for the bound.

    Args:
      ledger: with nothing spent.
      grid: prior scales of which the best is reported.
    """
    ledger = ledger.spend(MONTE_CARLO, ledger.left / 2, grid=grid)
    return ledger.spend(BOUND, ledger.left, grid=grid)


def certify_gaussian(
    posterior: Gaussian,
    errors: Bool[np.ndarray, " draws"],
    *,
    num_examples: int,
    ledger: Ledger,
    prior: str,
    seed: int,
    method: str,
) -> Certificate:
    """Certify a posterior from its errors on the sample.

    Args:
      posterior: trained on the sample.
      errors: which draws are wrong, see `theory.posterior.gibbs_errors`; those beyond the largest
        multiple of `num_examples` do not count.
      num_examples: size of the sample.
      ledger: one claim's account, see `halved`.
      prior, seed, method: see `theory.certificate.Certificate`; the number of coordinates is added
        to the first.
    """
    used = len(errors) // num_examples * num_examples
    moved = np.asarray(posterior.shift, np.float64)
    return certify(
        "pac_bayes_kl",
        empirical_risk=float(errors[:used].mean()),
        num_draws=used,
        kl=float(gaussian_kl(moved, np.asarray(posterior.log_ratio, np.float64))),
        num_examples=num_examples,
        ledger=ledger,
        prior=f"{prior}, {moved.size} coordinates",
        posterior="diagonal Gaussian trained on the whole sample",
        seed=seed,
        method=method,
    )


def path_to(
    posterior: Gaussian, errors: Callable[[Gaussian], Bool[Array, " draws"]], steps: int
) -> tuple[Float[Array, " steps"], Float[Array, " steps"]]:
    """KL in nats and risk on the way from the prior to a posterior.

    Args:
      posterior: end of the way, along which means and log scales grow in proportion.
      errors: marks the wrong draws of a Gaussian.
      steps: number of places, both ends included.
    """

    def place(share: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        way = dataclasses.replace(
            posterior, shift=share * posterior.shift, log_ratio=share * posterior.log_ratio
        )
        return way.kl, errors(way).mean()

    return jax.lax.map(place, jnp.linspace(0.0, 1.0, steps))


def penalty(ledger: Ledger, num_examples: int) -> np.float32:
    """Nats that the bound adds to the KL, ln(ξ(n) / δ), with the ledger's share δ for it."""
    shares = {entry.name: entry.each for entry in ledger.entries}
    return np.float32(float(log_xi(num_examples)) - np.log(shares[BOUND]))


def errors_of(
    example_loss: ExampleLoss, block: Block, *, batch_size: int = 128
) -> Callable[[Gaussian, Any, Array, Any, int], Bool[Array, " draws"]]:
    """Bind loss and block to `theory.posterior.gibbs_errors`.

    Returns:
      A function of posterior, examples, key, num_examples and num_draws that marks the wrong draws.
    """
    errors = functools.partial(gibbs_errors, example_loss, block, batch_size=batch_size)
    return lambda posterior, examples, key, num_examples, num_draws: errors(
        posterior, examples, key, num_examples=num_examples, num_draws=num_draws
    )


# The members of a sweep.


def member_posterior(
    decoder: DecoderConfig, name: str, *, num_draws: int
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a function from one cell's data to a posterior over a block, and its errors.

    Args:
      decoder: shape of the model.
      name: of the block, see `experiments.certify.blocks.BLOCKS`.
      num_draws: Monte Carlo draws on the sample.
    """
    settings = BLOCK_SETTINGS[name]
    loss = functools.partial(_example_loss, decoder)

    def measure(arguments: dict[str, Any]) -> dict[str, Any]:
        keys = jax.random.split(jax.random.wrap_key_data(arguments["key"]), 5)
        sample, fresh, buckets = (arguments[each] for each in ("sample", "fresh", "buckets"))
        number, num_fresh = arguments["num_examples"], len(fresh[0])
        # Train on the whole sample, from the base.
        block = BLOCKS[name](arguments["base"])
        posterior, _ = fit_posterior(
            loss,
            block,
            sample,
            settings.prior_scale,
            settings.posterior,
            keys[0],
            num_examples=number,
            penalty=arguments["penalty"],
        )
        # Draw errors on the way there, on the sample, on fresh draws, and on the test.
        errors = errors_of(loss, block)
        return {
            "posterior": posterior,
            "path": path_to(
                posterior, lambda way: errors(way, sample, keys[4], number, PATH_DRAWS), PATH_STEPS
            ),
            "sample": errors(posterior, sample, keys[1], number, num_draws),
            "fresh": errors(posterior, fresh, keys[2], num_fresh, FRESH_DRAWS * num_fresh),
            "buckets": [
                errors(
                    posterior, part, jax.random.fold_in(keys[3], index), len(part[0]), len(part[0])
                )
                for index, part in enumerate(buckets)
            ],
        }

    return measure


def _example_loss(
    decoder: DecoderConfig, parameters: Parameters, example: tuple[Array, Array], key: PRNGKeyArray
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """Return the loss of a whole solution in nats, and whether its argmax is wrong anywhere.

    A program that uses one of the two pays for one pass: the other is dead code to the compiler.
    """
    tokens, loss_mask = example
    positions = draw_positions(decoder, key, tokens.size)
    nats = token_losses(decoder, parameters, tokens, positions, "sft")
    wrong = ~is_correct(decoder, parameters, tokens, loss_mask, positions)
    return jnp.where(loss_mask[1:], nats, 0.0).sum(), wrong


# A checkpoint.


def checkpoint_posterior(
    decoder: DecoderConfig, method: str, config: CheckpointConfig
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return two compiled functions: one trains a posterior, one measures it.

    Args:
      decoder: shape of the model.
      method: ``gains``, ``lora`` or ``subspace``.
      config: how it is trained.

    Returns:
      The first takes parameters, sample, prior scale, number of examples, penalty and key, and
      returns the posterior and its errors on the sample. The second takes parameters, posterior,
      sample, fresh problems of each level [levels, fresh, …], number of examples and key, and
      returns the path to the posterior, and its errors at each level.
    """
    decoder, make_block = _checkpoint_block(decoder, method, config)
    loss = example_loss(decoder, config.chunk_tokens)

    # Train on the sample, and draw errors there.
    @jax.jit
    def fit(parameters, sample, prior_scale, num_examples, penalty, key):
        key_fit, key_errors = jax.random.split(key)
        block = make_block(parameters)
        posterior, _ = fit_posterior(
            loss,
            block,
            sample,
            prior_scale,
            config.posterior,
            key_fit,
            num_examples=num_examples,
            penalty=penalty,
        )
        errors = errors_of(loss, block, batch_size=config.draws_at_once)
        return posterior, errors(posterior, sample, key_errors, num_examples, config.num_draws)

    # Draw errors on the way to the posterior, then on fresh problems of each level.
    @jax.jit
    def measure(parameters, posterior, sample, fresh, num_examples, key):
        key_path, key_fresh = jax.random.split(key)
        errors = errors_of(loss, make_block(parameters), batch_size=config.draws_at_once)
        draws = min(PATH_DRAWS, config.num_draws)
        path = path_to(
            posterior, lambda way: errors(way, sample, key_path, num_examples, draws), PATH_STEPS
        )
        num_levels, num_fresh = fresh[0].shape[:2]
        wrong = jax.lax.map(
            lambda level: errors(posterior, level[1], level[0], num_fresh, FRESH_DRAWS * num_fresh),
            (jax.random.split(key_fresh, num_levels), fresh),
        )
        return path, wrong

    return fit, measure


def _checkpoint_block(
    decoder: DecoderConfig, method: str, config: CheckpointConfig
) -> tuple[DecoderConfig, Callable[[Parameters], Block]]:
    """The coordinates that a method moves, and the decoder that computes with them."""
    if method == "gains":
        return decoder, BLOCKS["gains"]
    lora = Lora(config.rank, alpha=config.rank, kernels=config.kernels)  # of scale 1
    adapted = dataclasses.replace(decoder, lora=lora)

    def second_factor(centre: Parameters) -> Block:
        return adapters(centre, config.rank, config.kernels)

    if method == "lora":
        return adapted, second_factor
    return adapted, lambda centre: within(second_factor(centre), config.subspace_size)
