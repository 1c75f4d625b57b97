"""Contracts of all bounds, golden values, and relations between the bounds."""

import doctest
import importlib
import inspect
import math
import pkgutil
from fractions import Fraction

import jax
import jax.numpy as jnp
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


@pytest.mark.parametrize("module", ["theory.divergence", "theory.maurer", *MODULES])
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
        ({"empirical_risk": "0.1"}, "empirical_risk must be a number or numbers, got '0.1'"),
        ({"empirical_risk": ["0.1", "0.2"]}, "empirical_risk must be a number"),
        ({"empirical_risk": True}, "empirical_risk must be a number or numbers, got True"),
        ({"empirical_risk": np.array([True, False])}, "empirical_risk must be a number"),
        ({"empirical_risk": np.array([0.1, True], object)}, "empirical_risk must be a number"),
        ({"empirical_risk": 0.1 + 0j}, "empirical_risk must be a number"),
        ({"empirical_risk": [[0.1], [0.1, 0.2]]}, "empirical_risk must be a number"),
        ({"empirical_risk": np.ma.masked_array([0.1, 0.2], [True, False])}, "got a masked array"),
        ({"empirical_risk": -1e-9}, "empirical_risk must lie in"),
        ({"empirical_risk": 1 + 1e-9}, "empirical_risk must lie in"),
        ({"kl": -1e-9}, "kl must lie in"),
        ({"kl": "3"}, "kl must be a number"),
        ({"num_examples": True}, "num_examples must be an integer"),
        ({"num_examples": np.ma.masked_array([100], [True])}, "got a masked array"),
        ({"num_examples": 2**62 + 1}, "num_examples must be at most 2"),
        ({"num_examples": 2**64}, "num_examples must be at most 2"),
        ({"num_examples": np.array([100, 2**70], object)}, "num_examples must be at most 2"),
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


def test_the_largest_numbers_of_examples(named):
    """Twice such a number does not fit into int64: closed forms were NaN."""
    name, bound = named
    sizes = np.array([2**53, 2**61, 2**62 - 1, 2**62])
    values = bound(0.0, ordinary_kl(name), num_examples=sizes, delta=0.05)
    assert np.all(np.isfinite(values))
    assert np.all(values >= 0)
    assert np.all(values < 1e-3)
    # `sample_compression` adds an error of gammaln that grows with n.
    assert np.all(np.diff(values) <= 1e-14)


def test_numbers_of_other_types_are_numbers(named):
    name, bound = named
    expected = bound(0.25, ordinary_kl(name), **ORDINARY)
    for risk in (Fraction(1, 4), np.float16(0.25), jnp.bfloat16(0.25), [0.25], jnp.array([0.25])):
        np.testing.assert_array_equal(bound(risk, ordinary_kl(name), **ORDINARY), expected)
    assert bound(0, ordinary_kl(name), num_examples=np.uint8(100), delta=0.05) > 0


def test_the_global_precision_does_not_matter(named):
    name, bound = named
    with jax.enable_x64(True):
        double = bound(0.25, ordinary_kl(name), **ORDINARY)
    assert bound(0.25, ordinary_kl(name), **ORDINARY) == double


# ------------------------------------------------------------------------- Under jit, vmap and grad

TRACED = [name for name in BOUNDS if name != "clopper_pearson"]


def of_risk_and_kl(name: str, **changes):
    """A bound as a function of risk and, unless it is a test-set bound, of the KL."""
    arguments = {**ORDINARY, **changes}
    if name in TEST_SET:
        return lambda risk, _: BOUNDS[name](risk, **arguments)
    return lambda risk, kl: BOUNDS[name](risk, kl, **arguments)


@pytest.mark.parametrize("name", TRACED)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bounds_can_be_compiled_and_mapped(name, dtype):
    bound = of_risk_and_kl(name, num_examples=5000)
    risks, kls = (
        array.ravel().astype(dtype)
        for array in np.meshgrid([0.0, 1e-3, 0.25, 0.9, 1.0], [0.0, 3.0, 80.0])
    )
    expected = bound(risks, kls)
    with jax.enable_x64(dtype is np.float64):
        compiled = jax.jit(bound)(risks, kls)
        mapped = jax.vmap(bound, (0, None))(jnp.asarray(risks[:5]), kls[5])
    assert compiled.dtype == mapped.dtype == dtype
    # Rounded up in their own precision.
    assert np.all(np.asarray(compiled, np.float64) >= expected * (1 - 1e-12))
    np.testing.assert_allclose(compiled, expected, rtol=2e-4 if dtype is np.float32 else 1e-12)
    np.testing.assert_allclose(mapped, bound(risks[:5], kls[5]), rtol=2e-4)


@pytest.mark.parametrize("name", TRACED)
def test_bounds_have_gradients(name):
    bound, point = of_risk_and_kl(name, num_examples=5000), (0.2, 30.0)
    with jax.enable_x64(True):
        slopes = jax.jit(jax.grad(lambda *at: bound(*at).sum(), (0, 1)))(*point)
    for place, slope in enumerate(slopes):
        step = 1e-5 * point[place]
        above, below = (
            bound(*(value + sign * step * (place == i) for i, value in enumerate(point)))
            for sign in (1, -1)
        )
        assert slope == pytest.approx((above - below) / (2 * step), rel=1e-6, abs=1e-9)
    assert name in TEST_SET or slopes[1] > 0


def traced_in(argument: str, name: str, value: float):
    """A bound with one traced argument, the others concrete."""
    arguments = {"empirical_risk": 0.25, "kl": ordinary_kl(name), **ORDINARY}
    return jax.vmap(lambda x: BOUNDS[name](**{**arguments, argument: x}))(np.array([value]))[0]


@pytest.mark.parametrize("name", TRACED)
@pytest.mark.parametrize(
    ("argument", "value", "out_of_range"),
    [("empirical_risk", 0.3, [-0.1, 1.1]), ("kl", 5.0, [-1.0]), ("delta", 0.1, [0.0, 1.0])],
)
def test_any_argument_may_be_traced_and_out_of_range_gives_nan(name, argument, value, out_of_range):
    if argument == "kl" and name in TEST_SET:
        with pytest.raises(ValueError, match="kl must not be traced"):
            traced_in(argument, name, 0.0)
        return
    arguments = {"empirical_risk": 0.25, "kl": ordinary_kl(name), **ORDINARY, argument: value}
    assert traced_in(argument, name, value) == pytest.approx(BOUNDS[name](**arguments), rel=1e-4)
    for wrong in [*out_of_range, math.nan]:
        assert np.isnan(traced_in(argument, name, wrong))


def test_arguments_of_single_bounds_may_be_traced():
    constants = np.array([0.5, 0.0, -1.0, 2.0], np.float32)
    chosen = jax.vmap(lambda c: catoni(0.1, 3.0, **ORDINARY, c=c))(constants)
    np.testing.assert_array_equal(np.isnan(chosen), [False, True, True, False])
    np.testing.assert_allclose(chosen[0], catoni(0.1, 3.0, **ORDINARY, c=0.5), rtol=1e-5)
    chosen = jax.vmap(lambda t: thiemann(0.1, 3.0, **ORDINARY, trade_off=t))(constants)
    np.testing.assert_array_equal(np.isnan(chosen), [False, True, True, True])
    np.testing.assert_allclose(chosen[0], thiemann(0.1, 3.0, **ORDINARY, trade_off=0.5), rtol=1e-5)


def test_numbers_of_examples_may_be_traced_where_nothing_is_summed():
    sizes = np.array([0, 100, 1])
    for name in ("mcallester", "quadratic", "catoni", "occam", "chernoff"):
        bound = BOUNDS[name]
        kl = ordinary_kl(name)
        mapped = jax.vmap(lambda n, b=bound, k=kl: b(0.25, k, num_examples=n, delta=0.05))(sizes)
        expected = bound(0.25, kl, num_examples=100, delta=0.05)
        assert np.isnan(mapped[0])
        assert mapped[1] == pytest.approx(expected, rel=1e-4)
        assert expected < mapped[2] <= 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: clopper_pearson(x, num_examples=10, delta=0.1), "empirical_risk must not be"),
        (lambda x: clopper_pearson(0.1, num_examples=10, delta=x), "delta must not be traced by"),
        (lambda x: pac_bayes_kl(0.1, 1.0, num_examples=x, delta=0.1), "num_examples must not be"),
        (
            lambda x: sample_compression(0.1, 1.0, num_examples=10, delta=0.1, subset_size=x),
            "subset_size must not be traced",
        ),
        (lambda x: monte_carlo_risk(x, num_draws=10, delta=0.1), "estimate must be known before"),
        (lambda x: finite_grid_kl(x), "num_scales must be known before compilation here"),
    ],
)
def test_what_cannot_be_traced_says_so(call, message):
    with pytest.raises(ValueError, match=message):
        jax.jit(call)(1)


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
    cells = [(20, 0, 0.05), (100, 7, 0.01), (5000, 1234, 1e-6), (10**6, 2, 5e-8)]
    # SciPy's inverse is wrong here, by an eighth in the first cell.
    cells += [(4096, 38, 1e-300), (4096, 38, 1e-250), (4096, 38, 9e-201), (200, 100, 1e-300)]
    cells += [(4096, 400, 5e-324), (10**6, 2, 1e-310)]
    for n, errors, delta in cells:
        bound = clopper_pearson(errors / n, num_examples=n, delta=delta)
        p = mpmath.mpf(float(bound))
        tail = sum(mpmath.binomial(n, k) * p**k * (1 - p) ** (n - k) for k in range(errors + 1))
        assert 1 - 1e-5 < tail / delta <= 1
        # Without errors the two are the same.
        assert bound <= chernoff(errors / n, num_examples=n, delta=delta) * (1 + 1e-11)
    interval = scipy.stats.binomtest(7, 100).proportion_ci(0.9, method="exact")
    assert clopper_pearson(0.07, num_examples=100, delta=0.05) == pytest.approx(interval.high)
    assert clopper_pearson(1.0, num_examples=100, delta=0.05) == 1
    # Without errors the Chernoff bound, from which the root is searched below 1e-200, is the root.
    sizes, few = np.meshgrid(np.arange(600, 2000, 37), [1e-201, 1e-250, 3e-280])
    np.testing.assert_allclose(
        clopper_pearson(0.0, num_examples=sizes, delta=few), 1 - few ** (1 / sizes), rtol=3e-12
    )
    for errors, n in ((3, 2**40), (2**21, 2**23)):
        large = {"num_examples": n, "delta": 1e-250}
        assert clopper_pearson(errors / n, **large) == pytest.approx(chernoff(errors / n, **large))
    both = clopper_pearson([0.1, 1.0], num_examples=10, delta=[[1e-300], [0.05]])
    np.testing.assert_allclose(
        both, [[1, 1], [clopper_pearson(0.1, num_examples=10, delta=0.05), 1]]
    )
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
        (lambda: sample_compression(0.1, 0.0, **ORDINARY, subset_size=[2, 100]), "less than"),
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
