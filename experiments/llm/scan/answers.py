"""The answers of a scan as one small table: which model got which test problem right.

Responses with their texts stay in ``responses/``. This table is what the noise of the test is told
from (`experiments.analysis.answers`), and is small enough to be kept with a recorded run.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from experiments.llm.scan.grid import Member
from experiments.storage.results import UNTRAINED, read_parquet
from experiments.storage.writing import write_parquet

ANSWERS = "answers.parquet"
OF_MODEL = ("train_mixture", "loss", "difficulty", "data_size", "seed")
"""Columns that name a model."""


def write_answers(directory: Path, members: Iterable[Member]) -> pd.DataFrame | None:
    """Write `ANSWERS` from the responses in a scan's directory.

    Args:
      directory: of a finished scan.
      members: of the scan; those that diverged have no responses, and no rows.

    Returns:
      One row per model and test problem: train_mixture, loss, difficulty, data_size and seed of the
      member (those of an untouched base for the base, at seed 0), problem (row of the test), slice,
      and correct, the share of its samples that the grader accepted. None, and nothing is written,
      where no responses were kept, as in a recorded scan.
    """
    untrained = {name: UNTRAINED[name] for name in ("train_mixture", "loss")}
    models = {"base": {**untrained, "difficulty": 0, "data_size": 0, "seed": 0}}
    for member in members:
        models[member.name] = {
            "train_mixture": member.selection,
            "loss": member.loss,
            "difficulty": member.difficulty,
            "data_size": member.data_size,
            "seed": member.seed,
        }
    tables = []
    for name, columns in models.items():
        path = directory / "responses" / f"{name}.parquet"
        if not path.is_file():
            continue
        responses = read_parquet(path)
        shares = responses.groupby(["row", "slice"], as_index=False).agg({"correct": "mean"})
        tables.append(shares.rename(columns={"row": "problem"}).assign(**columns))
    if not tables:
        return None
    answers = pd.concat(tables, ignore_index=True)
    answers = answers.loc[:, [*OF_MODEL, "problem", "slice", "correct"]]
    write_parquet(directory / ANSWERS, answers)
    return answers
