"""A fine-tuning of a checkpoint as a study of one part, to plan it; `finetune` runs it."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from experiments.engine.study import Part, Study
from experiments.engine.workload import Program, Speed, Work, Workload
from experiments.llm.text.encoding import Encoded
from experiments.llm.training.config import TrainingConfig
from experiments.llm.training.train import count_steps
from experiments.llm.training.work import Trainings, kept_bytes
from experiments.storage import checkpoint

LINE_BYTES, MANIFEST_BYTES, ROW_BYTES = 190, 3_500, 9
"""Measured: bytes of a step's line in the log, of manifest and card, and of an example's number."""


class Finetuning(Study):
    """One part, whose weight is its number of steps.

    Args:
      base: folder or hub id.
      encoded: the examples.
      config: of the training.
      directory: of the run.
      mesh: the devices.
    """

    unit = "steps"

    def __init__(
        self,
        base: str,
        encoded: Encoded,
        config: TrainingConfig,
        directory: Path,
        mesh: Mesh | None = None,
    ):
        self.base, self.encoded, self.config = base, encoded, config
        self.directory, self.mesh = directory, mesh

    @property
    def identity(self) -> Mapping[str, Any]:
        """Base and configuration."""
        return {"base": self.base, "config": dataclasses.asdict(self.config)}

    def stages(self) -> list[list[Part]]:
        """The checkpoint."""
        return [[Part("model", files=("model",), weight=count_steps(self.config, self.encoded))]]

    def workload(self) -> Workload:
        """Its steps, and how to time them."""
        return FinetuningWorkload(self)


class FinetuningWorkload(Workload):
    """The steps of a fine-tuning."""

    assumptions = (
        "Tokens are those that the model is trained on. Steps up to the last checkpoint of an "
        "interrupted run are not counted as done.",
        "On a named device training is taken to reach 40% of the bfloat16 peak.",
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
        """The steps."""
        del part
        return self._trainings.work(self._study.encoded, self._study.config)

    def disk(self, part: Part) -> float:
        """Bytes of the checkpoint and of the log."""
        stored = checkpoint.stored_dtype(self._folder)
        tokenizer = self._folder / "tokenizer.json"
        kept = tokenizer.stat().st_size if tokenizer.is_file() else 0
        examples = ROW_BYTES * len(self._study.encoded)
        weights = kept_bytes(self._decoder, np.dtype(stored))
        return weights + kept + LINE_BYTES * part.weight + MANIFEST_BYTES + examples

    def measure(self, program: Program) -> Speed:
        """Time a few steps."""
        return self._trainings.measure(program)
