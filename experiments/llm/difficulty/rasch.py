"""Rasch's model (1PL) of several models' passes: a difficulty for each problem, in logits.

A model with ability a passes a problem of difficulty d with probability 1 / (1 + exp(d − a)). The
difficulties are taken to be normal around 0. Abilities and the normal's deviation are fitted by
marginal maximum likelihood, and a problem's difficulty is its posterior mean.

A problem's number of passes is all that the model uses of them. Where every model was asked every
problem, the order of the difficulties is that of the numbers of passes; the fit adds the unit, and
makes problems comparable that were asked of different models.

The usual roles are swapped: many problems are the random sample, and the few models are fixed. The
library that fits this (girth) is an alpha version last released in 2021, and takes single attempts
only; the others need torch or numpyro. A test holds the numbers that girth gives.

References:
  Rasch (1960), Probabilistic models for some intelligence and attainment tests;
  Bock and Aitkin (1981), Psychometrika 46: marginal maximum likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import optimize, special

GRID = np.linspace(-6, 6, 241)
"""Difficulties, in deviations, at which the integral over them is summed."""

LOG_WEIGHTS = special.log_softmax(-(GRID**2) / 2)
ABILITY_BOUNDS = (-15.0, 15.0)
"""Range of an ability in logits; a model that passes everything, or nothing, ends there."""

DEVIATION_BOUNDS = (np.log(0.01), np.log(10.0))
"""Range of the logarithm of the difficulties' deviation."""


@dataclass(frozen=True)
class Rasch:
    """A fitted model.

    Attributes:
      abilities: of each model, in logits.
      deviation: standard deviation of the problems' difficulties, in logits.
      trials: attempts of each model at each problem.
    """

    abilities: Float[np.ndarray, " models"]
    deviation: float
    trials: int

    def difficulties(
        self, passes: Float[np.ndarray, "problems models"]
    ) -> Float[np.ndarray, " problems"]:
        """Posterior mean difficulty of each problem; NaN where no model was asked."""
        asked = np.isfinite(passes)
        log_weights, _ = self._posterior(asked, np.nansum(passes, axis=1))
        means = np.exp(special.log_softmax(log_weights, axis=1)) @ (GRID * self.deviation)
        return np.where(asked.any(axis=1), means, np.nan)

    def _posterior(
        self, asked: Bool[np.ndarray, "rows models"], totals: Float[np.ndarray, " rows"]
    ) -> tuple[Float[np.ndarray, "rows grid"], Float[np.ndarray, "models grid"]]:
        """Logarithm of prior times likelihood on the grid, up to what does not depend on it.

        Returns:
          That, and each model's probability to pass at each difficulty.
        """
        difficulty = GRID * self.deviation
        logits = self.abilities[:, None] - difficulty
        effort = self.trials * (asked.astype(float) @ np.logaddexp(0, logits))
        return LOG_WEIGHTS - totals[:, None] * difficulty - effort, special.expit(logits)


def fit_rasch(passes: Float[np.ndarray, "problems models"], *, trials: int = 1) -> Rasch:
    """Fit abilities and the spread of difficulties.

    Args:
      passes: attempts of each model at each problem that passed; NaN where it was not asked.
      trials: attempts of each model at each problem it was asked.
    """
    asked = np.isfinite(passes)
    of_models = np.nansum(passes, axis=0)
    # Problems with the same models and the same number of passes have one likelihood.
    rows = np.column_stack([asked, np.nansum(passes, axis=1)])
    groups, counts = np.unique(rows, axis=0, return_counts=True)
    was_asked, totals = groups[:, :-1] > 0, groups[:, -1]

    def loss(point: Float[np.ndarray, " p"]) -> tuple[float, Float[np.ndarray, " p"]]:
        """Negative log-likelihood for a problem, at abilities and a logarithmic deviation."""
        model = Rasch(point[:-1], float(np.exp(point[-1])), trials)
        joint, probability = model._posterior(was_asked, totals)
        value = of_models @ point[:-1] + counts @ np.logaddexp.reduce(joint, axis=1)
        # Slopes: passes beyond what the posterior expects.
        weights = np.exp(special.log_softmax(joint, axis=1)) * counts[:, None]
        expected = trials * was_asked.astype(float).T @ weights
        by_ability = of_models - (expected * probability).sum(axis=1)
        surplus = (expected * probability).sum(axis=0) - totals @ weights
        slope = np.append(by_ability, surplus @ (GRID * model.deviation))
        return -float(value) / len(passes), -slope / len(passes)

    shares = of_models / np.maximum(trials * asked.sum(axis=0), 1)
    start = np.append(special.logit(np.clip(shares, 0.01, 0.99)), 0.0)
    bounds = [ABILITY_BOUNDS] * passes.shape[1] + [DEVIATION_BOUNDS]
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, tol=1e-12)
    return Rasch(found.x[:-1], float(np.exp(found.x[-1])), trials)
