"""The figure of measures against pass rate, drawn from an invented table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from experiments import figures
from experiments.llm.difficulty.agreement import pass_rate_over, rank_correlations
from tests.experiments.figures.drawing import assert_all_is_on_the_page, assert_has_a_caption, drawn

NAME = "difficulty_measures"


@pytest.fixture(scope="module")
def measures() -> pd.DataFrame:
    """Problems of 2 to 14 operations, whose length and perplexity grow with them."""
    random = np.random.default_rng(0)
    size, samples = 1500, 8
    op = random.integers(2, 15, size)
    trick = random.normal(size=size)
    rate = 1 / (1 + np.exp(0.62 * (op - 7.5) + trick))
    return pd.DataFrame(
        {
            "row": np.arange(size),
            "op": op,
            "cot_tokens": np.round(28 + 17 * op * np.exp(0.2 * random.normal(size=size))),
            "pass_rate": random.binomial(samples, rate) / samples,
            "perplexity": np.exp(0.1 + 0.01 * op + 0.03 * trick + 0.02 * random.random(size)),
            "samples": samples,
        }
    )


@pytest.mark.parametrize("missing", [[], ["op"], ["op", "perplexity"], ["cot_tokens"]])
def test_there_is_a_labelled_panel_for_each_measure(measures, missing):
    figure = drawn(NAME, {"measures": measures.drop(columns=missing)})
    assert_has_a_caption(NAME)
    titles = {axis.get_title().split("\n")[0] for axis in figure.axes}
    expected = {
        "cot_tokens": "Length of the solution",
        "perplexity": "Loss on the solution",
        "op": "Stated difficulty",
    }
    assert titles == {title for name, title in expected.items() if name not in missing}
    assert all(axis.get_xlabel().endswith("harder →") for axis in figure.axes)
    assert figure.axes[0].get_ylabel() == "pass rate of the base\n(share of samples)"
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 3
    assert_all_is_on_the_page(figure)


def test_points_and_titles_are_those_of_the_table(measures):
    figure = drawn(NAME, {"measures": measures})
    for axis, name in zip(figure.axes, ("cot_tokens", "perplexity", "op"), strict=True):
        bins = pass_rate_over(measures, name)
        line = next(line for line in axis.lines if line.get_marker() == "o")
        np.testing.assert_allclose(np.asarray(line.get_ydata(), float), bins["mean"])
        # Of the perplexity its logarithm is drawn.
        shown = np.log(bins["centre"]) if name == "perplexity" else bins["centre"]
        np.testing.assert_allclose(np.asarray(line.get_xdata(), float), shown)
        both = rank_correlations(measures[[name, "pass_rate"]])
        spearman = both.loc[both["statistic"] == "spearman", "value"].item()
        assert f"Spearman −{abs(spearman):.2f} [" in axis.get_title()
    suptitle = figure.get_suptitle()
    assert suptitle == "1,500 problems, 8 samples of the base each"


def test_problems_without_a_pass_rate_and_unequal_samples(measures):
    table = measures.copy()
    table.loc[:499, "pass_rate"] = np.nan
    table.loc[500:599, "samples"] = 4
    figure = drawn(NAME, {"measures": table})
    assert figure.get_suptitle() == "1,000 problems, 4 to 8 samples of the base each"


@pytest.mark.parametrize("columns", [["row", "op"], ["row", "pass_rate", "samples"]])
def test_nothing_to_compare_is_one_clear_error(measures, columns):
    with pytest.raises(ValueError, match=r"needs the measure pass_rate and one of \['cot_tokens'"):
        figures.FIGURES[NAME].plot({"measures": measures[columns]})


def test_both_formats_are_written(measures, tmp_path):
    paths = figures.draw({"measures": measures}, tmp_path)
    assert [path.name for path in paths] == [f"{NAME}.png", f"{NAME}.svg"]
    assert all(path.stat().st_size > 5000 for path in paths)


def test_columns_of_the_data_have_panels_and_say_where_the_harder_are_if_it_is_known(measures):
    columns = {
        "column:solve_rate": measures["pass_rate"] * 0.9 + 0.05,
        "passes:k/n": 1 - measures["op"] / 20,
        "rasch:a,b": measures["op"] - 8.0,
    }
    table = measures.drop(columns=["perplexity"]).assign(**columns)
    figure = drawn(NAME, {"measures": table})
    told = {axis.get_title().split("\n")[0]: axis.get_xlabel() for axis in figure.axes}
    assert list(told)[2:] == ["solve_rate", "k of n", "Passes of 2 models"]
    assert told["solve_rate"] == "solve_rate"
    assert told["k of n"].endswith("← harder")
    assert told["Passes of 2 models"] == "difficulty for 2 models (logits)  harder →"
    assert all(axis.get_xscale() == "linear" for axis in figure.axes[2:])
    assert_all_is_on_the_page(figure)
