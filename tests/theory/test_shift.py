"""Maps from training risk to test risk: printed values, validity, tightness, coverage."""

from __future__ import annotations

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from theory import shift
from theory.divergence import kl_inverse

LEVELS = np.arange(1, 11)
UNIFORM = np.full(10, 0.1)
LOGISTIC = 1 / (1 + np.exp(7.0 - LEVELS))  # the one logistic risk with all the printed values
EASY = np.where(LEVELS <= 3, 1 / 3, 0.0)
MIDDLE = np.where((LEVELS >= 4) & (LEVELS <= 6), 1 / 3, 0.0)
STEEPEST = float(np.diff(LOGISTIC).max())

risks = st.floats(0, 1)


@st.composite
def shifts(draw):
    """Slice risks, test and training distributions over the same levels, zeros among them."""
    size = draw(st.integers(1, 8))
    weights = hypothesis.extra.numpy.arrays(
        float, size, elements=st.floats(0.001, 1) | st.just(0.0)
    )
    test, train = (draw(weights.filter(np.any)) for _ in range(2))
    slice_risk = draw(hypothesis.extra.numpy.arrays(float, size, elements=risks))
    return slice_risk, test / test.sum(), train / train.sum()


def levels(*values: float) -> np.ndarray:
    return np.array(values)


def mix(share: float) -> np.ndarray:
    return (1 - share) * EASY + share * UNIFORM


@pytest.mark.parametrize(
    ("train", "training_risk", "expected"),
    [
        (EASY, 0.009, {"total_variation": 0.71}),
        (MIDDLE, 0.145, {"total_variation": 0.85}),
        (
            mix(0.1),
            0.043,
            {"total_variation": 0.67, "importance": 0.43, "kl_dro": 0.61, "chi_square": 0.55},
        ),
        (
            mix(0.3),
            0.112,
            {"total_variation": 0.60, "importance": 0.37, "kl_dro": 0.54, "chi_square": 0.49},
        ),
    ],
)
def test_printed_values(train, training_risk, expected):
    assert round(float(LOGISTIC @ UNIFORM), 3) == 0.353
    assert round(float(LOGISTIC @ train), 3) == training_risk
    for name, value in expected.items():
        bound = shift.UNCONDITIONAL[name](LOGISTIC @ train, UNIFORM, train)
        assert round(float(bound.values), 2) == value
        assert (bound.layer, bound.method, bound.num_labelled) == ("unconditional", name, 0)


def test_printed_values_of_the_lipschitz_map():
    def value(train):
        return float(shift.lipschitz(LOGISTIC @ train, UNIFORM, train, constant=STEEPEST).values)

    assert round(value(EASY), 2) == 0.82
    # What is printed for this one is the constant times W1 alone.
    assert round(value(MIDDLE) - float(LOGISTIC @ MIDDLE), 2) == 0.42


@pytest.mark.parametrize("name", shift.UNCONDITIONAL)
def test_only_one_holds_where_test_and_training_are_disjoint(name):
    bound = shift.UNCONDITIONAL[name]([0.0, 0.3, 1.0], [0, 0, 1], [0.5, 0.5, 0])
    np.testing.assert_array_equal(bound.values, 1.0)


@pytest.mark.parametrize("name", shift.UNCONDITIONAL)
def test_no_shift_leaves_the_bound_as_it_is(name):
    bound = np.linspace(0, 1, 11)
    mapped = shift.UNCONDITIONAL[name](bound, UNIFORM, UNIFORM)
    np.testing.assert_allclose(mapped.values, bound, atol=1e-7)  # kl is flat at its minimum


@hypothesis.given(shifts())
@hypothesis.settings(max_examples=100)
def test_the_gap_is_the_sum_over_increments(drawn):
    slice_risk, test, train = drawn
    gap = shift.extrapolation_gap(slice_risk, test, train)
    assert gap == pytest.approx(slice_risk @ test - slice_risk @ train, abs=1e-12)
    assert shift.gap_by_increments(slice_risk, test, train) == pytest.approx(gap, abs=1e-12)


def test_gaps_of_many_posteriors_at_once():
    slice_risk = np.stack([LOGISTIC, LOGISTIC[::-1]])
    gaps = shift.extrapolation_gap(slice_risk, UNIFORM, EASY)
    assert gaps.shape == (2,)
    np.testing.assert_allclose(gaps, shift.gap_by_increments(slice_risk, UNIFORM, EASY))


@hypothesis.given(shifts(), risks)
@hypothesis.settings(max_examples=100)
def test_unconditional_maps_hold_for_any_risks(drawn, slack):
    slice_risk, test, train = drawn
    training_risk = min(slice_risk @ train, 1.0)
    bounds = training_risk + np.array([0.0, slack * (1 - training_risk)])
    least = shift.unconditional(bounds, test, train)
    assert (least.layer, least.method) == ("unconditional", "minimum")
    for bound in shift.UNCONDITIONAL.values():
        values = bound(bounds, test, train).values
        assert values.shape == bounds.shape
        assert ((values >= slice_risk @ test - 1e-12) & (values <= 1)).all()
        assert (least.values <= values).all()
        assert values[1] >= values[0] - 1e-12


@hypothesis.given(shifts(), risks)
@hypothesis.settings(max_examples=100)
def test_neyman_pearson_is_the_worst_case_itself(drawn, bound):
    _, test, train = drawn
    worst = scipy.optimize.linprog(-test, A_ub=train[None], b_ub=[bound], bounds=(0, 1))
    value = shift.neyman_pearson(bound, test, train).values
    assert value == pytest.approx(-worst.fun, abs=1e-7)
    assert value == pytest.approx(shift.unconditional(bound, test, train).values, abs=1e-12)


@pytest.mark.parametrize("name", shift.UNCONDITIONAL)
def test_unconditional_maps_rise_with_the_bound(name):
    for train in (mix(0.1), mix(0.9), EASY):
        values = shift.UNCONDITIONAL[name](np.linspace(0, 1, 1001), UNIFORM, train).values
        assert (np.diff(values) >= -1e-12).all()


@hypothesis.given(shifts())
@hypothesis.settings(max_examples=100)
def test_conditional_maps_hold_under_their_assumption(drawn):
    slice_risk, test, train = drawn
    rising = np.sort(slice_risk)
    by_monotone = shift.monotone(rising @ train, test, train)
    assert rising @ test <= by_monotone.values + 1e-12
    assert by_monotone.values <= shift.total_variation(rising @ train, test, train).values + 1e-12
    rises = np.diff(slice_risk)
    constant = float(np.abs(rises).max(initial=0.0))
    training_risk = min(slice_risk @ train, 1.0)
    by_constant = shift.lipschitz(training_risk, test, train, constant=constant)
    assert slice_risk @ test <= by_constant.values + 1e-12
    same = np.full_like(rises, constant)
    limits = shift.increments(training_risk, test, train, least=-same, most=same)
    assert limits.values == pytest.approx(by_constant.values, abs=1e-12)
    exact = shift.increments(training_risk, test, train, least=rises, most=rises)
    assert exact.values == pytest.approx(slice_risk @ test, abs=1e-12)
    wider = shift.increments(training_risk, test, train, least=rises - 0.1, most=rises + 0.2)
    assert wider.values >= exact.values
    assert {bound.layer for bound in (by_constant, limits)} == {"conditional"}


def test_weights_inside_the_bound_cover_the_test_risk_and_beat_the_largest_weight():
    """2000 samples of 200 examples; errors at level 1, where test/train is small."""
    delta, n = 0.05, 200
    test, train = levels(0.2, 0.8), levels(0.6, 0.4)
    ratio, slice_risk = test / train, levels(0.3, 0.02)
    generator = np.random.default_rng(0)
    drawn = generator.choice(2, (2000, n), p=train)
    wrong = generator.random((2000, n)) < slice_risk[drawn]
    radius = np.log(1 / delta) / n  # one fixed predictor
    weighted = (wrong * ratio[drawn]).mean(axis=1) / ratio.max()
    bounds = np.minimum(shift.weighted_importance(weighted, radius, test, train).values, 1)
    violations = int((bounds < slice_risk @ test).sum())
    assert scipy.stats.binomtest(violations, 2000).proportion_ci(method="exact").low <= delta
    largest = shift.importance(kl_inverse(wrong.mean(axis=1), radius), test, train).values
    assert (bounds < largest).mean() > 0.99
    unseen = shift.weighted_importance(0.0, radius, test, levels(1.0, 0.0))
    assert unseen.values == 1.0


def test_training_on_harder_data_leaves_no_gap_while_the_risk_is_monotone():
    bound = np.array([0.2, 0.7])
    np.testing.assert_allclose(shift.monotone(bound, EASY, MIDDLE).values, bound)
    np.testing.assert_allclose(shift.monotone(bound, MIDDLE, EASY).values, 1.0)
    forgetful = LOGISTIC[::-1]
    assert forgetful @ EASY > shift.monotone(forgetful @ MIDDLE, EASY, MIDDLE).values


def test_assumptions_are_checked_within_the_intervals():
    assert shift.is_monotone(LOGISTIC, LOGISTIC)
    dented = LOGISTIC.copy()
    dented[4] += 0.2
    assert not shift.is_monotone(dented, dented)
    assert shift.is_monotone(dented - 0.1, dented + 0.1)
    # No neighbours contradict each other here, but the first and the last level do.
    assert not shift.is_monotone(levels(0.5, 0.0, 0.0), levels(0.6, 1.0, 0.4))
    assert shift.is_lipschitz(LOGISTIC, LOGISTIC, STEEPEST)
    assert not shift.is_lipschitz(LOGISTIC, LOGISTIC, STEEPEST - 0.001)
    assert not shift.is_lipschitz(levels(0.0, 0.0, 0.9), levels(0.1, 1.0, 1.0), 0.3)
    assert shift.is_lipschitz(levels(0.0, 0.0, 0.9), levels(0.1, 1.0, 1.0), 0.4)
    rises = np.diff(LOGISTIC)
    assert shift.has_increments(LOGISTIC, LOGISTIC, rises - 1e-12, rises + 1e-12)
    assert not shift.has_increments(LOGISTIC, LOGISTIC, rises + 0.01, rises + 0.02)


def test_probes_buy_a_bound_on_the_test_risk():
    errors, examples = np.array([0, 3, 0]), np.array([10, 20, 0])
    bound = shift.probe(errors, examples, levels(0.5, 0.25, 0.25), delta=0.04)
    upper = scipy.stats.beta.ppf(1 - 0.02, errors[:2] + 1, examples[:2] - errors[:2])
    assert bound.values == pytest.approx([*upper, 1.0] @ np.array([0.5, 0.25, 0.25]), abs=1e-9)
    assert (bound.layer, bound.method, bound.num_labelled) == ("probe-certified", "probe", 30)


def test_intervals_for_all_slices():
    errors, examples = np.array([0, 3, 20, 0]), np.array([10, 20, 20, 0])
    lower, upper = shift.slice_intervals(errors, examples, delta=0.06)
    for level in range(3):
        test = scipy.stats.binomtest(int(errors[level]), int(examples[level]))
        exact = test.proportion_ci(1 - 0.02, method="exact")
        assert (lower[level], upper[level]) == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert (lower[3], upper[3]) == (0.0, 1.0)
    least, most = shift.increment_intervals(lower, upper)
    assert least.shape == most.shape == (3,)
    assert (least[0], most[0]) == (lower[1] - upper[0], upper[1] - lower[0])


def test_probes_cover_all_levels_at_once():
    delta, num_levels, data_sets = 0.05, 20, 4000
    generator = np.random.default_rng(0)
    risk = np.linspace(0.02, 0.9, num_levels)
    examples = np.full(num_levels, 40)
    errors = generator.binomial(examples, risk, size=(data_sets, num_levels))

    def at_least(upper):
        """A lower limit, at 99.9%, on the probability that some level is not covered."""
        violated = int((risk > upper).any(axis=1).sum())
        return scipy.stats.beta.ppf(0.001, violated, data_sets - violated + 1) if violated else 0.0

    assert at_least(shift.slice_upper_bounds(errors, examples, delta=delta)) <= delta
    # The same without the split: each level gets all of delta.
    alone = [
        shift.slice_upper_bounds(errors[:, [level]], examples[[level]], delta=delta)
        for level in range(num_levels)
    ]
    assert at_least(np.concatenate(alone, axis=1)) > 5 * delta
    bound = shift.probe(errors, examples, np.full(num_levels, 1 / num_levels), delta=delta).values
    assert bound.shape == (data_sets,)
    assert (bound >= risk.mean()).mean() >= 1 - delta


HALVES = np.array([0.5, 0.5])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shift.unconditional(1.2, HALVES, HALVES), r"risk_bound must lie in .* 1\.2"),
        (lambda: shift.unconditional(np.nan, HALVES, HALVES), "risk_bound must lie"),
        (lambda: shift.importance(0.1, levels(0.5, 0.6), HALVES), "test must be probabilities"),
        (lambda: shift.chi_square(0.1, HALVES, levels(1.5, -0.5)), "train must be probabilities"),
        (lambda: shift.monotone(0.1, levels(1.0), HALVES), "same levels, got 1 and 2"),
        (lambda: shift.lipschitz(0.1, HALVES, HALVES, constant=-1), "constant must lie"),
        (
            lambda: shift.increments(0.1, HALVES, HALVES, least=levels(0.2), most=levels(0.1)),
            "least <= most",
        ),
        (
            lambda: shift.increments(0.1, HALVES, HALVES, least=levels(), most=levels()),
            r"shape \[1\]",
        ),
        (lambda: shift.extrapolation_gap(levels(0.1, 0.1, 0.1), HALVES, HALVES), r"\[\.\.\., 2\]"),
        (lambda: shift.is_monotone(levels(0.2, 0.3), levels(0.1, 0.4)), "lower <= upper"),
        (
            lambda: shift.probe(levels(1, 2), levels(1, 1), HALVES, delta=0.05),
            "num_errors must be at most",
        ),
        (
            lambda: shift.probe(levels(0.5, 1), levels(1, 1), HALVES, delta=0.05),
            "num_errors must be an integer",
        ),
        (
            lambda: shift.probe(levels(0, 0), levels(0, 0), HALVES, delta=0.05),
            "num_examples must be counts",
        ),
        (
            lambda: shift.probe(levels(0), levels(1), HALVES, delta=0.05),
            "num_examples must have shape",
        ),
        (lambda: shift.probe(levels(0, 0), levels(1, 1), HALVES, delta=1.0), "delta must lie in"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
