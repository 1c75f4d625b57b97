"""A worker: a process on some machine that makes parts of a study, as the cluster asks it to.

Nothing here imports JAX before the worker's environment is set: XLA reads its flags only once.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import shutil
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.engine.parcel import Folder, Parcel
from experiments.engine.study import Output, Part, Study

SCRATCH = "sweetspot-worker-"
"""Prefix of a worker's scratch folder; the number of its process follows."""


@dataclass(frozen=True)
class Made:
    """What a worker sends back for a part.

    Attributes:
      output: of the part; its files are parcels. None if `make` raised an exception.
      error: that exception.
      fields: the worker's own fields for the session, of all its parts so far.
    """

    output: Output | None
    error: Exception | None
    fields: Mapping[str, Any]


class Maker:
    """Makes parts. The study, and with it compiled programs, live as long as the process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Set up the process.

        Args:
          environment: variables to set before JAX is imported.
        """
        os.environ.update(environment)
        _remove_abandoned()
        prefix = f"{SCRATCH}{os.getpid()}-"
        self._scratch = Path(tempfile.mkdtemp(prefix=prefix))
        self._study: Study | None = None
        self._is_away = False

    def prepare(
        self, study: Study | None, shared: Mapping[str, Any], marker: Path
    ) -> tuple[str, ...]:
        """Take over what the parts of a stage share.

        Args:
          study: the study; None for the same as at the last call.
          shared: see `Study.shared`; folders stand as `Folder`.
          marker: a file in the directory of the study. A worker that sees it works there.

        Returns:
          Names of folders that this machine does not see: `receive` is called for them.
        """
        if study is not None:
            self._study = study
            self._is_away = not marker.exists()
            study.is_away = self._is_away
            if self._is_away:
                study.directory = self._scratch / "run"
                study.directory.mkdir(exist_ok=True)
        missing = []
        for name, value in shared.items():
            if not isinstance(value, Folder):
                setattr(self._study, name, value)
            elif value.is_here():
                setattr(self._study, name, value.path)
            else:
                missing.append(name)
        return tuple(missing)

    def receive(self, names: Sequence[str], *parcels: Parcel) -> None:
        """Write shared folders that this machine does not see into the scratch folder."""
        for name, parcel in zip(names, parcels, strict=True):
            path = self._scratch / name
            shutil.rmtree(path, ignore_errors=True)
            parcel.write(path)
            setattr(self._study, name, path)

    def make(self, part: Part) -> Made:
        """Make a part, and pack its files."""
        study = self._study
        assert study is not None  # `prepare` comes first
        try:
            with study.phases.running():
                output = study.make(part)
                with (
                    study.phases("write"),
                    tempfile.TemporaryDirectory(dir=self._scratch) as folder,
                ):
                    files = _packed(output.files, Path(folder))
            if self._is_away:
                # Files that `make` itself left in its directory, and that are no checkpoint of it.
                left = {path for path in part.files if study.has_file(path)} - files.keys()
                files |= {path: Parcel.of(study.directory / path) for path in left}
                study.kept(part)
        except Exception as error:
            return Made(None, _portable(error, traceback.format_exc()), self._fields())
        writers = {path: parcel.write for path, parcel in files.items()}
        return Made(dataclasses.replace(output, files=writers), None, self._fields())

    def close(self) -> None:
        """Remove the scratch folder."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _fields(self) -> dict[str, Any]:
        from experiments.storage import provenance

        assert self._study is not None
        fields = {"device": provenance.device_name(), "phases": self._study.phases.told()}
        return {**fields, **self._study.session_fields()}


def _packed(files: Mapping[str, Callable[[Path], object]], folder: Path) -> dict[str, Parcel]:
    """Let the functions write their files into a folder, and read them."""
    parcels = {}
    for number, (path, write) in enumerate(files.items()):
        place = folder / str(number) / Path(path).name
        place.parent.mkdir()
        write(place)
        parcels[path] = Parcel.of(place)
    return parcels


def _portable(error: Exception, words: str) -> Exception:
    """The exception as it can be sent: itself, or one that says its type and message.

    The worker's traceback goes along as a note, which no message on one line shows.
    """
    try:
        sent = pickle.loads(pickle.dumps(error))
    except Exception:
        sent = RuntimeError(f"{type(error).__name__}: {error}")
    sent.add_note(f"In a worker on {os.uname().nodename}:\n{words}")
    return sent


def _remove_abandoned() -> None:
    """Remove scratch folders of workers that were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*-*"):
        number = path.name.removeprefix(SCRATCH).split("-")[0]
        if number.isdigit() and not _runs(int(number)):
            shutil.rmtree(path, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
