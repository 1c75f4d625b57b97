"""iGSM text: problems a second on one core at each op count, verification, and more processes.

The preset ``paper``, text and solution included. Speed on one core is timed in seconds of that
core. The scaling over processes is timed by the clock, without their start: one and two processes
draw the same problems in turns, and the benchmark checks that they are the same.

Commands and cost (two CPU cores)::

    python -m experiments.benchmarks.igsm --quick    # seconds: checks that it works
    python -m experiments.benchmarks.igsm --record   # four minutes: the table of docs/tasks.md

Expect: more than 2,000 problems a second at op 10, a third of the fastest at the slowest op count.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments.benchmarks import Verdict, command, describe, main, page, spread
from synth.tasks.igsm import problems, verify

LEVELS = tuple(range(2, 21))
SHOWN = (2, 4, 6, 8, 10, 12, 14, 16, 18, 20)
PROCESSES = (1, 2)
LEVEL = 10
"""Op count of the bar on speed, and of the scaling over processes."""
BAR, GOAL = 400, 1000
FLAT = 3.0
"""How many times as fast as the slowest op count the fastest may be."""
REFERENCE = {6: 59, 8: 70, 10: 85, 12: 64, 14: 48}
"""Problems a second of the public generator, heavy style: measured once on one core of a two-core
AMD EPYC, not in the same run as ours."""


def measure(
    per_level: int, scaling: int, repeats: int, *, levels: tuple[int, ...] = LEVELS
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Run the benchmark.

    Args:
      per_level: problems drawn at each op count, and verified, in a repeat.
      scaling: problems of op 10 that each number of processes draws in a repeat.
      repeats: rounds; op counts and numbers of processes take turns in each.
      levels: op counts.

    Returns:
      The tidy table, one row per work (`draw`, `verify`, `scale`), op count, number of processes
      and repeat: ``seconds`` for ``problems``; and the manifest.

    Raises:
      RuntimeError: if the number of processes changes a problem, or a solution is found wrong.
    """
    measured = []

    def add(work: str, level: int, processes: int, repeat: int, seconds: float, done: int) -> None:
        row = {"work": work, "difficulty": level, "processes": processes, "repeat": repeat}
        measured.append(row | {"seconds": seconds, "problems": done})

    # Warm up caches, then let op counts and numbers of processes take turns in each round.
    for level in levels:
        list(problems(level, 3, seed=1))
    for repeat in range(repeats):
        for level in levels:
            start = time.process_time()
            drawn = list(problems(level, per_level, seed=0, start=repeat * per_level))
            add("draw", level, 1, repeat, time.process_time() - start, per_level)
            start = time.process_time()
            right = [verify(each.problem, each.solution).ok for each in drawn]
            add("verify", level, 1, repeat, time.process_time() - start, per_level)
            if not all(right):
                raise RuntimeError(f"a solution at op {level} is found wrong")
        streams = []
        for processes in PROCESSES:
            stream = problems(LEVEL, scaling, seed=2, processes=processes)
            # The clock starts at the first problem, when the processes are up; the few that each
            # has drawn by then do not matter.
            first, start = next(stream), time.perf_counter()
            streams.append([first, *stream])
            add("scale", LEVEL, processes, repeat, time.perf_counter() - start, scaling)
        if any(stream != streams[0] for stream in streams):
            raise RuntimeError("the number of processes changes the problems")
    table = pd.DataFrame(measured)
    reference = {str(level): rate for level, rate in REFERENCE.items()}
    return table, describe(verdicts(table), repeats=repeats, reference=reference)


def rates(table: pd.DataFrame, work: str) -> pd.DataFrame:
    """Problems a second [repeat, op count] in one process."""
    rows = table[(table["work"] == work) & (table["processes"] == 1)]
    rows = rows.assign(rate=rows["problems"] / rows["seconds"])
    return rows.pivot(index="repeat", columns="difficulty", values="rate")


def speedup(table: pd.DataFrame) -> np.ndarray:
    """Speed of the most processes over that of one, by repeat."""
    rows = table[table["work"] == "scale"]
    seconds = rows.pivot(index="repeat", columns="processes", values="seconds").to_numpy()
    return seconds[:, 0] / seconds[:, -1]


def verdicts(table: pd.DataFrame) -> list[Verdict]:
    """The project's bars: speed at op 10, and the slowest op count against the fastest."""
    drawn = rates(table, "draw")
    at_bar = drawn[LEVEL].tolist()
    # Of medians, since within one repeat noise decides which op count is slowest.
    typical = drawn.median()
    flat = [float(typical.min() / typical.max())]
    levels = f"op {min(drawn.columns)}–{max(drawn.columns)}"
    return [
        Verdict.of(f"problems per second and core at op {LEVEL}", BAR, at_bar),
        Verdict.of("the same: goal", GOAL, at_bar),
        Verdict.of(f"slowest op count / fastest, {levels}", round(1 / FLAT, 3), flat),
    ]


def markdown(table: pd.DataFrame, manifest: Mapping[str, Any]) -> str:
    """A table of op counts, the bars, and where it was measured.

    Args:
      table, manifest: as `measure` returns them or `experiments/results/benchmarks` holds them.
    """
    drawn, verified = rates(table, "draw"), rates(table, "verify")
    reference = {int(level): rate for level, rate in manifest["reference"].items()}
    rows = [
        (
            str(level),
            spread(drawn[level], 0),
            str(reference.get(level, "–")),
            spread(1000 / verified[level], 2),
        )
        for level in SHOWN
        if level in drawn.columns
    ]
    header = ("op", "problems/s", "reference's", "verification, ms a problem")
    note = (
        f"One process, in seconds of its core; {max(PROCESSES)} processes are "
        f"{spread(speedup(table), 2)} times as fast as one, their start apart, and draw the same "
        f"problems. The "
        f"reference generator's speed is from one core of another two-core AMD EPYC."
    )
    return page(header, rows, manifest, digits=2, note=note)


run = command(
    "igsm", lambda quick: measure(*((5, 200, 2) if quick else (1000, 20_000, 7))), markdown
)


if __name__ == "__main__":
    main(run)
