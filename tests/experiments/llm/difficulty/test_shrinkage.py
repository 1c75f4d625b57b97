"""Shrinkage of pass rates against SciPy's beta-binomial distribution and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from experiments.llm.difficulty.shrinkage import fit_beta


def draw(alpha: float, beta: float, number: int, most: int = 64, seed: int = 0):
    """Own rates, passes and attempts of problems, from 1 attempt to `most`."""
    random = np.random.default_rng(seed)
    rates = random.beta(alpha, beta, number)
    trials = random.integers(1, most + 1, number).astype(float)
    return rates, random.binomial(trials.astype(int), rates).astype(float), trials


@pytest.mark.parametrize(("alpha", "beta"), [(0.4, 1.2), (3.0, 3.0), (20.0, 4.0)])
def test_the_fit_is_the_most_likely_one(alpha, beta):
    _, passes, trials = draw(alpha, beta, 2000)
    fitted = fit_beta(passes, trials)

    def loss(point) -> float:
        return -stats.betabinom.logpmf(passes, trials, *np.exp(point)).sum()

    slow = optimize.minimize(loss, np.log([alpha, beta]), method="Nelder-Mead", tol=1e-6)
    assert loss(np.log([fitted.alpha, fitted.beta])) <= slow.fun + 1e-6
    np.testing.assert_allclose([fitted.alpha, fitted.beta], np.exp(slow.x), rtol=1e-3)
    np.testing.assert_allclose([fitted.alpha, fitted.beta], [alpha, beta], rtol=0.2)


def test_none_of_one_and_none_of_64_are_not_the_same():
    _, passes, trials = draw(0.4, 1.2, 500)
    few, many, mean = fit_beta(passes, trials), np.array([1.0, 64.0]), passes.sum() / trials.sum()
    one, all_64 = few.posterior_mean(np.zeros(2), many)
    assert all_64 < 0.01 < 0.1 < one < mean
    half = few.posterior_mean(many, many)
    assert mean < half[0] < half[1] < 1
    # Nothing is known of a problem without attempts.
    assert few.posterior_mean(np.zeros(1), np.zeros(1))[0] == pytest.approx(few.mean)


def test_estimates_are_nearer_to_the_truth_than_raw_shares():
    rates, passes, trials = draw(2.0, 3.0, 3000, most=8)
    shrunk = fit_beta(passes, trials).posterior_mean(passes, trials)
    errors = [np.mean((estimate - rates) ** 2) for estimate in (shrunk, passes / trials)]
    assert errors[0] < 0.6 * errors[1]
    assert stats.spearmanr(shrunk, rates)[0] > stats.spearmanr(passes / trials, rates)[0]  # type: ignore[operator]


def test_equal_numbers_of_attempts_keep_the_order():
    _, passes, _ = draw(2.0, 3.0, 200, most=8)
    shrunk = fit_beta(passes, np.full(200, 64.0)).posterior_mean(passes, np.full(200, 64.0))
    assert (np.argsort(shrunk, kind="stable") == np.argsort(passes, kind="stable")).all()


@pytest.mark.parametrize(
    ("passes", "expected"),
    [
        ([0, 0, 0], [0, 0, 0]),
        ([4, 4, 4], [1, 1, 1]),
        ([2, 2, 2], [0.5] * 3),
        ([0, 4, 4], [0, 1, 1]),
    ],
)
def test_extreme_data_have_finite_estimates(passes, expected):
    counts, trials = np.array(passes, float), np.full(3, 4.0)
    shrunk = fit_beta(counts, trials).posterior_mean(counts, trials)
    np.testing.assert_allclose(shrunk, expected, atol=1e-3)


def test_missing_numbers_are_left_out_and_stay_missing():
    _, passes, trials = draw(0.4, 1.2, 300)
    more, others = np.append(passes, [np.nan, 3.0]), np.append(trials, [5.0, np.nan])
    assert fit_beta(more, others) == fit_beta(passes, trials)
    assert np.isnan(fit_beta(more, others).posterior_mean(more, others)[-2:]).all()


def test_single_attempts_tell_nothing_of_the_spread():
    with pytest.raises(ValueError, match="at least 2 attempts, got at most 1 at each"):
        fit_beta(np.array([0.0, 1.0, np.nan]), np.array([1.0, 1.0, 9.0]))
