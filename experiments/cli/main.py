"""The command line: the tree of its commands, and one line for an error that explains itself.

A command is a function, whose signature tyro turns into flags. Its module imports configurations
alone. The function imports the rest when it runs, so that ``--help`` need not wait for JAX.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from tyro.extras import SubcommandApp

from experiments.cli import llm, pages, studies, tasks
from experiments.cli.presets import asked_for
from experiments.cli.terminal import replace_what_cannot_be_printed
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
    """Run the command ``sweetspot``: errors that explain themselves end with exit code 2."""
    arguments = sys.argv[1:]
    replace_what_cannot_be_printed()
    try:
        command_tree(arguments).cli(prog="sweetspot", args=arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of a pipe, such as `head`, has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except EXPECTED as error:
        errors = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)
        errors.print("error:", style="bold red", end=" ")
        errors.print(_one_line(error))
        sys.exit(2)


def _one_line(error: BaseException) -> str:
    """The text of an error without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
