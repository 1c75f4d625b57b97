"""Recommendations on invented sweeps with a known answer, and on the recorded one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.analysis import optimum
from experiments.analysis.curves import learning_curves
from experiments.analysis.optimum import Study, cube, studies
from experiments.analysis.pilot import read_pilot, study_risks
from experiments.analysis.recommend import Recommendation, recommend
from experiments.storage.results import ResultsError
from experiments.sweep.grid import sweep_config
from tests.experiments.tiny import TINY
from tests.experiments.worlds import CONFIG, slice_risks, world, write_run
from theory.predictor import PREDICTOR, RULES

RANGE = Study("range")
TABLE = world()
RECORDED = Path(__file__).parents[3] / "experiments" / "results" / "tradeoff"


def ask(table: pd.DataFrame, data_size: int, **options: Any) -> Recommendation:
    options = {"config": CONFIG, "fitted_up_to": 64, "replicates": 200} | options
    return recommend(table, RANGE, data_size=data_size, **options)


def truth(data_size: int) -> int:
    risks = [slice_risks(level, data_size).mean() for level in CONFIG.difficulties]
    return CONFIG.difficulties[int(np.argmin(risks))]


@pytest.mark.parametrize("data_size", [256, 1024])
def test_the_known_optimum_is_recommended(data_size):
    answer = ask(TABLE, data_size)
    assert answer.difficulty == truth(data_size)
    assert answer.low <= answer.difficulty <= answer.high
    assert answer.share > 0.5
    assert answer.pilot_sizes == (16, 64)
    assert not answer.abstains
    assert f"For n = {data_size} train on difficulty" in answer.verdict
    assert list(answer.predicted) == list(CONFIG.difficulties)
    risk = answer.predicted[answer.difficulty]
    assert risk.mean == min(interval.mean for interval in answer.predicted.values())
    assert 0 <= risk.low <= risk.mean <= risk.high <= 1
    assert set(answer.excess) == set(CONFIG.difficulties) - {answer.difficulty}
    assert all(interval.mean >= 0 for interval in answer.excess.values())


def test_the_choices_of_all_rules_are_told():
    answer = ask(TABLE, 1024)
    assert list(answer.choices) == list(RULES)
    assert answer.choices["bound"] == answer.difficulty
    assert (answer.choices["easiest"], answer.choices["medium"], answer.choices["hardest"]) == (
        2,
        6,
        12,
    )
    assert answer.choices["best in pilot"] == 4


def test_of_the_levels_that_cannot_be_told_from_the_best_the_base_names_one():
    """The bases get 38% of the levels 1 to 12 right and half of 1 to 9; 9 is best at n = 256."""
    clear = ask(TABLE, 256)
    assert (clear.rule, clear.choices["right share"]) == (PREDICTOR, 12)
    # The level 9 alone is left, since all others are clearly worse.
    assert (clear.low, clear.difficulty, clear.high) == (9, 9, 9)
    assert "range 9 alone;" in clear.verdict
    assert "Every other level is predicted to be clearly worse" in clear.verdict
    # Noise leaves more of them, and then the base decides.
    noisy = ask(world(noise=0.3), 256)
    assert (noisy.low, noisy.difficulty, noisy.high) == (6, 12, 12)
    assert "range 6 to 12;" in noisy.verdict
    assert noisy.choices["bound"] == 9
    assert "the one of whose data the base gets nearest to 40% right" in noisy.verdict
    assert noisy.choices[PREDICTOR] == 12


def test_the_range_has_the_levels_that_are_not_clearly_worse():
    answer = ask(world(noise=0.5), 1024)
    least = min(answer.predicted, key=lambda level: answer.predicted[level].mean)
    inside = {level for level in answer.predicted if answer.low <= level <= answer.high}
    assert {least, answer.difficulty} <= inside
    # By its own excess, which is that over the recommended level, none outside is better.
    assert all(answer.excess[level].high > 0 for level in set(answer.predicted) - inside)


@pytest.mark.parametrize("risk", [0.0, 1.0])
def test_of_a_base_that_knows_all_or_nothing_the_pilot_alone_decides(risk):
    known = TABLE["value"].where(TABLE["train_mixture"] != "none", risk)
    answer = ask(TABLE.assign(value=known), 256)
    assert (answer.rule, answer.difficulty) == ("bound", truth(256))
    assert "The base gets the same share of all data right" in answer.verdict


def test_a_table_without_bases_is_refused():
    with pytest.raises(ValueError, match="no rows of the untouched bases"):
        ask(TABLE.loc[TABLE["train_mixture"] != "none"], 256)


def test_an_optimum_at_the_edge_is_a_limit():
    answer = ask(TABLE, 1024)
    assert answer.censored == "hardest"
    assert "at least 12" in answer.verdict
    assert "the best may lie beyond" in answer.verdict


def test_a_pilot_that_cannot_tell_abstains():
    flat = [ask(world(is_flat=True, noise=0.1, seed=seed), 256) for seed in range(6)]
    abstained = [answer for answer in flat if answer.abstains]
    assert len(abstained) >= 5
    for answer in abstained:
        assert "cannot tell the difficulties apart" in answer.verdict
        assert answer.verdict.startswith("No recommendation for n = 256")


def test_budgets_far_beyond_the_pilot_are_not_answered():
    assert not ask(TABLE, 64 * 16).abstains
    answer = ask(TABLE, 64 * 17)
    assert answer.abstains
    assert "17 times the pilot's largest data size" in answer.verdict


def single_world(**options: Any) -> tuple[pd.DataFrame, Any]:
    """A world with one member a cell, and its configuration."""
    config = dataclasses.replace(CONFIG, base_seeds=1, seeds=1)
    return world(config=config, **options), config


def test_with_one_member_a_cell_the_noise_of_the_test_decides_and_is_named():
    table, config = single_world()
    answer = ask(table, 1024, config=config)
    assert not answer.abstains
    assert answer.difficulty == truth(1024)
    assert "noise of the" in answer.noise
    assert "as there is one member in each cell" in answer.noise
    assert answer.surer.more_seeds >= 2
    # Of few problems each risk is less certain, by the root of their number.
    few = table.assign(num_examples=(table["num_examples"] // 100).clip(lower=1))
    wide = ask(few, 1024, config=config)

    def width(each: Recommendation) -> float:
        return float(np.mean([risk.high - risk.low for risk in each.excess.values()]))

    assert 5 < width(wide) / width(answer) < 20


def test_one_member_a_cell_on_few_problems_cannot_tell():
    table, config = single_world(is_flat=True)
    few = table.assign(num_examples=(table["num_examples"] // 1000).clip(lower=1))
    answer = ask(few, 256, config=config)
    assert answer.abstains
    assert "cannot tell the difficulties apart" in answer.verdict
    assert answer.surer.test_examples == 4 * sum(
        few.loc[few["metric"] == "risk"].groupby("slice")["num_examples"].mean().astype(int)
    )
    assert "To halve the intervals" in answer.surer.sentence(0.5)
    assert f"about {answer.surer.num_members * 0.5:.2g} hours" in answer.surer.sentence(0.5)


def test_with_several_bases_the_noise_of_the_test_is_in_their_spread():
    answer = ask(TABLE, 256)
    assert "members of" in answer.noise
    assert answer.surer.test_examples == 0


def test_the_predicted_accuracy_of_the_pick_is_told_with_an_interval():
    answer = ask(TABLE, 256)
    risk = answer.predicted[answer.difficulty]
    told = f"Predicted accuracy on the test: {1 - risk.mean:.3f} [{1 - risk.high:.3f}, "
    assert told in answer.verdict


def test_learning_curves_are_those_of_the_answer():
    answer = ask(TABLE, 256)
    curves = learning_curves([answer])
    levels = len(CONFIG.difficulties)
    assert curves.groupby("kind").size().to_dict() == {"measured": 2 * levels, "predicted": levels}
    assert set(curves.loc[curves["is_recommended"], "difficulty"]) == {answer.difficulty}
    assert set(curves.loc[curves["kind"] == "predicted", "data_size"]) == {256}
    measured = cube(TABLE, RANGE, "test_risk")
    for row in curves.loc[curves["kind"] == "measured"].to_dict("records"):
        level = CONFIG.difficulties.index(row["difficulty"])
        size = measured.data_sizes.tolist().index(row["data_size"])
        assert row["accuracy"] == pytest.approx(1 - measured.mean[level, size])
        assert row["low"] <= row["accuracy"] <= row["high"]


def test_fewer_members_give_wider_intervals():
    config = dataclasses.replace(CONFIG, base_seeds=1)
    few = ask(world(config=config), 256, config=config)
    many = ask(TABLE, 256)
    widths = [
        np.mean([interval.high - interval.low for interval in answer.excess.values()])
        for answer in (few, many)
    ]
    assert widths[0] > widths[1]


def test_larger_sizes_are_not_looked_at():
    table = TABLE
    spoilt = table.copy()
    spoilt.loc[spoilt["data_size"] > 64, "value"] = 0.5
    assert ask(table, 256) == ask(spoilt, 256)


def test_same_seed_same_answer():
    table = world(noise=0.2)
    assert ask(table, 256) == ask(table, 256)
    assert ask(table, 256) != ask(table, 256, seed=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fitted_up_to": 16}, r"at least two data sizes, got \[16\] of \[16, 64, 256, 1024\]"),
        ({"fitted_up_to": None}, "data_size must be at least the pilot's largest, 1024, got 256"),
        ({"config": TINY}, r"test slices must be those of the run, \[1, 2, 3, 4\]"),
    ],
)
def test_errors_name_what_is_accepted(options, message):
    with pytest.raises(ValueError, match=message):
        ask(TABLE, 256, **options)


def test_budgets_that_are_no_amount_of_data_are_refused():
    with pytest.raises(ValueError, match="data_size must be at most 1000000000000000, got about"):
        ask(TABLE, 10**30)
    with pytest.raises(ValueError, match="data_size must be at least 1, got 0"):
        ask(TABLE, 0)


def test_missing_cells_are_named():
    table = TABLE
    is_gone = (table["difficulty"] == 6) & (table["data_size"] == 64)
    with pytest.raises(ValueError, match=r"\(difficulty 6, data_size 64\)"):
        ask(table.loc[~is_gone], 256)


def test_mixtures_are_those_of_the_sweep():
    for kind, levels in (("range", [1, 2, 3, 4]), ("exact", [4]), ("window", [2, 3, 4])):
        config = dataclasses.replace(CONFIG, mixtures=(kind,))
        members = study_risks(world(config=config), Study(kind), config)
        assert members.train_mixture.shape == (5, 18)
        np.testing.assert_allclose(members.train_mixture.sum(axis=1), 1)
        assert (np.flatnonzero(members.train_mixture[1]) + 1).tolist() == levels
        np.testing.assert_allclose(members.test_mixture, 1 / 18)
    trained = TABLE["train_mixture"] != "none"
    unknown = TABLE.assign(train_mixture=TABLE["train_mixture"].mask(trained, "odd"))
    with pytest.raises(ValueError, match=r"mixture must be one of .* got 'odd'"):
        study_risks(unknown, Study("odd"), CONFIG)


def test_test_risk_of_the_slices_is_that_of_the_table():
    pilot = study_risks(TABLE, RANGE, CONFIG).pilot(lambda metric: metric.mean)
    expected = optimum.cube(TABLE, RANGE, "test_risk").mean
    np.testing.assert_allclose(pilot.test_risk, expected, rtol=1e-12)


def test_slices_weigh_by_their_examples():
    is_first = (TABLE["slice"] == 1).fillna(False).astype(bool)
    number = TABLE["num_examples"].mask(is_first, 3000)
    members = study_risks(TABLE.assign(num_examples=number), RANGE, CONFIG)
    np.testing.assert_allclose(members.test_mixture, np.array([3, *[1] * 17]) / 20)


def test_the_configuration_survives_its_manifest():
    stored = json.loads(json.dumps(dataclasses.asdict(TINY)))
    assert sweep_config(stored) == TINY
    del stored["save_members"]
    assert sweep_config(stored) == dataclasses.replace(TINY, save_members=False)
    with pytest.raises(ValueError, match=r"config must have fields among .* got \['colour'\]"):
        sweep_config(stored | {"colour": 1})


def test_unfinished_runs_are_refused(tmp_path):
    directory = write_run(tmp_path / "run", TABLE)
    table, config = read_pilot(directory)
    assert config == CONFIG
    assert len(table) == len(TABLE)
    manifest = json.loads((directory / "manifest.json").read_text())
    (directory / "manifest.json").write_text(json.dumps(manifest | {"status": "running"}))
    with pytest.raises(ResultsError, match=r'is not finished \(status "running"\)'):
        read_pilot(directory)


def test_the_recorded_run_gets_a_sane_answer():
    table, config = read_pilot(RECORDED)
    for study in studies(table):
        answer = recommend(table, study, config, 1024, fitted_up_to=64, replicates=100)
        risks = optimum.cube(table, study, "test_risk").mean[:, -1]
        chosen = risks[config.difficulties.index(answer.difficulty)]
        assert chosen - risks.min() <= 0.03
        assert answer.low <= answer.difficulty <= answer.high
        assert not answer.abstains
