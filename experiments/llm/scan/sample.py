"""Problems and checkpoint of a scan before it runs: those that are there, or a sample of them."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from rich.console import Console

from experiments.engine.progress import console
from experiments.engine.workload import Program, Speed
from experiments.igsm.config import ExportConfig, Stream
from experiments.igsm.export import export_igsm
from experiments.llm.difficulty.measures import OF_MODEL
from experiments.llm.scan.data import ScanProblems, read_stream
from experiments.llm.scan.levels import Levels, measure_problems
from experiments.llm.text.tokenizer import load_tokenizer
from experiments.llm.training.config import ScratchConfig
from experiments.llm.training.scratch import learn_tokenizer, new_checkpoint
from experiments.llm.training.work import resampled

if TYPE_CHECKING:
    from experiments.llm.scan.study import ScanStudy

SAMPLE = 64
"""Problems of each exported file that a plan draws."""

EXPORTING, LEARNING, ENCODING = (
    Program(name, is_compiled=False)
    for name in ("exporting problems", "training the tokenizer", "encoding problems")
)


class Sample:
    """What a plan is made from.

    Attributes:
      problems: of the scan; those that were sampled are repeated up to their number.
      levels: of the problems.
      start: folder of the checkpoint, or of a new one.
      speeds: how fast the sample was made.
      bytes_each: of an exported problem on the disk; 0 if none were exported.
    """

    def __init__(self, study: ScanStudy, scratch: Path):
        """Sample into a folder what is not in the study's directory."""
        self._study, self._config, self._scratch = study, study.config, scratch
        self.speeds: dict[Program, Speed] = {}
        self.bytes_each = 0.0
        self._prepare()

    def _prepare(self) -> None:
        """Sample problems and checkpoint, as far as they are not in the study's directory."""
        config, study = self._config, self._study
        directory = study.directory
        if config.export is not None and not (directory / "data" / "README.md").exists():
            directory = self._scratch
            self._export(config.export)
        start = study.directory / "scratch"
        if config.base.scratch is None:
            start = study.start
        elif not start.exists():
            start = self._scratch / "scratch"
            self._learn(config.base.scratch, directory, start)
        self.start = start
        found = self._read(directory)
        is_sample = directory == self._scratch
        self.problems = self._repeated(found, config.export) if is_sample else found
        self.levels = Levels.cut(self.problems, self._measures())

    def _learn(self, scratch: ScratchConfig, directory: Path, start: Path) -> None:
        """Make the checkpoint, and train its tokenizer once more, which is what grows with data."""
        base = read_stream(self._config, directory, "base")
        whole = _seconds(lambda: new_checkpoint(scratch, base, start))
        again = _seconds(lambda: learn_tokenizer(scratch, base))
        self._keep(LEARNING, len(base), whole, again)

    def _read(self, directory: Path) -> ScanProblems:
        """Read and encode the problems, twice: the first time loads libraries."""
        found: list[ScanProblems] = []

        def read() -> None:
            found.append(ScanProblems.read(self._config, directory, self.start))

        whole, again = _seconds(read), _seconds(read)
        again -= _seconds(lambda: load_tokenizer(self.start))
        number = len(found[0].train) + len(found[0].test) + len(found[0].base or ())
        self._keep(ENCODING, number, whole, again)
        return found[0]

    def _keep(self, program: Program, amount: int, whole: float, again: float) -> None:
        """Keep how fast a program is: what only the first call takes does not grow with data."""
        again = max(again, 1e-6)
        self.speeds[program] = Speed(max(whole - again, 0.0), amount / again)

    def _export(self, export: ExportConfig) -> None:
        """Export a sample in one process."""
        least = {
            name: tuple(min(SAMPLE, file.size) for file in export.files if file.stream == stream)
            for name, stream in (("train_sizes", "train"), ("base_sizes", "base"))
        }
        base_sizes = least["base_sizes"] or export.base_sizes
        few = dataclasses.replace(
            export,
            train_sizes=least["train_sizes"],
            base_sizes=base_sizes,
            test_examples=min(SAMPLE, export.test_examples),
        )
        out, quiet = self._scratch / "data", Console(file=io.StringIO())
        seconds = _seconds(lambda: export_igsm(few, out, processes=1, console=quiet))
        self._keep(EXPORTING, sum(file.size for file in few.files), seconds, seconds)
        kept = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        self.bytes_each = kept / sum(file.size for file in few.files)

    def _repeated(self, found: ScanProblems, export: ExportConfig | None) -> ScanProblems:
        """Repeat sampled problems until there are as many as the scan would export."""
        assert export is not None  # only exported problems are sampled
        streams: tuple[Stream, ...] = ("train", "test", "base")
        sizes = {
            stream: {f.difficulty: f.size for f in export.files if f.stream == stream}
            for stream in streams
        }

        def chosen(levels: Sequence[int | None], counts: Mapping[int, int]) -> np.ndarray:
            stated = np.array(levels)
            own = [(np.flatnonzero(stated == level), count) for level, count in counts.items()]
            return np.concatenate([np.resize(rows, count) for rows, count in own if len(rows)])

        train = chosen(found.train.ops, sizes["train"])
        test = chosen(found.test.ops, sizes["test"])
        base = found.base
        if base is not None:
            stated = read_stream(self._config, self._scratch, "base").ops
            levels = [stated[row] for row in base.rows]
            known = sorted(sizes["base"])
            groups = [known.index(int(level or 0)) for level in levels]
            base = resampled(base, [sizes["base"][level] for level in known], groups)
        return dataclasses.replace(
            found,
            train=found.train.take(train),
            encoded=found.encoded.take(train),
            base=base,
            test=found.test.take(test),
        )

    def _measures(self) -> dict[str, pd.DataFrame]:
        """Measures of the problems; made up if a model has to be asked for them."""
        if self._config.measure not in OF_MODEL:
            return measure_problems(self.problems, self.problems.tokenizer)
        generator = np.random.default_rng(0)
        return {
            stream: pd.DataFrame(
                {"row": np.arange(len(own)), self._config.measure: generator.uniform(size=len(own))}
            )
            for stream, own in (("train", self.problems.train), ("test", self.problems.test))
        }


def _seconds(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Say nothing about a sample, whose numbers are not those of the study."""
    was, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = was
