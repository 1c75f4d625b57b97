"""Families side by side: the verdict on each, its words, the table and its figures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import figures
from experiments.analysis import families, optimum
from experiments.pages.markdown import markdown_table
from experiments.storage.results import ResultsError, read_parquet
from tests.experiments.figures.drawing import assert_all_is_on_the_page, assert_has_a_caption, drawn
from tests.experiments.worlds import (
    CENSORED,
    CONFIG,
    CONSTANT,
    MOVING,
    synthetic_table,
    write_run,
)


def write_family(directory: Path, table: pd.DataFrame, **changes) -> Path:
    """A directory that looks like a finished run of a family, with the smallest manifest."""
    stored: dict[str, Any] = dataclasses.asdict(CONFIG)
    config = stored | {"task": "synthetic", "pretrain": stored["pretrain"] | {"hardest": 4}}
    manifest = {"recipe": "tradeoff", "preset": "cpu", "chunks": [1]} | changes
    return write_run(directory, table, config=config, **manifest)


@pytest.fixture(scope="module")
def worlds() -> dict[str, pd.DataFrame]:
    """Tables by family; in "low" the optimum starts at the easiest level."""
    return {
        "moving": synthetic_table(MOVING, num_bases=6, num_seeds=1),
        "still": synthetic_table(CONSTANT, num_bases=6, num_seeds=1),
        "high": synthetic_table(CENSORED, num_bases=6, num_seeds=1),
        "low": synthetic_table({16: 4, 1024: 10}, num_bases=6, num_seeds=1),
    }


@pytest.fixture(scope="module")
def compared(worlds) -> pd.DataFrame:
    parts = [table.assign(family=name, base_hardest=4) for name, table in worlds.items()]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def judged(compared) -> pd.DataFrame:
    return families.verdicts(compared)


def test_verdicts_follow_the_planted_optimum(judged):
    assert judged["family"].tolist() == ["moving", "still", "high", "low"]
    assert judged["holds"].tolist() == ["holds", "fails", "holds", "holds"]
    shift = judged.loc[0, "shift"]
    assert (shift.smallest_size, shift.largest_size) == (16, 1024)
    assert (shift.smallest.level, shift.largest.level) == (6, 10)
    assert [each.largest.censored for each in judged["shift"]] == ["", "", "hardest", ""]
    assert [each.smallest.censored for each in judged["shift"]] == ["", "", "", "easiest"]


def test_verdicts_are_those_of_each_run_alone(worlds, judged):
    (study,) = optimum.studies(worlds["moving"])
    assert judged.loc[0, "shift"] == optimum.shift(worlds["moving"], study)


def test_families_are_pooled_over_bases(judged):
    assert judged.loc[0, "p_adjusted"] == pytest.approx(4 / 64)
    still = judged.loc[1, "shift"].move.signs
    number = 18 + still.positive
    said = families.pooled(judged)
    assert f"in {number} of 24, p = " in said
    assert "Fisher's test over the families' own sign tests: p = " in said


def test_base_accuracy_is_over_the_levels_it_was_trained_on(worlds):
    table = worlds["moving"]
    (study,) = optimum.studies(table)
    own = table.loc[(table["train_mixture"] == "none") & (table["metric"] == "risk")]
    own = own.loc[own["slice"].isin([1, 2])]
    expected = 1 - own["value"].mean()
    assert families.base_accuracy(table, study, 2) == pytest.approx(expected)
    assert families.base_accuracy(table, study, 20) < expected


def test_table_for_people(judged):
    lines = markdown_table(families.shown(judged)).splitlines()
    assert len(lines) == 2 + len(judged)
    assert lines[2].startswith("| moving | ")
    assert " on 1..4 | 6.0 [" in lines[2]
    assert "] at n = 16 | 10.0 [" in lines[2]
    assert " | 6 of 6, p = 0.016 | 0.062 | holds | " in lines[2]
    assert "| ≥ 11." in lines[4]
    assert "| ≤ 4." in lines[5]


def test_a_family_with_two_studies_has_two_panels():
    table = synthetic_table(MOVING, mixtures=("range", "exact"), num_bases=2, num_seeds=1)
    titles = [title for title, _, _ in families.family_studies(table.assign(family="a"))]
    assert titles == ["a, trained on 1..d", "a, trained on exactly d"]


@pytest.mark.parametrize("name", ["families_map", "families_optimum"])
def test_figures_have_a_labelled_panel_for_each_family(compared, name):
    figure = drawn(name, {"families": compared})
    axes = [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]
    titles = [axis.get_title().split("\n")[0] for axis in axes]
    assert titles == ["moving", "still", "high", "low"]
    assert all(axis.get_xlabel() and axis.get_ylabel() for axis in axes)
    assert_has_a_caption(name)
    assert_all_is_on_the_page(figure)
    ticks = [np.asarray(axis.xaxis.get_major_locator()()).tolist() for axis in axes]
    assert ticks == [[16, 64, 256, 1024]] * 3 + [[16, 1024]]


def test_all_maps_share_one_scale_of_points_above_the_base(compared):
    """The lowest and the highest gain of all families are the ends of every panel's scale."""
    figure = figures.FIGURES["families_map"].plot({"families": compared})
    studies = list(families.family_studies(compared))
    above = [
        -optimum.cube(rows, study, "test_risk", minus_base=True).mean for _, rows, study in studies
    ]
    for axis, _ in zip(figure.axes, studies, strict=False):
        (mesh,) = axis.collections[:1]
        assert mesh.norm.vmin == pytest.approx(min(each.min() for each in above))
        assert mesh.norm.vmax == pytest.approx(max(each.max() for each in above))


def test_runs_are_put_together(worlds, compared, tmp_path):
    runs = [write_family(tmp_path / name, table) for name, table in worlds.items()]
    out = tmp_path / "out"
    table = families.write_families(runs, out)
    pd.testing.assert_frame_equal(read_parquet(out / "families.parquet"), table)
    pd.testing.assert_frame_equal(table.loc[:, list(compared.columns)], compared, check_dtype=False)
    manifest = json.loads((out / "manifest.json").read_text())
    assert list(manifest["families"]) == list(worlds)
    assert manifest["families"]["low"]["config"]["task"] == "synthetic"
    assert "chunks" not in manifest["families"]["low"]


def test_a_preset_of_the_recipe_names_its_family(worlds, tmp_path):
    run = write_family(tmp_path / "x", worlds["still"], recipe="families", preset="dyck")
    table = families.write_families([run], tmp_path / "out")
    assert set(table["family"]) == {"dyck"}


def test_runs_that_cannot_be_compared(worlds, tmp_path):
    run = write_family(tmp_path / "run", worlds["low"])
    unfinished = write_family(tmp_path / "unfinished", worlds["low"], status="running")
    out = tmp_path / "out"
    with pytest.raises(ResultsError, match="unfinished is not finished"):
        families.write_families([run, unfinished], out)
    with pytest.raises(ResultsError, match="nowhere is not a run"):
        families.write_families([tmp_path / "nowhere"], out)
    with pytest.raises(ValueError, match=r"different families, got \['run', 'run'\]"):
        families.write_families([run, run], out)
    with pytest.raises(ValueError, match=r"different families, got \[\]"):
        families.write_families([], out)
    with pytest.raises(ResultsError, match="is one of the runs"):
        families.write_families([run], run)
    assert not out.exists()


def test_scans_of_real_checkpoints_are_no_families(worlds, tmp_path):
    scan = write_family(tmp_path / "scan", worlds["moving"], kind="llm")
    with pytest.raises(ResultsError, match="scan is a scan of a real checkpoint"):
        families.write_families([scan], tmp_path / "out")
    assert not (tmp_path / "out").exists()
