"""The progress of a run on the terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from experiments.engine.finished import FinishedParts
from experiments.engine.lines import duration, lines_on
from experiments.engine.progress import progress_bar
from experiments.engine.study import Part, Study


class Display:
    """The progress of a run: a bar, and the study's note below it.

    Without a terminal nothing can be redrawn: about once a minute a line says what is done, how
    fast, and what is left; the last one says how long it took.
    """

    def __init__(
        self, study: Study, stages: Sequence[Sequence[Part]], finished: FinishedParts, on: Console
    ) -> None:
        self._study, self._finished, self._console = study, finished, on
        parts = [part for stage in stages for part in stage if part.leaves_something]
        self._progress, self._lines = progress_bar(on), lines_on(on)
        done = sum(part.weight for part in parts if finished.has(part))
        self._bar = self._progress.add_task(
            study.unit,
            total=sum(part.weight for part in parts),
            completed=done,
            unit=study.unit,
            begun=done,
        )
        self._start, self._is_timed = time.monotonic(), False
        self._live = Live(console=on, refresh_per_second=2) if on.is_terminal else None
        self._numbers: Mapping[str, int] = {}

    def __enter__(self) -> Display:
        if self._live:
            self._live.__enter__()
        else:
            self._progress.start()
        self._redraw()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.__exit__(None, None, None)
            return
        self._progress.stop()
        (task,) = self._progress.tasks
        elapsed = duration(time.monotonic() - self._start)
        done = f"{int(task.completed):,} of {int(task.total or 0):,} {self._study.unit}"
        for line in (f"{done} are done after {elapsed}.", self._study.note(self._finished.tables)):
            if line:
                self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def begin(self, stage: Sequence[Part]) -> None:
        """Number the parts of a stage."""
        self._numbers = {part.name: number for number, part in enumerate(stage, start=1)}

    def started(self, part: Part) -> None:
        """Show the title of the part that is made now."""
        if part.weight and not self._is_timed:
            # What comes before, for example the training of bases, tells nothing of the rate.
            done, self._is_timed = self._progress.tasks[0].completed, True
            self._progress.begin_anew(self._bar, completed=int(done))
        if not part.title:
            return
        total = len(self._numbers)
        title = f"{self._numbers[part.name]} of {total}: {part.title}" if total > 1 else part.title
        self._progress.update(self._bar, description=title)
        if not self._console.is_terminal:
            self._lines.tell()

    def finished(self, part: Part) -> None:
        """Advance the bar by a part."""
        if part.leaves_something:
            self._progress.advance(self._bar, part.weight)
        self._redraw()

    def _redraw(self) -> None:
        if self._live:
            note = self._study.note(self._finished.tables)
            self._live.update(Group(self._progress, *([Text(note)] if note else [])))
