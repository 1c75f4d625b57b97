"""Rows of a scan's table: a model is asked the problems, and its answers are graded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from experiments.engine.progress import counting
from experiments.llm.answering.evaluate import Evaluation, evaluate
from experiments.llm.answering.model import Model
from experiments.llm.problems.data import Problems
from experiments.llm.scan.data import ScanProblems
from experiments.llm.scan.grid import Member
from experiments.llm.scan.levels import Levels

Row = dict[str, Any]
"""Slice, metric, value and number of examples; other columns name the member."""


@dataclass(frozen=True)
class Measurements:
    """Measures models on the problems of a scan.

    Attributes:
      levels: the problems' levels.
    """

    levels: Levels

    def of_member(
        self,
        model: Model,
        trained_on: Int[np.ndarray, " trained_on"],
        fresh: Int[np.ndarray, " held_out"],
    ) -> tuple[list[Row], pd.DataFrame]:
        """Risks and gaps of one member, and its responses to the test."""
        problems = self.levels.problems
        seen = problems.train.take(trained_on[: problems.config.risk_examples])
        held_out = problems.train.take(fresh)
        train_risk = _risk(self._ask(model, seen, "training"))
        fresh_risk = _risk(self._ask(model, held_out, "held out"))
        (*slices, test), responses = self.on_test(model)
        generalization, extrapolation = fresh_risk - train_risk, test["value"] - fresh_risk
        rows = [
            metric("train_risk", train_risk, len(seen)),
            metric("in_distribution_risk", fresh_risk, len(held_out)),
            test,
            metric("generalization_gap", generalization, len(held_out)),
            metric("extrapolation_gap", extrapolation, test["num_examples"]),
            *slices,
        ]
        return rows, responses

    def on_test(self, model: Model) -> tuple[list[Row], pd.DataFrame]:
        """Risk on the test by slice, and in all; and the responses."""
        tested = self.levels.test_rows
        problems = self.levels.problems.test.take(tested)
        evaluation = self._ask(model, problems, "test", self.levels.test_levels[tested])
        rows = [
            metric("risk", 1 - row["pass_at_1"], row["num_examples"], int(row["slice"]))
            for row in evaluation.table.to_dict("records")
        ]
        rows.append(metric("test_risk", _risk(evaluation), len(problems)))
        return rows, evaluation.responses

    def of_diverged_member(self) -> list[Row]:
        """Rows of a member that diverged, without values."""
        levels = np.unique(self.levels.test_levels[self.levels.test_rows]).tolist()
        names = ("train_risk", "in_distribution_risk", "test_risk", "generalization_gap")
        return [
            *(metric(name, math.nan, 0) for name in (*names, "extrapolation_gap")),
            *(metric("risk", math.nan, 0, level) for level in levels),
        ]

    def _ask(self, model: Model, problems: Problems, name: str, slices=None) -> Evaluation:
        config = self.levels.problems.config
        number = len(problems) * config.decoding.samples
        with counting(f"asking {name} problems", number, "responses") as advance:
            return evaluate(
                model,
                problems,
                decoding=config.decoding,
                grader=config.grader,
                slices=slices,
                advance=advance,
            )


def base_columns(problems: ScanProblems, seed: int) -> Row:
    """Columns that name the data and the base of a row."""
    config = problems.config
    return {
        "task": "igsm" if config.export else problems.train.name,
        "base": "scratch" if config.base.scratch else config.checkpoint,
        "base_seed": 0,
        "seed": seed,
        "data_unit": config.data_unit,
    }


def member_columns(problems: ScanProblems, member: Member, *, is_diverged: bool) -> Row:
    """Columns that name a member, and the end of its training."""
    return base_columns(problems, member.seed) | {
        "train_mixture": member.selection,
        "loss": member.loss,
        "difficulty": member.difficulty,
        "data_size": member.data_size,
        "compute": problems.config.compute_name,
        "learning_rate": member.learning_rate,
        "status": "diverged" if is_diverged else "ok",
    }


def metric(name: str, value: float, num_examples: int, level: int | None = None) -> Row:
    """Columns of one metric."""
    return {"slice": level, "metric": name, "value": float(value), "num_examples": num_examples}


def _risk(evaluation: Evaluation) -> float:
    """Share of wrong responses, all problems alike."""
    return float(1 - evaluation.responses["correct"].to_numpy(float).mean())
