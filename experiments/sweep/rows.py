"""Rows of the result table: metrics of the bases and of fine-tuned members."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from experiments.storage.results import UNTRAINED, tidy
from experiments.sweep.grid import Member, PretrainConfig
from experiments.sweep.plan import Chunk
from experiments.sweep.programs import Correct, Outcome, Sweep
from synth.gaps import mean_risk, measure_gaps, risk

Metric = tuple[int | None, str, float, int]
"""Slice (None for all), name, value, and the number of examples behind it."""


def base_rows(sweep: Sweep, correct: dict[tuple[int, int], Correct]) -> pd.DataFrame:
    """Rows of the untouched bases.

    Args:
      sweep: gives the draws that they were evaluated on.
      correct: their right answers for each base seed and seed, see `Sweep.evaluate_bases`.

    Raises:
      ValueError: if a base errs on more than `pretrain.max_risk` of its own mixture.
    """
    config, rows = sweep.config, []
    for (base_seed, seed), buckets in correct.items():
        slices = sweep.draws.by_slice(buckets)
        _check_gate(config.pretrain, base_seed, slices)
        metrics: list[Metric] = [
            (level, "risk", risk(part), part.size)
            for level, part in zip(config.test_levels, slices, strict=True)
        ]
        total = sum(part.size for part in slices)
        metrics.append((None, "test_risk", mean_risk(slices), total))
        rows += _rows(_columns(sweep, base_seed, seed) | UNTRAINED, metrics)
    return tidy(rows)


def _check_gate(config: PretrainConfig, base_seed: int, slices: list[np.ndarray]) -> None:
    """Stop the sweep if a base errs too often on its own mixture."""
    risks = [risk(part) for part in slices[: config.hardest]]
    own = float(np.dot(config.mixture.probabilities, risks))
    if own > config.max_risk:
        raise ValueError(
            f"base {base_seed} errs on {own:.0%} of its own levels 1 to "
            f"{config.hardest}, more than pretrain.max_risk = "
            f"{config.max_risk:.0%}: train it longer (pretrain.steps) or allow it"
        )


def chunk_rows(sweep: Sweep, chunk: Chunk, outcomes: list[Outcome]) -> pd.DataFrame:
    """Rows of the members of a chunk; those of a diverged member are flagged and have no values."""
    rows = []
    for member, outcome in zip(chunk.members, outcomes, strict=True):
        columns = _columns(sweep, member.base_seed, member.seed) | {
            "train_mixture": member.mixture,
            "loss": member.loss,
            "difficulty": member.difficulty,
            "data_size": member.data_size,
            "compute": sweep.config.compute_name,
            "learning_rate": member.learning_rate,
            "status": "diverged" if outcome.diverged else "ok",
        }
        metrics = _member_metrics(sweep, member, outcome)
        if outcome.diverged:
            metrics = [(level, name, math.nan, size) for level, name, _, size in metrics]
        rows += _rows(columns, metrics)
    return tidy(rows)


def _member_metrics(sweep: Sweep, member: Member, outcome: Outcome) -> list[Metric]:
    """Risks, gaps and loss of one member, all slices together and one by one."""
    train = outcome.train[outcome.trained_on]
    slices = sweep.draws.by_slice(outcome.test)
    unseen = sweep.draws.unseen(member)
    gaps = measure_gaps(train, outcome.in_distribution, slices)
    fresh, tested = outcome.in_distribution.size, sum(part.size for part in slices)
    novel = [part[new] for part, new in zip(slices, unseen, strict=True)]
    metrics: list[Metric] = [
        (None, "train_risk", gaps.train_risk, train.size),
        (None, "in_distribution_risk", gaps.in_distribution_risk, fresh),
        (None, "test_risk", gaps.test_risk, tested),
        (None, "generalization_gap", gaps.generalization_gap, fresh),
        (None, "extrapolation_gap", gaps.extrapolation_gap, tested),
        (None, "test_risk_novel", mean_risk(novel), sum(part.size for part in novel)),
        (None, "final_loss", float(outcome.final_loss), train.size),
    ]
    for level, part, new in zip(sweep.config.test_levels, slices, unseen, strict=True):
        metrics.append((level, "risk", risk(part), part.size))
        metrics.append((level, "risk_novel", risk(part[new]), int(new.sum())))
        metrics.append((level, "overlap", float(np.mean(~new)), part.size))
    if outcome.validation is not None:
        validation = sweep.draws.by_slice(outcome.validation)
        size = len(validation) * sweep.config.validation_examples
        metrics.append((None, "validation_risk", mean_risk(validation), size))
    return metrics


def _columns(sweep: Sweep, base_seed: int, seed: int) -> dict[str, Any]:
    """Columns that name the base and the draws of a row."""
    return {
        "task": sweep.config.task,
        "base": f"base-{base_seed}",
        "base_seed": base_seed,
        "seed": seed,
        "data_unit": sweep.config.data_unit,
    }


def _rows(columns: dict[str, Any], metrics: list[Metric]) -> list[dict[str, Any]]:
    """One row for each metric."""
    return [
        columns | {"slice": level, "metric": name, "value": value, "num_examples": size}
        for level, name, value, size in metrics
    ]
