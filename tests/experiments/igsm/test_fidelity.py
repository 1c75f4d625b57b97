"""Our iGSM text against the reference's: the extractor by hand, the statistics, and the bars."""

from __future__ import annotations

import gzip
import itertools
import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from scipy import stats

from experiments import figures
from experiments.figures.fidelity import PANELS
from experiments.igsm import fidelity
from experiments.igsm.fidelity import CORPUS, POOLED, STATISTICS
from experiments.storage.results import read_parquet
from synth.tasks.igsm import problems
from tests.experiments.figures.drawing import assert_all_is_on_the_page, drawn

PROBLEM = (
    "The number of each Sam's Club's Canned Peas equals 3. "
    "The number of each Dean's and Sons's Sam's Club equals 2 more than the sum of each Sam's "
    "Club's Canned Peas, each Sam's Club's Each Way Pie and each Sam's Club's Canned Foods. "
    "The number of each Sam's Club's Each Way Pie equals each Sam's Club's Canned Peas. "
    "The number of each Aldi's Canned Peas equals 4 times as much as the difference of each Sam's "
    "Club's Canned Peas and each Dean's and Sons's Sam's Club. "
    "How many Sam's Club does Dean's and Sons have?"
)
SOLUTION = (
    "Define Sam's Club's Canned Peas as x; so x = 3. "
    "Define Sam's Club's Each Way Pie as E; so E = x = 3. "
    "Define Sam's Club's Canned Foods as w; so w = x + E = 3 + 3 = 6. "
    "Define Dean's and Sons's Sam's Club as B; a = x + E = 3 + 3 = 6; d = a + w = 6 + 6 = 12; "
    "so B = 2 + d = 2 + 12 = 14."
)


def made(shift: float = 0.0, number: int = 60, levels=(2, 7, 12), seed: int = 0) -> pd.DataFrame:
    """Invented problems whose statistics grow with the level, moved by `shift` deviations."""
    generator = np.random.default_rng(seed)
    rows: dict[str, np.ndarray] = {"difficulty": np.repeat(levels, number)}
    for name in STATISTICS:
        if name == "operations":
            rows[name] = rows["difficulty"].astype(float)
        elif name == "answer_zero":
            rows[name] = (generator.random(len(rows["difficulty"])) < 0.2).astype(float)
        else:
            noise = generator.normal(size=len(rows["difficulty"]))
            rows[name] = 10.0 + 10 * rows["difficulty"] + 4 * (noise + shift)
    return pd.DataFrame(rows)


def test_statistics_of_a_problem_by_hand():
    statistics = fidelity.measure_text(PROBLEM, SOLUTION, 14)
    assert statistics == {
        "problem_words": len(PROBLEM.split()),
        "solution_words": len(SOLUTION.split()),
        "sentences": 4,
        "distractors": 1,
        "steps": 4,
        "depth": 4,
        # A number, a copy, one sum, three steps.
        "operations": 6,
        "answer_zero": 0,
        "constant": 0.25,
        "copy": 0.25,
        "more": 0.25,
        "times": 0.25,
        "sum": 0.25,
        "difference": 0.25,
        "operands": 1.5,
    }
    assert set(statistics) == set(STATISTICS)


@pytest.mark.parametrize(
    ("problem", "solution", "part"),
    [
        (PROBLEM.replace("equals 3", "is 3", 1), SOLUTION, "problem"),
        ("How many Peas does Aldi have?", SOLUTION, "problem"),
        (PROBLEM, SOLUTION.replace(" as x", "", 1), "solution"),
        (PROBLEM, "It is 3.", "solution"),
    ],
)
def test_text_that_cannot_be_read_is_an_error(problem, solution, part):
    with pytest.raises(ValueError, match=f"{part} has sentences that cannot be read"):
        fidelity.measure_text(problem, solution, 0)


def test_the_corpus_is_read_whole():
    corpus = fidelity.read_corpus(CORPUS)
    assert corpus["difficulty"].value_counts().to_dict() == dict.fromkeys(range(1, 21), 60)
    values = {name: corpus[name].to_numpy() for name in corpus}
    np.testing.assert_array_equal(values["operations"], values["difficulty"])
    # A quantity of nothing is 0, and asks for no sentence.
    assert np.all(values["sentences"] >= values["distractors"])


def test_holm_by_hand():
    corrected = fidelity.holm(np.array([0.04, 0.01, 0.03, 0.5]))
    np.testing.assert_allclose(corrected, [0.09, 0.04, 0.09, 0.5])


def test_intervals_and_tests_are_the_usual_ones():
    values = np.random.default_rng(1).normal(5, 2, 60)
    low, high = fidelity.interval(values, "sentences")
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9975)
    np.testing.assert_allclose([low, high], expected)
    zeros = np.zeros(60)
    assert fidelity.interval(zeros, "answer_zero") == (0, pytest.approx(0.105, abs=0.002))
    assert fidelity.p_value(zeros, np.zeros(99), "sentences") == 1.0
    many = np.repeat([0.0, 1.0], [300, 100])
    assert fidelity.p_value(zeros, many, "answer_zero") < 1e-4


@pytest.mark.parametrize(("shift", "differs"), [(0.0, False), (0.25, True)])
def test_a_small_difference_everywhere_shows_in_the_pooled_one(shift, differs):
    table = fidelity.compare(made(), made(shift, 2000, seed=1))
    assert len(table) == 3 * len(STATISTICS)
    over_all = fidelity.pooled(table).drop(["operations", "answer_zero"])
    assert (float(np.mean(over_all["z"].to_numpy())) > 2) is differs
    assert (
        fidelity.pooled(table).loc["operations", ["z", "relative", "outside"]].tolist() == [0] * 3
    )
    # At a single level it does not.
    assert sum(over_all["outside"]) <= 10


def test_a_large_difference_is_found_and_said():
    table = fidelity.compare(made(), made(2.0, 300, seed=1))
    large = table.query("statistic not in ['operations', 'answer_zero']")
    assert not any(large["inside"])
    assert max(large["p_corrected"]) < 1e-6
    said = fidelity.summary(table)
    assert f"{len(large)} lie outside" in said
    assert f"tests {len(large)} show" in said
    expected = 8 / (10 + 10 * 9.5)
    assert f"problems have {fidelity.pooled(table).loc['problem_words', 'relative']:+.1%}" in said
    assert fidelity.pooled(table).loc["problem_words", "relative"] == pytest.approx(
        expected, abs=0.01
    )


def test_the_summary_says_what_stands_beside_a_mean_outside_and_how_often_0_is_right():
    levels = (9, 10, 11)
    reference = made(levels=levels)
    ours = made(levels=levels, number=300, seed=1)
    ours.loc[ours["difficulty"] == 10, "depth"] += 50.0
    table = fidelity.compare(reference, ours)
    around = reference.query("difficulty in (9, 11)")["depth"].to_numpy(float)
    said = fidelity.summary(table)
    assert f"the op counts beside it: {around.mean():.4g})" in said
    shares = np.array(
        [
            ours.query("difficulty == @level")["answer_zero"].to_numpy(float).mean()
            for level in levels
        ]
    )
    assert f"right in {shares.min():.0%} to {shares.max():.0%} of our problems" in said
    assert f"{shares.mean():.1%} over op 6 to 20" in said


def test_levels_must_be_the_same():
    message = r"ours must have the difficulties \[2, 7, 12\] of reference, got \[2, 7\]"
    with pytest.raises(ValueError, match=message):
        fidelity.compare(made(), made(levels=(2, 7)))


def is_within_the_bars(table: pd.DataFrame) -> bool:
    over_all = fidelity.pooled(table)
    words = over_all.loc[["problem_words", "solution_words"], "relative"].to_numpy()
    return (
        min(table["p_corrected"]) >= 0.01
        and max(abs(over_all["z"].to_numpy())) < 4
        and max(abs(words)) < fidelity.BAR
        and not any(table.query("statistic == 'operations'")["ours_error"])
    )


def test_our_problems_are_like_the_references():
    corpus = fidelity.read_corpus()
    corpus = corpus.query("difficulty in (2, 6, 10, 14, 18, 20)")
    levels = sorted(set(corpus["difficulty"]))
    table = fidelity.compare(corpus, fidelity.draw_ours(levels, 150, seed=3))
    assert is_within_the_bars(table)


@pytest.mark.parametrize("preset", ["hard", "length_matched"])
def test_problems_drawn_in_another_way_are_told_apart(preset):
    levels = (6, 10, 14)
    corpus = fidelity.read_corpus()
    other = pd.DataFrame(
        {"difficulty": level} | fidelity.measure_text(each.problem, each.solution, each.answer)
        for level in levels
        for each in problems(level, 60, seed=3, preset=preset)
    )
    table = fidelity.compare(corpus.query("difficulty in @levels"), other)
    assert not is_within_the_bars(table)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [4, 5])
def test_our_problems_are_like_the_references_at_every_op_count(seed):
    corpus = fidelity.read_corpus()
    table = fidelity.compare(corpus, fidelity.draw_ours(range(1, 21), 1000, seed))
    assert is_within_the_bars(table)
    # Chance puts less than one there, and what it puts there comes in clusters: the corpus has 210
    # words at op 11 and 163 at op 10.
    outside = list(table.query("not inside")["statistic"])
    assert sum(name in ("problem_words", "solution_words") for name in outside) <= 3
    assert len(outside) <= 8


def test_a_run_is_recorded_and_read_again(tmp_path, capsys):
    corpus = tmp_path / "corpus.jsonl.gz"
    row = {"op": 6, "problem": PROBLEM, "solution": SOLUTION, "answer": 14}
    with gzip.open(corpus, "wt") as lines:
        lines.write(f"{json.dumps(row)}\n" * 3)
    config = fidelity.FidelityConfig(corpus, problems_per_op=4, record=True)
    table = fidelity.run(config, tmp_path)
    pd.testing.assert_frame_equal(read_parquet(tmp_path / "fidelity.parquet"), table)
    manifest = json.loads((tmp_path / "fidelity.json").read_text())
    assert manifest["config"] == {"preset": "paper", "problems_per_op": 4, "seed": 0}
    assert str(tmp_path) not in json.dumps(manifest)
    assert fidelity.summary(table) in capsys.readouterr().out


def test_config_refuses_too_few_problems():
    with pytest.raises(ValueError, match="problems_per_op must be at least 2, got 1"):
        fidelity.FidelityConfig(problems_per_op=1)


def test_the_recorded_table_is_whole_and_within_the_bars():
    table = read_parquet(fidelity.RESULTS / "fidelity.parquet")
    assert len(table) == 20 * len(STATISTICS)
    assert set(POOLED) <= set(table["difficulty"])
    assert is_within_the_bars(table)


# The figure.


@pytest.mark.parametrize("number", [3, 1])
def test_all_is_labelled_and_nothing_lies_outside_the_page(number):
    levels = (2, 7, 12)[:number]
    table = fidelity.compare(made(levels=levels), made(2.0, 100, levels, seed=1))
    figure = drawn("fidelity", {"fidelity": table})
    assert figures.caption("fidelity").endswith(".")
    assert [axis.get_title() for axis in figure.axes] == [title for title, _ in PANELS.values()]
    assert set(PANELS) == set(STATISTICS) - {"operations"}
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 3
    for axis in figure.axes:
        assert axis.get_xlabel()
        assert axis.get_ylabel()
    assert_all_is_on_the_page(figure)
    rows = [figure.axes[start : start + 5] for start in range(0, len(PANELS), 5)]
    for row in rows:
        titles = [axis.title.get_window_extent() for axis in row]
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(titles))


def test_means_intervals_and_rings_are_those_of_the_table():
    table = fidelity.compare(made(), made(1.0, 100, seed=1))
    figure = drawn("fidelity", {"fidelity": table})
    for axis, name in zip(figure.axes, PANELS, strict=True):
        part = table[table["statistic"] == name]
        reference, ours, rings = axis.lines
        np.testing.assert_allclose(np.asarray(reference.get_ydata()), part["reference"])
        np.testing.assert_allclose(np.asarray(ours.get_ydata()), part["ours"])
        np.testing.assert_array_equal(rings.get_xdata(), part.loc[~part["inside"], "difficulty"])
        (bars,) = axis.collections
        assert isinstance(bars, LineCollection)
        segments = np.array(bars.get_segments())
        np.testing.assert_allclose(segments[..., 1], part[["low", "high"]])
