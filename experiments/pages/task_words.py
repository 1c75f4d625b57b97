"""Explain the task of a run to a reader who has not seen it: its words and one example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup


def task_words(config: Any) -> dict[str, Any] | None:
    """Title and text of a sweep's task, and an example of it.

    None if the configuration states no task that we know: a task by import path would run the code
    that a file names, and a scan of a real checkpoint has its problems in a data set.

    Args:
      config: of the run, as its manifest states it; anything may stand there.

    Returns:
      title; text, its paragraphs, of which the first names the knob; difficulty, problem and
      solution of the example.
    """
    from synth.tasks import TASKS

    name = config.get("task") if isinstance(config, Mapping) else None
    if not isinstance(name, str) or name not in TASKS:
        return None
    # Imported here, since drawing an example needs JAX and other pages do not.
    from experiments.pages.gallery import description, example
    from synth.tasks import make_task

    try:
        hardest = int(config.get("test_hardest", 0)) or None
        task = make_task(name, config.get("task_options") or {}, hardest=hardest)
    except (TypeError, ValueError):
        return None
    difficulty = min(3, task.hardest)
    title, text = description(task)
    first, _, _ = text.partition("\n")
    shown = example(task, difficulty)
    return {
        "title": title,
        "text": Markup(first),
        "difficulty": shown.difficulty,
        "problem": shown.problem,
        "solution": shown.solution,
    }
