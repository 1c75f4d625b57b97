"""The terminal: one console for all messages, and one kind of progress bar.

Where the console is no terminal, a bar is told in lines instead, see `experiments.engine.lines`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from experiments.engine.lines import lines_on
from experiments.engine.plain import PlainConsole

console = PlainConsole()


class ProgressBar(Progress):
    """A bar on a terminal; elsewhere its tasks are told in lines."""

    def start(self) -> None:
        """Show the bar, or begin to tell of it."""
        if self.disable or self.console.is_terminal:
            super().start()
        else:
            lines_on(self.console).add(self)

    def begin_anew(self, task: TaskID, *, completed: int) -> None:
        """Measure the rate from now on, when so many are done."""
        unit = self.tasks[self.task_ids.index(task)].fields.get("unit", "")
        self.reset(task, completed=completed, begun=completed, unit=unit)

    def stop(self) -> None:
        """Show the bar no longer, or end to tell of it."""
        if self.disable or self.console.is_terminal:
            super().stop()
        else:
            lines_on(self.console).remove(self)


def progress_bar(
    on: Console = console, *, disable: bool = False, transient: bool = False
) -> ProgressBar:
    """A progress bar: description, bar, number done, time elapsed, time left.

    The field ``unit`` of a task names what it counts, for lines.

    Args:
      on: the console that shows it.
      disable: show nothing.
      transient: remove the bar when it is stopped.
    """
    return ProgressBar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=on,
        disable=disable,
        transient=transient,
    )


@contextlib.contextmanager
def counting(
    description: str, total: int, unit: str, *, on: Console = console
) -> Iterator[Callable[[int], None]]:
    """Show a bar while something is counted, and remove it at the end.

    Args:
      description: what is done.
      total: how many there are to count.
      unit: name of what is counted.
      on: the console that shows it.

    Yields:
      A function that takes the number of them that were done since its last call.
    """
    with progress_bar(on, transient=True) as bar:
        task = bar.add_task(description, total=total, unit=unit)

        def advance(count: int) -> None:
            bar.advance(task, count)
            lines_on(on).tell()

        yield advance
