"""Files that somebody else wrote, read with limits: their kind, their size, how deep they nest."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

MEBI = 1024**2

JSON_MEBIBYTES = 64
"""The most mebibytes of a JSON file of a checkpoint; the index of the largest has about one."""


def check_file(path: Path, *, most_mebibytes: int) -> None:
    """Refuse a path that is no ordinary file, such as a pipe or a device, and a file too large.

    Args:
      path: the file; a link to one is accepted, as the cache of the Hugging Face hub has links.
      most_mebibytes: its largest size.

    Raises:
      FileNotFoundError: if nothing is there.
      ValueError: if it is something else than a file, or larger.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise FileNotFoundError(f"{str(path)!r} cannot be opened ({error.strerror})") from error
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{str(path)!r} must be a file, not a folder, a pipe or a device")
    if found.st_size > most_mebibytes * MEBI:
        raise ValueError(
            f"{str(path)!r} must have at most {most_mebibytes} MiB, got "
            f"{found.st_size / MEBI:,.0f} MiB"
        )


def parse_json(text: str | bytes, subject: str) -> Any:
    """Parse JSON of any origin.

    Args:
      text: the JSON.
      subject: what it is, for the error.

    Raises:
      ValueError: if it is no JSON, nests too deeply, or has a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(f"{subject} is nested too deeply to be read") from None
    except MemoryError:
        raise ValueError(f"{subject} is too large for this machine's memory") from None
    except ValueError as error:
        raise ValueError(f"{subject} is not JSON ({error})") from error


def read_json_file(path: Path, *, most_mebibytes: int = JSON_MEBIBYTES) -> Any:
    """Read a JSON file of any origin.

    Raises:
      FileNotFoundError, ValueError: see `check_file` and `parse_json`.
    """
    check_file(path, most_mebibytes=most_mebibytes)
    return parse_json(path.read_bytes(), repr(str(path)))
