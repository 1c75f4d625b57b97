"""Commands on tasks: ``sweetspot tasks [NAME]`` lists them, ``tasks export``, ``tasks gallery``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.text import Text

from experiments.cli.arguments import (
    Directory,
    Positional,
    ResultsFlags,
    RunDirectories,
    several_directories,
)
from experiments.cli.plan import NO_PLAN, Planning
from experiments.cli.terminal import print_named
from experiments.engine.progress import console
from experiments.errors import refusing
from experiments.igsm.config import DEFAULT_EXPORT, ExportConfig
from synth.arguments import check_whole
from synth.tasks import TASKS, make_task

MOST_EXAMPLES = 1000
"""Examples of a task that are printed, at most."""


def export_task(
    family: Positional[Literal["igsm"]],
    out: Directory,
    processes: int = 1,
    config: Annotated[ExportConfig, tyro.conf.arg(name="")] = DEFAULT_EXPORT,
    planning: Planning = NO_PLAN,
) -> Path:
    """Export a task as chats that `datasets.load_dataset` reads, or carry on with an export.

    Args:
      family: which task.
      out: directory of the data set; new, empty, or holding the same export.
      processes: how many draw and verify; the rows do not depend on it.
      config: what is exported.
      planning: print what it takes instead.

    Returns:
      The directory.
    """
    from experiments.igsm.export import Export, export_igsm

    del family
    if planning.is_asked:
        planning.show(Export(config, out, processes=processes))
        return out
    files = export_igsm(config, out, processes=processes)["files"].values()
    rows = sum(file["rows"] for file in files)
    repeated = sum(file.get("in_training", 0) for file in files)
    console.print(
        f"{rows:,} problems in {len(files)} files; {repeated} test problems occur in training. "
        f"Read {out / 'README.md'} for how to load them."
    )
    return out


def show_gallery(
    directories: RunDirectories = (),
    out: Path = Path("gallery.html"),
    results: ResultsFlags = (),
    names: tuple[str, ...] = tuple(TASKS),
) -> Path:
    """Write one self-contained HTML page that shows every task, with examples and accuracies.

    Args:
      directories: recorded runs, or tables of `sweetspot compare`, to take accuracies from.
      out: the page.
      results: the same directories, as a flag.
      names: tasks to show; default all.

    Returns:
      The page.
    """
    from experiments.pages.gallery import write_gallery

    results = tuple(several_directories(directories, results, least=0))
    subject = " ".join(map(str, results)) or "the gallery"
    with console.status("Drawing examples …") as status, refusing(subject):
        path = write_gallery(
            out, names, results, report=lambda name: status.update(Text(f"Drawing {name} …"))
        )
    console.print(str(path))
    return path


Command = Annotated[
    Annotated[Any, tyro.conf.subcommand("export", constructor=export_task)]
    | Annotated[Any, tyro.conf.subcommand("gallery", constructor=show_gallery)]
    | Annotated[None, tyro.conf.subcommand("list", default=None)],
    tyro.conf.arg(name=""),
    # `list` is only the default (None), so it must not be offered as a word to type.
    tyro.conf.DisallowNone,
]
"""Path that one of the subcommands of ``tasks`` wrote; None if the command line names none."""


def tasks(
    name: Annotated[Positional[str | None], tyro.conf.arg(metavar="[TASK]")] = None,
    difficulty: int = 3,
    examples: int = 2,
    command: Command = None,
) -> None:
    """List tasks, with examples as text and the number of distinct problems.

    Its subcommands export a task as a data set, and show all tasks on one page.

    Args:
      name: one task (or module:attribute); default all.
      difficulty: level of the examples.
      examples: how many to show.
    """
    if command is not None:
        return  # tyro calls a subcommand for its value, before this function: it has run.
    import jax
    import numpy as np

    from synth.task import Mixture, pool

    check_whole("difficulty", difficulty, 1)
    check_whole("examples", examples, 1, MOST_EXAMPLES)
    names = [name] if name else list(TASKS)
    made = [make_task(each) for each in names]
    # Each task's draw is compiled the first time, which takes a second: several at once.
    with ThreadPoolExecutor() as threads:
        pools = threads.map(
            lambda task: pool(task, jax.random.key(0), Mixture.exact(difficulty), examples), made
        )
    for each, task, drawn in zip(names, made, pools, strict=True):
        size = task.log_num_problems(difficulty)
        problems = "unknown" if size is None else f"10^{size / np.log(10):.1f}"
        print_named(
            each,
            f"difficulty 1 to {task.hardest}, {len(task.vocabulary)} token "
            f"ids; at difficulty {difficulty} up to {task.max_length(difficulty)} tokens, "
            f"{problems} distinct problems",
        )
        for tokens in np.asarray(drawn.tokens):
            console.print(f"  {task.decode(tokens)}")
