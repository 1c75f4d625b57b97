"""Predictions that were written down, computed from tables with known values."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from experiments.analysis import claims
from experiments.analysis.contrasts import Contrast, Covered, Move, Rise, Term
from experiments.analysis.statistics import Interval
from experiments.certify.config import BLOCK_SETTINGS, POINT_METHODS
from experiments.recipes import RECIPES
from tests.experiments.worlds import (
    FALLING,
    RISING,
    STEADY,
)

MOVE = Move(1, "the best level", 64, 4096)


@pytest.mark.parametrize(
    ("table", "expected", "verdict"),
    [
        (RISING, 4.0, "holds"),
        (STEADY, 0.0, "fails"),
        (FALLING, -4.0, "fails"),
    ],
)
def test_a_move_is_judged_by_its_interval(table, expected, verdict):
    found = claims.finding("run", table, MOVE)
    assert found.effect.mean == pytest.approx(expected, abs=0.3)
    assert found.verdict == verdict
    assert found.number == 8


def test_a_contrast_is_the_weighted_sum_of_its_cells_for_each_base():
    difference = Contrast(3, "easy minus best", (Term(1, 8, 4096), Term(-1, 12, 4096)))
    found = claims.finding("run", RISING, difference)
    # Parabolas: 0.004 * 4**2 above the lowest point.
    assert found.effect.mean == pytest.approx(0.064, abs=0.002)
    assert found.verdict == "holds"
    assert found.p < 1e-6
    values = claims.contrast_values(RISING, difference)
    assert values.shape == (8,)
    assert values.mean() == pytest.approx(found.effect.mean)


def test_levels_are_averaged_and_the_base_is_a_cell():
    lost = Contrast(
        5,
        "risk minus the base's",
        (Term(1, 8, 64, metric="risk", levels=(2, 3)), Term.of_base(-1, (2, 3))),
    )
    np.testing.assert_allclose(claims.contrast_values(RISING, lost), 0.25 - 0.25)
    overall = Contrast(5, "risk minus the base's", (Term(1, 8, 64), Term.of_base(-1)))
    assert claims.finding("run", RISING, overall).effect.mean == pytest.approx(-0.05, abs=0.002)


def test_a_diverged_member_takes_its_base_out_of_the_contrast():
    table = RISING.copy()
    gone = (table["base_seed"] == 3) & (table["difficulty"] == 8) & (table["data_size"] == 64)
    table.loc[gone, "status"] = "diverged"
    contrast = Contrast(3, "difference", (Term(1, 8, 64), Term(-1, 12, 64)))
    values = claims.contrast_values(table, contrast)
    assert np.isnan(values).tolist() == [False] * 3 + [True] + [False] * 4
    assert claims.finding("run", table, contrast).number == 7


def test_predictions_whose_cells_were_not_run_are_left_out():
    predictions = (
        MOVE,
        Move(1, "another loss", 64, 4096, loss="dft"),
        Move(1, "another size", 16, 4096),
        Contrast(3, "another level", (Term(1, 7, 64),)),
    )
    assert [each.prediction for each in claims.findings("run", RISING, predictions)] == [MOVE]
    for prediction in predictions[1:]:
        with pytest.raises(ValueError, match="table: no "):
            claims.finding("run", RISING, prediction)


def test_a_rise_compares_runs():
    tables = {
        "weak": FALLING,
        "middling": STEADY,
        "strong": RISING,
    }
    risen = Rise(6, "the best level", ("weak", "middling", "strong"), 4096)
    found = claims.rise("runs", tables, risen)
    assert found.effect.mean == pytest.approx(4.0, abs=0.3)
    assert (found.verdict, found.number) == ("holds", 8)
    assert claims.rise("runs", tables, dataclasses.replace(risen, data_size=64)).verdict == "fails"
    assert claims.findings("weak", FALLING, [risen]) == []
    with pytest.raises(ValueError, match="tables: no run of \\['weak', 'middling'\\]"):
        claims.rise("runs", {"strong": RISING}, risen)


def test_a_claim_holds_if_all_its_predictions_do():
    def found(verdict):
        return claims.Finding("run", MOVE, Interval(0, 0, 0), 1.0, 8, verdict)

    assert claims.claim_verdict([found("holds"), found("holds")]) == "holds"
    assert claims.claim_verdict([found("holds"), found("undecided")]) == "undecided"
    assert claims.claim_verdict([found("holds"), found("undecided"), found("fails")]) == "fails"


@pytest.mark.parametrize(
    "recipe", [name for name in RECIPES if hasattr(RECIPES[name], "PREREGISTERED")]
)
def test_every_prediction_names_cells_that_its_recipe_runs(recipe):
    module = RECIPES[recipe]
    configs = [config for name, config in module.PRESETS.items() if name not in ("smoke", "gpu")]
    for prediction in module.PREREGISTERED:
        if isinstance(prediction, Rise):
            assert set(prediction.presets) <= set(module.PRESETS)
            for preset in prediction.presets:
                config = module.PRESETS[preset]
                assert prediction.data_size in config.data_sizes
                assert prediction.mixture in config.mixtures
                assert prediction.loss in config.losses
            continue
        if isinstance(prediction, Covered):
            assert prediction.method in (*POINT_METHODS, *BLOCK_SETTINGS)
            continue
        cells = (
            [(t.mixture, t.loss, t.difficulty, t.data_size) for t in prediction.terms]
            if isinstance(prediction, Contrast)
            else [
                (prediction.mixture, prediction.loss, None, size)
                for size in (prediction.from_size, prediction.to_size)
            ]
        )
        for mixture, loss, difficulty, size in cells:
            assert mixture == "none" or any(
                mixture in config.mixtures
                and loss in config.losses
                and size in config.data_sizes
                and (difficulty is None or difficulty in config.difficulties)
                for config in configs
            ), prediction
