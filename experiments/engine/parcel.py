"""Files and folders on their way between machines that share no file system."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from experiments.storage.writing import write_atomically


@dataclass(frozen=True)
class Parcel:
    """The content of a file, or of all files in a folder, in memory.

    Attributes:
      content: bytes of each file by its path in the folder; a file alone has the path "".
    """

    content: Mapping[str, UInt8[np.ndarray, " bytes"]]

    @classmethod
    def of(cls, path: Path) -> Parcel:
        """Read a file, or a folder with all folders in it."""
        if path.is_file():
            return cls({"": np.fromfile(path, np.uint8)})
        files = sorted(each for each in path.rglob("*") if each.is_file())
        return cls({str(each.relative_to(path)): np.fromfile(each, np.uint8) for each in files})

    def write(self, path: Path) -> None:
        """Write it to `path`, whole or not at all.

        A file replaces what is there; a folder that is there was written by an earlier session, and
        is left as it is.
        """
        if "" in self.content:
            write_atomically(path, self.content[""].tofile)
            return
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            for name, content in self.content.items():
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                with open(partial / name, "wb") as file:
                    file.write(content.data)
                    # A crash must not leave a named, empty file.
                    file.flush()
                    os.fsync(file.fileno())
            partial.chmod(0o755)
            partial.rename(path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


@dataclass(frozen=True)
class Folder:
    """A folder of files on some machine, and what tells it from another folder of the same path.

    Attributes:
      path: of the folder.
      files: name, size in bytes and time of change in nanoseconds of each file directly in it.
    """

    path: Path
    files: tuple[tuple[str, int, int], ...]

    @classmethod
    def of(cls, path: Path) -> Folder:
        """Look at a folder; folders in it do not belong to it."""
        path = path.absolute()
        files = sorted(each for each in path.iterdir() if each.is_file())
        stats = [(each.name, each.stat()) for each in files]
        return cls(path, tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats))

    def is_here(self) -> bool:
        """Return whether this process sees the folder, with the same files, under its path."""
        return self.path.is_dir() and Folder.of(self.path) == self

    def parcel(self) -> Parcel:
        """Read its files."""
        return Parcel({name: np.fromfile(self.path / name, np.uint8) for name, *_ in self.files})
