"""Result tables and a run that many tests share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from experiments.cli.main import main
from experiments.engine.progress import console
from experiments.sweep.study import run_sweep
from tests.experiments.llm.folders import reference_folder, tiny_folder, torch
from tests.experiments.tiny import TINY
from tests.experiments.worlds import CENSORED, synthetic_table

# Fixtures that several folders of tests use.
__all__ = ["reference_folder", "tiny_folder", "torch"]


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
