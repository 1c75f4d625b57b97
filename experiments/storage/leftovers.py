"""Hidden files and folders that a killed process left half written."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

_RANDOM = r"\.[a-z0-9_]{8}"
_AT_TOP = re.compile(rf"\.(?:model|[\w.-]+\.(?:parquet|json|jsonl|html|svg|png|md)){_RANDOM}")
_INSIDE = re.compile(rf"\.[\w.=+-]+{_RANDOM}")
"""Names that `tempfile` gives to what is written beside a file or checkpoint of a run: a dot, the
name, and eight random characters. At the top of a run others may have hidden files too."""

FOLDERS = ("bases", "members", "parts", "predictions", "figures")
"""Folders of a run that only the study writes."""


def remove_leftovers(directory: Path) -> list[Path]:
    """Remove what killed processes left half written in a run directory.

    Call it only with the lock of the directory, so that nothing of it is being written.

    Args:
      directory: the run's directory; its top and the study's `FOLDERS` in it are searched. Links
        are neither followed nor removed, and no other name is touched.

    Returns:
      The paths that were removed.
    """
    inside = [directory / name for name in FOLDERS]
    places = [(directory, _AT_TOP), *((folder, _INSIDE) for folder in inside)]
    removed = []
    for folder, pattern in places:
        if folder.is_symlink() or not folder.is_dir():
            continue
        for path in sorted(folder.iterdir()):
            if not pattern.fullmatch(path.name) or path.is_symlink():
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            removed.append(path)
    return removed
