"""Known answers for the optimum, the shift, and the bootstrap of predictions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from experiments.analysis import bootstrap, optimum, statistics
from experiments.analysis.optimum import Study
from experiments.analysis.verdicts import HOLDS, judge

RANGE = Study("range")
CONSTANT = {16: 8, 64: 8, 256: 8, 1024: 8}


def test_planted_optimum_is_found(two_studies):
    best = optimum.optimum(two_studies, RANGE)
    assert best["data_size"].tolist() == [16, 64, 256, 1024]
    assert best["best_difficulty"].tolist() == [6, 8, 10, 10]
    assert best["censored"].tolist() == ["", "", "", ""]
    np.testing.assert_allclose(best["position"], [6, 8, 10, 10], atol=0.2)
    # Base and seed effects are larger than the steps of the parabola: only pairing gives this.
    assert np.all(best["high"] - best["low"] < 1)


def test_pieces_at_the_optimum_add_up(two_studies):
    best = optimum.optimum(two_studies, RANGE)
    pieces = best["train_risk"] + best["generalization_gap"] + best["extrapolation_gap"]
    np.testing.assert_allclose(pieces, best["test_risk"], rtol=1e-12)
    for name in optimum.AT_OPTIMUM:
        assert np.all(best[f"{name}_low"] <= best[name] + 1e-12)
        assert np.all(best[name] <= best[f"{name}_high"] + 1e-12)


def test_unpaired_argmin_would_be_uncertain(two_studies):
    risk = optimum.cube(two_studies, RANGE, "test_risk")
    counts = bootstrap.resample(risk)
    generator = np.random.default_rng(1)
    unpaired = np.stack(
        [
            bootstrap.replicate_means(risk, counts[generator.permutation(len(counts))])[:, level]
            for level in range(len(risk.difficulties))
        ],
        axis=1,
    )
    assert np.unique(unpaired[..., 0].argmin(axis=1)).size > 1


def slow_replicate(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One replicate by explicit loops; the members of each cell are gathered in a list."""
    _, _, num_bases, num_seeds = values.shape
    members = []
    for base in generator.choice(num_bases, num_bases):
        for seed in generator.choice(num_seeds, num_seeds):
            members.append(values[:, :, base, seed])
    return np.nanmean(np.stack(members), axis=0)


def test_bootstrap_agrees_with_a_slow_loop(make_table):
    table = make_table(noise=0.03, diverged=((6, 16, 0, 0),))
    risk = optimum.cube(table, RANGE, "test_risk")
    assert np.isnan(risk.values).sum() == 1
    generator = np.random.default_rng(7)
    slow = np.stack([slow_replicate(risk.values, generator) for _ in range(4000)])
    fast = bootstrap.replicate_means(risk, bootstrap.resample(risk, replicates=4000))
    for each in (0.05, 0.95):
        np.testing.assert_allclose(
            np.quantile(fast, each, axis=0), np.quantile(slow, each, axis=0), atol=0.004
        )
    low, high = bootstrap.best_levels(risk, replicates=4000, seed=1)
    drawn = risk.difficulties[slow.argmin(axis=1)]
    found = np.quantile(drawn, (0.05, 0.95), axis=0, method="inverted_cdf")
    np.testing.assert_array_equal([low, high], found)


def test_intervals_are_students_over_bases(make_table):
    table = make_table(noise=0.03)
    cells = optimum.mean_interval(table, RANGE, "test_risk").set_index(["difficulty", "data_size"])
    risk = optimum.cube(table, RANGE, "test_risk")
    expected = statistics.estimate(risk.values[1, 0].mean(axis=1))
    found = cells.loc[(6, 16), ["mean", "low", "high"]]
    assert found.tolist() == pytest.approx([expected.mean, expected.low, expected.high])
    assert optimum.intervals_are_over(table).startswith("Means over 4 bases")
    # With one base they are over its seeds, and say so; with one member there are none.
    one = table[table["base_seed"] == 0]
    assert "the variation between bases is not in them" in optimum.intervals_are_over(one)
    alone = one[one["seed"] == 0]
    assert "no intervals" in optimum.intervals_are_over(alone)
    assert np.isnan(optimum.mean_interval(alone, RANGE, "test_risk")["low"].to_numpy()).all()


def test_weighted_means_equal_repeated_members(make_table):
    risk = optimum.cube(make_table(diverged=((6, 16, 0, 0),)), RANGE, "test_risk")
    counts = bootstrap.resample(risk, replicates=5)
    assert np.all(counts.sum(axis=(1, 2)) == 16)
    means = bootstrap.replicate_means(risk, counts)
    flat = risk.values.reshape(*risk.mean.shape, 16)
    for replicate in range(5):
        repeated = np.repeat(flat, counts[replicate].ravel(), axis=-1)
        np.testing.assert_allclose(means[replicate], np.nanmean(repeated, axis=-1), rtol=1e-12)


def test_pairs_without_data_are_not_drawn(make_table):
    table = make_table()
    table = table[~((table["base_seed"] == 2) & (table["seed"] > 0))]
    counts = bootstrap.resample(optimum.cube(table, RANGE, "test_risk"), replicates=50)
    assert np.all(counts[:, 2, 1:] == 0)
    assert counts[:, 2, 0].max() > 0


def test_shift_and_interior_maximum(two_studies):
    moved = optimum.shift(two_studies, RANGE)
    assert (moved.smallest_size, moved.largest_size) == (16, 1024)
    assert (moved.smallest.level, moved.largest.level) == (6, 10)
    assert moved.move.low > 3
    assert moved.move.high < 5
    assert (moved.move.signs.positive, moved.unit, moved.number, moved.step) == (4, "base", 4, 2)


def test_no_shift(make_table):
    moved = optimum.shift(make_table(CONSTANT), RANGE).move
    assert -1 < moved.low <= moved.high < 1
    noisy = optimum.shift(make_table(CONSTANT, noise=0.1, num_bases=8), RANGE)
    assert judge(noisy.move, noisy.step) != HOLDS


def test_edges_are_censored(censored_study, make_table):
    best = optimum.optimum(censored_study, RANGE)
    assert best["is_open"].tolist() == [False, False, True, True]
    assert np.isinf(best["high"]).tolist() == [False, False, True, True]
    easy = make_table({16: 2, 64: 8})
    assert optimum.optimum(easy, RANGE)["censored"].tolist() == ["easiest", ""]
    moved = optimum.shift(easy, RANGE)
    assert moved.smallest.censored == "easiest"
    assert moved.move.high == np.inf
    assert moved.move.low > 2


def test_diverged_members_are_left_out_and_counted(make_table):
    table = make_table(diverged=((6, 16, 0, 0), (6, 16, 1, 2)))
    cells = optimum.mean_interval(table, RANGE, "test_risk").set_index(["difficulty", "data_size"])
    assert sum(cells["num_missing"]) == 2
    assert cells.loc[(6, 16), "num_members"] == 14
    risk = optimum.cube(table, RANGE, "test_risk")
    of_bases = np.nanmean(risk.values[1, 0], axis=1)
    assert cells.loc[(6, 16), "mean"] == pytest.approx(of_bases.mean())


def test_change_from_base_is_paired(make_table):
    table = make_table(noise=0.0)
    change = optimum.mean_interval(table, RANGE, "test_risk", minus_base=True)
    # The effects of base and seed are shared, so the difference has no spread at all.
    np.testing.assert_allclose(change["low"], change["high"], atol=1e-12)
    best = change.set_index(["difficulty", "data_size"]).loc[(6, 16), "mean"]
    assert best == pytest.approx(0.62 - 0.8)


def test_slices_are_told_from_aggregates(two_studies):
    easy = optimum.mean_interval(two_studies, RANGE, "risk", test_slice=1)
    hard = optimum.mean_interval(two_studies, RANGE, "risk", test_slice=20)
    assert np.all(easy["mean"] < hard["mean"])


def test_a_message_stays_short_whatever_a_table_holds(two_studies):
    long = two_studies.head(200).assign(train_mixture="a" * 100_000)
    with pytest.raises(ValueError, match="no rows for") as caught:
        optimum.cube(long, RANGE, "test_risk")
    assert len(str(caught.value)) < 2_000


def test_studies_are_listed_and_told_apart(two_studies):
    assert optimum.studies(two_studies) == [RANGE, Study("exact")]
    longer = two_studies.assign(compute=two_studies["compute"].replace("500 steps", "9 epochs"))
    both = pd.concat([two_studies, longer])
    named = [study for study in optimum.studies(both) if study.train_mixture == "range"]
    assert [study.compute for study in named] == ["500 steps", "9 epochs"]
    with pytest.raises(ValueError, match=r"compute is None, must be one of \['500 steps'"):
        optimum.cube(both, RANGE, "test_risk")
    with pytest.raises(ValueError, match="no rows for"):
        optimum.cube(two_studies, Study("window"), "test_risk")


def test_learning_rates_that_lost_are_ignored(make_table):
    table = make_table()
    trained = table[table["train_mixture"] != "none"]
    lost = trained.assign(status="not_selected", learning_rate=1.0, value=0.0)
    expected = optimum.optimum(table, RANGE)
    pd.testing.assert_frame_equal(optimum.optimum(pd.concat([table, lost]), RANGE), expected)


def test_errors_name_the_cell(make_table):
    table = make_table()
    is_gone = (table["difficulty"] == 6) & (table["data_size"] == 64)
    with pytest.raises(ValueError, match=r"no member in \(difficulty 6, data_size 64\)$"):
        optimum.optimum(table[~is_gone], RANGE)
    with pytest.raises(ValueError, match="metric 'no_metric' has no member"):
        optimum.cube(table, RANGE, "no_metric")
    with pytest.raises(ValueError, match=r"two values at .*'difficulty'"):
        optimum.optimum(pd.concat([table, table]), RANGE)


def test_headline_has_a_row_for_each_study_and_size(two_studies, censored_study):
    lines = optimum.headline(two_studies)
    assert len(lines) == 8
    assert lines["optimum"].tolist()[0].startswith("6.0 [")
    assert lines["best_levels"].tolist()[0] == "6"
    assert set(lines["study"]) == {"trained on 1..d", "trained on exactly d"}
    assert optimum.headline(censored_study)["optimum"].tolist()[-1].startswith("≥ ")


def test_one_member_a_cell_claims_no_certainty(make_table):
    table = make_table()
    alone = table[(table["base_seed"] == 0) & (table["seed"] == 0)]
    moved = optimum.shift(alone, RANGE)
    assert np.isnan([moved.move.low, moved.move.high]).all()
    assert (moved.unit, moved.number) == ("seed", 1)
    assert "[" not in "".join(optimum.headline(alone).astype(str).to_numpy().ravel())


def test_a_table_with_a_study_in_every_row_is_refused():
    """Each study is looked for in all rows: thousands of them would take minutes."""
    table = pd.DataFrame({"train_mixture": "range", "loss": [f"loss {n}" for n in range(101)]})
    for name in ("task", "data_unit", "compute", "family"):
        table[name] = "one"
    with pytest.raises(ValueError, match=r"at most 100 combinations of .*, got 101"):
        optimum.studies(table)
