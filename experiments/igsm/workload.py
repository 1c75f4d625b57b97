"""The work of an export: problems that are drawn and verified, and their bytes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence

from experiments.engine.study import Part
from experiments.engine.workload import Program, Speed, Work, Workload
from experiments.igsm.config import ProblemFile
from experiments.igsm.files import Row

FEW = 32
"""Problems of a difficulty that are drawn to time it."""

CARD_BYTES, COMPRESSED = 4_000, 0.35
"""Bytes of card and manifest, and share of a row's text that is left in a Parquet file."""


class ExportWorkload(Workload):
    """Problems by file; a program stands for a difficulty, whose problems take equally long.

    Args:
      files: those of the export by the name of their part.
      draw: draws and verifies the first rows of a file.
      processes: how many draw.
    """

    def __init__(
        self,
        files: dict[str, ProblemFile],
        draw: Callable[[ProblemFile, int], Sequence[Row]],
        processes: int,
    ):
        self._files, self._draw, self._processes = files, draw, processes
        self._bytes: dict[int, float] = {}

    def _program(self, file: ProblemFile) -> Program:
        level = file.difficulty
        return Program("drawing problems", f"difficulty {level}", level, is_compiled=False)

    def work(self, part: Part) -> Sequence[Work]:
        """The problems of a file, shared by the processes."""
        if part.name not in self._files:
            return []
        file = self._files[part.name]
        return [Work(self._program(file), file.size / self._processes)]

    def disk(self, part: Part) -> float:
        """Bytes of a file, from a few rows of it."""
        if part.name not in self._files:
            return CARD_BYTES
        file = self._files[part.name]
        share = 1.0 if file.format == "jsonl" else COMPRESSED
        return share * file.size * self._row_bytes(file)

    def _row_bytes(self, file: ProblemFile) -> float:
        level = file.difficulty
        if level not in self._bytes:
            rows = self._draw(file, min(FEW, file.size))
            texts = [json.dumps(row, ensure_ascii=False) for row in rows]
            self._bytes[level] = sum(len(text.encode()) + 1 for text in texts) / len(rows)
        return self._bytes[level]

    def measure(self, program: Program) -> Speed:
        """Draw and verify a few problems of a difficulty, in this process."""
        file = next(file for file in self._files.values() if self._program(file) == program)
        number = min(FEW, file.size)
        start = time.monotonic()
        self._draw(file, number)
        return Speed(0.0, number / (time.monotonic() - start))
