"""Distances between distributions against their definitions."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from theory.distributions import chi_square, kl_divergence, max_ratio, total_variation, wasserstein


def test_distances():
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5])
    assert total_variation(p, q) == pytest.approx(0.5)
    assert wasserstein(p, q) == pytest.approx(0.25 + 0.5)
    assert chi_square(p, q) == pytest.approx(0.25 + 0.25 + 0.5)
    assert kl_divergence(p, q) == pytest.approx(math.log(2))
    assert max_ratio(p, q) == pytest.approx(2)
    for distance in (chi_square, kl_divergence, max_ratio):
        assert distance(q, p) == math.inf
    for distance in (total_variation, wasserstein, chi_square, kl_divergence):
        assert distance(p, p) == 0


def test_distances_broadcast_over_leading_axes():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(6), size=(3, 1)), rng.dirichlet(np.ones(6), size=4)
    levels = np.arange(6)
    for i, j in itertools.product(range(3), range(4)):
        a, b = p[i, 0], q[j]
        expected = {
            total_variation: max(
                sum(a[list(event)] - b[list(event)])
                for size in range(7)
                for event in itertools.combinations(levels, size)
            ),
            wasserstein: scipy.stats.wasserstein_distance(levels, levels, a, b),
            chi_square: np.sum(a * a / b) - 1,
            kl_divergence: scipy.stats.entropy(a, b),
            max_ratio: np.max(a / b),
        }
        for function, value in expected.items():
            table = function(p, q)
            assert table.shape == (3, 4)
            assert table[i, j] == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: total_variation([0.5, 0.6], [0.5, 0.5]), "p must be probabilities .* sum to 1"),
        (lambda: chi_square([0.5, 0.5], [0.7, 0.5]), "q must be probabilities .* sum to 1"),
        (
            lambda: wasserstein([1.5, -0.5], [0.5, 0.5]),
            r"p must be probabilities .* got \[ 1.5 -0.5\]",
        ),
        (lambda: max_ratio([0.5, 0.5], [1.0]), "p and q must have the same levels, got 2 and 1"),
        (lambda: kl_divergence(1.0, 1.0), "p must be probabilities"),
        (lambda: kl_divergence([True, False], [0.5, 0.5]), "p must be probabilities, got"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
