"""The best difficulty under several settings, one row each: does its move survive?

A setting is a run in which one thing is changed, or one run under another test mixture (see
`experiments.analysis.reweight`). These are over the same bases; a family is a setting with its own.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from experiments.analysis import optimum
from experiments.analysis.gain import gains
from experiments.analysis.verdicts import judge
from theory import levels as knowledge


def compared(
    settings: Iterable[tuple[str, str, pd.DataFrame]], *, smallest_size: int
) -> pd.DataFrame:
    """Judge the move of the best difficulty in each setting.

    Args:
      settings: kind, name and result table of each; a table has one study.
      smallest_size: data sizes below are left out, so that settings start alike.

    Returns:
      One row per setting: kind, setting, from_size, to_size; d* at both with its interval
      (``from_position``, ``from_low``, …); ``move``, ``move_low``, ``move_high`` in levels; p of
      the sign test over bases, number of bases, verdict; ``gain``, ``gain_low``, ``gain_high``,
      test accuracy above the untouched base at to_size, of a level chosen on the other bases. Where
      that is below 0 no level should be trained on, and where the best one lies means little.

    Raises:
      ValueError: if a table has several studies, or no data size that is left.
    """
    rows = []
    for kind, name, table in settings:
        kept = table.loc[(table["data_size"] == 0) | (table["data_size"] >= smallest_size)]
        (study,) = optimum.studies(kept)
        shift = optimum.shift(kept, study)
        row = {"kind": kind, "setting": name}
        row |= {"from_size": shift.smallest_size, "to_size": shift.largest_size}
        for end, found in (("from", shift.smallest), ("to", shift.largest)):
            row |= {f"{end}_{part}": getattr(found, part) for part in ("position", "low", "high")}
        move = shift.move
        row |= {"move": move.mean, "move_low": move.low, "move_high": move.high}
        row |= {"p": move.signs.p, "bases": shift.number, "verdict": judge(move, shift.step)}
        above = gains(kept, study)[shift.largest_size]
        row |= {"gain": above.mean, "gain_low": above.low, "gain_high": above.high}
        rows.append(row)
    return pd.DataFrame(rows)


def half_level(accuracy: np.ndarray, levels: np.ndarray) -> float:
    """The level of which a base gets half right, interpolated; NaN if it is not among the levels.

    Args:
      accuracy: on each level [level].
      levels: of the test, increasing [level].
    """
    if accuracy[0] < knowledge.HALF or (accuracy >= knowledge.HALF).all():
        return float("nan")
    position = knowledge.half_level(accuracy)
    return float(np.interp(position, np.arange(len(levels)), levels))


def strengths(runs: Iterable[tuple[str, pd.DataFrame]]) -> pd.DataFrame:
    """The best difficulty beside what the bases know, for bases of several strengths.

    Args:
      runs: name and result table of each; a table has one study.

    Returns:
      One row per run and data size: run, data_size; ``half_level``, the level of which the bases
      get half right on average; position, low, high of d*.
    """
    rows = []
    for name, table in runs:
        (study,) = optimum.studies(table)
        untrained = table.loc[
            (table["train_mixture"] == optimum.UNTRAINED) & (table["metric"] == "risk")
        ]
        accuracy = 1 - untrained.groupby("slice")["value"].mean()
        half = half_level(accuracy.to_numpy(dtype=float), accuracy.index.to_numpy(dtype=float))
        risk = optimum.cube(table, study, "test_risk")
        for size, found in zip(risk.data_sizes, optimum.optima(risk), strict=True):
            row = {"run": name, "half_level": half, "data_size": int(size)}
            row |= {part: getattr(found, part) for part in ("position", "low", "high")}
            rows.append(row)
    return pd.DataFrame(rows)
