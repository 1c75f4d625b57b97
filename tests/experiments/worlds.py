"""Invented sweeps in which the best difficulty at every data size is known."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.storage.results import tidy
from experiments.sweep.grid import SweepConfig

CONFIG = SweepConfig(
    difficulties=(2, 4, 6, 9, 12),
    data_sizes=(16, 64, 256, 1024),
    base_seeds=3,
    seeds=2,
    test_hardest=18,
)


def slice_risks(difficulty: int, data_size: int) -> np.ndarray:
    """Harder data need more examples, and reach further: the best level is 2, 4, 9, 12."""
    slices = np.arange(1, CONFIG.test_hardest + 1)
    distance = np.maximum(slices - difficulty, 0)
    return -np.expm1(-(difficulty**2) / data_size - 0.35 * distance)


def world(
    *,
    config: SweepConfig = CONFIG,
    noise: float = 0.02,
    is_flat: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """Tidy table of a sweep; if flat, every slice of every cell has the same risk but for noise.

    `noise` is the standard deviation over members of the logarithm of −ln(accuracy).
    """
    generator = np.random.default_rng(seed)
    rows = []
    for member in config.members:
        risk = slice_risks(member.difficulty, member.data_size)
        if is_flat:
            risk = np.full_like(risk, 0.7 - 0.05 * np.log(member.data_size / 16))
        hazard = -np.log1p(-np.minimum(risk, 0.999)) * np.exp(noise * generator.standard_normal())
        risk = -np.expm1(-hazard)
        fresh, test = risk[: member.difficulty].mean(), risk.mean()
        train = fresh / 2 if is_flat else 0.0
        metrics = {
            "train_risk": train,
            "in_distribution_risk": fresh,
            "test_risk": test,
            "generalization_gap": fresh - train,
            "extrapolation_gap": test - fresh,
        }
        values = [(None, name, value) for name, value in metrics.items()]
        values += [(level, "risk", value) for level, value in enumerate(risk, start=1)]
        shared = {
            "task": config.task,
            "base": f"base-{member.base_seed}",
            "base_seed": member.base_seed,
            "seed": member.seed,
            "train_mixture": member.mixture,
            "loss": member.loss,
            "difficulty": member.difficulty,
            "data_size": member.data_size,
            "compute": config.compute_name,
            "data_unit": config.data_unit,
            "learning_rate": member.learning_rate,
            "num_examples": 1000,
            "status": "ok",
        }
        rows += [
            shared | {"slice": level, "metric": name, "value": value}
            for level, name, value in values
        ]
    return tidy(rows)


def write_run(directory: Path, table: pd.DataFrame, config: SweepConfig = CONFIG) -> Path:
    """A directory that looks like a finished run."""
    directory.mkdir(parents=True)
    table.to_parquet(directory / "table.parquet", index=False)
    manifest = {"config": dataclasses.asdict(config), "status": "complete"}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory
