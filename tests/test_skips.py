"""A run that refuses skips: it fails where a broken extra would take tests away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import skips

ROOT = Path(__file__).parents[1]
BROKEN = """
import pytest
pytest.importorskip("no_such_package", reason="pip install it")
def test_nothing():
    pass
"""


def skipping(reason: str) -> str:
    """A file with a test that passes and one that is skipped."""
    return f"""
import pytest
def test_that_passes():
    pass
def test_that_is_skipped():
    pytest.skip({reason!r})
@pytest.mark.xfail
def test_that_fails_as_expected():
    assert False
"""


@pytest.mark.slow
@pytest.mark.parametrize("processes", [(), ("-n", "1")], ids=["alone", "xdist"])
@pytest.mark.parametrize(
    ("source", "options", "code"),
    [
        (skipping("the extra is broken"), ("--refuse-skips",), 1),
        (skipping("the extra is broken"), (), 0),
        (skipping("a text task is not compiled"), ("--refuse-skips",), 0),
        (skipping("the executor ray needs Ray"), ("--refuse-skips", "-m", "not slow"), 0),
        (skipping("the executor ray needs Ray"), ("--refuse-skips", "-m", "not other"), 1),
        (BROKEN, ("--refuse-skips",), 1),
    ],
)
def test_a_skip_that_is_not_expected_fails_the_run(tmp_path, source, options, code, processes):
    (tmp_path / "test_example.py").write_text(source + "\n\ndef test_last():\n    pass\n")
    (tmp_path / "test_other.py").write_text("def test_other():\n    pass\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.skips", *options, *processes],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert ("skipped, though tests/skips.py does not expect it" in done.stdout) == (code == 1)


def test_ci_refuses_skips():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    runs = [line for line in makefile.splitlines() if "-m pytest" in line]
    assert len(runs) == 2
    for line in runs:
        assert "--refuse-skips" in line


def test_every_expected_reason_is_still_used():
    sources = [path for path in (ROOT / "tests").rglob("test_*.py") if path.name != "test_skips.py"]
    texts = [path.read_text(encoding="utf-8") for path in sources]
    for reason in skips.EXPECTED:
        assert any(reason in text for text in texts), reason
