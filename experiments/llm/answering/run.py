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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from experiments.engine.progress import console, counting
from experiments.engine.run import run_study
from experiments.engine.study import Output, Part, Study, short_digest
from experiments.engine.workload import Workload
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.answering.decoding import kept_of
from experiments.llm.answering.evaluate import Evaluation, evaluate
from experiments.llm.answering.kept import KEPT_FILES, Kept
from experiments.llm.answering.model import Model
from experiments.llm.answering.workload import AnswersWorkload
from experiments.llm.problems.config import GraderConfig, Source
from experiments.llm.problems.data import Problems, read_source
from experiments.storage import checkpoint
from experiments.storage.config import Devices
from experiments.storage.writing import write_json
from synth.config import Dtype


@dataclass
class AskingStudy(Study):
    """Base class of studies that ask a checkpoint problems, in one part.

    The part is named after everything that its rows depend on, so that one directory serves several
    graders. Its tables are those of the last call.

    Attributes:
      model: folder or hub id.
      source: where the problems are.
      grader, decoding: how responses are graded and made.
      devices, dtype: of the parameters in memory.
      kind: name of the study in the manifest.
      tables: that result.
    """

    model: str
    source: Source
    directory: Path
    grader: GraderConfig
    decoding: DecodingConfig
    devices: Devices
    dtype: Dtype
    kind: ClassVar[str]
    tables: ClassVar[tuple[str, ...]]
    adopts = (
        *("slices.parquet", "responses.parquet", "evaluation.json", "report.json", "figures"),
        *("measures.parquet", "correlations.parquet", "problems.parquet", KEPT_FILES),
    )

    @functools.cached_property
    def problems(self) -> Problems:
        """The problems, read once."""
        return read_source(self.source)

    @property
    def about(self) -> dict[str, Any]:
        """Everything that the rows depend on, but for the contents of model and source."""
        return {
            "model": self.model,
            "data": dataclasses.asdict(self.source),
            "grader": dataclasses.asdict(self.grader),
            "decoding": dataclasses.asdict(self.decoding),
            "dtype": self.dtype,
        }

    @property
    def identity(self) -> dict[str, Any]:
        """The kind of study alone; the record has the rest."""
        return {"kind": "answers"}

    @functools.cached_property
    def record(self) -> dict[str, Any]:
        """The account of the tables, with digests of weights and problems."""
        problems = self.problems.digest()
        return {self.kind: {**self.about, "checkpoint": self.fingerprint(), "problems": problems}}

    def workload(self) -> Workload:
        """Answers to all problems, and how to time them."""
        return AnswersWorkload(self, asks=True, reads=False)

    def fingerprint(self) -> str:
        """Digest of the model's files that the rows depend on."""
        return checkpoint.digest(self.model)

    def stages(self) -> list[list[Part]]:
        """The one part."""
        return [[Part(f"{self.tables[0]}-{short_digest(self.record)}", "", self.tables)]]

    def load_model(self) -> Model:
        """Read the checkpoint."""
        return Model.load(self.model, mesh=self.devices.mesh(), dtype=self.dtype)

    def open_kept(self, model: Model) -> Kept:
        """Open the file of a model's responses, see `kept_of`, and say how many it holds."""
        kept = kept_of(self.directory, model, self.decoding)
        if kept.num_found:
            console.print(f"{kept.num_found} responses are there already: {kept.path}")
        return kept


class EvaluationStudy(AskingStudy):
    """Responses to all problems, graded, and pass rates by stated difficulty.

    Problems form one slice if any of them states no difficulty.
    """

    unit = "evaluations"
    kind = "evaluation"
    tables = ("slices", "responses")

    def make(self, part: Part) -> Output:
        """Ask and grade; responses that are kept in the directory are not asked for again."""
        del part
        problems, levels = self.problems, self.problems.ops
        unstated = sum(level is None for level in levels)
        if 0 < unstated < len(levels):
            console.print(
                f"{unstated} of {len(levels)} problems state no difficulty: one slice of all."
            )
        model = self.load_model()
        number = len(levels) * self.decoding.samples
        with (
            self.open_kept(model) as kept,
            counting("asking problems", number, "responses") as advance,
        ):
            evaluation = evaluate(
                model,
                problems,
                decoding=self.decoding,
                grader=self.grader,
                kept=kept,
                slices=None if unstated else [level or 0 for level in levels],
                advance=advance,
            )
        return Output({"slices": evaluation.table, "responses": evaluation.responses})


def run_evaluation(study: EvaluationStudy) -> Evaluation:
    """Ask a checkpoint problems and grade its answers; see `EvaluationStudy`.

    Raises:
      FileNotFoundError, ImportError, ValueError: if model or problems cannot be used.
      ResultsError: if the directory holds something else, or another process uses it.
    """
    tables = run_study(study)
    write_json(study.directory / "evaluation.json", study.about)
    return Evaluation(tables["slices"], tables["responses"])
