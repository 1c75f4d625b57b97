"""Cells in which every member diverged: left out, told, and in nobody's way."""

from __future__ import annotations

import dataclasses
import html
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import figures
from experiments.analysis import bootstrap, families, optimum
from experiments.analysis.optimum import Study
from experiments.analysis.recommend import recommend
from experiments.analysis.regret import compare, judge
from experiments.cli.terminal import print_headline
from experiments.pages import gallery, report
from experiments.storage.results import read_manifest, read_tables
from experiments.sweep.study import best_so_far
from tests.experiments.figures.drawing import assert_all_is_on_the_page, drawn
from tests.experiments.worlds import CONFIG, diverge, synthetic_table, world, write_run

RANGE = Study("range")
SWEEP = [
    name
    for name, figure in figures.FIGURES.items()
    if figure.TABLES == ("table",) and not hasattr(figure, "applies")
]
FAMILIES = [name for name, figure in figures.FIGURES.items() if figure.TABLES == ("families",)]
NOTE = "Left out, since every member diverged (trained on 1..d): d = 6 at n = 16; d = 12 at n = 64."


@pytest.fixture(scope="module")
def whole() -> pd.DataFrame:
    return synthetic_table()


@pytest.fixture(scope="module")
def table(whole) -> pd.DataFrame:
    """The best cell at n = 16 and the hardest at n = 64 are gone, and one member of another."""
    lost = diverge(whole, (6, 16), (12, 64))
    return diverge(lost, (8, 256), base_seed=1, seed=2)


@pytest.fixture(scope="module")
def pilot() -> pd.DataFrame:
    """A pilot in which level 6 diverged at one size, and one base at level 9."""
    return diverge(diverge(world(), (6, 64)), (9, 256), base_seed=1)


# Numbers.


def test_cells_without_a_mean_are_named(table, whole):
    assert optimum.left_out(table) == [NOTE]
    assert optimum.left_out(whole) == []


def test_a_cell_is_nan_and_all_others_stay_as_they_were(table, whole):
    cells, before = (
        optimum.mean_interval(each, RANGE, "test_risk").set_index(["difficulty", "data_size"])
        for each in (table, whole)
    )
    lost, touched = [(6, 16), (12, 64)], [(8, 256)]
    assert cells.loc[lost, ["mean", "low", "high"]].isna().to_numpy().all()
    assert cells.loc[lost, "num_members"].tolist() == [0, 0]
    assert cells.loc[lost, "num_missing"].tolist() == [16, 16]
    assert cells.loc[touched, "num_members"].tolist() == [15]
    pd.testing.assert_frame_equal(
        cells.drop(lost + touched), before.drop(lost + touched), check_dtype=False
    )


def test_the_best_level_is_one_that_finished(table):
    best = optimum.optimum(table, RANGE).set_index("data_size")
    assert best["best_difficulty"].to_dict() == {16: 8, 64: 8, 256: 10, 1024: 10}
    names = ["test_risk", "low", "high", "generalization_gap_low", "honest_risk"]
    assert not best[names].isna().to_numpy().any()


def test_an_edge_of_the_levels_that_finished_is_an_edge(whole):
    best = optimum.optimum(diverge(whole, (4, 16), (10, 1024), (12, 1024)), RANGE)
    assert best["best_difficulty"].tolist() == [6, 8, 10, 8]
    assert best["censored"].tolist() == ["easiest", "", "", "hardest"]
    moved = optimum.shift(diverge(whole, (4, 16), (12, 1024)), RANGE)
    assert (moved.smallest.censored, moved.largest.censored) == ("easiest", "hardest")
    assert moved.move.high == np.inf


def test_tied_levels_are_those_that_finished(whole):
    flat = whole.assign(value=whole["value"].where(whole["data_size"] != 16, 1.0))
    moved = optimum.shift(diverge(flat, (4, 16)), RANGE)
    assert moved.smallest.tied
    assert moved.smallest.best == (6, 8, 10, 12)


def test_levels_and_sizes_that_diverged_wholly_are_no_part_of_the_grid(whole):
    cells = [(12, size) for size in (16, 64, 256, 1024)] + [(level, 16) for level in (4, 6, 8, 10)]
    risk = optimum.cube(diverge(whole, *cells), RANGE, "test_risk")
    assert risk.difficulties.tolist() == [4, 6, 8, 10]
    assert risk.data_sizes.tolist() == [64, 256, 1024]
    assert np.isfinite(risk.values).all()
    moved = optimum.shift(diverge(whole, *cells), RANGE)
    assert (moved.smallest_size, moved.largest.censored) == (64, "hardest")


def test_a_study_that_diverged_wholly_is_no_study():
    both = synthetic_table(mixtures=("range", "exact"))
    lost = (both["train_mixture"] == "exact") & (both["difficulty"] > 0)
    both = both.assign(status=both["status"].mask(lost, "diverged"), value=both["value"].mask(lost))
    assert optimum.studies(both) == [RANGE]
    assert optimum.left_out(both) == [
        "Left out, since every member diverged (trained on exactly d): all cells."
    ]


def test_members_too_few_to_resample_are_told(whole):
    # Two members in all, each with a cell of its own: every draw of one of them lacks a cell.
    alone = whole[(whole["base_seed"] < 2) & (whole["seed"] == 0)]
    lost = diverge(diverge(alone, (6, 16), base_seed=0), (8, 16), base_seed=1)
    risk = optimum.cube(lost, RANGE, "test_risk")
    counts = bootstrap.resample(risk, replicates=50)
    assert (counts.sum(axis=2) == 1).all()

    def resample_each_alone() -> None:
        for seed in range(50):
            bootstrap.resample(risk, replicates=1, seed=seed)

    with pytest.raises(ValueError, match="too few members finished to resample them"):
        resample_each_alone()


# What is printed, drawn and written.


def test_the_headline_of_a_run(table, capsys):
    print_headline(table)
    printed = " ".join(capsys.readouterr().out.split())
    assert NOTE in printed
    assert NOTE in printed
    assert "nan" not in printed
    assert "n=16: 8" in best_so_far(table)
    assert optimum.headline(table)["best_levels"].tolist()[0] == "4, 8"


@pytest.mark.parametrize("name", SWEEP)
def test_every_figure_of_a_sweep(name, table, whole):
    figure = drawn(name, {"table": table})
    assert " ".join(figure.get_suptitle().split()) == NOTE
    assert_all_is_on_the_page(figure)
    assert not [text for axis in figure.axes for text in axis.texts if "nan" in text.get_text()]
    assert drawn(name, {"table": whole}).get_suptitle() == ""


def test_nothing_finished_is_nothing_to_draw(whole, capsys):
    cells = {(d, n) for d, n in zip(whole["difficulty"], whole["data_size"], strict=True) if d}
    lost = diverge(whole, *cells)
    for name in SWEEP:
        with pytest.raises(ValueError, match="no member has finished, so there is nothing to draw"):
            figures.FIGURES[name].plot({"table": lost})
    print_headline(lost)
    assert "all cells" in capsys.readouterr().out


def test_the_commands_figures_and_report(table, tmp_path, sweetspot):
    run = write_run(tmp_path / "run", table)
    code, text = sweetspot("figures", "--results", run, "--names", "map", "gaps")
    assert code == 0, text
    tables = read_tables(run)
    written = report.write_report(run, tables, read_manifest(run), [])
    page = html.unescape(written.read_text(encoding="utf-8"))
    assert NOTE in page
    assert ">nan" not in page
    assert '"nan"' not in page
    assert "nan," not in page
    cells = report.cells(table).set_index(["difficulty", "data_size"])
    assert str(cells.loc[(6, 16), "test risk"]) == "–"


def test_the_gallery(table, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "DRAWS", 4)
    run = write_run(tmp_path / "run", diverge(table, (10, 1024)).assign(task="chain"))
    found = gallery.write_gallery(tmp_path / "page.html", ["chain"], [run])
    assert "trained on 1..d, d = 8, n = 1,024" in found.read_text(encoding="utf-8")
    cells = {(d, n) for d, n in zip(table["difficulty"], table["data_size"], strict=True) if d}
    lost = write_run(tmp_path / "lost", diverge(table, *cells).assign(task="chain"))
    found = gallery.write_gallery(tmp_path / "page.html", ["chain"], [lost])
    assert "No recorded run of this task was given." in found.read_text(encoding="utf-8")


# Predictions and comparisons.


def test_a_recommendation_without_the_level_that_diverged(pilot, tmp_path, sweetspot):
    answer = recommend(pilot, RANGE, CONFIG, 1024, fitted_up_to=64, replicates=200)
    assert answer.left_out == (6,)
    assert list(answer.predicted) == [2, 4, 9, 12]
    assert answer.difficulty == 12
    assert "Left out, since every member diverged at some n: d = 6." in answer.verdict
    code, text = sweetspot(
        "recommend", "--results", write_run(tmp_path / "run", pilot), "--data-size", "4096"
    )
    assert code == 0, text
    assert "d = 6 at n = 64" in text


def test_levels_that_diverged_beyond_the_fitted_sizes_are_predicted():
    later = diverge(world(), (6, 256), (6, 1024))
    answer = recommend(later, RANGE, CONFIG, 1024, fitted_up_to=64, replicates=50)
    assert answer == recommend(world(), RANGE, CONFIG, 1024, fitted_up_to=64, replicates=50)
    assert answer.left_out == ()


def test_a_pilot_of_which_no_level_is_whole_is_refused():
    lost = diverge(world(), (2, 16), (4, 64), (6, 16), (9, 16), (12, 64))
    with pytest.raises(ValueError, match=r"no difficulty of \[2, 4, 6, 9, 12\] has a member"):
        recommend(lost, RANGE, CONFIG, 256, fitted_up_to=64)


def test_regret_is_judged_on_the_levels_and_bases_that_finished(pilot, tmp_path, sweetspot):
    regrets = judge({"run": (pilot, CONFIG)})
    small = regrets[regrets["fitted_up_to"] == 64]
    assert np.isfinite(regrets["regret"].to_numpy()).all()
    assert 6 not in set(regrets["choice"]) | set(regrets["best"])
    # Base 1 has no member at level 9 and n = 256, which is held out, fitted, or neither.
    bases = small.groupby("data_size")["base_seed"].unique().map(sorted).to_dict()
    assert bases == {256: [0, 2], 1024: [0, 1, 2]}
    whole = judge({"run": (world(), CONFIG)})
    both = regrets.merge(whole, on=["rule", "base_seed", "fitted_up_to", "data_size"])
    same = both[both["rule"] == "easiest"]
    assert same["choice_x"].tolist() == same["choice_y"].tolist()
    runs = [write_run(tmp_path / name, table) for name, table in (("a", pilot), ("b", world()))]
    code, text = sweetspot("regret", "--results", *runs, "--out", tmp_path / "out")
    assert code == 0, text
    assert "a: Left out, since every member diverged (trained on 1..d): d = 6 at n = 64." in text


def test_predicted_and_measured_optima_leave_it_out(pilot):
    optima = compare({"run": (pilot, CONFIG)}, replicates=50)
    assert not optima[["best_difficulty", "low", "high"]].isna().to_numpy().any()
    assert 6 not in set(optima.loc[optima["kind"] == "predicted", "best_difficulty"])


def test_families_are_compared(table, whole, tmp_path, sweetspot):
    config = dataclasses.asdict(CONFIG)
    runs = [write_run(tmp_path / name, each, config) for name, each in (("a", table), ("b", whole))]
    code, text = sweetspot("compare", "--results", *runs, "--out", tmp_path / "out")
    assert code == 0, text
    assert f"a: {NOTE}" in text
    compared = pd.read_parquet(tmp_path / "out" / "families.parquet")
    judged = families.verdicts(compared)
    assert [each.smallest.level for each in judged["shift"]] == [8, 6]
    for name in FAMILIES:
        assert f"a: {NOTE}" in " ".join(drawn(name, {"families": compared}).get_suptitle().split())
    assert Path(tmp_path / "out" / "figures" / "families_map.png").exists()
