"""Replicates with two sources of noise, against what is known of their variances."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from experiments.analysis.draws import Draws
from experiments.analysis.noise import of_other_problems
from experiments.analysis.optimum import Study
from experiments.analysis.pilot import study_risks
from tests.experiments.worlds import CONFIG, world

LEVELS, MEAN = np.array([2, 4]), np.array([0.3, 0.5])


def normal(scale: float, seed: int) -> np.ndarray:
    return MEAN + scale * np.random.default_rng(seed).standard_normal((20_000, 2))


def test_variances_of_the_two_sources_add():
    draws = Draws(LEVELS, MEAN, normal(0.03, 0), normal(0.04, 1), num_members=3)
    members, problems = draws.variances()
    np.testing.assert_allclose(members, 0.03**2 * 3 / 2, rtol=0.05)
    np.testing.assert_allclose(problems, 0.04**2, rtol=0.05)
    # Satterthwaite: the share of the members' variance, squared, over their freedom.
    total = members + problems
    freedom = 2 / (members / total) ** 2
    expected = stats.t.ppf(0.95, freedom) * np.sqrt(total)
    np.testing.assert_allclose(draws.widths(), expected)
    np.testing.assert_allclose(draws.replicates.std(axis=0), 0.05, rtol=0.05)
    # Levels are independent here: the variance of a difference is the sum.
    (excess,) = draws.excess(0).values()
    assert excess.mean == pytest.approx(0.2)
    both, _ = draws.variances(0)
    assert both[0] == 0
    assert both[1] == pytest.approx(members.sum(), rel=0.05)


def test_members_alone_have_students_interval():
    draws = Draws(LEVELS, MEAN, normal(0.03, 0), None, num_members=3)
    expected = stats.t.ppf(0.95, 2) * 0.03 * np.sqrt(3 / 2)
    np.testing.assert_allclose(draws.widths(), expected, rtol=0.03)


def test_one_member_has_the_noise_of_the_problems_or_no_end():
    same = np.broadcast_to(MEAN, (20_000, 2))
    known = Draws(LEVELS, MEAN, same, normal(0.04, 1), num_members=1)
    np.testing.assert_allclose(known.widths(), stats.norm.ppf(0.95) * 0.04, rtol=0.03)
    assert np.isinf(Draws(LEVELS, MEAN, same, None, num_members=1).widths()).all()


def test_other_problems_give_binomial_noise():
    risks = study_risks(world(), Study("range"), CONFIG)
    pilot = risks.pilot(lambda metric: metric.mean)
    drawn = of_other_problems(pilot, risks, replicates=4000, seed=3)
    slices, train, _ = risks.num_asked
    assert drawn.slice_risk.shape == (4000, *pilot.slice_risk.shape)
    for mean, draws, number in (
        (pilot.slice_risk, drawn.slice_risk, slices),
        (pilot.train_risk, drawn.train_risk, train),
    ):
        deviation = np.sqrt(mean * (1 - mean) / number)
        inside = (mean > 0.05) & (mean < 0.95)
        np.testing.assert_allclose(draws.std(axis=0)[inside], deviation[inside], rtol=0.1)
        np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.01)
