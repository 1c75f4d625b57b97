"""One member of a scan: fine-tuned from the base, measured, and kept on request."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from jax.sharding import Mesh

from experiments.engine.progress import console
from experiments.engine.study import Output
from experiments.llm.answering.model import Model
from experiments.llm.scan.grid import Member
from experiments.llm.scan.rows import member_columns, metric
from experiments.llm.text.encoding import Encoded
from experiments.llm.text.tokenizer import stop_tokens
from experiments.llm.training.config import TrainingConfig
from experiments.llm.training.finetune import save_trained
from experiments.llm.training.meter import DivergedError
from experiments.llm.training.train import TrainedModel, load_base, make_loader, train
from experiments.storage.results import tidy
from experiments.storage.writing import write_parquet

if TYPE_CHECKING:
    from experiments.llm.scan.study import ScanStudy


def make_member(study: ScanStudy, member: Member) -> Output:
    """Fine-tune and measure one member: its rows and files."""
    config = study.config
    training = dataclasses.replace(
        config.training, loss=member.loss, learning_rate=member.learning_rate, seed=member.seed
    )
    # Train it, or carry on with its checkpoints.
    trained_on, fresh = study.levels.rows(member)
    encoded = study.problems.encoded.take(trained_on)
    work = study.directory / "work" / member.name
    trained = _train(study.base, encoded, training, study.mesh, work)
    columns = member_columns(study.problems, member, is_diverged=trained is None)
    if trained is None:
        rows = study.measurements.of_diverged_member()
        return Output({"table": tidy([columns | row for row in rows])})
    # Measure it, and keep its answers, and itself if the configuration says so.
    tokenizer, mesh = study.problems.tokenizer, study.mesh
    stop = stop_tokens(tokenizer, study.base)
    model = Model(trained.decoder, trained.parameters, tokenizer, stop, mesh)
    rows, responses = study.measurements.of_member(model, trained_on, fresh)
    if len(trained.losses):
        final = trained.losses[-max(1, len(trained.losses) // 10) :].mean()
        rows.append(metric("final_loss", final, len(trained_on)))
    files = responses_file(member.name, responses)
    if config.save_members:
        files[f"members/{member.name}"] = partial(_save_once, trained, study.base)
    return Output({"table": tidy([columns | row for row in rows])}, files)


def _train(
    base: Path, encoded: Encoded, training: TrainingConfig, mesh: Mesh | None, work: Path
) -> TrainedModel | None:
    """Return a fine-tuned checkpoint; None if its loss was not finite."""
    decoder, parameters = load_base(base, training, mesh=mesh)
    loader = make_loader(encoded, training, mesh=mesh)
    try:
        return train(decoder, parameters, loader, training, mesh=mesh, directory=work)
    except DivergedError as error:
        console.print(str(error), style="yellow")
        return None


def responses_file(name: str, responses: pd.DataFrame) -> dict[str, Callable[[Path], object]]:
    """The file of a model's answers to the test."""
    return {f"responses/{name}.parquet": partial(write_parquet, table=responses)}


def _save_once(trained: TrainedModel, base: Path, path: Path) -> None:
    """Save a member, unless an interrupted session has saved it."""
    if not path.exists():
        save_trained(trained, path, like=base)
