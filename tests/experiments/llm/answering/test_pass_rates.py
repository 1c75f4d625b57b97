"""Intervals of pass rates: exact for single samples, with the right coverage for several."""

import numpy as np
import pytest
import scipy.stats

from experiments.llm.answering.pass_rates import pass_interval


@pytest.mark.parametrize("right", [0, 1, 7, 20])
def test_interval_of_single_samples_is_exact(right):
    correct = (np.arange(20) < right)[:, None]
    exact = scipy.stats.binomtest(right, 20).proportion_ci(0.9, method="exact")
    assert pass_interval(correct) == pytest.approx((exact.low, exact.high))


@pytest.mark.parametrize("spread", [0.3, 3.0, 1000.0])
def test_interval_of_samples_covers(spread):
    """Problems with pass rates from Beta distributions, from nearly 0 or 1 to nearly all equal."""
    generator = np.random.default_rng(0)
    mean, runs, hits, widths = 0.3, 400, 0, []
    for _ in range(runs):
        rates = generator.beta(mean * spread, (1 - mean) * spread, 30)
        low, high = pass_interval(generator.random((30, 4)) < rates[:, None])
        hits += low <= mean <= high
        widths.append(high - low)
    # Three standard errors of the share are 0.045.
    assert hits / runs > 0.9 - 0.045
    # The width lies between those of 30 and of 120 independent answers.
    wide, narrow = (np.diff(pass_interval((np.arange(n) < 0.3 * n)[:, None]))[0] for n in (30, 120))
    assert 0.9 * narrow < np.mean(widths) < 1.1 * wide
    assert abs(np.mean(widths) - (wide if spread == 0.3 else narrow)) < 0.09


def test_interval_at_the_ends():
    for value, expected in ((True, (0.05 ** (1 / 10), 1.0)), (False, (0.0, 1 - 0.05 ** (1 / 10)))):
        assert pass_interval(np.full((10, 8), value)) == pytest.approx(expected)
    # One problem says nothing about others, however many samples it has.
    low, high = pass_interval(np.array([[True, False] * 50]))
    assert low < 0.05
    assert high > 0.95
