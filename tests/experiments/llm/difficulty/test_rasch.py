"""Rasch's model against the library girth, a slow likelihood, and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, optimize, special, stats

from experiments.llm.difficulty.rasch import fit_rasch

PATTERNS = {
    (1, 1, 1): 210,
    (1, 1, 0): 150,
    (1, 0, 1): 60,
    (0, 1, 1): 35,
    (1, 0, 0): 190,
    (0, 1, 0): 80,
    (0, 0, 1): 25,
    (0, 0, 0): 250,
}
"""Numbers of problems by which of three models pass them."""


def draw(abilities, number: int, *, trials: int = 1, deviation: float = 1.5, seed: int = 0):
    """Difficulties, and passes of each model."""
    random = np.random.default_rng(seed)
    difficulties = random.normal(0, deviation, number)
    chances = special.expit(np.asarray(abilities) - difficulties[:, None])
    return difficulties, random.binomial(trials, chances).astype(float)


def test_the_fit_is_that_of_girth():
    """onepl_mml and ability_eap of girth 0.8.0, with models as items and problems as persons."""
    passes = np.array([row for row, count in PATTERNS.items() for _ in range(count)], float)
    fitted = fit_rasch(passes)
    np.testing.assert_allclose(fitted.abilities, [0.6779, -0.1520, -1.0687], atol=4e-3)
    assert fitted.deviation == pytest.approx(1.7287, abs=1e-3)
    rows = np.array([(0, 0, 0), (0, 0, 1), (0, 1, 1), (1, 1, 1)], float)
    expected = [1.7365, 0.4518, -0.6736, -1.9235]
    np.testing.assert_allclose(fitted.difficulties(rows), expected, atol=3e-3)


def test_the_fit_is_the_most_likely_one_where_models_skipped_problems():
    _, passes = draw([-0.5, 0.5], 12, trials=3)
    passes[:4, 0] = passes[8:, 1] = np.nan

    points = np.linspace(-8, 8, 2001)

    def of_row(row, abilities, deviation) -> float:
        known = np.isfinite(row)
        chances = special.expit(abilities[known, None] - deviation * points)
        chance = stats.binom.pmf(row[known, None], 3, chances).prod(axis=0)
        return float(integrate.simpson(stats.norm.pdf(points) * chance, x=points))

    def loss(point) -> float:
        return -sum(np.log(of_row(row, point[:2], np.exp(point[2]))) for row in passes)

    fitted = fit_rasch(passes, trials=3)
    slow = optimize.minimize(loss, np.array([-0.5, 0.5, 0.3]), method="Nelder-Mead", tol=1e-4)
    np.testing.assert_allclose([*fitted.abilities, np.log(fitted.deviation)], slow.x, atol=2e-3)


def test_truth_is_found():
    abilities = [-1.0, 0.0, 0.5, 1.5]
    truth, passes = draw(abilities, 4000, trials=8)
    fitted = fit_rasch(passes, trials=8)
    np.testing.assert_allclose(fitted.abilities, abilities, atol=0.1)
    assert fitted.deviation == pytest.approx(1.5, abs=0.05)
    found = fitted.difficulties(passes)
    assert np.corrcoef(found, truth)[0, 1] > 0.95
    # Posterior means spread less than what they estimate.
    assert 0.85 * truth.std() < found.std() < truth.std()


def test_the_order_is_that_of_the_passes_if_all_models_were_asked():
    _, passes = draw([-1.0, 0.0, 1.0], 300)
    found, totals = fit_rasch(passes).difficulties(passes), passes.sum(axis=1)
    levels = [np.unique(found[totals == total]) for total in range(4)]
    assert [len(level) for level in levels] == [1] * 4
    assert (np.diff(np.concatenate(levels)) < 0).all()


def test_who_was_asked_counts():
    """A weak model's pass makes a problem easier than a strong model's."""
    _, passes = draw([-2.0, 2.0], 2000)
    passes[:500, 0] = passes[500:1000, 1] = np.nan
    fitted = fit_rasch(passes)
    by_strong, by_weak, by_none = fitted.difficulties(
        np.array([[np.nan, 1.0], [1.0, np.nan], [np.nan, np.nan]])
    )
    assert by_weak < by_strong - 0.5
    assert np.isnan(by_none)


def test_a_model_that_passes_everything_changes_nothing():
    _, passes = draw([-0.5, 0.5], 400)
    more = np.column_stack([passes, np.ones(400)])
    fitted = fit_rasch(more)
    assert fitted.abilities[2] > 8
    expected = fit_rasch(passes).difficulties(passes)
    np.testing.assert_allclose(fitted.difficulties(more), expected, atol=0.05)
