"""The run directory of a fine-tuning of a real checkpoint on encoded examples.

A run is a directory::

    manifest.json   configuration, base, digest of the data; for each session versions, device, time
    log.jsonl       one line a step: loss, gradient norm, learning rate, tokens, tokens per second,
                    epochs shown; the epoch's mean loss where one ends; validation losses
    samples.jsonl   answers to a few prompts on the way, if they are asked for
    checkpoints/    parameters and optimiser, by step; removed when the run is complete
    model/          the fine-tuned checkpoint as a Hugging Face folder, adapters merged, with a card

A run that was killed resumes from its last checkpoint and ends with the same numbers, bit for bit,
because batches are a function of the step and nothing else is random. This holds for the same
number and kind of devices, and of cores; on others, float32 agrees up to rounding. A GPU needs
settings for both:

- ``XLA_FLAGS=--xla_gpu_deterministic_ops=true`` selects kernels that add in a fixed order, and
  turns autotuning off, which could choose other kernels after a restart. Faster is only
  ``--xla_gpu_exclude_nondeterministic_ops=true``, with ``JAX_COMPILATION_CACHE_DIR`` set to a
  folder that persists: a restart then reads the tuned program from there
  (https://openxla.org/xla/determinism).
- ``JAX_DEFAULT_MATMUL_PRECISION=highest`` makes float32 agree with another device or number of
  devices: by default matrix products are rounded to TF32.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from experiments.engine.progress import console
from experiments.engine.session import Session, check_precision
from experiments.interrupts import when_interrupted
from experiments.llm.text.encoding import Encoded, check_examples
from experiments.llm.text.tokenizer import load_tokenizer, stop_tokens
from experiments.llm.training import lora
from experiments.llm.training.card import write_card
from experiments.llm.training.config import TrainingConfig
from experiments.llm.training.distributed import first_decides, gathered
from experiments.llm.training.log import Tracker, open_log
from experiments.llm.training.saved import FINGERPRINTS, LOG
from experiments.llm.training.train import (
    TrainedModel,
    check_attention,
    load_base,
    make_loader,
    train,
)
from experiments.llm.training.watch import UNWATCHED, Watched
from experiments.storage import checkpoint
from experiments.storage.integrity import fingerprint, set_aside
from experiments.storage.results import Run, open_run


def digest(encoded: Encoded) -> str:
    """Fingerprint of the tokens that are trained on, and of those that the loss counts."""
    total = hashlib.sha256(np.asarray(encoded.prompt_lengths, np.int64).tobytes())
    for tokens in encoded.tokens:
        total.update(np.int64(len(tokens)).tobytes() + tokens.astype(np.int64).tobytes())
    for mask in encoded.masks or ():
        total.update(np.packbits(mask).tobytes())
    return total.hexdigest()[:16]


def finetune(
    base: checkpoint.PathLike,
    encoded: Encoded,
    config: TrainingConfig,
    out: Path,
    *,
    mesh: Mesh | None = None,
    tracker: Tracker = "none",
    about: Mapping[str, Any] | None = None,
    watched: Watched = UNWATCHED,
) -> Path:
    """Fine-tune a checkpoint in `out`, or resume the run that is there.

    With `jax.distributed` every process makes this call with the same arguments; `out` is on a file
    system that all of them share.

    Args:
      base: a checkpoint's folder or hub id, see `experiments.storage.checkpoint.folder`.
      encoded: the examples.
      config: of the training.
      out: directory of the run; new, or holding the same run.
      mesh: devices to train on; None for the default device.
      tracker: receives the numbers besides ``log.jsonl``.
      about: further fields of the manifest, such as the source of the examples.
      watched: validation loss, early stopping and answers on the way.

    Returns:
      Folder of the fine-tuned checkpoint.

    Raises:
      FileNotFoundError, ValueError: before any training, if the base or an example cannot be used,
        or JAX computes in double precision.
      ResultsError: if `out` holds another run, or something else.
      DivergedError: see `train`.
    """
    check_precision()
    check_attention(config)
    folder = checkpoint.folder(base)
    for examples in (encoded, watched.validation):
        if examples is not None:
            check_examples(examples, checkpoint.read_config(folder))
    identity = {
        "base": str(base),
        "config": dataclasses.asdict(config),
        "num_examples": len(encoded),
        "data": digest(encoded),
        "watch": _identity(watched),
        **(about or {}),
    }
    model = out / "model"
    with contextlib.ExitStack() as stack:
        runs: list[Run] = []
        sessions: list[Session] = []
        log = open_log("none", out, {})

        def is_trained() -> bool:
            nonlocal log
            runs.append(stack.enter_context(open_run(out, identity)))
            for notice in (*runs[0].notices, *_without_damage(runs[0], model)):
                console.print(notice, style="yellow")
            if not model.exists():
                sessions.append(Session(runs[0]))
                log = open_log(tracker, out, identity | _tracker_id(runs[0]))
                stack.callback(log.close)
                # A tracker keeps its last numbers in memory.
                stack.callback(when_interrupted(log.close))
            return model.exists()

        # Only the first process opens the run and logs; all act on its answer.
        if not first_decides(is_trained):
            decoder, parameters = load_base(folder, config, mesh=mesh)
            loader = make_loader(encoded, config, mesh=mesh)
            places = {"mesh": mesh, "directory": out, "log": log}
            trained = train(decoder, parameters, loader, config, watched=watched, **places)
            save_trained(trained, model, like=folder)

        def complete() -> bool:
            told = sessions[0].fields() if sessions else {}
            if runs[0].manifest.get("status") != "complete":
                write_card(model, identity, out / LOG)
                told |= {"status": "complete", "model": fingerprint(model)}
            if told:
                runs[0].update_manifest(**told)
            shutil.rmtree(out / "checkpoints", ignore_errors=True)
            (out / FINGERPRINTS).unlink(missing_ok=True)
            stack.close()
            return True

        # The others wait, because a process that ends early ends all: a tracker may close slowly.
        first_decides(complete)
    return model


def _identity(watched: Watched) -> dict[str, Any] | None:
    """What the manifest says of what is watched; None for nothing."""
    if watched is UNWATCHED:
        return None
    stated = dataclasses.asdict(watched.config)
    if watched.validation is not None:
        stated |= {"num_examples": len(watched.validation), "data": digest(watched.validation)}
    return stated


def save_trained(trained: TrainedModel, path: Path, *, like: Path) -> None:
    """Write a Hugging Face folder in the base's type and with its tokenizer, adapters merged.

    Its generation settings state every token that `experiments.llm.answering.decoding` stops at. A
    base may state only the end of texts, although it has learnt to end chats.

    Args:
      trained: the model to write.
      path: the folder to create.
      like: folder of the base.

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


def _without_damage(run: Run, model: Path) -> list[str]:
    """Move a trained checkpoint that has changed out of the way; return sentences about it."""
    if not model.exists() or run.manifest.get("model") in (None, fingerprint(model)):
        return []
    target = set_aside(model, run.directory)
    run.update_manifest(status="running", model=None)
    return [f"{model} is damaged (it has changed since it was written): moved to {target}."]


def _tracker_id(run: Run) -> dict[str, str]:
    """Name of the run for a tracker, drawn once, so that a resumed run keeps it."""
    if "id" not in run.manifest:
        run.update_manifest(id=uuid.uuid4().hex[:16])
    return {"id": run.manifest["id"]}
