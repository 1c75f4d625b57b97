"""Fingerprints of files, by which a run notices that one has changed since it was written."""

from __future__ import annotations

import hashlib
from pathlib import Path


def fingerprint(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder and their names.

    Raises:
      OSError: if a file cannot be read.
    """
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    total = hashlib.sha256()
    for file in sorted(each for each in path.rglob("*") if each.is_file()):
        total.update(f"{file.relative_to(path)}\0{fingerprint(file)}\n".encode())
    return total.hexdigest()


def set_aside(path: Path, directory: Path) -> Path:
    """Move a damaged file or folder of a run out of the way, below ``damaged/``.

    Args:
      path: of the file or folder.
      directory: of the run.

    Returns:
      Where it is now; a number is added to a name that is taken.
    """
    target = directory / "damaged" / path.relative_to(directory)
    target.parent.mkdir(parents=True, exist_ok=True)
    number, free = 1, target
    while free.exists():
        number += 1
        free = target.with_name(f"{target.name}-{number}")
    return path.rename(free)
