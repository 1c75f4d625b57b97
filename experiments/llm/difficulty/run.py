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
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.engine.progress import console
from experiments.engine.run import run_study
from experiments.engine.study import Output, Part
from experiments.engine.workload import Workload
from experiments.llm.answering.model import Model
from experiments.llm.answering.run import AskingStudy
from experiments.llm.answering.workload import AnswersWorkload
from experiments.llm.difficulty.agreement import present, rank_correlations
from experiments.llm.difficulty.buckets import Cut, levels
from experiments.llm.difficulty.columns import known_values
from experiments.llm.difficulty.measures import OF_MODEL, measure
from experiments.llm.difficulty.scales import Measure, needed_columns
from experiments.llm.problems.data import Problems, read_source, write_problems
from experiments.llm.text.tokenizer import load_tokenizer
from experiments.storage import checkpoint
from experiments.storage.writing import write_parquet


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


@dataclass
class DifficultyStudy(AskingStudy):
    """Measures of all problems.

    Attributes:
      measures: names of the measures; weights are read only for those that need them.
    """

    measures: Sequence[Measure]
    unit = "measurements"
    kind = "difficulty"
    tables = ("measures",)

    @functools.cached_property
    def problems(self) -> Problems:
        """The problems with the columns that measures are made of, read once."""
        return read_source(self.source, numbers=needed_columns(*self.measures))

    @property
    def about(self) -> dict[str, Any]:
        """Everything that the rows depend on, but for the contents of model and source."""
        return {**super().about, "measures": [*self.measures]}

    @property
    def _needs_weights(self) -> bool:
        return bool(set(self.measures) & set(OF_MODEL))

    def workload(self) -> Workload:
        """Answers and solutions, as far as the measures need them."""
        asks, reads = "pass_rate" in self.measures, "perplexity" in self.measures
        return AnswersWorkload(self, asks=asks, reads=reads)

    def fingerprint(self) -> str:
        """Digest of the model's weights, or of its tokenizer if the measures need no more."""
        if self._needs_weights:
            return super().fingerprint()
        tokenizer = checkpoint.folder(self.model) / "tokenizer.json"
        # A missing file is an error of `make`, which reads the tokenizer.
        return hashlib.sha256(tokenizer.read_bytes()).hexdigest() if tokenizer.is_file() else ""

    def make(self, part: Part) -> Output:
        """Measure; responses that are kept in the directory are not asked for again."""
        del part
        model = self.load_model() if self._needs_weights else load_tokenizer(self.model)
        with contextlib.ExitStack() as stack:
            kept = None
            if isinstance(model, Model) and "pass_rate" in self.measures:
                kept = stack.enter_context(self.open_kept(model))
            table = measure(
                model,
                self.problems,
                measures=self.measures,
                grader=self.grader,
                decoding=self.decoding,
                kept=kept,
                console=console,
            )
        return Output({"measures": table})


def run_measures(study: DifficultyStudy, cut: Cut | None) -> Difficulty:
    """Measure how difficult problems are for a checkpoint, and cut them into buckets.

    Raises:
      FileNotFoundError, ImportError, ValueError: if the model, the problems or the cut cannot be
        used; a cut that no values could satisfy is refused before the model is read.
      ResultsError: if the directory holds something else, or another process uses it.
    """
    problems, out = study.problems, study.directory
    if cut is not None:
        # Try the cut first, on distinct values if only measuring gives them: that may take hours.
        known = known_values(cut.measure, problems)
        cut.apply(range(1, len(problems) + 1) if known is None else known)
    table = run_study(study)["measures"]
    buckets = None if cut is None else _write_cut(problems, table, cut, out / "problems.parquet")
    correlations = rank_correlations(table) if len(present(table)) > 1 else None
    if correlations is not None:
        write_parquet(out / "correlations.parquet", correlations)
    return Difficulty(table, correlations, buckets)


def _write_cut(problems: Problems, table: pd.DataFrame, cut: Cut, path: Path) -> pd.DataFrame:
    """Write the problems of a cut with their bucket as difficulty; return a row a bucket."""
    remains, buckets = cut.apply(table[cut.measure])
    lost = int(table[cut.measure].isna().to_numpy().sum())
    if lost:
        console.print(f"{lost} of {len(table)} problems have no {cut.measure} and are left out.")
    table = table.loc[remains]
    difficulty = levels(table, buckets)
    chosen = problems.take(np.flatnonzero(remains))
    columns = {} if buckets is None else {cut.measure: table[cut.measure].tolist()}
    write_problems(dataclasses.replace(chosen, ops=difficulty.tolist()), path, columns)
    numbers, counts = np.unique(difficulty, return_counts=True)
    words = numbers if buckets is None else np.array(buckets.describe())[numbers - 1]
    return pd.DataFrame({"difficulty": numbers, cut.measure: words, "problems": counts})
