"""Runs on disk: the only reader and writer of results.

A run is a directory::

    manifest.json     identity of the study, and for each session versions, device and time
    parts/            one Parquet file per finished part and table, put in place by one rename
    table.parquet     the parts' rows in the plan's order: tidy, one row per member, slice, metric

Some studies have other tables (a certification has certificates.parquet), or further files, which
their modules list. A kill or a full disk loses at most the parts under way: a file is there whole
or not at all. The manifest holds a fingerprint of every file, so that a run notices when one has
changed since; `experiments.engine.finished` says what happens then. A hidden copy of the manifest
takes its place if it is lost or cannot be read.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.errors import ExpectedError
from experiments.storage.integrity import fingerprint
from experiments.storage.migration import upgrade
from experiments.storage.untrusted import JSON_MEBIBYTES, check_file
from experiments.storage.writing import remove_partial, write_json, write_parquet

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


MANIFEST = "manifest.json"
COPY = ".manifest.json"
"""Hidden copy of the manifest, written before it."""


class ResultsError(ExpectedError):
    """A run directory that cannot be used as asked."""


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
    """Read a table, and compare each page with its checksum where the file has them.

    Raises:
      ResultsError: if the file is missing or is no Parquet file, or a checksum differs.
    """
    try:
        return pd.read_parquet(path, page_checksum_verification=True)
    except FileNotFoundError:
        raise ResultsError(f"{path} does not exist; has the run finished a chunk?") from None
    # Damaged bytes reach pyarrow and pandas at every depth, as errors of many kinds.
    except Exception as error:
        raise ResultsError(
            f"{path} is not a readable Parquet file ({_first_line(error)}); "
            f"run the same command again to make it anew"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def read_table(directory: Path) -> pd.DataFrame:
    """The result table of a run, checked for its columns.

    Raises:
      ResultsError: if the table is missing, damaged or lacks a column.
    """
    return read_tables(directory, "table")["table"]


def read_tables(directory: Path, *names: str) -> dict[str, pd.DataFrame]:
    """Tables at the top of a directory of results, by name; by default every one.

    Raises:
      ResultsError: if there is none, one is damaged, or the result table lacks a column.
    """
    paths = {path.stem: path for path in sorted(directory.glob("*.parquet"))}
    chosen = names or tuple(paths) or ("table",)
    fingerprints = _of_tables(directory)
    tables = {}
    for name in chosen:
        path = directory / f"{name}.parquet"
        _refuse_changed(path, fingerprints.get(name))
        tables[name] = read_parquet(path)
    for name in {"table", "families"} & set(tables):
        _check_columns(directory / f"{name}.parquet", tables[name])
    return tables


def _check_columns(path: Path, table: pd.DataFrame) -> None:
    """Refuse a table that lacks a column of `COLUMNS`, or has nonsense in one.

    Raises:
      ResultsError: if a column is absent, has another type, a gap, or a number out of range.
    """
    if missing := sorted(set(COLUMNS) - set(table.columns)):
        raise ResultsError(f"{path} lacks the columns {missing}")
    types = {
        "str": (pd.api.types.is_string_dtype, "text"),
        "int64": (pd.api.types.is_integer_dtype, "whole numbers"),
        "float64": (pd.api.types.is_float_dtype, "numbers"),
    }
    for name, kind in COLUMNS.items():
        is_right, accepted = types[kind.lower()]
        column = table[name]
        values = column.dropna()
        if len(values) and not is_right(values):
            raise ResultsError(f"{path}: {name} must hold {accepted}, got {column.dtype}")
        # Only metrics of all slices have no slice, and only members that diverged have no value.
        if len(values) < len(column) and name not in ("slice", "value"):
            raise ResultsError(f"{path}: {name} has no value in {len(column) - len(values)} rows")
        if kind.lower() == "int64" and len(values) and not 0 <= min(values) <= max(values) < 2**53:
            raise ResultsError(
                f"{path}: {name} must lie between 0 and 2**53, got {min(values)} to {max(values)}"
            )


def check_unchanged(directory: Path, path: str) -> None:
    """Refuse a file or folder of a run, such as a base, that has changed since the run wrote it.

    Args:
      directory: of the run.
      path: relative to it; what is not there, or has no fingerprint, is not refused.

    Raises:
      ResultsError: if it has changed.
    """
    parts = read_manifest(directory).get("fingerprints")
    for files in parts.values() if isinstance(parts, dict) else ():
        if isinstance(files, dict):
            _refuse_changed(directory / path, files.get(path))


def _of_tables(directory: Path) -> dict[str, str]:
    """Fingerprints of the tables of a finished run; of any other directory none.

    While a run goes on, its tables are newer than their fingerprints.
    """
    if not (directory / MANIFEST).exists():
        return {}
    manifest = read_manifest(directory)
    known = manifest.get("tables")
    return known if manifest.get("status") == "complete" and isinstance(known, dict) else {}


def _refuse_changed(path: Path, fingerprint_then: str | None) -> None:
    """Refuse a file or folder that is there and differs from its fingerprint, if it has one."""
    if fingerprint_then and path.exists() and fingerprint(path) != fingerprint_then:
        raise ResultsError(
            f"{path} has changed since the run wrote it; run the same command again to make it anew"
        )


def read_manifest(directory: Path, name: str = MANIFEST) -> dict[str, Any]:
    """The manifest of a run, in the form of today (see `experiments.storage.migration`).

    Raises:
      ResultsError: if there is none or it is no JSON object.
    """
    path = directory / name
    try:
        check_file(path, most_mebibytes=JSON_MEBIBYTES)
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        raise ResultsError(f"{directory} is not a run: it has no {name}") from None
    # Damaged bytes may not be text, brackets may be nested too deeply, and it may be a pipe.
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{path} is not valid JSON ({_first_line(error)})") from error
    if not isinstance(manifest, dict):
        raise ResultsError(f"{path} must hold a JSON object, got {type(manifest).__name__}")
    try:
        return upgrade(manifest)
    except (LookupError, TypeError, AttributeError) as error:
        raise ResultsError(f"{path} is not the manifest of a run ({error!r})") from error


def read_finished(directory: Path) -> dict[str, Any]:
    """The manifest of a run that is complete.

    Raises:
      ResultsError: if there is no run, or it is not finished.
    """
    manifest = read_manifest(directory)
    if (status := manifest.get("status")) != "complete":
        raise ResultsError(
            f"{directory} is not finished (status {_shorten(status)}): repeat its command"
        )
    return manifest


def stated(manifest: Mapping[str, Any], directory: Path, *names: str) -> Any:
    """A value of a run's manifest, below names of objects.

    Raises:
      ResultsError: if it is not there.
    """
    value: Any = manifest
    for name in names:
        if not isinstance(value, dict) or name not in value:
            raise ResultsError(
                f"{directory / MANIFEST} is not the manifest of such a run: it states no "
                f"{'.'.join(names)}"
            )
        value = value[name]
    return value


@dataclass(frozen=True)
class Run:
    """A run directory that this process has locked, new or resumed.

    Attributes:
      directory: of the run.
      notices: sentences about what had to be mended when it was opened.
    """

    directory: Path
    notices: Sequence[str] = ()

    @property
    def manifest(self) -> dict[str, Any]:
        return read_manifest(self.directory)

    def update_manifest(self, **fields: Any) -> None:
        """Replace top-level fields of the manifest."""
        _write_manifest(self.directory, self.manifest | fields)

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
    # Hidden files are the lock, the manifest's copy, and files that a kill left half written.
    visible = {name for name in entries if not name.startswith(".")}
    foreign = {name for name in visible if not any(fnmatch(name, each) for each in adopts)}
    if foreign and not entries & {MANIFEST, COPY}:
        raise ResultsError(
            f"{directory} is not empty and is not a run (it has no {MANIFEST}); "
            f"choose another directory"
        )
    directory.mkdir(parents=True, exist_ok=True)
    notices: list[str] = []
    # Take the lock, then compare with the manifest that is there or write a new one.
    with _locked(directory):
        remove_partial(directory)
        if entries & {MANIFEST, COPY}:
            differing = _open_manifest(directory, identity, notices)
            if differing:
                raise ResultsError(
                    f"{directory} holds another run; it differs in "
                    + "; ".join(differing[:5])
                    + ". Choose another directory, or repeat the command of that run."
                )
        else:
            _write_manifest(directory, {**identity, "status": "running"})
        yield Run(directory, notices)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Lock a directory for this process.

    Raises:
      ResultsError: if another process has locked it, or ``.lock`` is no file.
    """
    path = directory / ".lock"
    # Neither a link, which may lead anywhere, nor a pipe, which would wait for a reader.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o644)
    except OSError as error:
        if path.is_symlink():
            raise ResultsError(f"{path} must be a file, it is a link") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ResultsError(f"{path} must be a file, it is something else")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResultsError(f"{directory} is in use by another process") from None
        yield
    finally:
        os.close(handle)


def _write_manifest(directory: Path, content: Mapping[str, Any]) -> None:
    """Write the manifest and its copy; the copy first, so that it is never older."""
    write_json(directory / COPY, content)
    write_json(directory / MANIFEST, content)


def _open_manifest(directory: Path, identity: Mapping[str, Any], notices: list[str]) -> list[str]:
    """Differences between a run's identity and that in its manifest, or in the manifest's copy.

    If the copy is of this run and the manifest is not, the copy takes its place; `notices` says so.

    Raises:
      ResultsError: if neither can be read.
    """

    def differing(name: str) -> list[str]:
        stored = read_manifest(directory, name)
        return [
            path
            for field, value in identity.items()
            for path in _differences(stored.get(field), value, field)
        ]

    try:
        found = differing(MANIFEST)
        if not found:
            return []
        reason = f"differs in {found[0]}"
    except ResultsError as error:
        found, reason = None, str(error)
        if not (directory / COPY).exists():
            raise
    try:
        of_copy = differing(COPY)
    except ResultsError:
        if found is None:
            raise
        return found
    if of_copy:
        return of_copy if found is None else found
    write_json(directory / MANIFEST, read_manifest(directory, COPY))
    notices.append(
        f"{directory / MANIFEST} is not as it was written ({reason}): restored from its copy."
    )
    return []


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
