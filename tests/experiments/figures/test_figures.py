"""The contract of every figure, and that the gaps' pieces really add up."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from experiments import figures
from experiments.analysis import optimum
from experiments.analysis.optimum import Study
from experiments.figures import style
from experiments.storage.results import read_parquet
from synth.tasks import TASKS
from tests.experiments.figures.drawing import assert_all_is_on_the_page, assert_has_a_caption, drawn

# Figures of other tables than a sweep's own are tested beside what makes those tables.
NAMES = [
    name
    for name, figure in figures.FIGURES.items()
    if figure.TABLES == ("table",) and not hasattr(figure, "applies")
]
RESULTS = Path(__file__).parents[3] / "experiments" / "results"
TABLES = ["two_studies", "censored_study", "smoke_study"]


def data_axes(figure: Figure) -> list:
    """The axes with data, without colour bars."""
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]


def test_every_file_with_a_plot_is_a_figure():
    """These are known; a new figure needs no line here."""
    tables = {name: figure.TABLES for name, figure in figures.FIGURES.items()}
    assert list(tables) == sorted(tables)
    files = {path.stem: path.read_text() for path in Path(figures.__file__).parent.glob("*.py")}
    assert set(tables) == {name for name, code in files.items() if "\ndef plot(" in code}
    known = {
        "accuracy_over_difficulty": ("table",),
        "accuracy_over_size": ("table",),
        "change_by_slice": ("table",),
        "gaps": ("table",),
        "map": ("table",),
        "optimum_over_size": ("table",),
        "certificates": ("certificates",),
        "certified_gaps": ("certificates",),
        "complexity": ("certificates", "complexity"),
        "difficulty_measures": ("measures",),
        "families_map": ("families",),
        "families_optimum": ("families",),
        "fidelity": ("fidelity",),
        "predicted_optimum": ("prediction",),
        "regret": ("regret",),
        "tightness": ("certificates",),
    }
    assert tables.items() >= known.items()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fixture", TABLES)
def test_figure_is_labelled(name, fixture, request):
    table = request.getfixturevalue(fixture)
    assert_has_a_caption(name)
    figure = drawn(name, {"table": table})
    assert isinstance(figure, Figure)
    axes = np.array(data_axes(figure)).reshape(-1, len(optimum.studies(table)))
    assert all(axis.get_xlabel() for axis in axes[-1]), "each panel of the last row labels x"
    assert all(axis.get_ylabel() for axis in axes[:, 0]), "each panel of the first column labels y"
    titles = [axis.get_title().split("\n")[0] for axis in axes[0]]
    assert titles == [study.title for study in optimum.studies(table)], "one column per study"
    assert len(figure.legends) == 1, "one legend for all panels"
    (legend,) = figure.legends
    assert len(legend.get_texts()) >= 3, "the legend names every mark, intervals included"
    assert_all_is_on_the_page(figure)


@pytest.mark.slow
def test_draw_writes_both_formats_and_the_same_svg_twice(two_studies, tmp_path):
    first = figures.draw({"table": two_studies}, tmp_path / "first")
    # One of the two studies has exact levels.
    names = sorted([*NAMES, "base_accuracy", "gap_parts"])
    assert [path.name for path in first] == [f"{n}.{s}" for n in names for s in ("png", "svg")]
    assert all(path.stat().st_size > 5000 for path in first)
    figures.draw({"table": two_studies}, tmp_path / "second")
    for name in names:
        file = f"{name}.svg"
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_draw_names_what_it_skips_and_refuses_the_unknown(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert figures.draw({"other": None}, tmp_path, ["gaps"]) == []  # type: ignore[dict-item]
    assert (
        "figure gaps is skipped: it needs the tables ['table'], there are ['other']" in caplog.text
    )
    with pytest.raises(ValueError, match=r"\['gap'\] are not figures"):
        figures.draw({}, tmp_path, ["gap"])


def test_pieces_of_the_gaps_add_up_to_the_test_risk(two_studies):
    figure = figures.FIGURES["gaps"].plot({"table": two_studies})
    axes = np.array(data_axes(figure)).reshape(3, 2)
    saw_negative = False
    for column, mixture in enumerate(("range", "exact")):
        risk = optimum.mean_interval(two_studies, Study(mixture), "test_risk")
        for row, n in enumerate((16, 256, 1024)):
            expected = risk.loc[risk["data_size"] == n, "mean"].to_numpy()
            axis = axes[row, column]
            bars = [
                [b for b in axis.patches if b.get_gid() == g] for g in ("train_risk", *optimum.GAPS)
            ]
            heights = np.array([[bar.get_height() for bar in piece] for piece in bars])
            starts = np.array([[bar.get_y() for bar in piece] for piece in bars])
            np.testing.assert_allclose(starts[0], 0.0)
            np.testing.assert_allclose(starts[1:], (starts + heights)[:-1])
            np.testing.assert_allclose((starts + heights)[-1], expected, rtol=1e-12)
            marker = next(line for line in axis.lines if line.get_marker() == "D")
            np.testing.assert_allclose(
                np.asarray(marker.get_ydata(), dtype=float), expected, rtol=1e-12
            )
            hatched = np.array([[bool(bar.get_hatch()) for bar in piece] for piece in bars])
            np.testing.assert_array_equal(hatched, heights < 0)
            saw_negative |= bool((heights < 0).any())
    assert saw_negative


def test_censored_optima_are_hollow_where_they_are(censored_study):
    figure = figures.FIGURES["optimum_over_size"].plot({"table": censored_study})
    markers = [line for line in figure.axes[0].lines if line.get_marker() == "D"]
    seen = [(int(line.get_xdata()[0]), line.get_markerfacecolor() == "white") for line in markers]
    assert seen == [(16, False), (64, False), (256, True), (1024, True)]
    assert "levels\nharder in 4 of 4 bases" in figure.axes[0].get_title()


def test_sizes_are_logarithmic_and_written_out(two_studies):
    for name in ("map", "accuracy_over_size", "optimum_over_size"):
        figure = drawn(name, {"table": two_studies})
        axis = figure.axes[0]
        assert axis.get_xscale() == "log"
        labels = [label.get_text() for label in axis.get_xticklabels()]
        assert labels == ["16", "64", "256", "1024"]


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import experiments.figures", {"jax", "jaxlib", "matplotlib", "pandas", "seaborn"}),
        ("from experiments.figures import FIGURES", {"jax", "jaxlib", "seaborn"}),
    ],
)
def test_figures_import_no_more_than_they_need(statement, absent):
    code = (
        f"{statement}\nimport sys\nimported = {absent} & set(sys.modules)\n"
        "sys.exit(f'imported: {imported}' if imported else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_drawing_leaves_no_figure_in_pyplot(two_studies):
    before = pyplot.get_fignums()
    for name in NAMES:
        figures.FIGURES[name].plot({"table": two_studies})
    assert pyplot.get_fignums() == before


def test_one_data_size_is_seen_in_every_panel():
    """From one point Matplotlib would choose other limits in each panel of a shared axis."""
    table = read_parquet(RESULTS / "tiny-igsm" / "certificates.parquet")
    assert table["data_size"].unique().tolist() == [512]
    for name in ("certificates", "tightness"):
        figure = figures.FIGURES[name].plot({"certificates": table})
        for axis in figure.axes:
            low, high = axis.get_xlim()
            assert low < 512 < high < 2048
            assert all(512 in line.get_xdata() for line in axis.lines[:1])


def test_leaving_out_is_drawn_for_tables_with_both_mixtures(two_studies, tmp_path):
    """Over the zero line: less risk than training on all levels has."""
    module = figures.FIGURES["leave_out"]
    assert not module.applies({"table": two_studies})
    with pytest.raises(ValueError, match="needs the mixtures 'range' and 'above'"):
        module.plot({"table": two_studies})
    table = two_studies.copy()
    table["train_mixture"] = table["train_mixture"].replace({"exact": "above"})
    assert module.applies({"table": table})
    figure = drawn("leave_out", {"table": table})
    assert_all_is_on_the_page(figure)
    assert_has_a_caption("leave_out")
    hard, easy = figure.axes
    assert [axis.get_title() for axis in figure.axes] == [
        "without the hardest",
        "without the easiest",
    ]
    everything = optimum.cube(table, Study("range"), "test_risk")
    above = optimum.cube(table, Study("above"), "test_risk")
    gains = everything.mean[-1] - everything.mean[-2]
    np.testing.assert_allclose(np.asarray(hard.lines[1].get_ydata(), float), gains, atol=1e-12)
    least = np.flatnonzero(above.difficulties > 1)[0]
    gains = everything.mean[-1] - above.mean[least]
    np.testing.assert_allclose(np.asarray(easy.lines[1].get_ydata(), float), gains, atol=1e-12)


def test_points_of_an_svg_say_their_values(two_studies, tmp_path):
    """A browser shows the titles on hover; points are those of the data, not the caps of bars."""
    _, svg = figures.draw({"table": two_studies}, tmp_path, ["accuracy_over_size"])
    risk = optimum.mean_interval(two_studies, Study("range"), "test_risk")
    row = risk.iloc[-1]
    value = f"{1 - row['mean']:.3g}"
    said = (
        f"<title>trained on 1..d, d = {row['difficulty']:g}, {row['data_size']:g}: {value}</title>"
    )
    text = svg.read_text(encoding="utf-8")
    assert text.count(said) == 1
    assert text.count("<title>") == 2 * len(risk)
    ElementTree.fromstring(text)


def test_the_axis_of_difficulty_says_what_it_counts(two_studies):
    assert set(style.UNITS) == set(TASKS)
    table = two_studies.assign(task="dyck")
    (axis, *_) = drawn("accuracy_over_difficulty", {"table": table}).axes
    assert axis.get_xlabel() == "training difficulty d\n(hardest level, depth)"
    # Of a task that nobody knows, or of several, it is a level.
    for task in ("own:task", ["dyck", "igsm"] * (len(table) // 2) + ["igsm"] * (len(table) % 2)):
        assert style.difficulty_label(table.assign(task=task)) == style.LEVEL_LABEL
        assert style.difficulty_unit(table.assign(task=task)) == "level"
