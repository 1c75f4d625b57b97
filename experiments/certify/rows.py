"""Rows of a table of certificates: what the simulator's and real checkpoints' have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from theory import shift
from theory.certificate import BOUND, MONTE_CARLO, Certificate, Ledger, certify
from theory.divergence import gaussian_kl
from theory.posterior import Gaussian


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
      ledger: one cell's account, see `halved`.
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
    """KL in nats and risk on the way from the prior to a posterior: what a risk costs.

    Args:
      posterior: where the way ends; means and log scales grow in proportion.
      errors: which draws of a Gaussian are wrong.
      steps: places, both ends included.
    """

    def place(share: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        way = dataclasses.replace(
            posterior, shift=share * posterior.shift, log_ratio=share * posterior.log_ratio
        )
        return way.kl, errors(way).mean()

    return jax.lax.map(place, jnp.linspace(0.0, 1.0, steps))


def on_the_test(
    risk_bound: float,
    slice_risks: Float[np.ndarray, " levels"],
    num_examples: Int[np.ndarray, " levels"],
    *,
    train: Float[np.ndarray, " levels"],
    delta: float,
) -> dict[str, Any]:
    """Columns about the test mixture, in which all levels weigh equally.

    Args:
      risk_bound: certified, for the training mixture.
      slice_risks: the predictor's measured risk at each level.
      num_examples: examples behind each of them.
      train: probabilities of the levels in the training mixture.
      delta: of the intervals that the assumption is held against.

    Returns:
      test_risk: the mean of the slice risks.
      test_bound_unconditional, test_bound_monotone: what `theory.shift` makes of the certificate,
        without an assumption and if the risk rises with difficulty.
      is_monotone: False where the measured slice risks contradict that assumption.
    """
    test = np.full(len(train), 1.0 / len(train))
    errors = np.rint(slice_risks * num_examples).astype(int)
    interval = shift.slice_intervals(errors, num_examples, delta=delta)
    return {
        "test_risk": float(slice_risks @ test),
        "test_bound_unconditional": float(shift.unconditional(risk_bound, test, train).values),
        "test_bound_monotone": float(shift.monotone(risk_bound, test, train).values),
        "is_monotone": shift.is_monotone(*interval),
    }
