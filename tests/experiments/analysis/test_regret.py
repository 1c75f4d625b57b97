"""Rules judged where the truth is known, and averages against a slow loop."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from experiments.analysis.regret import compare, judge, splits, write_regret
from experiments.analysis.regret_means import CASE, average_regret
from experiments.storage.results import ResultsError
from experiments.sweep.grid import PretrainConfig
from tests.experiments.worlds import CONFIG, slice_risks, world, write_run
from theory.predictor import PREDICTOR, RULES


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
    assert set(regrets["rule"]) == set(RULES)
    assert len(regrets) == len(RULES) * 3 * 3 * 3
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


def test_the_predictor_beats_standing_still(regrets):
    means = average_regret(regrets, replicates=200).set_index("rule")
    assert means.loc[PREDICTOR, "regret"] < 0.01
    assert means.loc["best in pilot", "more_low"] > 0


def test_held_out_sizes_do_not_reach_the_fit():
    table = world()
    spoilt = table.copy()
    spoilt.loc[spoilt["data_size"] == 1024, "value"] = 0.5
    first, second = (judge({"run": (each, CONFIG)}) for each in (table, spoilt))
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
    """One replicate: bases are drawn within their origin, and bring all their cases."""
    drawn = []
    for origin in ("first", "weak"):
        bases = [base for base in costs if base.startswith(origin)]
        for base in generator.choice(bases, len(bases)):
            drawn += costs[base]
    return float(np.mean(drawn))


def test_intervals_agree_with_a_slow_loop(regrets):
    generator = np.random.default_rng(0)
    effects = {base: generator.uniform(0, 0.1) for base in sorted(regrets["base"].unique())}
    noisy = regrets.assign(regret=regrets["regret"] + regrets["base"].map(effects))
    fast = average_regret(noisy).set_index("rule").loc["hardest"]
    rows = noisy[noisy["rule"] == "hardest"]
    costs = rows.groupby("base")["regret"].apply(list).to_dict()
    slow = [slow_average(costs, generator) for _ in range(2000)]
    assert fast["regret"] == pytest.approx(rows["regret"].mean())
    expected = np.quantile(slow, (0.05, 0.95))
    np.testing.assert_allclose(fast[["low", "high"]].astype(float), expected, atol=0.005)


def test_averages_are_sorted_and_paired(regrets):
    means = average_regret(regrets, replicates=200)
    assert means["regret"].is_monotonic_increasing
    assert means["num_cases"].tolist() == [27] * len(RULES)
    assert all(means["low"] <= means["regret"])
    assert all(means["regret"] <= means["high"])
    own = means.set_index("rule").loc[PREDICTOR]
    assert (own["more"], own["more_low"], own["more_high"]) == (0, 0, 0)
    np.testing.assert_allclose(means["more"], means["regret"] - own["regret"], atol=1e-12)


def test_incomplete_tables_of_regrets_are_refused(regrets):
    with pytest.raises(ValueError, match="every rule needs every case"):
        average_regret(regrets.iloc[1:])
    with pytest.raises(ValueError, match="kind must be 'predictor' for one rule"):
        average_regret(regrets[regrets["kind"] != "predictor"])


def few_regrets() -> pd.DataFrame:
    """Two bases of one origin, of which one has three cases, and the predictor is named last."""
    rows = []
    for rule, kind, costs in (
        ("hardest", "naive", [0.3, 0.3, 0.3, 0.1]),
        (PREDICTOR, "predictor", [0.2, 0.2, 0.2, 0.1]),
    ):
        for case, cost in enumerate(costs):
            base = "run/0" if case < 3 else "run/1"
            row = {"rule": rule, "kind": kind, "run": "run", "study": "s", "base": base}
            row |= {"fitted_up_to": 16, "data_size": 64 * (case + 1), "regret": cost}
            rows.append(row | {"rank_correlation": 1.0 if case else 0.0})
    return pd.DataFrame(rows)


def test_averages_of_a_few_cases_by_hand():
    means = average_regret(few_regrets()).set_index("rule")
    assert means.index.tolist() == [PREDICTOR, "hardest"]
    hardest = means.loc["hardest"]
    assert hardest["regret"] == pytest.approx(0.25)
    assert hardest["more"] == pytest.approx(0.075)
    assert means.loc[PREDICTOR, "more"] == 0
    # A draw of one base twice counts its own cases alone, however many they are.
    assert (hardest["low"], hardest["high"]) == pytest.approx((0.1, 0.3))
    assert (hardest["more_low"], hardest["more_high"]) == pytest.approx((0.0, 0.1))
    assert hardest["rank_correlation"] == pytest.approx(0.75)


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
