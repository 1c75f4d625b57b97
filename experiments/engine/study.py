"""A study: its identity, its named parts, and how one part is made.

A sweep, a scan, a certification, an export and an evaluation have different parts. They share the
rest, which is in `experiments.engine.run`: the directory and its lock, the manifest, resuming,
progress, and the tables.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

from experiments.engine.phases import Phases

if TYPE_CHECKING:
    from experiments.engine.workload import Workload


@dataclass(frozen=True)
class Part:
    """The unit of work and of resume.

    A part is finished when its rows of every table and all its files are in the directory. A part
    without tables and files is never finished: it is made once in every session that has something
    left to do, for example to check that the data are those that the study began with.

    Attributes:
      name: file name of its rows; unique in the study.
      title: words for the terminal; "" to say nothing.
      tables: names of the tables that it adds rows to.
      files: paths of other files or folders that it leaves, relative to the directory.
      weight: its share of the progress bar, for example its number of members.
      stays: made by the process that runs the study, even where other parts are made elsewhere: for
        a part that reads or leaves files of the directory that no other process is told of.
    """

    name: str
    title: str = ""
    tables: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    weight: int = 1
    stays: bool = False

    @property
    def leaves_something(self) -> bool:
        """Return whether the part leaves rows or files, so that it can be finished."""
        return bool(self.tables or self.files)

    def file_name(self, table: str) -> str:
        """Name of the file that holds its rows of a table, without the ending."""
        return self.name if table == self.tables[0] else f"{self.name}_{table}"


@dataclass(frozen=True)
class Output:
    """The results of one part, in memory.

    Attributes:
      tables: rows of each of the part's tables.
      files: for each further path, relative to the directory, a function that writes it in one step
        (whole or not at all) to the path that it is given.
      manifest: fields to set in the manifest.
      pins: fields of the manifest that must never change: another value in a later session is an
        error.
      session: fields of this session's entry in the manifest, in place of those that the study
        itself states; for parts that another process made.
    """

    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    files: Mapping[str, Callable[[Path], object]] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)
    pins: Mapping[str, Any] = field(default_factory=dict)
    session: Mapping[str, Any] = field(default_factory=dict)


def short_digest(record: Mapping[str, Any]) -> str:
    """Fingerprint of JSON values, for names of parts that depend on them."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:12]


class Study:
    """Base class of all studies. Constructors read and check; only `make` does work.

    The manifest gets values of four kinds. Another `identity` than that of the directory is an
    error at once; another value of `Output.pins`, known only once a part is made, is an error then.
    Another `record` makes the tables anew. `Output.manifest` is written and never compared.

    Attributes:
      directory: the study's directory. The engine alone writes there, except for files that `make`
        needs to carry on with an interrupted part.
      unit: name of what `Part.weight` counts, for the progress bar.
      shows_progress: write the tables after each part, so that figures can be drawn meanwhile; else
        they appear when all parts are finished.
      adopts: patterns of files at the top of a directory without a manifest that the study takes
        over, because earlier versions of it wrote no manifest.
      is_away: true in a worker process that does not see the run's directory; `directory` is then
        an empty one of the worker's own.
      phases: the clock of this process; `make` names its phases.
    """

    directory: Path
    unit: str = "parts"
    shows_progress: bool = True
    adopts: tuple[str, ...] = ()
    is_away: bool = False
    phases: Phases
    _arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *positional: Any, **named: Any) -> Self:
        """Note the arguments: as these a study travels to another process, see `__reduce__`."""
        study = super().__new__(cls)
        study.phases = Phases()
        study._arguments = positional, named
        return study

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments alone; programs and data are made anew where they are needed."""
        positional, named = self._arguments
        return functools.partial(type(self), **named), positional

    @property
    def identity(self) -> Mapping[str, Any]:
        """JSON values that must be equal for a directory to be carried on with."""
        raise NotImplementedError

    @property
    def record(self) -> Mapping[str, Any]:
        """JSON values that describe the last finished call, if the list of parts differs by call.

        For example other measures, or another grader. Unlike with `identity`, a difference is no
        error: finished parts stay, missing ones are made, and the tables are put together anew.
        """
        return {}

    def stages(self) -> Sequence[Sequence[Part]]:
        """All parts by stage. Parts depend on earlier stages, never on others of their own."""
        raise NotImplementedError

    def make(self, part: Part) -> Output:
        """Make one part, reading nothing but the configuration and earlier parts' files."""
        raise NotImplementedError

    def shared(self, parts: Sequence[Part]) -> Mapping[str, Any]:
        """Values of attributes that `make` would otherwise read from files of earlier parts.

        A worker on another machine does not see these files. The process that runs the study reads
        them once for a stage, and each worker's study gets them as attributes.

        Args:
          parts: those that workers are about to make, of one stage.

        Returns:
          Arrays, tables and other values that can be pickled; a `Path` is a folder, in whose place
          a worker that does not see it gets a copy.
        """
        del parts
        return {}

    def has_file(self, path: str) -> bool:
        """Return whether a file or folder of a part is there, relative to the directory."""
        return (self.directory / path).exists()

    def is_whole(self, part: Part, rows: Mapping[str, pd.DataFrame]) -> bool:
        """Return whether rows that were read from disk are all those of a part."""
        return all(len(rows[table]) > 0 for table in part.tables[:1])

    def assembled(self, table: pd.DataFrame) -> pd.DataFrame:
        """Complete the first table, given its finished rows in the order of the plan."""
        return table

    def table_path(self, table: str) -> Path:
        """Path of a table that is put together from the parts."""
        return self.directory / f"{table}.parquet"

    def workload(self) -> Workload:
        """What the parts will cost, for a plan.

        Raises:
          ValueError: if the study cannot tell.
        """
        raise ValueError(f"plan must be of a study that tells its work, got {type(self).__name__}")

    def note(self, tables: Mapping[str, pd.DataFrame]) -> str:
        """Text below the progress bar, from the tables so far."""
        del tables
        return ""

    def kept(self, part: Part) -> None:
        """Drop what only an interrupted part needed: its output is on disk now."""
        del part

    def session_fields(self) -> Mapping[str, Any]:
        """Fields that a study adds to the manifest's entry of this session."""
        return {}
