"""Bounds on simulated samples with known risks, and deliberate mistakes, which must be detected.

A bound passes if its violations are compatible with delta: the Clopper–Pearson lower limit of their
probability, at 99.9%, is at most delta.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.special
import scipy.stats

from theory.bounds import (
    BOUNDS,
    chernoff,
    clopper_pearson,
    countable_grid_kl,
    finite_grid_kl,
    gibbs_posterior,
    monte_carlo_risk,
    occam,
    pac_bayes_kl,
    sample_compression,
)

SAMPLES = 4000
DELTA = 0.05
TEST_SET = {"chernoff", "clopper_pearson"}
POINT_MASS = {"occam", "sample_compression"}


def is_compatible(violations: np.ndarray, delta: float = DELTA) -> bool:
    """Return whether so many failures are plausible if each has probability at most delta."""
    test = scipy.stats.binomtest(int(violations.sum()), violations.size)
    return test.proportion_ci(0.998, method="exact").low <= delta


@dataclass(frozen=True)
class World:
    """Arguments of a bound on each of many samples, and the true risk that it bounds."""

    empirical_risk: np.ndarray
    kl: np.ndarray
    risk: np.ndarray
    num_examples: int

    def violations(self, bound, **changes) -> np.ndarray:
        arguments = {"kl": self.kl, "num_examples": self.num_examples, "delta": DELTA, **changes}
        return bound(self.empirical_risk, **arguments) < self.risk


def fewest_errors(rng, hypotheses: float, n: int, risk: float) -> np.ndarray:
    """Errors of the best of many hypotheses with independent errors, on each sample."""
    quantile = -np.expm1(np.log1p(-rng.uniform(size=SAMPLES)) / hypotheses)
    return scipy.stats.binom.ppf(quantile, n, risk)


def fixed_world(n: int = 200, risk: float = 0.1) -> World:
    """One hypothesis, fixed before the sample."""
    errors = np.random.default_rng(0).binomial(n, risk, SAMPLES)
    return World(errors / n, np.zeros(SAMPLES), np.full(SAMPLES, risk), n)


def selection_world() -> World:
    """The best on the sample of 10^12 hypotheses that all guess."""
    n, hypotheses = 100, 1e12
    errors = fewest_errors(np.random.default_rng(1), hypotheses, n, 0.5)
    kl = np.full(SAMPLES, math.log(hypotheses))
    return World(errors / n, kl, np.full(SAMPLES, 0.5), n)


def finite_class(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prior, risks, and empirical risks [samples, hypotheses] of a class of unequal hypotheses."""
    rng = np.random.default_rng(2)
    prior, risks = rng.dirichlet(np.ones(20)), np.linspace(0.05, 0.6, 20)
    return prior, risks, rng.binomial(n, risks, (SAMPLES, risks.size)) / n


def gibbs_world(inverse_temperature: float) -> World:
    """Gibbs weights on a finite class."""
    n = 60
    prior, risks, empirical = finite_class(n)
    weights = scipy.special.softmax(np.log(prior) - inverse_temperature * empirical, axis=1)
    kl = np.maximum(scipy.special.rel_entr(weights, prior).sum(axis=1), 0)
    return World((weights * empirical).sum(axis=1), kl, weights @ risks, n)


def occam_world() -> World:
    """The hypothesis of a finite class for which Occam's bound is smallest."""
    n = 60
    prior, risks, empirical = finite_class(n)
    chosen = occam(empirical, -np.log(prior), num_examples=n, delta=DELTA).argmin(axis=1)
    picked = np.take_along_axis(empirical, chosen[:, np.newaxis], axis=1)[:, 0]
    return World(picked, -np.log(prior)[chosen], risks[chosen], n)


def worlds_for(name: str) -> list[World]:
    if name in TEST_SET:
        return [fixed_world(), fixed_world(30, 0.12), fixed_world(1000, 0.5)]
    worlds = [fixed_world(), selection_world(), occam_world()]
    return worlds if name in POINT_MASS else [*worlds, gibbs_world(20.0), gibbs_world(200.0)]


@pytest.mark.parametrize("name", BOUNDS)
def test_coverage(name):
    for world in worlds_for(name):
        assert is_compatible(world.violations(BOUNDS[name]))


@pytest.mark.parametrize("name", [name for name in BOUNDS if name not in TEST_SET])
def test_without_the_kl_coverage_is_lost(name):
    assert not is_compatible(selection_world().violations(BOUNDS[name], kl=0.0))


@pytest.mark.parametrize("name", sorted(TEST_SET))
def test_a_test_set_used_to_choose_is_none(name):
    assert not is_compatible(selection_world().violations(BOUNDS[name], kl=0.0))


def test_clopper_pearson_is_not_slack():
    """Tests that use it can therefore detect a delta that is nearly twice too large."""
    violations = fixed_world(1000, 0.5).violations(clopper_pearson)
    assert violations.mean() > 0.6 * DELTA
    assert not is_compatible(fixed_world(1000, 0.5).violations(clopper_pearson, delta=0.09))


@pytest.mark.parametrize(("share", "is_valid"), [(1 / 20, True), (1.0, False)])
def test_delta_is_split_over_cells(share, is_valid):
    """Twenty cells of one plot must all hold at once."""
    n, risk = 1000, 0.3
    errors = np.random.default_rng(3).binomial(n, risk, (SAMPLES, 20))
    bounds = clopper_pearson(errors / n, num_examples=n, delta=DELTA * share)
    assert is_compatible(np.any(bounds < risk, axis=1)) == is_valid


@pytest.mark.parametrize(("charge", "is_valid"), [(finite_grid_kl, True), (None, False)])
def test_a_prior_chosen_from_a_grid_is_paid_for(charge, is_valid):
    """Each of 10^4 priors is a point mass: choosing the prior after the sample chooses the risk."""
    n, scales = 100, 10_000
    errors = fewest_errors(np.random.default_rng(4), scales, n, 0.5)
    bounds = pac_bayes_kl(
        errors / n, charge(scales) if charge else 0.0, num_examples=n, delta=DELTA
    )
    assert is_compatible(bounds < 0.5) == is_valid


def test_a_prior_chosen_from_countably_many_is_paid_for():
    n, scales = 60, 50
    rng = np.random.default_rng(5)
    empirical = rng.binomial(n, 0.3, (SAMPLES, scales)) / n
    kl = countable_grid_kl(np.arange(1, scales + 1))
    bounds = pac_bayes_kl(empirical, kl, num_examples=n, delta=DELTA).min(axis=1)
    assert is_compatible(bounds < 0.3)


def test_the_monte_carlo_estimate_is_corrected():
    draws, average = 500, 0.3
    estimates = np.random.default_rng(6).binomial(draws, average, SAMPLES) / draws
    corrected = monte_carlo_risk(estimates, num_draws=draws, delta=DELTA)
    assert is_compatible(corrected < average)
    assert not is_compatible(estimates < average)


def test_a_subset_of_the_sample_is_paid_for():
    """Pairs of examples rebuild hypotheses that guess; the best on the rest is taken."""
    n = 100
    errors = fewest_errors(np.random.default_rng(7), math.comb(n, 2), n - 2, 0.5)
    rest = errors / (n - 2)
    paid = sample_compression(rest, 0.0, num_examples=n, delta=DELTA, subset_size=2)
    unpaid = chernoff(rest, num_examples=n - 2, delta=DELTA)
    assert is_compatible(paid < 0.5)
    assert not is_compatible(unpaid < 0.5)


def test_weights_on_candidates_cover():
    n, risks = 200, np.linspace(0.1, 0.2, 8)
    empirical = np.random.default_rng(8).binomial(n, risks, (300, risks.size)) / n
    violations = []
    for row in empirical:
        chosen = gibbs_posterior(row, num_examples=n, delta=DELTA)
        assert chosen.kl <= math.log(risks.size) + 1e-12
        bound = pac_bayes_kl(chosen.empirical_risk, chosen.kl, num_examples=n, delta=DELTA)
        violations.append(bound < chosen.weights @ risks)
    assert is_compatible(np.array(violations))
