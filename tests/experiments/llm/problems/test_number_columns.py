"""Columns of numbers, as public data sets with labels of difficulty have them."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from experiments.llm.problems.config import Columns, Source
from experiments.llm.problems.data import NoColumnError, read, read_source, write_problems

BIG_MATH = [
    {
        "problem": f"What is {row} + 1?",
        "answer": str(row + 1),
        "source": "orca_math",
        "domain": ["Mathematics -> Algebra -> Prealgebra"],
        "llama8b_solve_rate": rate,
    }
    for row, rate in enumerate([0.984375, 0.03125, None, 0.5])
]
"""Rows with the columns of SynthLabsAI/Big-Math-RL-Verified."""

DEEP_SCALER = [
    {"problem": "1 + 1?", "solution": "It is $2$.", "answer": "2", "difficulty": 1.5},
    {"problem": "1 + 2?", "solution": "It is $3$.", "answer": "3", "difficulty": 4.0},
]
"""Rows with a difficulty as of AoPS levels, which has halves."""


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_solve_rate_is_read_beside_problems(tmp_path, ending):
    path = write(tmp_path / f"big.{ending}", BIG_MATH)
    problems = read_source(Source(str(path)), numbers=["llama8b_solve_rate"])
    assert problems.columns == {"llama8b_solve_rate": [0.984375, 0.03125, None, 0.5]}
    assert problems.solutions == problems.answers == ["1", "2", "3", "4"]
    assert problems.ops == [None] * 4
    # Nobody reads what nobody asked for.
    assert read(path).columns == {}


def test_a_difficulty_of_fractions_is_no_level_but_a_column(tmp_path):
    path = write(tmp_path / "deep.jsonl", DEEP_SCALER)
    with pytest.warns(UserWarning, match=r"got 1.5; --measure column:difficulty takes any number"):
        assert read(path).ops == [None, None]
    with pytest.raises(ValueError, match=r"whole numbers: .*--measure column:difficulty takes"):
        read(path, columns=Columns(difficulty="difficulty"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        problems = read(path, numbers=["difficulty"])
    assert problems.columns == {"difficulty": [1.5, 4.0]}
    assert problems.ops == [None, None]
    write_problems(problems, tmp_path / "again.parquet", {"difficulty_words": ["a", "b"]})
    assert read(tmp_path / "again.parquet", numbers=["difficulty"]).columns == problems.columns


def test_levels_are_not_written_twice(tmp_path):
    rows = [row | {"op": 3, "difficulty": 1.5, "answer": "2"} for row in DEEP_SCALER]
    path = write(tmp_path / "both.jsonl", rows)
    problems = read(path, columns=Columns(difficulty="op"), numbers=["op", "difficulty", "answer"])
    assert problems.columns == {"op": [3, 3], "difficulty": [1.5, 1.5], "answer": [2, 2]}
    write_problems(problems, tmp_path / "again.parquet", {})
    assert read(tmp_path / "again.parquet").ops == [3, 3]
    assert read(tmp_path / "again.parquet").answers == ["2", "2"]


def test_numbers_may_be_text_truth_values_or_missing(tmp_path):
    cells = [["0.25", "", "1e3"], [True, False, None], [1, 2.5, float("nan")]]
    for place, column in enumerate(cells):
        rows = [{"problem": "1?", "answer": "1", "x": cell} for cell in column]
        problems = read(write(tmp_path / f"{place}.parquet", rows), numbers=["x"])
        expected = [[0.25, None, 1000], [1, 0, None], [1, 2.5, None]][place]
        assert problems.columns["x"] == expected


@pytest.mark.parametrize(
    ("cell", "shown"), [("hard", "'hard'"), ([1.0, 2.0], "a list of 2"), ({"a": 1}, "dict")]
)
def test_what_is_no_number_is_told_by_its_row(tmp_path, cell, shown):
    rows = [{"problem": "1?", "answer": "1", "x": cell}] * 2
    message = rf"words.jsonl: column 'x', row 0: must be .*number.* got {re.escape(shown)}"
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path / "words.jsonl", rows), numbers=["x"])


def test_a_column_that_is_not_there_is_told_with_the_nearest_name(tmp_path):
    path = write(tmp_path / "big.jsonl", BIG_MATH)
    with pytest.raises(NoColumnError) as caught:
        read(path, numbers=["llama_solve_rate"])
    message = str(caught.value)
    assert message.startswith(f"{path}: a column must be one of ['problem', 'answer', 'source', ")
    assert message.endswith("got 'llama_solve_rate'; did you mean 'llama8b_solve_rate'?")
