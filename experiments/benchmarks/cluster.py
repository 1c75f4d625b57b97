"""Two workers of a Ray cluster against one, and against this process with a device for each core.

One sweep on a CPU with a trained base: chunks of equal shape, so that every worker compiles the
same programs once. The clock starts when each worker has made its first chunk: the start of Ray and
compilation are apart. All rows take turns in each repeat. One worker and two must make the same
table, bit for bit; this process has another number of devices, and rounds differently.

Commands and cost (two CPU cores)::

    python -m experiments.benchmarks.cluster --quick    # three minutes: checks that it works
    python -m experiments.benchmarks.cluster --record   # six minutes

A worker takes one core, as it has asked the cluster for; this process takes both.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.benchmarks import Verdict, command, describe, main, page, spread
from experiments.engine.workers import Workers
from experiments.sweep.grid import PretrainConfig, SweepConfig
from experiments.sweep.study import run_sweep

CHUNK = 4
"""Members of a chunk."""
BAR = 1.7


@dataclass(frozen=True)
class Row:
    """One way to make the parts of the sweep; without workers, in this process."""

    name: str
    label: str
    workers: int = 0

    @property
    def config(self) -> Workers:
        if not self.workers:
            return Workers()
        return Workers("ray", "local", num_workers=self.workers)


ROWS = (
    Row("one", "one Ray worker", 1),
    Row("two", "**two Ray workers**", 2),
    Row("process", "this process, a device for each core"),
)


def sweep(chunks: int, steps: int) -> SweepConfig:
    """A sweep with so many chunks of one shape."""
    return SweepConfig(
        difficulties=(12,),
        data_sizes=(256,),
        seeds=chunks * CHUNK,
        chunk_members=CHUNK,
        compute=float(steps),
        test_examples=16,
        risk_examples=64,
        pretrain=PretrainConfig(hardest=4, steps=5, max_risk=1.0),
    )


def measure(chunks: int, steps: int, repeats: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Run the benchmark.

    Args:
      chunks: of the sweep; with two workers, each makes one before the clock starts.
      steps: optimiser steps of a member.
      repeats: rounds.

    Returns:
      The tidy table, one row per way and repeat: ``seconds`` for ``members``; and the manifest.

    Raises:
      RuntimeError: if the number of workers changes the table.
    """
    config, measured = sweep(chunks, steps), []
    with tempfile.TemporaryDirectory() as folder:
        # Train and evaluate the base once.
        start, tables = Path(folder) / "base", []
        run_sweep(config, start, max_chunks=0)
        for repeat in range(repeats):
            for row in ROWS:
                out = Path(folder) / f"{row.name}-{repeat}"
                shutil.copytree(start, out)
                seconds, members, table = timed(row, config, out)
                measured.append(
                    {"row": row.name, "repeat": repeat, "seconds": seconds, "members": members}
                )
                if row.workers:
                    tables.append(table)
        if not all(table.equals(tables[0]) for table in tables):
            raise RuntimeError("the number of workers changes the table")
    table = pd.DataFrame(measured)
    facts = {"repeats": repeats, "chunks": chunks, "steps": steps}
    return table, describe(verdicts(table), **facts, rows={row.name: row.label for row in ROWS})


def timed(row: Row, config: SweepConfig, out: Path) -> tuple[float, int, pd.DataFrame]:
    """Run the chunks of a sweep in one way.

    Returns:
      Seconds between the first chunks (one for each worker, on average) and the last one; the
      number of members in between; the sweep's table.
    """
    ends: list[float] = []
    with row.config.start(out) as executor:

        def watched(study, parts, started):
            for made in executor(study, parts, started):
                ends.append(time.perf_counter())
                yield made

        table = run_sweep(config, out, executor=watched)
    first = max(1, row.workers)
    return ends[-1] - float(np.mean(ends[:first])), CHUNK * (len(ends) - first), table


def rates(table: pd.DataFrame) -> pd.DataFrame:
    """Members a second [repeat, row]."""
    rows = table.assign(rate=table["members"] / table["seconds"])
    return rows.pivot(index="repeat", columns="row", values="rate")


def verdicts(table: pd.DataFrame) -> list[Verdict]:
    """The project's bar: two workers against one, within a repeat."""
    rate = rates(table)
    ratio = list(rate["two"] / rate["one"])
    return [Verdict.of("two Ray workers: times as fast as one", BAR, ratio)]


def markdown(table: pd.DataFrame, manifest: Mapping[str, Any]) -> str:
    """A table of the ways, the bar, and where it was measured.

    Args:
      table, manifest: as `measure` returns them or `experiments/results/benchmarks` holds them.
    """
    rate = rates(table)
    cells = [
        (label, spread(rate[name], 3), spread(rate[name] / rate["one"], 2))
        for name, label in manifest["rows"].items()
    ]
    note = (
        f"A sweep of {manifest['chunks']} chunks of {CHUNK} members, {manifest['steps']} steps "
        f"each, evaluation included, start and compilation apart; one worker and two make the same "
        f"table."
    )
    header = ("", "members/s", "times as fast as one worker")
    return page(header, cells, manifest, digits=2, note=note)


run = command("cluster", lambda quick: measure(*((4, 4, 1) if quick else (12, 60, 3))), markdown)


if __name__ == "__main__":
    main(run)
