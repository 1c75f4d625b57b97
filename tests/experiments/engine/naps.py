"""A study whose parts take a moment, and say which process on which node makes them."""

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


def write_text(text: str, path: Path) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text))


@dataclass
class Naps(Study):
    """Naps of some seconds each, after a file that all of them read.

    Attributes:
      notes: folder, outside of the study's directory, with a file for every part that was begun.
      number: of naps; a nap with the number `failing` raises a ValueError.
    """

    directory: Path
    notes: Path
    number: int = 6
    seconds: float = 0.5
    failing: int = -1

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
