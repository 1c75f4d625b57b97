"""The progress of a run on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from experiments.engine.finished import FinishedParts
from experiments.engine.progress import progress_bar
from experiments.engine.study import Part, Study


class Display:
    """The progress of a run: a bar, and the study's note below it.

    Without a terminal nothing can be redrawn: a line is printed when a part starts.
    """

    def __init__(
        self, study: Study, stages: Sequence[Sequence[Part]], finished: FinishedParts, on: Console
    ) -> None:
        self._study, self._finished, self._console = study, finished, on
        parts = [part for stage in stages for part in stage if part.leaves_something]
        self._progress = progress_bar(on)
        self._bar = self._progress.add_task(
            study.unit,
            total=sum(part.weight for part in parts),
            completed=sum(part.weight for part in parts if finished.has(part)),
        )
        self._live = Live(console=on, refresh_per_second=2) if on.is_terminal else None
        self._numbers: Mapping[str, int] = {}

    def __enter__(self) -> Display:
        if self._live:
            self._live.__enter__()
        self._redraw()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.__exit__(None, None, None)
        elif note := self._study.note(self._finished.tables):
            self._console.print(note, highlight=False, markup=False)

    def begin(self, stage: Sequence[Part]) -> None:
        """Number the parts of a stage."""
        self._numbers = {part.name: number for number, part in enumerate(stage, start=1)}

    def started(self, part: Part) -> None:
        """Show the title of the part that is made now."""
        if not part.title:
            return
        total = len(self._numbers)
        title = f"{self._numbers[part.name]} of {total}: {part.title}" if total > 1 else part.title
        if self._console.is_terminal:
            self._progress.update(self._bar, description=escape(title))
        else:
            self._console.print(title, highlight=False, markup=False)

    def finished(self, part: Part) -> None:
        """Advance the bar by a part."""
        if part.leaves_something:
            self._progress.advance(self._bar, part.weight)
        self._redraw()

    def _redraw(self) -> None:
        if self._live:
            note = self._study.note(self._finished.tables)
            self._live.update(Group(self._progress, *([Text(note)] if note else [])))
