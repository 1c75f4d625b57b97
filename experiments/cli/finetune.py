"""The command ``sweetspot llm finetune``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from experiments.cli.arguments import Directory, Model
from experiments.cli.plan import NO_PLAN, Planning
from experiments.engine.progress import console
from experiments.llm.problems.config import Source
from experiments.llm.scan.grid import NO_DATA
from experiments.llm.text.config import LossOn, OnLong
from experiments.llm.training.config import NOTHING_WATCHED, Processes, TrainingConfig, Watch
from experiments.llm.training.log import Tracker
from experiments.storage.config import Devices

if TYPE_CHECKING:
    from experiments.llm.text.encoding import Encoded

TRAINING, ONE_DEVICE, ONE_PROCESS = TrainingConfig(), Devices(), Processes()


def finetune_checkpoint(
    model: Model,
    data: Annotated[Source, tyro.conf.arg(name="")],
    out: Directory,
    difficulty: int | None = None,
    data_size: int | None = None,
    max_length: int = 2048,
    on_long: OnLong = "error",
    loss_on: LossOn = "last",
    config: Annotated[
        TrainingConfig, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands
    ] = TRAINING,
    validation: Source = NO_DATA,
    watch: Annotated[Watch, tyro.conf.arg(name="")] = NOTHING_WATCHED,
    devices: Annotated[Devices, tyro.conf.arg(name="")] = ONE_DEVICE,
    processes: Annotated[Processes, tyro.conf.arg(name="")] = ONE_PROCESS,
    tracker: Tracker = "none",
    planning: Planning = NO_PLAN,
) -> None:
    """Fine-tune a checkpoint, or carry on with an interrupted fine-tuning.

    Writes OUT/model, a Hugging Face folder with a model card, and OUT/log.jsonl; with
    `sample_responses` also OUT/samples.jsonl.

    Args:
      model: folder or hub id of the base.
      data: the problems.
      out: directory of the run.
      difficulty: train on this stated difficulty alone; default all.
      data_size: examples to train on, the first in a shuffled order; default all.
      max_length: tokens of an example at most.
      on_long: what becomes of longer ones.
      loss_on: turns of the assistant that the loss counts in a chat of several.
      config: how to train.
      validation: problems of the validation loss, in place of `validation_share`.
      watch: what to look at on the way.
      devices: how many devices share the work, and how it is split over them.
      processes: how several processes train together.
      tracker: where the numbers go beside OUT/log.jsonl.
      planning: print what it takes instead.

    Raises:
      ValueError: if `validation` and `validation_share` are both given, or patience without a
        validation loss; and what `finetune` raises.
    """
    from experiments.llm.answering.samples import Samples
    from experiments.llm.problems.data import read_source
    from experiments.llm.text.examples import training_examples
    from experiments.llm.training.distributed import is_first
    from experiments.llm.training.finetune import finetune
    from experiments.llm.training.watch import UNWATCHED, Watched
    from experiments.llm.training.workload import Finetuning

    if validation.source and watch.validation_share:
        raise ValueError(
            f"validation.source and validation_share must not both be given, got "
            f"{validation.source!r} and {watch.validation_share:g}"
        )
    processes.join()
    # Choose the examples, and those that are held out.
    texts = {"max_length": max_length, "on_long": on_long, "loss_on": loss_on}
    encoded = training_examples(
        model,
        read_source(data),
        difficulty=difficulty,
        data_size=data_size,
        seed=config.seed,
        **texts,
    )
    encoded, held_out = _with_validation(model, encoded, validation, watch, config.seed, texts)
    # Prepare the validation loss and the answers between steps, if they are asked for.
    watched, sampler, mesh = UNWATCHED, None, devices.mesh()
    if held_out is not None or watch != NOTHING_WATCHED:
        if watch.sample_responses:
            shown = encoded if held_out is None else held_out
            sampler = Samples(model, shown, watch, out / "samples.jsonl", mesh=mesh)
        watched = Watched(watch, held_out, sampler)
    # Plan it, or train.
    if planning.is_asked:
        answering = sampler and sampler.answering(config.dtype)
        study = Finetuning(model, encoded, config, out, mesh, watched=watched, answering=answering)
        planning.show(study)
        return
    about = {
        "source": dataclasses.asdict(data),
        "difficulty": difficulty,
        "rows": encoded.rows.tolist(),
        # As it was before there was a choice, so that older runs carry on.
        "loss_on": None if loss_on == "last" else loss_on,
    }
    if held_out is not None:
        about["validation"] = {
            "source": dataclasses.asdict(validation if validation.source else data),
            "rows": held_out.rows.tolist(),
        }
    path = finetune(
        model, encoded, config, out, mesh=mesh, tracker=tracker, about=about, watched=watched
    )
    if is_first():
        console.print(f"Checkpoint: {path}")


def _with_validation(
    model: str,
    encoded: Encoded,
    validation: Source,
    watch: Watch,
    seed: int,
    texts: Mapping[str, Any],
) -> tuple[Encoded, Encoded | None]:
    """Examples to train on, and those of the validation loss, if one is asked for."""
    from experiments.llm.problems.data import read_source
    from experiments.llm.text.examples import encode_for, held_out, num_shared

    if watch.validation_share:
        return held_out(encoded, watch.validation_share, seed=seed)
    if not validation.source:
        return encoded, None
    problems = read_source(validation)
    others = encode_for(model, problems, range(len(problems)), **texts)
    if shared := num_shared(others, encoded):
        console.print(
            f"{shared} of {len(others)} examples of the validation loss are also trained on.",
            style="yellow",
        )
    return encoded, others
