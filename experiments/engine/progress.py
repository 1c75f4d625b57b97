"""The terminal: one console for all messages, and one kind of progress bar."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console()


def progress_bar(
    on: Console = console, *, disable: bool = False, transient: bool = False
) -> Progress:
    """A progress bar: description, bar, number done, time elapsed, time left.

    Args:
      on: the console that shows it.
      disable: show nothing.
      transient: remove the bar when it is stopped.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=on,
        disable=disable,
        transient=transient,
    )
