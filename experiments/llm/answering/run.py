"""Evaluate a checkpoint, and keep the results in a directory.

The directory holds::

    slices.parquet       pass rates, one row a slice
    responses.parquet    answers, one row a response
    evaluation.json      model, data, grader and decoding of the run
    decoded-*.jsonl      responses as they end; an interrupted run resumes from them
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

from experiments.engine.progress import console
from experiments.engine.run import run_study
from experiments.engine.study import Output, Part, Study, short_digest
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.answering.decoding import kept_of
from experiments.llm.answering.evaluate import Evaluation, evaluate
from experiments.llm.answering.kept import KEPT_FILES, Kept
from experiments.llm.answering.model import Model
from experiments.llm.problems.config import GraderConfig, Source
from experiments.storage import checkpoint
from experiments.storage.config import Devices
from experiments.storage.results import write_json
from synth.config import Dtype


def open_kept(out: Path, model: Model, decoding: DecodingConfig) -> Kept:
    """Open the file of a model's responses, see `kept_of`, and say how many it holds."""
    kept = kept_of(out, model, decoding)
    if kept.num_found:
        console.print(f"{kept.num_found} responses are there already: {kept.path}")
    return kept


def run_evaluation(
    model: str,
    source: Source,
    out: Path,
    grader: GraderConfig,
    decoding: DecodingConfig,
    devices: Devices,
    dtype: Dtype,
) -> Evaluation:
    """Ask a checkpoint problems and grade its answers, by stated difficulty.

    Problems form one slice if any of them states no difficulty.

    Raises:
      FileNotFoundError, ImportError, ValueError: if model or problems cannot be used.
      ResultsError: if the directory holds something else, or another process uses it.
    """
    study = EvaluationStudy(
        model, source, out, grader=grader, decoding=decoding, devices=devices, dtype=dtype
    )
    tables = run_study(study)
    write_json(out / "evaluation.json", study.about)
    return Evaluation(tables["slices"], tables["responses"])


class EvaluationStudy(Study):
    """One part: the responses to all problems, graded.

    The part is named after everything that its rows depend on, so that one directory serves several
    graders. Its tables are those of the last call.
    """

    unit = "evaluations"
    adopts = (*("slices.parquet", "responses.parquet", "evaluation.json"), KEPT_FILES, "figures")

    def __init__(
        self,
        model: str,
        source: Source,
        directory: Path,
        *,
        grader: GraderConfig,
        decoding: DecodingConfig,
        devices: Devices,
        dtype: Dtype,
    ):
        """Read the problems; the arguments are those of `run_evaluation`."""
        self.directory, self._model, self._devices, self._dtype = directory, model, devices, dtype
        self._grader, self._decoding = grader, decoding
        self.problems = source.read()
        self.about = {
            "model": model,
            "data": dataclasses.asdict(source),
            "grader": dataclasses.asdict(grader),
            "decoding": dataclasses.asdict(decoding),
            "dtype": dtype,
        }

    @property
    def identity(self) -> dict[str, Any]:
        """The kind of study alone: the record has the rest."""
        return {"kind": "evaluation"}

    @functools.cached_property
    def record(self) -> dict[str, Any]:
        """Model, data, grader and decoding, with digests of weights and problems."""
        weights, problems = checkpoint.digest(self._model), self.problems.digest()
        return {"evaluation": {**self.about, "checkpoint": weights, "problems": problems}}

    def stages(self) -> list[list[Part]]:
        """The one part."""
        name = f"graded-{short_digest(self.record)}"
        return [[Part(name, f"asking {len(self.problems)} problems", ("slices", "responses"))]]

    def make(self, part: Part) -> Output:
        """Ask and grade; responses that are kept in the directory are not asked for again."""
        del part
        levels = self.problems.ops
        unstated = sum(level is None for level in levels)
        if 0 < unstated < len(levels):
            console.print(
                f"{unstated} of {len(levels)} problems state no difficulty: one slice of all."
            )
        asked = Model.load(self._model, mesh=self._devices.mesh(), dtype=self._dtype)
        with (
            open_kept(self.directory, asked, self._decoding) as kept,
            console.status(f"Asking {len(levels)} problems …"),
        ):
            evaluation = evaluate(
                asked,
                self.problems,
                decoding=self._decoding,
                grader=self._grader,
                kept=kept,
                slices=None if unstated else [level or 0 for level in levels],
            )
        return Output({"slices": evaluation.table, "responses": evaluation.responses})
