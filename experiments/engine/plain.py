"""The console that all messages are printed on: text as it is."""

from __future__ import annotations

from typing import Any

from rich.console import Console, ConsoleDimensions, RenderableType
from rich.status import Status
from rich.text import Text

UNLIMITED_WIDTH = 100_000
"""Columns of an imagined terminal in which every table fits."""


class PlainConsole(Console):
    """A console that prints text as it is.

    Paths, names and messages hold whatever the user typed: ``[red]``, ``[/b]`` or ``:smile:`` in
    them is neither style nor emoji. What is to be styled says so: ``style=``, or a `Text`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    @property
    def size(self) -> ConsoleDimensions:
        """Size of the terminal. A file or another program has no edge to break lines at."""
        size = super().size
        if self._width is None and not self.is_terminal:
            return ConsoleDimensions(UNLIMITED_WIDTH, size.height)
        return size

    def print(self, *objects: Any, soft_wrap: bool | None = None, **options: Any) -> None:
        """Print as rich does; lines of text that must stay whole are not broken.

        These are lines with a word that is longer than the terminal is wide, such as a path that
        somebody wants to copy.
        """
        if soft_wrap is None and all(isinstance(each, str | Text) for each in objects):
            words = (word for each in objects for word in str(each).split())
            soft_wrap = max(map(len, words), default=0) > self.width
        super().print(*objects, soft_wrap=soft_wrap, **options)

    def status(self, status: RenderableType, **options: Any) -> Status:
        """A line with a spinner; rich would read its text as markup whatever the console says."""
        return super().status(Text(status) if isinstance(status, str) else status, **options)
