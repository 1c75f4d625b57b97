"""Golden values of an independent source (`tests.golden.theory`), and rounding to the safe side."""

from __future__ import annotations

import functools
import math
from typing import Any

import mpmath
import numpy as np
import pytest

from tests.golden import theory as golden
from theory.bounds import (
    catoni,
    catoni_grid,
    clopper_pearson,
    gibbs_posterior,
    mcallester,
    mcallester_maurer,
    pac_bayes_kl,
    quadratic,
    sample_compression,
    thiemann,
)
from theory.certificate import BOUND, MONTE_CARLO, Ledger, certify
from theory.divergence import kl_inverse, kl_inverse_first, kl_inverse_lower
from theory.maurer import xi


@functools.cache
def recorded() -> dict[str, list[Any]]:
    return golden.read()


def pairs(name: str, cells: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(cells, recorded()[name], strict=True))


def test_xi():
    for n, expected in pairs("xi", list(golden.XI_SIZES)):
        assert expected < xi(n) < expected * (1 + 2e-12)


@pytest.mark.parametrize(
    ("name", "inverse", "outward"),
    [("upper", kl_inverse, 1), ("lower", kl_inverse_lower, -1), ("first", kl_inverse_first, 1)],
)
def test_inverses_of_the_binary_kl(name, inverse, outward):
    for (known, nats), expected in pairs(name, golden.INVERSE_CELLS):
        found = inverse(known, nats)
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-50)
        assert outward * (found - expected) >= -1e-50


def test_clopper_pearson():
    for (errors, n, delta), expected in pairs("clopper_pearson", golden.TEST_SETS):
        found = clopper_pearson(errors / n, num_examples=n, delta=delta)
        assert expected < found < expected * (1 + 2e-12 + 1e-15 * n)


def test_certificates_split_delta_over_cells_steps_and_grids():
    for cell, expected in pairs("certificates", golden.CERTIFICATES):
        estimate, draws, kl, n, delta, cells, share, estimate_grid, bound_grid = cell
        ledger = Ledger(delta, num_cells=cells)
        ledger = ledger.spend(MONTE_CARLO, share * ledger.left, grid=estimate_grid)
        ledger = ledger.spend(BOUND, ledger.left, grid=bound_grid)
        found = certify(
            "pac_bayes_kl",
            empirical_risk=estimate,
            num_draws=draws,
            kl=kl,
            num_examples=n,
            ledger=ledger,
            prior="a prior",
            posterior="a posterior",
            seed=0,
            method="any",
        )
        for name, value in expected.items():
            assert value <= getattr(found, name) < value * (1 + 1e-10)


def test_weights_on_candidates_are_the_best_up_to_the_grid_of_temperatures():
    for (errors, n, delta), expected in pairs("candidates", golden.CANDIDATES):
        found = gibbs_posterior(np.array(errors) / n, num_examples=n, delta=delta)
        bound = pac_bayes_kl(found.empirical_risk, found.kl, num_examples=n, delta=delta)
        assert expected["bound"] <= bound < expected["bound"] * (1 + 1e-4)
        assert found.kl == pytest.approx(expected["kl"], rel=0.1)
        assert found.empirical_risk == pytest.approx(expected["empirical_risk"], rel=0.02)


def test_catoni_on_a_grid():
    for (risk, kl, n, delta, grid), expected in pairs("catoni_grid", golden.CATONI):
        found = catoni_grid(risk, kl, num_examples=n, delta=delta, grid=grid)
        assert expected <= found < expected * (1 + 1e-13)


def test_sample_compression():
    for (risk, kl, n, delta, k), expected in pairs("sample_compression", golden.SUBSETS):
        found = sample_compression(risk, kl, num_examples=n, delta=delta, subset_size=k)
        assert expected <= found < expected * (1 + 1e-4)


# Rounding. An error of the last digit is on the wrong side in half of the calls.


def closed_forms(risk: float, kl: float, n: int, delta: float) -> dict[str, Any]:
    """Bounds in closed form to 50 digits, not clipped."""
    with mpmath.workdps(50):
        risk, kl, delta = (mpmath.mpf(value) for value in (risk, kl, delta))
        budget = kl + mpmath.log(2 * mpmath.sqrt(n) / delta)
        half = budget / (2 * n)
        root = mpmath.sqrt(risk + half) + mpmath.sqrt(half)
        square = (kl - mpmath.log(delta) + mpmath.log(n) + 2) / (2 * n - 1)
        exponent = risk + (kl - mpmath.log(delta)) / n
        weighted = risk / mpmath.mpf("0.75") + budget / (n * mpmath.mpf("0.375"))
        return {
            "mcallester": risk + mpmath.sqrt(square),
            "mcallester_maurer": risk + mpmath.sqrt(half),
            "quadratic": root**2,
            "thiemann": weighted,
            "catoni": (1 - mpmath.exp(-exponent)) / (1 - mpmath.exp(-1)),
        }


def test_closed_forms_are_rounded_up():
    rng = np.random.default_rng(0)
    cells = [
        (rng.uniform(), rng.uniform(0, 50), int(10 ** rng.uniform(2, 6)), 10 ** rng.uniform(-9, -1))
        for _ in range(300)
    ]
    bounds = {
        "mcallester": mcallester,
        "mcallester_maurer": mcallester_maurer,
        "quadratic": quadratic,
        "thiemann": functools.partial(thiemann, trade_off=0.5),
        "catoni": catoni,
    }
    for risk, kl, n, delta in cells:
        for name, exact in closed_forms(risk, kl, n, delta).items():
            found = bounds[name](risk, kl, num_examples=n, delta=delta)
            if exact < 1:
                assert exact <= found <= exact * (1 + 1e-14), name
            else:
                assert found == 1


def test_the_number_of_subsets_is_rounded_up():
    """Differences of ln n! lose digits, the more the larger n is."""
    rng = np.random.default_rng(1)
    for _ in range(40):
        n, k = int(10 ** rng.uniform(4, 9)), int(rng.integers(1, 60))
        found = sample_compression(0.0, 0.0, num_examples=n, delta=0.05, subset_size=k)
        with mpmath.workdps(50):
            subsets = mpmath.log(mpmath.binomial(n, k) * n / mpmath.mpf(0.05))
            exact = -mpmath.expm1(-subsets / (n - k))
        assert exact <= found < exact * (1 + 1e-4)


@pytest.mark.parametrize("scale", [1e-308, 1e-306, 1e-300, 1e-292])
def test_nats_near_the_smallest_numbers_are_rounded_outward(scale):
    """There a term of the KL can underflow, and another not, which makes the KL too large."""
    for q, nats in [(20.0, 3.0), (16.0, 3.0), (7.0, 9.0), (100.0, 5.0), (1e4, 3.0), (3.0, 100.0)]:
        known, c = q * scale, nats * scale
        with mpmath.workdps(700):
            p = mpmath.mpf(float(kl_inverse(known, c)))
            assert golden.kl(mpmath.mpf(known), p) >= c
            p = mpmath.mpf(float(kl_inverse_first(known, c)))
            assert golden.kl(p, mpmath.mpf(known)) >= c


def test_a_candidate_costs_no_more_than_the_logarithm_of_their_number():
    alone = gibbs_posterior([0.0, 1.0, 1.0], num_examples=10_000, delta=0.05)
    assert alone.kl == pytest.approx(math.log(3), rel=1e-12)
