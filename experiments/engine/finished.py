"""Finished parts of a study, as they are on disk, and the tables that their rows make."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from experiments.engine.study import Output, Part, Study
from experiments.storage.results import Run, read_parquet, write_parquet

Tables = dict[str, pd.DataFrame]


class FinishedParts:
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
