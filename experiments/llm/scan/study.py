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
    answers.parquet                        which of them are right, in one small table
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from jax.sharding import Mesh

from experiments.devices import num_cores
from experiments.engine.progress import console
from experiments.engine.run import Executor, in_this_process, run_study
from experiments.engine.study import Output, Part, Study
from experiments.engine.workload import Workload
from experiments.igsm.export import export_igsm
from experiments.llm.answering.model import Model
from experiments.llm.difficulty.measures import OF_MODEL
from experiments.llm.scan.answers import write_answers
from experiments.llm.scan.data import ScanProblems, read_stream
from experiments.llm.scan.foresight import warnings_before
from experiments.llm.scan.grid import BaseConfig, Member, ScanConfig
from experiments.llm.scan.levels import MEASURES_FILE, Levels, measure_problems, read_measures
from experiments.llm.scan.members import make_member, responses_file
from experiments.llm.scan.rows import Measurements, Row, base_columns
from experiments.llm.training.finetune import finetune
from experiments.llm.training.scratch import new_checkpoint
from experiments.storage import checkpoint
from experiments.storage.results import UNTRAINED, tidy
from experiments.storage.writing import write_parquet

TABLE = ("table",)


def run_scan(
    config: ScanConfig,
    out: Path,
    *,
    recipe: str = "custom",
    preset: str = "custom",
    executor: Executor = in_this_process,
) -> pd.DataFrame:
    """Run a scan in `out`, or carry on with the one that is there.

    Args:
      config: the scan.
      out: run directory; new, or holding the same scan.
      recipe, preset: names kept in the manifest.
      executor: runs the parts, see `run_study`.

    Returns:
      The result table.

    Raises:
      FileNotFoundError, ImportError, ValueError: if data, checkpoint or configuration cannot be
        used, before any training; ValueError too if the base does not know its own levels.
      ResultsError: if the directory cannot be used.
    """
    config.check_sources()
    study = ScanStudy(config, Path(out), recipe=recipe, preset=preset)
    table = run_study(study, executor=executor)["table"]
    write_answers(study.directory, config.members)
    return table


class ScanStudy(Study):
    """Parts: problems and base, the base's evaluation, then one for each member."""

    unit = "members"

    def __init__(self, config: ScanConfig, directory: Path, *, recipe: str, preset: str):
        self.config, self.directory = config, directory
        self._names = {"recipe": recipe, "preset": preset}
        self._members = {member.name: member for member in config.members}

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
        members = [Part(name, _words(member), TABLE) for name, member in self._members.items()]
        return [*([part] for part, _ in self._before_members()), members]

    def make(self, part: Part) -> Output:
        """Make one of the parts before the members, or fine-tune and measure a member."""
        for other, maker in self._before_members():
            if part.name == other.name:
                return maker()
        return make_member(self, self._members[part.name])

    def shared(self, parts: Sequence[Part]) -> Row:
        """Problems, and once they are known levels and base: what members need."""
        names = {part.name for part in parts}
        if names & {"train the base"}:
            return {"problems": self.problems, "start": self.start}
        if names & {"measures"}:
            return {"problems": self.problems, "base": self.base}
        read = {"problems": self.problems, "levels": self.levels}
        return read if names & {"levels"} else {**read, "base": self.base}

    def is_whole(self, part: Part, rows: Mapping[str, pd.DataFrame]) -> bool:
        """Return whether the rows are of the member, or of the base for every seed."""
        table, member = rows["table"], self._members.get(part.name)
        if member is None:
            return set(table["seed"]) == set(range(self.config.seeds))
        columns = ("train_mixture", "difficulty", "data_size", "loss", "learning_rate", "seed")
        names = ("selection", *columns[1:])
        return len(table) > 0 and all(
            (table[column] == getattr(member, name)).all()
            for column, name in zip(columns, names, strict=True)
        )

    def kept(self, part: Part) -> None:
        """Remove the checkpoints of a member, and the folder around them once it is empty."""
        work = self.directory / "work"
        shutil.rmtree(work / part.name, ignore_errors=True)
        with contextlib.suppress(OSError):
            work.rmdir()

    def workload(self) -> Workload:
        """Work of problems, base and members, and how to time it."""
        from experiments.llm.scan.workload import ScanWorkload

        return ScanWorkload(self)

    def _before_members(self) -> list[tuple[Part, Callable[[], Output]]]:
        """Parts that this scan has before its members, in order, each with its maker.

        Levels are checked as early as they are known: before the base is trained, if no model has
        to be asked for them.
        """
        base = self.config.base
        problems = Part("problems", "checking the problems", stays=True)
        training = Part("train the base", "The base", files=("base/model",), weight=0)
        measures = Part("measures", "measuring difficulty", files=(MEASURES_FILE,), weight=0)
        levels = Part("levels"), self._check_levels
        # Named as in recorded runs: the base's evaluation.
        evaluation = Part("base", "evaluating the base", TABLE, weight=0), self._evaluate_base
        scratch = Part("scratch", "a new checkpoint", files=("scratch",), weight=0, stays=True)
        export = Part("export", "exporting problems", stays=True)
        return [
            *([(export, self._export)] if self.config.export else []),
            *([(scratch, self._make_scratch)] if base.scratch else []),
            (problems, self._check_problems),
            *([] if self._needs_model else [levels]),
            *([(training, self._train_base)] if base.training else []),
            *([(measures, self._measure), levels] if self._needs_model else []),
            evaluation,
        ]

    # Problems.

    @property
    def _needs_model(self) -> bool:
        """True if levels depend on answers of the base."""
        return self.config.measure in OF_MODEL

    @functools.cached_property
    def problems(self) -> ScanProblems:
        """Problems, encoded and checked."""
        return ScanProblems.read(self.config, self.directory, self.start)

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
    def measurements(self) -> Measurements:
        """What is measured of a model, on problems with these levels."""
        return Measurements(self.levels)

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
        pins = {"data": self.problems.digests, "start": checkpoint.digest(self.start)}
        return Output(pins=pins)

    def _measure(self) -> Output:
        """Ask the base for the measures that levels depend on."""
        measures = measure_problems(self.problems, self._load_base(), keep=self.directory)
        tables = [table.assign(part=stream) for stream, table in measures.items()]
        kept = pd.concat(tables, ignore_index=True)
        return Output(files={MEASURES_FILE: partial(write_parquet, table=kept)})

    def _check_levels(self) -> Output:
        """Give every problem its level, check that every cell can be run, and warn of the rest."""
        self.levels.check_members(self.mesh)
        for sentence in warnings_before(self.config, len(self.levels.test_rows)):
            console.print(sentence, style="yellow")
        return Output(manifest=self.levels.record())

    # The base.

    @functools.cached_property
    def start(self) -> Path:
        """Folder of the checkpoint that is named, or of the new one; a hub is asked once."""
        if self.config.base.scratch is not None:
            return self.directory / "scratch"
        return checkpoint.folder(self.config.checkpoint)

    @functools.cached_property
    def base(self) -> Path:
        """The checkpoint that members start from, fine-tuned if the configuration says so."""
        has_training = self.config.base.training is not None
        return self.directory / "base" / "model" if has_training else self.start

    def _load_base(self) -> Model:
        return Model.load(self.base, mesh=self.mesh, dtype=self.config.training.dtype)

    def _make_scratch(self) -> Output:
        """Write a new checkpoint, with a tokenizer trained on the base's problems."""
        assert self.config.base.scratch is not None  # otherwise there is no such part
        problems = read_stream(self.config, self.directory, "base")
        write = partial(new_checkpoint, self.config.base.scratch, problems)
        return Output(files={"scratch": write})

    def _train_base(self) -> Output:
        """Fine-tune the base in a directory of its own, which resumes by itself."""
        training, encoded = self.config.base.training, self.problems.base
        assert training is not None  # otherwise there is no such part
        assert encoded is not None
        # Its manifest names the checkpoint as the configuration does, where that can be read.
        is_named = not (self.config.base.scratch or self.is_away)
        named = self.config.checkpoint if is_named else self.start
        finetune(str(named), encoded, training, self.directory / "base", mesh=self.mesh)
        return Output()

    def _evaluate_base(self) -> Output:
        """Rows of the untouched base, once for each seed.

        Raises:
          ValueError: if it gets too few of its own levels right.
        """
        rows, responses = self.measurements.on_test(self._load_base())
        _check_gate(self.config.base, rows)
        seeds = range(self.config.seeds)
        repeated = [
            base_columns(self.problems, seed) | UNTRAINED | row for seed in seeds for row in rows
        ]
        return Output({"table": tidy(repeated)}, responses_file("base", responses))


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
    console.print(f"The base gets {words} right.")


def _words(member: Member) -> str:
    return (
        f"{member.selection} d = {member.difficulty}, n = {member.data_size}, "
        f"{member.loss.upper()}, seed {member.seed}"
    )
