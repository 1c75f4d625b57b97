"""The figures of regrets and predictions, drawn from invented sweeps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from experiments import figures
from experiments.analysis.regret import compare, judge
from experiments.analysis.regret_means import average_regret
from tests.experiments.figures.drawing import assert_all_is_on_the_page, assert_has_a_caption, drawn
from tests.experiments.worlds import CONFIG, world
from theory.predictor import PREDICTOR, RULES

NAMES = ("regret", "predicted_optimum")
EXACT = dataclasses.replace(CONFIG, mixtures=("exact",))


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    runs = {
        "first": (world(), CONFIG),
        "exact": (world(config=EXACT), EXACT),
        "flat": (world(is_flat=True, noise=0.1), CONFIG),
    }
    return {"regret": judge(runs), "prediction": compare(runs, replicates=50)}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_lies_outside_the_page_and_all_is_labelled(name, tables):
    figure = drawn(name, tables)
    assert_has_a_caption(name)
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert shown[0].get_ylabel()
    assert shown[-1].get_xlabel()
    (legend,) = figure.legends
    assert len(legend.get_texts()) >= 4
    assert_all_is_on_the_page(figure)


def test_rules_are_sorted_by_regret_and_the_predictor_stands_out(tables):
    (axis,) = drawn("regret", tables).axes
    labels = axis.get_yticklabels()
    means = average_regret(tables["regret"])
    assert [label.get_text() for label in labels] == means["rule"].tolist()
    assert [t.get_text() for t in labels if t.get_fontweight() == "bold"] == [PREDICTOR]
    ticks = [line for line in axis.lines if line.get_gid() == "study"]
    assert len(ticks) == len(RULES)
    assert all(len(np.asarray(line.get_xdata())) == 3 for line in ticks)


def test_every_run_has_a_panel_with_its_measured_and_predicted_optima(tables):
    figure = drawn("predicted_optimum", tables)
    shown = [axis for axis in figure.axes if axis.get_visible()]
    runs = [axis.get_title().split("\n")[1] for axis in shown]
    assert runs == ["first", "exact", "flat"]
    table = tables["prediction"]
    for run, axis in zip(runs, shown, strict=True):
        rows = table[table["run"] == run]
        diamonds = [line for line in axis.lines if line.get_marker() == "D"]
        frames = [line for line in axis.lines if line.get_marker() in ("s", "o", "x")]
        assert len(diamonds) == 4
        predicted = rows.loc[rows["kind"] == "predicted", "best_difficulty"].tolist()
        assert [np.asarray(line.get_ydata())[0] for line in frames] == predicted
        crossed = [line.get_marker() == "x" for line in frames]
        assert crossed == rows.loc[rows["kind"] == "predicted", "abstains"].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_both_formats_are_written_and_one_study_is_enough(name, tables, tmp_path):
    one = {key: table[table["run"] == "first"] for key, table in tables.items()}
    paths = figures.draw(one, tmp_path, [name])
    assert [path.name for path in paths] == [f"{name}.png", f"{name}.svg"]
    assert all(path.stat().st_size > 5000 for path in paths)
