"""Contracts of all bounds, golden values, and relations between the bounds."""

import doctest
import importlib
import inspect
import math
import pkgutil

import jax
import mpmath
import numpy as np
import pytest
import scipy.stats

import theory
import theory.bounds
from theory.bounds import (
    BOUNDS,
    catoni,
    catoni_grid,
    chernoff,
    clopper_pearson,
    countable_grid_kl,
    description_length_kl,
    finite_grid_kl,
    gibbs_posterior,
    langford_seeger,
    mcallester,
    mcallester_maurer,
    monte_carlo_risk,
    occam,
    pac_bayes_kl,
    quadratic,
    sample_compression,
    thiemann,
)
from theory.divergence import kl_inverse

TEST_SET = {"chernoff", "clopper_pearson"}
POINT_MASS = {"occam", "sample_compression"}
MODULES = [
    f"theory.bounds.{module.name}" for module in pkgutil.iter_modules(theory.bounds.__path__)
]
RISKS = np.arange(0, 101, 5) / 100
ORDINARY = {"num_examples": 100, "delta": 0.05}


def ordinary_kl(name: str) -> float:
    return 0.0 if name in TEST_SET else 3.0


@pytest.fixture(params=BOUNDS)
def named(request):
    return request.param, BOUNDS[request.param]


def test_every_bound_is_listed_and_exported():
    takes_a_risk = set()
    for module in MODULES:
        for name, function in inspect.getmembers(importlib.import_module(module)):
            if inspect.isfunction(function) and function.__module__ == module:
                first = list(inspect.signature(function).parameters)[:2]
                if first == ["empirical_risk", "kl"] and not name.startswith("check"):
                    takes_a_risk.add(name)
    assert takes_a_risk == set(BOUNDS)
    for name, bound in BOUNDS.items():
        assert getattr(theory, name) is getattr(theory.bounds, name) is bound
        assert name in theory.__all__


def test_signature(named):
    parameters = inspect.signature(named[1]).parameters
    assert list(parameters)[:4] == ["empirical_risk", "kl", "num_examples", "delta"]
    for name, parameter in list(parameters.items())[2:]:
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert (parameter.default is inspect.Parameter.empty) == (name in ORDINARY)


def test_docstring(named):
    for section in ("Args:", "Raises:", "Valid when:", "References:", "Example:"):
        assert section in named[1].__doc__


@pytest.mark.parametrize("module", ["theory.divergence", *MODULES])
def test_examples_in_docstrings(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_values_lie_between_the_empirical_risk_and_1(named):
    name, bound = named
    values = bound(RISKS, ordinary_kl(name), **ORDINARY)
    assert values.dtype == np.float64
    assert np.all((values >= RISKS) & (values <= 1))
    assert values[0] > 0
    assert values[-1] == 1


def test_monotone_in_every_argument(named):
    name, bound = named
    kl = ordinary_kl(name)
    sizes = 20 * 2 ** np.arange(15)
    deltas = np.geomspace(1e-9, 0.9, 40)
    rises = [
        bound(RISKS, kl, **ORDINARY),
        bound(0.25, kl, num_examples=sizes[::-1], delta=0.05),
        bound(0.25, kl, num_examples=1000, delta=deltas[::-1]),
    ]
    if name not in TEST_SET:
        rises.append(bound(0.25, np.linspace(0, 400, 40), num_examples=1000, delta=0.05))
    for values in rises:
        assert np.all(np.diff(values) >= 0)
        assert values[0] < values[-1]


def test_scalars_and_arrays_agree(named):
    name, bound = named
    risks, sizes = np.array([0.0, 0.25, 0.5])[:, np.newaxis], np.array([8, 100, 5000, 20_000])
    deltas = np.array([0.01, 0.1])[:, np.newaxis, np.newaxis]
    whole = bound(risks, ordinary_kl(name), num_examples=sizes, delta=deltas)
    assert whole.shape == (2, 3, 4)
    for (i, j, k), value in np.ndenumerate(whole):
        single = bound(
            float(risks[j, 0]),
            ordinary_kl(name),
            num_examples=int(sizes[k]),
            delta=float(deltas[i, 0, 0]),
        )
        assert type(single) is np.float64
        assert single == pytest.approx(value, rel=1e-14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"empirical_risk": -0.1}, "empirical_risk must lie in"),
        ({"empirical_risk": 1.01}, "empirical_risk must lie in"),
        ({"empirical_risk": math.nan}, "empirical_risk must lie in"),
        ({"kl": -1.0}, "kl must lie in"),
        ({"kl": math.nan}, "kl must lie in"),
        ({"num_examples": 0}, "num_examples must be at least"),
        ({"num_examples": 100.0}, "num_examples must be an integer"),
        ({"delta": 0.0}, r"delta must lie in \(0, 1\), got 0"),
        ({"delta": 1.0}, r"delta must lie in \(0, 1\), got 1"),
        ({"delta": "small"}, "delta must be a number"),
        ({"empirical_risk": [0.1, 0.2], "delta": [0.1, 0.2, 0.3]}, "must broadcast"),
    ],
)
def test_bad_arguments_are_named(named, change, message):
    name, bound = named
    arguments = {"empirical_risk": 0.25, "kl": ordinary_kl(name), **ORDINARY, **change}
    with pytest.raises(ValueError, match=message):
        bound(**arguments)


def test_extreme_arguments(named):
    name, bound = named
    assert bound(0.25, ordinary_kl(name), num_examples=4, delta=1e-300) <= 1
    assert bound(0.0, 0.0, num_examples=10**6, delta=1e-300) < 0.03
    if name in TEST_SET:
        with pytest.raises(ValueError, match="kl must be 0"):
            bound(0.25, 1.0, **ORDINARY)
    else:
        assert bound(0.0, math.inf, **ORDINARY) == 1
        assert bound(0.0, 1e300, **ORDINARY) == 1


def test_the_global_precision_does_not_matter(named):
    name, bound = named
    with jax.enable_x64(True):
        double = bound(0.25, ordinary_kl(name), **ORDINARY)
    assert bound(0.25, ordinary_kl(name), **ORDINARY) == double


# ---------------------------------------------------------- Golden values, and the formulas by hand


def test_golden_values():
    arguments = {"num_examples": 30_000, "delta": 0.05}
    assert pac_bayes_kl(0.289307, 1724.0, **arguments) == pytest.approx(0.45513, abs=5e-6)
    relaxed = (1724 + math.log(2 * math.sqrt(30_000) / 0.05)) / 30_000
    assert kl_inverse(0.289307, relaxed) == pytest.approx(0.45516, abs=5e-6)
    corrected = monte_carlo_risk(0.20627577, num_draws=5000, delta=1 / 200)
    assert corrected == pytest.approx(0.2253106, abs=5e-8)


def test_formulas_by_hand():
    risk, kl, n, delta = 0.1, 7.0, 400, 0.03
    arguments = {"num_examples": n, "delta": delta}
    budget = kl + math.log(2 * math.sqrt(n) / delta)
    assert mcallester(risk, kl, **arguments) == pytest.approx(
        risk + math.sqrt((kl + math.log(1 / delta) + math.log(n) + 2) / (2 * n - 1)), rel=1e-13
    )
    assert mcallester_maurer(risk, kl, **arguments) == pytest.approx(
        risk + math.sqrt(budget / (2 * n)), rel=1e-13
    )
    assert langford_seeger(risk, kl, **arguments) == pytest.approx(
        kl_inverse(risk, (kl + math.log(n / delta)) / (n - 1)), rel=1e-13
    )
    assert catoni(risk, kl, **arguments, c=0.7) == pytest.approx(
        (1 - math.exp(-0.7 * risk - (kl + math.log(1 / delta)) / n)) / (1 - math.exp(-0.7)),
        rel=1e-13,
    )
    assert thiemann(risk, kl, **arguments, trade_off=0.5) == pytest.approx(
        risk / 0.75 + budget / (n * 0.5 * 0.75), rel=1e-13
    )
    assert occam(risk, kl, **arguments) == pytest.approx(
        kl_inverse(risk, (kl + math.log(1 / delta)) / n), rel=1e-13
    )
    subsets = math.log(math.comb(n, 3))
    assert sample_compression(risk, kl, **arguments, subset_size=3) == pytest.approx(
        kl_inverse(risk, (kl + subsets + math.log(n / delta)) / (n - 3)), rel=1e-12
    )


def test_delta_divides_inside_the_logarithm():
    """log(2 sqrt(n))/delta for log(2 sqrt(n)/delta) was found in published code."""
    n, delta = 1000, 0.05
    expected = math.sqrt(math.log(2 * math.sqrt(n) / delta) / (2 * n))
    mistaken = math.sqrt(math.log(2 * math.sqrt(n)) / delta / (2 * n))
    bound = mcallester_maurer(0.0, 0.0, num_examples=n, delta=delta)
    assert bound == pytest.approx(expected, rel=1e-13)
    assert abs(bound - mistaken) > 0.1


# ------------------------------------------------------------------------ Relations between bounds

CELLS = dict(
    zip(
        ("empirical_risk", "kl", "num_examples", "delta"),
        np.meshgrid([0.0, 0.01, 0.1, 0.4], [0.0, 5.0, 80.0], [2, 30, 1000, 50_000], [0.001, 0.1]),
        strict=True,
    )
)


def test_order_of_the_bounds():
    bounds = {name: bound(**CELLS) for name, bound in BOUNDS.items() if name not in TEST_SET}
    tight = bounds["pac_bayes_kl"]
    for looser in ("quadratic", "thiemann", "mcallester_maurer", "langford_seeger"):
        assert np.all(tight <= bounds[looser])
    assert np.all(bounds["mcallester_maurer"] <= bounds["mcallester"])
    assert np.all(bounds["occam"] <= tight)
    # The same constant, so that only Pinsker's inequality is compared.
    n = CELLS["num_examples"]
    budget = (CELLS["kl"] + np.log(2 * np.sqrt(n) / CELLS["delta"])) / n
    same = kl_inverse(CELLS["empirical_risk"], budget)
    assert np.all(tight <= same)
    assert np.all(same <= np.minimum(bounds["quadratic"], bounds["mcallester_maurer"]))


def test_neither_pac_bayes_kl_nor_catoni_on_a_grid_is_always_tighter():
    """Of the bounds that hold for all posteriors these two are best, each in some cells."""
    names = set(BOUNDS) - TEST_SET - POINT_MASS - {"catoni"}
    bounds = {name: BOUNDS[name](**CELLS) for name in names}
    inverse, on_grid = bounds.pop("pac_bayes_kl"), bounds.pop("catoni_grid")
    assert np.any(on_grid < inverse)
    assert np.any(inverse < on_grid)
    for looser in bounds.values():
        assert np.all(inverse <= looser)


def test_quadratic_is_the_least_of_thiemann():
    best = thiemann(**CELLS)
    np.testing.assert_allclose(best, quadratic(**CELLS), rtol=1e-12)
    trade_offs = np.linspace(0.01, 1.99, 397)
    over_all = np.array([thiemann(**CELLS, trade_off=trade_off) for trade_off in trade_offs])
    assert np.all(best <= over_all.min(axis=0) * (1 + 1e-14))
    np.testing.assert_allclose(best, over_all.min(axis=0), rtol=0.05)


def test_catoni_at_its_best_constant_inverts_the_binary_kl():
    """The binary KL is a supremum over constants; choosing one of them costs a union bound."""
    risk, arguments = 0.1, {"num_examples": 400, "delta": 0.05}
    least = kl_inverse(risk, (7.0 - math.log(0.05)) / 400)
    best = math.log(least * (1 - risk) / (risk * (1 - least)))
    assert catoni(risk, 7.0, **arguments, c=best) == pytest.approx(least, rel=1e-12)
    constants = np.geomspace(0.01, 20, 200)
    assert np.all(catoni(risk, 7.0, **arguments, c=constants) >= least)


def test_a_grid_of_constants_is_paid_for():
    chosen_after = np.min([catoni(**CELLS, c=c) for c in (0.5, 1.0, 2.0)], axis=0)
    paid = catoni_grid(**CELLS, grid=[0.5, 1.0, 2.0])
    assert np.all((paid > chosen_after) | (chosen_after == 1))
    shared = {**CELLS, "delta": CELLS["delta"] / 3}
    np.testing.assert_array_equal(
        paid, np.min([catoni(**shared, c=c) for c in (0.5, 1.0, 2.0)], axis=0)
    )
    np.testing.assert_array_equal(catoni_grid(**CELLS, grid=[1.0]), catoni(**CELLS))


def test_clopper_pearson_is_exact_and_below_chernoff():
    for n, errors, delta in [(20, 0, 0.05), (100, 7, 0.01), (5000, 1234, 1e-6), (10**6, 2, 5e-8)]:
        bound = clopper_pearson(errors / n, num_examples=n, delta=delta)
        p = mpmath.mpf(float(bound))
        tail = sum(mpmath.binomial(n, k) * p**k * (1 - p) ** (n - k) for k in range(errors + 1))
        assert 1 - 1e-5 < tail / delta <= 1
        # Without errors the two are the same.
        assert bound <= chernoff(errors / n, num_examples=n, delta=delta) * (1 + 1e-11)
    interval = scipy.stats.binomtest(7, 100).proportion_ci(0.9, method="exact")
    assert clopper_pearson(0.07, num_examples=100, delta=0.05) == pytest.approx(interval.high)
    assert clopper_pearson(1.0, num_examples=100, delta=0.05) == 1
    assert clopper_pearson(0.0, num_examples=20, delta=0.05) == pytest.approx(1 - 0.05 ** (1 / 20))


# ----------------------------------------------------------------------- Arguments of single bounds


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clopper_pearson(0.123, **ORDINARY), "whole number of errors, got 12.3"),
        (lambda: langford_seeger(0.1, 0.0, num_examples=1, delta=0.1), "at least 2, got 1"),
        (lambda: catoni(0.1, 0.0, **ORDINARY, c=0.0), r"c must lie in \(0, inf\), got 0"),
        (lambda: catoni_grid(0.1, 0.0, **ORDINARY, grid=[]), "grid must be a sequence"),
        (lambda: catoni_grid(0.1, 0.0, **ORDINARY, grid=[1.0, -1.0]), "grid must lie in"),
        (lambda: thiemann(0.1, 0.0, **ORDINARY, trade_off=2.0), r"trade_off must lie in \(0, 2\)"),
        (lambda: sample_compression(0.1, 0.0, **ORDINARY, subset_size=100), "less than"),
        (lambda: sample_compression(0.1, 0.0, **ORDINARY, subset_size=-1), "at least 0"),
        (lambda: description_length_kl(1), "bits must be at least 2, got 1"),
        (lambda: finite_grid_kl(0), "num_scales must be at least 1"),
        (lambda: countable_grid_kl(0), "index must be at least 1"),
        (lambda: monte_carlo_risk(1.1, num_draws=10, delta=0.1), "estimate must lie in"),
        (lambda: monte_carlo_risk(0.1, num_draws=0, delta=0.1), "num_draws must be at least 1"),
        (lambda: gibbs_posterior([], num_examples=10, delta=0.1), "risks must have one axis"),
        (lambda: gibbs_posterior([[0.1]], num_examples=10, delta=0.1), "risks must have one axis"),
        (
            lambda: gibbs_posterior([0.1, 0.2], num_examples=10, delta=0.1, prior=[0.5, 0.6]),
            "prior must be a distribution over 2 candidates",
        ),
    ],
)
def test_bad_arguments_of_single_functions(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ------------------------------------------------------------------------------ Charges and weights


def test_charges_are_those_of_a_prior():
    """The prior weights that they charge for sum to at most 1."""
    assert 8 * math.exp(-finite_grid_kl(8)) == pytest.approx(1)
    index = np.arange(1, 10**6)
    assert np.exp(-countable_grid_kl(index)).sum() == pytest.approx(1, abs=1e-6)
    bits = np.arange(2, 1000)
    per_length = np.exp(bits * math.log(2) - description_length_kl(bits))
    assert per_length.sum() <= math.pi**2 / 6 - 1
    assert description_length_kl(8) == pytest.approx((8 + 2 * 3) * math.log(2))


def test_gibbs_weights_are_as_good_as_any():
    risks = np.array([0.11, 0.12, 0.15, 0.15, 0.4])
    arguments = {"num_examples": 300, "delta": 0.05}
    chosen = gibbs_posterior(risks, **arguments)
    assert chosen.weights.sum() == pytest.approx(1)
    assert chosen.empirical_risk == pytest.approx(chosen.weights @ risks)
    assert 0 < chosen.kl < math.log(5)
    assert chosen.kl == pytest.approx(np.sum(chosen.weights * np.log(5 * chosen.weights)))
    best = pac_bayes_kl(chosen.empirical_risk, chosen.kl, **arguments)
    rng = np.random.default_rng(0)
    others = np.concatenate(
        [np.eye(5), rng.dirichlet(np.ones(5), 2000), rng.dirichlet(50 * chosen.weights, 2000)]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        kls = np.nansum(others * np.log(5 * others), axis=1)
    bounds = pac_bayes_kl(others @ risks, np.maximum(kls, 0), **arguments)
    assert best <= bounds.min() * (1 + 1e-6)
    assert best < bounds[:5].min()


def test_gibbs_weights_follow_the_prior_and_the_sample():
    few = gibbs_posterior([0.1, 0.5], num_examples=1, delta=0.05, prior=[0.2, 0.8])
    assert few.inverse_temperature <= 10
    many = gibbs_posterior([0.1, 0.5], num_examples=10_000, delta=0.05, prior=[0.2, 0.8])
    np.testing.assert_allclose(many.weights, [1, 0], atol=1e-12)
    assert many.kl == pytest.approx(math.log(5))
    excluded = gibbs_posterior([0.1, 0.5], num_examples=100, delta=0.05, prior=[0.0, 1.0])
    assert excluded.weights[0] == 0
    assert excluded.kl == 0
    alone = gibbs_posterior([0.3], num_examples=100, delta=0.05)
    assert alone.kl == 0
    assert alone.empirical_risk == 0.3
