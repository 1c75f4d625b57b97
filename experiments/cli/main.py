"""The command line: the tree of its commands, and one line for an error that explains itself.

A command is a function, whose signature tyro turns into flags. Its module imports configurations
alone. The function imports the rest when it runs, so that ``--help`` need not wait for JAX.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from rich.text import Text
from tyro.extras import SubcommandApp

from experiments.cli import llm, pages, studies, tasks
from experiments.cli.presets import asked_for
from experiments.cli.terminal import replace_what_cannot_be_printed
from experiments.engine.progress import console
from experiments.errors import ExpectedError
from experiments.llm.recipes import RECIPES as SCANS
from experiments.llm.scan.grid import ScanConfig
from experiments.recipes import RECIPES
from experiments.sweep.grid import SweepConfig

EXPECTED = (ValueError, OSError, ImportError, ExpectedError)
"""Errors that say what is wrong: one line, and no traceback."""


def command_tree(arguments: Sequence[str]) -> SubcommandApp:
    """Return the tree of all commands.

    Args:
      arguments: the command line. It decides which recipe's preset gives flags their defaults.

    Raises:
      ValueError: if a recipe or preset is unknown.
    """
    run_words, scan_words = [], []
    match arguments:
        case ["run", *words]:
            run_words = words
        case ["llm", "scan", *words]:
            scan_words = words
    on_checkpoints = _group(
        prepare=llm.prepare,
        difficulty=llm.measure_difficulty,
        finetune=llm.finetune_checkpoint,
        evaluate=llm.evaluate_checkpoint,
        scan=llm.scan_command(asked_for(scan_words, SCANS, custom=ScanConfig())),
        recommend=llm.recommend_for_checkpoint,
        bound=llm.certify_problems,
    )
    app = _group(
        list=studies.list_recipes,
        run=studies.run_command(asked_for(run_words, RECIPES, custom=SweepConfig())),
        bound=studies.certify_cells,
        recommend=studies.recommend_difficulty,
        regret=studies.judge_rules,
        compare=studies.compare_families,
        figures=pages.draw_figures,
        report=pages.write_report,
        tasks=tasks.tasks,
    )
    app.command(on_checkpoints, name="llm", help="Commands of the study on a real checkpoint.")

    @on_checkpoints.command(name="help", is_default=True)
    def show_help() -> None:
        """Show this help."""
        app.cli(prog="sweetspot", args=["llm", "--help"])

    return app


def _group(**commands: Callable[..., object]) -> SubcommandApp:
    """Return commands, each a function, under their names."""
    group = SubcommandApp()
    for name, command in commands.items():
        group.command(name=name)(command)
    return group


def main() -> None:
    """Run the command ``sweetspot``."""
    arguments = sys.argv[1:]
    replace_what_cannot_be_printed()
    try:
        command_tree(arguments).cli(prog="sweetspot", args=arguments)
    except EXPECTED as error:
        console.print(Text.assemble(("error:", "bold red"), f" {error}"))
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("Interrupted. A command with a run directory carries on when it is repeated.")
        sys.exit(130)
