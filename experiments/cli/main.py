"""The command line: the tree of its commands, and the end of those that fail.

A command is a function whose arguments tyro reads. Its module imports configurations alone; the
function imports what it needs when it runs, so that ``--help`` and ``list`` take no time.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from tyro.extras import SubcommandApp

from experiments.cli import llm, pages, studies, tasks
from experiments.cli.presets import asked_for
from experiments.engine.progress import console
from experiments.errors import ExpectedError
from experiments.llm.recipes import RECIPES as SCANS
from experiments.llm.scan.grid import ScanConfig
from experiments.recipes import RECIPES
from experiments.sweep.grid import SweepConfig

EXPECTED = (ValueError, OSError, ImportError, ExpectedError)
"""Errors that say what is wrong: one line, and no traceback."""


def commands(arguments: Sequence[str]) -> SubcommandApp:
    """Return the tree of commands.

    Args:
      arguments: the command line, whose recipe and preset are the defaults of other flags.

    Raises:
      ValueError: if they are unknown.
    """
    match arguments:
        case ["run", *rest]:
            swept, scanned = rest, []
        case ["llm", "scan", *rest]:
            swept, scanned = [], rest
        case _:
            swept, scanned = [], []
    on_checkpoints = {
        "prepare": llm.prepare,
        "difficulty": llm.measure_difficulty,
        "finetune": llm.finetune_checkpoint,
        "evaluate": llm.evaluate_checkpoint,
        "scan": llm.scan_command(asked_for(scanned, SCANS, custom=ScanConfig())),
        "recommend": llm.recommend_for_checkpoint,
        "bound": llm.certify_problems,
    }
    return _group(
        {
            "list": studies.list_recipes,
            "run": studies.run_command(asked_for(swept, RECIPES, custom=SweepConfig())),
            "bound": studies.certify_cells,
            "recommend": studies.recommend_difficulty,
            "regret": studies.judge_rules,
            "compare": studies.compare_families,
            "figures": pages.draw_figures,
            "report": pages.write_report,
            "tasks": tasks.tasks,
            "llm": _group(on_checkpoints, "llm", "The same study on a real checkpoint."),
        }
    )


def _group(commands: Mapping[str, Any], name: str = "", about: str = "") -> SubcommandApp:
    """Return commands as one; a group with a name shows its help if none of them is given."""
    group = SubcommandApp()
    group.__doc__ = about
    for word, command in commands.items():
        group.command(command, name=word)
    if name:

        @group.command(name="help", is_default=True)
        def show_help() -> None:
            """Show this help."""
            group.cli(prog=f"sweetspot {name}", description=about, args=["--help"])

    return group


def main() -> None:
    """Run the command ``sweetspot``."""
    arguments = sys.argv[1:]
    try:
        commands(arguments).cli(prog="sweetspot", args=arguments)
    except EXPECTED as error:
        # Escaped, so that rich keeps the brackets of "sweetspot[llm]".
        console.print(f"[bold red]error:[/bold red] {escape(str(error))}", highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("Interrupted; what keeps a run directory carries on with the same command.")
        sys.exit(130)
