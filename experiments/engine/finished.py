"""Finished parts of a study, as they are on disk, and the tables that their rows make.

The manifest holds a fingerprint of every file of every finished part. When a directory is opened
again, a file that differs from its fingerprint is moved to ``damaged/``, and its part is made
anew. A file that has none yet gets one: a kill came between the file and the manifest, or an
earlier version wrote the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.engine.study import Output, Part, Study
from experiments.storage.integrity import fingerprint, set_aside
from experiments.storage.results import ResultsError, Run, read_parquet
from experiments.storage.writing import write_parquet

Tables = dict[str, pd.DataFrame]


class FinishedParts:
    """Finished parts of a study in its directory, and the tables that their rows make.

    Attributes:
      tables: the tables by name, of the finished parts, in the order of the plan.
      notices: sentences about files that are damaged.
    """

    def __init__(self, study: Study, run: Run, stages: Sequence[Sequence[Part]]):
        """Read the finished parts, and move damaged files aside."""
        self._study, self._run = study, run
        self._stage = {part.name: number for number, stage in enumerate(stages) for part in stage}
        self._parts = [part for stage in stages for part in stage]
        self._names = list(dict.fromkeys(table for part in self._parts for table in part.tables))
        self._fingerprints = _stated(run.manifest.get("fingerprints"))
        self._rows: dict[tuple[str, str], pd.DataFrame] = {}
        self.notices: list[str] = []
        for part in self._parts:
            if self._is_intact(part):
                self._read_rows(part)
        self.tables = self._put_together()

    # Which parts are finished.

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

        A directory without ``parts/`` is one whose results alone were kept, such as those below
        experiments/results. It is complete if its tables are there.
        """
        manifest = self._run.manifest
        # Through JSON, as the manifest was: tuples become lists.
        record = json.loads(json.dumps(self._study.record))
        if manifest.get("status") != "complete" or record != {
            name: manifest.get(name) for name in record
        }:
            return False
        stated = manifest.get("tables", {})
        for name in self._names:
            path = self._study.table_path(name)
            if not path.exists() or stated.get(name) not in (None, fingerprint(path)):
                return False
        has_results_alone = self._names and not (self._run.directory / "parts").exists()
        return bool(has_results_alone) or self.has_all()

    # What is on disk.

    def _paths(self, part: Part) -> Iterator[str]:
        """Paths of all files of a part, relative to the directory; some may not be there."""
        rows = [self._row_path(part, table) for table in part.tables]
        yield from dict.fromkeys([*rows, *part.files, *self._fingerprints.get(part.name, {})])

    def _row_path(self, part: Part, table: str) -> str:
        path = self._run.part_path(part.file_name(table))
        return str(path.relative_to(self._run.directory))

    def _is_intact(self, part: Part) -> bool:
        """Compare the files of a part with their fingerprints, and move damaged ones aside."""
        own = self._fingerprints.setdefault(part.name, {})
        is_intact = True
        for path in self._paths(part):
            place = self._run.directory / path
            if place.exists() and own.setdefault(path, found := fingerprint(place)) != found:
                self._set_aside(place, "it has changed since it was written")
                is_intact = False
        return is_intact

    def _read_rows(self, part: Part) -> None:
        """Read the rows of a part, if they are those that the plan expects."""
        rows: Tables = {}
        for table in part.tables:
            path = self._run.directory / self._row_path(part, table)
            if path.exists():
                try:
                    rows[table] = read_parquet(path)
                except ResultsError as error:
                    self._set_aside(path, str(error))
        if len(rows) == len(part.tables) and not self._is_whole(part, rows):
            for table in part.tables:
                path = self._run.directory / self._row_path(part, table)
                self._set_aside(path, "its rows are not those that the plan expects")
            return
        self._rows |= {(part.name, table): each for table, each in rows.items()}

    def _is_whole(self, part: Part, rows: Tables) -> bool:
        try:
            return self._study.is_whole(part, rows)
        except KeyError:
            # A column is not there.
            return False

    def _set_aside(self, path: Path, reason: str) -> None:
        new = set_aside(path, self._run.directory)
        self.notices.append(f"{path} is damaged ({reason}): moved to {new}, and made anew.")

    def read_tables(self) -> Tables:
        """Read the tables as they are on disk."""
        return {name: read_parquet(self._study.table_path(name)) for name in self._names}

    # What is added.

    def keep(self, part: Part, output: Output, session: Mapping[str, Any]) -> None:
        """Write the output of a part; the rows of its first table come last and finish it.

        Until then everything is written again by the next session, fields of the manifest included.

        Args:
          part, output: what was made.
          session: fields of the manifest that tell of this session; one write of the manifest
            takes them and the fingerprints.

        Raises:
          ResultsError: if the part had to be made anew, is not as it was, and others depend on it.
        """
        # Fields of the manifest, then files, then rows.
        for name, value in output.pins.items():
            self._run.pin(name, value)
        if output.manifest:
            self._run.update_manifest(**output.manifest)
        for path, write in output.files.items():
            write(self._run.directory / path)
        for table in reversed(part.tables):
            self._run.write_part(part.file_name(table), output.tables[table])
            path = self._run.directory / self._row_path(part, table)
            self._rows[part.name, table] = read_parquet(path)
        # Their fingerprints, which those of a part that others were made from must equal.
        own = self._fingerprints.setdefault(part.name, {})
        for path in dict.fromkeys([*output.files, *self._paths(part)]):
            place = self._run.directory / path
            if place.exists():
                new = fingerprint(place)
                if path in part.files and own.get(path, new) != new:
                    self._refuse_if_needed(part, path)
                own[path] = new
        self._run.update_manifest(fingerprints=self._fingerprints, **session)
        # The tables, so that figures can be drawn meanwhile.
        if part.tables:
            self.tables = self._put_together()
        if part.tables and self._study.shows_progress and not self.has_all():
            self.write_tables()

    def _refuse_if_needed(self, part: Part, path: str) -> None:
        """Refuse a file that was made anew and differs, if parts of later stages are finished."""
        later = [
            each
            for each in self._parts
            if self._stage[each.name] > self._stage[part.name] and self.has(each)
        ]
        if later:
            raise ResultsError(
                f"{self._run.directory / path} was lost, and is not the same when it is made anew "
                f"on this device with these versions: {len(later)} finished parts were made from "
                f"what it was. Restore it, or choose another directory"
            )

    def write_tables(self) -> dict[str, str]:
        """Write the tables as they are put together; return their fingerprints by name."""
        fingerprints = {}
        for name, table in self.tables.items():
            path = self._study.table_path(name)
            write_parquet(path, table)
            fingerprints[name] = fingerprint(path)
        return fingerprints

    def _put_together(self) -> Tables:
        tables: Tables = {}
        for name in self._names:
            rows = [self._rows.get((part.name, name)) for part in self._parts]
            if finished := [each for each in rows if each is not None]:
                tables[name] = pd.concat(finished, ignore_index=True)
        if self._names and self._names[0] in tables:
            tables[self._names[0]] = self._study.assembled(tables[self._names[0]])
        return tables


def _stated(value: object) -> dict[str, dict[str, str]]:
    """Fingerprints by part and path, as far as a manifest that may be damaged states them."""
    parts = value.items() if isinstance(value, dict) else ()
    return {name: dict(files) for name, files in parts if isinstance(files, dict)}
