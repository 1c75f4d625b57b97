"""Tables that several commands print."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.table import Column, Table
from rich.text import Text

from experiments.engine.progress import console

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


def replace_what_cannot_be_printed() -> None:
    """Print a question mark where the terminal's encoding lacks a character, such as ≤ in ASCII.

    Python would stop with an error instead, after the work is done.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def print_rows(columns: Iterable[Any], rows: Iterable[Iterable[Any]]) -> None:
    """Print a table: a header, and the text of each cell.

    Cells are broken between words. Where the terminal is too narrow for that, each row is a block
    with a line for each column: nothing is cut off.
    """
    columns, rows = [*map(str, columns)], [[*map(str, row)] for row in rows]
    widths = _column_widths([columns, *rows])
    if widths is None:
        for row in rows:
            console.print()
            for name, cell in zip(columns, row, strict=True):
                print_named(name, cell)
        return
    header = (Column(name, width=width) for name, width in zip(columns, widths, strict=True))
    table = Table(*header, box=box.SIMPLE)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _column_widths(rows: Sequence[Sequence[str]]) -> list[int] | None:
    """Widths of columns at which a table fits the terminal without a broken word, if there are any.

    Rich's own widths break words, and can add up to more than the terminal.
    """
    columns = [*zip(*rows, strict=True)]
    least = [
        max(cell_len(word) for cell in cells for word in ("-", *cell.split())) for cells in columns
    ]
    widths = [max(1, *map(cell_len, cells)) for cells in columns]
    # Around each column there are a space on either side and a rule, and one rule more at the end.
    available = console.width - 3 * len(columns) - 1
    if sum(least) > available:
        return None
    while sum(widths) > available:
        spare = [width - needed for width, needed in zip(widths, least, strict=True)]
        widest = max(range(len(widths)), key=lambda column: (spare[column] > 0, widths[column]))
        widths[widest] -= 1
    return widths


def print_named(name: str, text: object) -> None:
    """Print what is said of a thing after its name, which is bold."""
    console.print(Text.assemble((name, "bold"), f": {text}"))


def print_frame(frame: pd.DataFrame) -> None:
    """Print a small data frame, its numbers to three digits."""
    print_rows(
        frame.columns,
        (
            [f"{value:.3g}" if isinstance(value, float) else value for value in row]
            for row in frame.itertuples(index=False)
        ),
    )


def print_sentences(sentences: Iterable[str]) -> None:
    """Print sentences, each on a line."""
    for sentence in sentences:
        console.print(sentence)


def print_paths(paths: Iterable[Path]) -> None:
    """Print files that were written, each on a line."""
    for path in paths:
        console.print(str(path))


def print_headline(table: pd.DataFrame) -> None:
    """Print, for each study and data size, the best difficulty and the two gaps there."""
    from experiments.analysis import optimum
    from experiments.analysis.statistics import Interval
    from experiments.analysis.verdicts import verdict

    means = ("test_risk", *optimum.GAPS)
    for study in optimum.studies(table):
        _, said = verdict(optimum.shift(table, study))
        console.print()
        print_named(study.title, said)
        rows = []
        for row in optimum.optimum(table, study).to_dict("records"):
            gaps = [Interval(row[m], row[f"{m}_low"], row[f"{m}_high"]) for m in means]
            rows.append([row["data_size"], row["optimum"], row["best_difficulty"], *gaps])
        columns = ("test risk", "generalization gap", "extrapolation gap")
        print_rows(("n", "d*", "best d", *columns), rows)
    print_sentences(optimum.left_out(table))
    over = optimum.intervals_are_over(table)
    console.print(f"{over} d* is interpolated; ≥ or ≤: it may lie beyond the grid.")
