"""Ledgers balance, and a certificate that its own numbers do not support is refused."""

from __future__ import annotations

import dataclasses
import io
from fractions import Fraction

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest

from theory.bounds import BOUNDS, monte_carlo_risk
from theory.certificate import BOUND, MONTE_CARLO, Certificate, Ledger, certify

CELL = Ledger(0.05, num_cells=60)
WHOLE = CELL.spend(MONTE_CARLO, CELL.left / 2).spend(BOUND, 0.0002, grid=7)
EXACT = CELL.spend(BOUND, CELL.left)
NUMBERS = dict(empirical_risk=0.06, num_draws=20_000, kl=226.0, num_examples=4096)
WORDS = dict(prior="N(base, 0.1² I) on 160 norm gains", posterior="N(w, diag σ²)", method="gains")


def certificate(**changes) -> Certificate:
    given = {"bound": "pac_bayes_kl", **NUMBERS, **WORDS, "ledger": WHOLE, "seed": 3, **changes}
    return certify(**given)


def test_a_ledger_prints_as_one_line():
    halves = CELL.spend(MONTE_CARLO, CELL.left / 2)
    assert str(halves.spend(BOUND, halves.left)) == (
        "δ = 0.05 = 60 cells × (0.000417 Monte Carlo + 0.000417 bound)"
    )
    assert str(WHOLE) == (
        "δ = 0.05 = 60 cells × "
        "(0.000417 Monte Carlo + 0.0002 bound over a grid of 7 + 0.000217 unspent)"
    )
    assert str(Ledger(0.05).spend(BOUND, 0.05)) == "δ = 0.05 = 0.05 bound"


def test_spending_leaves_the_ledger_itself_as_it_was():
    assert CELL.entries == ()
    assert CELL.spent == 0.0
    assert WHOLE.entry(BOUND) is not None
    assert WHOLE.entry("prior") is None


@pytest.mark.parametrize("parts", [2, 3, 7, 20, 49, 100])
@pytest.mark.parametrize("delta", [0.05, 0.1, 1 / 3])
def test_equal_shares_fit_whatever_their_rounding(delta, parts):
    ledger = Ledger(delta)
    for part in range(parts):
        ledger = ledger.spend(f"level {part}", delta / parts)
    assert sum(Fraction(entry.delta) for entry in ledger.entries) <= Fraction(delta)
    assert ledger.spent == pytest.approx(delta, rel=1e-15)
    with pytest.raises(ValueError, match="left of"):
        ledger.spend("one more", 1e-3 * delta)


@hypothesis.given(st.floats(1e-6, 0.5), st.integers(1, 1000), st.integers(1, 100))
def test_cells_and_grids_never_spend_more_than_the_total(delta, cells, grid):
    ledger = Ledger(delta, num_cells=cells)
    ledger = ledger.spend(BOUND, ledger.left, grid=grid)
    entry = ledger.entries[0]
    assert Fraction(entry.each) * grid <= Fraction(entry.delta)
    assert Fraction(entry.delta) * cells <= Fraction(delta)
    assert entry.each * grid * cells == pytest.approx(delta, rel=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CELL.spend(BOUND, 0.05), r"'bound' must be at most the 0\.000833333 left"),
        (lambda: CELL.spend(BOUND, CELL.left * (1 + 1e-12)), "must be at most"),
        (lambda: EXACT.spend(MONTE_CARLO, 1e-9), "must be at most"),
        (lambda: WHOLE.spend(BOUND, 1e-5), "distinct names"),
        (lambda: CELL.spend(BOUND, 0.0), r"'bound' must lie in \(0, 1\), got 0"),
        (lambda: CELL.spend(BOUND, float("nan")), "'bound' must lie in"),
        (lambda: CELL.spend(BOUND, -1e-5), "'bound' must lie in"),
        (lambda: CELL.spend("", 1e-5), "name must not be empty"),
        (lambda: CELL.spend(BOUND, 1e-5, grid=0), "grid of 'bound' must be at least 1, got 0"),
        (lambda: Ledger(1.0), r"delta must lie in \(0, 1\), got 1"),
        (lambda: Ledger(0.05, num_cells=0), "num_cells must be at least 1, got 0"),
        (lambda: Ledger(0.05, 120, WHOLE.entries), "entries must spend at most"),
    ],
)
def test_a_ledger_refuses_what_does_not_balance(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_ledger_survives_json():
    assert Ledger.from_json(WHOLE.to_json()) == WHOLE
    with pytest.raises(ValueError, match="entries must spend at most"):
        Ledger.from_json(WHOLE.to_json().replace('"num_cells": 60', '"num_cells": 61000'))
    with pytest.raises(TypeError, match="unexpected keyword"):
        Ledger.from_json(WHOLE.to_json().replace('"num_cells"', '"cells"'))


def test_each_step_gets_its_own_part_of_delta():
    monte_carlo, bound = WHOLE.entries
    record = certificate()
    assert record.delta == WHOLE.spent == pytest.approx(0.05 / 120 + 0.0002)
    corrected = monte_carlo_risk(0.06, num_draws=20_000, delta=monte_carlo.each)
    assert 0.06 < record.empirical_risk_bound == float(corrected) < record.risk_bound
    assert bound.each == pytest.approx(0.0002 / 7)
    expected = BOUNDS["pac_bayes_kl"](corrected, 226.0, num_examples=4096, delta=bound.each)
    assert record.risk_bound == float(expected)
    # A single value costs less than a grid, and an exact risk costs nothing.
    once = Ledger(0.05, 60, (monte_carlo, dataclasses.replace(bound, grid=1)))
    assert certificate(ledger=once).risk_bound < record.risk_bound
    exact = certificate(num_draws=0, ledger=EXACT)
    assert exact.empirical_risk_bound == exact.empirical_risk
    assert exact.risk_bound < record.risk_bound


@pytest.mark.parametrize("bound", BOUNDS)
def test_every_bound_makes_certificates(bound):
    kl = 0.0 if bound in ("chernoff", "clopper_pearson") else 5.0
    record = certificate(bound=bound, num_draws=0, kl=kl, ledger=EXACT, num_examples=1000)
    assert 0.06 < record.risk_bound <= 1
    assert Certificate.from_row(record.to_row()) == record


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ledger": EXACT}, "'Monte Carlo' if and only if num_draws > 0, got num_draws 20000"),
        ({"num_draws": 0}, "'Monte Carlo' if and only if num_draws > 0, got num_draws 0"),
        ({"ledger": CELL.spend(MONTE_CARLO, 1e-4)}, "must have an entry 'bound'"),
        ({"bound": "hopeful"}, "bound must be one of .* got 'hopeful'"),
        ({"prior": ""}, "prior must be described"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"num_examples": 10.5}, "num_examples must be"),
    ],
)
def test_certify_refuses_what_is_not_accounted_for(changes, message):
    with pytest.raises(ValueError, match=message):
        certificate(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"delta": 0.05}, "delta must be what the ledger has spent"),
        ({"risk_bound": 1.2}, r"risk_bound must lie in \[0, 1\], got 1\.2"),
        ({"risk_bound": float("nan")}, "risk_bound must lie"),
        ({"empirical_risk_bound": 0.05}, "empirical_risk_bound must be at least"),
        ({"empirical_risk_bound": 0.06}, "empirical_risk_bound must be at least"),
        ({"risk_bound": 0.12}, "risk_bound must be at least"),
        ({"kl": 2000.0}, "risk_bound must be at least"),
        ({"num_examples": 1000}, "risk_bound must be at least"),
        ({"num_draws": 100}, "empirical_risk_bound must be at least"),
        ({"ledger": EXACT}, "delta must be what the ledger has spent"),
        ({"num_draws": 0}, "'Monte Carlo' if and only if"),
    ],
)
def test_a_record_whose_numbers_do_not_support_it_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(certificate(), **changes)


def test_a_record_may_claim_less_than_it_could():
    assert dataclasses.replace(certificate(), risk_bound=0.9).risk_bound == 0.9


def test_certificates_survive_a_table():
    record = certificate(kl=np.float64(226.0), num_examples=np.int64(4096))
    row = record.to_row()
    assert {type(value) for value in row.values()} == {str, int, float}
    file = io.BytesIO()
    pd.DataFrame([row, certificate(seed=4).to_row()]).to_parquet(file)
    read = pd.read_parquet(file)
    assert Certificate.from_row(read.iloc[0].to_dict()) == record
    assert Certificate.from_row(read.to_dict("records")[1]).seed == 4


def test_rows_must_be_whole():
    row = certificate().to_row()
    with pytest.raises(TypeError, match="difficulty"):
        Certificate.from_row({**row, "difficulty": 6})
    with pytest.raises(TypeError, match="'kl'"):
        Certificate.from_row({name: value for name, value in row.items() if name != "kl"})
