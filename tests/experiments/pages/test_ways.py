"""The comparison of ways of training, from the recorded scan's own answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.pages.documents import SMOLLM2_IGSM
from experiments.pages.ways import DFT, ways
from experiments.storage.results import read_manifest, read_tables, write_json, write_parquet

CELL = {"difficulties": [6], "data_sizes": [48]}


def as_other(directory: Path, *, right: float | None = None, has_other_base: bool = False) -> Path:
    """Make a scan of one cell out of the recorded one.

    Args:
      directory: to write it to.
      right: share of level 1 that its members get right in place of theirs.
      has_other_base: whether its base gave other answers than the recorded one.
    """
    table = read_tables(SMOLLM2_IGSM, "answers")["answers"]
    is_base = table["train_mixture"] == "none"
    is_cell = (table["difficulty"] == 6) & (table["data_size"] == 48)
    own = table.loc[is_base | (is_cell & (table["train_mixture"] == "exact"))].copy()
    own.loc[own["train_mixture"] != "none", "loss"] = "dft"
    if right is not None:
        own.loc[(own["loss"] == "dft") & (own["slice"] == 1), "correct"] = right
    write_parquet(directory / "answers.parquet", own)
    manifest = read_manifest(SMOLLM2_IGSM)
    manifest["config"] |= CELL
    manifest["chunks"] = manifest["chunks"][:3]
    manifest["sessions"] = [manifest["sessions"][-1] | {"wall_time_seconds": 720}]
    if has_other_base:
        manifest["fingerprints"]["base"]["responses/base.parquet"] = "other"
    # The tables' fingerprints are those of the recorded scan.
    write_json(directory / "manifest.json", {**manifest, "tables": {}})
    return directory


def test_the_same_answers_differ_by_nothing(tmp_path):
    told = ways(SMOLLM2_IGSM, {DFT: as_other(tmp_path)})
    assert told.startswith("Exactly 6 operations at n = 48, 3 seeds. Their bases give the same")
    assert "| DFT of all weights | +0.0 [+0.0, +0.0] | +0.0 [+0.0, +0.0] | +0.0" in told
    # The cell of the recorded scan, as its own table tells it.
    assert "| SFT of all weights | +0.5 [-6.7, +7.7] |" in told
    assert "- (4) DFT loses less than SFT on one and two operations: cannot be told." in told
    # No adapters, no word about them.
    assert "(6)" not in told
    assert "4.0 minutes a member by DFT of all weights" in told


def test_what_differs_is_told_by_level(tmp_path):
    told = ways(SMOLLM2_IGSM, {DFT: as_other(tmp_path, right=0.0, has_other_base=True)})
    assert "Their bases give other answers" in told
    row = next(line for line in told.splitlines()[8:] if line.startswith("| DFT"))
    # Ten of twenty problems of levels 1 and 2, ten of thirty of levels 1 to 3, none of 4 and 5.
    assert "| -50.0 [-50.0, -50.0] | -33.3 [-33.3, -33.3] | +0.0 [+0.0, +0.0] |" in row
    assert "on one and two operations: fails." in told


def test_other_test_problems_are_refused(tmp_path):
    manifest = read_manifest(as_other(tmp_path))
    manifest["data"]["test"] = "others"
    write_json(tmp_path / "manifest.json", manifest)
    with pytest.raises(ValueError, match="must have the test problems of smollm2-igsm"):
        ways(SMOLLM2_IGSM, {DFT: tmp_path})
