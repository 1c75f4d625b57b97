"""A scan as a study: problems, base, gate, then one fine-tuning after the other.

The directory is that of every study (see `experiments.storage.results`), so that every figure draws
from it. A part is a member, or the base. Beside manifest, parts and table::

    measures.parquet, decoded-*.jsonl      answers of the base that give problems their levels
    data/       exported problems, if the scan makes its own
    scratch/    new checkpoint, if the base is made from nothing
    base/       fine-tuning of the base, if there is one
    work/       the member under way, with its checkpoints
    members/    fine-tuned checkpoints, on request
    responses/  every member's answers to the test
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from jax.sharding import Mesh

from experiments.devices import num_cores
from experiments.engine.progress import console
from experiments.engine.run import run_study
from experiments.engine.study import Output, Part, Study
from experiments.igsm.export import export_igsm
from experiments.llm.answering.model import Model
from experiments.llm.difficulty.measures import OF_MODEL
from experiments.llm.scan.data import ScanProblems, read_stream
from experiments.llm.scan.grid import BaseConfig, Member, ScanConfig
from experiments.llm.scan.levels import MEASURES_FILE, Levels, measure_problems, read_measures
from experiments.llm.scan.rows import Measurements, Row, metric
from experiments.llm.text.encoding import Encoded
from experiments.llm.text.tokenizer import stop_tokens
from experiments.llm.training.config import TrainingConfig
from experiments.llm.training.finetune import finetune, save_trained
from experiments.llm.training.meter import DivergedError
from experiments.llm.training.scratch import new_checkpoint
from experiments.llm.training.train import TrainedModel, load_base, make_loader, train
from experiments.storage import checkpoint
from experiments.storage.results import UNTRAINED, tidy, write_parquet

TABLE = ("table",)


def run_scan(
    config: ScanConfig, out: Path, *, recipe: str = "custom", preset: str = "custom"
) -> pd.DataFrame:
    """Run a scan in `out`, or carry on with the one that is there.

    Args:
      config: the scan.
      out: run directory; new, or holding the same scan.
      recipe, preset: names kept in the manifest.

    Returns:
      The result table.

    Raises:
      FileNotFoundError, ImportError, ValueError: if data, checkpoint or configuration cannot be
        used, before any training; ValueError too if the base does not know its own levels.
      ResultsError: if the directory cannot be used.
    """
    config.check_sources()
    return run_study(ScanStudy(config, Path(out), recipe=recipe, preset=preset))["table"]


class ScanStudy(Study):
    """Parts: problems and base, the base's evaluation, then one for each member."""

    unit = "members"

    def __init__(self, config: ScanConfig, directory: Path, *, recipe: str, preset: str):
        self.config, self.directory = config, directory
        self._names = {"recipe": recipe, "preset": preset}
        self._members = {member.name: member for member in config.members}
        self._makers = {
            "export": self._export,
            "scratch": self._make_scratch,
            "problems": self._check_problems,
            "train the base": self._train_base,
            "levels": self._measure_levels,
            "base": self._evaluate_base,  # named as in recorded runs: the base's evaluation
        }

    @property
    def identity(self) -> Row:
        """Recipe, preset, configuration, and the members."""
        return {
            "kind": "llm",
            **self._names,
            "config": dataclasses.asdict(self.config),
            "chunks": [{"name": name} for name in self._members],
        }

    def stages(self) -> list[list[Part]]:
        """Problems and base, one after the other, as far as the scan needs them; then members."""
        config = self.config
        before = [
            (config.export is not None, Part("export", "exporting problems")),
            (config.base.scratch is not None, Part("scratch", "", (), ("scratch",), weight=0)),
            (True, Part("problems")),
            (
                config.base.training is not None,
                Part("train the base", "The base", files=("base/model",), weight=0),
            ),
            (self._needs_model, Part("levels", files=(MEASURES_FILE,), weight=0)),
            (True, Part("base", tables=TABLE, weight=0)),
        ]
        members = [Part(name, _words(member), TABLE) for name, member in self._members.items()]
        return [*([part] for is_needed, part in before if is_needed), members]

    def make(self, part: Part) -> Output:
        """Make one of the parts before the members, or fine-tune and measure a member."""
        if part.name in self._makers:
            return self._makers[part.name]()
        return Output({"table": tidy(self._member_rows(self._members[part.name]))})

    # Problems.

    @property
    def _needs_model(self) -> bool:
        """True if levels depend on answers of the base."""
        return self.config.measure in OF_MODEL

    @functools.cached_property
    def problems(self) -> ScanProblems:
        """Problems, encoded and checked."""
        return ScanProblems.read(self.config, self.directory, self._start)

    @functools.cached_property
    def levels(self) -> Levels:
        """Levels of the problems; from the kept measures, if a model had to be asked."""
        measures = (
            read_measures(self.directory)
            if self._needs_model
            else measure_problems(self.problems, self.problems.tokenizer)
        )
        return Levels.cut(self.problems, measures)

    @property
    def _measurements(self) -> Measurements:
        return Measurements(self.levels, self.directory)

    @functools.cached_property
    def mesh(self) -> Mesh | None:
        """Devices of the whole scan."""
        return self.config.devices.mesh()

    def _export(self) -> Output:
        """Export problems, or carry on with an export that was interrupted."""
        assert self.config.export is not None  # otherwise there is no such part
        export_igsm(
            self.config.export, self.directory / "data", processes=num_cores(), console=console
        )
        return Output()

    def _check_problems(self) -> Output:
        """Read, encode and check all problems before anything is trained."""
        pins = {"data": self.problems.digests, "start": checkpoint.digest(self._start)}
        if self._needs_model:
            return Output(pins=pins)
        self.levels.check_members(self.mesh)
        return Output(pins=pins, manifest=self.levels.record())

    def _measure_levels(self) -> Output:
        """Ask the base for the measures that levels depend on; keep them."""
        measures = measure_problems(self.problems, self._load_base(), keep=self.directory)
        levels = Levels.cut(self.problems, measures)
        levels.check_members(self.mesh)
        tables = [table.assign(part=stream) for stream, table in measures.items()]
        kept = pd.concat(tables, ignore_index=True)
        write = functools.partial(write_parquet, table=kept)
        return Output(files={MEASURES_FILE: write}, manifest=levels.record())

    # The base.

    @property
    def _start(self) -> checkpoint.PathLike:
        """The checkpoint that is named, or the new one."""
        is_new = self.config.base.scratch is not None
        return self.directory / "scratch" if is_new else self.config.checkpoint

    @property
    def base(self) -> Path:
        """The checkpoint that members start from, fine-tuned if the configuration says so."""
        if self.config.base.training is None:
            return checkpoint.folder(self._start)
        return self.directory / "base" / "model"

    def _load_base(self) -> Model:
        return Model.load(self.base, mesh=self.mesh, dtype=self.config.training.dtype)

    def _make_scratch(self) -> Output:
        """Write a new checkpoint, with a tokenizer trained on the base's problems."""
        assert self.config.base.scratch is not None  # otherwise there is no such part
        problems = read_stream(self.config, self.directory, "base")
        write = functools.partial(new_checkpoint, self.config.base.scratch, problems)
        return Output(files={"scratch": write})

    def _train_base(self) -> Output:
        """Fine-tune the base in a directory of its own, which resumes by itself."""
        training, encoded = self.config.base.training, self.problems.base
        assert training is not None  # otherwise there is no such part
        assert encoded is not None
        finetune(self._start, encoded, training, self.directory / "base", mesh=self.mesh)
        return Output()

    def _evaluate_base(self) -> Output:
        """Rows of the untouched base, once for each seed.

        Raises:
          ValueError: if it gets too few of its own levels right.
        """
        rows = self._measurements.on_test(self._load_base(), "base")
        _check_gate(self.config.base, rows)
        seeds = range(self.config.seeds)
        repeated = [self._columns(seed) | UNTRAINED | row for seed in seeds for row in rows]
        return Output({"table": tidy(repeated)})

    # Members.

    def _member_rows(self, member: Member) -> list[Row]:
        """Fine-tune and measure one member, and return its rows of the table."""
        config, work = self.config, self.directory / "work" / member.name
        training = dataclasses.replace(
            config.training, loss=member.loss, learning_rate=member.learning_rate, seed=member.seed
        )
        # Train it, or carry on with its checkpoints.
        trained_on, fresh = self.levels.rows(member)
        encoded = self.problems.encoded.take(trained_on)
        trained = _train(self.base, encoded, training, self.mesh, work)
        columns = self._columns(member.seed) | {
            "train_mixture": member.selection,
            "loss": member.loss,
            "difficulty": member.difficulty,
            "data_size": member.data_size,
            "compute": config.compute_name,
            "learning_rate": member.learning_rate,
            "status": "diverged" if trained is None else "ok",
        }
        if trained is None:
            _remove(work)
            return [columns | row for row in self._measurements.of_diverged_member()]
        # Measure it, keep it if the configuration says so, and drop its checkpoints.
        tokenizer, mesh = self.problems.tokenizer, self.mesh
        stop = stop_tokens(tokenizer, self.base)
        model = Model(trained.decoder, trained.parameters, tokenizer, stop, mesh)
        rows = self._measurements.of_member(model, member.name, trained_on, fresh)
        if len(trained.losses):
            final = trained.losses[-max(1, len(trained.losses) // 10) :].mean()
            rows.append(metric("final_loss", final, len(trained_on)))
        if config.save_members and not (path := self.directory / "members" / member.name).exists():
            save_trained(trained, path, like=self.base)
        _remove(work)
        return [columns | row for row in rows]

    def _columns(self, seed: int) -> Row:
        config = self.config
        return {
            "task": "igsm" if config.export else self.problems.train.name,
            "base": "scratch" if config.base.scratch else config.checkpoint,
            "base_seed": 0,
            "seed": seed,
            "data_unit": config.data_unit,
        }


def _train(
    base: Path, encoded: Encoded, training: TrainingConfig, mesh: Mesh | None, work: Path
) -> TrainedModel | None:
    """Return a fine-tuned checkpoint; None if its loss was not finite."""
    decoder, parameters = load_base(base, training, mesh=mesh)
    loader = make_loader(encoded, training, mesh=mesh)
    try:
        return train(decoder, parameters, loader, training, mesh=mesh, directory=work)
    except DivergedError as error:
        console.print(f"[yellow]{error}[/yellow]", highlight=False)
        return None


def _check_gate(config: BaseConfig, rows: list[Row]) -> None:
    """Stop the scan if the base gets too few of its own levels right."""
    if not config.levels:
        return
    own = [row["value"] for row in rows if row["slice"] in config.levels]
    accuracy = 1 - float(np.mean(own)) if own else 0.0
    words = f"{accuracy:.0%} of its own levels {list(config.levels)}"
    if accuracy < config.least_accuracy:
        raise ValueError(
            f"the base gets {words} right, less than base.least_accuracy = "
            f"{config.least_accuracy:.0%}: train it longer (base.training) or allow it"
        )
    console.print(f"The base gets {words} right.", highlight=False)


def _words(member: Member) -> str:
    return (
        f"{member.selection} d = {member.difficulty}, n = {member.data_size}, "
        f"{member.loss.upper()}, seed {member.seed}"
    )


def _remove(work: Path) -> None:
    """Remove the folder of a member under way, and the folder around it once it is empty."""
    shutil.rmtree(work, ignore_errors=True)
    with contextlib.suppress(OSError):
        work.parent.rmdir()
