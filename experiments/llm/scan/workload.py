"""The work of a scan: export and encoding of problems, the base, and every member.

Problems that a scan exports are not there before it runs. A plan draws a sample of each file in a
temporary directory, and repeats it up to the number that the scan would export.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from experiments.devices import num_cores
from experiments.engine.study import Part
from experiments.engine.workload import Program, Speed, Work, Workload
from experiments.llm.answering.model import Model
from experiments.llm.answering.work import Asking
from experiments.llm.scan.data import ScanProblems
from experiments.llm.scan.grid import Member
from experiments.llm.scan.levels import Levels
from experiments.llm.scan.sample import ENCODING, EXPORTING, LEARNING, Sample, silence
from experiments.llm.text.encoding import Encoded, encode
from experiments.llm.training.config import TrainingConfig
from experiments.llm.training.work import Trainings, kept_bytes

if TYPE_CHECKING:
    from experiments.llm.scan.study import ScanStudy

FILE_BYTES, ROW_BYTES, LOG_BYTES = 9_000, 14, 170
"""Measured: bytes of a part without rows, of a row of the table, and of a step's line in a log."""

COMPRESSED = 0.25
"""Bytes of kept responses for each character, about."""


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

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Hold a temporary directory with a sample of what is not there yet."""
        with tempfile.TemporaryDirectory() as scratch, silence():
            self._scratch = Path(scratch)
            self._sample = Sample(self._study, self._scratch)
            yield

    # Problems.

    @property
    def problems(self) -> ScanProblems:
        """The problems, those that were sampled repeated."""
        return self._sample.problems

    @property
    def levels(self) -> Levels:
        """Their levels."""
        return self._sample.levels

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
        return Trainings(self._sample.start, self.problems.decoder, self._study.mesh, scratch)

    @functools.cached_property
    def _asking(self) -> Asking:
        model = Model.load(
            self._sample.start, mesh=self._study.mesh, dtype=self._config.training.dtype
        )
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
            case "export" if EXPORTING in self._sample.speeds:
                assert config.export is not None
                drawn = sum(file.size for file in config.export.files)
                return [Work(EXPORTING, drawn / num_cores())]
            case "scratch" if LEARNING in self._sample.speeds:
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
                return self._sample.bytes_each * sum(file.size for file in config.export.files)
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
        if program in self._sample.speeds:
            return self._sample.speeds[program]
        timer = self._trainings if self._trainings.knows(program) else self._asking
        return timer.measure(program)
