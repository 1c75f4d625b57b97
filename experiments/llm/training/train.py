"""The training loop of a real checkpoint: a base with its adapters, batches, steps, checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from experiments.engine.progress import console
from experiments.llm.text.encoding import Encoded
from experiments.llm.text.loader import Loader, num_shown, num_steps
from experiments.llm.training import lora
from experiments.llm.training.config import TrainingConfig
from experiments.llm.training.distributed import is_first
from experiments.llm.training.log import Log
from experiments.llm.training.meter import DivergedError, Meter
from experiments.llm.training.saved import SavedStates
from experiments.llm.training.step import make_step, place, start
from experiments.llm.training.watch import UNWATCHED, Looks, Watched
from experiments.storage import checkpoint
from experiments.storage.memory import OutOfMemoryError, advice_on_memory, available_memory
from experiments.storage.sharding import row_split
from synth.config import DecoderConfig, Execution
from synth.decoder import Parameters
from synth.finetune import scheduled_rate

SMALLER_STEPS = (
    "raise --accumulation, lower --batch-size, --max-length or --chunk-tokens, keep --remat, train "
    "adapters (--lora-rank 16), or spread the model over more devices (--fsdp)"
)
"""What makes the memory of a step smaller."""


@dataclass(frozen=True)
class TrainedModel:
    """A fine-tuned model, its adapters not yet merged into their kernels.

    Attributes:
      decoder, parameters: the model.
      losses: loss of each step before its update, in nats per solution token; those before a resume
        are included, and those after the best state.
    """

    decoder: DecoderConfig
    parameters: Parameters
    losses: Float[np.ndarray, " steps"]


def check_attention(config: TrainingConfig) -> None:
    """Raise ValueError if this process has no device for the attention that is asked for."""
    if config.attention == "cudnn" and (platform := jax.default_backend()) != "gpu":
        raise ValueError(
            f"attention 'cudnn' needs an NVIDIA GPU, but JAX runs on {platform}: "
            f"take --attention plain or xla"
        )


def load_base(
    path_or_id: checkpoint.PathLike, config: TrainingConfig, *, mesh: Mesh | None = None
) -> tuple[DecoderConfig, Parameters]:
    """Load a checkpoint for training, with new adapters if they are configured.

    Trained parameters are float32. With adapters the base keeps its stored type, because it is
    saved again and must not be rounded.

    Raises:
      FileNotFoundError, ValueError: see `experiments.storage.checkpoint.load`.
    """
    check_attention(config)
    dtype = None if config.lora else "float32"
    decoder, parameters = checkpoint.load(path_or_id, mesh=mesh, dtype=dtype)
    execution = Execution(config.dtype, config.remat, config.attention)
    decoder = dataclasses.replace(decoder, execution=execution)
    if config.lora is None:
        return decoder, parameters
    return lora.attach(decoder, parameters, config.lora, jax.random.key(config.seed), mesh=mesh)


MOST_STEPS = 10**8
"""Optimiser steps of a fine-tuning at most: the learning rate of each is held."""


def count_steps(config: TrainingConfig, encoded: Encoded) -> int:
    """Number of optimiser steps that the configured compute allows, at least 1.

    Raises:
      ValueError: if they are more than `MOST_STEPS`.
    """
    batch_size = config.optimiser.batch_size
    tokens = float(np.mean(encoded.lengths)) * batch_size
    prices = {"steps": 1.0, "epochs": batch_size / len(encoded), "tokens": tokens}
    bought = config.compute / prices[config.compute_unit]
    if bought > MOST_STEPS:
        raise ValueError(
            f"compute must buy at most {MOST_STEPS} optimiser steps, got {config.compute:g} "
            f"{config.compute_unit}, which buys {bought:.3g}"
        )
    if config.compute_unit == "epochs":
        return num_steps(len(encoded), config.compute, batch_size)
    return max(1, math.ceil(bought))


BATCH_BYTES = 13
"""Bytes of a token in a batch, with its position, its segment and its place in the loss mask."""


def _check_batch(encoded: Encoded, config: TrainingConfig, limit: int | None) -> None:
    """Refuse batches that do not fit into memory as they are read, whatever else does.

    Raises:
      OutOfMemoryError: if one takes more bytes than `limit`; None for no limit.
    """
    batch_size = num_rows = config.optimiser.batch_size
    if config.packed and config.compute_unit == "epochs":
        # Packed rows hold no padding in place of examples that there are not.
        num_rows = min(batch_size, num_shown(len(encoded), config.compute))
    needed = num_rows * float(np.mean(encoded.lengths)) * BATCH_BYTES
    if limit is not None and needed > limit:
        raise OutOfMemoryError(
            f"batch_size = {batch_size} needs at least {needed / 2**30:,.1f} GiB of memory for a "
            f"batch, and there are {limit / 2**30:,.1f} GiB"
        )


def learning_rates(config: TrainingConfig, steps: int) -> Float[np.ndarray, " steps"]:
    """Learning rate of each step."""

    def rate(step: Array) -> Array:
        return scheduled_rate(
            step,
            config.learning_rate,
            steps=steps,
            warmup=config.optimiser.warmup,
            schedule=config.optimiser.schedule,
        )

    return np.asarray(jax.vmap(rate)(jnp.arange(steps)), np.float32)


def make_loader(encoded: Encoded, config: TrainingConfig, *, mesh: Mesh | None = None) -> Loader:
    """Loader of a fine-tuning's batches.

    Raises:
      ValueError: if there are no examples, or compute buys too many steps.
      OutOfMemoryError: if a batch does not fit into memory.
    """
    if not len(encoded):
        raise ValueError("encoded must hold examples, got none")
    steps = count_steps(config, encoded)
    _check_batch(encoded, config, available_memory())
    is_by_epochs = config.compute_unit == "epochs"
    return Loader(
        encoded,
        batch_size=config.optimiser.batch_size,
        steps=steps,
        seed=config.seed,
        accumulation=config.accumulation,
        packed=config.packed,
        row_multiple=row_split(mesh),
        # The last step of the last epoch may have fewer examples than the others.
        num_examples=num_shown(len(encoded), config.compute) if is_by_epochs else None,
    )


@advice_on_memory("training", SMALLER_STEPS)
def train(
    decoder: DecoderConfig,
    parameters: Parameters,
    loader: Loader,
    config: TrainingConfig,
    *,
    mesh: Mesh | None = None,
    directory: Path | None = None,
    log: Log | None = None,
    watched: Watched = UNWATCHED,
) -> TrainedModel:
    """Fine-tune parameters that are in memory; their arrays are donated.

    Args:
      decoder, parameters: see `load_base`.
      loader: the batches.
      config: of the training.
      mesh: devices that hold the parameters.
      directory: of ``checkpoints/``, from which training resumes, and ``log.jsonl``; None for
        neither.
      log: receives the numbers as well.
      watched: validation loss and answers on the way; with patience training may stop early, and
        the state of the lowest validation loss is returned.

    Raises:
      DivergedError: if the loss, or a parameter after the last step, is not finite.
      OutOfMemoryError: if a device's memory does not hold a step.
      ValueError: if there is patience, and no directory to keep the best state in.
    """
    if watched.config.patience and directory is None:
        raise ValueError("directory must be given with patience: the best state is kept there")
    # Compile the step, and build the first state.
    step = make_step(decoder, config.step, mesh)
    rates = learning_rates(config, loader.steps)
    num_devices = 1 if mesh is None else mesh.devices.size
    frozen, state = start(decoder, parameters, config.step, mesh=mesh)
    keeps_best, tells_epochs = bool(watched.config.patience), watched is not UNWATCHED
    with (
        SavedStates(
            directory, config.checkpoint_every, loader.steps, keeps_best=keeps_best
        ) as saved,
        contextlib.closing(
            Meter(decoder, loader, rates, directory, log, num_devices, tells_epochs=tells_epochs)
        ) as meter,
    ):
        # Resume from the last checkpoint, if there is one.
        begin, state = saved.latest(state)
        meter.begin(begin)
        looks = Looks(decoder, watched, config, loader.steps, meter, mesh)
        looks.begin(begin)
        for number, batch in zip(range(begin, loader.steps), loader.iterate(begin), strict=True):
            if watched.is_over(meter.validation):
                break
            rate = jnp.float32(rates[number])
            state, metrics = step(frozen, state, place(batch, mesh), rate)
            meter.add(number, batch, metrics)
            is_best = looks.after(number + 1, frozen, state.trained)
            if saved.is_due(number + 1) or is_best or watched.is_over(meter.validation):
                # Log first, so that the log is never behind the checkpoint.
                meter.flush()
                saved.save(number + 1, state, best=watched.best(meter.validation))
        meter.flush()
        best, done = watched.best(meter.validation), len(meter.losses)
        if best is not None and is_first():
            told = f"after {best} of {done} steps" + ("" if done == loader.steps else ", early")
            console.print(f"Lowest validation loss: {meter.validation[best]:.4f}, {told}.")
        if best not in (None, done):
            state = saved.restore(best, state)
    # The last loss was computed before the last update, which may itself have diverged.
    if not _all_finite(state.trained):
        raise DivergedError("the last step left parameters not finite: lower the learning rate")
    trained = lora.join(frozen, state.trained) if decoder.lora else state.trained
    return TrainedModel(decoder, trained, np.array(meter.losses))


@jax.jit
def _all_finite(parameters: Parameters) -> Bool[Array, ""]:
    leaves = jax.tree.leaves(parameters)
    return functools.reduce(jnp.logical_and, (jnp.isfinite(leaf).all() for leaf in leaves))
