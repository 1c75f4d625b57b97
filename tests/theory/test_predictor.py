"""Simulated pilots for which the best difficulty at a large data size is known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from theory import predictor
from theory.levels import half_level
from theory.predictor import (
    MARGIN,
    NAIVE,
    PREDICTOR,
    PRIOR_WEIGHT,
    RISK,
    RISKS,
    RULES,
    Pilot,
    choose,
    rank_correlation,
)

DIFFICULTIES = np.array([2, 4, 6, 9, 12])
SLICES = np.arange(1, 19)
SIZES = (16, 64)


def mixtures() -> np.ndarray:
    """Uniform on 1..d."""
    inside = DIFFICULTIES[:, None] >= SLICES
    return inside / inside.sum(axis=1, keepdims=True)


def world(sizes, *, need: float = 1.0, reach: float = 0.35) -> np.ndarray:
    """Slice risks [difficulty, data_size, slice]: harder data need more data, and reach further.

    −ln(accuracy) is what is not learnt from n examples, plus a part that grows with the distance
    of the slice from the training data and stays.
    """
    level = DIFFICULTIES[:, None, None]
    learnt = need * level**2 / np.asarray(sizes)[:, None]
    return -np.expm1(-learnt - reach * np.maximum(SLICES - level, 0))


def pilot_of(slice_risk: np.ndarray, sizes=SIZES, train_risk: float = 0.0) -> Pilot:
    """A pilot without noise; the in-distribution risk is the mixture of the slice risks."""
    fresh = np.einsum("...dns,ds->...dn", slice_risk, mixtures())
    test = np.full(len(SLICES), 1 / len(SLICES))
    train = np.minimum(train_risk, fresh)
    base = np.broadcast_to(np.arange(len(SLICES)) >= 5, slice_risk[..., 0, 0, :].shape)
    number = np.full(len(SLICES), 1000)
    return Pilot(
        DIFFICULTIES, np.array(sizes), train, fresh, slice_risk, mixtures(), test, base, number
    )


def random_pilot(generator: np.random.Generator, replicates: tuple[int, ...] = ()) -> Pilot:
    risks = generator.uniform(size=(*replicates, 5, 3, 18))
    fresh, train = generator.uniform(size=(2, *replicates, 5, 3))
    test = generator.dirichlet(np.ones(18))
    base = generator.uniform(size=(*replicates, 18))
    sizes, number = np.array([8, 20, 90]), generator.integers(1, 100, 18)
    return Pilot(DIFFICULTIES, sizes, train, fresh, risks, mixtures(), test, base, number)


@pytest.mark.parametrize("need", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("factor", [4, 16])
def test_the_predicted_risk_finds_the_known_optimum(need, factor):
    pilot = pilot_of(world(SIZES, need=need))
    data_size = factor * SIZES[-1]
    truth = world([data_size], need=need)[:, 0].mean(axis=1)
    scores = RULES[RISK](pilot, data_size)
    assert DIFFICULTIES[choose(scores)] == DIFFICULTIES[truth.argmin()]
    assert rank_correlation(scores, truth) >= 0.9
    np.testing.assert_allclose(scores, truth, atol=0.11)


def test_the_known_optimum_moves_and_staying_put_costs():
    pilot = pilot_of(world(SIZES))
    truth = world([1024])[:, 0].mean(axis=1)
    stay, moved = (choose(RULES[name](pilot, 1024)) for name in ("best in pilot", RISK))
    assert stay < moved
    assert predictor.regret(truth, stay) > predictor.regret(truth, moved) == 0


@pytest.mark.parametrize("name", RISKS)
def test_at_the_pilots_own_largest_size_two_sizes_are_reproduced(name):
    pilot = pilot_of(world(SIZES), train_risk=0.02)
    np.testing.assert_allclose(RULES[name](pilot, 64), pilot.test_risk[:, -1], atol=1e-9)


def test_the_prior_weighs_as_much_as_two_sizes_between_which_the_gap_changes_by_a_quarter():
    """As its docstring says: then the share of the decrease is halfway between mass and slope."""
    gaps = np.array([0.35, 0.10])
    train = np.zeros((1, 2))
    slices = np.stack([np.array([[0.5, 0.5]]), np.array([[0.5, 0.5]])], axis=-1)
    mixture = np.array([[1.0, 0.0]])
    half = np.array([0.5, 0.5])
    sizes, number = np.array([16, 64]), np.full(2, 100)
    pilot = Pilot(np.array([1]), sizes, train, gaps[None], slices, mixture, half, half, number)
    # The test risk does not move at all, and half of the test is at the training level.
    fallen = pilot.test_risk[0, -1] - RULES[RISK](pilot, 10**9)[0]
    assert fallen / gaps[-1] == pytest.approx(0.25, rel=0.06)


def inside(risk: float) -> float:
    return MARGIN + (1 - 2 * MARGIN) * risk


def outside(value: float) -> float:
    return min(max((value - MARGIN) / (1 - 2 * MARGIN), 0.0), 1.0)


def slow_in_distribution(train: float, fresh: float, ratio: float) -> float:
    """klinv(L, K / n) by bisection, where n is `ratio` times the size at which K is implied."""

    def kl(q, p):
        return q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))

    start = inside(train)
    radius = kl(start, inside(max(train, fresh))) / ratio
    low, high = start, 1 - 1e-12
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if kl(start, middle) <= radius else (low, middle)
    return outside(low)


def slow_bound(pilot: Pilot, ratio: float) -> list[float]:
    """The rule "bound" by loops over difficulties and data sizes."""
    predictions = []
    for d in range(len(pilot.difficulties)):
        risks, trains = pilot.test_risk[d], pilot.train_risk[d]
        freshes = pilot.in_distribution_risk[d]
        gaps = [max(fresh - train, 0) for train, fresh in zip(trains, freshes, strict=True)]
        pairs = zip(pilot.train_mixture[d], pilot.test_mixture, strict=True)
        top = PRIOR_WEIGHT * sum(tested for trained, tested in pairs if trained > 0)
        bottom = PRIOR_WEIGHT
        for gap, risk in zip(gaps, risks, strict=True):
            top += (gap - np.mean(gaps)) * (risk - np.mean(risks))
            bottom += (gap - np.mean(gaps)) ** 2
        left = slow_in_distribution(trains[-1], freshes[-1], ratio) - trains[-1]
        predictions.append(risks[-1] - top / bottom * (gaps[-1] - left))
    return predictions


@given(seed=st.integers(0, 2**32 - 1), ratio=st.floats(1.0, 30.0))
def test_the_predicted_risk_agrees_with_slow_loops(seed, ratio):
    pilot = random_pilot(np.random.default_rng(seed))
    np.testing.assert_allclose(RULES[RISK](pilot, 90 * ratio), slow_bound(pilot, ratio), atol=1e-7)


def test_the_predicted_risk_stops_where_the_gap_is_closed():
    pilot = pilot_of(world(SIZES), train_risk=0.02)
    gaps = pilot.in_distribution_risk - pilot.train_risk
    end = RULES[RISK](pilot, 1e12)
    np.testing.assert_allclose(RULES[RISK](pilot, 1e9), end, atol=1e-4)
    share = (pilot.test_risk[:, -1] - end) / gaps[:, -1]
    slope = np.diff(pilot.test_risk)[:, 0] / np.diff(gaps)[:, 0]
    mass = DIFFICULTIES / len(SLICES)
    assert np.all(np.minimum(slope, mass) - 1e-9 <= share)
    assert np.all(share <= np.maximum(slope, mass) + 1e-9)


def test_a_gap_that_does_not_move_leaves_the_slope_to_the_mixtures():
    pilot = pilot_of(np.full((5, 2, 18), 0.5))
    expected = 0.5 - DIFFICULTIES / len(SLICES) * 0.5
    np.testing.assert_allclose(RULES[RISK](pilot, 1e12), expected, atol=1e-5)


def test_without_any_gap_nothing_moves():
    pilot = pilot_of(world(SIZES), train_risk=1.0)
    np.testing.assert_array_equal(RULES[RISK](pilot, 1024), pilot.test_risk[:, -1])


@pytest.mark.parametrize("name", RULES)
def test_replicates_at_once_are_replicates_one_by_one(name):
    pilot = random_pilot(np.random.default_rng(0), (3, 2))
    together = RULES[name](pilot, 400)
    assert together.shape == (3, 2, 5)
    assert together.dtype == np.float64
    for index in np.ndindex(3, 2):
        names = ("train_risk", "in_distribution_risk", "slice_risk", "base_slice_risk")
        single = dataclasses.replace(pilot, **{n: getattr(pilot, n)[index] for n in names})
        np.testing.assert_allclose(RULES[name](single, 400), together[index], atol=1e-12)


@pytest.mark.parametrize(
    ("accuracy", "position"),
    [
        ([1.0, 0.8, 0.2, 0.0], 1.5),
        ([1.0, 0.5, 0.4, 0.0], 1.0),
        # The first fall below a half counts, whatever comes after.
        ([0.9, 0.4, 0.9, 0.1], 0.8),
        ([0.4, 0.3, 0.2, 0.1], 0.0),
        ([1.0, 0.9, 0.8, 0.5], 3.0),
    ],
)
def test_the_level_of_which_half_is_right(accuracy, position):
    assert half_level(np.array(accuracy)) == pytest.approx(position)


def test_the_share_that_the_base_gets_right_needs_no_scale_of_difficulty():
    """Of exactly d it gets 1, .8, .4, .1 and 0 right; of the levels 1 to d more."""
    base = 1 - np.interp(SLICES, [2, 4, 6, 9, 12], [1.0, 0.8, 0.4, 0.1, 0.0])
    exact = (DIFFICULTIES[:, None] == SLICES).astype(float)
    pilot = dataclasses.replace(pilot_of(world(SIZES)), train_mixture=exact, base_slice_risk=base)
    expected = [0.6, 0.4, 0.0, 0.3, 0.4]
    np.testing.assert_allclose(RULES["right share"](pilot, 64), expected, atol=1e-12)
    # The order of the slices does not matter.
    turned = dataclasses.replace(pilot, train_mixture=exact[:, ::-1], base_slice_risk=base[::-1])
    np.testing.assert_allclose(RULES["right share"](turned, 64), expected, atol=1e-12)
    mixed = dataclasses.replace(pilot, train_mixture=mixtures())
    share = np.array([(1 - base)[:d].mean() for d in DIFFICULTIES])
    np.testing.assert_allclose(RULES["right share"](mixed, 64), abs(share - 0.4), atol=1e-12)


def few_problems(pilot: Pilot, number: int) -> Pilot:
    return dataclasses.replace(pilot, slice_examples=np.full(len(SLICES), number))


def test_the_rule_takes_what_the_base_would_unless_the_pilot_can_tell_better():
    knows_three = (SLICES > 3).astype(float)
    pilot = dataclasses.replace(pilot_of(world(SIZES)), base_slice_risk=knows_three)
    base, pilots = (choose(RULES[name](pilot, 1024)) for name in ("right share", RISK))
    assert base != pilots
    # Risks of few problems cannot be told apart; those of very many can.
    assert choose(RULES[PREDICTOR](few_problems(pilot, 1), 1024)) == base
    assert choose(RULES[PREDICTOR](few_problems(pilot, 10**9), 1024)) == pilots


def slow_nearest_candidate(pilot: Pilot, ratio: float) -> list[float]:
    """The rule "nearest candidate" by loops over difficulties and slices."""
    predicted, errors, distances = slow_bound(pilot, ratio), [], []
    for d in range(len(pilot.difficulties)):
        variance = right = 0.0
        for at, share in enumerate(pilot.test_mixture):
            number = pilot.slice_examples[at]
            risk = (pilot.slice_risk[d, -1, at] * number + 0.5) / (number + 1)
            variance += share**2 * risk * (1 - risk) / number
            right += pilot.train_mixture[d, at] * (1 - pilot.base_slice_risk[at])
        errors.append(math.sqrt(variance))
        distances.append(abs(right - 0.4))
    least = predicted.index(min(predicted))
    return [
        distance
        if risk - predicted[least] <= 1.6448536 * math.hypot(error, errors[least])
        else math.inf
        for risk, error, distance in zip(predicted, errors, distances, strict=True)
    ]


@given(seed=st.integers(0, 2**32 - 1), ratio=st.floats(1.0, 30.0))
def test_the_rule_agrees_with_slow_loops(seed, ratio):
    pilot = random_pilot(np.random.default_rng(seed))
    expected = slow_nearest_candidate(pilot, ratio)
    np.testing.assert_allclose(RULES[PREDICTOR](pilot, 90 * ratio), expected, atol=1e-7)


@pytest.mark.parametrize("risk", [0.0, 1.0])
def test_of_a_base_that_knows_all_or_nothing_the_prediction_decides(risk):
    pilot = dataclasses.replace(pilot_of(world(SIZES)), base_slice_risk=np.full(18, risk))
    np.testing.assert_array_equal(RULES[PREDICTOR](pilot, 1024), RULES[RISK](pilot, 1024))


def test_naive_rules_choose_what_they_say():
    pilot = pilot_of(world(SIZES))
    chosen = {name: int(DIFFICULTIES[choose(RULES[name](pilot, 1024))]) for name in NAIVE}
    measured = int(DIFFICULTIES[pilot.test_risk[:, -1].argmin()])
    assert chosen == {"easiest": 2, "medium": 6, "hardest": 12, "best in pilot": measured}


def test_medium_of_an_even_number_is_the_easier_one():
    pilot = pilot_of(world(SIZES))
    four = Pilot(
        pilot.difficulties[:4],
        pilot.data_sizes,
        pilot.train_risk[:4],
        pilot.in_distribution_risk[:4],
        pilot.slice_risk[:4],
        pilot.train_mixture[:4],
        pilot.test_mixture,
        pilot.base_slice_risk,
        pilot.slice_examples,
    )
    assert choose(RULES["medium"](four, 1024)) == 1


def test_implied_complexity():
    # n · kl(.01 ‖ .5), both moved inside by the margin of .01.
    assert predictor.implied_complexity(0.0, 0.5, 10) == pytest.approx(6.3714548)
    assert predictor.implied_complexity(0.3, 0.3, 10) == 0
    assert predictor.implied_complexity(0.4, 0.3, 10) == 0
    assert np.isfinite(predictor.implied_complexity(0.0, 1.0, 10))
    sizes = np.array([16, 64, 256])
    fresh = -np.expm1(np.log(0.5) * 16 / sizes)
    # With a train risk of 0, a constant K means an accuracy of exp(-K / n), up to the margin.
    complexity = predictor.implied_complexity(np.zeros(3), fresh, sizes)
    np.testing.assert_allclose(complexity, 16 * math.log(2), rtol=0.4)


def test_regret_is_zero_for_the_oracle_alone():
    risk = np.random.default_rng(0).uniform(size=(50, 5))
    assert np.all(predictor.regret(risk, choose(risk)) == 0)
    every = np.stack([predictor.regret(risk, np.full(50, level)) for level in range(5)], axis=1)
    assert np.all(every >= 0)
    np.testing.assert_allclose(every, risk - risk.min(axis=1, keepdims=True))
    with pytest.raises(ValueError, match="test_risk must be known at every difficulty"):
        predictor.regret([0.1, np.nan], 0)


def test_ties_go_to_the_easier_difficulty():
    assert choose([0.5, 0.2, 0.2]) == 1


def test_rank_correlation_is_spearmans():
    first, second = np.random.default_rng(1).integers(0, 4, size=(2, 30, 6))
    with np.errstate(invalid="ignore"):
        expected = np.array([stats.spearmanr(a, b)[0] for a, b in zip(first, second, strict=True)])
    np.testing.assert_allclose(rank_correlation(first, second), expected)
    assert np.isnan(rank_correlation([1.0, 1.0], [0.1, 0.2]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_sizes": [64]}, "data_sizes must be at least 2 increasing numbers from 1"),
        ({"data_sizes": [64, 16]}, "data_sizes must be at least 2 increasing numbers from 1"),
        ({"data_sizes": [0, 16]}, "data_sizes must be at least 2 increasing numbers from 1"),
        ({"difficulties": [2, 2, 6, 9, 12]}, "difficulties must be at least 1 increasing"),
        ({"train_risk": np.zeros((5, 3))}, r"train_risk must have shape \(5, 2\)"),
        ({"slice_risk": np.zeros((5, 2, 4))}, r"slice_risk must have shape \(5, 2, 18\)"),
        ({"train_risk": np.full((5, 2), np.nan)}, r"train_risk must lie in \[0, 1\].*nan"),
        ({"slice_risk": np.full((5, 2, 18), 1.5)}, r"slice_risk must lie in \[0, 1\].*1.5"),
        ({"test_mixture": np.full(18, -0.1)}, r"test_mixture must lie in \[0, 1\].*-0.1"),
        ({"train_mixture": np.ones((4, 18))}, r"train_mixture must have shape \(5, 18\)"),
        ({"slice_examples": np.zeros(18)}, "slice_examples must be positive everywhere, got"),
        ({"slice_examples": np.full(18, np.inf)}, "slice_examples must be positive everywhere"),
        ({"slice_examples": np.ones(5)}, r"slice_examples must have shape \(18,\)"),
    ],
)
def test_bad_pilots_are_refused(change, message):
    pilot = pilot_of(world(SIZES))
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(pilot, **change)


@pytest.mark.parametrize("name", ["bound", "nearest candidate"])
def test_no_fit_looks_back(name):
    with pytest.raises(ValueError, match="data_size must be at least the pilot's largest, 64"):
        RULES[name](pilot_of(world(SIZES)), 32)
