"""The constant xi against mpmath, its definitions and golden values."""

import math

import mpmath
import numpy as np
import pytest
import scipy.stats

from theory import maurer
from theory.divergence import binary_kl
from theory.maurer import log_xi, xi

mpmath.mp.dps = 50


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, 2.0), (10, 4.6602157), (100, 13.2099606), (1000, 40.3032129), (10_000, 125.99912)],
)
def test_golden_values_of_xi(n, expected):
    digits = len(str(expected).split(".")[1])
    assert xi(n) == pytest.approx(expected, abs=0.51 * 10**-digits)
    assert log_xi(n) == pytest.approx(math.log(xi(n)), rel=1e-14)


@pytest.mark.parametrize("n", [1, 2, 3, 15, 16, 17, 31, 32, 33, 500])
def test_xi_is_rounded_up_by_little(n):
    exact = mpmath.fsum(
        mpmath.binomial(n, k) * (mpmath.mpf(k) / n) ** k * (1 - mpmath.mpf(k) / n) ** (n - k)
        for k in range(n + 1)
    )
    assert 0 < xi(n) / exact - 1 < 1.2e-12
    assert 0 < log_xi(n) - mpmath.log(exact) < 1.2e-12


@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.97])
def test_xi_is_the_expectation_of_the_exponential_kl_whatever_p(p):
    errors = np.arange(51)
    weights = scipy.stats.binom.pmf(errors, 50, p)
    expectation = np.sum(weights * np.exp(50 * binary_kl(errors / 50, p)))
    assert expectation == pytest.approx(xi(50), rel=1e-11)
    assert expectation == pytest.approx(9.5431270393, rel=1e-10)


def test_xi_of_arrays_is_below_maurers_bound_and_grows():
    n = np.arange(1, 301)
    values = xi(n)
    assert values.shape == (300,)
    assert np.all(np.diff(values) > 0)
    assert np.all(values <= 2 * np.sqrt(n) * (1 + 1e-11))
    np.testing.assert_array_equal(xi(np.array([[7, 3], [3, 7]])), values[[[6, 2], [2, 6]]])


def test_xi_is_the_same_summed_in_blocks():
    """The sum in blocks lies between its neighbours, which fit into one block."""
    assert xi(2**22 - 1) < xi(2**22 + 1) < xi(2**22 + 3)
    assert xi(10**6) == pytest.approx(math.sqrt(math.pi * 10**6 / 2) + 2 / 3, rel=1e-7)
    assert maurer.XI_MARGIN < 1e-11


def test_xi_is_not_summed_for_more_examples_than_there_is_time_for():
    largest = maurer.LARGEST_SUM
    assert xi(largest + 1) == pytest.approx(2 * math.sqrt(largest + 1), rel=1e-11)
    assert xi(2**62) == pytest.approx(2.0**32, rel=1e-11)
    assert xi(2**62) > 2.0**32


def test_it_is_float64_for_one_n():
    assert type(xi(5)) is np.float64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: xi(2**62 + 1), "num_examples must be at most"),
        (lambda: xi(0), "num_examples must be at least 1, got 0"),
        (lambda: xi(10.0), "num_examples must be an integer or integers, got 10.0"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
