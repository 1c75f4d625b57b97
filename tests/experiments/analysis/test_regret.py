"""Rules judged where the truth is known, and averages against a slow loop."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from experiments.analysis.regret import OTHERS, compare, coverage, judge, splits, write_regret
from experiments.analysis.regret_means import CASE, average_regret
from experiments.storage.results import ResultsError
from experiments.sweep.grid import PretrainConfig
from tests.experiments.worlds import CONFIG, slice_risks, world, write_run
from theory.predictor import PREDICTOR, RISKS, RULES


@pytest.fixture(scope="module")
def regrets() -> pd.DataFrame:
    """Two runs from the same bases, and one from others."""
    other = dataclasses.replace(CONFIG, pretrain=PretrainConfig(hardest=2))
    return judge(
        {"first": (world(), CONFIG), "again": (world(seed=1), CONFIG), "weak": (world(), other)}
    )


def test_splits_hold_out_four_times_what_was_fitted():
    assert splits(np.array([16, 64, 256, 1024])) == [(64, 256), (64, 1024), (256, 1024)]
    assert splits(np.array([16, 64, 128])) == []


def test_every_rule_is_judged_in_every_case(regrets):
    assert set(regrets["rule"]) == {*RULES, OTHERS}
    assert len(regrets) == (len(RULES) + 1) * 3 * 3 * 3
    assert not regrets.duplicated(["rule", *CASE]).any()
    assert set(regrets.loc[regrets["kind"] == "predictor", "rule"]) == {PREDICTOR}
    assert (regrets["factor"] >= 4).all()
    assert (regrets["factor"] == regrets["data_size"] / regrets["fitted_up_to"]).all()


def test_regret_is_what_the_pick_costs(regrets):
    assert (regrets["regret"] >= 0).all()
    assert (regrets.loc[regrets["choice"] == regrets["best"], "regret"] == 0).all()
    picks = regrets[(regrets["rule"] == "easiest") & (regrets["data_size"] == 1024)]
    risks = [slice_risks(level, 1024).mean() for level in CONFIG.difficulties]
    assert (picks["choice"] == 2).all()
    np.testing.assert_allclose(picks["regret"], risks[0] - min(risks), atol=0.02)


def test_where_the_best_level_moves_the_predicted_risk_beats_standing_still(regrets):
    means = average_regret(regrets, replicates=200).set_index("rule")
    assert set(regrets["moved"]) == {True}
    assert means.loc["bound", "high"] < 0.01 < means.loc["best in pilot", "low"]
    assert means.loc["bound", "moved"] == pytest.approx(means.loc["bound", "regret"])
    assert np.isnan(means.loc["bound", "unmoved"])
    # Of one task there is no constant of others.
    assert "best constant" not in means.index
    assert np.isnan(means["skill"].to_numpy()).all()


def test_skill_is_against_the_best_constant_of_other_tasks():
    """In units of what the base gets half right: one level for all data sizes."""
    config = dataclasses.replace(CONFIG, task="dyck")
    regrets = judge({"one": (world(), CONFIG), "two": (world(seed=1), config)})
    assert set(regrets["task"]) == {CONFIG.task, "dyck"}
    constant = regrets.loc[regrets["rule"] == "best constant"]
    assert len(constant) == 2 * 3 * 3
    # One multiple for all data sizes of a task, so that one level is picked for each base.
    assert set(constant.groupby(["run", "base"])["choice"].nunique()) == {1}
    means = average_regret(regrets, replicates=200).set_index("rule")
    least = means.loc["best constant", "regret"]
    for rule in ("bound", "easiest"):
        assert means.loc[rule, "skill"] == pytest.approx(1 - means.loc[rule, "regret"] / least)
    assert means.loc["best constant", "skill"] == 0
    assert means.loc["bound", "skill_low"] > 0 > means.loc["easiest", "skill_high"]
    assert set(means["num_tasks"]) == {2}


def test_errors_of_predicted_risks_are_told_for_rules_that_predict_one(regrets):
    known = regrets.groupby("rule")["error"].apply(lambda errors: errors.notna().all())
    assert set(known[known].index) == set(RISKS)
    assert regrets.loc[regrets["rule"] == "bound", "error"].between(0, 0.2).all()


def test_what_is_best_for_other_bases_does_not_look_at_its_own():
    """At n = 1024 the level 12 is the best for the bases 0 and 1, but made the worst for base 2."""
    table = world()
    is_own = (table["base_seed"] == 2) & (table["data_size"] == 1024) & (table["difficulty"] == 12)
    table.loc[is_own, "value"] = 1.0
    regrets = judge({"run": (table, CONFIG)})
    oracle = regrets[(regrets["rule"] == OTHERS) & (regrets["data_size"] == 1024)]
    picks = oracle.groupby("base_seed")["choice"].unique().map(list).to_dict()
    assert picks[2] == [12]
    assert picks[0] == picks[1] != [12]
    # With one base there are no others.
    single = dataclasses.replace(CONFIG, base_seeds=1)
    assert OTHERS not in set(judge({"run": (world(config=single), single)})["rule"])


def test_held_out_sizes_do_not_reach_the_fit():
    table = world()
    spoilt = table.copy()
    spoilt.loc[spoilt["data_size"] == 1024, "value"] = 0.5
    judged = (judge({"run": (each, CONFIG)}) for each in (table, spoilt))
    first, second = (each.loc[each["kind"] != "oracle"] for each in judged)
    assert first["choice"].tolist() == second["choice"].tolist()


def test_runs_with_the_same_bases_share_their_names(regrets):
    named = regrets.groupby("run")["base"].unique().map(sorted).to_dict()
    assert named["first"] == named["again"] == ["first/0", "first/1", "first/2"]
    assert named["weak"] == ["weak/0", "weak/1", "weak/2"]


def test_runs_without_held_out_sizes_are_refused():
    config = dataclasses.replace(CONFIG, data_sizes=(16, 64))
    with pytest.raises(ValueError, match=r"runs: none has a data size 4 times .* \['short'\]"):
        judge({"short": (world(config=config), config)})


def slow_average(costs: dict[str, list[float]], generator: np.random.Generator) -> float:
    """One replicate: tasks are drawn, and in each its bases, within their origin."""
    tasks = {"a": ("first",), "b": ("weak", "other")}
    means = []
    chosen = {
        origin: generator.choice([base for base in costs if base.startswith(origin)], 3)
        for origins in tasks.values()
        for origin in origins
    }
    for task in generator.choice(list(tasks), 2):
        drawn = [costs[base] for origin in tasks[task] for base in chosen[origin]]
        means.append(np.mean(np.concatenate(drawn)))
    return float(np.mean(means))


def test_intervals_agree_with_a_slow_loop():
    """Two tasks, of which one has two origins; three bases each, with one to three cases."""
    generator = np.random.default_rng(0)
    rows, costs = [], {}
    for task, origin in (("a", "first"), ("b", "weak"), ("b", "other")):
        for base in range(3):
            costs[f"{origin}/{base}"] = generator.uniform(0, 0.1, base + 1).tolist()
            for size, cost in enumerate(costs[f"{origin}/{base}"]):
                row = {"run": origin, "study": "s", "base": f"{origin}/{base}", "task": task}
                row |= {"fitted_up_to": 16, "data_size": 64 * (size + 1), "regret": cost}
                rows.append(row | {"rank_correlation": 1.0, "error": 0.1, "moved": False})
    table = pd.DataFrame(rows).assign(rule=PREDICTOR, kind="predictor")
    (fast,) = average_regret(table, replicates=4000).to_dict("records")
    by_task = [[cost for base in range(3) for cost in costs[f"first/{base}"]]]
    by_task.append([cost for base, own in costs.items() if base[0] != "f" for cost in own])
    assert fast["regret"] == pytest.approx(np.mean([np.mean(own) for own in by_task]))
    slow = [slow_average(costs, generator) for _ in range(4000)]
    expected = np.quantile(slow, (0.05, 0.95))
    np.testing.assert_allclose((fast["low"], fast["high"]), expected, atol=0.003)


def test_the_worst_study_is_the_largest_mean(regrets):
    means = average_regret(regrets, replicates=200).set_index("rule")
    for rule, own in regrets.groupby("rule"):
        worst = max(part["regret"].mean() for _, part in own.groupby("run"))
        assert means.loc[rule, "worst"] == pytest.approx(worst)
        assert worst >= means.loc[rule, "regret"]


def test_averages_are_sorted(regrets):
    means = average_regret(regrets, replicates=200)
    assert means["regret"].is_monotonic_increasing
    assert means["num_cases"].tolist() == [27] * (len(RULES) + 1)
    assert all(means["low"] <= means["regret"])
    assert all(means["regret"] <= means["high"])


def test_incomplete_tables_of_regrets_are_refused(regrets):
    with pytest.raises(ValueError, match="every rule needs every case"):
        average_regret(regrets.iloc[1:])
    with pytest.raises(ValueError, match="kind must be 'predictor' for one rule"):
        average_regret(regrets[regrets["kind"] != "predictor"])


def test_predicted_and_measured_optima_stand_side_by_side():
    optima = compare({"run": (world(), CONFIG)}, replicates=100)
    measured = optima[optima["kind"] == "measured"].set_index("data_size")
    assert measured["best_difficulty"].tolist() == [2, 4, 9, 12]
    predicted = optima[optima["kind"] == "predicted"]
    assert list(zip(predicted["fitted_up_to"], predicted["data_size"], strict=True)) == [
        (64, 256),
        (64, 1024),
        (256, 1024),
    ]
    expected = measured.loc[predicted["data_size"], "best_difficulty"].tolist()
    assert predicted["best_difficulty"].tolist() == expected
    assert all(optima["low"] <= optima["high"])
    assert set(optima["levels"]) == {"2 4 6 9 12"}
    # The bases get 38% of the levels 1 to 12 right: best at n = 1024, but not at 256.
    assert all(np.isnan(measured["base_rule_regret"]))
    risks = [slice_risks(level, 256).mean() for level in CONFIG.difficulties]
    costs = predicted["base_rule_regret"].tolist()
    assert costs == pytest.approx([risks[-1] - min(risks), 0, 0], abs=0.01)
    assert costs[0] > 0.005
    found = coverage(optima)
    assert found["told_base_rule_regret"] > found["told_regret"] == 0
    assert (found["predictions"], found["covered"]) == (3, 3)
    assert found["told"] == found["told_covered"] == 3 - found["abstained"]
    elsewhere = optima.assign(low=20, high=20)
    assert coverage(elsewhere)["covered"] == 0


def test_tables_are_written(tmp_path):
    directories = [write_run(tmp_path / "a", world()), write_run(tmp_path / "b", world(seed=1))]
    tables = write_regret(directories, tmp_path / "out")
    assert set(tables) == {"regret", "prediction"}
    for name, table in tables.items():
        pd.testing.assert_frame_equal(
            pd.read_parquet(tmp_path / "out" / f"{name}.parquet"), table, check_dtype=False
        )
        assert set(table["run"]) == {"a", "b"}
    with pytest.raises(ValueError, match=r"different names, got \['a', 'a'\]"):
        write_regret([directories[0], directories[0]], tmp_path / "other")
    with pytest.raises(ResultsError, match="is not a run"):
        write_regret([tmp_path], tmp_path / "other")
    assert not (tmp_path / "other").exists()
