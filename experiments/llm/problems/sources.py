"""Rows of a data set in a file, several files, a folder or a hub repository, read by `datasets`;
or drawn by reasoning-gym.

Local data are read in a process of their own with limits to its memory and time, because hostile
files end the process that reads them: JSON nested so deep that the stack overflows, or a small
Parquet file that unpacks to a hundred gigabytes. They leave nothing behind: the files that
`datasets` caches of them are deleted at once.

Data sets of the Hugging Face hub are read in this process. No code of theirs runs: a repository
that is a script is refused, as `datasets` runs none since version 4. But their size, the memory and
time that they take, and what they leave in the hub's cache have no limit here, and a file that ends
its reader ends the command. Who does not trust a repository downloads it and reads the folder.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.distribution import install_hint
from experiments.llm.problems.gym.drawing import draw_columns
from experiments.llm.problems.gym.library import is_gym
from experiments.storage.untrusted import MEBI, check_file

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, Features

FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}
"""Reader of `datasets` for each ending of a file."""

PathLike = str | os.PathLike[str]

BASE_MEBIBYTES, MEBIBYTES_EACH = 1024, 30
"""Memory that a reader may take: so much, and so many times the size of the files on the disk."""

BASE_SECONDS, MEBIBYTES_A_SECOND = 6, 1
"""Time of a processor that a reader may take: so much, and a second for so many mebibytes."""

WAITING, LEAST_WAITING = 10, 180
"""Limit of a reader by the clock: so many times that of a processor, at least so many seconds.

On a slow disk or a busy machine starting a reader alone can take a minute.
"""

MOST_FILES = 100_000
"""The most files of a folder."""


@dataclass(frozen=True)
class Rows:
    """Rows of a data set in memory.

    Attributes:
      column_names: all columns of the data set.
      columns: cells of those that were asked for.
      number: of rows.
    """

    column_names: list[str]
    columns: Mapping[str, list[Any]]
    number: int

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, name: str) -> list[Any]:
        return self.columns[name]


def load_rows(
    source: PathLike,
    *,
    split: str | None = None,
    configuration: str | None = None,
    wanted: Collection[str] | None = None,
) -> Rows:
    """Load all rows of a data set.

    Args:
      source: a file with an ending in `FORMATS`; a pattern of such files, such as ``train/*.jsonl``
        (read in the order of their names); a folder that `datasets.load_dataset` accepts, with or
        without a dataset card; or ``OWNER/NAME`` on the Hugging Face hub, if there is no folder
        OWNER here; or a task of reasoning-gym, see `experiments.llm.problems.gym.source`.
      split: its name, as `datasets` writes it (``train``, ``train[:1000]``); None if there is only
        one.
      configuration: its name, in a folder or repository with several.
      wanted: columns to load, where they exist; None for all.

    Raises:
      FileNotFoundError: if there is no such source, or the hub does not give it.
      ImportError: if `datasets`, or for its tasks reasoning-gym, is not installed.
      ValueError: if it cannot be read (a broken line of JSON is named by its number), if it needs
        more memory or time than its size explains, if split or configuration must be named, or if
        there are no rows.
    """
    if is_gym(source):
        return _draw(str(source), split, configuration, wanted)
    if importlib.util.find_spec("datasets") is None:
        raise ImportError(f"data sets need: {install_hint('llm')}")
    if not str(source).strip():
        raise ValueError(f"source must name a data set, got {str(source)!r}")
    # Choose the arguments of load_dataset: for a folder, for files, or for the hub.
    path = Path(source)
    if path.is_dir():
        asked: dict[str, Any] = {"path": str(path.absolute()), "name": configuration}
        size = _checked_size(_files_in(path))
    elif files := _files(str(source)):
        if configuration is not None:
            raise ValueError(
                f"configuration is for folders and hub repositories, got {configuration!r} with "
                f"files {str(source)!r}"
            )
        asked = {"path": _format(files), "data_files": [str(file.absolute()) for file in files]}
        size = _checked_size(files)
    elif is_hub_id(source):
        return _read_from_hub(str(source), split, configuration, wanted)
    else:
        raise FileNotFoundError(
            f"source must be a file, a pattern of files, a folder or OWNER/NAME on the Hugging "
            f"Face hub, got {str(source)!r}"
        )
    return _read_apart(asked, str(source), split, wanted, size)


def read_rows(
    asked: Mapping[str, Any],
    source: str,
    split: str | None,
    wanted: Collection[str] | None,
    is_local: bool,
) -> Rows:
    """Read rows in this process.

    Args:
      asked: arguments of `datasets.load_dataset`; with ``cache_dir`` for local data.
      source: what the user named, for errors.
      split, wanted: see `load_rows`.
      is_local: whether nothing is downloaded.

    Raises:
      FileNotFoundError, ValueError: see `load_rows`.
    """
    import datasets

    with _quiet(datasets) if is_local else contextlib.nullcontext():
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
            raise ValueError(f"split of {source!r} must be one of {sorted(rows)}, got None")
        (rows,) = rows.values()
    if not len(rows):
        raise ValueError(f"{source!r} holds no rows")
    chosen = [name for name in rows.column_names if wanted is None or name in wanted]
    return Rows(list(rows.column_names), {name: rows[name][:] for name in chosen}, len(rows))


def _draw(
    source: str, split: str | None, configuration: str | None, wanted: Collection[str] | None
) -> Rows:
    """`load_rows` of a task of reasoning-gym."""
    for name, value in (("split", split), ("configuration", configuration)):
        if value is not None:
            raise ValueError(
                f"{name} is for files and hub repositories, got {value!r} with {source!r}"
            )
    columns = draw_columns(source)
    chosen = {name: cells for name, cells in columns.items() if wanted is None or name in wanted}
    return Rows(list(columns), chosen, len(columns["problem"]))


def _read_from_hub(
    source: str, split: str | None, configuration: str | None, wanted: Collection[str] | None
) -> Rows:
    """`read_rows` of a repository on the hub; whatever goes wrong is one line."""
    try:
        return read_rows({"path": source, "name": configuration}, source, split, wanted, False)
    except (ValueError, OSError, ImportError, KeyboardInterrupt, SystemExit):
        raise
    # Libraries below `datasets`, in other languages, raise errors that are no `Exception`.
    except BaseException as error:
        raise _explained(source, error, is_local=False) from error


def _read_apart(
    asked: Mapping[str, Any],
    source: str,
    split: str | None,
    wanted: Collection[str] | None,
    size: float,
) -> Rows:
    """`read_rows` of local data in a process with limits, see the module.

    Args:
      size: of the files, in mebibytes.
    """
    seconds = BASE_SECONDS + size / MEBIBYTES_A_SECOND
    memory = BASE_MEBIBYTES + MEBIBYTES_EACH * size
    with tempfile.TemporaryDirectory() as folder:
        cache = {"cache_dir": str(Path(folder) / "cache"), "keep_in_memory": True}
        request = {
            "arguments": [{**asked, **cache}, source, split, wanted and sorted(wanted), True],
            "seconds": seconds,
            "mebibytes": memory,
            "answer": str(Path(folder) / "answer"),
        }
        start = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from experiments.llm.problems import sources; sources.serve()"
        )
        # No network for local data, whatever a dataset card names.
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
        try:
            ended = subprocess.run(
                [sys.executable, "-c", start],
                input=json.dumps(request).encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **offline, "ARROW_DEFAULT_MEMORY_POOL": "system"},
                timeout=max(LEAST_WAITING, WAITING * seconds),
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            ended = -signal.SIGXCPU
        if ended == 0:
            # The file was written by the process above, in a folder of our own.
            answer = pickle.loads((Path(folder) / "answer").read_bytes())
            if isinstance(answer, Rows):
                return answer
            kind, message = answer
            raise {"FileNotFoundError": FileNotFoundError}.get(kind, ValueError)(message)
    raise ValueError(_reason_of_end(source, ended, seconds, memory))


def _reason_of_end(source: str, ended: int, seconds: float, memory: float) -> str:
    """Explain why a reader was ended, in one line."""
    path = Path(source)
    files = _files_in(path) if path.is_dir() else _files(source)
    for file in files:
        if file.stat().st_size <= 64 * MEBI and (fault := _broken_line(file)):
            return fault
    if -ended in (signal.SIGXCPU, signal.SIGKILL):
        reason = f"it took more than {seconds:,.0f} s of a processor"
    else:
        reason = f"its reader ended with code {ended}: it is broken, or needs more than "
        reason += f"{memory:,.0f} MiB of memory"
    return f"{source!r} cannot be read as a data set ({reason})"


def serve() -> None:
    """Body of the process that reads local data: request on standard input, answer in a file."""
    request = json.load(sys.stdin)
    import datasets  # noqa: F401 (loaded before the limits count)

    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    seconds, memory = int(used + request["seconds"]) + 1, int(request["mebibytes"] * MEBI)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 2))
    for limit in (resource.RLIMIT_DATA, resource.RLIMIT_FSIZE):
        resource.setrlimit(limit, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        answer: Rows | tuple[str, str] = read_rows(*request["arguments"])
        written = pickle.dumps(answer)
    except (MemoryError, RecursionError):
        source = request["arguments"][1]
        message = f"{source!r} cannot be read as a data set (it needs more than "
        message += f"{request['mebibytes']:,.0f} MiB of memory, or is nested too deeply)"
        written = pickle.dumps(("ValueError", message))
    except Exception as error:
        message = " ".join(str(error).split())
        kind = type(error).__name__
        written = pickle.dumps((kind, message if len(message) < 1000 else message[:997] + "..."))
    Path(request["answer"]).write_bytes(written)
    # Without the exit handlers of libraries, which may hang in what is left of memory.
    os._exit(0)


def is_hub_id(source: PathLike) -> bool:
    """See `experiments.storage.checkpoint.is_hub_id`; imported late, as that module has JAX."""
    from experiments.storage import checkpoint

    return checkpoint.is_hub_id(source)


def _files_in(folder: Path) -> list[Path]:
    """Everything in a folder but folders, hidden ones left out."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place) / name for name in sorted(names) if not name.startswith(".")]
        if len(found) > MOST_FILES:
            raise ValueError(f"{str(folder)!r} must hold at most {MOST_FILES:,} files")
    return found


def _checked_size(files: Iterable[Path]) -> float:
    """Size of files in mebibytes; refuses pipes, devices, and more than the memory holds."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / MEBI
    total = 0.0
    for file in files:
        check_file(file, most_mebibytes=int(memory))
        total += file.stat().st_size / MEBI
    if total > memory:
        raise ValueError(f"files must fit into the memory, {memory:,.0f} MiB, got {total:,.0f} MiB")
    return total


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


def _explained(source: PathLike, error: BaseException, is_local: bool) -> Exception:
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
            f"({type(error).__name__}: {' '.join(str(error).split())[:500]})"
        )
    reason = error.__cause__ or error
    text = " ".join(str(reason).split()) or type(reason).__name__
    return ValueError(f"{str(source)!r} cannot be read as a data set ({text[:500]})")


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
        except RecursionError:
            return f"{str(path)!r} is nested too deeply to be read"
        except ValueError as error:
            if contents.lstrip()[:1] == b"[":
                return f"line {getattr(error, 'lineno', 1)} of {str(path)!r} is {_fault(error)}"
    # Otherwise every line must be an object.
    for number, line in enumerate(contents.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except RecursionError:
            return f"line {number} of {str(path)!r} is nested too deeply to be read"
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
