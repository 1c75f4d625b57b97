"""Weights on K models that were trained on other data, certified together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import rel_entr, softmax

from theory.bounds.pac_bayes_kl import pac_bayes_kl
from theory.checks import check_count, check_range


@dataclass(frozen=True)
class GibbsPosterior:
    """Weights on candidates, with the numbers that a bound needs.

    Attributes:
      weights: probability of each candidate.
      empirical_risk: risk of a candidate drawn by the weights, on the sample.
      kl: KL(weights ‖ prior), in nats; at most ln K for K candidates under a uniform prior.
      inverse_temperature: the weights are the prior times exp(-inverse_temperature * risk).
    """

    weights: Float[np.ndarray, " candidates"]
    empirical_risk: float
    kl: float
    inverse_temperature: float


def gibbs_posterior(
    risks: Float[ArrayLike, " candidates"],
    *,
    num_examples: int,
    delta: float,
    prior: Float[ArrayLike, " candidates"] | None = None,
) -> GibbsPosterior:
    """Weigh candidates so that `pac_bayes_kl` is smallest.

    Among all weights with the same empirical risk, those proportional to the prior times
    exp(-inverse_temperature * risk) have the least KL. So only the temperature is searched, over a
    grid that leads from the prior to all weight on the best candidate. No delta is spent on the
    search, as the bound holds for all weights at once.

    Args:
      risks: empirical risk of each candidate on a sample that none was trained on, in [0, 1].
      num_examples: size of that sample.
      delta: probability with which the bound may fail, in (0, 1).
      prior: probability of each candidate, fixed before that sample; uniform unless given.

    Raises:
      ValueError: if an argument is out of range, or `prior` is not a distribution over the
        candidates.

    Valid when:
      The candidates and the prior do not depend on the sample (they may depend on other data, such
      as a first half), and the certificate is for a candidate drawn by the weights.

    References:
      Catoni (2007), "PAC-Bayesian supervised classification: the thermodynamics of statistical
      learning".

    Example:
      >>> chosen = gibbs_posterior([0.10, 0.12, 0.30], num_examples=100, delta=0.05)
      >>> print(chosen.weights.round(3), f"{chosen.empirical_risk:.4f} {chosen.kl:.4f}")
      [0.881 0.119 0.   ] 0.1024 0.7336
    """
    risks = check_range("risks", risks, 0, 1)
    if risks.ndim != 1 or not risks.size:
        raise ValueError(f"risks must have one axis of candidates, got shape {risks.shape}")
    uniform = np.full(risks.size, 1 / risks.size)
    prior = uniform if prior is None else check_range("prior", prior, 0, 1)
    if prior.shape != risks.shape or abs(prior.sum() - 1) > 1e-9:
        raise ValueError(f"prior must be a distribution over {risks.size} candidates, got {prior}")
    n = int(check_count("num_examples", num_examples, 1))
    # At the last temperature, 64 n, two candidates one error apart differ in weight by exp(64).
    temperatures = np.concatenate([[0.0], np.geomspace(1e-2, 64 * n, 255)])
    with np.errstate(divide="ignore"):
        weights = softmax(np.log(prior) - temperatures[:, np.newaxis] * risks, axis=1)
    averages, kls = weights @ risks, rel_entr(weights, prior).sum(axis=1)
    averages, kls = np.clip(averages, 0, 1), np.maximum(kls, 0)
    best = int(np.argmin(pac_bayes_kl(averages, kls, num_examples=n, delta=delta)))
    return GibbsPosterior(
        weights=weights[best],
        empirical_risk=float(averages[best]),
        kl=float(kls[best]),
        inverse_temperature=float(temperatures[best]),
    )
