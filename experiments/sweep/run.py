"""Run a sweep in a directory: resume what is finished, keep what finishes, show progress."""

from __future__ import annotations

import dataclasses
import math
import platform
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from experiments.storage import checkpoint, provenance
from experiments.storage.results import Run, open_run, read_table, write_atomically
from experiments.sweep.grid import SweepConfig
from experiments.sweep.programs import Chunk, Outcome, Sweep
from experiments.sweep.tune import tune
from synth.decoder import Parameters
from synth.task import Task

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "pandas", "pyarrow", "matplotlib")
console = Console()


def run_sweep(
    config: SweepConfig,
    out: Path,
    *,
    recipe: str = "custom",
    preset: str = "custom",
    task: Task | None = None,
    max_chunks: int | None = None,
) -> pd.DataFrame:
    """Run a sweep in `out`, or carry on with the one that is there.

    Args:
      config: the sweep.
      out: run directory; new, or holding the same sweep.
      recipe, preset: names kept in the manifest.
      task: a task object to use instead of ``config.task``.
      max_chunks: stop after this many chunks (the rest is left to a later call).

    Returns:
      The result table, of the finished chunks.

    Raises:
      ResultsError: if the directory cannot be used (see `experiments.storage.results.open_run`).
      ValueError: if the configuration does not fit the task, or a base fails its gate.
    """
    sweep = Sweep(config, task=task)
    chunks = sweep.plan()
    identity = {
        "recipe": recipe,
        "preset": preset,
        "config": dataclasses.asdict(config),
        "decoder": dataclasses.asdict(sweep.decoder),
        "chunks": [
            {
                "name": chunk.name,
                "group": dataclasses.asdict(chunk.group),
                "members": [member.name for member in chunk.members],
            }
            for chunk in chunks
        ],
    }
    with open_run(Path(out), identity) as run:
        left = [chunk for chunk in chunks if not run.has_part(chunk.name)]
        has_table = (run.directory / "table.parquet").exists()
        if not left and has_table and run.manifest["status"] == "complete":
            console.print(f"{run.directory} is complete: nothing left to run.")
            return read_table(run.directory)
        run.update_manifest(log10_num_problems=_space(sweep.task, config.test_levels))
        session = _Session(run, sweep)
        bases = _bases(run, sweep)
        _run_chunks(run, sweep, bases, chunks, left[:max_chunks], session)
        return read_table(run.directory)


class _Session:
    """What ran where, and for how long: one entry of the manifest, kept up to date."""

    def __init__(self, run: Run, sweep: Sweep):
        self.run, self.sweep, self.start = run, sweep, time.monotonic()
        self.earlier = run.manifest.get("sessions", [])
        self.entry: dict[str, Any] = {
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": provenance.versions(PACKAGES),
            "python": platform.python_version(),
            "commit": provenance.commit(),
            "platform": jax.default_backend(),
            "device": provenance.device_name(),
            "num_devices": jax.local_device_count(),
        }
        self.save()
        differs = {key: self.entry[key] for key in ("versions", "commit", "device")}
        if self.earlier and differs != {key: self.earlier[-1][key] for key in differs}:
            console.print(
                "[yellow]This run was begun with another commit, device or other versions; "
                "the manifest lists each session.[/yellow]"
            )

    def save(self) -> None:
        """Write the entry as it stands; called after each chunk, so that a kill loses little."""
        self.entry["wall_time_seconds"] = round(time.monotonic() - self.start, 1)
        self.entry["traces"] = sum(self.sweep.traces.values())
        self.entry["groups_traced"] = len(self.sweep.traces)
        self.run.update_manifest(sessions=[*self.earlier, self.entry])


def _space(task: Task, levels: range) -> dict[str, float | None]:
    """Decimal logarithm of the number of distinct problems at each level; None if not known."""
    sizes = {str(level): task.log_num_problems(level) for level in levels}
    return {
        level: None if size is None else round(size / math.log(10), 2)
        for level, size in sizes.items()
    }


def _bases(run: Run, sweep: Sweep) -> list[Parameters]:
    """Load the bases of a run; train and keep those that are missing."""
    paths = [run.directory / "bases" / f"base-{seed}" for seed in range(sweep.config.base_seeds)]
    missing = [seed for seed, path in enumerate(paths) if not path.exists()]
    if missing:
        with console.status(f"Training {len(missing)} base(s) …"):
            trained = sweep.pretrain_bases(missing)
        for seed, parameters in zip(missing, trained, strict=True):
            checkpoint.save(paths[seed], sweep.decoder, parameters)
    bases = [checkpoint.load(path)[1] for path in paths]
    if not run.has_part("bases"):
        with console.status("Evaluating the bases …"):
            run.write_part("bases", sweep.evaluate_bases(bases))
    return bases


def _run_chunks(
    run: Run,
    sweep: Sweep,
    bases: list[Parameters],
    chunks: list[Chunk],
    todo: list[Chunk],
    session: _Session,
) -> None:
    table = _write_table(run, chunks)
    progress = Progress(
        TextColumn("members"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
    total = sum(len(chunk.members) for chunk in chunks)
    bar = progress.add_task(
        "members", total=total, completed=total - sum(len(chunk.members) for chunk in todo)
    )
    with Live(console=console, refresh_per_second=2) as live:
        live.update(Group(progress, Text(_best_so_far(table))))
        for chunk in todo:
            rows, outcomes = sweep.run_chunk(chunk, bases)
            _keep(run, sweep, chunk, outcomes)
            run.write_part(chunk.name, rows)
            table = _write_table(run, chunks)
            session.save()
            progress.advance(bar, len(chunk.members))
            live.update(Group(progress, Text(_best_so_far(table))))
    if all(run.has_part(chunk.name) for chunk in chunks):
        run.update_manifest(status="complete")


def _write_table(run: Run, chunks: list[Chunk]) -> pd.DataFrame:
    """Put the table together from the finished parts, in the order of the plan."""
    finished = [chunk.name for chunk in chunks if run.part_path(chunk.name).exists()]
    table = tune(run.read_parts(["bases", *finished]))
    run.write_table(table)
    return table


def _best_so_far(table: pd.DataFrame) -> str:
    """One line per study: the best difficulty for each data size among finished members."""
    chosen = (table["metric"] == "test_risk") & (table["status"] == "ok")
    risks = table.loc[chosen & (table["train_mixture"] != "none")]
    cells = risks.groupby(["train_mixture", "loss", "data_size", "difficulty"])["value"].mean()
    best: dict[tuple[str, str], dict[int, tuple[float, int]]] = {}
    for cell in cells.reset_index().to_dict("records"):
        study = best.setdefault((cell["train_mixture"], cell["loss"]), {})
        candidate = (cell["value"], cell["difficulty"])
        study[cell["data_size"]] = min(candidate, study.get(cell["data_size"], candidate))
    lines = []
    for (mixture, loss), sizes in best.items():
        levels = ", ".join(f"n={size}: {level}" for size, (_, level) in sizes.items())
        lines.append(f"best difficulty so far ({mixture}, {loss})  {levels}")
    return "\n".join(lines)


def _keep(run: Run, sweep: Sweep, chunk: Chunk, outcomes: list[Outcome]) -> None:
    """Write the parameters and predictions of a chunk's members, where they are asked for."""
    for member, outcome in zip(chunk.members, outcomes, strict=True):
        if outcome.parameters is not None:
            path = run.directory / "members" / member.name
            if not path.exists():
                checkpoint.save(path, sweep.decoder, outcome.parameters)
        if sweep.config.save_predictions:
            slices = {
                f"test_{level}": part
                for level, part in zip(
                    sweep.config.test_levels, sweep.draws.by_slice(outcome.test), strict=True
                )
            }

            def write(path: Path, arrays=slices, outcome=outcome) -> None:
                with open(path, "wb") as file:
                    np.savez_compressed(
                        file, train=outcome.train, in_distribution=outcome.in_distribution, **arrays
                    )

            write_atomically(run.directory / "predictions" / f"{member.name}.npz", write)
