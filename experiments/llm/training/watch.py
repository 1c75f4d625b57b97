"""What is watched during a fine-tuning: a loss on other examples, and answers to a few prompts.

The history of validation losses stands in the log. When to stop and which state is the best are
functions of it, so that a run that carries on decides as if it had never been interrupted.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from experiments.llm.text.encoding import Encoded
from experiments.llm.text.loader import Batch, Loader
from experiments.llm.training.config import NOTHING_WATCHED, StepConfig, TrainingConfig, Watch
from experiments.llm.training.lora import join
from experiments.llm.training.loss import loss_sums
from experiments.llm.training.meter import Meter
from experiments.llm.training.step import compiler_options, place
from experiments.storage.sharding import row_split
from synth.config import DecoderConfig
from synth.decoder import Parameters

History = Mapping[int, float]
"""Validation losses by the number of steps done, in order."""


class Sampler(Protocol):
    """Answers a few prompts on the way, see `experiments.llm.answering.samples`."""

    def begin(self, steps_done: int) -> None:
        """Forget the answers of later steps, which will be given again."""
        ...

    def answer(
        self, decoder: DecoderConfig, parameters: Parameters, steps_done: int
    ) -> Mapping[str, str]:
        """Answer, and return texts for trackers by name."""
        ...


@dataclass(frozen=True)
class Watched:
    """What is watched, and with what.

    Attributes:
      config: when to look.
      validation: examples of the validation loss; None for none.
      sampler: answers prompts; None for no answers.

    Raises:
      ValueError: if `config.patience` is given without `validation`, or these are no examples.
    """

    config: Watch = NOTHING_WATCHED
    validation: Encoded | None = None
    sampler: Sampler | None = None

    def __post_init__(self) -> None:
        if self.validation is None and self.config.patience:
            raise ValueError(
                f"patience needs a validation loss (--validation-share 0.05, or "
                f"--validation.source DATA), got patience {self.config.patience} without"
            )
        if self.validation is not None and not len(self.validation):
            raise ValueError("validation must hold examples, got none")

    def is_evaluated(self, steps_done: int, steps: int) -> bool:
        """Return whether there is a validation loss after so many of all steps."""
        is_due = steps_done % self.config.evaluate_every == 0 or steps_done == steps
        return self.validation is not None and is_due

    def is_sampled(self, steps_done: int, steps: int) -> bool:
        """Return whether prompts are answered after so many of all steps."""
        is_due = steps_done % self.config.sample_every == 0 or steps_done == steps
        return self.sampler is not None and is_due

    def best(self, history: History) -> int | None:
        """Steps done at the lowest validation loss, the first of equal ones.

        None if the last state is the one to save.
        """
        finite = {steps: loss for steps, loss in history.items() if math.isfinite(loss)}
        if not self.config.patience or not finite:
            return None
        return min(finite, key=lambda steps: (finite[steps], steps))

    def is_over(self, history: History) -> bool:
        """Return whether the last `patience` losses were not lower than the lowest before them."""
        best = self.best(history)
        later = sum(steps > (best or 0) for steps in history)
        return bool(self.config.patience) and later >= self.config.patience


UNWATCHED = Watched()

Sums = tuple[Float[Array, ""], Float[Array, ""]]


@functools.cache
def _program(
    decoder: DecoderConfig, config: StepConfig, mesh: Mesh | None
) -> Callable[[Parameters, Parameters, Batch], Sums]:
    """Program of the nats of a batch of one micro-batch, and of their number."""

    def sums(frozen: Parameters, trained: Parameters, batch: Batch) -> Sums:
        micro: Any = jax.tree.map(lambda leaf: leaf[0], batch)
        return loss_sums(
            decoder,
            join(frozen, trained) if decoder.lora else trained,
            micro.tokens,
            micro.positions,
            micro.loss_mask,
            "sft",
            segments=micro.segments if config.packed else None,
            chunk_tokens=config.chunk_tokens,
        )

    return jax.jit(sums, compiler_options=compiler_options(decoder, mesh))


class Validation:
    """The validation loss: mean nats of all solution tokens, each with the same weight.

    It is cross-entropy for every loss that is trained, so that it can be compared.

    Args:
      decoder: shape of the model.
      encoded: the examples, each of which counts.
      config: of the training, whose rows of a micro-batch are those of a batch here.
      mesh: devices that hold the parameters.

    Attributes:
      length, num_tokens: tokens of a row, and of all rows, padding included.
    """

    def __init__(
        self,
        decoder: DecoderConfig,
        encoded: Encoded,
        config: TrainingConfig,
        mesh: Mesh | None = None,
    ):
        rows = max(1, config.optimiser.batch_size // config.accumulation)
        rows = min(rows, len(encoded))
        self._mesh = mesh
        self._loader = Loader(
            encoded,
            batch_size=rows,
            steps=-(-len(encoded) // rows),
            seed=0,
            packed=config.packed,
            row_multiple=row_split(mesh),
            num_examples=len(encoded),
        )
        self._program = _program(decoder, config.step, mesh)
        self.length = self._loader.length
        self.num_tokens = self._loader.steps * self._loader.rows * self.length

    def loss(self, frozen: Parameters, trained: Parameters) -> float:
        """Mean nats of a token under a model, given by its frozen and its trained parameters."""
        nats = tokens = 0.0
        for batch in self._loader.iterate():
            some, number = self._program(frozen, trained, place(batch, self._mesh))
            # Sums of Python's numbers, in double precision.
            nats, tokens = nats + float(some), tokens + float(number)
        return nats / tokens


class Looks:
    """Looks at the model between steps, when it is time to.

    Args:
      decoder: shape of the model.
      watched: what to look at.
      config: of the training.
      steps: of the whole run.
      meter: gets the numbers, and stops its clock meanwhile.
      mesh: devices that hold the parameters.
    """

    def __init__(
        self,
        decoder: DecoderConfig,
        watched: Watched,
        config: TrainingConfig,
        steps: int,
        meter: Meter,
        mesh: Mesh | None,
    ):
        self._decoder, self._watched, self._steps, self._meter = decoder, watched, steps, meter
        self._validation = None
        if watched.validation is not None:
            self._validation = Validation(decoder, watched.validation, config, mesh)

    def begin(self, steps_done: int) -> None:
        """Carry on after so many steps."""
        if self._watched.sampler is not None:
            self._watched.sampler.begin(steps_done)

    def after(self, steps_done: int, frozen: Parameters, trained: Parameters) -> bool:
        """Look at the model after a step, and return whether its state must be kept as the best."""
        watched, meter = self._watched, self._meter
        is_best = False
        if self._validation is not None and watched.is_evaluated(steps_done, self._steps):
            with meter.pausing():
                loss = self._validation.loss(frozen, trained)
            meter.flush(loss)
            is_best = watched.best(meter.validation) == steps_done
        if watched.sampler is not None and watched.is_sampled(steps_done, self._steps):
            meter.flush()
            with meter.pausing():
                parameters = join(frozen, trained) if self._decoder.lora else trained
                texts = watched.sampler.answer(self._decoder, parameters, steps_done)
            meter.write_texts(steps_done - 1, texts)
        return is_best
