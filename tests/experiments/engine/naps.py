"""A study whose parts take a moment, and say which process makes them."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.engine.study import Output, Part, Study
from experiments.storage.writing import write_atomically

PATIENCE = 300.0
"""Seconds after which a nap ends although too few processes have begun one."""


def write_text(text: str, path: Path) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text))


@dataclass
class Naps(Study):
    """Naps of some seconds each, after a file that all of them read.

    Attributes:
      notes: folder, outside of the study's directory, with a file for every part that was begun.
      number: of naps; a nap with the number `failing` raises a ValueError.
      seconds: that a nap takes at least.
      processes: a nap after the first two goes on until so many processes have begun one, or
        `wake_up` was called. A test that waits for a worker so does not depend on how long this
        machine takes to start it, and knows who is in the midst of a nap (see `asleep`).
    """

    directory: Path
    notes: Path
    number: int = 6
    seconds: float = 0.5
    failing: int = -1
    processes: int = 0

    @property
    def identity(self) -> dict[str, Any]:
        return {"kind": "naps", "number": self.number}

    def stages(self) -> list[list[Part]]:
        naps = [Part(f"nap{number}", f"nap {number}", ("table",)) for number in range(self.number)]
        return [
            [Part("here", stays=True)],
            [Part("bed", files=("bed", "pillow.txt"))],
            naps,
        ]

    def shared(self, parts: Any) -> dict[str, Any]:
        return {"bed": self.directory / "bed"} if parts[0].name.startswith("nap") else {}

    @property
    def bed(self) -> Path:
        return self._bed if hasattr(self, "_bed") else self.directory / "bed"

    @bed.setter
    def bed(self, path: Path) -> None:
        self._bed = path

    def make(self, part: Part) -> Output:
        self._note(part)
        if part.name == "here":
            return Output()
        if part.name == "bed":
            # One file is left in the directory, as some studies do; the other is handed over.
            (self.directory / "bed" / "under").mkdir(parents=True)
            (self.directory / "bed" / "sheet.txt").write_text("white")
            return Output(files={"pillow.txt": partial(write_text, "soft")})
        number = int(part.name.removeprefix("nap"))
        if number == self.failing:
            raise ValueError(f"failing must not be made, got {number}")
        sheet = (self.bed / "sheet.txt").read_text()
        time.sleep(self.seconds)
        end = time.monotonic() + PATIENCE
        while number > 1 and not self._may_wake() and time.monotonic() < end:
            time.sleep(0.1)
        return Output({"table": pd.DataFrame({"nap": [number], "sheet": [sheet]})})

    def session_fields(self) -> dict[str, int]:
        return {"naps": 1}

    def _note(self, part: Part) -> None:
        note = {"part": part.name, "process": os.getpid(), "away": self.is_away}
        path = self.notes / f"{part.name}-{os.getpid()}-{time.time_ns()}.json"
        write_atomically(path, lambda temporary: temporary.write_text(json.dumps(note)))

    def begun(self) -> list[dict[str, Any]]:
        """What was noted so far."""
        return [json.loads(path.read_text()) for path in sorted(self.notes.glob("*.json"))]

    def nappers(self) -> set[int]:
        """Processes that have begun a nap."""
        return {note["process"] for note in self.begun() if note["part"].startswith("nap")}

    def asleep(self) -> dict[int, str]:
        """Processes in a nap after the first two, each with its nap; right until they may wake."""
        return {
            note["process"]: note["part"]
            for note in self.begun()
            if note["part"].startswith("nap") and note["part"] not in ("nap0", "nap1")
        }

    def wake_up(self) -> None:
        """Let all naps end."""
        (self.notes / "awake").touch()

    def _may_wake(self) -> bool:
        return (self.notes / "awake").exists() or len(self.nappers()) >= self.processes
