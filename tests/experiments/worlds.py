"""Invented sweeps in which the best difficulty at every data size is known."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
MOVING = {16: 6, 64: 8, 256: 10, 1024: 10}
CONSTANT = {16: 8, 64: 8, 256: 8, 1024: 8}
CENSORED = {16: 8, 64: 10, 256: 12, 1024: 12}
DIFFICULTIES = (4, 6, 8, 10, 12)
SLICES = np.arange(1, 21)


def member_rows(
    member: Mapping[str, Any],
    metrics: Mapping[str, float],
    slice_risks: Mapping[str, Sequence[float]],
    status: str = "ok",
) -> list[dict[str, Any]]:
    """Tidy rows of one member; it has no values where its status says that it diverged.

    Args:
      member: columns that identify it.
      metrics: value of each metric over all slices.
      slice_risks: values of each metric by slice, from level 1 on.
      status: of the member.
    """
    entries = [(None, name, value) for name, value in metrics.items()]
    for level, risks in enumerate(zip(*slice_risks.values(), strict=True), start=1):
        entries += [(level, name, risk) for name, risk in zip(slice_risks, risks, strict=True)]
    shared = {**member, "num_examples": 1000, "status": status}
    return [
        shared | {"slice": level, "metric": name, "value": np.nan if status != "ok" else value}
        for level, name, value in entries
    ]


def decomposed(train: float, in_distribution: float, test: float) -> dict[str, float]:
    """The three risks of a member and its two gaps."""
    return {
        "train_risk": train,
        "in_distribution_risk": in_distribution,
        "test_risk": test,
        "generalization_gap": in_distribution - train,
        "extrapolation_gap": test - in_distribution,
    }


def synthetic_table(
    best: Mapping[int, int] = MOVING,
    *,
    mixtures: tuple[str, ...] = ("range",),
    difficulties: tuple[int, ...] = DIFFICULTIES,
    num_bases: int = 4,
    num_seeds: int = 4,
    noise: float = 0.004,
    diverged: tuple[tuple[int, int, int, int], ...] = (),
) -> pd.DataFrame:
    """Make a tidy table whose mean test risk is least at `best[data_size]`.

    Test risk is a parabola in difficulty, plus one effect per base and one per (base, seed) that
    all cells share (large: only a paired comparison sees through it), plus `noise` per member.
    `diverged` lists (difficulty, data_size, base_seed, seed).
    """
    generator = np.random.default_rng(0)
    base_effect = 0.03 * generator.standard_normal(num_bases)
    seed_effect = 0.02 * generator.standard_normal((num_bases, num_seeds))
    rows = []

    def by_slice(test_risk: float) -> dict[str, Any]:
        edge = 20.0 * (1.0 - test_risk) + 0.5
        risks = 1.0 / (1.0 + np.exp((edge - SLICES) / 1.2))
        return {"risk": risks, "risk_novel": risks}

    for base, seed in itertools.product(range(num_bases), range(num_seeds)):
        effect = base_effect[base] + seed_effect[base, seed]
        common = {"task": "synthetic", "base": "small", "base_seed": base, "seed": seed}
        common["learning_rate"] = 1e-3
        untrained = common | {"train_mixture": "none", "loss": "none", "difficulty": 0}
        untrained |= {"data_size": 0, "compute": "none", "data_unit": "none"}
        rows += member_rows(untrained, {"test_risk": 0.8 + effect}, by_slice(0.8 + effect))
        for mixture, (n, top), d in itertools.product(mixtures, best.items(), difficulties):
            test = 0.62 - 0.05 * np.log2(n / 16) + 0.006 * (d - top) ** 2 + effect
            test += noise * generator.standard_normal()
            test = float(np.clip(test, 0.0, 1.0))
            train, slope = 0.01, 0.035 if mixture == "range" else 0.075
            metrics = decomposed(train, min(train + slope * d * (16 / n) ** 0.2, 0.97), test)
            metrics |= {"test_risk_novel": test, "overlap": 0.0, "final_loss": 0.1}
            member = common | {"train_mixture": mixture, "loss": "sft", "difficulty": d}
            member |= {"data_size": n, "compute": "500 steps", "data_unit": "examples"}
            status = "diverged" if (d, n, base, seed) in diverged else "ok"
            rows += member_rows(member, metrics, by_slice(test), status)
    return tidy(rows)


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

    `noise` is the standard deviation over members of the logarithm of −ln(accuracy). The bases get
    half of level 5 right, half of the levels 1 to 9, and 38% of 1 to 12.
    """
    generator = np.random.default_rng(seed)
    rows = []
    known = np.clip((np.arange(1, config.test_hardest + 1) - 3) / 4, 0.0, 1.0)
    for base_seed, own_seed in itertools.product(range(config.base_seeds), range(config.seeds)):
        columns = {
            "task": config.task,
            "base": f"base-{base_seed}",
            "base_seed": base_seed,
            "seed": own_seed,
            "train_mixture": "none",
            "loss": "none",
            "difficulty": 0,
            "data_size": 0,
            "compute": "none",
            "data_unit": "none",
            "learning_rate": 0.0,
        }
        rows += member_rows(columns, {"test_risk": known.mean()}, {"risk": known.tolist()})
    for member in config.members:
        risk = slice_risks(member.difficulty, member.data_size)
        if is_flat:
            risk = np.full_like(risk, 0.7 - 0.05 * np.log(member.data_size / 16))
        hazard = -np.log1p(-np.minimum(risk, 0.999)) * np.exp(noise * generator.standard_normal())
        risk = -np.expm1(-hazard)
        fresh = risk[: member.difficulty].mean()
        columns = {
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
        }
        metrics = decomposed(fresh / 2 if is_flat else 0.0, fresh, risk.mean())
        rows += member_rows(columns, metrics, {"risk": risk})
    return tidy(rows)


def diverge(table: pd.DataFrame, *cells: tuple[int, int], **columns: Any) -> pd.DataFrame:
    """The same table, with the members of some cells (difficulty, data size) diverged.

    `columns` says which members: those that have these values in the named columns.
    """
    places = pd.MultiIndex.from_arrays([table["difficulty"], table["data_size"]])
    lost = pd.Series(places.isin(list(cells)), index=table.index)
    for name, value in columns.items():
        lost &= table[name] == value
    status, value = table["status"].mask(lost, "diverged"), table["value"].mask(lost)
    return table.assign(status=status, value=value)


def write_run(
    directory: Path,
    table: pd.DataFrame,
    config: SweepConfig | dict[str, Any] = CONFIG,
    **fields: Any,
) -> Path:
    """A directory that looks like a finished run; `fields` are further ones of its manifest."""
    directory.mkdir(parents=True)
    table.to_parquet(directory / "table.parquet", index=False)
    stored = config if isinstance(config, dict) else dataclasses.asdict(config)
    manifest = {"config": stored, "status": "complete"} | fields
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


def parabola_row(
    base: int, seed: int, level: int, size: int, metric: str, value: float, **more
) -> dict:
    """A row of a table of `parabolas`."""
    return {
        "task": "chain-running",
        "base": f"base-{base}",
        "base_seed": base,
        "seed": seed,
        "train_mixture": "exact",
        "loss": "sft",
        "difficulty": level,
        "data_size": size,
        "data_unit": "examples",
        "compute": "3 epochs",
        "slice": pd.NA,
        "metric": metric,
        "value": value,
        "learning_rate": 1e-3,
        "num_examples": 100,
        "status": "ok",
    } | more


def parabolas(optimum_of: dict[int, float]) -> pd.DataFrame:
    """Parabolas around an optimum for each n; bases differ in height alone, and seeds a little."""
    made = []
    random = np.random.default_rng(0)
    for base in range(8):
        height = 0.5 + 0.02 * random.standard_normal()
        for seed in (0, 1):
            untrained = {"difficulty": 0, "data_size": 0, "train_mixture": "none", "loss": "none"}
            made.append(parabola_row(base, seed, 0, 0, "test_risk", height, **untrained))
            made += [
                parabola_row(base, seed, 0, 0, "risk", level / 10, slice=level, **untrained)
                for level in (1, 2, 3)
            ]
            for level in (6, 8, 10, 12, 14):
                for size in optimum_of:
                    away = level - optimum_of[size]
                    risk = height - 0.05 + 0.004 * away**2 + 0.002 * random.standard_normal()
                    made.append(parabola_row(base, seed, level, size, "test_risk", risk))
                    made += [
                        parabola_row(base, seed, level, size, "risk", 0.25, slice=each)
                        for each in (1, 2, 3)
                    ]
    table = pd.DataFrame(made)
    table["slice"] = table["slice"].astype("Int64")
    return table


RISING = parabolas({64: 8.0, 512: 10.0, 4096: 12.0})
STEADY = parabolas({64: 10.0, 512: 10.0, 4096: 10.0})
FALLING = parabolas({64: 12.0, 512: 10.0, 4096: 8.0})
