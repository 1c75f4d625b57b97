"""The work of a scan: export and encoding of problems, the base, and every member.

Problems that a scan exports are not there before it runs. A plan draws a sample of each file in a
temporary directory, and repeats it up to the number that the scan would export.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Int
from rich.console import Console

from experiments.devices import num_cores
from experiments.engine.progress import console
from experiments.engine.study import Part
from experiments.engine.workload import Program, Speed, Work, Workload
from experiments.igsm.config import ExportConfig, Stream
from experiments.igsm.export import export_igsm
from experiments.llm.answering.model import Model
from experiments.llm.answering.work import Asking
from experiments.llm.difficulty.measures import OF_MODEL
from experiments.llm.scan.data import ScanProblems, read_stream
from experiments.llm.scan.grid import Member
from experiments.llm.scan.levels import Levels, measure_problems
from experiments.llm.text.encoding import Encoded, encode
from experiments.llm.training.config import TrainingConfig
from experiments.llm.training.scratch import new_checkpoint
from experiments.llm.training.work import Trainings, kept_bytes, resampled

if TYPE_CHECKING:
    from experiments.llm.scan.study import ScanStudy

SAMPLE = 64
"""Problems of each exported file that a plan draws."""

FILE_BYTES, ROW_BYTES, LOG_BYTES = 9_000, 14, 170
"""Measured: bytes of a part without rows, of a row of the table, and of a step's line in a log."""

COMPRESSED = 0.25
"""Bytes of kept responses for each character, about."""

EXPORTING, LEARNING, ENCODING = (
    Program(name, is_compiled=False)
    for name in ("exporting problems", "training the tokenizer", "encoding problems")
)


class ScanWorkload(Workload):
    """Work by part, from problems that are there or sampled."""

    assumptions = (
        "Tokens are those that models are trained on and those that they answer with; answers are "
        "taken to be as long as the reference solutions.",
        "On a named device training is taken to reach 40% of the bfloat16 peak, and decoding 5%.",
    )

    def __init__(self, study: ScanStudy):
        self._study, self._config = study, study.config
        mesh = study.mesh
        self.num_devices = 1 if mesh is None else mesh.devices.size
        self._members = {member.name: member for member in study.config.members}
        self._speeds: dict[Program, Speed] = {}
        self._sampled_bytes = 0.0

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Hold a temporary directory with a sample of what is not there yet."""
        with tempfile.TemporaryDirectory() as scratch, _silence():
            self._scratch = Path(scratch)
            self._prepare()
            yield

    # Problems.

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
            begun, base = time.monotonic(), read_stream(config, directory, "base")
            new_checkpoint(config.base.scratch, base, start)
            self._time(LEARNING, len(base), begun)
        self._start, begun = start, time.monotonic()
        found = ScanProblems.read(config, directory, start)
        number = len(found.train) + len(found.test) + len(found.base or ())
        self._time(ENCODING, number, begun)
        is_sample = directory == self._scratch
        self.problems = self._repeated(found, config.export) if is_sample else found
        self.levels = Levels.cut(self.problems, self._measures())

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
        begun, out = time.monotonic(), self._scratch / "data"
        export_igsm(few, out, processes=1, console=Console(file=io.StringIO()))
        self._time(EXPORTING, sum(file.size for file in few.files), begun)
        kept = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        self._sampled_bytes = kept / sum(file.size for file in few.files)

    def _time(self, program: Program, amount: int, begun: float) -> None:
        self._speeds[program] = Speed(0.0, amount / max(time.monotonic() - begun, 1e-6))

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

    @functools.cached_property
    def _test(self) -> Encoded:
        """The test problems with their solutions."""
        tested = self.problems.test.take(self.levels.test_rows)
        return encode(tested, self.problems.tokenizer, max_length=sys.maxsize)

    # Work.

    def counts(self) -> Mapping[str, int]:
        """Problems by stream."""
        base = {"problems of the base": len(self.problems.base)} if self.problems.base else {}
        return base | {
            "training problems": len(self.problems.train),
            "test problems": len(self._test),
        }

    @functools.cached_property
    def _trainings(self) -> Trainings:
        scratch = self._scratch / "timed"
        return Trainings(self._start, self.problems.decoder, self._study.mesh, scratch)

    @functools.cached_property
    def _asking(self) -> Asking:
        model = Model.load(self._start, mesh=self._study.mesh, dtype=self._config.training.dtype)
        config, encoded = self._config, self._test
        prompts = [
            tokens[:length].tolist()
            for tokens, length in zip(encoded.tokens, encoded.prompt_lengths, strict=True)
        ]
        return Asking(
            self.problems.decoder,
            config.decoding,
            config.grader,
            self._study.mesh,
            model,
            self.problems.test,
            prompts,
        )

    def work(self, part: Part) -> Sequence[Work]:
        """The work of one part."""
        if part.name in self._members:
            return self._of_member(self._members[part.name])
        config, problems = self._config, self.problems
        number = len(problems.train) + len(problems.test) + len(problems.base or ())
        match part.name:
            case "export" if EXPORTING in self._speeds:
                assert config.export is not None
                drawn = sum(file.size for file in config.export.files)
                return [Work(EXPORTING, drawn / num_cores())]
            case "scratch" if LEARNING in self._speeds:
                return [Work(LEARNING, len(problems.base or ()))]
            case "problems":
                return [Work(ENCODING, number)]
            case "train the base":
                assert config.base.training is not None
                assert problems.base is not None
                return self._trainings.work(problems.base, config.base.training)
            case "measures" if config.measure == "pass_rate":
                return self._of_measures()
            case "base":
                return self._asked(self._test, "base")
            case _:
                return []

    def _of_measures(self) -> list[Work]:
        """Responses behind the pass rates of training and test problems."""
        asking = dataclasses.replace(self._asking, config=self._config.sampled)
        encoded = (self.problems.encoded, self._test)
        prompts = np.concatenate([each.prompt_lengths for each in encoded])
        answers = np.concatenate([each.solution_lengths for each in encoded])
        return asking.work(prompts.tolist(), answers.tolist(), "base, sampled")

    def _of_member(self, member: Member) -> list[Work]:
        """Fine-tuning, and questions of three kinds."""
        config, encoded = self._config, self.problems.encoded
        trained_on, fresh = self.levels.rows(member)
        work = self._trainings.work(encoded.take(trained_on), self._training(member))
        seen = trained_on[: config.risk_examples]
        for asked in (encoded.take(seen), encoded.take(fresh), self._test):
            work += self._asked(asked, "")
        return work

    def _training(self, member: Member) -> TrainingConfig:
        """The training of a member."""
        return dataclasses.replace(
            self._config.training,
            loss=member.loss,
            learning_rate=member.learning_rate,
            seed=member.seed,
        )

    def _asked(self, asked: Encoded, label: str) -> list[Work]:
        lengths = asked.solution_lengths + 1
        return self._asking.work(asked.prompt_lengths.tolist(), lengths.tolist(), label)

    # Disk and speed.

    def disk(self, part: Part) -> float:
        """Bytes of data, checkpoints, rows and responses."""
        config, problems = self._config, self.problems
        weights = kept_bytes(problems.decoder, np.float32) + 25_000
        levels: Int[np.ndarray, " levels"] = np.unique(self.levels.test_levels)
        characters = sum(map(len, self.problems.test.take(self.levels.test_rows).solutions))
        answers = 4_000 + COMPRESSED * characters * config.decoding.samples
        if part.name in self._members:
            kept = weights if config.save_members else 0.0
            return FILE_BYTES + 2 * (len(levels) + 6) * ROW_BYTES + answers + kept + 60
        match part.name:
            case "export":
                assert config.export is not None
                return self._sampled_bytes * sum(file.size for file in config.export.files)
            case "scratch":
                return weights
            case "train the base":
                assert config.base.training is not None
                assert problems.base is not None
                (step, *_) = self._trainings.work(problems.base, config.base.training)
                examples = step.tokens / float(np.mean(problems.base.lengths))
                lines = examples / config.base.training.optimiser.batch_size
                return weights + LOG_BYTES * lines
            case "base":
                rows = 2 * config.seeds * (len(levels) + 1) * ROW_BYTES
                return 2 * FILE_BYTES + rows + answers + 5_000
            case _:
                return 0.0

    def measure(self, program: Program) -> Speed:
        """Time a program, or tell how fast the sample was made."""
        if program in self._speeds:
            return self._speeds[program]
        trains = program.kind == "training step" or program == self._trainings.handling
        return (self._trainings if trains else self._asking).measure(program)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Say nothing about a sample, whose numbers are not those of the study."""
    was, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = was
