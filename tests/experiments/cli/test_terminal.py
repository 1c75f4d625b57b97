"""What commands print, on terminals that are narrow, or that cannot show every character."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.cli import terminal
from experiments.engine.plain import PlainConsole
from experiments.recipes import RECIPES

COLUMNS = ("recipe", "data sizes", "what it shows")
ROWS = (
    ("parity-scratchpad", "16 64 256 1024", "a long sentence of many short words"),
    ("[/b]", 3, "[red]:smile:"),
)


def shown(width: int, monkeypatch) -> str:
    """The table on a terminal of this width."""
    console = PlainConsole(file=io.StringIO(), force_terminal=True, color_system=None, width=width)
    monkeypatch.setattr(terminal, "console", console)
    terminal.print_rows(COLUMNS, ROWS)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", range(20, 100, 4))
def test_a_table_is_whole_at_every_width(monkeypatch, width):
    text = shown(width, monkeypatch)
    assert max(map(len, text.splitlines())) <= width
    for word in " ".join(str(cell) for row in (COLUMNS, *ROWS) for cell in row).split():
        assert word in text


def test_rows_are_blocks_where_a_table_does_not_fit(monkeypatch):
    lines = shown(40, monkeypatch).splitlines()
    assert "recipe: parity-scratchpad" in [line.strip() for line in lines]
    assert "recipe" in shown(80, monkeypatch).splitlines()[1].split()


def run(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "experiments", *arguments],
        cwd=Path(__file__).parents[3],
        env=os.environ | environment,
        capture_output=True,
        encoding="ascii",
        check=False,
    )


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["ioencoding", "locale"],
)
def test_a_terminal_of_ascii_is_served(environment):
    done = run(["list"], **environment)
    assert done.returncode == 0, done.stderr
    for recipe in RECIPES:
        assert recipe in done.stdout
    done = run(["run", "tradeöff"], **environment)
    assert done.returncode == 2
    assert "got 'trade" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    done = run(["llm", "scan", "--help"], **environment)
    assert done.returncode == 0, done.stderr
