"""Export iGSM as a data set of chats that `datasets.load_dataset` reads.

A directory of files, one per stream and difficulty::

    README.md         dataset card; its YAML header names the configurations
    manifest.json     settings, seed, counts, and for each session commit, versions and time
    base/op02.jsonl   training data of a base
    train/op06.jsonl  fine-tuning data; a smaller data size is a prefix of it
    test/op02.jsonl   test problems

Each row is one chat (`messages`), with its parts beside it: problem, solution, answer, difficulty
(operations) and index (position in its stream). The defaults are the paper's grid.

The three streams have keys of their own, split from one seed. A problem counts as repeated if its
sentences are those of another one in any order.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import multiprocessing
import warnings
from collections.abc import Iterator, Set
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from rich.console import Console

from experiments.engine.progress import console as default_console
from experiments.engine.run import run_study
from experiments.engine.study import Output, Part, Study
from experiments.engine.workload import Workload
from experiments.igsm.card import card, count_rows
from experiments.igsm.config import ExportConfig, ProblemFile, Stream
from experiments.igsm.files import (
    Row,
    chat_row,
    fingerprint,
    read_rows,
    training_fingerprints,
    write_rows,
)
from experiments.igsm.workload import ExportWorkload
from experiments.interrupts import live_with_parent
from experiments.storage.results import ResultsError, read_manifest
from experiments.storage.writing import write_atomically
from synth.tasks import igsm
from synth.tasks.igsm.problems import DEGENERATE

BLOCK = 64
"""Rows that a process draws and verifies at a time."""
MOST_DRAWN = 20
"""Give up on a test file that so many draws for each of its rows have not filled."""
CARD = "README.md"


def export_igsm(
    config: ExportConfig, out: Path, *, processes: int = 1, console: Console = default_console
) -> dict[str, Any]:
    """Write the data set to a directory, or carry on with the same export there.

    Args:
      config: the export's settings.
      out: a new or empty directory, or one that holds the same export, finished or not.
      processes: number of processes that draw and verify; the rows do not depend on it.
      console: shows progress.

    Returns:
      The manifest.

    Raises:
      ResultsError: if `out` is in use or holds something else, or a row fails the verifier.
      ValueError: if `processes` is below 1, the preset does not reach a difficulty, or a test file
        cannot be filled with new problems.
    """
    if processes < 1:
        raise ValueError(f"processes must be at least 1, got {processes}")
    for file in config.files:
        # Draw one problem of each file, so that a level beyond the preset is refused at once.
        next(_draw(config, file, range(1)))
    levels = sorted({file.difficulty for file in config.files})
    few = [level for level in levels if level <= DEGENERATE]
    if config.split == "template" and few:
        console.print(
            f"difficulties {', '.join(map(str, few))} have so few templates that the "
            f"split separates kinds of problems there, not problems.",
            style="yellow",
        )
    with _workers(processes) as workers:
        run_study(Export(config, out, workers), on=console)
    return read_manifest(out)


class Export(Study):
    """Parts: files for bases and training, then files for the test, then the dataset card."""

    unit = "problems"

    def __init__(
        self,
        config: ExportConfig,
        directory: Path,
        workers: Executor | None = None,
        *,
        processes: int = 1,
    ):
        """Name the files; a plan wants to know how many `processes` the workers are."""
        self._processes = processes
        self.config, self.directory, self._workers = config, directory, workers
        self._files = {file.path: file for file in config.files}
        self._readable: set[str] = set()

    @property
    def identity(self) -> Row:
        """The exporter's name and its settings."""
        settings = dataclasses.asdict(self.config)
        return {"exporter": "sweetspot tasks export igsm", "settings": settings}

    def stages(self) -> list[list[Part]]:
        """A deduplicated test needs all files of bases and training; the card needs every file."""
        base_and_training, test = (
            [
                Part(path, path, files=(path,), weight=file.size)
                for path, file in self._files.items()
                if (file.stream == "test") == is_test
            ]
            for is_test in (False, True)
        )
        return [base_and_training, test, [Part("card", files=(CARD,), weight=0)]]

    def workload(self) -> Workload:
        """Problems to draw and verify, and bytes of the files."""
        return ExportWorkload(
            self._files,
            lambda file, number: _block(self.config, file, range(number)),
            self._processes,
        )

    def make(self, part: Part) -> Output:
        """Draw the rows of a file, or count the rows of all files for the card."""
        if part.name == "card":
            counts = count_rows(self.directory, self.config.files)
            text = card(self.config, counts)
            return Output(files={CARD: partial(_write_text, text)}, manifest={"files": counts})
        file = self._files[part.name]
        is_deduplicated = file.stream == "test" and self.config.split == "deduplicated"
        seen = self._seen if is_deduplicated else set()
        rows = list(_new_rows(self.config, file, seen, self._workers))
        return Output(files={file.path: partial(write_rows, rows=rows, form=file.format)})

    def has_file(self, path: str) -> bool:
        """Return whether a file is there; an unreadable one is an error.

        Raises:
          ResultsError: if it cannot be read.
        """
        is_there = super().has_file(path)
        if path == CARD:
            # Earlier versions wrote the card before the counts.
            return is_there and "files" in read_manifest(self.directory)
        if is_there and path not in self._readable:
            read_rows(self.directory / path)
            self._readable.add(path)
        return is_there

    @functools.cached_property
    def _seen(self) -> set[bytes]:
        """Fingerprints of all problems for bases and training."""
        return training_fingerprints(self.directory, self.config.files)


def _write_text(text: str, path: Path) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def stream_seed(seed: int, stream: Stream) -> int:
    """The seed of one stream, split from the export's: 64 bits."""
    position = get_args(Stream).index(stream)
    words = np.random.SeedSequence(seed, spawn_key=(position,)).generate_state(1, np.uint64)
    return int(words[0])


def _draw(config: ExportConfig, file: ProblemFile, numbers: range) -> Iterator[igsm.Problem]:
    """Draw the problems of a file's stream that have these consecutive numbers."""
    split: Literal["train", "test"] | None = None
    if config.split == "template":
        split = "test" if file.stream == "test" else "train"
    with warnings.catch_warnings():
        # `export_igsm` warns once; the generator would warn for every file.
        warnings.simplefilter("ignore", UserWarning)
        return igsm.problems(
            file.difficulty,
            len(numbers),
            seed=stream_seed(config.seed, file.stream),
            preset=config.preset,
            split=split,
            start=numbers.start,
        )


def _block(config: ExportConfig, file: ProblemFile, numbers: range) -> list[Row]:
    """Rows of consecutive draws, accepted by the verifier if `config` says so.

    Raises:
      ResultsError: at the first row that it rejects.
    """
    draws = zip(_draw(config, file, numbers), numbers, strict=True)
    rows = [chat_row(problem, number) for problem, number in draws]
    for row in rows if config.verify else ():
        verdict = igsm.verify(
            row["problem"],
            row["messages"][-1]["content"],
            modulus=config.modulus,
            categories=igsm.CATEGORIES,
        )
        if not verdict.ok:
            raise ResultsError(
                f"problem {row['index']} of difficulty {row['difficulty']} fails the verifier: "
                f"{verdict.reason} ({verdict.sentence})"
            )
    return rows


def _new_rows(
    config: ExportConfig, file: ProblemFile, seen: Set[bytes], workers: Executor | None
) -> Iterator[Row]:
    """The rows of a file: the first draws of its stream whose problems have not been seen.

    Raises:
      ResultsError: if the verifier rejects a row.
      ValueError: if too few problems are new.
    """
    draw, mapped = partial(_block, config, file), map if workers is None else workers.map
    new, drawn = 0, 0
    while new < file.size:
        if drawn >= MOST_DRAWN * file.size:
            raise ValueError(
                f"split 'deduplicated' needs {file.size} test problems of difficulty "
                f"{file.difficulty} that training does not have, got {new} among the first "
                f"{drawn}; ask for fewer, or for another split"
            )
        numbers = range(drawn, drawn + file.size - new)
        drawn = numbers.stop
        blocks = [numbers[at : at + BLOCK] for at in range(0, len(numbers), BLOCK)]
        for rows in mapped(draw, blocks):
            for row in rows:
                if not seen or fingerprint(row["problem"]) not in seen:
                    new += 1
                    yield row


@contextlib.contextmanager
def _workers(processes: int) -> Iterator[Executor | None]:
    """Processes that draw and verify; None for one process, which is this one."""
    if processes == 1:
        yield None
        return
    # Not forked: JAX has threads in this process.
    context = multiprocessing.get_context("spawn")
    workers = ProcessPoolExecutor(processes, mp_context=context, initializer=live_with_parent)
    try:
        yield workers
    finally:
        workers.shutdown(cancel_futures=True)
