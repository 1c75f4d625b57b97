"""Run a study in its directory, or carry on with an interrupted run.

The steps are the same for every study:

1. open and lock the directory, and compare the study's identity with the manifest's;
2. read the rows of finished parts, and stop here if nothing is left;
3. stage by stage, make the missing parts. Each is written as soon as it is made, by one rename for
   each file, and the tables are put together anew, so that figures can be drawn meanwhile;
4. mark the end in the manifest.

An `Executor` decides where a part runs: in this process by default.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import pandas as pd
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from experiments.engine.progress import console, progress_bar
from experiments.engine.session import Session
from experiments.engine.study import Output, Part, Study
from experiments.storage.results import Run, open_run, read_parquet, write_parquet

Tables = dict[str, pd.DataFrame]
Executor: TypeAlias = Callable[
    [Study, Sequence[Part], Callable[[Part], None]], Iterator[tuple[Part, Output]]
]
"""Makes the parts of one stage. Called with the study, the parts, and a function to call as each
part starts; yields each part with its output as it ends."""


def in_this_process(
    study: Study, parts: Sequence[Part], started: Callable[[Part], None]
) -> Iterator[tuple[Part, Output]]:
    """Make parts one after the other, in this process."""
    for part in parts:
        started(part)
        yield part, study.make(part)


def run_study(
    study: Study,
    *,
    executor: Executor = in_this_process,
    max_parts: int | None = None,
    on: Console = console,
) -> Tables:
    """Run a study, or carry on with the one that is in its directory.

    Args:
      study: the study to run.
      executor: runs its parts.
      max_parts: parts of the last stage to make at most; the rest is left to a later call.
      on: the console that shows progress.

    Returns:
      Its tables by name, of the finished parts.

    Raises:
      ResultsError: if the directory cannot be used (see `experiments.storage.results.open_run`), or
        a finished part cannot be read.
      ValueError: see the study's `make`.
    """
    # Before the directory is made: some studies read their data for this.
    stages = [list(stage) for stage in study.stages()]
    with open_run(study.directory, study.identity, adopts=study.adopts) as run:
        finished = _FinishedParts(study, run, [part for stage in stages for part in stage])
        if finished.is_complete():
            on.print(f"{run.directory} is complete: nothing left to run.")
            return finished.read_tables()
        run.update_manifest(status="running")
        session = Session(run, on)
        with _Display(study, stages, finished, on) as display:
            for stage in stages:
                missing = [part for part in stage if not finished.has(part)]
                missing = missing[: max_parts if stage is stages[-1] else None]
                display.begin(stage)
                for part, output in executor(study, missing, display.started):
                    finished.keep(part, output)
                    study.kept(part)
                    session.save(**study.session_fields())
                    display.finished(part)
        if finished.has_all():
            finished.write_tables()
            run.update_manifest(status="complete", **study.record)
        return finished.tables


class _FinishedParts:
    """Finished parts of a study in its directory, and the tables that their rows make.

    Attributes:
      tables: the tables by name, of the finished parts, in the order of the plan.
    """

    def __init__(self, study: Study, run: Run, parts: Sequence[Part]):
        self._study, self._run, self._parts = study, run, parts
        self._names = list(dict.fromkeys(table for part in parts for table in part.tables))
        self._rows = {
            (part.name, table): read_parquet(path)
            for part in parts
            for table in part.tables
            if (path := run.part_path(part.file_name(table))).exists()
        }
        self.tables = self._put_together()

    def has_rows(self, part: Part) -> bool:
        """Return whether the rows of a part are there."""
        return all((part.name, table) in self._rows for table in part.tables)

    def has(self, part: Part) -> bool:
        """Return whether a part is finished: all its rows and files are there."""
        has_files = all(self._study.has_file(path) for path in part.files)
        return part.leaves_something and self.has_rows(part) and has_files

    def has_all(self) -> bool:
        """Return whether every part that leaves something is finished."""
        return all(self.has(part) for part in self._parts if part.leaves_something)

    def is_complete(self) -> bool:
        """Return whether nothing is left to do.

        A complete study whose tables are there stays complete if files that only its parts needed
        are deleted, such as bases. A directory under experiments/results is committed with its
        tables and without parts; it is complete all the same.
        """
        manifest = self._run.manifest
        # Through JSON, as the manifest was: tuples become lists.
        record = json.loads(json.dumps(self._study.record))
        if manifest["status"] != "complete" or record != {
            name: manifest.get(name) for name in record
        }:
            return False
        if not all(self._study.table_path(name).exists() for name in self._names):
            return False
        if not self._names:
            return self.has_all()
        is_committed = not (self._run.directory / "parts").exists()
        return is_committed or all(self.has_rows(part) for part in self._parts)

    def read_tables(self) -> Tables:
        """Read the tables as they are on disk."""
        return {name: read_parquet(self._study.table_path(name)) for name in self._names}

    def keep(self, part: Part, output: Output) -> None:
        """Write the output of a part; the rows of its first table come last and finish it.

        Until then everything is written again by the next session, fields of the manifest included.
        """
        for name, value in output.pins.items():
            self._run.pin(name, value)
        if output.manifest:
            self._run.update_manifest(**output.manifest)
        for path, write in output.files.items():
            write(self._run.directory / path)
        for table in reversed(part.tables):
            self._run.write_part(part.file_name(table), output.tables[table])
            path = self._run.part_path(part.file_name(table))
            self._rows[part.name, table] = read_parquet(path)
        if part.tables:
            self.tables = self._put_together()
        if part.tables and self._study.shows_progress and not self.has_all():
            self.write_tables()

    def write_tables(self) -> None:
        """Write the tables as they are put together."""
        for name, table in self.tables.items():
            write_parquet(self._study.table_path(name), table)

    def _put_together(self) -> Tables:
        tables: Tables = {}
        for name in self._names:
            rows = [self._rows.get((part.name, name)) for part in self._parts]
            if finished := [each for each in rows if each is not None]:
                tables[name] = pd.concat(finished, ignore_index=True)
        if self._names and self._names[0] in tables:
            tables[self._names[0]] = self._study.assembled(tables[self._names[0]])
        return tables


class _Display:
    """The progress of a run: a bar, and the study's note below it.

    Without a terminal nothing can be redrawn: a line is printed when a part starts.
    """

    def __init__(
        self, study: Study, stages: Sequence[Sequence[Part]], finished: _FinishedParts, on: Console
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

    def __enter__(self) -> _Display:
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
