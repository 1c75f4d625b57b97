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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.engine.progress import console
from experiments.engine.run import run_study
from experiments.engine.study import Output, Part, Study, short_digest
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.answering.kept import KEPT_FILES
from experiments.llm.answering.model import Model
from experiments.llm.answering.run import open_kept
from experiments.llm.difficulty.agreement import present, rank_correlations
from experiments.llm.difficulty.buckets import Cut, Measure, levels
from experiments.llm.difficulty.measures import OF_MODEL, measure
from experiments.llm.problems.config import GraderConfig, Source
from experiments.llm.problems.data import Problems, write_problems
from experiments.llm.text.tokenizer import load_tokenizer
from experiments.storage import checkpoint
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


class DifficultyStudy(Study):
    """One part: the measures of all problems, named after everything that they depend on."""

    unit = "measurements"
    adopts = (
        *("measures.parquet", "correlations.parquet", "problems.parquet", "figures"),
        KEPT_FILES,
    )

    def __init__(
        self,
        model: str,
        source: Source,
        directory: Path,
        measures: Sequence[Measure],
        *,
        grader: GraderConfig,
        decoding: DecodingConfig,
        devices: Devices,
        dtype: Dtype,
    ):
        """Read the problems; the arguments are those of `run_measures`."""
        self.directory, self._model, self._devices, self._dtype = directory, model, devices, dtype
        self._measures, self._grader, self._decoding = measures, grader, decoding
        self._source, self.problems = source, source.read()

    @property
    def identity(self) -> dict[str, Any]:
        """The kind of study alone: the record has the rest."""
        return {"kind": "difficulty"}

    @functools.cached_property
    def record(self) -> dict[str, Any]:
        """Model, data and measures, with digests of weights and problems."""
        about = {
            "model": self._model,
            "data": dataclasses.asdict(self._source),
            "measures": [*self._measures],
            "grader": dataclasses.asdict(self._grader),
            "decoding": dataclasses.asdict(self._decoding),
            "dtype": self._dtype,
            "checkpoint": checkpoint.digest(self._model),
            "problems": self.problems.digest(),
        }
        return {"difficulty": about}

    def stages(self) -> list[list[Part]]:
        """The one part."""
        return [[Part(f"measures-{short_digest(self.record)}", "", ("measures",))]]

    def make(self, part: Part) -> Output:
        """Measure; responses that are kept in the directory are not asked for again."""
        del part
        needs_weights = set(self._measures) & set(OF_MODEL)
        asked = (
            Model.load(self._model, mesh=self._devices.mesh(), dtype=self._dtype)
            if needs_weights
            else load_tokenizer(self._model)
        )
        with contextlib.ExitStack() as stack:
            kept = None
            if isinstance(asked, Model) and "pass_rate" in self._measures:
                kept = stack.enter_context(open_kept(self.directory, asked, self._decoding))
            table = measure(
                asked,
                self.problems,
                measures=self._measures,
                grader=self._grader,
                decoding=self._decoding,
                kept=kept,
                console=console,
            )
        return Output({"measures": table})


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
      ResultsError: if the directory holds something else, or another process uses it.
    """
    study = DifficultyStudy(
        model, source, out, measures, grader=grader, decoding=decoding, devices=devices, dtype=dtype
    )
    problems = study.problems
    if cut is not None:
        # Try the cut on distinct values first: measuring may take hours.
        cut.apply(pd.Series(problems.ops if cut.measure == "op" else range(1, len(problems) + 1)))
    table = run_study(study)["measures"]
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
