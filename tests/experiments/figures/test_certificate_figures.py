"""The figures of certificates, drawn from invented tables."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from experiments import figures
from experiments.analysis.certified import minima
from experiments.certify.blocks import BLOCKS
from experiments.certify.config import POINT_METHODS
from experiments.figures import style
from experiments.figures.certified_gaps import PIECES
from tests.experiments.certificate_tables import (
    LEVELS,
    METHODS,
    SIZES,
    TRAINED,
    certificate_table,
    complexity_table,
)
from tests.experiments.figures.drawing import assert_all_is_on_the_page, assert_has_a_caption, drawn

Tables = dict[str, pd.DataFrame]
NAMES = (
    "bound_over_curve",
    "certificates",
    "certified_gaps",
    "certified_optimum",
    "complexity",
    "tightness",
)


@pytest.fixture(scope="module")
def tables() -> Tables:
    return {"certificates": certificate_table(), "complexity": complexity_table()}


@pytest.fixture(scope="module")
def few() -> Tables:
    """One level, one size, one posterior: what a first try has."""
    one = {"levels": (6,), "sizes": (64,)}
    certificates = certificate_table(**one, methods=("base", "test-set", "gains"), num_members=1)
    complexity = complexity_table(**one)
    return {
        "certificates": certificates,
        "complexity": complexity.loc[complexity["method"] == "gains"],
    }


@pytest.fixture(scope="module")
def figure_of(tables) -> dict[str, Figure]:
    return {name: drawn(name, tables) for name in NAMES}


def grid(figure: Figure) -> np.ndarray:
    """Panels [row, column]."""
    layout = figure.axes[0].get_gridspec()
    assert layout is not None
    return np.array(figure.axes).reshape(layout.nrows, -1)


def title_of(figure: Figure) -> Text:
    (title,) = (text for text in figure.get_children() if isinstance(text, Text))
    return title


def heights(axis: Axes) -> np.ndarray:
    """Heights of the bars, by [side, piece, level]."""
    bars = [bar for bar in axis.patches if isinstance(bar, Rectangle)]
    pieces = [[bar.get_height() for bar in bars if bar.get_gid() == piece] for piece in PIECES]
    return np.array(pieces).reshape(len(PIECES), 2, -1).transpose(1, 0, 2)


@pytest.mark.parametrize("fixture", ["tables", "few"])
@pytest.mark.parametrize("name", NAMES)
def test_all_is_labelled_and_nothing_lies_outside_the_page(name, fixture, request):
    figure = drawn(name, request.getfixturevalue(fixture))
    assert_has_a_caption(name)
    axes = grid(figure)
    assert all(axis.get_xlabel() for axis in axes[-1])
    assert all(axis.get_ylabel() for axis in axes[:, 0])
    assert all(axis.get_title() for axis in axes[0])
    (legend,) = figure.legends
    assert len(legend.get_texts()) >= (1 if name == "complexity" else 3)
    assert title_of(figure).get_text()
    assert_all_is_on_the_page(figure)
    # Titles of neighbouring panels do not run into each other.
    titles = [axis.title.get_window_extent() for axis in axes[0]]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(titles))


@pytest.mark.parametrize("name", NAMES)
def test_the_title_says_how_delta_was_split(name, tables, figure_of):
    number = len(tables["certificates"])
    words = " ".join(title_of(figure_of[name]).get_text().split())
    assert "hold at once with probability 0.95" in words
    assert f"δ = 0.05 = {number} claims × {0.05 / number:.2g}" in words


def test_the_ledger_line_holds_whatever_row_comes_first(tables):
    certificates = tables["certificates"]
    assert certificates["ledger"].nunique() == 2
    assert style.ledger_line(certificates) == style.ledger_line(certificates[::-1])


def test_bounds_stand_over_the_measured_risk_of_the_same_predictor(tables, figure_of):
    axes = grid(figure_of["certificates"])
    shown = [("test-set", "held-out", "candidates"), ("base", "gains", "lora")]
    cells = tables["certificates"].groupby(["difficulty", "method", "data_size"])
    measured = cells["gibbs_risk"].mean()
    certified = cells["risk_bound"].agg(["mean", "min", "max"])
    for row, methods in enumerate(shown):
        # The easiest, a middle and the hardest level.
        for column, level in enumerate((LEVELS[0], LEVELS[2], LEVELS[-1])):
            there = [method for method in methods if level in TRAINED.get(method, LEVELS)]
            plain, *lines = axes[row, column].lines
            np.testing.assert_allclose(plain.get_ydata(), 0.002 * level)
            assert len(lines) == 2 * len(there)
            bars = [bar.get_segments() for bar in axes[row, column].collections]
            for method, bound, own, bar in zip(there, lines[::2], lines[1::2], bars, strict=True):
                cell = certified.loc[level, method]
                np.testing.assert_allclose(bound.get_xdata(), SIZES)
                np.testing.assert_allclose(bound.get_ydata(), cell["mean"])
                np.testing.assert_allclose(np.array(bar)[..., 1], cell[["min", "max"]])
                np.testing.assert_allclose(own.get_ydata(), measured.loc[level, method])
                assert bound.get_marker() == own.get_marker()
                assert own.get_markerfacecolor() == "white" != bound.get_markerfacecolor()


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        (("test-set", "base"), ["n / 2 held out", "all n train; prior at the base"]),
        (("candidates", "lora"), ["n / 2 held out", "all n train; prior at the base"]),
        (("held-out",), ["n / 2 held out"]),
        (("gains",), ["all n train; prior at the base"]),
    ],
)
def test_rows_say_what_the_prior_has_seen(methods, said):
    certificates = certificate_table(levels=(6,), sizes=(64, 256), methods=methods)
    axes = drawn("certificates", {"certificates": certificates}).axes
    texts = [[" ".join(text.get_text().split()) for text in axis.texts] for axis in axes]
    assert texts == [[each] for each in said]


def test_rows_of_a_checkpoint_say_so():
    of_checkpoint = certificate_table(levels=(6,), sizes=(64, 256), methods=("checkpoint", "lora"))
    of_checkpoint["prior"] = ["the checkpoint", "N(checkpoint, 0.1² I) on lora"] * 4
    axes = drawn("certificates", {"certificates": of_checkpoint}).axes
    texts = [" ".join(axis.texts[0].get_text().split()) for axis in axes]
    assert texts == ["all n held out", "all n train; prior at the checkpoint"]


def test_pieces_add_up_at_the_level_they_are_drawn_over(tables, figure_of):
    axes = grid(figure_of["certified_gaps"])
    certificates = tables["certificates"]
    labels = [label.get_text() for label in axes[-1, 0].get_xticklabels()]
    assert labels == [str(level) for level in LEVELS]
    for column, (method, levels) in enumerate((("candidates", LEVELS), ("gains", (6, 9, 12)))):
        for row, size in enumerate((SIZES[0], SIZES[-1])):
            axis = axes[row, column]
            chosen = (certificates["method"] == method) & (certificates["data_size"] == size)
            means = certificates[chosen].groupby("difficulty").mean(numeric_only=True)
            bars = heights(axis)
            totals = [means["test_risk"], means["test_bound_unconditional"]]
            np.testing.assert_allclose(bars.sum(axis=1), totals)
            terms = means["risk_bound"] - means["empirical_risk"]
            np.testing.assert_allclose(bars[1, 1], terms)
            centres = {round(bar.get_x() + bar.get_width() / 2) for bar in axis.patches}
            assert sorted(centres) == [LEVELS.index(level) for level in levels]


def test_slack_is_the_bound_minus_the_measured_risk(tables, figure_of):
    axis = figure_of["tightness"].axes[0]
    certificates = tables["certificates"]
    chosen = (certificates["method"] == "held-out") & (certificates["difficulty"] == LEVELS[0])
    means = certificates[chosen].groupby("data_size")[["risk_bound", "gibbs_risk"]].mean()
    line, vacuous = (each for each in axis.lines if each.get_label() == "held-out")
    np.testing.assert_allclose(line.get_ydata(), means["risk_bound"] - means["gibbs_risk"])
    # All panels share one axis, on which every point of every panel lies.
    low, high = axis.get_ylim()
    points = [line.get_ydata() for each in figure_of["tightness"].axes for line in each.lines]
    assert low == 0
    assert max(np.max(each, initial=0.0) for each in points) < high
    # A bound of 1 is marked, since its slack only says how bad the predictor is.
    assert len(vacuous.get_xdata()) == (means["risk_bound"] >= 1).sum()


def test_the_premise_is_counted_in_the_titles(figure_of):
    left, right = figure_of["complexity"].axes
    assert "“gains”" in left.get_title()
    # Three levels and three sizes: two steps in each column and in each row.
    assert "grows with d in 6 of 6 steps" in left.get_title()
    assert "shrinks with n in 6 of 6" in left.get_title()
    assert "n = 1024" in right.get_title()
    assert "in 3 of 3 pairs" in right.get_title()
    assert len(left.lines) == len(right.lines) == 3
    for level, line in zip(TRAINED["gains"], right.lines, strict=True):
        np.testing.assert_allclose(line.get_xdata(), np.linspace(0, 20, 5))
        np.testing.assert_allclose(line.get_ydata(), 0.9 * np.exp(-line.get_xdata() / level))


@pytest.mark.parametrize(
    "methods",
    [("base",), ("held-out",), ("test-set", "lora"), METHODS[1:4], (*POINT_METHODS, *BLOCKS)],
)
def test_any_choice_of_methods_can_be_drawn(methods):
    certificates = certificate_table(levels=(6, 9), sizes=(64, 256), methods=methods)
    for name in ("certificates", "certified_gaps", "tightness"):
        axes = drawn(name, {"certificates": certificates}).axes
        assert all(axis.lines or axis.patches for axis in axes)


def test_figures_without_their_tables_are_left_out(few, tmp_path):
    paths = figures.draw({"certificates": few["certificates"]}, tmp_path)
    # No complexity table, and a curve needs three levels.
    shown = ("certificates", "certified_gaps", "tightness")
    names = [f"{name}.{suffix}" for name in shown for suffix in ("png", "svg")]
    assert [path.name for path in paths] == names
    assert all(path.stat().st_size > 5000 for path in paths)


def test_each_least_value_has_a_star_where_it_is(tables, figure_of):
    """The stars of a panel: one for the measured risk, one for each bound that is below 1."""
    found = minima(tables["certificates"])
    own = found.loc[(found["method"] == "held-out") & (found["data_size"] == SIZES[-1])]
    panel = grid(figure_of["bound_over_curve"])[0, -1]
    stars = [line for line in panel.lines if line.get_marker() == "*"]
    levels = [np.asarray(line.get_xdata()).item() for line in stars]
    assert levels[0] == own["measured"].iloc[0]
    assert levels[1:] == own["certified"].tolist()
    heights = [np.asarray(line.get_ydata()).item() for line in stars[1:]]
    np.testing.assert_allclose(heights, own["least_bound"])
    assert len(stars) == 1 + len(own)


def test_families_stand_side_by_side_each_with_its_own_levels(tables):
    """At the smallest and the largest n; the stars are those of each family alone."""
    table = tables["certificates"]
    own = table.loc[table["method"] == "held-out"]
    short = own.loc[own["difficulty"] <= LEVELS[2]]
    both = pd.concat([own.assign(family="all"), short.assign(family="easy")])
    figure = drawn("bound_over_families", {"totals": both})
    assert_has_a_caption("bound_over_families")
    assert_all_is_on_the_page(figure)
    panels = grid(figure)
    assert panels.shape == (2, 2)
    for column, (family, levels) in enumerate((("all", LEVELS), ("easy", LEVELS[:3]))):
        assert panels[0, column].get_title() == family
        assert panels[1, column].get_xticks().tolist() == list(levels)
        found = minima(own if family == "all" else short)
        for row, size in enumerate((SIZES[0], SIZES[-1])):
            stars = [line for line in panels[row, column].lines if line.get_marker() == "*"]
            expected = found.loc[found["data_size"] == size]
            said = expected["certified"].dropna().tolist()
            drawn_at = [np.asarray(line.get_xdata()).item() for line in stars[1:]]
            assert drawn_at == said
