"""Recorded results, written by earlier versions: each is read, and taken for finished."""

from __future__ import annotations

import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.llm.scan.grid import ScanConfig
from experiments.llm.scan.study import ScanStudy, run_scan
from experiments.storage.records import from_record
from experiments.storage.results import read_manifest, read_table
from experiments.sweep.grid import sweep_config
from experiments.sweep.study import SweepStudy, run_sweep
from theory.bounds import catoni_grid, pac_bayes_kl
from theory.certificate import BOUND, Certificate, Ledger

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
SWEEPS = sorted(
    path.parent.name
    for path in RESULTS.glob("*/manifest.json")
    if "chunks" in (manifest := read_manifest(path.parent)) and manifest.get("kind") != "llm"
)


@pytest.fixture
def no_work(monkeypatch) -> None:
    def refuse(*_):
        raise AssertionError("nothing is left to make")

    for study in (SweepStudy, ScanStudy):
        monkeypatch.setattr(study, "make", refuse)


def copy_of(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(RESULTS / name, tmp_path / name))


def test_there_are_recorded_sweeps():
    assert {"certificates", "modulus-7", "paper-protocol", "tradeoff"} <= {*SWEEPS}


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


def recorded_certificates() -> Any:
    return pd.read_parquet(RESULTS / "certificates" / "certificates.parquet")


def test_recorded_certificates_are_supported_by_their_own_numbers():
    """A certificate is refused unless its fields support its bound."""
    names = [field.name for field in fields(Certificate)]
    for row in recorded_certificates().to_dict("records"):
        certificate = Certificate.from_row({name: row[name] for name in names})
        assert certificate.risk_bound == row["risk_bound"]


def test_catoni_on_a_grid_is_tighter_in_most_recorded_certificates():
    """As the docstring of `theory.bounds.pac_bayes_kl` says."""
    table = recorded_certificates()
    table = table[table["bound"] == "pac_bayes_kl"]
    entries = [Ledger.from_json(text).entry(BOUND) for text in table["ledger"]]
    arguments = {
        "empirical_risk": table["empirical_risk_bound"].to_numpy(),
        "kl": table["kl"].to_numpy(),
        "num_examples": table["num_examples"].to_numpy(),
        "delta": np.array([entry.each for entry in entries if entry is not None]),
    }
    more = catoni_grid(**arguments) - pac_bayes_kl(**arguments)
    assert 0.5 < (more < 0).mean() < 1
    assert np.abs(more).max() < 0.01


def test_the_unconditional_bound_on_the_test_risk_is_the_tighter_one():
    """Which is why `experiments.figures.certified_gaps` draws it."""
    table = recorded_certificates()
    assert (table["test_bound_unconditional"] <= table["test_bound_monotone"]).all()
