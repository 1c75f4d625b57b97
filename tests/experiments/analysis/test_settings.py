"""Settings and bases side by side, and the figures of these tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from experiments.analysis.settings import compared, half_level, strengths
from experiments.figures import FIGURES
from tests.experiments.figures.drawing import assert_all_is_on_the_page, assert_has_a_caption, drawn
from tests.experiments.worlds import FALLING, RISING, STEADY

SETTINGS = [("main", "all", RISING), ("control", "less", STEADY), ("control", "none", FALLING)]


def test_each_setting_has_its_move_and_verdict():
    found = compared(SETTINGS, smallest_size=64)
    assert found["verdict"].tolist() == ["holds", "fails", "fails"]
    np.testing.assert_allclose(found["move"], [4, 0, -4], atol=0.3)
    assert found["bases"].tolist() == [8, 8, 8]
    low, move, high = (found[name].to_numpy() for name in ("move_low", "move", "move_high"))
    assert np.all(low < move)
    assert np.all(move < high)


def test_smaller_data_sizes_are_left_out():
    found = compared(SETTINGS[:1], smallest_size=512)
    assert found[["from_size", "to_size"]].to_numpy().tolist() == [[512, 4096]]
    np.testing.assert_allclose(found["move"], 2, atol=0.3)


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [((1.0, 0.8, 0.2), 2.5), ((1.0, 0.5, 0.25), 2.0), ((1, 1, 1), np.nan), ((0.4, 0.1, 0), np.nan)],
)
def test_the_level_that_a_base_gets_half_right(accuracy, expected):
    found = half_level(np.array(accuracy), np.arange(1.0, 4.0))
    assert found == pytest.approx(expected, nan_ok=True)


def test_strengths_have_the_level_that_bases_know_and_the_best():
    found = strengths([("weak", FALLING), ("strong", RISING)])
    assert found["run"].tolist() == ["weak"] * 3 + ["strong"] * 3
    # Untrained risks of .1, .2 and .3 on three levels: never half wrong.
    assert np.isnan(found["half_level"].to_numpy()).all()
    np.testing.assert_allclose(found["position"], [12, 10, 8, 8, 10, 12], atol=0.3)


def test_figures_of_settings_and_strengths_are_labelled():
    moves = compared(SETTINGS, smallest_size=64)
    moves.loc[1, ["move_low", "move_high"]] = [-np.inf, np.inf]
    by_strength = strengths([("weak", FALLING), ("strong", RISING)])
    by_strength["half_level"] = [7.0] * 3 + [11.0] * 3
    by_strength.loc[0, "low"] = -np.inf
    for name, table in (("moves", moves), ("strengths", by_strength)):
        assert_has_a_caption(name)
        figure = drawn(name, {name: table})
        assert figure.axes[0].get_xlabel()
        assert len(figure.legends) == 1
        assert_all_is_on_the_page(figure)


def test_figures_of_a_sweep_that_apply_to_some_tables():
    both = pd.concat([RISING, RISING.loc[RISING["loss"] == "sft"].assign(loss="dft")])
    for name, table in (("losses", both), ("base_accuracy", RISING)):
        assert_has_a_caption(name)
        assert FIGURES[name].applies({"table": table})
        assert_all_is_on_the_page(drawn(name, {"table": table}))
    assert not FIGURES["losses"].applies({"table": RISING})
    trained = RISING.loc[RISING["train_mixture"] != "none"]
    assert not FIGURES["base_accuracy"].applies({"table": trained})
    with pytest.raises(ValueError, match="table: needs members by both losses"):
        drawn("losses", {"table": RISING})
