"""The command line: the tree of its commands, and one line for an error that explains itself.

A command is a function, whose signature tyro turns into flags. Its module imports configurations
alone. The function imports the rest when it runs, so that ``--help`` need not wait for JAX.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

import tyro
from rich.console import Console
from tyro.extras import SubcommandApp

from experiments import distribution
from experiments.cli import finetune, llm, pages, paper, selecting, settings, studies, tasks
from experiments.cli.arguments import REGISTRY, Positional, check_given_once
from experiments.cli.help import (
    HELP,
    HELP_ALL,
    MAIN_FLAGS,
    broken_between_words,
    shortened,
)
from experiments.cli.presets import asked_for
from experiments.cli.terminal import replace_what_cannot_be_printed
from experiments.engine.progress import console
from experiments.errors import ExpectedError
from experiments.llm.recipes import RECIPES as SCANS
from experiments.llm.scan.grid import ScanConfig
from experiments.recipes import RECIPES
from experiments.sweep.grid import SweepConfig
from synth.arguments import closest

MOST_CHARACTERS = 1024
"""Of one word of the command line: messages repeat it."""

EXPECTED = (ValueError, OSError, ImportError, ExpectedError)
"""Errors that say what is wrong: one line, and no traceback."""

MOST_IN_ERROR = 4000
"""Of an error, which may name a text of any length that came from a file."""

PROGRAM = "sweetspot"
COMPLETION = ("--tyro-print-completion", "--tyro-write-completion")
"""tyro's own flags, which only the whole tree understands."""

Shell = Literal["bash", "zsh", "fish", "tcsh"]
Command: TypeAlias = Callable[..., object]
Commands: TypeAlias = Mapping[str, "Command | Mapping[str, Command]"]


def commands(arguments: Sequence[str]) -> Commands:
    """Return all commands by name; the value of a group is its commands by name.

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
    return {
        "list": studies.list_recipes,
        "run": studies.run_command(asked_for(run_words, RECIPES, custom=SweepConfig())),
        "bound": studies.certify_cells,
        "recommend": studies.recommend_difficulty,
        "regret": studies.judge_rules,
        "compare": studies.compare_families,
        "figures": pages.draw_figures,
        "report": pages.write_report,
        "paper": paper.show_paper,
        "claims": paper.show_claims,
        "tasks": tasks.tasks,
        "llm": {
            "prepare": llm.prepare,
            "difficulty": llm.measure_difficulty,
            "finetune": finetune.finetune_checkpoint,
            "evaluate": llm.evaluate_checkpoint,
            "scan": llm.scan_command(asked_for(scan_words, SCANS, custom=ScanConfig())),
            "recommend": llm.recommend_for_checkpoint,
            "select": selecting.select_rows,
            "bound": llm.certify_problems,
        },
        "completion": print_completion,
    }


def print_completion(shell: Positional[Shell]) -> None:
    """Print a script that completes commands and flags: eval "$(sweetspot completion bash)".

    Args:
      shell: the shell that reads it.
    """
    _run_tree(commands([]), [COMPLETION[0], shell])


def run(arguments: Sequence[str]) -> None:
    """Run a command line.

    Args:
      arguments: its words, without the program's name.

    Raises:
      ValueError: if a command, recipe or preset is unknown, a flag is given twice, or a
        configuration file cannot be used; and whatever the command raises.
      SystemExit: after help, and where tyro cannot read the arguments.
    """
    if list(arguments) == ["--version"]:
        console.print(f"{PROGRAM} {distribution.version()}")
        return
    if arguments and arguments[0] in COMPLETION:
        _run_tree(commands([]), arguments)
        return
    check_given_once(arguments)
    shows_all = HELP_ALL in arguments
    files = settings.named_in(["--help" if word == HELP_ALL else word for word in arguments])
    tree, name, command, words = expanded(files)
    if command is None:
        _run_tree(tree, [*name.split(), "--help"])
    elif files.write is None or HELP & {*words}:
        _run_one(command, name, words, shows_all=shows_all)
    else:
        values = tyro.cli(
            settings.captured(command), prog=f"{PROGRAM} {name}", args=words, registry=REGISTRY
        )
        settings.write_settings(files.write, name, command, values)
        console.print(f"Configuration: {PROGRAM} {name} {settings.READ} {files.write}")


def expanded(files: settings.Files) -> tuple[Commands, str, Command | None, list[str]]:
    """Write what a configuration file states into a command line.

    Args:
      files: the command line and its configuration files.

    Returns:
      All commands; name of the command and itself, see `_command`; and its words.

    Raises:
      ValueError: if there is no such command, or it cannot be configured by the file.
    """
    words, stated = list(files.words), {}
    # The recipe that a file names decides which defaults flags have.
    if files.read is not None:
        stated = settings.read_settings(files.read)
        words = settings.command_words(stated, words, files.read)
    tree = commands(words)
    name, command = _command(tree, words)
    words = words[len(name.split()) :]
    if files.read is None and files.write is None:
        return tree, name, command, words
    if command is None or name not in MAIN_FLAGS:
        raise ValueError(
            f"{settings.READ} and {settings.WRITE} need one of the commands {[*MAIN_FLAGS]}, "
            f"got {name!r}"
        )
    if files.read is not None:
        words += settings.stated_words(stated, command, words, files.read)
    return tree, name, command, words


def _command(tree: Commands, words: Sequence[str]) -> tuple[str, Command | None]:
    """Return the name of the command and itself; None if help of the program or a group is asked.

    Raises:
      ValueError: if there is no such command.
    """
    if not words or words[0] in HELP:
        return "", None
    _check_command("command", words[0], tree)
    command = tree[words[0]]
    if not isinstance(command, Mapping):
        return words[0], command
    if len(words) == 1 or words[1] in HELP:
        return words[0], None
    _check_command(f"command of {words[0]}", words[1], command)
    return f"{words[0]} {words[1]}", command[words[1]]


def _check_command(what: str, word: str, known: Mapping[str, object]) -> None:
    if word not in known:
        raise ValueError(f"{what} must be one of {[*known]}, got {word!r}{closest(word, known)}")


def _run_tree(tree: Commands, words: Sequence[str]) -> None:
    """Run the whole tree by tyro: for help of the program or a group, and for completion."""
    app = SubcommandApp()
    for name, command in tree.items():
        if not isinstance(command, Mapping):
            app.command(name=name)(command)
            continue
        group = SubcommandApp()
        for inner, function in command.items():
            group.command(name=inner)(function)
        app.command(group, name=name, help="Commands of the study on a real checkpoint.")
    app.cli(prog=PROGRAM, args=words, registry=REGISTRY)


def _run_one(command: Command, name: str, words: Sequence[str], *, shows_all: bool) -> None:
    """Run one command; the flags that an error suggests are its own."""
    main = MAIN_FLAGS.get(name)
    if not HELP & {*words}:
        tyro.cli(command, prog=f"{PROGRAM} {name}", args=words, registry=REGISTRY)
        return
    is_short = main is not None and not shows_all
    if main is not None:
        # Words that stand for an argument would take it out of the help.
        words = ["--help"]
    shown = shortened(command, main) if is_short and main else command
    try:
        with broken_between_words():
            tyro.cli(shown, prog=f"{PROGRAM} {name}", args=words, registry=REGISTRY)
    finally:
        if main is not None and shows_all:
            console.print(
                f"{settings.READ} FILE reads flags from YAML; {settings.WRITE} FILE writes them "
                f"all and runs nothing."
            )
        if is_short:
            console.print(f"These are the main flags: {PROGRAM} {name} {HELP_ALL} shows all.")


def main() -> None:
    """Run the command ``sweetspot``: errors that explain themselves end with exit code 2."""
    replace_what_cannot_be_printed()
    try:
        for word in sys.argv[1:]:
            if len(word) > MOST_CHARACTERS:
                raise ValueError(
                    f"a word of the command line must have at most {MOST_CHARACTERS} characters, "
                    f"got {len(word)} that begin with {word[:40]!r}"
                )
        run(sys.argv[1:])
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
    """The text of an error without line breaks and control characters, and of readable length."""
    line = " ".join(str(error).split()) or type(error).__name__
    shown = line if len(line) <= MOST_IN_ERROR else f"{line[:MOST_IN_ERROR]}…"
    return "".join(character if character.isprintable() else "?" for character in shown)
