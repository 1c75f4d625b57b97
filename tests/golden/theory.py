"""Golden numbers of the theory, computed by mpmath from the published formulas.

Nothing here imports `theory`, so that a fault there cannot hide in both places. Simulations of
coverage cannot see a constant that is a little too small, or a share of delta that is not split:
PAC-Bayes bounds are slack. These numbers can. To regenerate (seconds)::

    PYTHONPATH=. python -m tests.golden.theory
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mpmath
from mpmath import mpf

FILE = Path(__file__).parent / "theory.json"
DIGITS = 60

XI_SIZES = (1, 2, 7, 50, 257, 1000, 4096, 20_000)
INVERSE_CELLS = [
    (known, nats)
    for known in (0.0, 1e-9, 0.003, 0.1, 0.5, 0.93, 1 - 1e-9)
    for nats in (1e-12, 1e-5, 0.02, 0.7, 5.0)
]
"""Known argument and nats of each inverse of the binary KL."""
TEST_SETS = [
    (38, 4096, 1e-300),
    (38, 4096, 1e-250),
    (38, 4096, 0.05 / 279),
    (0, 100, 1e-300),
    (1, 128, 1e-310),
    (250, 256, 1e-12),
    (128, 256, 1e-220),
    (3, 100_000, 1e-9),
]
"""Errors, examples and delta."""
CERTIFICATES = [
    # Estimate, draws, KL, examples, delta, cells, share of Monte Carlo, its grid, the bound's grid.
    (0.06, 20_000, 226.0, 4096, 0.05, 60, 0.5, 3, 3),
    (0.06, 20_000, 226.0, 4096, 0.05, 60, 0.5, 1, 7),
    (0.06, 20_000, 226.0, 4096, 0.05, 60, 0.5, 50, 1),
    (0.0, 12_288, 0.0, 256, 0.05, 279, 0.25, 5, 2),
    (0.31, 500, 3.5, 97, 0.2, 4, 0.1, 12, 12),
]
CANDIDATES = [
    # Errors of each candidate, examples, delta.
    ((5, 7, 8), 64, 0.05),
    ((10, 12, 30), 100, 0.05),
    ((40, 44, 45, 61), 512, 0.05 / 24),
]
CATONI = [(0.1, 7.0, 400, 0.03, (0.5, 1.0, 2.0)), (0.02, 40.0, 5000, 1e-4, (0.25, 4.0))]
"""Risk, KL, examples, delta and the grid of constants."""
SUBSETS = [(0.1, 2.0, 1000, 0.05, 3), (0.0, 0.0, 10**6, 0.01, 2), (0.2, 11.0, 10**9, 1e-5, 40)]
"""Risk, nats of the message, examples, delta and size of the subset."""


def exact(value: float | int) -> Any:
    """The number that a float is, not the decimal fraction that it is printed as."""
    return mpf(value)


def kl(q: Any, p: Any) -> Any:
    """Divergence of Bernoulli(p) from Bernoulli(q), in nats."""
    if (q and not p) or (q < 1 and p == 1):
        return mpmath.inf
    wrong = q * mpmath.log(q / p) if q else mpf(0)
    return wrong + ((1 - q) * mpmath.log((1 - q) / (1 - p)) if q < 1 else mpf(0))


def bisect(is_inside: Callable[[Any], bool], inside: Any, outside: Any) -> Any:
    """The place between two numbers where a condition stops to hold."""
    for _ in range(3 * DIGITS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if is_inside(middle) else (inside, middle)
    return inside


def upper(q: Any, nats: Any) -> Any:
    """Largest p with kl(q‖p) at most `nats`; Seeger (2002)."""
    return bisect(lambda p: kl(q, p) <= nats, q, mpf(1)) if q < 1 else mpf(1)


def lower(q: Any, nats: Any) -> Any:
    """Smallest p with kl(q‖p) at most `nats`."""
    return bisect(lambda p: kl(q, p) <= nats, q, mpf(0)) if q else mpf(0)


def first(r: Any, nats: Any) -> Any:
    """Largest p with kl(p‖r) at most `nats`."""
    if not r or -mpmath.log(r) <= nats:
        return mpf(bool(r))
    return bisect(lambda p: kl(p, r) <= nats, r, mpf(1))


def xi(n: int) -> Any:
    """Sum over k of C(n, k) (k/n)^k (1 - k/n)^(n - k); Maurer (2004)."""
    total, binomial = mpf(0), 1
    for k in range(n + 1):
        share = mpf(k) / n
        total += binomial * (share**k if k else 1) * ((1 - share) ** (n - k) if k < n else 1)
        binomial = binomial * (n - k) // (k + 1)
    return total


def clopper_pearson(errors: int, n: int, delta: Any) -> Any:
    """Risk at which at most so many errors have probability delta; Clopper and Pearson (1934)."""
    binomials = [mpmath.binomial(n, k) for k in range(errors + 1)]

    def tail(p: Any) -> Any:
        return sum(c * p**k * (1 - p) ** (n - k) for k, c in enumerate(binomials))

    return bisect(lambda p: tail(p) > delta, mpf(errors) / n, mpf(1))


def pac_bayes_kl(risk: Any, nats: Any, n: int, delta: Any) -> Any:
    """Seeger (2002); Maurer (2004), Theorem 5."""
    return upper(risk, (nats + mpmath.log(xi(n) / delta)) / n)


def certificate(
    estimate: Any,
    draws: int,
    nats: Any,
    n: int,
    delta: Any,
    cells: int,
    share: Any,
    estimate_grid: int,
    bound_grid: int,
) -> dict[str, Any]:
    """A union bound over cells, both steps of each, and the grid of each step."""
    of_cell = delta / cells
    of_estimate, of_bound = share * of_cell, (1 - share) * of_cell
    # Langford and Caruana (2001), for each of the estimates that could have been reported.
    corrected = upper(estimate, -mpmath.log(of_estimate / estimate_grid) / draws)
    return {
        "empirical_risk_bound": corrected,
        "risk_bound": pac_bayes_kl(corrected, nats, n, of_bound / bound_grid),
    }


def candidates(errors: Sequence[int], n: int, delta: Any) -> dict[str, Any]:
    """Gibbs weights under a uniform prior that make PAC-Bayes-kl least; Catoni (2007)."""
    risks, number = [mpf(each) / n for each in errors], len(errors)

    def weigh(temperature: Any) -> tuple[Any, Any]:
        factors = [mpmath.exp(-temperature * risk) for risk in risks]
        weights = [factor / mpmath.fsum(factors) for factor in factors]
        nats = mpmath.fsum(w * mpmath.log(number * w) for w in weights)
        return mpmath.fsum(w * risk for w, risk in zip(weights, risks, strict=True)), nats

    constant = mpmath.log(xi(n) / delta)

    def value(temperature: Any) -> Any:
        risk, nats = weigh(temperature)
        return upper(risk, (nats + constant) / n)

    # A coarse search over all temperatures, then golden sections.
    grid = [mpf(0)] + [mpf(10) ** (mpf(k) / 4) for k in range(-8, 4 * len(str(n)) + 8)]
    best = min(range(len(grid)), key=lambda k: value(grid[k]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    ratio = (mpmath.sqrt(5) - 1) / 2
    for _ in range(40):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if value(left) < value(right) else (left, high)
    risk, nats = weigh((low + high) / 2)
    return {"empirical_risk": risk, "kl": nats, "bound": value((low + high) / 2)}


def catoni_grid(risk: Any, nats: Any, n: int, delta: Any, grid: Sequence[float]) -> Any:
    """Catoni (2007), each constant at an equal share of delta."""
    charge = (nats + mpmath.log(len(grid) / delta)) / n
    return min(
        (1 - mpmath.exp(-c * risk - charge)) / (1 - mpmath.exp(-c)) for c in map(exact, grid)
    )


def sample_compression(risk: Any, nats: Any, n: int, delta: Any, k: int) -> Any:
    """Littlestone and Warmuth (1986); Langford (2005)."""
    subsets = mpmath.log(mpmath.binomial(n, k))
    return upper(risk, (nats + subsets + mpmath.log(n / delta)) / (n - k))


def compute() -> dict[str, list[Any]]:
    """All numbers, as text of 20 digits, in the order of the lists above."""

    def written(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: written(each) for name, each in value.items()}
        return mpmath.nstr(value, 20)

    def over(function: Callable[..., Any], cells: Sequence[tuple[Any, ...]]) -> list[Any]:
        # Floats are taken for the exact binary fractions that they are.
        return [
            written(function(*(exact(each) if isinstance(each, float) else each for each in cell)))
            for cell in cells
        ]

    with mpmath.workdps(DIGITS):
        return {
            "xi": over(xi, [(n,) for n in XI_SIZES]),
            "upper": over(upper, INVERSE_CELLS),
            "lower": over(lower, INVERSE_CELLS),
            "first": over(first, INVERSE_CELLS),
            "clopper_pearson": over(clopper_pearson, TEST_SETS),
            "certificates": over(certificate, CERTIFICATES),
            "candidates": over(candidates, CANDIDATES),
            "catoni_grid": over(catoni_grid, CATONI),
            "sample_compression": over(sample_compression, SUBSETS),
        }


def read() -> dict[str, list[Any]]:
    """The recorded numbers as floats."""

    def number(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: number(each) for name, each in value.items()}
        return float(value)

    stored = json.loads(FILE.read_text())
    return {name: [number(value) for value in values] for name, values in stored.items()}


if __name__ == "__main__":
    FILE.write_text(json.dumps(compute(), indent=1) + "\n")
