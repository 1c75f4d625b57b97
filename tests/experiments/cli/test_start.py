"""Start-up: help and the list of recipes load no library that only a running command needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from experiments.llm.recipes import RECIPES as SCANS
from experiments.recipes import RECIPES

HEAVY = {
    *("jax", "jaxlib", "flax", "optax", "orbax", "transformers", "datasets"),
    *("scipy", "pandas", "pyarrow", "seaborn", "matplotlib"),
}
COMMANDS = (
    *("", "run", *(f"run {name}" for name in (*RECIPES, "custom"))),
    *("bound", "recommend", "regret", "compare", "figures", "report"),
    *("tasks", "tasks export", "tasks gallery"),
    *("llm", "llm prepare", "llm difficulty", "llm finetune", "llm evaluate", "llm recommend"),
    *("llm bound", "llm scan", *(f"llm scan {name}" for name in (*SCANS, "custom"))),
)
SCRIPT = f"""
import contextlib, io, sys
from experiments.__main__ import main
for line in {["list", "llm", *(f"{command} --help" for command in COMMANDS)]}:
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
