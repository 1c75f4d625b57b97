"""Shrinkage of pass rates: 0 of 1 is hardly known to be hard, 0 of 64 is.

Each problem's own pass rate is taken to be drawn from one beta distribution, and its passes from a
binomial one. The beta distribution is fitted to all problems by maximum likelihood (empirical
Bayes); a problem's estimate is then its posterior mean, which lies between its raw share and the
mean of all problems, the nearer to the latter the fewer its attempts.

Where every problem has the same number of attempts, shrinkage moves the values but not their order.

References:
  Casella (1985), An introduction to empirical Bayes data analysis, The American Statistician 39;
  Efron and Morris (1975), Data analysis using Stein's estimator, JASA 70;
  Griffiths (1973), Biometrics 29: maximum likelihood for the beta-binomial distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import optimize, special

MEAN_BOUNDS = (-14.0, 14.0)
"""Range of the logit of the mean: 14 is 8e-7 from 1."""

PRECISION_BOUNDS = (np.log(1e-3), np.log(1e6))
"""Range of the logarithm of alpha + beta: from all-or-nothing problems to equal ones."""


@dataclass(frozen=True)
class Beta:
    """Distribution of the problems' own pass rates.

    Attributes:
      alpha, beta: its parameters; alpha + beta is the number of attempts at which a problem's
        estimate lies half-way between its raw share and the mean of all.
    """

    alpha: float
    beta: float

    @property
    def mean(self) -> float:
        """Mean pass rate."""
        return self.alpha / (self.alpha + self.beta)

    def posterior_mean(
        self, passes: Float[np.ndarray, " problems"], trials: Float[np.ndarray, " problems"]
    ) -> Float[np.ndarray, " problems"]:
        """Expected pass rate of each problem, given its passes; NaN where a number is missing."""
        return (self.alpha + passes) / (self.alpha + self.beta + trials)


def fit_beta(
    passes: Float[np.ndarray, " problems"], trials: Float[np.ndarray, " problems"]
) -> Beta:
    """Fit the distribution of pass rates by maximum likelihood.

    Args:
      passes: number of attempts at each problem that passed; NaN where it is missing.
      trials: number of attempts at each problem; NaN where it is missing.

    Raises:
      ValueError: if no problem has two attempts, without which luck cannot be told from difficulty.

    Example:
      >>> passes, trials = np.array([0.0, 0.0, 5.0, 8.0]), np.array([1.0, 64.0, 8.0, 8.0])
      >>> print(fit_beta(passes, trials).posterior_mean(passes, trials).round(2))
      [0.08 0.   0.62 0.98]
    """
    known = np.isfinite(passes) & np.isfinite(trials)
    if not (trials[known] >= 2).any():
        raise ValueError("some problem must have at least 2 attempts, got at most 1 at each")
    # Equal rows need be looked at once.
    pairs, counts = np.unique(
        np.stack([passes[known], trials[known]], axis=1), axis=0, return_counts=True
    )
    own, total = pairs.T

    def loss(point: Float[np.ndarray, " 2"]) -> tuple[float, Float[np.ndarray, " 2"]]:
        """Negative mean log-likelihood at a logit of the mean and a log-precision."""
        mean, precision = special.expit(point[0]), np.exp(point[1])
        alpha, beta = mean * precision, (1 - mean) * precision
        likelihood = special.betaln(alpha + own, beta + total - own) - special.betaln(alpha, beta)
        # Slopes along alpha and beta; their common term is that along the precision.
        common = special.digamma(precision) - special.digamma(precision + total)
        along_alpha = special.digamma(alpha + own) - special.digamma(alpha) + common
        along_beta = special.digamma(beta + total - own) - special.digamma(beta) + common
        slope = np.array(
            [
                counts @ (along_alpha - along_beta) * precision * mean * (1 - mean),
                counts @ (along_alpha * alpha + along_beta * beta),
            ]
        )
        return -float(counts @ likelihood) / counts.sum(), -slope / counts.sum()

    share = np.clip(counts @ own / (counts @ total), 1e-5, 1 - 1e-5)
    start = np.array([special.logit(share), np.log(2.0)])
    bounds = (MEAN_BOUNDS, PRECISION_BOUNDS)
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, tol=1e-12)
    mean, precision = special.expit(found.x[0]), np.exp(found.x[1])
    return Beta(float(mean * precision), float((1 - mean) * precision))
