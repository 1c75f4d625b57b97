"""A sweep as a study: its bases, then chunks of fine-tuned members.

The directory holds, beside manifest, parts and table (see `experiments.storage.results`)::

    bases/          pre-trained bases as Hugging Face folders
    members/        fine-tuned members, on request
    predictions/    which examples each member got right, on request
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.engine.run import Executor, in_this_process, run_study
from experiments.engine.study import Output, Part, Study
from experiments.engine.workload import Workload
from experiments.storage import checkpoint
from experiments.storage.writing import write_atomically
from experiments.sweep.bases import Bases, read_bases
from experiments.sweep.grid import Member, SweepConfig
from experiments.sweep.plan import Chunk, plan
from experiments.sweep.programs import Outcome, Sweep
from experiments.sweep.rows import base_rows, chunk_rows
from experiments.sweep.size import check_size
from experiments.sweep.tune import tune
from synth.config import DecoderConfig
from synth.decoder import Parameters
from synth.task import Task

TABLE = ("table",)
MEMBER_COLUMNS = [
    "base_seed",
    "seed",
    "train_mixture",
    "difficulty",
    "data_size",
    "loss",
    "learning_rate",
]
"""Columns of the table that hold the fields of a `Member`, in their order."""


def run_sweep(
    config: SweepConfig,
    out: Path,
    *,
    recipe: str = "custom",
    preset: str = "custom",
    task: Task | None = None,
    bases: Path | None = None,
    executor: Executor = in_this_process,
    max_chunks: int | None = None,
) -> pd.DataFrame:
    """Run a sweep in `out`, or carry on with the one that is there.

    Args:
      config: the sweep.
      out: run directory; new, or holding the same sweep.
      recipe, preset: names kept in the manifest.
      task: a task object to use instead of ``config.task``.
      bases: directory of a run whose bases are used; default: new ones are trained.
      executor: runs the parts, see `run_study`.
      max_chunks: stop after this many chunks (the rest is left to a later call).

    Returns:
      The result table, of the finished chunks.

    Raises:
      ResultsError: if a directory cannot be used (see `experiments.storage.results.open_run` and
        `experiments.sweep.bases.read_bases`).
      OutOfMemoryError: if this process makes the parts, and needs more memory than there is.
      ValueError: if the configuration does not fit the task, its decoder cannot be saved, or a base
        errs on more than `pretrain.max_risk` of its own mixture.
    """
    given = None if bases is None else read_bases(bases, config)
    study = SweepStudy(config, Path(out), recipe=recipe, preset=preset, task=task, given=given)
    if executor is in_this_process:
        study.check_size()
    return run_study(study, executor=executor, max_parts=max_chunks)["table"]


class SweepStudy(Study):
    """Parts: the bases' training, their evaluation, then one for each chunk."""

    unit = "members"

    def __init__(
        self,
        config: SweepConfig,
        directory: Path,
        *,
        recipe: str,
        preset: str,
        task: Task | None = None,
        given: Bases | None = None,
    ):
        """Plan the chunks.

        Args:
          config, directory, recipe, preset, task: those of `run_sweep`.
          given: bases to use; default: new ones are trained.

        Raises:
          ValueError: if the configuration does not fit the task, or its decoder cannot be saved.
        """
        self.sweep, self.directory = Sweep(config, task=task, phases=self.phases), directory
        # Bases are saved once all of them are trained: what cannot be saved is refused now.
        checkpoint.check_storable(self.sweep.decoder)
        self._given = given
        self._names = {"recipe": recipe, "preset": preset}
        self._chunks = {chunk.name: chunk for chunk in plan(self.sweep.draws)}

    def check_size(self) -> None:
        """Raise OutOfMemoryError if the sweep needs more memory than this machine has."""
        check_size(self.sweep, self._chunks.values())

    @property
    def identity(self) -> dict[str, Any]:
        """Recipe, preset, configuration, and the members of every chunk."""
        return {
            **self._names,
            "config": dataclasses.asdict(self.sweep.config),
            "decoder": dataclasses.asdict(self.sweep.decoder),
            "chunks": [
                {
                    "name": chunk.name,
                    "group": dataclasses.asdict(chunk.group),
                    "members": [member.name for member in chunk.members],
                }
                for chunk in self._chunks.values()
            ],
        }

    def stages(self) -> list[list[Part]]:
        """Train the bases; evaluate them; fine-tune and measure the members."""
        number = self.sweep.config.base_seeds
        made = "training" if self._given is None else "taking over"
        return [
            [Part("pretrain", f"{made} {number} base(s)", files=tuple(self._bases), weight=0)],
            [Part("bases", "evaluating the bases", TABLE, weight=0)],
            [
                Part(chunk.name, _title(chunk), TABLE, weight=len(chunk.members))
                for chunk in self._chunks.values()
            ],
        ]

    def make(self, part: Part) -> Output:
        """Make the missing bases, evaluate all, or run a chunk."""
        sweep = self.sweep
        if part.name == "pretrain":
            return self._pretrained()
        if part.name == "bases":
            rows = base_rows(sweep, sweep.evaluate_bases(self.bases))
            sizes = {"log10_num_problems": self._log10_num_problems()}
            return Output({"table": rows}, manifest=sizes)
        chunk = self._chunks[part.name]
        outcomes = sweep.finetune_chunk(chunk, self.bases)
        files = {
            path: write
            for member, outcome in zip(chunk.members, outcomes, strict=True)
            for path, write in self._kept(member, outcome).items()
        }
        with self.phases("rows"):
            rows = chunk_rows(sweep, chunk, outcomes)
        return Output({"table": rows}, files)

    def shared(self, parts: Sequence[Part]) -> dict[str, Any]:
        """The bases, once they are trained."""
        return {} if any(part.name == "pretrain" for part in parts) else {"bases": self.bases}

    def is_whole(self, part: Part, rows: Mapping[str, pd.DataFrame]) -> bool:
        """Return whether the rows are of the members of a chunk, or of all bases."""
        config, table = self.sweep.config, rows["table"]
        if part.name == "bases":
            expected = set(itertools.product(range(config.base_seeds), range(config.seeds)))
            return set(zip(table["base_seed"], table["seed"], strict=True)) == expected
        columns = [table[name] for name in MEMBER_COLUMNS]
        members = self._chunks[part.name].members
        return set(zip(*columns, strict=True)) == {dataclasses.astuple(each) for each in members}

    def assembled(self, table: pd.DataFrame) -> pd.DataFrame:
        """Mark members whose learning rate is not the best of their cell, see `tune`."""
        return tune(table)

    def session_fields(self) -> dict[str, Any]:
        """Numbers of traces and of programs that were traced: equal unless shapes vary in one.

        Also when the training of bases began, if there were any to train; and where memory did not
        hold all members of a chunk at once, how many it held.
        """
        traces, fewest = self.sweep.traces, self.sweep.members.together.fewest
        fields: dict[str, Any] = {"traces": sum(traces.values()), "programs_traced": len(traces)}
        if "pretrain" in self.phases.began:
            began = datetime.fromtimestamp(self.phases.began["pretrain"], UTC)
            fields["pretraining_began"] = began.isoformat(timespec="milliseconds")
        return fields if fewest is None else fields | {"members_at_once": fewest}

    def workload(self) -> Workload:
        """Operations, tokens and bytes of bases and chunks, and how to time them."""
        from experiments.sweep.workload import SweepWorkload

        return SweepWorkload(self.sweep, self._chunks, trains_bases=self._given is None)

    def note(self, tables: Mapping[str, pd.DataFrame]) -> str:
        """One line per loss and mixture: the best difficulty for each data size so far."""
        return best_so_far(tables["table"]) if "table" in tables else ""

    # Bases.

    @property
    def _bases(self) -> dict[str, int]:
        """Base seed of each base, by path."""
        return {f"bases/base-{seed}": seed for seed in range(self.sweep.config.base_seeds)}

    @functools.cached_property
    def bases(self) -> list[Parameters]:
        """The bases, read from their files."""
        return [checkpoint.load(self.directory / path)[1] for path in self._bases]

    def _pretrained(self) -> Output:
        """Train the bases that are not in the directory yet, or take those that were given."""
        missing = {path: seed for path, seed in self._bases.items() if not self.has_file(path)}
        seeds = [*missing.values()]
        if self._given is None:
            trained, origin = self.sweep.pretrain_bases(seeds), {}
        else:
            trained = [self._given.parameters[seed] for seed in seeds]
            origin = {"bases_from": self._given.origin}
        savers = [partial(_save, self.sweep.decoder, parameters) for parameters in trained]
        return Output(files=dict(zip(missing, savers, strict=True)), manifest=origin)

    def _log10_num_problems(self) -> dict[str, float | None]:
        """Decimal logarithm of the number of distinct problems by level; None if not known."""
        task, levels = self.sweep.task, self.sweep.config.test_levels
        sizes = {str(level): task.log_num_problems(level) for level in levels}
        return {
            level: None if size is None else round(size / math.log(10), 2)
            for level, size in sizes.items()
        }

    # Members.

    def _kept(self, member: Member, outcome: Outcome) -> dict[str, Callable[[Path], None]]:
        """Parameters and predictions of a member, as far as the configuration asks for them."""
        files: dict[str, Callable[[Path], None]] = {}
        if outcome.parameters is not None:
            save = partial(_save, self.sweep.decoder, outcome.parameters)
            files[f"members/{member.name}"] = save
        if self.sweep.config.save_predictions:
            slices = self.sweep.draws.by_slice(outcome.test)
            levels = self.sweep.config.test_levels
            arrays = {f"test_{level}": part for level, part in zip(levels, slices, strict=True)}
            arrays |= {"train": outcome.train, "in_distribution": outcome.in_distribution}
            files[f"predictions/{member.name}.npz"] = partial(_write_arrays, arrays)
        return files


def _title(chunk: Chunk) -> str:
    """Describe a chunk: number of members, difficulties, data sizes, loss and steps."""

    def spread(values: set[int]) -> str:
        return f"{min(values)}" + (f" to {max(values)}" if len(values) > 1 else "")

    difficulties = spread({member.difficulty for member in chunk.members})
    sizes = spread({member.data_size for member in chunk.members})
    return (
        f"{len(chunk.members)} members of d = {difficulties}, n = {sizes}, "
        f"{chunk.group.loss.upper()}, {chunk.group.steps} steps"
    )


def _save(decoder: DecoderConfig, parameters: Parameters, path: Path) -> None:
    """Save parameters, unless an interrupted session has saved them."""
    if not path.exists():
        checkpoint.save(path, decoder, parameters)


def _write_arrays(arrays: dict[str, np.ndarray], path: Path) -> None:
    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]

    write_atomically(path, write)


def best_so_far(table: pd.DataFrame) -> str:
    """One line per mixture and loss: the best difficulty for each size, of finished members."""
    chosen = (table["metric"] == "test_risk") & (table["status"] == "ok")
    risks = table.loc[chosen & (table["train_mixture"] != "none")]
    cells = risks.groupby(["train_mixture", "loss", "data_size", "difficulty"])["value"].mean()
    lines = []
    for names, rows in cells.groupby(level=["train_mixture", "loss"]):
        best = rows.groupby(level="data_size").idxmin()
        levels = ", ".join(f"n={size}: {cell[-1]}" for size, cell in best.items())
        lines.append(f"best difficulty so far ({', '.join(map(str, names))})  {levels}")
    return "\n".join(lines)
