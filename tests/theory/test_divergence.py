"""The binary KL and its inverses against mpmath, and the KL of Gaussians."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from theory.divergence import (
    binary_kl,
    gaussian_kl,
    kl_inverse,
    kl_inverse_first,
    kl_inverse_lower,
)

EPS = np.finfo(np.float64).eps
mpmath.mp.dps = 50


def exact_kl(q: float, p: float) -> Any:
    """kl(q‖p) of two floats to 50 digits, by the definition."""
    q, p = mpmath.mpf(q), mpmath.mpf(p)
    if (q > 0 and p == 0) or (q < 1 and p == 1):
        return mpmath.inf
    value = q * mpmath.log(q / p) if q > 0 else mpmath.mpf(0)
    return value + (1 - q) * mpmath.log1p((p - q) / (1 - p)) if q < 1 else value


def random_pairs(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and nats: ordinary, tiny and extreme ones, in every combination."""
    rng = np.random.default_rng(0)
    q = [
        rng.uniform(size=size),
        np.round(rng.uniform(size=size), 2),
        10 ** rng.uniform(-300, 0, size),
        1 - 10 ** rng.uniform(-16, 0, size),
    ]
    c = [
        10 ** rng.uniform(-6, 1, size),
        10 ** rng.uniform(-34, -6, size),
        10 ** rng.uniform(-260, 3, size),
    ]
    return np.choose(rng.integers(len(q), size=size), q), np.choose(rng.integers(3, size=size), c)


# Each inverse with its divergence, as a function of the known and the unknown argument, and the end
# towards which it searches.
INVERSES = {
    "upper": (kl_inverse, lambda q, p: exact_kl(q, p), 1.0),
    "lower": (kl_inverse_lower, lambda q, p: exact_kl(q, p), 0.0),
    "first": (kl_inverse_first, lambda r, p: exact_kl(p, r), 1.0),
}


def check_against_mpmath(name: str, size: int) -> None:
    inverse, exact, end = INVERSES[name]
    known, c = random_pairs(size)
    root = inverse(known, c)
    # The neighbouring float towards the known argument, where the divergence is zero.
    before = np.nextafter(root, known)
    for x, level, p, step in zip(*(a.tolist() for a in (known, c, root, before)), strict=True):
        assert p in (end, x if x == 0 else end) or exact(x, p) >= level, (x, level, p)
        if p > np.finfo(np.float64).tiny:
            assert exact(x, step) <= level * (1 + 100 * EPS), (x, level, p)


@pytest.mark.parametrize(("name", "size"), [("upper", 10_000), ("lower", 2_000), ("first", 2_000)])
def test_inverses_are_never_on_the_wrong_side_and_tight(name, size):
    check_against_mpmath(name, size)


@pytest.mark.slow
@pytest.mark.parametrize("name", INVERSES)
def test_inverses_are_never_on_the_wrong_side_and_tight_at_length(name):
    check_against_mpmath(name, 100_000)


def test_the_inverse_is_within_1e_12_of_the_root_in_ordinary_ranges():
    q, c = np.meshgrid([0.0, 0.001, 0.02, 0.3, 0.9], [1e-6, 0.0001, 0.01, 0.1, 1.0])
    below = kl_inverse(q, c) * (1 - 1e-12)
    for x, level, p in zip(q.ravel(), c.ravel(), below.ravel(), strict=True):
        assert exact_kl(x, p) < level


def test_the_kl_is_as_accurate_as_the_margin_needs():
    """The error is proven to be below 32 eps if XLA's logarithms are accurate, as measured here."""
    q, _ = random_pairs(2_000)
    rng = np.random.default_rng(1)
    near = np.clip(q * (1 + 10 ** rng.uniform(-16, 1, q.size) * rng.choice([-1, 1], q.size)), 0, 1)
    p = np.where(rng.uniform(size=q.size) < 0.7, near, 10 ** rng.uniform(-300, 0, q.size))
    for x, y, value in zip(q.tolist(), p.tolist(), binary_kl(q, p).tolist(), strict=True):
        exact = exact_kl(x, y)
        if exact > 1e-276 and exact < mpmath.inf:
            assert abs(value / exact - 1) < 32 * EPS, (x, y)
        else:
            assert value == exact or value < 1e-276


@pytest.mark.parametrize(
    ("q", "c", "expected"),
    [
        (0.0, 0.05, 0.0487705755),
        (0.02, 0.01, 0.0465159211),
        (0.1, 0.02, 0.1703836276),
        (0.5, 0.02, 0.5990082836),
        (0.9, 0.5, 0.9997383426),
    ],
)
def test_golden_values_of_the_inverse(q, c, expected):
    assert kl_inverse(q, c) == pytest.approx(expected, rel=2e-9)
    assert binary_kl(q, kl_inverse(q, c)) == pytest.approx(c, rel=1e-12)


def test_golden_value_of_dziugaite_and_roy():
    c = (5144 + math.log(math.pi**2 * 55000 / (6 * 0.025))) / 54999
    assert kl_inverse(0.028, c) == pytest.approx(0.16075, abs=5e-6)


@pytest.mark.parametrize(
    ("inverse", "known", "c", "expected"),
    [
        (kl_inverse, 0.0, 0.0, 0.0),
        (kl_inverse, 0.3, 0.0, 0.3),
        (kl_inverse, 1.0, 0.0, 1.0),
        (kl_inverse, 1.0, 0.3, 1.0),
        (kl_inverse, 0.3, math.inf, 1.0),
        (kl_inverse, 0.0, math.inf, 1.0),
        (kl_inverse, 0.3, 1e308, 1.0),
        (kl_inverse, -0.0, 1e-20, 1e-20),
        (kl_inverse_lower, 0.0, 0.3, 0.0),
        (kl_inverse_lower, 1.0, 0.3, math.exp(-0.3)),
        (kl_inverse_lower, 0.3, 0.0, 0.3),
        (kl_inverse_lower, 0.3, math.inf, 0.0),
        (kl_inverse_lower, 1.0, math.inf, 0.0),
        (kl_inverse_first, 0.0, 0.3, 0.0),
        (kl_inverse_first, 0.3, 0.0, 0.3),
        (kl_inverse_first, 1.0, 0.3, 1.0),
        (kl_inverse_first, 0.3, math.log(1 / 0.3), 1.0),
        # Disjoint supports give no information on the other risk.
        (kl_inverse_first, 0.0, math.inf, 1.0),
    ],
)
def test_edges(inverse, known, c, expected):
    assert inverse(known, c) == pytest.approx(expected, rel=1e-13, abs=0)


def test_at_zero_the_inverse_has_a_closed_form():
    c = 10.0 ** np.arange(-250, 1)
    np.testing.assert_allclose(kl_inverse(np.zeros_like(c), c), -np.expm1(-c), rtol=100 * EPS)


@pytest.mark.parametrize("tiny", [5e-324, 1e-310, 2.3e-308])
def test_subnormal_numbers_are_rounded_outward(tiny):
    """XLA treats subnormal numbers as zeros, but their inverses differ."""
    assert kl_inverse_first(tiny, 0.5) > 6e-4
    assert kl_inverse_first(0.0, 0.5) == 0
    assert kl_inverse_lower(tiny, 0.5) == 0
    assert 0.3 < kl_inverse(0.3, tiny) < 0.3 + 1e-15
    assert 0.3 - 1e-15 < kl_inverse_lower(0.3, tiny) < 0.3
    assert kl_inverse(0.0, tiny) >= tiny
    assert kl_inverse(tiny, 0.0) == tiny


@pytest.mark.parametrize(
    ("q", "p", "expected"),
    [
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 0.0),
        (0.0, 1.0, math.inf),
        (0.2, 0.0, math.inf),
        (0.2, 1.0, math.inf),
        (0.0, 0.2, -math.log(0.8)),
        (1.0, 0.2, -math.log(0.2)),
        (0.2, 0.2, 0.0),
    ],
)
def test_edges_of_the_binary_kl(q, p, expected):
    assert binary_kl(q, p) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kl_inverse(-0.1, 0.1), r"q must lie in \[0, 1\], got -0.1"),
        (lambda: kl_inverse([0.1, 1.5], 0.1), r"q must lie in \[0, 1\], got 1.5"),
        (lambda: kl_inverse(0.1, -1.0), r"c must lie in \[0, inf\], got -1.0"),
        (lambda: kl_inverse(math.nan, 0.1), r"q must lie in \[0, 1\], got nan"),
        (lambda: kl_inverse_lower(0.1, math.nan), "c must lie in"),
        (lambda: kl_inverse_first(2.0, 0.1), "r must lie in"),
        (lambda: binary_kl(0.1, 1.1), "p must lie in"),
        (lambda: binary_kl("a", 0.1), "q must be a number or numbers, got 'a'"),
        (lambda: binary_kl(True, 0.1), "q must be a number or numbers, got True"),
        (lambda: gaussian_kl(["1.0"], 0.0), "shift must be numbers, got"),
        (lambda: gaussian_kl(0.0, np.ma.masked_array([0.0], [True])), "got a masked array"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_concrete_results_are_numpy_float64_of_the_broadcast_shape():
    assert type(kl_inverse(0.1, 0.2)) is np.float64
    assert type(gaussian_kl([1.0], 0.0)) is np.float64
    columns = np.array([[0.1], [0.2]])
    roots = kl_inverse(columns, np.array([0.0, 0.1, 0.2]))
    assert isinstance(roots, np.ndarray)
    assert roots.dtype == np.float64
    assert roots.shape == (2, 3)
    assert roots[1, 2] == kl_inverse(0.2, 0.2)
    assert kl_inverse(np.zeros((0, 2)), 0.1).shape == (0, 2)
    # float32 arguments are converted exactly.
    assert kl_inverse(jnp.float32(0.1), 0.2) == kl_inverse(float(np.float32(0.1)), 0.2)
    assert not jax.config.read("jax_enable_x64")


def test_arrays_of_every_block_size_agree_with_scalars():
    q, c = random_pairs(5_000)
    whole = kl_inverse(q, c)
    np.testing.assert_array_equal(whole[:200], kl_inverse(q[:200], c[:200]))
    singles = [kl_inverse(*pair) for pair in zip(q[-3:], c[-3:], strict=True)]
    np.testing.assert_array_equal(whole[-3:], singles)


def test_concrete_arguments_inside_a_trace_are_still_float64():
    expected = kl_inverse(0.1, 0.2)

    @jax.jit
    def constant(x):
        assert kl_inverse(0.1, 0.2) == expected
        return x

    constant(jnp.ones(()))


@pytest.mark.parametrize("name", INVERSES)
def test_traced_in_float32_without_x64(name):
    inverse = INVERSES[name][0]
    known = np.array([0.0, 1e-4, 0.02, 0.3, 0.9], np.float32)
    c = np.array([1e-5, 0.01, 0.5], np.float32)[:, np.newaxis]
    roots = jax.jit(inverse)(known, c)
    assert roots.dtype == jnp.float32
    assert roots.shape == (3, 5)
    outward = np.asarray(roots, np.float64) - inverse(known, c)
    assert np.all(outward <= 0 if name == "lower" else outward >= 0)
    assert np.abs(outward).max() < 2e-5


def test_mapped_and_traced_are_the_same():
    known = jnp.array([0.0, 0.02, 0.9])
    mapped = jax.vmap(kl_inverse, (0, None))(known, 0.01)
    np.testing.assert_array_equal(mapped, jax.jit(kl_inverse)(known, 0.01))


def test_traced_arguments_out_of_range_give_nan():
    values = np.array([1.5, -0.1, np.nan], np.float32)
    for function in (kl_inverse, binary_kl):
        assert np.all(np.isnan(jax.jit(function)(values, np.float32(0.1))))
    assert np.all(np.isnan(jax.jit(kl_inverse)(np.float32(0.1), values)) == [False, True, True])


@functools.cache
def gradient(function):
    return jax.jit(jax.grad(function, (0, 1)))


def slopes(function, x, y, dtype: type = np.float64):
    with jax.enable_x64(dtype is np.float64):
        return [float(slope) for slope in gradient(function)(dtype(x), dtype(y))]


def differences(function, x, y, step=1e-5):
    return [
        (function(x + step, y) - function(x - step, y)) / (2 * step),
        (function(x, y + step) - function(x, y - step)) / (2 * step),
    ]


@pytest.mark.parametrize("name", INVERSES)
@pytest.mark.parametrize(("known", "c"), [(0.02, 0.01), (0.3, 0.2), (0.8, 0.05)])
def test_slopes_of_the_inverses(name, known, c):
    inverse = INVERSES[name][0]
    p = inverse(known, c)
    ratio, rest = math.log(p / known), math.log((1 - p) / (1 - known))
    if name == "first":
        expected = [(p - known) / (known * (1 - known)) / (ratio - rest), 1 / (ratio - rest)]
    else:
        d = (1 - known) / (1 - p) - known / p
        expected = [(ratio - rest) / d, 1 / d]
    computed = slopes(inverse, known, c)
    np.testing.assert_allclose(computed, expected, rtol=1e-9)
    np.testing.assert_allclose(computed, differences(inverse, known, c), rtol=1e-4)
    np.testing.assert_allclose(slopes(inverse, known, c, np.float32), expected, rtol=1e-3)


def exact_slopes(name: str, known: float, c: float) -> list[float]:
    """Derivatives of an inverse by both arguments, from its root to 50 digits."""
    x, exact = mpmath.mpf(known), INVERSES[name][1]
    sign = -1 if name == "lower" else 1
    low, high = mpmath.mpf(0), x if name == "lower" else 1 - x
    for _ in range(170):
        middle = (low + high) / 2
        low, high = (middle, high) if exact(x, x + sign * middle) < c else (low, middle)
    p = x + sign * high
    log_odds = mpmath.log(p / x) - mpmath.log((1 - p) / (1 - x))
    if name == "first":
        return [float((p - x) / (x * (1 - x)) / log_odds), float(1 / log_odds)]
    by_c = p * (1 - p) / (p - x)
    return [float(log_odds * by_c), float(by_c)]


@pytest.mark.parametrize("name", INVERSES)
@pytest.mark.parametrize("known", [1e-6, 0.02, 0.3, 0.5, 0.9, 0.999])
def test_slopes_keep_their_digits_at_small_nats(name, known):
    """Where the root is a few floats from the known argument, their difference has no digits."""
    inverse = INVERSES[name][0]
    for c in known * (1 - known) * 10.0 ** np.arange(-26, 0, dtype=np.float64):
        for dtype, tolerance in ((np.float32, 2e-3), (np.float64, 1e-8)):
            x, nats = float(dtype(known)), float(dtype(c))
            expected = exact_slopes(name, x, nats)
            # A float32 next to 0.999 is 5e-5 of its distance from 1.
            own = tolerance * max(1, 0.03 / (1 - known)) if dtype is np.float32 else tolerance
            found = slopes(inverse, x, nats, dtype)
            np.testing.assert_allclose(found, expected, rtol=own, atol=1e-30)


def test_slopes_of_the_binary_kl():
    np.testing.assert_allclose(
        slopes(binary_kl, 0.1, 0.3), differences(binary_kl, 0.1, 0.3), rtol=1e-7
    )


@pytest.mark.parametrize("name", INVERSES)
@pytest.mark.parametrize(
    ("known", "c"),
    [(0.0, 0.1), (1.0, 0.1), (0.3, 0.0), (0.3, 1e4), (0.0, 0.0), (0.3, 1e-30), (0.9, 2.0)],
)
def test_slopes_are_finite_at_the_ends(name, known, c):
    """An infinite slope times a tangent of zero would be NaN."""
    assert np.all(np.isfinite(slopes(INVERSES[name][0], known, c, np.float32)))
    assert np.all(np.isfinite(slopes(binary_kl, known, 0.0, np.float32)))


def test_slopes_at_the_ends():
    by_q, by_c = slopes(kl_inverse, 0.0, 0.1)
    assert by_q > 50
    assert by_c == pytest.approx(math.exp(-0.1))
    assert slopes(kl_inverse, 0.3, 1e4) == [0, 0]
    assert slopes(kl_inverse, 0.3, 0.0) == [1, 0]
    assert slopes(kl_inverse_first, 0.3, 5.0) == [0, 0]


def test_an_objective_in_float32_can_be_trained_through_the_inverse():
    """Gradient descent through the inverse lowers a bound, as in training a posterior."""

    def objective(shift):
        risk = jax.nn.sigmoid(shift).mean()
        return kl_inverse(risk, (gaussian_kl(shift, jnp.zeros_like(shift)) + 3.0) / 100)

    shift = jnp.zeros(4)
    step = jax.jit(jax.value_and_grad(objective))
    values = []
    for _ in range(20):
        value, gradient = step(shift)
        values.append(float(value))
        shift = shift - 2 * gradient
    assert value.dtype == jnp.float32
    assert np.all(np.diff(values) < 0)


def test_gaussian_kl_is_the_textbook_formula():
    rng = np.random.default_rng(0)
    mean, prior_mean = rng.normal(size=(2, 3, 4))
    scale, prior_scale = rng.uniform(0.1, 2, size=(2, 3, 4))
    expected = np.sum(
        np.log(prior_scale / scale)
        + (scale**2 + (mean - prior_mean) ** 2) / (2 * prior_scale**2)
        - 0.5
    )
    shift, log_ratio = (mean - prior_mean) / prior_scale, np.log(scale / prior_scale)
    assert gaussian_kl(shift, log_ratio) == pytest.approx(expected, rel=1e-12)
    traced = jax.jit(gaussian_kl)(jnp.float32(shift), jnp.float32(log_ratio))
    assert traced.dtype == jnp.float32
    assert float(traced) == pytest.approx(expected, rel=1e-5)


def test_gaussian_kl_broadcasts_over_coordinates_and_keeps_digits():
    assert gaussian_kl(np.zeros(5), 0.3) == pytest.approx(5 * gaussian_kl(0.0, 0.3))
    assert gaussian_kl(0.0, 0.0) == 0
    assert gaussian_kl(0.0, 1e-6) == pytest.approx(1e-12, rel=1e-5)
    assert gaussian_kl(0.0, -math.inf) == math.inf
    assert gaussian_kl(0.0, 1e3) == math.inf
