"""Progress in lines, for a run without a terminal: about one line a minute.

A bar is redrawn, which a file or a pipe cannot do. There a line says what is done, how fast, and
what is left. It comes between parts, or from a thread while one part runs for long. All bars of one
console share that line: those of a study's parts, and of the steps of the part that runs now.
"""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections.abc import Callable

from rich.console import Console
from rich.progress import Progress, Task

EVERY = 60.0
"""Seconds between two lines, at least."""


def duration(seconds: float) -> str:
    """Words for a time: seconds, minutes, hours or days."""
    for limit, size, unit in ((100, 1, "s"), (100 * 60, 60, "min"), (72 * 3600, 3600, "h")):
        if seconds < limit:
            number = seconds / size
            return f"{number:.0f} {unit}" if unit != "h" else f"{number:.1f} h"
    return f"{seconds / 86400:.1f} days"


def rate(per_second: float) -> str:
    """Words for a rate, in the unit of time in which it is at least 1, but at most an hour."""
    for seconds, unit in ((1, "second"), (60, "minute"), (3600, "hour")):
        if per_second * seconds >= 1 or unit == "hour":
            article = "an" if unit == "hour" else "a"
            return f"{per_second * seconds:.1f} {article} {unit}"
    raise AssertionError("the last unit takes every rate")


def told(task: Task) -> str:
    """Words for a bar's task: done of total, rate and time left, and its description.

    The rate is over the time since the task began, or began anew. The field
    ``begun`` states how much was done then, ``unit`` what is counted.
    """
    total, unit = int(task.total or 0), task.fields.get("unit", "")
    words = f"{int(task.completed):,} of {total:,} {unit}".rstrip()
    done, elapsed = task.completed - task.fields.get("begun", 0), task.elapsed or 0.0
    if done > 0 and elapsed > 0:
        speed = done / elapsed
        left = duration(math.ceil((total - task.completed) / speed))
        words += f" ({rate(speed)}, {left} left)"
    description = task.description if task.description != unit else ""
    return f"{words}, {description}" if description else words


class Lines:
    """The line of one console. A thread runs while there are bars, and ends with the last one."""

    def __init__(
        self, on: Console, *, every: float = EVERY, clock: Callable[[], float] = time.monotonic
    ):
        self._console, self._every, self._clock = on, every, clock
        self._bars: list[Progress] = []
        self._lock = threading.Lock()
        self._last = -math.inf
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, bar: Progress) -> None:
        """Tell of a bar's tasks from now on."""
        with self._lock:
            if not self._bars:
                self._begin()
            self._bars.append(bar)

    def remove(self, bar: Progress) -> None:
        """Tell of a bar no longer."""
        with self._lock:
            if bar in self._bars:
                self._bars.remove(bar)
            thread = None if self._bars else self._thread
        if thread is not None:
            self._ended.set()
            thread.join()
            self._thread = None

    def tell(self) -> None:
        """Print the line, unless less than a minute has passed since the last one."""
        with self._lock:
            tasks = [task for bar in self._bars for task in bar.tasks]
            if not tasks or self._clock() - self._last < self._every:
                return
            self._last = self._clock()
            line = "; ".join(map(told, tasks))
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _begin(self) -> None:
        self._last, self._ended = -math.inf, threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._ended,), name="progress in lines", daemon=True
        )
        self._thread.start()

    def _run(self, ended: threading.Event) -> None:
        while not ended.wait(self._every):
            self.tell()


_LINES: weakref.WeakKeyDictionary[Console, Lines] = weakref.WeakKeyDictionary()


def lines_on(console: Console) -> Lines:
    """The line of a console: the same for all of its bars."""
    return _LINES.setdefault(console, Lines(console))
