"""Start-up: help and the list of recipes load no library that only a running command needs."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.llm.recipes import RECIPES as SCANS
from experiments.recipes import RECIPES

HEAVY = {
    *("jax", "jaxlib", "flax", "optax", "orbax", "transformers", "datasets"),
    *("scipy", "pandas", "pyarrow", "seaborn", "matplotlib"),
}
COMMANDS = (
    *("", "run", *(f"run {name}" for name in (*RECIPES, "custom"))),
    *("bound", "recommend", "regret", "compare", "figures", "report", "paper", "claims"),
    "completion",
    *("tasks", "tasks export", "tasks gallery"),
    *("llm", "llm prepare", "llm difficulty", "llm finetune", "llm evaluate", "llm recommend"),
    *("llm bound", "llm scan", *(f"llm scan {name}" for name in (*SCANS, "custom"))),
)
HELP = ("--help", "--help-all")
LINES = ["list", "llm", "--version", *(f"{name} {each}" for name in COMMANDS for each in HELP)]
SCRIPT = f"""
import contextlib, io, sys
from experiments.__main__ import main
for line in {LINES}:
    sys.argv = ["sweetspot", *line.split()]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            main()
        except SystemExit as stop:
            assert not stop.code, (line, printed.getvalue())
    assert printed.getvalue() or line == "list", line
    loaded = {HEAVY} & set(sys.modules)
    assert not loaded, (line, sorted(loaded))
"""


def test_help_and_list_load_no_heavy_library():
    """One fresh interpreter runs them all, and looks after each."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _processor_time(*arguments: str) -> float:
    """Seconds of a fresh interpreter: the least of three, as other work makes some slower."""
    root, times = Path(__file__).parents[3], []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], cwd=root, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


@pytest.fixture(scope="module")
def imports():
    """Seconds to import what every command line needs, on this machine at this time."""
    return _processor_time("-c", "import numpy, rich.table, tyro")


@pytest.mark.parametrize("line", ["list", "--help", "run tradeoff --help-all", "llm scan --help"])
def test_start_takes_at_most_four_times_its_imports(line, imports):
    # Measured: 2.2 to 2.8 times. To import JAX as well would add 3.4.
    assert _processor_time("-m", "experiments", *line.split()) <= 4 * imports
