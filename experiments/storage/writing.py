"""Files that appear whole or not at all, whenever the process is killed or the disk is full."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.interrupts import uninterrupted

PARTIAL = ".partial"
"""Ending of hidden files and folders that are being written, or that a kill left half written."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside `path` and rename it into place; on failure leave nothing behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with uninterrupted():
        handle, name = tempfile.mkstemp(PARTIAL, f".{path.name}.", path.parent)
        os.close(handle)
        try:
            write(Path(name))
            os.chmod(name, 0o644)
            # To the disk before the rename: a power failure must not leave a named, empty file.
            synchronise(Path(name))
            os.replace(name, path)
            synchronise(path.parent)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_folder_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a folder of files beside `path` and rename it into place, as `write_atomically`.

    Raises:
      FileExistsError: if `path` exists.
    """
    if path.exists():
        raise FileExistsError(f"path must be a new folder, but {str(path)!r} exists")
    path.parent.mkdir(parents=True, exist_ok=True)
    with uninterrupted():
        partial = Path(tempfile.mkdtemp(PARTIAL, f".{path.name}.", path.parent))
        try:
            write(partial)
            for file in partial.iterdir():
                # Some libraries, and mkdtemp, let only the owner read.
                file.chmod(0o644)
                synchronise(file)
            partial.chmod(0o755)
            try:
                partial.rename(path)
            except OSError as error:
                if not path.exists():
                    raise
                raise FileExistsError(
                    f"path must be a new folder, but {str(path)!r} appeared meanwhile"
                ) from error
            synchronise(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def synchronise(path: Path) -> None:
    """Write what the system still holds in memory of a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_partial(directory: Path) -> None:
    """Remove files and folders below a directory that a kill left half written.

    Args:
      directory: one that no other process writes.
    """
    for path in list(directory.rglob(f".*{PARTIAL}")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON that people read, as `write_atomically`."""
    write_atomically(path, lambda p: p.write_text(json.dumps(content, indent=1) + "\n"))


def write_parquet(path: Path, table: pd.DataFrame) -> None:
    """Write a table without its index, as `write_atomically`; each page has a checksum."""
    write_atomically(
        path, lambda temporary: table.to_parquet(temporary, index=False, write_page_checksum=True)
    )
