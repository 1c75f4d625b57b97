"""The commands ``sweetspot tasks …``: list them."""

from __future__ import annotations

import jax
import numpy as np
import tyro

from experiments.run import console
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
