"""The work of an evaluation, or of measuring difficulty: answers, and solutions that are read."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from experiments.engine.cost import TRAINING_UTILISATION, decoding_flops
from experiments.engine.study import Part
from experiments.engine.workload import Program, Speed, Work, Workload
from experiments.llm.answering.perplexity import perplexities
from experiments.llm.answering.work import Asking
from experiments.llm.text.encoding import encode

if TYPE_CHECKING:
    from experiments.llm.answering.run import AskingStudy

READING = Program("reading solutions", "", 1.0, TRAINING_UTILISATION)
FEW = 8
"""Solutions that are read to time the reading."""

LINE_BYTES, CHARACTER_BYTES = 120, 1.3
"""Bytes of a kept response without its text, and for each character of it, as line and as row."""


class AnswersWorkload(Workload):
    """The work of the one part of a study that asks a checkpoint problems.

    Args:
      study: states model, problems and settings.
      asks: whether problems are answered and graded.
      reads: whether solutions are read for their perplexity.
    """

    assumptions = (
        "Answers are taken to be as long as the reference solutions; answers that the directory "
        "keeps from an interrupted run are not counted as done.",
        "On a named device reading is taken to reach 40% of the bfloat16 peak, and decoding 5%.",
    )

    def __init__(self, study: AskingStudy, *, asks: bool, reads: bool):
        self._study, self._asks, self._reads = study, asks, reads
        mesh = study.devices.mesh()
        self.num_devices = 1 if mesh is None else mesh.devices.size

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Read model and problems, if the model is needed."""
        if self._asks or self._reads:
            study = self._study
            self._model = study.load_model()
            self._encoded = encode(study.problems, self._model.tokenizer, max_length=sys.maxsize)
            parts = zip(self._encoded.tokens, self._encoded.prompt_lengths, strict=True)
            self._asking = Asking(
                self._model.decoder,
                study.decoding,
                study.grader,
                self._model.mesh,
                self._model,
                study.problems,
                [tokens[:length].tolist() for tokens, length in parts],
            )
        yield

    def counts(self) -> Mapping[str, int]:
        """Problems."""
        return {"problems": len(self._study.problems)}

    def work(self, part: Part) -> Sequence[Work]:
        """Answers to all problems, and one pass over their solutions."""
        del part
        work: list[Work] = []
        if self._asks:
            answers = self._encoded.solution_lengths + 1
            work += self._asking.work(self._encoded.prompt_lengths.tolist(), answers.tolist())
        if self._reads:
            flops = self._flops(self._encoded.lengths)
            work.append(Work(READING, flops, flops, float(self._encoded.lengths.sum())))
        return work

    def _flops(self, lengths: np.ndarray) -> float:
        return decoding_flops(self._model.decoder, float(lengths.sum()), float(lengths.mean()))

    def disk(self, part: Part) -> float:
        """Bytes of kept responses and of the tables."""
        del part
        problems, samples = self._study.problems, self._study.decoding.samples
        if not self._asks:
            return 5_000 + 30 * len(problems)
        characters = sum(map(len, problems.solutions)) * samples
        return 15_000 + LINE_BYTES * len(problems) * samples + CHARACTER_BYTES * characters

    def measure(self, program: Program) -> Speed:
        """Time a batch of answers, or a few solutions."""
        if program != READING:
            return self._asking.measure(program)
        few = self._encoded.take(range(min(FEW, len(self._encoded))))
        model, seconds = self._model, []
        for _ in range(2):
            start = time.monotonic()
            perplexities(model.decoder, model.parameters, few, mesh=model.mesh)
            seconds.append(time.monotonic() - start)
        return Speed(max(0.0, seconds[0] - seconds[1]), self._flops(few.lengths) / seconds[1])
