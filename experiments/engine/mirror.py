"""A copy of a run directory at a URL, kept up to date as parts are finished.

Files are copied in the order in which they were written, and the manifest last (a new mirror begins
with it). A part counts as
finished by the file that was written last of it, so that a copy that was cut off can be carried on
with like a run that was. Each file is copied under another name and then moved.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec

from experiments.engine.progress import console
from experiments.errors import ExpectedError
from experiments.storage.results import MANIFEST

if TYPE_CHECKING:
    from experiments.engine.run import Executor

UNDER_WAY = "work"
"""Folder of a run with checkpoints of parts that are not finished."""
IDENTITY = ("kind", "recipe", "preset", "config")
"""Fields of the manifest by which two runs are told apart, where they have them."""


class Mirror:
    """The copy of one run directory."""

    def __init__(self, url: str, directory: Path):
        """Open the file system of the URL.

        Raises:
          ImportError: if a package for its protocol is missing.
          ValueError: if its protocol is unknown.
          ExpectedError: if it cannot be listed.
        """
        self._url, self._directory = url.rstrip("/"), directory
        self._files, root = fsspec.core.url_to_fs(self._url)
        self._root = root.rstrip("/")
        try:
            self._sizes = self._there()
        # Every file system has errors of its own.
        except Exception as error:
            raise ExpectedError(f"mirror {url} cannot be listed: {_line(error)}") from error
        self._copied: dict[str, tuple[int, int]] = {}
        self._failure = ""

    def copy_down(self) -> None:
        """Copy everything into the run directory if it is missing or empty.

        Raises:
          ExpectedError: if a file cannot be copied, or directory and mirror hold different runs.
        """
        if self._visible():
            self._check_same_run()
            return
        if not self._sizes:
            return
        # Into a folder beside it first: a copy that is cut off must not look like a run.
        parent = self._directory.absolute().parent
        parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{self._directory.name}.", dir=parent))
        try:
            for name in self._sizes:
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                self._files.get_file(f"{self._root}/{name}", str(partial / name))
            partial.chmod(0o755)
            shutil.rmtree(self._directory, ignore_errors=True)
            partial.rename(self._directory)
        except Exception as error:
            raise ExpectedError(
                f"mirror {self._url} cannot be copied to {self._directory}: {_line(error)}"
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        self._copied = {name: _state(path) for name, path in self._visible().items()}
        console.print(f"Copied {len(self._sizes)} files from {self._url}.", highlight=False)

    def after_each_part(self, executor: Executor) -> Executor:
        """The same executor, which copies what is finished whenever a part has been kept."""

        def mirrored(study: Any, parts: Sequence[Any], started: Any) -> Iterator[Any]:
            for made in executor(study, parts, started):
                yield made
                # The engine has written this part when it asks for the next one.
                self.copy_up()

        return mirrored

    def copy_up(self) -> None:
        """Copy files that are new or have changed.

        A failure is shown and tried again after the next part: the run itself goes on.
        """
        changed = [
            (state, name)
            for name, path in self._visible().items()
            if (state := _state(path)) != self._copied.get(name)
        ]
        # Without a manifest the copy would not be a run.
        is_new = not ({MANIFEST} & (self._sizes.keys() | self._copied.keys()))
        changed.sort(key=lambda entry: ((entry[1] == MANIFEST) != is_new, entry[0][1]))
        for state, name in changed:
            # An earlier session copied it. What is written anew is copied at any size.
            was_copied = not self._copied.get(name) and self._sizes.get(name) == state[0]
            try:
                if not (was_copied and name.startswith("parts/")):
                    self._put(name)
            except Exception as error:
                self._failure = f"{name} cannot be copied to {self._url}: {_line(error)}"
                console.print(self._failure, style="yellow")
                return
            self._copied[name] = state
        self._failure = ""

    def finish(self) -> None:
        """Copy the rest at the end of a run.

        Raises:
          ExpectedError: if it cannot be copied.
        """
        self.copy_up()
        if self._failure:
            raise ExpectedError(
                f"the run is in {self._directory}, but its mirror is not up to date: "
                f"{self._failure}. Repeat the command to copy the rest."
            )

    def _put(self, name: str) -> None:
        target = f"{self._root}/{name}"
        folder, _, last = target.rpartition("/")
        partial = f"{folder}/.{last}.{os.getpid()}"
        self._files.makedirs(folder, exist_ok=True)
        try:
            self._files.put_file(str(self._directory / name), partial)
            self._files.mv(partial, target)
        except BaseException:
            if self._files.exists(partial):
                self._files.rm_file(partial)
            raise

    def _there(self) -> dict[str, int]:
        """Size of each file at the URL, by its path."""
        # Another process may have written since a listing was cached.
        self._files.invalidate_cache()
        if not self._files.exists(self._root):
            return {}
        found = self._files.find(self._root, detail=True)
        start = self._files._strip_protocol(self._root).rstrip("/") + "/"
        named = {path.removeprefix(start): entry["size"] for path, entry in found.items()}
        return {name: size for name, size in named.items() if _is_visible(Path(name))}

    def _visible(self) -> dict[str, Path]:
        """Files of the run directory that belong to finished parts, by their path in it."""
        paths = sorted(self._directory.rglob("*")) if self._directory.is_dir() else []
        named = {path.relative_to(self._directory): path for path in paths if path.is_file()}
        return {name.as_posix(): path for name, path in named.items() if _is_visible(name)}

    def _check_same_run(self) -> None:
        if MANIFEST not in self._sizes or not (self._directory / MANIFEST).exists():
            return
        own = json.loads((self._directory / MANIFEST).read_text())
        there = json.loads(self._files.cat_file(f"{self._root}/{MANIFEST}"))
        if differing := [name for name in IDENTITY if own.get(name) != there.get(name)]:
            raise ExpectedError(
                f"mirror {self._url} holds another run than {self._directory}; "
                f"it differs in {', '.join(differing)}"
            )


def _is_visible(path: Path) -> bool:
    """False for the lock, files that are half written, and checkpoints of unfinished parts."""
    return path.parts[0] != UNDER_WAY and not any(part.startswith(".") for part in path.parts)


def _state(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
