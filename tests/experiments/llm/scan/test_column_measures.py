"""Scans over a column of the data: a file as Big-Math's, with tests that have it or lack it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import figures
from experiments.analysis import optimum
from experiments.analysis.pilot import read_scan, study_risks
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.problems.config import Source
from experiments.llm.scan.grid import ScanConfig
from experiments.llm.scan.levels import Levels
from experiments.llm.scan.study import ScanStudy, run_scan
from experiments.llm.training.config import PAPER_OPTIMISER, TrainingConfig
from experiments.storage.results import read_tables

RATES = np.round(np.linspace(0.02, 0.98, 28)[np.random.default_rng(0).permutation(28)], 3)
COLUMN = "llama8b_solve_rate"


def write_sums(path: Path, number: int, **columns) -> Source:
    """Sums with answers that stand in for solutions, and further columns."""
    rows = [
        {
            "problem": f"What is {row % 7} + {row % 5}?",
            "answer": f"\\boxed{{{row % 7 + row % 5}}}",
            **{name: cells[row] for name, cells in columns.items()},
        }
        for row in range(number)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source(str(path))


@pytest.fixture(scope="module")
def config(tiny_folder, tmp_path_factory) -> ScanConfig:
    folder = tmp_path_factory.mktemp("problems")
    optimiser = dataclasses.replace(PAPER_OPTIMISER, batch_size=4)
    training = TrainingConfig(
        compute=1, compute_unit="steps", optimiser=optimiser, dtype="float32", checkpoint_every=0
    )
    return ScanConfig(
        checkpoint=str(tiny_folder),
        train=write_sums(folder / "train.jsonl", 28, **{COLUMN: RATES.tolist()}),
        test=write_sums(folder / "test.jsonl", 4, **{COLUMN: [0.9, 0.1, 0.8, 0.2]}),
        measure=f"column:{COLUMN}",
        harder="lower",
        buckets=2,
        difficulties=(1, 2),
        data_sizes=(4, 8),
        losses=("sft",),
        learning_rates=(1e-3,),
        training=training,
        max_length=1024,
        risk_examples=4,
        decoding=DecodingConfig(max_new_tokens=4, batch_size=16),
    )


def levels_of(config: ScanConfig, folder: Path) -> Levels:
    """Levels of a scan's problems, of which nothing is trained."""
    return ScanStudy(config, folder, recipe="test", preset="test").levels


def test_a_low_solve_rate_is_a_high_level(config, tmp_path):
    levels = levels_of(config, tmp_path)
    edge = np.sort(RATES)[14]
    np.testing.assert_array_equal(levels.train_levels, np.where(edge <= RATES, 1, 2))
    assert levels.test_levels.tolist() == [1, 2, 1, 2]
    record = levels.record()
    assert record["buckets"] == {
        "measure": f"column:{COLUMN}",
        "edges": (edge,),
        "harder": "lower",
    }
    assert record["buckets_in_words"][1] == f"column:{COLUMN} < {edge:g}"
    assert record["levels"] == {"train": {"1": 14, "2": 14}, "test": {"1": 2, "2": 2}}


@pytest.mark.slow
def test_counts_and_several_models_are_measures_of_train_and_test(config, tmp_path):
    random = np.random.default_rng(1)
    passes, trials = random.integers(0, 3, 28), random.integers(2, 30, 28)
    columns = {"k": passes.tolist(), "n": trials.tolist(), "a": [0, 1] * 14, "b": [0, 0, 0, 1] * 7}
    train = write_sums(tmp_path / "train.jsonl", 28, **columns)
    test = write_sums(
        tmp_path / "test.jsonl", 4, k=[0, 0, 2, 2], n=[2, 60, 2, 60], a=[0] * 4, b=[1] * 4
    )
    counts = dataclasses.replace(config, train=train, test=test, measure="passes:k/n", harder=None)
    measured = levels_of(counts, tmp_path / "run")
    # Twice nothing is less sure to be hard than sixty times nothing.
    assert measured.test_levels.tolist() in ([1, 2, 1, 2], [2, 2, 1, 2], [1, 2, 1, 1])
    assert measured.train_levels[passes / trials > 0.3].max() == 1
    rasch = levels_of(dataclasses.replace(counts, measure="rasch:a,b"), tmp_path / "run")
    # Both fail the even problems, which is half of them.
    assert rasch.train_levels.tolist() == [2, 1] * 14


def test_a_test_without_the_column_is_one_slice(config, tmp_path, capsys):
    test = write_sums(tmp_path / "benchmark.jsonl", 6)
    levels = levels_of(dataclasses.replace(config, test=test), tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    assert f"must be one of ['problem', 'answer'], got '{COLUMN}'. So the test is one slice" in said
    assert "llm recommend, which needs that, cannot be asked" in said
    assert levels.test_levels.tolist() == [0] * 6
    assert levels.record()["levels"]["test"] == {"0": 6}
    assert levels.record()["levels"]["train"] == {"1": 14, "2": 14}


@pytest.mark.slow
def test_what_cannot_be_measured_is_told_before_anything_is_trained(config, tmp_path, capsys):
    unknown = dataclasses.replace(config, measure="column:solve_rate")
    with pytest.raises(ValueError, match=rf"got 'solve_rate'; did you mean '{COLUMN}'\?"):
        levels_of(unknown, tmp_path)
    gaps = [None if row in (3, 9) else rate for row, rate in enumerate(RATES.tolist())]
    train = write_sums(tmp_path / "gaps.jsonl", 28, **{COLUMN: gaps})
    missing = dataclasses.replace(config, train=train)
    with pytest.raises(
        ValueError, match=rf"column:{COLUMN} .* 2 of 28, the first in row 3 \(--mis"
    ):
        levels_of(missing, tmp_path)
    levels = levels_of(dataclasses.replace(missing, missing="drop"), tmp_path)
    assert len(levels.train_levels) == 26
    assert "2 of 28 problems have no column:" in " ".join(capsys.readouterr().out.split())
    words = write_sums(tmp_path / "words.jsonl", 28, **{COLUMN: ["hard"] * 28})
    with pytest.raises(ValueError, match="row 0: must be a number, got 'hard'"):
        levels_of(dataclasses.replace(config, train=words), tmp_path)
    with pytest.raises(ValueError, match=r"base|'op' must be stated .* \(column:NAME takes any"):
        levels_of(dataclasses.replace(config, measure="op", harder=None), tmp_path)


@pytest.mark.slow
def test_a_scan_by_solve_rate_on_a_benchmark_without_it(config, tmp_path):
    test = write_sums(tmp_path / "benchmark.jsonl", 6)
    out = tmp_path / "run"
    table = run_scan(dataclasses.replace(config, test=test), out)
    assert table["slice"].dropna().unique().tolist() == [0]
    cells = table.loc[table["train_mixture"] == "exact"].groupby(["difficulty", "data_size"])
    assert sorted(cells.groups) == [(1, 4), (1, 8), (2, 4), (2, 8)]
    drawn = {path.stem for path in figures.draw(read_tables(out), tmp_path / "figures")}
    assert {"map", "accuracy_over_difficulty", "gaps"} <= drawn
    kept, levels = read_scan(out)
    (study,) = optimum.studies(kept)
    with pytest.raises(ValueError, match=r"levels \[1\] are trained on, but the test has \[0\]"):
        study_risks(kept, study, levels)
    # An interrupted scan carries on with the same levels.
    (out / "table.parquet").unlink()
    (out / "parts" / "0_exact_2_8_sft_0.001.parquet").unlink()
    again = run_scan(dataclasses.replace(config, test=test), out)
    pd.testing.assert_frame_equal(again, table)
