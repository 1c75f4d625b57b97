"""Rank correlations and binned pass rates against slow references and simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from experiments.llm.difficulty.agreement import (
    mean_interval,
    pass_rate_over,
    present,
    rank_correlations,
)


def measures(num_problems: int, seed: int = 0, samples: int = 4) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    op = random.integers(2, 12, num_problems)
    rate = 1 / (1 + np.exp(0.6 * (op - 6.0) + random.normal(size=num_problems)))
    return pd.DataFrame(
        {
            "op": op,
            "cot_tokens": 20 * op + random.integers(0, 60, num_problems),
            "pass_rate": random.binomial(samples, rate) / samples,
            "perplexity": np.exp(0.2 + 0.02 * op + 0.1 * random.random(num_problems)),
            "samples": samples,
        }
    )


def mean_ranks(values) -> np.ndarray:
    return np.array([(sum(values < v) + sum(values <= v) + 1) / 2 for v in values])


def slow_kendall(first, second) -> float:
    """Kendall's tau-b, by counting pairs."""
    pairs = list(itertools.combinations(range(len(first)), 2))
    signs = np.sign([(first[i] - first[j], second[i] - second[j]) for i, j in pairs])
    return float(signs.prod(axis=1).sum() / np.sqrt(np.prod((signs != 0).sum(axis=0))))


def test_all_pairs_equal_the_references():
    table = measures(40)
    correlations = rank_correlations(table)
    assert len(correlations) == 2 * 6
    for row in correlations.to_dict("records"):
        first, second = (table[row[side]].to_numpy(float) for side in ("first", "second"))
        if row["statistic"] == "kendall":
            expected = slow_kendall(first, second)
        else:
            expected = np.corrcoef(mean_ranks(first), mean_ranks(second))[0, 1]
        np.testing.assert_allclose(row["value"], expected, rtol=1e-12)
        assert -1 <= row["low"] < row["value"] < row["high"] <= 1
        assert row["num_problems"] == 40


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    columns, keys = ["cot_tokens", "pass_rate"], ["first", "second", "statistic"]
    truth = rank_correlations(measures(10_000, seed=999).loc[:, columns]).set_index(keys)["value"]
    tables = [
        rank_correlations(measures(60, seed).loc[:, columns]).set_index(keys) for seed in range(150)
    ]
    hits = [(rows["low"] <= truth) & (truth <= rows["high"]) for rows in tables]
    assert pd.concat(hits, axis=1).mean(axis=1).between(0.83, 0.98).all()


def test_missing_values_leave_their_pairs_alone():
    table = measures(30)
    table["op"] = table["op"].astype("Int64").where(np.arange(30) >= 4)
    counts = rank_correlations(table).drop_duplicates(["first", "second"])
    # Pairs in the order of MEASURES: three with op, three without.
    assert counts["num_problems"].tolist() == [26] * 3 + [30] * 3


def test_columns_of_the_data_are_measures_too():
    table = measures(60)
    table["column:solve_rate"] = table["pass_rate"].where(np.arange(60) >= 5)
    assert present(table)[-1] == "column:solve_rate"
    pairs = rank_correlations(table).set_index(["first", "second", "statistic"])
    row = pairs.loc[("pass_rate", "column:solve_rate", "spearman")]
    assert row["value"] == pytest.approx(1)
    assert row["num_problems"] == 55
    bins = pass_rate_over(table, "column:solve_rate")
    np.testing.assert_allclose(bins["centre"], bins["mean"])


def test_measures_without_differences_are_not_present():
    table = measures(30).assign(op=7, perplexity=np.nan)
    assert present(table) == ["cot_tokens", "pass_rate"]
    assert set(rank_correlations(table)["first"]) == {"cot_tokens"}
    # The values differ over all problems, but not over those of the pair.
    table["perplexity"] = [1.5] * 20 + [1.7] + [np.nan] * 9
    table.loc[20, "pass_rate"] = np.nan
    rows = rank_correlations(table)
    assert (
        rows.loc[rows["second"] == "perplexity", "value"].isna().tolist()
        == [False] * 2 + [True] * 2
    )
    with pytest.raises(
        ValueError, match=r"two measures that differ, the table has \['pass_rate'\]"
    ):
        rank_correlations(table.loc[:, ["pass_rate"]])
    with pytest.raises(ValueError, match=r"op and cot_tokens needs at least 5 .* got 4"):
        rank_correlations(measures(4))


def test_perfect_agreement_has_no_warning():
    table = pd.DataFrame({"op": range(9), "perplexity": np.arange(9) + 1.0})
    correlations = rank_correlations(table)
    np.testing.assert_allclose(correlations[["value", "low", "high"]], 1.0)


def test_bins_have_equal_numbers_and_the_means_of_their_problems():
    table = measures(1000).assign(perplexity=np.random.default_rng(5).permutation(1000) + 1.0)
    bins = pass_rate_over(table, "perplexity", bins=5)
    assert bins["num_problems"].tolist() == [200] * 5
    assert bins["centre"].tolist() == [100.5, 300.5, 500.5, 700.5, 900.5]
    for number, mean in enumerate(bins["mean"]):
        own = table["perplexity"].between(200 * number + 1, 200 * number + 200)
        np.testing.assert_allclose(mean, table.loc[own, "pass_rate"].mean())
    assert (np.diff(bins[["low", "mean", "high"]], axis=1) > 0).all()


def test_each_level_is_a_bin_and_few_problems_have_few_bins():
    table = measures(200)
    assert pass_rate_over(table, "op")["centre"].tolist() == list(range(2, 12))
    assert len(pass_rate_over(table.head(60), "cot_tokens")) == 3
    with pytest.raises(ValueError, match=r"lacks \['pass_rate'\]"):
        pass_rate_over(table.drop(columns="pass_rate"), "op")
    with pytest.raises(ValueError, match=r"problems with both op and pass_rate"):
        pass_rate_over(table.assign(pass_rate=np.nan), "op")


@pytest.mark.parametrize(("alpha", "beta", "samples"), [(0.3, 0.3, 8), (0.05, 5, 4), (50, 50, 1)])
def test_interval_of_the_mean_covers(alpha, beta, samples):
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(500):
        rates = random.binomial(samples, random.beta(alpha, beta, 50)) / samples
        low, high = mean_interval(rates, np.full(50, samples))
        hits += low <= alpha / (alpha + beta) <= high
    assert 0.85 < hits / 500 < 0.99


def test_interval_has_a_width_where_all_samples_failed():
    low, high = mean_interval(np.zeros(20), np.full(20, 8))
    assert low == 0
    assert 0.05 < high < 0.2
    low, high = mean_interval(np.ones(1), np.array([8]))
    assert low < 1 == high
