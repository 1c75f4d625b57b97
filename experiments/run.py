"""Run a sweep in a directory: resume what is finished, keep what finishes, show progress."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import platform
import subprocess
import time
from collections.abc import Iterator
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

from experiments import checkpoint
from experiments.grid import SweepConfig
from experiments.results import Run, open_run, read_table, write_atomically
from experiments.sweep import Chunk, Outcome, Sweep
from experiments.tune import tune
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
      ResultsError: if the directory cannot be used (see `experiments.results.open_run`).
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
        if not left and run.manifest["status"] == "complete":
            console.print(f"{run.directory} is complete: nothing left to run.")
            return read_table(run.directory)
        with _session(run, sweep, len(left)):
            bases = _bases(run, sweep)
            _run_chunks(run, sweep, bases, chunks, left[:max_chunks])
        return read_table(run.directory)


@contextlib.contextmanager
def _session(run: Run, sweep: Sweep, chunks_left: int) -> Iterator[None]:
    """Record in the manifest what ran where, and for how long, however it ends."""
    earlier = run.manifest.get("sessions", [])
    session: dict[str, Any] = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "commit": _commit(),
        "platform": jax.default_backend(),
        "device": _device_name(),
        "num_devices": jax.local_device_count(),
    }
    if earlier and any(earlier[-1][k] != session[k] for k in ("versions", "device", "commit")):
        console.print(
            "[yellow]This run was begun with another commit, device or other versions; "
            "the manifest lists each session.[/yellow]"
        )
    start = time.monotonic()
    try:
        yield
    finally:
        session["wall_time_seconds"] = round(time.monotonic() - start, 1)
        session["traces"] = sum(sweep.traces.values())
        session["groups_run"] = len(sweep.traces)
        run.update_manifest(sessions=[*earlier, session])


def _commit() -> str:
    """Commit of the source tree, ``-dirty`` if it has changes; ``unknown`` outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _device_name() -> str:
    """The accelerator's name, or the processor's on a CPU."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


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
    run: Run, sweep: Sweep, bases: list[Parameters], chunks: list[Chunk], todo: list[Chunk]
) -> None:
    done = [chunk.name for chunk in chunks if chunk not in todo and run.has_part(chunk.name)]
    order = [chunk.name for chunk in chunks]

    def write_table() -> pd.DataFrame:
        finished = [name for name in order if name in done]
        table = tune(run.read_parts(["bases", *finished]))
        run.write_table(table)
        return table

    table = write_table()
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
            done.append(chunk.name)
            table = write_table()
            progress.advance(bar, len(chunk.members))
            live.update(Group(progress, Text(_best_so_far(table))))
    if len(done) == len(chunks):
        run.update_manifest(status="complete")


def _best_so_far(table: pd.DataFrame) -> str:
    """One line per study: the best difficulty for each data size among finished members."""
    risks = table[(table["metric"] == "test_risk") & (table["status"] == "ok")]
    risks = risks[risks["train_mixture"] != "none"]
    lines = []
    for (mixture, loss), study in risks.groupby(["train_mixture", "loss"]):
        means = study.groupby(["data_size", "difficulty"])["value"].mean().unstack()
        best = ", ".join(f"n={size}: {level}" for size, level in means.idxmin(axis=1).items())
        lines.append(f"best difficulty so far ({mixture}, {loss})  {best}")
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
