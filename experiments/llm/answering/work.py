"""The work of asking a checkpoint problems: reading prompts, decoding, grading; and its timing."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jax.sharding import Mesh

from experiments.engine.cost import DECODING_UTILISATION, TRAINING_UTILISATION, decoding_flops
from experiments.engine.workload import Program, Speed, Work
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.answering.decoding import GROUPS, SMALLER, continuations
from experiments.llm.answering.model import Model
from experiments.llm.problems.config import GraderConfig
from experiments.llm.problems.data import Problems
from experiments.llm.problems.grade import grade
from experiments.storage.sharding import row_split
from synth.config import DecoderConfig

GRADED = 64
"""Reference solutions that are graded to time the grader."""

FEW, MANY, SECONDS = 8, 64, 1.0
"""New tokens that are timed: at least few, and many where these take about so long."""


def stream_shapes(
    prompt_lengths: Sequence[int], config: DecodingConfig, *, split: int, context: int
) -> tuple[set[tuple[int, ...]], set[tuple[int, ...]]]:
    """Shapes for which programs are compiled when prompts of these lengths are continued.

    They follow from the lengths alone, since the longest prompts come first, see
    `experiments.llm.answering.decoding`.

    Returns:
      Shapes of the programs that read prompts, and of those that decode.
    """
    lengths = sorted((n for n in prompt_lengths for _ in range(config.samples)), reverse=True)
    rows = min(config.batch_size, -(-len(lengths) // split) * split)
    group = max(rows // GROUPS // split, 1) * split

    def width(length: int) -> int:
        padded = -(-length // config.prompt_multiple) * config.prompt_multiple
        return min(padded, context - config.max_new_tokens)

    reading, decoding = set(), set()
    place = 0
    while place < len(lengths):
        capacity = width(lengths[place]) + config.max_new_tokens
        decoding.add((rows, capacity))
        while place < len(lengths):
            need = width(lengths[place]) + config.max_new_tokens
            if need <= SMALLER * capacity:
                break
            reading.add((rows, capacity, group, width(lengths[place])))
            place += group
    return reading, decoding


@dataclass
class Asking:
    """Questions to models of one shape, with one decoding and grader.

    Attributes:
      decoder: shape of the models.
      config: settings of the responses.
      grader: of their grading; None where nobody grades them.
      mesh: devices of the models.
      model: of that shape, to be timed; its weights may be any.
      problems: with solutions, for the grader's timing; None without a grader.
      prompts: token ids of some prompts.
    """

    decoder: DecoderConfig
    config: DecodingConfig
    grader: GraderConfig | None
    mesh: Mesh | None
    model: Model | None
    problems: Problems | None
    prompts: Sequence[Sequence[int]]
    _speeds: dict[str, Speed] = field(default_factory=dict)

    grading = Program("grading", is_compiled=False)

    def work(
        self, prompt_lengths: Sequence[int], response_lengths: Sequence[float], label: str = ""
    ) -> list[Work]:
        """The work of asking: amounts are operations, and responses for the grader.

        Args:
          prompt_lengths: tokens of each prompt.
          response_lengths: tokens that are expected of a response to each.
          label: tells models that need programs of their own apart.
        """
        config, decoder = self.config, self.decoder
        split = row_split(self.mesh)
        reading, decoding = stream_shapes(
            prompt_lengths, config, split=split, context=decoder.max_positions
        )
        prompts = config.samples * float(np.sum(prompt_lengths))
        long = np.minimum(response_lengths, config.max_new_tokens)
        new = config.samples * float(np.sum(long))
        length = float(np.mean(prompt_lengths))
        work = []
        for kind, shapes, share, tokens, count in (
            ("reading prompts", reading, TRAINING_UTILISATION, prompts, 0.0),
            ("decoding", decoding, DECODING_UTILISATION, new, new),
        ):
            flops = decoding_flops(decoder, tokens, length) / max(1, len(shapes))
            for shape in sorted(shapes):
                program = Program(kind, f"{shape} {label}".rstrip(), 0.0, share)
                work.append(Work(program, flops, flops, count / len(shapes)))
        if self.grader is None:
            return work
        return [*work, Work(self.grading, config.samples * len(prompt_lengths))]

    def measure(self, program: Program) -> Speed:
        """Time a batch of some prompts, with one new token and with several, or the grader."""
        if program == self.grading:
            return self._measure_grading()
        if not self._speeds:
            self._measure_decoding()
        return self._speeds[program.kind]

    def _measure_grading(self) -> Speed:
        assert self.grader is not None  # otherwise there is no such work
        assert self.problems is not None
        few = self.problems.take(range(min(GRADED, len(self.problems))))
        start = time.monotonic()
        grade(few, [[solution] for solution in few.solutions], self.grader)
        return Speed(0.0, len(few) / (time.monotonic() - start))

    def _measure_decoding(self) -> None:
        """Fill a batch with the prompts; the second of two equal runs does not compile."""
        assert self.model is not None  # otherwise there is nothing to ask
        split = row_split(self.mesh)
        rows = max(split, self.config.batch_size // split * split)
        prompts = [self.prompts[place % len(self.prompts)] for place in range(rows)]
        read = sum(map(len, prompts))
        length = read / rows
        cold, one = (self._seconds(prompts, 1) for _ in range(2))
        number = min(self.config.max_new_tokens, MANY if one < SECONDS / 4 else FEW)
        first, several = (self._seconds(prompts, number) for _ in range(2))
        if number == 1:
            several, number = 2 * one, 2
        each = max((several - one) / (number - 1), 1e-6)
        reading = max(one - each, 0.05 * one)
        per_step = decoding_flops(self.decoder, rows, length)
        # Two programs are compiled in either run; the one that reads prompts is the larger.
        self._speeds = {
            "reading prompts": Speed(
                max(cold - one, 0.0) / 2, decoding_flops(self.decoder, read, length) / reading
            ),
            "decoding": Speed(max(first - several, 0.0) / 2, per_step / each),
        }

    def _seconds(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> float:
        assert self.model is not None
        config = dataclasses.replace(
            self.config, samples=1, temperature=0.0, max_new_tokens=new_tokens
        )
        # Nothing ends a response: as many tokens are decoded as are stated.
        model = dataclasses.replace(self.model, stop=())
        start = time.monotonic()
        continuations(model, prompts, config)
        return time.monotonic() - start
