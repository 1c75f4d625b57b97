"""Run a scan in a directory: data, base, gate, then one fine-tuning after the other.

A scan's directory is a run's (see `experiments.storage.results`), so that every figure draws from
it::

    manifest.json, table.parquet, parts/   as in a sweep; a part is a member, or the base
    measures.parquet, decoded-*.jsonl      what the base was asked for the sake of levels
    data/       exported problems, where the scan makes its own
    scratch/    new checkpoint, where the base is made from nothing
    base/       fine-tuning of the base, where there is one
    work/       the member under way, with its checkpoints
    members/    fine-tuned checkpoints, on request
    responses/  what every member answered to the test
"""

from __future__ import annotations

import dataclasses
import math
import platform
import shutil
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from rich.console import Console

from experiments.devices import num_cores
from experiments.igsm.export import export_igsm
from experiments.llm.answering.evaluate import Evaluation, evaluate
from experiments.llm.answering.model import Model
from experiments.llm.problems.data import Problems
from experiments.llm.scan.data import ScanData, read_part
from experiments.llm.scan.grid import Member, ScanConfig
from experiments.llm.training.config import TrainingConfig
from experiments.llm.training.finetune import (
    PACKAGES,
    Trained,
    finetune,
    load_base,
    make_loader,
    save_trained,
    train,
)
from experiments.llm.training.meter import DivergedError
from experiments.llm.training.scratch import new_checkpoint
from experiments.storage import checkpoint, provenance
from experiments.storage.results import Run, open_run, read_table, tidy, write_atomically

console = Console()

Rows = list[dict[str, Any]]
UNTRAINED = {
    "train_mixture": "none",
    "loss": "none",
    "difficulty": 0,
    "data_size": 0,
    "compute": "0 steps",
    "learning_rate": 0.0,
    "status": "ok",
}
"""Columns of the base's rows."""


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
    identity = {
        "kind": "llm",
        "recipe": recipe,
        "preset": preset,
        "config": dataclasses.asdict(config),
        "chunks": [{"name": member.name} for member in config.members],
    }
    with open_run(Path(out), identity) as run:
        if run.manifest["status"] == "complete" and (run.directory / "table.parquet").exists():
            console.print(f"{run.directory} is complete: nothing left to run.")
            return read_table(run.directory)
        session = _Session(run)
        scan = _Scan(config, run)
        session.keep()
        for number, member in enumerate(config.members, start=1):
            if run.has_part(member.name):
                continue
            console.print(f"{number} of {config.num_members}: {_words(member)}", highlight=False)
            run.write_part(member.name, tidy(scan.run_member(member)))
            _write_table(run, config)
            session.keep()
        _write_table(run, config)
        shutil.rmtree(run.directory / "work", ignore_errors=True)
        run.update_manifest(status="complete")
        return read_table(run.directory)


def _words(member: Member) -> str:
    return (
        f"{member.selection} d = {member.difficulty}, n = {member.data_size}, "
        f"{member.loss.upper()}, seed {member.seed}"
    )


def _write_table(run: Run, config: ScanConfig) -> None:
    """Put the table together from the finished members, in the order of the grid."""
    names = [member.name for member in config.members]
    finished = [name for name in names if run.part_path(name).exists()]
    run.write_table(run.read_parts(["base", *finished]))


class _Session:
    """What ran where, and for how long: one entry of the manifest, kept up to date."""

    def __init__(self, run: Run):
        self._run, self._began = run, time.monotonic()
        self._earlier = run.manifest.get("sessions", [])
        self._entry = {
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": provenance.versions(PACKAGES),
            "python": platform.python_version(),
            "commit": provenance.commit(),
            "platform": jax.default_backend(),
            "device": provenance.device_name(),
            "num_devices": jax.local_device_count(),
        }

    def keep(self) -> None:
        """Write the entry as it stands."""
        self._entry["wall_time_seconds"] = round(time.monotonic() - self._began, 1)
        self._run.update_manifest(sessions=[*self._earlier, self._entry])


class _Scan:
    """What members share: the base, and the data."""

    def __init__(self, config: ScanConfig, run: Run):
        self.config, self.run = config, run
        self.mesh = config.devices.mesh()
        if config.export is not None:
            data = run.directory / "data"
            export_igsm(config.export, data, processes=num_cores(), console=console)
        base_problems = read_part(config, run.directory, "base") if config.base.training else None
        start = self._start(base_problems)
        self.data = ScanData(config, run, start, base_problems, mesh=self.mesh, console=console)
        if not self.data.needs_model:
            self.data.cut()
        run.pin("data", self.data.digests)
        run.pin("start", checkpoint.digest(start))
        self.base = self._trained_base(start)
        model = Model.load(self.base, mesh=self.mesh, dtype=config.training.dtype)
        self.stop = model.stop
        if self.data.needs_model:
            self.data.cut(model)
        if not run.has_part("base"):
            run.write_part("base", tidy(self._base_rows(model)))

    def _start(self, base_problems: Problems | None) -> str:
        """The checkpoint that is given, or a new one."""
        scratch, path = self.config.base.scratch, self.run.directory / "scratch"
        if scratch is None:
            return self.config.checkpoint
        if not path.exists():
            assert base_problems is not None  # checked with the configuration
            new_checkpoint(scratch, base_problems, path)
        return str(path)

    def _trained_base(self, start: str) -> Path:
        """The checkpoint that members start from, fine-tuned where that is asked for."""
        training, encoded = self.config.base.training, self.data.base
        if training is None or encoded is None:
            return checkpoint.folder(start)
        console.print("The base", highlight=False)
        return finetune(start, encoded, training, self.run.directory / "base", mesh=self.mesh)

    # What is measured.

    def _evaluate(self, model: Model, problems: Problems, name: str, slices=None) -> Evaluation:
        with console.status(f"Asking {len(problems)} problems: {name} …"):
            return evaluate(
                model,
                problems,
                decoding=self.config.decoding,
                grader=self.config.grader,
                slices=slices,
            )

    def _test_rows(self, model: Model, name: str) -> Rows:
        """Metric, slice, value and number of examples of the test: risk by slice and in all."""
        problems = self.data.test.take(self.data.tests)
        found = self._evaluate(model, problems, "test", self.data.test_levels[self.data.tests])
        write_atomically(
            self.run.directory / "responses" / f"{name}.parquet",
            lambda path: found.responses.to_parquet(path, index=False),
        )
        rows = [
            _metric("risk", 1 - row["pass_at_1"], row["num_examples"], int(row["slice"]))
            for row in found.table.to_dict("records")
        ]
        return [*rows, _metric("test_risk", _risk(found), len(problems))]

    def _base_rows(self, model: Model) -> Rows:
        """Rows of the untouched base, once for each seed.

        Raises:
          ValueError: if it gets too few of its own levels right.
        """
        rows, config = self._test_rows(model, "base"), self.config.base
        own = [row for row in rows if row["slice"] in config.levels]
        if config.levels:
            accuracy = 1 - float(np.mean([row["value"] for row in own])) if own else 0.0
            words = f"{accuracy:.0%} of its own levels {list(config.levels)}"
            if accuracy < config.least_accuracy:
                raise ValueError(
                    f"the base gets {words} right, less than base.least_accuracy = "
                    f"{config.least_accuracy:.0%}: train it longer (base.training) or allow it"
                )
            console.print(f"The base gets {words} right.", highlight=False)
        return [
            self._columns(seed) | UNTRAINED | row
            for seed in range(self.config.seeds)
            for row in rows
        ]

    def _columns(self, seed: int) -> dict[str, Any]:
        config = self.config
        return {
            "task": "igsm" if config.export else self.data.problems.name,
            "base": "scratch" if config.base.scratch else config.checkpoint,
            "base_seed": 0,
            "seed": seed,
            "data_unit": config.data_unit,
        }

    def run_member(self, member: Member) -> Rows:
        """Fine-tune and measure one member; its rows of the table."""
        config, work = self.config, self.run.directory / "work" / member.name
        training = dataclasses.replace(
            config.training, loss=member.loss, learning_rate=member.learning_rate, seed=member.seed
        )
        rows, fresh = self.data.rows(member)
        trained = self._trained(training, rows, work)
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
            return [columns | row for row in self._lost_rows()]
        tokenizer = self.data.tokenizer
        model = Model(trained.decoder, trained.parameters, tokenizer, self.stop, self.mesh)
        found = self._measured(model, member, rows, fresh)
        tenth = max(1, len(trained.losses) // 10)
        if len(trained.losses):
            found.append(_metric("final_loss", trained.losses[-tenth:].mean(), len(rows)))
        if config.save_members:
            path = self.run.directory / "members" / member.name
            if not path.exists():
                save_trained(trained, path, like=self.base)
        shutil.rmtree(work, ignore_errors=True)
        return [columns | row for row in found]

    def _trained(self, training: TrainingConfig, rows: np.ndarray, work: Path) -> Trained | None:
        """A fine-tuned checkpoint; None if its loss was not finite."""
        decoder, parameters = load_base(self.base, training, mesh=self.mesh)
        loader = make_loader(self.data.encoded.take(rows), training, mesh=self.mesh)
        try:
            return train(decoder, parameters, loader, training, mesh=self.mesh, directory=work)
        except DivergedError as error:
            console.print(f"[yellow]{error}[/yellow]", highlight=False)
            shutil.rmtree(work, ignore_errors=True)
            return None

    def _measured(self, model: Model, member: Member, rows: np.ndarray, fresh: np.ndarray) -> Rows:
        seen = self.data.problems.take(rows[: self.config.risk_examples])
        held_out = self.data.problems.take(fresh)
        train_risk = _risk(self._evaluate(model, seen, "training"))
        fresh_risk = _risk(self._evaluate(model, held_out, "held out"))
        *slices, test = self._test_rows(model, member.name)
        generalization, extrapolation = fresh_risk - train_risk, test["value"] - fresh_risk
        return [
            _metric("train_risk", train_risk, len(seen)),
            _metric("in_distribution_risk", fresh_risk, len(held_out)),
            test,
            _metric("generalization_gap", generalization, len(held_out)),
            _metric("extrapolation_gap", extrapolation, test["num_examples"]),
            *slices,
        ]

    def _lost_rows(self) -> Rows:
        """Rows of a member that diverged: flagged, and without values."""
        levels = np.unique(self.data.test_levels[self.data.tests]).tolist()
        names = ("train_risk", "in_distribution_risk", "test_risk")
        return [
            *(_metric(name, math.nan, 0) for name in (*names, "generalization_gap")),
            _metric("extrapolation_gap", math.nan, 0),
            *(_metric("risk", math.nan, 0, level) for level in levels),
        ]


def _metric(name: str, value: float, num_examples: int, level: int | None = None) -> dict[str, Any]:
    return {"slice": level, "metric": name, "value": float(value), "num_examples": num_examples}


def _risk(found: Evaluation) -> float:
    """Share of wrong responses, all problems alike."""
    return float(1 - found.responses["correct"].to_numpy(float).mean())
