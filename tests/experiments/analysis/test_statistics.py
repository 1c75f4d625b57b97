"""Intervals and tests over bases: known answers, and how often they hold in simulated studies."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from experiments.analysis import coverage, optimum, statistics, vertex
from experiments.analysis.optimum import Study

LEVELS = np.arange(4.0, 14.0)


def study(optima, *, bends=0.01, noise=0.002, bases=8, seed=0):
    """Parabolas with independent noise [level, size, base]."""
    generator = np.random.default_rng(seed)
    curve = 0.5 + bends / 2 * (LEVELS[:, None] - np.array(optima)) ** 2
    return curve[:, :, None] + noise * generator.standard_normal((*curve.shape, bases))


def optima_of(risk, levels=LEVELS):
    return [vertex.optimum(levels, each) for each in risk.swapaxes(0, 1)]


def test_students_interval_is_scipys():
    values = np.array([0.1, 0.4, 0.2, 0.35, np.nan])
    found, expected = statistics.estimate(values), stats.ttest_1samp(values[:4], 0)
    assert (found.low, found.high) == pytest.approx(expected.confidence_interval(0.9))
    assert (found.p, found.number) == (pytest.approx(expected[1]), 4)
    assert str(found) == f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


def test_one_base_has_a_mean_without_an_interval():
    alone = statistics.estimate(np.array([0.25]))
    assert (alone.mean, alone.number, str(alone)) == (0.25, 1, "0.250")
    assert np.isnan([alone.low, alone.high, alone.p]).all()
    assert str(statistics.estimate(np.array([np.nan]))) == "–"


def test_sign_test_drops_ties_and_is_exact():
    found = statistics.sign_test(np.array([1, 2, 3, 0.5, 1, 4, 2, -1, 0, 0, np.nan]))
    assert (found.positive, found.negative, found.ties) == (7, 1, 2)
    assert found.p == pytest.approx(stats.binomtest(7, 8, alternative="greater").pvalue)
    assert str(found) == "7 of 8, 2 tied, p = 0.035"
    assert statistics.sign_test(np.zeros(3)).p == 1.0
    assert statistics.sign_test(-np.ones(3)).p == 1.0


def test_trend_is_the_sign_of_pages_statistic():
    rising = np.array([[1, 2, 3, 4], [1, 3, 2, 4], [2, 1, 3, 4], [4, 3, 1, 2], [2, 2, 2, 2]]).T
    # Distances of Page's statistics from 25: 5, 4, 4, -4 and 0.
    found = statistics.trend(rising)
    assert (found.positive, found.negative, found.ties) == (3, 1, 1)
    assert statistics.trend(rising[::-1]).positive == 1
    gaps = np.where(np.arange(5) == 0, np.nan, rising)
    assert statistics.trend(gaps).positive == 2
    assert statistics.trend(np.full((3, 4), np.nan)).p == 1


def test_interaction_is_positive_where_hard_data_gain():
    risk = np.zeros((2, 3, 4))
    risk[1, 0] = [0.1, 0.2, 0.1, 0.2]
    found = statistics.interaction(risk, easy=0, hard=1)
    assert (found.mean, found.number) == (pytest.approx(0.15), 4)
    assert found.low > 0


def test_optimum_lies_between_the_levels_of_the_grid():
    first, last = optima_of(study([7.3, 9.6]))
    assert first.position == pytest.approx(7.3, abs=0.1)
    assert last.position == pytest.approx(9.6, abs=0.1)
    assert first.low < first.position < first.high
    assert first.high - first.low < 0.5
    assert (first.level, first.censored, first.tied) == (7.0, "", False)
    assert set(first.best) <= {6.0, 7.0, 8.0}
    assert np.mean(first.own) == pytest.approx(first.position)


@pytest.mark.parametrize(("truth", "edge", "is_open"), [(2, "easiest", 0), (15, "hardest", 1)])
def test_an_optimum_beyond_the_grid_is_a_half_open_interval(truth, edge, is_open):
    (found,) = optima_of(study([truth]))
    assert found.censored == edge
    ends = [found.low, found.high]
    assert np.isinf(ends).tolist() == [is_open == 0, is_open == 1]
    assert ends[1 - is_open] == pytest.approx([4.0, 13.0][is_open], abs=0.3)


def test_levels_that_noise_hides_are_tied_and_have_no_bounded_optimum():
    (found,) = optima_of(study([8], bends=0.0, noise=0.02, seed=1))
    assert found.tied
    assert len(found.best) == len(LEVELS)
    assert (found.low, found.high) == (-np.inf, np.inf)


def test_a_move_is_found_and_its_open_ends_are_told():
    moved = vertex.move(optima_of(study([7, 8, 9])))
    assert moved.low < 2 < moved.high
    assert moved.low > 1
    assert (moved.signs.positive, moved.signs.p) == (8, 2**-8)
    assert moved.trend.p == 2**-8
    beyond = vertex.move(optima_of(study([9, 16])))
    assert beyond.mean == pytest.approx(4, abs=0.2)
    assert beyond.low > 3
    assert beyond.high == np.inf
    back = vertex.move(optima_of(study([16, 9])))
    assert back.low == -np.inf
    assert back.high < -3


def test_without_noise_everything_is_certain():
    risk = study([7, 7, 7], noise=0.0)
    (found, *_) = optima = optima_of(risk)
    assert found.best == (7.0,)
    assert found.high - found.low < 0.02
    moved = vertex.move(optima)
    assert moved.mean == pytest.approx(0, abs=1e-6)
    assert (moved.low, moved.high) == (pytest.approx(0, abs=0.01), pytest.approx(0, abs=0.01))


def test_cells_and_bases_that_diverged_are_left_out():
    risk = study([7, 9])
    whole = vertex.optimum(LEVELS[:9], np.delete(risk[:9, 0], 3, axis=1))
    risk[9, 0] = np.nan
    risk[0, 0, 3] = np.nan
    found, last = optima_of(risk)
    assert found.position == whole.position
    assert (found.low, found.high) == (whole.low, whole.high)
    assert np.isnan(found.own).tolist() == [base == 3 for base in range(8)]
    assert vertex.move([found, last]).signs.positive == 7
    with pytest.raises(ValueError, match="no level has a finished member"):
        vertex.optimum(LEVELS, np.full((10, 8), np.nan))


def test_where_no_parabola_fits_fewer_levels_are_taken():
    """A curve that saturates: its best level is clear, but the parabola of all levels is not."""
    levels = np.array([4.0, 6, 9, 12, 16])
    curve = np.array([0.837, 0.817, 0.937, 0.986, 0.993])
    noise = 0.01 * np.random.default_rng(0).standard_normal((5, 8))
    found = vertex.optimum(levels, curve[:, None] + noise)
    assert found.level == 6
    assert 4.5 < found.low < found.position < found.high < 7


def test_two_levels_or_one_base_give_no_interval():
    two = vertex.optimum(LEVELS[:2], study([4])[:2, 0])
    assert (two.level, two.position, two.censored) == (4.0, 4.0, "easiest")
    assert (two.low, two.high) == (-np.inf, np.inf)
    alone = optima_of(study([7, 9], bases=1))
    assert alone[0].position == pytest.approx(7, abs=0.3)
    assert np.isnan([alone[0].low, alone[0].high]).all()
    moved = vertex.move(alone)
    assert moved.mean == pytest.approx(2, abs=0.5)
    assert np.isnan([moved.low, moved.high]).all()


def test_honest_risk_is_measured_on_the_base_left_out():
    risk = np.array([[0.1, 0.5, 0.2], [0.2, 0.2, 0.2]])[:, None]
    # Level 1 is better without base 0 or 2, level 0 without base 1.
    assert statistics.honest_risk(risk).tolist() == [[0.2, 0.5, 0.2]]
    assert np.isnan(statistics.honest_risk(risk[..., :1])).all()
    flat = study([8], bends=0.0, noise=0.05, bases=30, seed=3)
    assert flat.mean(axis=2).min() < 0.49
    assert statistics.honest_risk(flat).mean() == pytest.approx(0.5, abs=0.02)


def test_holm_and_fisher():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
    ps = [0.1, 0.02, 1.0]
    assert statistics.fisher(ps) == pytest.approx(stats.combine_pvalues(ps)[1])


def test_units_are_bases_or_else_seeds(make_table):
    many = optimum.cube(make_table(diverged=((6, 16, 0, 0),)), Study("range"), "test_risk")
    assert (many.unit, many.units.shape) == ("base", (5, 4, 4))
    np.testing.assert_allclose(many.units, np.nanmean(many.values, axis=3))
    one = many.only(bases=np.arange(4) == 0)
    assert (one.unit, one.units.shape) == ("seed", (5, 4, 4))
    assert np.isnan(one.units).sum() == 1


def check(shares, slack):
    """Every share within its bar, up to `slack`; open intervals may hold more often."""
    for row in shares.to_dict("records"):
        low, high = coverage.BARS.get(row["kind"], (-np.inf, np.inf))
        assert row["share"] >= low - slack, row
        if "d*" not in row["name"]:
            assert row["share"] <= high + slack, row


def test_the_statistics_hold_in_simulated_studies():
    shares = coverage.coverage(120, worlds=coverage.WORLDS[:2], designs=(8,))
    check(shares, 0.08)


@pytest.mark.slow
def test_the_statistics_hold_in_many_simulated_studies():
    check(coverage.coverage(1000, seed=1), 0.025)


def test_simulated_studies_are_what_they_say():
    world = dataclasses.replace(coverage.WORLDS[0], spread=(0.5, 2.0))
    risk = world.draw(4000, np.random.default_rng(0))
    np.testing.assert_allclose(risk.mean(axis=2), world.curves, atol=0.002)
    variance = coverage.BASE**2 + coverage.TEST**2
    for level, spread in ((0, 0.5), (-1, 2.0)):
        expected = np.sqrt(variance + (spread * coverage.SEED) ** 2)
        assert risk[level, 0].std() == pytest.approx(expected, rel=0.05)
