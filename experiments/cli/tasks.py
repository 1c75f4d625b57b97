"""The commands ``sweetspot tasks …``: list tasks, show them, export one as a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
import tyro

from experiments.engine.progress import console
from experiments.igsm.config import DEFAULT_EXPORT, ExportConfig
from experiments.igsm.export import export_igsm
from experiments.pages.gallery import write_gallery
from synth.task import Mixture, pool
from synth.tasks import TASKS, make_task

Positional = tyro.conf.Positional


def list_tasks(name: Positional[str | None] = None, difficulty: int = 3, examples: int = 2) -> None:
    """List tasks, with examples as text and the number of distinct problems.

    Args:
      name: one task (or module:attribute); default all.
      difficulty: level of the examples.
      examples: how many to show.
    """
    for each in [name] if name else list(TASKS):
        task = make_task(each)
        drawn = pool(task, jax.random.key(0), Mixture.exact(difficulty), examples)
        size = task.log_num_problems(difficulty)
        problems = "unknown" if size is None else f"10^{size / np.log(10):.1f}"
        console.print(
            f"[bold]{each}[/bold]: difficulty 1 to {task.hardest}, {len(task.vocabulary)} token "
            f"ids; at difficulty {difficulty} up to {task.max_length(difficulty)} tokens, "
            f"{problems} distinct problems"
        )
        for tokens in np.asarray(drawn.tokens):
            console.print(f"  {task.decode(tokens)}", highlight=False, markup=False)


def export_task(
    family: Positional[Literal["igsm"]],
    out: Path,
    processes: int = 1,
    config: Annotated[ExportConfig, tyro.conf.arg(name="")] = DEFAULT_EXPORT,
) -> None:
    """Export a task as chats that `datasets.load_dataset` reads, or carry on with an export.

    Args:
      family: which task.
      out: directory of the data set; new, empty, or holding the same export.
      processes: how many draw and verify; the rows do not depend on it.
      config: what is exported.
    """
    del family
    manifest = export_igsm(config, out, processes=processes, console=console)
    rows = sum(entry["rows"] for entry in manifest["files"].values())
    repeated = sum(entry.get("in_training", 0) for entry in manifest["files"].values())
    console.print(
        f"{rows:,} problems in {len(manifest['files'])} files; {repeated} test problems occur in "
        f"training. Read {out / 'README.md'} for how to load them.",
        highlight=False,
    )


def show_gallery(
    out: Path = Path("gallery.html"),
    results: tuple[Path, ...] = (),
    names: tuple[str, ...] = tuple(TASKS),
) -> None:
    """Write one self-contained HTML page that shows every task, with examples and accuracies.

    Args:
      out: the page.
      results: recorded runs, or tables of `sweetspot compare`, to take accuracies from.
      names: tasks to show; default all.
    """
    with console.status("Drawing examples …") as status:
        path = write_gallery(
            out, names, results, report=lambda name: status.update(f"Drawing {name} …")
        )
    console.print(str(path))
