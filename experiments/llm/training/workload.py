"""A fine-tuning of a checkpoint as a study of one part, to plan it; `finetune` runs it.

Its work is that of its steps, and of what is watched on the way: validation losses and answers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jax.sharding import Mesh

from experiments.engine.cost import TRAINING_UTILISATION, decoding_flops
from experiments.engine.study import Part, Study
from experiments.engine.workload import Program, Speed, Work, Workload
from experiments.llm.text.encoding import Encoded
from experiments.llm.training.config import TrainingConfig
from experiments.llm.training.train import count_steps, load_base
from experiments.llm.training.watch import UNWATCHED, Validation, Watched
from experiments.llm.training.work import Trainings, kept_bytes
from experiments.storage import checkpoint
from synth.config import DecoderConfig
from synth.decoder import Parameters

LINE_BYTES, MANIFEST_BYTES, ROW_BYTES = 190, 3_500, 9
"""Measured: bytes of a step's line in the log, of manifest and card, and of an example's number."""


class Answering(Protocol):
    """The work of answers on the way, see `experiments.llm.answering.samples`."""

    def work(self) -> Sequence[Work]:
        """The work of answering all prompts once."""
        ...

    def measure(self, program: Program) -> Speed:
        """Time one of its programs."""
        ...


class Finetuning(Study):
    """One part, whose weight is its number of steps.

    Args:
      base: folder or hub id.
      encoded: the examples.
      config: of the training.
      directory: of the run.
      mesh: the devices.
      watched: validation loss and answers on the way.
      answering: the work of such answers; None for no answers.
    """

    unit = "steps"

    def __init__(
        self,
        base: str,
        encoded: Encoded,
        config: TrainingConfig,
        directory: Path,
        mesh: Mesh | None = None,
        *,
        watched: Watched = UNWATCHED,
        answering: Answering | None = None,
    ):
        self.base, self.encoded, self.config = base, encoded, config
        self.directory, self.mesh = directory, mesh
        self.watched, self.answering = watched, answering

    @property
    def num_steps(self) -> int:
        """Steps of the whole run, if it is not stopped early."""
        return count_steps(self.config, self.encoded)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Base and configuration."""
        return {"base": self.base, "config": dataclasses.asdict(self.config)}

    def stages(self) -> list[list[Part]]:
        """The checkpoint."""
        return [[Part("model", files=("model",), weight=self.num_steps)]]

    def workload(self) -> Workload:
        """Its steps, and how to time them."""
        return FinetuningWorkload(self)


VALIDATION = Program("validation loss", utilisation=TRAINING_UTILISATION)


class FinetuningWorkload(Workload):
    """The steps of a fine-tuning, its validation losses, and its answers on the way."""

    assumptions = (
        "Tokens are those that the model is trained on, and those of answers on the way, which are "
        "taken to be as long as the reference solutions. Steps up to the last checkpoint of an "
        "interrupted run are not counted as done, nor is it foreseen that a run stops early.",
        "On a named device training is taken to reach 40% of the bfloat16 peak, and decoding 5%.",
    )

    def __init__(self, study: Finetuning):
        self._study = study
        self.num_devices = 1 if study.mesh is None else study.mesh.devices.size

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Hold a temporary directory for checkpoints of what is timed."""
        study = self._study
        self._folder = checkpoint.folder(study.base)
        self._decoder = checkpoint.read_config(self._folder)
        with tempfile.TemporaryDirectory() as scratch:
            self._trainings = Trainings(self._folder, self._decoder, study.mesh, Path(scratch))
            yield

    def counts(self) -> Mapping[str, int]:
        """Examples."""
        return {"examples": len(self._study.encoded)}

    def work(self, part: Part) -> Sequence[Work]:
        """The steps, and what is looked at between them."""
        del part
        study, watched = self._study, self._study.watched
        work = self._trainings.work(study.encoded, study.config)
        steps = study.num_steps
        done = range(1, steps + 1)
        if watched.validation is not None:
            evaluations = sum(watched.is_evaluated(number, steps) for number in done)
            flops = evaluations * self._validation_flops
            work.append(Work(VALIDATION, flops, flops))
        if study.answering is not None:
            times = sum(watched.is_sampled(number, steps) for number in done)
            work += [
                dataclasses.replace(
                    each,
                    amount=times * each.amount,
                    flops=times * each.flops,
                    tokens=times * each.tokens,
                )
                for each in study.answering.work()
            ]
        return work

    @functools.cached_property
    def _base(self) -> tuple[DecoderConfig, Parameters]:
        """The base without adapters, which add next to nothing to the time of a forward pass."""
        config = dataclasses.replace(self._study.config, lora_rank=0)
        return load_base(self._folder, config, mesh=self._study.mesh)

    @functools.cached_property
    def _validation(self) -> Validation:
        study = self._study
        assert study.watched.validation is not None  # otherwise there is no such work
        return Validation(self._base[0], study.watched.validation, study.config, study.mesh)

    @property
    def _validation_flops(self) -> float:
        """Operations of one validation loss."""
        validation = self._validation
        return decoding_flops(self._decoder, validation.num_tokens, validation.length)

    def disk(self, part: Part) -> float:
        """Bytes of the checkpoint and of the log."""
        stored = checkpoint.stored_dtype(self._folder)
        tokenizer = self._folder / "tokenizer.json"
        kept = tokenizer.stat().st_size if tokenizer.is_file() else 0
        examples = ROW_BYTES * len(self._study.encoded)
        weights = kept_bytes(self._decoder, np.dtype(stored))
        return weights + kept + LINE_BYTES * part.weight + MANIFEST_BYTES + examples

    def measure(self, program: Program) -> Speed:
        """Time a few steps, a validation loss, or a few tokens of the answers."""
        if program == VALIDATION:
            first, second = (self._seconds_of_validation() for _ in range(2))
            return Speed(max(first - second, 0.0), self._validation_flops / second)
        if self._trainings.knows(program):
            return self._trainings.measure(program)
        assert self._study.answering is not None  # otherwise there is no other program
        return self._study.answering.measure(program)

    def _seconds_of_validation(self) -> float:
        start = time.monotonic()
        self._validation.loss({}, self._base[1])
        return time.monotonic() - start
