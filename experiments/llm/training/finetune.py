"""Fine-tune a real checkpoint on encoded examples: all parameters, or adapters.

A run is a directory::

    manifest.json   configuration, base, digest of the data, versions, device, time
    log.jsonl       one line a step: loss, gradient norm, learning rate, tokens, tokens per second
    checkpoints/    parameters and optimiser, by step; removed when the run is complete
    model/          the fine-tuned checkpoint as a Hugging Face folder, adapters merged

A run that was killed carries on from its last checkpoint and ends with the same numbers, bit for
bit: batches are a function of the step, and nothing else is random. This holds on the same number
and kind of devices; on others, float32 agrees up to rounding. A GPU needs more for both:

- ``XLA_FLAGS=--xla_gpu_deterministic_ops=true``: kernels that add in a fixed order, and no
  autotuning, which could choose other kernels after the restart. Faster is
  ``--xla_gpu_exclude_nondeterministic_ops=true`` alone, with ``JAX_COMPILATION_CACHE_DIR`` set to
  a lasting folder, from which the restart takes the tuned program (https://openxla.org/xla/determinism).
- ``JAX_DEFAULT_MATMUL_PRECISION=highest`` for float32 to agree with another device or number of
  devices: by default its matrix products are rounded to TF32.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import math
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh
from jaxtyping import Array, Bool

from experiments.llm.text.encoding import Encoded
from experiments.llm.text.loader import Loader, num_steps
from experiments.llm.text.tokenizer import load_tokenizer, stop_tokens
from experiments.llm.training import lora
from experiments.llm.training.config import TrainingConfig
from experiments.llm.training.distributed import first_decides, gathered
from experiments.llm.training.log import Log, Tracker, open_log
from experiments.llm.training.meter import DivergedError, Meter
from experiments.llm.training.step import State, make_step, place, start
from experiments.storage import checkpoint, provenance
from experiments.storage.results import Run, open_run
from experiments.storage.sharding import row_split
from synth.config import DecoderConfig, Execution
from synth.decoder import Parameters
from synth.finetune import scheduled_rate

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "transformers", "numpy")


def count_steps(config: TrainingConfig, encoded: Encoded) -> int:
    """Optimiser steps that the compute buys, at least 1."""
    batch_size = config.optimiser.batch_size
    if config.compute_unit == "steps":
        return math.ceil(config.compute)
    if config.compute_unit == "epochs":
        return num_steps(len(encoded), config.compute, batch_size)
    mean = float(np.mean([len(tokens) for tokens in encoded.tokens]))
    return max(1, math.ceil(config.compute / (mean * batch_size)))


def learning_rates(config: TrainingConfig, steps: int) -> np.ndarray:
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


@dataclass(frozen=True)
class Trained:
    """A fine-tuned decoder, adapters beside their kernels.

    Attributes:
      decoder, parameters: the model.
      losses: mean loss in nats per solution token before each step, of a resumed run too.
    """

    decoder: DecoderConfig
    parameters: Parameters
    losses: np.ndarray


def load_base(
    path_or_id: checkpoint.PathLike, config: TrainingConfig, *, mesh: Mesh | None = None
) -> tuple[DecoderConfig, Parameters]:
    """A checkpoint as the fine-tuning wants it: what is trained in float32, new adapters attached.

    Beside adapters the base stays as it is stored: it is saved again, and must not be rounded.

    Raises:
      FileNotFoundError, ValueError: see `experiments.storage.checkpoint.load`.
    """
    kept = None if config.lora else "float32"
    decoder, parameters = checkpoint.load(path_or_id, mesh=mesh, dtype=kept)
    execution = Execution(config.dtype, config.remat, config.attention)
    decoder = dataclasses.replace(decoder, execution=execution)
    if config.lora is None:
        return decoder, parameters
    return lora.attach(decoder, parameters, config.lora, jax.random.key(config.seed), mesh=mesh)


def make_loader(encoded: Encoded, config: TrainingConfig, *, mesh: Mesh | None = None) -> Loader:
    """The batches of a fine-tuning, step by step.

    Raises:
      ValueError: if there are no examples.
    """
    num_examples = None
    if config.compute_unit == "epochs":
        # The last step holds what is left of the last epoch.
        num_examples = max(1, math.ceil(round(config.compute * len(encoded), 6)))
    return Loader(
        encoded,
        batch_size=config.optimiser.batch_size,
        steps=count_steps(config, encoded),
        seed=config.seed,
        accumulation=config.accumulation,
        packed=config.packed,
        row_multiple=row_split(mesh),
        num_examples=num_examples,
    )


def train(
    decoder: DecoderConfig,
    parameters: Parameters,
    loader: Loader,
    config: TrainingConfig,
    *,
    mesh: Mesh | None = None,
    directory: Path | None = None,
    log: Log | None = None,
) -> Trained:
    """Fine-tune parameters that are in memory, which are given away.

    Args:
      decoder, parameters: see `load_base`.
      loader: the batches.
      config: how to train.
      mesh: where the parameters are.
      directory: keeps ``checkpoints/`` and ``log.jsonl``, and carries on with what is there; None
        for neither.
      log: takes the numbers as well.

    Raises:
      DivergedError: if the loss, or a parameter after the last step, is not finite.
    """
    step_program = make_step(decoder, config.step, mesh)
    rates = learning_rates(config, loader.steps)
    places = 1 if mesh is None else mesh.devices.size
    frozen, state = start(decoder, parameters, config.step, mesh=mesh)
    with (
        _Checkpoints(directory, config.checkpoint_every, loader.steps) as checkpoints,
        contextlib.closing(Meter(decoder, loader, rates, directory, log, places)) as meter,
    ):
        begin, state = checkpoints.latest(state)
        meter.begin(begin)
        for number, batch in zip(range(begin, loader.steps), loader.iterate(begin), strict=True):
            rate = jnp.float32(rates[number])
            state, measured = step_program(frozen, state, place(batch, mesh), rate)
            meter.add(number, batch, measured)
            if checkpoints.is_due(number + 1):
                meter.flush()
                checkpoints.save(number + 1, state)
        meter.flush()
    # The loss of a step is that before its update.
    if not _all_finite(state.trained):
        raise DivergedError("the last step left parameters not finite: lower the learning rate")
    trained = lora.join(frozen, state.trained) if decoder.lora else state.trained
    return Trained(decoder, trained, np.array(meter.losses))


@jax.jit
def _all_finite(parameters: Parameters) -> Bool[Array, ""]:
    leaves = jax.tree.leaves(parameters)
    return functools.reduce(jnp.logical_and, (jnp.isfinite(leaf).all() for leaf in leaves))


class _Checkpoints:
    """States by the number of steps behind them; without a directory it keeps none."""

    def __init__(self, directory: Path | None, every: int, steps: int):
        self._every, self._steps, self._manager = every, steps, None
        if directory is not None and every:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=1,
                cleanup_tmp_directories=True,
                # On a CPU the next step would write over what is being saved.
                enable_async_checkpointing=False,
            )
            self._manager = ocp.CheckpointManager(
                (directory / "checkpoints").absolute(), options=options
            )

    def __enter__(self) -> _Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        if self._manager is not None:
            self._manager.close()

    def latest(self, state: State) -> tuple[int, State]:
        """Steps done and the state after them; none and `state` where nothing was kept."""
        if self._manager is None or (step := self._manager.latest_step()) is None:
            return 0, state
        like = jax.tree.map(ocp.utils.to_shape_dtype_struct, vars(state))
        found = self._manager.restore(step, args=ocp.args.StandardRestore(like))
        return step, State(**found)

    def is_due(self, steps_done: int) -> bool:
        """Whether the state after so many steps is to be kept; that after the last one is."""
        if self._manager is None:
            return False
        return steps_done % self._every == 0 or steps_done == self._steps

    def save(self, steps_done: int, state: State) -> None:
        """Keep a state in place of the one before."""
        if self._manager is not None:
            self._manager.save(steps_done, args=ocp.args.StandardSave(vars(state)))


def digest(encoded: Encoded) -> str:
    """Fingerprint of the tokens that are trained on."""
    found = hashlib.sha256(np.asarray(encoded.prompt_lengths, np.int64).tobytes())
    for tokens in encoded.tokens:
        found.update(np.int64(len(tokens)).tobytes() + tokens.astype(np.int64).tobytes())
    return found.hexdigest()[:16]


def finetune(
    base: checkpoint.PathLike,
    encoded: Encoded,
    config: TrainingConfig,
    out: Path,
    *,
    mesh: Mesh | None = None,
    tracker: Tracker = "none",
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Fine-tune a checkpoint in `out`, or carry on with the run that is there.

    With `jax.distributed` every process calls it with the same arguments, and `out` on a file
    system that all of them share.

    Args:
      base: a checkpoint's folder or hub id, see `experiments.storage.checkpoint.folder`.
      encoded: the examples.
      config: how to train.
      out: the run's directory; new, or holding the same run.
      mesh: devices to spread over; None for the default device.
      tracker: where the numbers go beside ``log.jsonl``.
      about: more for the manifest, such as where the examples are from.

    Returns:
      The fine-tuned checkpoint's folder.

    Raises:
      FileNotFoundError, ValueError: if the base or an example cannot be used, before any training.
      ResultsError: if `out` holds something else.
      DivergedError: see `train`.
    """
    folder = checkpoint.folder(base)
    check_tokens(encoded, checkpoint.read_config(folder))
    identity = {
        "base": str(base),
        "config": dataclasses.asdict(config),
        "num_examples": len(encoded),
        "data": digest(encoded),
        **(about or {}),
    }
    model, began = out / "model", time.monotonic()
    with contextlib.ExitStack() as stack:
        runs: list[Run] = []
        log = open_log("none", out, {})

        def is_trained() -> bool:
            nonlocal log
            runs.append(stack.enter_context(open_run(out, identity)))
            if not model.exists():
                log = open_log(tracker, out, identity | _tracker_id(runs[0]))
                stack.callback(log.close)
            return model.exists()

        # The first process alone holds the run and logs; all go by what it finds there.
        if not first_decides(is_trained):
            decoder, parameters = load_base(folder, config, mesh=mesh)
            loader = make_loader(encoded, config, mesh=mesh)
            trained = train(decoder, parameters, loader, config, mesh=mesh, directory=out, log=log)
            save_trained(trained, model, like=folder)

        def complete() -> bool:
            _close(runs[0], began)
            stack.close()
            return True

        # The others wait: a tracker may be slow to close, and who ends first ends all.
        first_decides(complete)
    return model


def save_trained(trained: Trained, path: Path, *, like: Path) -> None:
    """Write a Hugging Face folder, adapters merged, in the base's type and with its tokenizer.

    It states every token that `experiments.llm.answering.decoding` stops at: a base may state the
    end of texts alone, where it has learnt to end chats.

    Args:
      trained: what is written.
      path: the folder to create.
      like: the base's folder.

    Raises:
      FileExistsError: if `path` exists.
      ImportError, ValueError: if the base's tokenizer cannot be used.
    """
    decoder, parameters = trained.decoder, trained.parameters
    if decoder.lora is not None:
        decoder, parameters = lora.merge(decoder, parameters)
    parameters = gathered(parameters)

    def save() -> bool:
        dtype, stop = checkpoint.stored_dtype(like), None
        if (like / "tokenizer.json").is_file():
            stop = stop_tokens(load_tokenizer(like), like)
        checkpoint.save(path, decoder, parameters, dtype=dtype, like=like, stop=stop)
        return True

    first_decides(save)


def check_tokens(encoded: Encoded, decoder: DecoderConfig) -> None:
    """Refuse examples that a decoder cannot be trained on, before any work.

    Args:
      encoded: the examples.
      decoder: what they are for.

    Raises:
      ValueError: if there are no examples, or one is longer than the decoder's context or has a
        token beyond its vocabulary.
    """
    longest = max((len(tokens) for tokens in encoded.tokens), default=0)
    if not longest:
        raise ValueError("encoded must hold examples, got none")
    if longest > decoder.max_positions:
        raise ValueError(
            f"examples must fit into the context of the checkpoint, {decoder.max_positions} "
            f"tokens, got one of {longest}"
        )
    largest = max(int(tokens.max()) for tokens in encoded.tokens)
    if largest >= decoder.vocab_size:
        raise ValueError(
            f"tokens must be below the checkpoint's {decoder.vocab_size}, got {largest}: does the "
            f"tokenizer belong to it?"
        )


def _tracker_id(run: Run) -> dict[str, str]:
    """The run's name for a tracker, drawn once: a resumed run goes on under it."""
    if "id" not in run.manifest:
        run.update_manifest(id=uuid.uuid4().hex[:16])
    return {"id": run.manifest["id"]}


def _close(run: Run, began: float) -> None:
    """Say what ran where, if it is not said yet, and drop what only a resume needs.

    Args:
      run: with its model.
      began: when this process did; the time of those before it, which were killed, is not known.
    """
    if run.manifest["status"] != "complete":
        run.update_manifest(
            status="complete",
            wall_time_seconds=round(time.monotonic() - began, 1),
            commit=provenance.commit(),
            device=provenance.device_name(),
            num_devices=jax.device_count(),
            versions=provenance.versions(PACKAGES),
        )
    shutil.rmtree(run.directory / "checkpoints", ignore_errors=True)
