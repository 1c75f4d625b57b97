"""Runs on disk: the only reader and writer of results.

A run is a directory::

    manifest.json     identity of the study, and for each session versions, device and time
    parts/            one Parquet file per finished part and table, put in place by one rename
    table.parquet     the parts' rows in the plan's order: tidy, one row per member, slice, metric

Some studies have other tables (a certification has certificates.parquet), or further files, which
their modules list. A kill or a full disk loses at most the parts under way: a file is there whole
or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from experiments.errors import ExpectedError
from experiments.storage.migration import upgrade

COLUMNS = {
    "task": "str",
    "base": "str",
    "base_seed": "int64",
    "train_mixture": "str",
    "loss": "str",
    "difficulty": "int64",
    "data_size": "int64",
    "compute": "str",
    "data_unit": "str",
    "learning_rate": "float64",
    "seed": "int64",
    "slice": "Int64",
    "metric": "str",
    "value": "float64",
    "num_examples": "int64",
    "status": "str",
}
"""Columns of the result table and their types; `slice` is missing for metrics of all slices."""

UNTRAINED = {
    "train_mixture": "none",
    "loss": "none",
    "difficulty": 0,
    "data_size": 0,
    "compute": "0 steps",
    "learning_rate": 0.0,
    "status": "ok",
}
"""Columns of an untouched base's rows."""


class ResultsError(ExpectedError):
    """A run directory that cannot be used as asked."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside `path` and rename it into place; on failure leave nothing behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        write(Path(name))
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON that people read, as `write_atomically`."""
    write_atomically(path, lambda p: p.write_text(json.dumps(content, indent=1) + "\n"))


def write_parquet(path: Path, table: pd.DataFrame) -> None:
    """Write a table without its index, as `write_atomically`."""
    write_atomically(path, lambda temporary: table.to_parquet(temporary, index=False))


def write_record(
    directory: Path, name: str, table: pd.DataFrame, manifest: Mapping[str, Any]
) -> list[Path]:
    """Write NAME.parquet and NAME.json into a directory, in place of those of an earlier run."""
    paths = [directory / f"{name}.parquet", directory / f"{name}.json"]
    write_parquet(paths[0], table)
    write_json(paths[1], manifest)
    return paths


def tidy(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table with the columns and types of `COLUMNS`.

    Raises:
      ValueError: if a row lacks a column or has one too many.
    """
    for row in rows:
        if set(row) != set(COLUMNS):
            raise ValueError(f"row must have columns {list(COLUMNS)}, got {list(row)}")
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def read_parquet(path: Path) -> pd.DataFrame:
    """Read a table.

    Raises:
      ResultsError: if the file is missing or is no Parquet file.
    """
    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise ResultsError(f"{path} does not exist; has the run finished a chunk?") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise ResultsError(
            f"{path} is not a readable Parquet file ({error}); "
            f"delete it and run the same command again to make it anew"
        ) from error


def read_table(directory: Path) -> pd.DataFrame:
    """The result table of a run, checked for its columns.

    Raises:
      ResultsError: if the table is missing, corrupt or lacks a column.
    """
    table = read_parquet(directory / "table.parquet")
    if missing := sorted(set(COLUMNS) - set(table.columns)):
        raise ResultsError(f"{directory / 'table.parquet'} lacks the columns {missing}")
    return table


def read_tables(directory: Path) -> dict[str, pd.DataFrame]:
    """Every table at the top of a directory of results, by name.

    Raises:
      ResultsError: if there is none, or the result table lacks a column.
    """
    tables = {path.stem: read_parquet(path) for path in sorted(directory.glob("*.parquet"))}
    # Without any table this raises the error that explains it.
    if "table" in tables or not tables:
        tables["table"] = read_table(directory)
    return tables


def read_manifest(directory: Path, name: str = "manifest.json") -> dict[str, Any]:
    """The manifest of a run, in the form of today (see `experiments.storage.migration`).

    Raises:
      ResultsError: if there is none or it is no JSON object.
    """
    path = directory / name
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        raise ResultsError(f"{directory} is not a run: it has no {name}") from None
    except json.JSONDecodeError as error:
        raise ResultsError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(manifest, dict):
        raise ResultsError(f"{path} must hold a JSON object")
    return upgrade(manifest)


def read_finished(directory: Path) -> dict[str, Any]:
    """The manifest of a run that is complete.

    Raises:
      ResultsError: if there is no run, or it is not finished.
    """
    manifest = read_manifest(directory)
    if (status := manifest.get("status")) != "complete":
        raise ResultsError(
            f"{directory} is not finished (status {status!r}): repeat its command to carry on"
        )
    return manifest


@dataclass(frozen=True)
class Run:
    """A run directory that this process has locked, new or resumed."""

    directory: Path

    @property
    def manifest(self) -> dict[str, Any]:
        return read_manifest(self.directory)

    def update_manifest(self, **fields: Any) -> None:
        """Replace top-level fields of the manifest."""
        write_json(self.directory / "manifest.json", self.manifest | fields)

    def pin(self, name: str, value: Any) -> None:
        """Write a field of the manifest that must not change any more.

        Raises:
          ResultsError: if another value is there.
        """
        stored = self.manifest.get(name)
        value = json.loads(json.dumps(value))
        if stored is not None and (differing := _differences(stored, value, name)):
            raise ResultsError(
                f"{self.directory} was begun with something else; it differs in "
                f"{'; '.join(differing)}. Choose another directory, or restore what was there."
            )
        self.update_manifest(**{name: value})

    def part_path(self, name: str) -> Path:
        """Path of a finished part's rows."""
        return self.directory / "parts" / f"{name}.parquet"

    def write_part(self, name: str, table: pd.DataFrame) -> None:
        """Keep the rows of a finished part."""
        write_parquet(self.part_path(name), table)


@contextlib.contextmanager
def open_run(
    directory: Path, identity: Mapping[str, Any], *, adopts: Iterable[str] = ()
) -> Iterator[Run]:
    """Lock a run directory: a new one, or one with the same identity to resume.

    Args:
      directory: the run's directory; created if missing.
      identity: values that must equal the manifest's (recipe, preset, config, plan), as JSON.
      adopts: patterns of file names; a directory without a manifest that contains only such files
        is taken over.

    Raises:
      ResultsError: if the directory is in use by another process, contains something else, or a
        run of another identity (the message names the differing values).
    """
    identity = json.loads(json.dumps(identity))
    if directory.exists() and not directory.is_dir():
        raise ResultsError(f"out must be a directory, {directory} is a file")
    entries = {path.name for path in directory.iterdir()} if directory.exists() else set()
    # Hidden files are the lock, and files that a kill left half written.
    visible = {name for name in entries if not name.startswith(".")}
    foreign = {name for name in visible if not any(fnmatch(name, each) for each in adopts)}
    if foreign and "manifest.json" not in visible:
        raise ResultsError(
            f"{directory} is not empty and is not a run (it has no manifest.json); "
            f"choose another directory"
        )
    directory.mkdir(parents=True, exist_ok=True)
    # Take the lock, then compare with the manifest that is there or write a new one.
    with open(directory / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResultsError(f"{directory} is in use by another process") from None
        if "manifest.json" in entries:
            stored = read_manifest(directory)
            differing = [
                path
                for name, value in identity.items()
                for path in _differences(stored.get(name), value, name)
            ]
            if differing:
                raise ResultsError(
                    f"{directory} holds another run; it differs in "
                    + "; ".join(differing[:5])
                    + ". Choose another directory, or repeat the command of that run."
                )
        else:
            write_json(directory / "manifest.json", {**identity, "status": "running"})
        yield Run(directory)


def _differences(stored: Any, asked: Any, path: str) -> list[str]:
    """List the places where two JSON values differ, as ``path (there …, here …)``."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        return [
            difference
            for name in sorted(stored.keys() | asked.keys())
            for difference in _differences(stored.get(name), asked.get(name), f"{path}.{name}")
        ]
    if stored == asked:
        return []
    return [f"{path} (there {_shorten(stored)}, here {_shorten(asked)})"]


def _shorten(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
