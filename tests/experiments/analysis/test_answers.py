"""Differences between models on shared test problems, where the truth is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from experiments import figures
from experiments.analysis.answers import Answers, crossed_interval
from experiments.analysis.studies import Study, studies_of_answers

LEVELS, SIZES, SEEDS, SLICES = (1, 3), (12, 48), 3, (1, 2, 3)
EACH = 30
"""Problems of each slice."""


def answers_of(seed: int = 0, *, effect: float = 0.0, spread: float = 0.05) -> pd.DataFrame:
    """Answers to problems that are hard or easy for all models alike.

    Args:
      effect: how much more the hard level gains at the large size.
      spread: standard deviation of a member's accuracy between seeds.
    """
    generator = np.random.default_rng(seed)
    slices = np.repeat(SLICES, EACH)
    ease = np.clip(0.8 - 0.2 * slices + 0.15 * generator.standard_normal(len(slices)), 0.02, 0.98)
    rows = []

    def add(chance: np.ndarray, **columns: object) -> None:
        correct = generator.random(len(slices)) < chance
        rows.extend(
            {**columns, "problem": row, "slice": level, "correct": float(right)}
            for row, (level, right) in enumerate(zip(slices, correct, strict=True))
        )

    add(ease, train_mixture="none", loss="none", difficulty=0, data_size=0, seed=0)
    for level in LEVELS:
        for size in SIZES:
            gain = 0.05 + (effect if (level, size) == (LEVELS[1], SIZES[1]) else 0.0)
            for number in range(SEEDS):
                chance = np.clip(ease + gain + spread * generator.standard_normal(), 0, 1)
                cell = {"difficulty": level, "data_size": size, "seed": number}
                add(chance, train_mixture="exact", loss="sft", **cell)
    return pd.DataFrame(rows)


def test_gains_are_differences_of_accuracies():
    table = answers_of(effect=0.2)
    (study,) = studies_of_answers(table)
    assert study == Study("exact")
    gains = Answers.of(table, study).gains()
    base = table.loc[table["train_mixture"] == "none", "correct"].mean()
    assert len(gains) == len(LEVELS) * len(SIZES)
    for row in gains.to_dict("records"):
        is_own = (table["difficulty"] == row["difficulty"]) & (
            table["data_size"] == row["data_size"]
        )
        accuracy = table.loc[is_own, "correct"].mean()
        assert row["accuracy"] == pytest.approx(accuracy)
        assert row["gain"] == pytest.approx(accuracy - base)
        assert row["low"] < row["gain"] < row["high"]


def test_intervals_of_a_contrast_cover_at_least_nine_tenths():
    weights = {(3, 48): 1.0, (1, 48): -1.0, (3, 12): -1.0, (1, 12): 1.0}
    covered, widths = [], []
    for seed in range(200):
        interval = Answers.of(answers_of(seed, effect=0.1), Study("exact")).contrast(weights)
        covered.append(interval.low <= 0.1 <= interval.high)
        widths.append(interval.high - interval.low)
    assert 0.88 <= np.mean(covered) <= 1.0
    # Paired by problem: narrower than from independent shares of the same problems and seeds.
    unpaired = 2 * 1.645 * np.sqrt(4 * 0.24 / (EACH * len(SLICES)))
    assert np.mean(widths) < 1.3 * unpaired


def test_variances_of_seeds_and_problems_are_those_of_the_formula():
    values = np.array([[0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    strata = np.array([1, 1, 2, 2])
    interval = crossed_interval(values, strata)
    means = values.mean(axis=0)
    of_problems = sum(means[strata == level].var(ddof=1) * 2 / 16 for level in (1, 2))
    assert interval.mean == 0.5
    # Both seeds have the same mean, so that problems alone are left.
    assert (interval.high - interval.mean) ** 2 == pytest.approx(
        of_problems * 2.9199855803537251**2, rel=1e-6
    )


def test_a_seed_that_diverged_is_left_out_and_one_seed_has_the_problems_noise():
    values = np.array([[0.0, 1.0, 1.0], [np.nan] * 3])
    one = crossed_interval(values, np.array([1, 1, 1]))
    assert one.mean == pytest.approx(2 / 3)
    assert one.low < one.mean < one.high
    assert np.isnan(crossed_interval(values[1:], np.array([1, 1, 1])).mean)


def test_other_problems_move_all_cells_together():
    answers = Answers.of(answers_of(3), Study("exact"))
    members, base = answers.replicates(np.array(LEVELS), np.array(SIZES), replicates=4000, seed=1)
    assert members.shape == (4000, 2, 2, 3)
    expected = 1 - answers.correct.mean(axis=2)
    for place, level in enumerate(SLICES):
        own = expected[..., answers.slices == level]
        np.testing.assert_allclose(members[..., place].mean(axis=0), own.mean(axis=-1), atol=0.01)
        noise = own.std(axis=-1) / np.sqrt(EACH)
        np.testing.assert_allclose(members[..., place].std(axis=0), noise, rtol=0.1)
    assert np.corrcoef(members[:, 0, 0, 1], base[:, 1])[0, 1] > 0.2


def test_a_slice_that_nobody_gets_right_has_risk_one_in_every_draw():
    # Sums of thirtieths may exceed one by a rounding, and a risk above one is refused.
    table = answers_of()
    table.loc[table["slice"] == 3, "correct"] = 0.0
    answers = Answers.of(table, Study("exact"))
    draws = answers.replicates(np.array(LEVELS), np.array(SIZES), replicates=500, seed=1)
    assert all((draw[..., 2] == 1).all() for draw in draws)


def test_answers_without_a_base_or_given_twice_are_refused():
    table = answers_of()
    for wrong in (table.loc[table["train_mixture"] != "none"], pd.concat([table, table])):
        with pytest.raises(ValueError, match="answers: must hold each answer"):
            Answers.of(wrong, Study("exact"))


def test_the_move_is_what_the_hard_level_gains_on_the_easy_one():
    answers = Answers.of(answers_of(4, effect=0.3), Study("exact"))
    weights = {(3, 48): 1.0, (1, 48): -1.0, (3, 12): -1.0, (1, 12): 1.0}
    move = answers.move()
    assert move == answers.contrast(weights)
    assert move is not None
    assert move.low > 0


def test_one_cell_has_no_move():
    table = answers_of()
    one = table.loc[table["difficulty"].isin([0, 3]) & table["data_size"].isin([0, 48])]
    told = figures.finding("scan_gains", {"answers": one})
    assert told == "Trained on exactly d: best is d = 3 at n = 48."
    assert "gains" in figures.finding("scan_gains", {"answers": table})


def test_a_difference_is_paired_by_seed_and_problem():
    first, second = (Answers.of(answers_of(seed), Study("exact")) for seed in (4, 5))
    weights = {(3, 48): 1.0, (1, 48): -1.0, (3, 12): -1.0, (1, 12): 1.0}
    difference = first.minus(second)
    found = difference.contrast(weights)
    assert found.mean == pytest.approx(first.contrast(weights).mean - second.contrast(weights).mean)
    assert difference.move() == found
    # A study less itself is exactly zero, and so is its interval.
    same = first.minus(first).contrast({(1, 12): 1.0}, of_base=1.0)
    assert (same.mean, same.low, same.high) == (0.0, 0.0, 0.0)


def test_answers_to_some_levels_are_those_rows_of_the_table():
    table = answers_of(6)
    answers = Answers.of(table, Study("exact")).on((1, 3))
    assert set(answers.slices) == {1, 3}
    own = table.loc[table["slice"].isin([1, 3])]
    expected = own.loc[(own["difficulty"] == 3) & (own["data_size"] == 12), "correct"].mean()
    assert answers.contrast({(3, 12): 1.0}).mean == pytest.approx(expected)
    is_base = own["train_mixture"] == "none"
    assert answers.base.mean() == pytest.approx(own.loc[is_base, "correct"].mean())


def test_answers_to_other_problems_cannot_be_subtracted():
    answers = Answers.of(answers_of(), Study("exact"))
    with pytest.raises(ValueError, match="other must have the same slices"):
        answers.minus(answers.on((1, 2)))
    fewer = dataclasses.replace(answers, correct=answers.correct[:, :, :2])
    with pytest.raises(ValueError, match="the same number of seeds, 3, got 2"):
        answers.minus(fewer)
