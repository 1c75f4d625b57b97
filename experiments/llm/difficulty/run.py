"""Measure the difficulty of a data set, and keep the measures and its buckets in a directory.

The directory holds::

    measures.parquet       one row a problem
    correlations.parquet   agreement of the measures, if at least two of them vary
    problems.parquet       the problems of a cut, with their bucket as difficulty, 1 the easiest
    decoded-*.jsonl        responses for the pass rate; an interrupted run resumes from them
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.engine.progress import console
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.answering.model import Model
from experiments.llm.answering.run import open_kept
from experiments.llm.difficulty.agreement import present, rank_correlations
from experiments.llm.difficulty.buckets import Cut, Measure, levels
from experiments.llm.difficulty.measures import OF_MODEL, measure
from experiments.llm.problems.config import GraderConfig, Source
from experiments.llm.problems.data import Problems, write_problems
from experiments.llm.text.tokenizer import load_tokenizer
from experiments.storage.config import Devices
from experiments.storage.results import write_parquet
from synth.config import Dtype


@dataclass(frozen=True)
class Difficulty:
    """Measures of a data set, and their uses.

    Attributes:
      measures: one row a problem.
      correlations: of the measures; None if fewer than two of them vary.
      buckets: for each bucket of the cut its values in words and its number of problems; None
        without a cut.
    """

    measures: pd.DataFrame
    correlations: pd.DataFrame | None
    buckets: pd.DataFrame | None


def run_measures(
    model: str,
    source: Source,
    out: Path,
    measures: Sequence[Measure],
    cut: Cut | None,
    grader: GraderConfig,
    decoding: DecodingConfig,
    devices: Devices,
    dtype: Dtype,
) -> Difficulty:
    """Measure how difficult problems are for a checkpoint, and cut them into buckets.

    Raises:
      FileNotFoundError, ImportError, ValueError: if the model, the problems or the cut cannot be
        used; a cut that no values could satisfy is refused before the model is read.
      ResultsError: if another process writes the responses.
    """
    problems = source.read()
    if cut is not None:
        # Try the cut on distinct values first: measuring may take hours.
        cut.apply(pd.Series(problems.ops if cut.measure == "op" else range(1, len(problems) + 1)))
    # Only some measures need the model's weights.
    asked = (
        Model.load(model, mesh=devices.mesh(), dtype=dtype)
        if set(measures) & set(OF_MODEL)
        else load_tokenizer(model)
    )
    with contextlib.ExitStack() as stack:
        kept = None
        if isinstance(asked, Model) and "pass_rate" in measures:
            kept = stack.enter_context(open_kept(out, asked, decoding))
        table = measure(
            asked,
            problems,
            measures=measures,
            grader=grader,
            decoding=decoding,
            kept=kept,
            console=console,
        )
    write_parquet(out / "measures.parquet", table)
    buckets = None if cut is None else _write_cut(problems, table, cut, out / "problems.parquet")
    correlations = rank_correlations(table) if len(present(table)) > 1 else None
    if correlations is not None:
        write_parquet(out / "correlations.parquet", correlations)
    return Difficulty(table, correlations, buckets)


def _write_cut(problems: Problems, table: pd.DataFrame, cut: Cut, path: Path) -> pd.DataFrame:
    """Write the problems of a cut with their bucket as difficulty; return a row a bucket."""
    remains, buckets = cut.apply(table[cut.measure])
    table = table.loc[remains]
    difficulty = levels(table, buckets)
    chosen = problems.take(np.flatnonzero(remains))
    columns = {} if buckets is None else {cut.measure: table[cut.measure].tolist()}
    write_problems(dataclasses.replace(chosen, ops=difficulty.tolist()), path, columns)
    numbers, counts = np.unique(difficulty, return_counts=True)
    words = numbers if buckets is None else np.array(buckets.describe())[numbers - 1]
    return pd.DataFrame({"difficulty": numbers, cut.measure: words, "problems": counts})
