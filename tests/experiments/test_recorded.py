"""Recorded results, written by earlier versions: each is read, and taken for finished."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from experiments.llm.scan.grid import ScanConfig
from experiments.llm.scan.study import ScanStudy, run_scan
from experiments.storage.records import from_record
from experiments.storage.results import read_manifest, read_table
from experiments.sweep.grid import sweep_config
from experiments.sweep.study import SweepStudy, run_sweep

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
SWEEPS = ("certificates", "modulus-7", "tradeoff")


@pytest.fixture
def no_work(monkeypatch) -> None:
    def refuse(*_):
        raise AssertionError("nothing is left to make")

    for study in (SweepStudy, ScanStudy):
        monkeypatch.setattr(study, "make", refuse)


def copy_of(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(RESULTS / name, tmp_path / name))


@pytest.mark.parametrize("name", SWEEPS)
def test_a_recorded_sweep_is_finished(name, tmp_path, no_work):
    directory = copy_of(name, tmp_path)
    manifest = read_manifest(directory)
    names = {"recipe": manifest["recipe"], "preset": manifest["preset"]}
    table = run_sweep(sweep_config(manifest["config"]), directory, **names)
    pd.testing.assert_frame_equal(table, read_table(RESULTS / name))


def test_a_recorded_scan_is_finished(tmp_path, no_work):
    directory = copy_of("tiny-igsm", tmp_path)
    manifest = read_manifest(directory)
    config = from_record(ScanConfig, manifest["config"])
    table = run_scan(config, directory, recipe=manifest["recipe"], preset=manifest["preset"])
    pd.testing.assert_frame_equal(table, read_table(RESULTS / "tiny-igsm"))
