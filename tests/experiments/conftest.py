"""Synthetic result tables: invented numbers with a planted optimum, no model behind them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.cli.main import main
from experiments.engine.progress import console
from experiments.sweep.study import run_sweep
from tests.experiments.llm.folders import reference_folder, tiny_folder, torch
from tests.experiments.tiny import TINY

# Fixtures that several folders of tests use.
__all__ = ["reference_folder", "tiny_folder", "torch"]

MOVING = {16: 6, 64: 8, 256: 10, 1024: 10}
CONSTANT = {16: 8, 64: 8, 256: 8, 1024: 8}
CENSORED = {16: 8, 64: 10, 256: 12, 1024: 12}
DIFFICULTIES = (4, 6, 8, 10, 12)
SLICES = range(1, 21)


def synthetic_table(
    best: Mapping[int, int] | None = None,
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
    best = MOVING if best is None else best
    generator = np.random.default_rng(0)
    base_effect = 0.03 * generator.standard_normal(num_bases)
    seed_effect = 0.02 * generator.standard_normal((num_bases, num_seeds))
    rows = []

    def add(member: dict, values: dict, test_risk: float) -> None:
        is_lost = member.pop("is_lost")
        accuracy_edge = 20.0 * (1.0 - test_risk) + 0.5
        entries = [(pd.NA, name, value) for name, value in values.items()]
        for level in SLICES:
            risk = 1.0 / (1.0 + np.exp((accuracy_edge - level) / 1.2))
            entries += [(level, "risk", risk), (level, "risk_novel", risk)]
        for level, name, value in entries:
            status = "diverged" if is_lost else "ok"
            value = float("nan") if is_lost else value
            rows.append(
                {**member, "slice": level, "metric": name, "value": value, "status": status}
            )

    for base in range(num_bases):
        for seed in range(num_seeds):
            effect = base_effect[base] + seed_effect[base, seed]
            common = {"base_seed": base, "seed": seed, "task": "synthetic", "base": "small"}
            untrained = {"train_mixture": "none", "loss": "none", "compute": "none"}
            untrained |= {"difficulty": 0, "data_size": 0, "data_unit": "none", "is_lost": False}
            add(common | untrained, {"test_risk": 0.8 + effect}, 0.8 + effect)
            for mixture in mixtures:
                for n, top in best.items():
                    for d in difficulties:
                        test = 0.62 - 0.05 * np.log2(n / 16) + 0.006 * (d - top) ** 2 + effect
                        test += noise * generator.standard_normal()
                        test = float(np.clip(test, 0.0, 1.0))
                        train = 0.01
                        slope = 0.035 if mixture == "range" else 0.075
                        in_distribution = min(train + slope * d * (16 / n) ** 0.2, 0.97)
                        member = {"train_mixture": mixture, "loss": "sft", "compute": "500 steps"}
                        member |= {"difficulty": d, "data_size": n, "data_unit": "examples"}
                        member["is_lost"] = (d, n, base, seed) in diverged
                        values = {
                            "train_risk": train,
                            "in_distribution_risk": in_distribution,
                            "test_risk": test,
                            "generalization_gap": in_distribution - train,
                            "extrapolation_gap": test - in_distribution,
                            "test_risk_novel": test,
                            "overlap": 0.0,
                            "final_loss": 0.1,
                        }
                        add(common | member, values, test)
    table = pd.DataFrame(rows).assign(learning_rate=1e-3, num_examples=1000)
    return table.astype({"slice": "Int16"})


@pytest.fixture
def make_table() -> Callable[..., pd.DataFrame]:
    """The factory itself, for tests that choose their own planted optimum."""
    return synthetic_table


@pytest.fixture(scope="session")
def two_studies() -> pd.DataFrame:
    """Both mixtures, four sizes, five difficulties, 4 × 4 members a cell; the optimum moves."""
    return synthetic_table(mixtures=("range", "exact"))


@pytest.fixture(scope="session")
def censored_study() -> pd.DataFrame:
    """One study whose best level at the large sizes is the hardest of the grid."""
    return synthetic_table(CENSORED)


@pytest.fixture(scope="session")
def smoke_study() -> pd.DataFrame:
    """The smallest table that a smoke run writes: 2 × 2 cells, one base, two seeds."""
    return synthetic_table({8: 2, 32: 3}, difficulties=(2, 3), num_bases=1, num_seeds=2)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> Path:
    """A complete run of `TINY` in a directory; tests that change it work on a copy."""
    directory = tmp_path_factory.mktemp("runs") / "tiny"
    run_sweep(TINY, directory, recipe="tiny", preset="test")
    return directory


@pytest.fixture
def sweetspot(monkeypatch, capsys):
    """Run a command line; return its exit code and everything it printed."""

    def call(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["sweetspot", *map(str, arguments)])
        # Wide enough that no line of a test's long paths is broken.
        monkeypatch.setattr(console, "_width", 1000)
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = 0 if stop.code is None else stop.code
        captured = capsys.readouterr()
        assert isinstance(code, int)
        return code, captured.out + captured.err

    return call
