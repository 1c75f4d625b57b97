"""Configurations of a fine-tuning of a real checkpoint, and of a checkpoint made from nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, get_args

import tyro

from experiments.llm.text.config import Pieces
from experiments.sweep.grid import ComputeUnit
from synth.arguments import (
    check_choice,
    check_least,
    check_number,
    check_positive,
    check_seed,
)
from synth.config import (
    Attention,
    DecoderConfig,
    Dtype,
    Execution,
    FinetuneConfig,
    Lora,
    Loss,
    Optimiser,
)

PAPER_OPTIMISER = Optimiser(batch_size=16, warmup=0.03, b2=0.999)
"""The paper's (arXiv 2605.12906)."""

PATIENCE = 60
"""Seconds between the ends of two processes after which the later one is taken to hang."""


@dataclass(frozen=True)
class StepConfig:
    """The settings that the program of a step is compiled from.

    Attributes:
      loss: ``sft`` or ``dft``, see `synth.config.FinetuneConfig`.
      optimiser: weight decay (of matrices alone), b2 and clip are part of the program; batches and
        learning rates are given to each step.
      packed: whether a row may hold several examples.
      chunk_tokens: tokens of a row whose logits are held at once.

    Raises:
      ValueError: if `chunk_tokens` is out of range.
    """

    loss: Loss = "sft"
    optimiser: Optimiser = PAPER_OPTIMISER
    packed: bool = False
    chunk_tokens: int = 512

    def __post_init__(self) -> None:
        check_least(self, 1, "chunk_tokens")


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a fine-tuning. The defaults are the paper's (arXiv 2605.12906).

    Attributes:
      loss: ``sft`` or ``dft``.
      compute: amount of training, in `compute_unit`.
      compute_unit: ``epochs`` over the data, optimiser ``steps``, or ``tokens`` processed.
      learning_rate: peak.
      optimiser: batches (over all devices and micro-batches), schedule and AdamW.
      accumulation: micro-batches that a step is made of. Those that hold padding alone are left
        out, so that `packed` rows cost least with as many micro-batches as a step has examples.
      packed: put the examples of a step into as few rows as possible; the loss is the same.
      lora_rank, lora_alpha: adapters on all kernels to train in place of all parameters, see
        `synth.config.Lora`; rank 0 for none.
      dtype: type of activations and matrix products; what is trained stays in float32.
      remat: compute all activations again in the backward pass instead of keeping the results of
        products.
      attention: see `synth.config.Execution`.
      chunk_tokens: tokens of a row whose logits are held at once.
      seed: of the order of examples and of new adapters.
      checkpoint_every: steps between checkpoints; 0 for none.

    Raises:
      ValueError: if a field is out of range.
    """

    loss: Loss = "sft"
    compute: float = 3.0
    compute_unit: ComputeUnit = "epochs"
    learning_rate: float = 5e-5
    optimiser: Annotated[Optimiser, tyro.conf.arg(name="")] = PAPER_OPTIMISER
    accumulation: int = 1
    packed: bool = False
    lora_rank: int = 0
    lora_alpha: float = 32.0
    dtype: Dtype = "bfloat16"
    remat: bool = True
    attention: Attention = "plain"
    chunk_tokens: int = 512
    seed: int = 0
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        # The simulator's configuration checks loss and learning rate, and `Execution` its fields.
        FinetuneConfig(1, self.learning_rate, self.loss)
        Execution(self.dtype, self.remat, self.attention)
        check_least(self, 0, "lora_rank")
        check_positive(self, "lora_alpha", "compute")
        check_choice(self, "compute_unit", get_args(ComputeUnit))
        check_least(self, 1, "accumulation", "chunk_tokens")
        check_least(self, 0, "checkpoint_every")
        check_seed(self, "seed")
        if self.attention == "cudnn" and self.dtype == "float32":
            raise ValueError("attention 'cudnn' needs dtype 'bfloat16', got 'float32'")

    @property
    def lora(self) -> Lora | None:
        """The adapters; None where all parameters are trained."""
        return Lora(self.lora_rank, self.lora_alpha) if self.lora_rank else None

    @property
    def step(self) -> StepConfig:
        """The settings that a step's program is compiled from."""
        return StepConfig(self.loss, self.optimiser, self.packed, self.chunk_tokens)


@dataclass(frozen=True)
class Watch:
    """What is watched while a checkpoint is fine-tuned.

    Attributes:
      validation_share: share of the chosen examples that is held out, for a validation loss.
      evaluate_every: steps between validation losses; there is one after the last step too.
      patience: validation losses in a row without a new lowest one after which training stops; the
        state of the lowest is the one that is saved. 0 never stops, and saves the last state.
      sample_responses: prompts to answer greedily on the way: the first that are held out, or else
        the first that are trained on.
      sample_every: steps between such answers; there are some after the last step too.
      sample_tokens: tokens of such an answer at most.

    Raises:
      ValueError: if a field is out of range.
    """

    validation_share: float = 0.0
    evaluate_every: int = 100
    patience: int = 0
    sample_responses: int = 0
    sample_every: int = 100
    sample_tokens: int = 256

    def __post_init__(self) -> None:
        check_number("validation_share", self.validation_share)
        if not 0 <= self.validation_share < 1:
            raise ValueError(f"validation_share must lie in [0, 1), got {self.validation_share}")
        check_least(self, 1, "evaluate_every", "sample_every", "sample_tokens")
        check_least(self, 0, "patience", "sample_responses")


NOTHING_WATCHED = Watch()


@dataclass(frozen=True)
class ScratchConfig:
    """A new checkpoint.

    Attributes:
      vocab_size: tokens of the tokenizer, at most.
      pieces: see `experiments.llm.text.tokenizer.train_tokenizer`.
      decoder: shape of the model, at sequential positions; its `vocab_size` comes from the
        tokenizer.
      seed: of the weights.

    Raises:
      ValueError: if a field is out of range, or the decoder's positions are not sequential.
    """

    vocab_size: int
    decoder: DecoderConfig
    pieces: Pieces = "words"
    seed: int = 0

    def __post_init__(self) -> None:
        check_least(self, 1, "vocab_size")
        check_seed(self, "seed")
        if self.decoder.positions != "sequential":
            raise ValueError(
                f"positions of the decoder must be 'sequential', as those of every published "
                f"checkpoint; got {self.decoder.positions!r}"
            )


@dataclass(frozen=True)
class Processes:
    """The processes of one program, as `jax.distributed.initialize` wants them.

    Attributes:
      coordinator: ``host:port`` of the first process; None on a cluster that JAX knows (Slurm, a
        TPU pod, Open MPI …) with `num_processes` None too.
      num_processes: how many there are; 1 for no other.
      process_id: number of this one, from 0.

    Raises:
      ValueError: if a field is out of range.
    """

    coordinator: str | None = None
    num_processes: int | None = 1
    process_id: int | None = None

    def __post_init__(self) -> None:
        if self.num_processes is None or self.num_processes == 1:
            return
        check_least(self, 1, "num_processes")
        if self.coordinator is None or ":" not in self.coordinator:
            raise ValueError(f"coordinator must be host:port, got {self.coordinator!r}")
        if self.process_id is None or not 0 <= self.process_id < self.num_processes:
            raise ValueError(
                f"process_id must be between 0 and {self.num_processes - 1}, got {self.process_id}"
            )

    def join(self) -> None:
        """Wait for the other processes, before JAX starts; nothing to do for one.

        A process that ends early, because of an error, ends the others `PATIENCE` later: they wait
        for its part of a sum, and would wait for ever.
        """
        if self.num_processes != 1:
            import jax

            jax.distributed.initialize(
                self.coordinator,
                self.num_processes,
                self.process_id,
                shutdown_timeout_seconds=PATIENCE,
            )
