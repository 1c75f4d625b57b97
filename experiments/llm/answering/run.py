"""Evaluate a checkpoint, and keep the results in a directory.

The directory holds::

    slices.parquet       pass rates, one row a slice
    responses.parquet    answers, one row a response
    evaluation.json      model, data, grader and decoding of the run
    decoded-*.jsonl      responses as they end; an interrupted run resumes from them
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from experiments.engine.progress import console
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.answering.decoding import kept_of
from experiments.llm.answering.evaluate import Evaluation, evaluate
from experiments.llm.answering.kept import Kept
from experiments.llm.answering.model import Model
from experiments.llm.problems.config import GraderConfig, Source
from experiments.storage.config import Devices
from experiments.storage.results import write_json, write_parquet
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
      ResultsError: if another process writes the responses.
    """
    problems = source.read()
    unstated = sum(op is None for op in problems.ops)
    if 0 < unstated < len(problems):
        console.print(
            f"{unstated} of {len(problems)} problems state no difficulty: one slice of all."
        )
    asked = Model.load(model, mesh=devices.mesh(), dtype=dtype)
    with (
        open_kept(out, asked, decoding) as kept,
        console.status(f"Asking {len(problems)} problems …"),
    ):
        slices = None if unstated else [op or 0 for op in problems.ops]
        evaluation = evaluate(
            asked, problems, decoding=decoding, grader=grader, kept=kept, slices=slices
        )
    write_parquet(out / "slices.parquet", evaluation.table)
    write_parquet(out / "responses.parquet", evaluation.responses)
    about = {
        "model": model,
        "data": dataclasses.asdict(source),
        "grader": dataclasses.asdict(grader),
        "decoding": dataclasses.asdict(decoding),
        "dtype": dtype,
    }
    write_json(out / "evaluation.json", about)
    return evaluation
