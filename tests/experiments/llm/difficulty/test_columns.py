"""Measures made of columns: their values, and columns that do not hold what they should."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from experiments.llm.difficulty.columns import column_values, known_values, with_values
from experiments.llm.difficulty.rasch import fit_rasch
from experiments.llm.difficulty.shrinkage import fit_beta
from experiments.llm.problems.data import Problems

PASSES = np.array([0.0, 0, 3, 8, 5, 2])
ATTEMPTS = np.array([1.0, 64, 8, 8, 8, 4])


def of(ops=None, **columns) -> Problems:
    number = len([*columns.values(), ops or []][0])
    prompts = [[{"role": "user", "content": f"{row}?"}] for row in range(number)]
    ops = [None] * number if ops is None else ops
    return Problems(prompts, ["2."] * number, [""] * number, ops, "mine", columns=columns)


def test_a_column_is_its_numbers():
    values = column_values("column:rate", of(rate=[0.5, None, 1, 0]))
    np.testing.assert_array_equal(values, [0.5, np.nan, 1, 0])


def test_counts_of_passes_are_shrunk():
    problems = of(passes=PASSES.tolist(), attempts=ATTEMPTS.tolist())
    expected = fit_beta(PASSES, ATTEMPTS).posterior_mean(PASSES, ATTEMPTS)
    np.testing.assert_array_equal(column_values("passes:passes/attempts", problems), expected)
    assert expected[1] < expected[0]
    few = problems.take([2, 3, 4])
    eight = np.full(3, 8.0)
    expected = fit_beta(PASSES[2:5], eight).posterior_mean(PASSES[2:5], eight)
    np.testing.assert_array_equal(column_values("passes:passes/8", few), expected)


def test_models_that_pass_different_problems_are_told_of(capsys):
    passes = [0, 1] * 50
    apart = of(a=passes, b=[1 - each for each in passes])
    assert np.ptp(column_values("rasch:a,b", apart)) < 0.01
    said = " ".join(capsys.readouterr().out.split())
    assert "rasch:a,b: the models pass the same problems no more often than by chance" in said
    alike = of(a=passes, b=[*passes[:-2], 1, 0])
    assert np.ptp(column_values("rasch:a,b", alike)) > 1
    assert not capsys.readouterr().out


def test_a_test_is_measured_as_its_training_set():
    train = of(passes=PASSES.tolist(), attempts=ATTEMPTS.tolist())
    test = of(passes=[0, None, 4], attempts=[1, 2, 4])
    found = column_values("passes:passes/attempts", test, fitted_to=train)
    of_train = column_values("passes:passes/attempts", train)
    assert found[0] == of_train[0]
    assert np.isnan(found[1])
    random = np.random.default_rng(0)
    passes = random.integers(0, 2, (200, 3)).astype(float)
    train = of(a=passes[:, 0].tolist(), b=passes[:, 1].tolist(), c=passes[:, 2].tolist())
    found = column_values("rasch:a,b,c", train.take([5, 0]), fitted_to=train)
    np.testing.assert_array_equal(found, fit_rasch(passes).difficulties(passes[[5, 0]]))


@pytest.mark.parametrize(
    ("measure", "columns", "message"),
    [
        ("column:rate", {"other": [1.0]}, "with the column 'rate', got 'mine' with ['other']"),
        (
            "passes:k/n",
            {"k": [1, 5], "n": [2, 4]},
            "passes:k/n in 'mine', row 1: passes must be a whole number from 0 to the number of "
            "attempts, 4, got 5",
        ),
        ("passes:k/4", {"k": [1, -1]}, "row 1: passes must be a whole number from 0 to"),
        ("passes:k/4", {"k": [0.25, 1]}, "the number of attempts, 4, got 0.25"),
        ("passes:k/n", {"k": [1, 1], "n": [2, 2.5]}, "the number of attempts, 2.5, got 1"),
        ("passes:k/n", {"k": [1, 1], "n": [1, 1]}, "passes:k/n in 'mine': some problem must have"),
        ("rasch:a,b", {"a": [0, 1], "b": [0, 0.5]}, "got 0.5 (rasch:A,B/TRIALS states the attempt"),
        ("op", {"a": [1]}, "measure must be made of columns, got 'op'"),
    ],
)
def test_what_does_not_fit_is_told_by_its_row(measure, columns, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        column_values(measure, of(**columns))


def test_missing_values_are_counted_or_left_out(capsys):
    problems = of(rate=[0.5, None, 1, None])
    with pytest.raises(
        ValueError, match=r"mine: column:rate must .* missing for 2 of 4, the first in row 1"
    ):
        with_values("column:rate", problems, None)
    kept = with_values("column:rate", problems, "drop")
    assert kept.columns == {"rate": [0.5, 1]}
    assert kept.problems == ["0?", "2?"]
    said = " ".join(capsys.readouterr().out.split())
    assert "mine: 2 of 4 problems have no column:rate and are left out." in said
    with pytest.raises(ValueError, match=r"missing for 2 of 2, the first in row 0"):
        with_values("column:rate", problems.take([1, 3]), "drop")
    stated = of(ops=[3, None])
    assert with_values("op", stated, "drop").ops == [3]
    with pytest.raises(ValueError, match=r"op must be .* missing for 1 of 2"):
        with_values("op", stated, None)
    # Measures of a model are there for all.
    assert with_values("pass_rate", problems, None) is problems
    assert known_values("cot_tokens", problems) is None


def test_problems_keep_their_columns_and_are_told_apart_by_them():
    problems = of(rate=[0.5, None, 1, 0])
    assert problems.take([3, 0]).columns == {"rate": [0, 0.5]}
    others = dataclasses.replace(problems, columns={"rate": [0.5, None, 1, 0.25]})
    none = dataclasses.replace(problems, columns={})
    assert len({each.digest() for each in (problems, others, none)}) == 3
    with pytest.raises(ValueError, match=r"one length, got \{.*'rate': 3\}"):
        dataclasses.replace(problems, columns={"rate": [1.0] * 3})
