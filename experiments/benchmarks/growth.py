"""What growth costs: more members, devices, tokens of an example, members of a grid.

Members of the benchmark `grid` are trained as a sweep trains them, compilation apart. A process for
each number of devices stays up, and the cases take turns. Each grid is a whole sweep in a process
of its own, which tells its peak memory.

Commands and cost (two quiet CPU cores)::

    python -m experiments.benchmarks.growth --quick    # a minute: checks that it works
    python -m experiments.benchmarks.growth --record   # three minutes
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from experiments.benchmarks import QUICK_FLAGS, Verdict, command, describe, main, page, spread
from experiments.benchmarks.apart import apart, process
from experiments.devices import DEVICE_COUNT

Growth = Literal["members", "devices", "tokens", "grid"]
LABELS: dict[str, str] = {
    "members": "members of a program, on two devices; one on one",
    "devices": "simulated devices, 8 members",
    "tokens": "tokens of an example, 8 members on two devices",
    "grid": "members of a grid, in chunks of 4",
}
BATCH_SIZE = 64
KEPT = 0.9
"""Share of the speed of the first case that each bar asks for, and of its memory."""
BARS: dict[Growth, int] = {"members": 256, "devices": 8, "grid": 80}
"""The amount of each kind that is held against the first case."""


@dataclass(frozen=True)
class Case:
    """An amount of training.

    Attributes:
      kind: what grows.
      amount: to how much.
      steps: of each member.
      members: that are trained.
      devices: that share them.
      difficulty: hardest level of the examples, which decides their length.
    """

    kind: Growth
    amount: int
    steps: int
    members: int = 8
    devices: int = 2
    difficulty: int = 4


def cases(quick: bool) -> list[Case]:
    """All cases but the grids. The first of each kind is what its others are compared with."""
    from experiments.benchmarks.engines import TASK

    def steps(members: int) -> int:
        # Few members take more steps, so that no case is too short to be timed.
        return 2 if quick else max(5, 320 // members)

    return [
        *(
            Case("members", number, steps(number), number, devices=min(number, 2))
            for number in ((8, 1) if quick else (8, 1, 64, 256))
        ),
        *(Case("devices", number, steps(8), devices=number) for number in (2, 1, 8)),
        *(
            Case("tokens", TASK.max_length(level), steps(32), difficulty=level)
            for level in ((4, 9) if quick else (4, 9, 18))
        ),
    ]


def seconds(case: Case) -> float:
    """Seconds of the training of a case; called in a process with its number of devices."""
    run = _prepared(case)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@functools.cache
def _prepared(case: Case) -> Any:
    """The compiled training of a case, which has run once."""
    from experiments.benchmarks.engines import Shape, make_work, prepare_sharded
    from synth.config import FinetuneConfig, Optimiser

    training = FinetuneConfig(case.steps, optimiser=Optimiser(batch_size=BATCH_SIZE))
    work = make_work(Shape(BATCH_SIZE, case.difficulty), range(case.members))
    run, _ = prepare_sharded("map", training, work)
    run()
    return run


def peak_of_grid(members: int, out: Path) -> int:
    """Peak memory in bytes of a process that runs a grid of so many members."""
    from experiments.storage.memory import peak_memory
    from experiments.sweep.grid import PretrainConfig, SweepConfig
    from experiments.sweep.study import run_sweep

    config = SweepConfig(
        difficulties=(4,),
        data_sizes=(256,),
        seeds=members,
        chunk_members=4,
        compute=2,
        test_hardest=6,
        pretrain=PretrainConfig(steps=2, max_risk=1.0),
    )
    run_sweep(config, out)
    return peak_memory() or 0


def measure(quick: bool) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Run the benchmark.

    Args:
      quick: take few cases, steps and repeats.

    Returns:
      The tidy table, one row per case and repeat: ``kind``, ``amount``, and ``seconds`` for
      ``member_steps`` and for ``tokens`` that are read, or ``bytes`` of peak memory of a grid; and
      the manifest.
    """
    repeats, flags, rows = 2 if quick else 5, QUICK_FLAGS if quick else "", []
    with contextlib.ExitStack() as stack:
        processes = {
            devices: stack.enter_context(process(XLA_FLAGS=f"{DEVICE_COUNT}={devices} {flags}"))
            for devices in (1, 2, 8)
        }
        for case in cases(quick):
            print(f"preparing {case.kind} = {case.amount} …", flush=True)
            processes[case.devices](seconds, case)
        for repeat in range(repeats):
            print(f"repeat {repeat + 1} of {repeats}", flush=True)
            for case in cases(quick)[:: 1 if repeat % 2 == 0 else -1]:
                rows.append(_row(case, repeat, processes[case.devices](seconds, case)))
    with tempfile.TemporaryDirectory() as folder:
        for members in (4, 8) if quick else (8, 80):
            print(f"a grid of {members} members", flush=True)
            peak = apart(peak_of_grid, members, Path(folder) / str(members))
            rows.append({"kind": "grid", "amount": members, "repeat": 0, "bytes": float(peak)})
    table = pd.DataFrame(rows)
    return table, describe(verdicts(table), repeats=repeats)


def _row(case: Case, repeat: int, taken: float) -> dict[str, Any]:
    from experiments.benchmarks.engines import Shape

    member_steps = case.members * case.steps
    # The last token of an example is only a label.
    read = Shape(BATCH_SIZE, case.difficulty).length - 1
    return {
        "kind": case.kind,
        "amount": case.amount,
        "repeat": repeat,
        "seconds": taken,
        "member_steps": float(member_steps),
        "tokens": float(member_steps * BATCH_SIZE * read),
    }


def costs(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    """What a unit costs [repeat, amount], the first case first.

    That is milliseconds of a member-step, microseconds of a token, or megabytes of a grid.
    """
    rows = table[table["kind"] == kind]
    if kind == "grid":
        rows = rows.assign(cost=rows["bytes"] / 1e6)
    elif kind == "tokens":
        rows = rows.assign(cost=1e6 * rows["seconds"] / rows["tokens"])
    else:
        rows = rows.assign(cost=1e3 * rows["seconds"] / rows["member_steps"])
    found = rows.pivot(index="repeat", columns="amount", values="cost")
    return found.reindex(columns=list(dict.fromkeys(rows["amount"])))


def verdicts(table: pd.DataFrame) -> list[Verdict]:
    """What growth leaves of speed or memory, within a repeat; amounts not measured are left out."""
    names = {
        "members": "members: speed of each, of that among 8",
        "devices": "simulated devices on these cores: speed, of that of 2",
        "grid": "members of a grid: peak memory of 8 / its own",
    }
    found = []
    for kind, amount in BARS.items():
        cost = costs(table, kind)
        if amount in cost.columns:
            kept = list(cost[cost.columns[0]] / cost[amount])
            found.append(Verdict.of(f"{amount} {names[kind]}", KEPT, kept))
    return found


def markdown(table: pd.DataFrame, manifest: Mapping[str, Any]) -> str:
    """A table of cases, the bars, and where it was measured.

    Args:
      table, manifest: as `measure` returns them or `experiments/results/benchmarks` holds them.
    """
    units = {"tokens": ("µs per token", 2), "grid": ("MB at most", 0)}
    cells = []
    for kind, label in LABELS.items():
        cost = costs(table, kind)
        unit, digits = units.get(kind, ("ms per member-step", 2))
        for amount in sorted(cost.columns):
            ratio = cost[amount] / cost[cost.columns[0]]
            cells.append(
                (label, f"{amount}", f"{spread(cost[amount], digits)} {unit}", spread(ratio, 2))
            )
    header = ("what grows", "to", "cost", "times that of the first case")
    firsts = ", ".join(str(costs(table, kind).columns[0]) for kind in LABELS)
    note = f"First cases: {firsts}. Batches of {BATCH_SIZE} examples; a grid's peak is that of "
    note += "its process, from start to end."
    return page(header, cells, manifest, digits=2, note=note)


run = command("growth", measure, markdown)


if __name__ == "__main__":
    main(run)
