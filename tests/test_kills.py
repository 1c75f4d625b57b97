"""A short campaign of `tests.kills`: what is ended at a random moment loses and changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signals", "scenarios", "number"),
    # Certifications and fine-tunings, which take minutes, are in the long campaign; tests of their
    # own interrupt each.
    [("KILL", "sweep export", 4), ("INT TERM", "sweep export", 4)],
)
def test_what_is_ended_at_any_moment_carries_on_to_the_same(signals, scenarios, number, tmp_path):
    command = [
        *(sys.executable, "-m", "tests.kills", "--number", str(number), "--seed", "1"),
        *("--signals", *signals.split(), "--scenarios", *scenarios.split()),
        *("--out", str(tmp_path / "rows.json")),
    ]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert sum(not row["has_ended_before"] for row in rows) >= number // 2
