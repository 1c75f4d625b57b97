"""The figures of regrets and predictions, drawn from invented sweeps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from experiments import figures
from experiments.analysis.regret import compare, judge
from experiments.analysis.regret_means import average_regret
from experiments.figures.predicted_optimum import points
from tests.experiments.figures.drawing import assert_all_is_on_the_page, assert_has_a_caption, drawn
from tests.experiments.worlds import CONFIG, world
from theory.predictor import PREDICTOR

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
    assert len(ticks) == len(means)
    assert all(len(np.asarray(line.get_xdata())) == 3 for line in ticks)


def test_every_prediction_is_a_point_over_what_was_measured(tables):
    (axis,) = drawn("predicted_optimum", tables).axes
    table = tables["prediction"]
    predicted = table.loc[table["kind"] == "predicted"]
    lines = [line for line in axis.lines if str(line.get_label()).startswith("trained")]
    assert sum(np.size(line.get_xdata()) for line in lines) == len(predicted)
    heights = np.concatenate([np.asarray(line.get_ydata()) for line in lines])
    assert sorted(heights) == sorted(predicted["best_difficulty"])
    hollow = [line for line in lines if line.get_markerfacecolor() == "white"]
    abstained = int(np.sum(predicted["abstains"].to_numpy()))
    assert sum(np.size(line.get_xdata()) for line in hollow) == abstained > 0
    found = points(table)
    assert np.abs(found["x"].to_numpy() - found["measured"].to_numpy()).max() < 0.5
    truth = table.loc[table["kind"] == "measured"].set_index(["run", "data_size"])
    row = found.iloc[0]
    assert row["measured"] == truth.loc[(row["run"], row["data_size"]), "best_difficulty"]


@pytest.mark.parametrize("name", NAMES)
def test_both_formats_are_written_and_one_study_is_enough(name, tables, tmp_path):
    one = {key: table[table["run"] == "first"] for key, table in tables.items()}
    paths = figures.draw(one, tmp_path, [name])
    assert [path.name for path in paths] == [f"{name}.png", f"{name}.svg"]
    assert all(path.stat().st_size > 5000 for path in paths)
