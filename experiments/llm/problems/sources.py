"""Rows of a data set in a file, several files, a folder or a hub repository, read by `datasets`.

Local data leave nothing behind: the files that `datasets` caches of them are deleted at once.
"""

from __future__ import annotations

import contextlib
import glob
import json
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.distribution import install_hint
from experiments.storage.checkpoint import PathLike

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, Features

FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}
"""Reader of `datasets` for each ending of a file."""


def load_rows(
    source: PathLike, *, split: str | None = None, configuration: str | None = None
) -> Dataset:
    """Load all rows of a data set, into memory or mapped into it.

    Args:
      source: a file with an ending in `FORMATS`; a pattern of such files, such as ``train/*.jsonl``
        (read in the order of their names); a folder that `datasets.load_dataset` accepts, with or
        without a dataset card; or ``OWNER/NAME`` on the Hugging Face hub.
      split: its name, as `datasets` writes it (``train``, ``train[:1000]``); None if there is only
        one.
      configuration: its name, in a folder or repository with several.

    Raises:
      FileNotFoundError: if there is no such source, or the hub does not give it.
      ImportError: if `datasets` is not installed.
      ValueError: if it cannot be read (a broken line of JSON is named by its number), if split or
        configuration must be named, or if there are no rows.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError(f"data sets need: {install_hint('llm')}") from error
    # Choose the arguments of load_dataset: for a folder, for files, or for the hub.
    path = Path(source)
    is_local = True
    if path.is_dir():
        asked: dict[str, Any] = {"path": str(path.absolute()), "name": configuration}
    elif files := _files(str(source)):
        if configuration is not None:
            raise ValueError(
                f"configuration is for folders and hub repositories, got {configuration!r} with "
                f"files {str(source)!r}"
            )
        asked = {"path": _format(files), "data_files": [str(file.absolute()) for file in files]}
    elif isinstance(source, str) and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source):
        asked, is_local = {"path": source, "name": configuration}, False
    else:
        raise FileNotFoundError(
            f"source must be a file, a pattern of files, a folder or OWNER/NAME on the Hugging "
            f"Face hub, got {str(source)!r}"
        )
    # Load the rows: local ones into memory, by way of a cache that is then deleted.
    with contextlib.ExitStack() as stack:
        if is_local:
            stack.enter_context(_quiet(datasets))
            cache = stack.enter_context(tempfile.TemporaryDirectory())
            asked |= {"cache_dir": cache, "keep_in_memory": True}
        try:
            rows = datasets.load_dataset(**asked, split=split)
            if (features := _without_dates(rows)) is not None:
                rows = datasets.load_dataset(**asked, split=split, features=features)
        # Each reader of `datasets` raises errors of its own.
        except Exception as error:
            raise _explained(source, error, is_local) from error
    # Without a named split there must be only one.
    if isinstance(rows, datasets.DatasetDict):
        if len(rows) > 1:
            raise ValueError(f"split of {str(source)!r} must be one of {sorted(rows)}, got None")
        (rows,) = rows.values()
    if not len(rows):
        raise ValueError(f"{str(source)!r} holds no rows")
    return rows


def _without_dates(rows: Dataset | DatasetDict) -> Features | None:
    """Features that keep strings of JSON which were read as dates; None if there are none."""
    import datasets

    first = next(iter(rows.values())) if isinstance(rows, datasets.DatasetDict) else rows
    if first.info.builder_name != "json":
        return None
    dates = [name for name, feature in first.features.items() if "timestamp" in str(feature)]
    features = datasets.Features(first.features | dict.fromkeys(dates, datasets.Json()))
    return features if dates else None


def _files(source: str) -> list[Path]:
    """Files of a source: the file itself, or those that match a pattern, sorted by name."""
    if Path(source).is_file():
        return [Path(source)]
    return [
        Path(name) for name in sorted(glob.glob(source, recursive=True)) if Path(name).is_file()
    ]


def _format(files: Iterable[Path]) -> str:
    """Reader of `datasets` for all of these files."""
    endings = sorted({file.suffix for file in files})
    readers = {FORMATS.get(ending) for ending in endings}
    if None in readers or len(readers) > 1:
        raise ValueError(f"files must all end in one of {list(FORMATS)}, got {endings}")
    return str(readers.pop())


@contextlib.contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Silence progress bars and log lines of `datasets`; errors are raised as before."""
    level, has_bars = datasets.logging.get_verbosity(), datasets.is_progress_bar_enabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if has_bars:
            datasets.enable_progress_bars()


def _explained(source: PathLike, error: Exception, is_local: bool) -> Exception:
    """Replace an error of `datasets` by one that says what is wrong with the source."""
    from datasets.exceptions import DatasetGenerationError

    # These errors are about the contents of files (an empty one raises StopIteration): look for the
    # broken line.
    if is_local and isinstance(error, DatasetGenerationError | StopIteration | ValueError):
        path = Path(source)
        files = sorted(path.rglob("*.json*")) if path.is_dir() else _files(str(source))
        if fault := next(filter(None, map(_broken_line, files)), None):
            return ValueError(fault)
        if files and not any(file.stat().st_size for file in files):
            return ValueError(f"{str(source)!r} holds no rows")
    if not is_local and isinstance(error, OSError):
        return FileNotFoundError(
            f"{source!r} is no file or folder here, and the Hugging Face hub did not give it "
            f"({type(error).__name__}: {error})"
        )
    reason = error.__cause__ or error
    return ValueError(f"{str(source)!r} cannot be read as a data set ({reason})")


def _broken_line(path: Path) -> str | None:
    """Place and fault of the first broken line of a JSON file; None if there is none."""
    if FORMATS.get(path.suffix) != "json":
        return None
    contents = path.read_bytes()
    if path.suffix == ".json":
        try:
            # The whole file may be one document, such as an array of rows.
            json.loads(contents)
            return None
        except ValueError as error:
            if contents.lstrip()[:1] == b"[":
                return f"line {getattr(error, 'lineno', 1)} of {str(path)!r} is {_fault(error)}"
    # Otherwise every line must be an object.
    for number, line in enumerate(contents.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except ValueError as error:
            return f"line {number} of {str(path)!r} is {_fault(error)}"
        if not isinstance(row, dict):
            return f"line {number} of {str(path)!r} must hold an object, got {type(row).__name__}"
    return None


def _fault(error: ValueError) -> str:
    """Fault of a text that is not JSON, without json's own number of the line within that text."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} (column {error.colno})"
    return f"not JSON: {error}"
