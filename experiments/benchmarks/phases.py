"""Where the time of a sweep goes, phase by phase, and how long it takes to start.

Each sweep has a process of its own and begins with an empty cache of compiled programs. A second
process makes one chunk of each group again, which loads every program from that cache. Start-up is
the time from the command to the first training step of the preset ``smoke``, its programs cached.

Commands and cost (two quiet CPU cores)::

    python -m experiments.benchmarks.phases --quick    # a minute: checks that it works
    python -m experiments.benchmarks.phases --record   # six minutes
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.benchmarks import Verdict, command, describe, main, page, spread
from experiments.benchmarks.apart import apart
from experiments.storage.results import read_manifest
from experiments.sweep.grid import SweepConfig

LABELS = {
    "pretrain": "training of bases",
    "train": "fine-tuning, and measuring on a member's own mixture",
    "evaluate": "measuring on the test",
    "draw": "drawing data",
    "stack": "stacking data for the devices",
    "rows": "rows of the table",
    "write": "writing",
    "rest": "the rest",
}
"""Each phase but compilation, in words."""
TRAINING = ["pretrain", "train"]
OUTSIDE_BAR, START_BAR = 0.15, 4.0
"""Share of the time outside of training, compilation apart, and seconds of a start, at most."""


def sweeps(quick: bool) -> dict[str, SweepConfig]:
    """The sweeps by name."""
    from experiments.recipes.families import PRESETS as FAMILIES
    from experiments.recipes.paper_protocol import PRESETS as PROTOCOL
    from experiments.recipes.tradeoff import PRESETS as TRADEOFF

    if quick:
        return {"tradeoff smoke": TRADEOFF["smoke"]}
    family = dataclasses.replace(FAMILIES["group-words"], data_sizes=(64, 1024), base_seeds=2)
    return {"paper-protocol demo": PROTOCOL["demo"], "families group-words, part": family}


def session(config: SweepConfig, out: Path, max_chunks: int | None) -> dict[str, Any]:
    """Run a sweep, and return what its session says; called in a process of its own."""
    from experiments.sweep.study import run_sweep

    run_sweep(config, out, max_chunks=max_chunks)
    return read_manifest(out)["sessions"][0]


def start_up(cache: Path) -> float:
    """Seconds from the command to the first training step of a small sweep."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        words = ["run", "tradeoff", "--preset", "smoke", "--out", str(out)]
        began = time.time()
        subprocess.run(
            [sys.executable, "-m", "experiments", *words],
            env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)},
            cwd=Path(__file__).parents[2],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        first_step = read_manifest(out)["sessions"][0]["pretraining_began"]
    return datetime.fromisoformat(first_step).timestamp() - began


def measure(quick: bool) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Run the benchmark.

    Args:
      quick: take the smallest sweep.

    Returns:
      The tidy table: ``seconds`` of each ``phase`` of each ``sweep``, ``compile (warm)`` among
      them, and those of each start; and the manifest.
    """
    rows, programs, starts = [], {}, 1 if quick else 5
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, config) in enumerate(sweeps(quick).items()):
            print(f"{name} …", flush=True)
            cache, out = Path(folder) / f"cache-{number}", Path(folder) / str(number)
            kept = {"JAX_COMPILATION_CACHE_DIR": str(cache)}
            cold = apart(session, config, out, None, **kept)
            programs[name] = cold["programs_traced"]
            # Groups take turns: so many chunks are one of each.
            again = out.with_name(f"{number}-again")
            warm = apart(session, config, again, cold["programs_traced"], **kept)
            seconds = cold["phases"] | {"compile (warm)": warm["phases"]["compile"]}
            rows += [
                {"sweep": name, "phase": phase, "repeat": 0, "seconds": taken}
                for phase, taken in seconds.items()
            ]
        cache = Path(folder) / "cache-start"
        start_up(cache)
        for repeat in range(starts):
            row = {"sweep": "tradeoff smoke", "phase": "start", "repeat": repeat}
            rows.append(row | {"seconds": start_up(cache)})
    table = pd.DataFrame(rows)
    return table, describe(verdicts(table), repeats=1, programs=programs)


def by_phase(table: pd.DataFrame) -> pd.DataFrame:
    """Seconds [phase, sweep]; zero for a phase that a sweep did not enter."""
    rows = table[table["phase"] != "start"]
    found = rows.pivot(index="phase", columns="sweep", values="seconds").fillna(0.0)
    return found.reindex(columns=list(dict.fromkeys(rows["sweep"])))


def outside(seconds: pd.Series, *compilation: str) -> float:
    """Share of a sweep's time outside of training.

    Args:
      seconds: of each phase.
      compilation: phases of it that are counted; none to leave it out of both sides.
    """
    counted = seconds[[*(set(LABELS) & set(seconds.index)), *compilation]]
    return float(1 - seconds[TRAINING].sum() / counted.sum())


def verdicts(table: pd.DataFrame) -> list[Verdict]:
    """The project's bars: little time outside of training, and a quick start."""
    found = [
        Verdict.of(
            f"{name}: {OUTSIDE_BAR:.0%} / share outside of training, compilation apart",
            1.0,
            [OUTSIDE_BAR / outside(seconds)],
        )
        for name, seconds in by_phase(table).items()
    ]
    starts = table.loc[table["phase"] == "start", "seconds"]
    name = f"{START_BAR:.0f} s / from the command to the first training step, programs cached"
    return [*found, Verdict.of(name, 1.0, list(START_BAR / starts))]


def markdown(table: pd.DataFrame, manifest: Mapping[str, Any]) -> str:
    """A table of phases, one column a sweep, the bars, and where it was measured.

    Args:
      table, manifest: as `measure` returns them or `experiments/results/benchmarks` holds them.
    """
    seconds = by_phase(table)
    phases = {name: label for name, label in LABELS.items() if name in seconds.index}
    whole = seconds.loc[list(phases)].sum()
    cells = [
        (label, *(f"{taken:.1f} s ({taken / whole[name]:.1%})" for name, taken in row.items()))
        for phase, label in phases.items()
        for row in [seconds.loc[phase]]
    ]
    cells.append(("all of these", *(f"{each:.1f} s" for each in whole)))
    for phase, label in (("compile", "empty"), ("compile (warm)", "full")):
        shares = (
            f"{own[phase]:.1f} s ({outside(own, phase):.0%} outside of training with it)"
            for _, own in seconds.items()
        )
        cells.append((f"besides: compilation, cache {label}", *shares))
    starts = table.loc[table["phase"] == "start", "seconds"]
    programs = np.array(list(manifest["programs"].values())) + 2
    note = (
        f"Percentages leave compilation out. The sweeps have {' and '.join(map(str, programs))} "
        f"programs: one for each group of equal shapes, one for bases, one for measuring. From the "
        f"command to the first training step of `tradeoff smoke`, programs cached: "
        f"{spread(starts, 1)} s in {len(starts)} starts."
    )
    return page(("phase", *seconds.columns), cells, manifest, digits=2, note=note)


run = command("phases", measure, markdown)


if __name__ == "__main__":
    main(run)
