"""The console: text is printed as it is, and lines are broken for terminals alone."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from experiments.engine.plain import PlainConsole
from experiments.engine.progress import progress_bar

HOSTILE = "runs/[/b][red]x[/red]:smile:/[bold]"


def terminal(width: int) -> PlainConsole:
    """A console that takes a buffer for a terminal."""
    return PlainConsole(file=io.StringIO(), force_terminal=True, color_system=None, width=width)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_text_is_printed_as_it_is():
    console = terminal(80)
    console.print(f"Table: {HOSTILE}")
    assert printed(console) == f"Table: {HOSTILE}\n"


def test_a_status_and_a_bar_show_text_as_it_is():
    console = terminal(200)
    with console.status(f"Asking {HOSTILE}"):
        pass
    assert f"Asking {HOSTILE}" in printed(console)
    console = terminal(200)
    with progress_bar(console) as bar:
        bar.add_task(HOSTILE, total=1)
    assert HOSTILE in printed(console)


def test_sentences_are_broken_and_paths_are_not():
    console = terminal(20)
    console.print("word " * 10)
    assert max(map(len, printed(console).splitlines())) <= 20
    console = terminal(20)
    path = "a/long/path/of/a/run/directory/table.parquet"
    console.print(f"Table: {path}")
    assert path in printed(console)


@pytest.mark.parametrize(("columns", "lines"), [(None, 1), ("40", 25)])
def test_a_file_has_no_edge(monkeypatch, columns, lines):
    """COLUMNS gives it one."""
    environment = {} if columns is None else {"COLUMNS": columns}
    console = PlainConsole(file=io.StringIO(), _environ=environment)
    console.print("word " * 200)
    assert len(printed(console).splitlines()) == lines


def test_no_message_is_written_in_markup():
    """The console would print it as it is."""
    sources = [*(Path(__file__).parents[3] / "experiments").rglob("*.py")]
    assert len(sources) > 100
    for path in sources:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\[/(bold|red|yellow|green|dim)?\]\"", text), path
