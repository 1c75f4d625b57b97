"""Point predictors of a sweep's cells: the base, and fine-tunings on the first half of a sample.

The second half of the sample tests them. See `experiments.certify.members` for the methods.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from experiments.sweep.draws import Draws
from experiments.sweep.grid import Member
from experiments.sweep.plan import group
from synth.config import DecoderConfig, FinetuneConfig
from synth.decoder import Parameters
from synth.finetune import TrainingData, finetune
from synth.gaps import correct_examples
from theory.bounds.gibbs_weights import gibbs_posterior
from theory.certificate import Certificate, Ledger, certify

Errors = dict[str, Any]
"""Wrong answers of one model: ``sample`` [rows], ``fresh`` [fresh], and ``buckets``, one array for
each bucket of test slices."""


def cell_data(draws: Draws, member: Member, base: Parameters) -> dict[str, Any]:
    """The base, the sample, fresh draws of the mixture, and test draws in buckets of levels."""
    sample, fresh = draws.training_pool(member), draws.in_distribution_pool(member)
    buckets = draws.slice_pools("test", member.base_seed, member.seed)
    return {
        "base": base,
        "sample": (sample.tokens, sample.loss_mask),
        "fresh": (fresh.tokens, fresh.loss_mask),
        "buckets": [(pool.tokens, pool.loss_mask) for pool in buckets],
    }


def halved_steps(draws: Draws, member: Member) -> int:
    """Optimiser steps on the first half of a member's sample: half as many, if epochs are stated.

    Raises:
      ValueError: see `experiments.sweep.plan.group`.
    """
    return group(draws, dataclasses.replace(member, data_size=member.data_size // 2)).steps


def candidate_arguments(
    member: Member, data: dict[str, Any], key: PRNGKeyArray, number: int, steps: int
) -> list[dict[str, Any]]:
    """Arguments of `model_errors` for each candidate of a cell; candidates differ in their key.

    Args:
      member: the cell.
      data: see `cell_data`.
      key: of the cell.
      number: of candidates.
      steps: of each fine-tuning.
    """
    tokens, loss_mask = data["sample"]
    key_positions, key_candidates = jax.random.split(key)
    key = jax.random.fold_in(key_candidates, member.data_size)
    shared = {
        "base": data["base"],
        "data": TrainingData(tokens, loss_mask, jnp.int32(member.data_size // 2)),
        "fresh": data["fresh"],
        "buckets": data["buckets"],
        "learning_rate": np.float32(member.learning_rate),
        "key_positions": jax.random.key_data(key_positions),
        "steps": np.int32(steps),
    }
    return [
        shared | {"key": jax.random.key_data(jax.random.fold_in(key, candidate))}
        for candidate in range(number)
    ]


def model_errors(
    decoder: DecoderConfig, finetuning: Callable[[Array], FinetuneConfig]
) -> Callable[[dict[str, Any]], dict[str, Errors]]:
    """Return a function from one cell's data to the errors of its ``base`` and its ``tuned`` model.

    Args:
      decoder: shape of the model.
      finetuning: returns the configuration of the longest fine-tuning, given a learning rate.
    """

    def measure(arguments: dict[str, Any]) -> dict[str, Errors]:
        # Fine-tune, then find the errors of base and result on sample, fresh draws and test.
        data = arguments["data"]
        parameters, _ = finetune(
            decoder,
            arguments["base"],
            data,
            finetuning(arguments["learning_rate"]),
            jax.random.wrap_key_data(arguments["key"]),
            arguments["steps"],
        )
        drawn = [(data.tokens, data.loss_mask), arguments["fresh"], *arguments["buckets"]]
        key_positions = jax.random.wrap_key_data(arguments["key_positions"])
        keys = jax.random.split(key_positions, len(drawn))

        def wrong(model):
            sample, fresh, *buckets = [
                ~correct_examples(decoder, model, tokens, loss_mask, key=key)
                for (tokens, loss_mask), key in zip(drawn, keys, strict=True)
            ]
            return {"sample": sample, "fresh": fresh, "buckets": buckets}

        # Mapped over both models, so that the evaluation is compiled once.
        both = jax.tree.map(lambda *leaves: jnp.stack(leaves), arguments["base"], parameters)
        errors = jax.lax.map(wrong, both)
        base, tuned = (jax.tree.map(lambda leaf, at=at: leaf[at], errors) for at in (0, 1))
        return {"base": base, "tuned": tuned}

    return measure


@dataclass(frozen=True)
class PointPredictor:
    """A model, or a mixture of models with known weights, and its measured risks.

    Attributes:
      bound: name of the theorem.
      empirical_risk, num_examples: risk on the examples that test it, and their number.
      risk: risk on fresh draws of the training mixture.
      slice_risks: risk at each level of the test.
      prior, posterior: in words.
      kl: of the posterior from the prior, in nats.
    """

    bound: str
    empirical_risk: float
    num_examples: int
    risk: float
    slice_risks: Float[np.ndarray, " levels"]
    prior: str
    posterior: str = "the prior"
    kl: float = 0.0

    def certificate(self, ledger: Ledger, *, seed: int, method: str) -> Certificate:
        """Certify it; everything that `ledger` has spent pays for the bound."""
        return certify(
            self.bound,
            empirical_risk=self.empirical_risk,
            num_draws=0,
            kl=self.kl,
            num_examples=self.num_examples,
            ledger=ledger,
            prior=self.prior,
            posterior=self.posterior,
            seed=seed,
            method=method,
        )


def point_predictors(
    candidates: list[dict[str, Errors]],
    by_slice: Callable[[list[np.ndarray]], list[np.ndarray]],
    *,
    data_size: int,
    delta: float,
) -> dict[str, PointPredictor]:
    """The predictors of one cell by method.

    Args:
      candidates: see `model_errors`; one for each fine-tuning. All have the same base.
      by_slice: splits the results of each bucket into those of its test slices.
      data_size: examples of the sample; the first half is trained on.
      delta: confidence that the Gibbs weights are chosen for.
    """
    half = data_size // 2

    def risks(errors: Errors) -> tuple[float, Float[np.ndarray, " levels"]]:
        slice_risks = [part.mean() for part in by_slice(errors["buckets"])]
        return errors["fresh"].mean(), np.array(slice_risks)

    # The base was fixed before the sample: all of it is a test set.
    base_risk, base_slice_risks = risks(candidates[0]["base"])
    base_errors: Bool[np.ndarray, " rows"] = candidates[0]["base"]["sample"]
    # Fine-tunings, tested on the second half.
    tuned = [candidate["tuned"] for candidate in candidates]
    held_out = np.array([errors["sample"][half:data_size].mean() for errors in tuned])
    fresh = np.array([risks(errors)[0] for errors in tuned])
    slice_risks = np.array([risks(errors)[1] for errors in tuned])
    # Their mixture, weighted by their errors there.
    weights = gibbs_posterior(held_out, num_examples=data_size - half, delta=delta)
    mixture = weights.weights
    first = {
        "empirical_risk": held_out[0],
        "num_examples": data_size - half,
        "risk": fresh[0],
        "slice_risks": slice_risks[0],
        "prior": "fine-tuned on the first half",
    }
    return {
        "base": PointPredictor(
            bound="clopper_pearson",
            empirical_risk=base_errors[:data_size].mean(),
            num_examples=data_size,
            risk=base_risk,
            slice_risks=base_slice_risks,
            prior="the base",
        ),
        "test-set": PointPredictor(bound="clopper_pearson", **first),
        "held-out": PointPredictor(bound="pac_bayes_kl", **first),
        "candidates": PointPredictor(
            bound="pac_bayes_kl",
            # Weights add up to 1 but for rounding.
            empirical_risk=min(float(mixture @ held_out), 1.0),
            num_examples=data_size - half,
            risk=float(mixture @ fresh),
            slice_risks=mixture @ slice_risks,
            prior=f"uniform on {len(tuned)} fine-tunings on the first half",
            posterior="Gibbs weights: " + ", ".join(f"{weight:.3f}" for weight in mixture),
            kl=weights.kl,
        ),
    }
