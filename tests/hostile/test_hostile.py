"""A few hostile files of every kind; `make hostile` attacks with a thousand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.attacks import SHARES


@pytest.mark.slow
def test_forty_hostile_files_are_read_or_refused_with_one_line():
    pytest.importorskip("datasets", reason="pip install 'sweetspot[llm]'")
    # In a process that has not started JAX's backend, because it forks.
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile", "--number", "40", "--seed", "1"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout
    for kind in SHARES:
        assert kind in done.stdout
