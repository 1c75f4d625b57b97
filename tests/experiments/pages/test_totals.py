"""Tests of the sentences on total bounds in the documents, from tables with known numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from experiments.pages.totals import coverage_times_reliability
from experiments.storage.results import write_parquet
from tests.experiments.worlds import decomposed, member_rows

TESTED = 8


def sweep(inside: dict[int, float], test: dict[int, float], data_size: int = 64) -> pd.DataFrame:
    """A sweep of the levels 1 to d with one member a cell.

    Args:
      inside: in-distribution risk of each d.
      test: test risk of each d.
      data_size: of every cell.
    """
    rows = []
    for difficulty, risk in test.items():
        member = {"task": "chain", "base": "base-0", "base_seed": 0, "seed": 0}
        member |= {"train_mixture": "range", "loss": "sft", "difficulty": difficulty}
        member |= {"data_size": data_size, "compute": "3 epochs", "data_unit": "examples"}
        member |= {"learning_rate": 1e-3}
        slices = {"risk": np.full(TESTED, risk).tolist()}
        rows += member_rows(member, decomposed(0.0, inside[difficulty], risk), slices)
    return pd.DataFrame(rows)


def test_the_measured_risk_times_coverage_is_judged_where_there_is_a_choice(tmp_path):
    # 1 - (d / 8)(1 - B) is .75, .55 and .6 at d = 2, 4 and 6: least at 4, as the risk is.
    inside = {2: 0.0, 4: 0.1, 6: 1 - 0.4 * 8 / 6}
    write_parquet(tmp_path / "right" / "table.parquet", sweep(inside, {2: 0.7, 4: 0.5, 6: 0.6}))
    # The same in a run whose risk is least at d = 2, at a cost of ten points.
    write_parquet(tmp_path / "wrong" / "table.parquet", sweep(inside, {2: 0.4, 4: 0.5, 6: 0.6}))
    # A single level leaves nothing to choose.
    write_parquet(tmp_path / "single" / "table.parquet", sweep({4: 0.1}, {4: 0.5}))
    told = coverage_times_reliability(tmp_path)
    assert "in 1 of 2 pairs of a recorded run and a data size" in told
    assert "within one level of the grid in 2" in told
    assert "costs 5.0 points on average, and 10.0 at most" in told
    assert "hardest level of the grid is within one level of the best in 1 of them" in told
