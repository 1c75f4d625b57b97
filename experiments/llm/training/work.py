"""The work of fine-tunings of a checkpoint, and how it is timed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from experiments.engine.cost import TRAINING_UTILISATION, training_flops
from experiments.engine.workload import Program, Speed, Work
from experiments.llm.text.encoding import Encoded
from experiments.llm.text.loader import Loader
from experiments.llm.training.config import TrainingConfig
from experiments.llm.training.train import learning_rates, load_base, make_loader, train
from synth.config import DecoderConfig

SECONDS, MOST_STEPS = 2.0, 8
"""Time as many steps as take about so long, but no more than so many."""


@dataclass
class Trainings:
    """Fine-tunings that share a base and devices.

    Attributes:
      base: folder of the checkpoint to start from.
      decoder: its shape.
      mesh: the devices.
      scratch: a temporary directory for checkpoints of fine-tunings that are timed.
    """

    base: Path
    decoder: DecoderConfig
    mesh: Mesh | None
    scratch: Path

    def __post_init__(self) -> None:
        self._examples: dict[Program, tuple[Encoded, TrainingConfig]] = {}
        self._handling: float | None = None

    @property
    def handling(self) -> Program:
        """Reading the base, and keeping the end of a fine-tuning."""
        return Program("reading and keeping models", is_compiled=False)

    def knows(self, program: Program) -> bool:
        """Return whether a program belongs to fine-tunings, so that `measure` times it."""
        return program in self._examples or program == self.handling

    def work(self, encoded: Encoded, config: TrainingConfig) -> list[Work]:
        """The work of one fine-tuning on these examples; amounts are operations."""
        decoder = dataclasses.replace(self.decoder, lora=config.lora)
        loader = make_loader(encoded, config, mesh=self.mesh)
        flops = loader.steps * _step_flops(decoder, loader)
        # Everything that the program of a step is compiled from.
        shape = f"{loader.rows} rows of {loader.length} tokens × {config.accumulation}"
        settings = (config.step, config.lora, config.dtype, config.remat, config.attention)
        held = loader.rows * config.accumulation * loader.length
        program = Program("training step", f"{shape}, {settings}", held, TRAINING_UTILISATION)
        self._examples.setdefault(program, (encoded, config))
        tokens = loader.num_examples * float(np.mean(encoded.lengths))
        return [Work(program, flops, flops, tokens), Work(self.handling, 1)]

    def measure(self, program: Program) -> Speed:
        """Time a few steps of a fine-tuning, or all that is not a step."""
        if program == self.handling:
            # The fine-tuning that is timed first has told it.
            if self._handling is None:
                self.measure(next(iter(self._examples)))
            assert self._handling is not None
            return Speed(0.0, 1 / self._handling)
        encoded, config = self._examples[program]
        loader = make_loader(encoded, config, mesh=self.mesh)
        cold, one = (self._seconds(loader, config, 1) for _ in range(2))
        more = min(MOST_STEPS, max(1, int(SECONDS / one)), loader.steps - 1)
        # Compiles the learning rates of so many steps.
        learning_rates(config, 1 + more)
        step = (self._seconds(loader, config, 1 + more) - one) / more if more > 0 else one
        step = min(max(step, one / 20), one)
        self._handling = max(one - step, 1e-3)
        decoder = dataclasses.replace(self.decoder, lora=config.lora)
        return Speed(max(cold - one, 0.0), _step_flops(decoder, loader) / step)

    def _seconds(self, loader: Loader, config: TrainingConfig, steps: int) -> float:
        """Seconds of a fine-tuning that stops after so many steps."""
        whole, loader.steps = loader.steps, steps
        directory = self.scratch / f"{time.monotonic_ns()}"
        start = time.monotonic()
        try:
            decoder, parameters = load_base(self.base, config, mesh=self.mesh)
            trained = train(
                decoder, parameters, loader, config, mesh=self.mesh, directory=directory
            )
            jax.block_until_ready(trained.parameters)
        finally:
            loader.steps = whole
        return time.monotonic() - start


def _step_flops(decoder: DecoderConfig, loader: Loader) -> float:
    """Operations of a mean step, padding included."""
    return training_flops(decoder, loader.mean_rows * loader.length, loader.length)


def kept_bytes(decoder: DecoderConfig, dtype: Any) -> float:
    """Bytes of a checkpoint's weights on disk."""
    from experiments.storage.layout import parameter_shapes

    size = np.dtype(dtype).itemsize
    return size * float(sum(np.prod(shape) for shape in parameter_shapes(decoder).values()))


def resampled(encoded: Encoded, counts: Sequence[int], groups: Sequence[int]) -> Encoded:
    """Repeat examples until each group has so many.

    Args:
      encoded: a sample, whose groups stand one after the other.
      counts: examples that each group shall have.
      groups: group of each example, from 0.
    """
    places = [np.flatnonzero(np.asarray(groups) == group) for group in range(len(counts))]
    chosen = [np.resize(own, count) for own, count in zip(places, counts, strict=True) if len(own)]
    return encoded.take(np.concatenate(chosen))
