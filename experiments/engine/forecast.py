"""What a study will take, before it runs: parts, programs, tokens, operations, memory, disk, hours.

The work of every part follows from the configuration (see `experiments.engine.workload`). How fast
this machine does it is measured: each kind of program is timed on a little of its work, the one
with the most work first, for `BUDGET` seconds at most. A program that is not timed is taken to
run like those of its kind that were, by its size. Nothing is written into the study's directory.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.engine.cost import PEAKS, named_device
from experiments.engine.study import Part, Study
from experiments.engine.workload import Program, Speed, Work, Workload
from experiments.storage.memory import peak_memory
from experiments.storage.results import ResultsError, read_manifest

BUDGET = 20.0
"""Seconds that the timing of programs may take."""


@dataclass(frozen=True)
class Totals:
    """Sums over parts.

    Attributes:
      parts: parts that leave something.
      units: what the study's progress bar counts, for example members.
      programs: compiled programs of each kind.
      tokens: that are trained on or generated, without padding.
      flops: floating-point operations.
      disk: bytes left on disk.
      seconds: on this machine, compilation included.
      device_seconds: on the named device; None without one.
    """

    parts: int
    units: int
    programs: Mapping[str, int]
    tokens: float
    flops: float
    disk: float
    seconds: float
    device_seconds: float | None


@dataclass(frozen=True)
class Forecast:
    """What a study takes in all, and what of it is left.

    Attributes:
      unit: name of `Totals.units`.
      whole, left: sums over all parts, and over those that are not finished.
      counts: further numbers, such as problems.
      memory: peak of this process, in bytes; None if the system tells nothing.
      calibration: seconds that the timing took.
      timed: programs that were timed.
      device: the named device; None without one.
      num_devices: how many of them share the work.
      assumptions: what the numbers rest on.
    """

    unit: str
    whole: Totals
    left: Totals
    counts: Mapping[str, int]
    memory: float | None
    calibration: float
    timed: Mapping[Program, Speed]
    device: str | None
    num_devices: int
    assumptions: Sequence[str]


def forecast(
    study: Study,
    *,
    device: str | None = None,
    budget: float = BUDGET,
    clock: Callable[[], float] = time.monotonic,
) -> Forecast:
    """Tell what a study will take, without running it or writing anything.

    Args:
      study: the study; parts that are finished in its directory are not counted as left.
      device: a name in `experiments.engine.cost.PEAKS` to tell the hours of, in any spelling.
      budget: seconds that the timing of programs may take.
      clock: tells the time in seconds.

    Raises:
      ResultsError: if the directory holds another study, or cannot be read.
      ValueError: if the device is unknown, or for the reasons of the study's own checks.
    """
    device = None if device is None else named_device(device)
    workload = study.workload()
    start = clock()
    with workload.opened():
        parts = [part for stage in study.stages() for part in stage]
        missing = _missing(study, parts)
        work = {part.name: workload.work(part) for part in parts}
        every = [each for part in parts for each in work[part.name]]
        speeds = _measured(workload, every, budget=budget, start=start, clock=clock)

        def totals(counted: Sequence[Part]) -> Totals:
            return _totals(counted, work, workload, speeds, device)

        return Forecast(
            study.unit,
            totals(parts),
            totals(missing),
            workload.counts(),
            _memory(speeds),
            clock() - start,
            speeds,
            device,
            workload.num_devices,
            workload.assumptions,
        )


def _missing(study: Study, parts: Sequence[Part]) -> list[Part]:
    """Parts that a run would make."""
    directory = study.directory
    if not (directory / "manifest.json").exists():
        return [*parts]
    manifest = read_manifest(directory)
    identity = json.loads(json.dumps(study.identity))
    if differing := [name for name, value in identity.items() if manifest.get(name) != value]:
        raise ResultsError(
            f"{directory} holds another run; it differs in {', '.join(differing)}. Choose another "
            f"directory to plan for."
        )
    is_committed = not (directory / "parts").exists()
    if manifest.get("status") == "complete" and is_committed:
        return []

    def is_finished(part: Part) -> bool:
        names = [part.file_name(table) for table in part.tables]
        rows = [directory / "parts" / f"{name}.parquet" for name in names]
        return (
            part.leaves_something
            and all(path.exists() for path in rows)
            and all(study.has_file(path) for path in part.files)
        )

    missing = [part for part in parts if not is_finished(part)]
    # A part that leaves nothing is made in every session that has something left to do.
    return missing if any(part.leaves_something for part in missing) else []


# Speed.


def _measured(
    workload: Workload,
    work: Sequence[Work],
    *,
    budget: float,
    start: float,
    clock: Callable[[], float],
) -> dict[Program, Speed]:
    """Time programs while the budget lasts: of each kind the one with the most work, then others.

    The kind with the most operations is first.
    """
    amounts: dict[Program, float] = {}
    flops: dict[str, float] = {}
    for each in work:
        amounts[each.program] = amounts.get(each.program, 0.0) + each.amount
        flops[each.program.kind] = flops.get(each.program.kind, 0.0) + each.flops
    by_kind: dict[str, list[Program]] = {
        kind: [] for kind in sorted(flops, key=lambda k: -flops[k])
    }
    for program in amounts:
        by_kind[program.kind].append(program)
    first = {kind: max(programs, key=amounts.__getitem__) for kind, programs in by_kind.items()}
    # Second the program of each kind that is least like the first, and then no more.
    second = {
        kind: max(programs, key=lambda program: abs(program.size - first[kind].size))
        for kind, programs in by_kind.items()
    }
    speeds: dict[Program, Speed] = {}
    taken: dict[str, float] = {}
    for program in (*first.values(), *second.values()):
        if program in speeds:
            continue
        begun = clock()
        # Of other kinds than the first, which has the most operations, half is a cautious guess.
        expected = taken.get(program.kind, 0.5 * max(taken.values(), default=0.0))
        if begun - start + expected > budget:
            continue
        speeds[program] = workload.measure(program)
        taken[program.kind] = clock() - begun
    return speeds


def _speed(program: Program, speeds: Mapping[Program, Speed]) -> Speed | None:
    """Speed of a program: its own, or one between those of its kind; None if there is none."""
    if program in speeds:
        return speeds[program]
    alike = {each.size: speed for each, speed in speeds.items() if each.kind == program.kind}
    if not alike and program.utilisation is not None:
        # Programs of models all count floating-point operations.
        alike = {each.size: speed for each, speed in speeds.items() if each.utilisation is not None}
    if not alike:
        return None
    sizes = sorted(alike)

    def between(values: Sequence[float]) -> float:
        return float(np.interp(program.size, sizes, values))

    return Speed(
        between([alike[size].first for size in sizes]),
        between([alike[size].rate for size in sizes]),
    )


def _memory(speeds: Mapping[Program, Speed]) -> float | None:
    """Peak of this process, which has run the programs in their shapes, or what they state."""
    held = peak_memory()
    stated = [speed.memory for speed in speeds.values() if speed.memory is not None]
    return None if held is None else max(float(held), *stated, 0.0)


# Sums.


def _totals(
    parts: Sequence[Part],
    work: Mapping[str, Sequence[Work]],
    workload: Workload,
    speeds: Mapping[Program, Speed],
    device: str | None,
) -> Totals:
    every = [each for part in parts for each in work[part.name]]
    programs = dict.fromkeys(each.program for each in every)  # in order of their first work
    left = [part for part in parts if part.leaves_something]
    seconds = sum(_begin(program, speeds) + 0.0 for program in programs)
    seconds += sum(_seconds(each, speeds) for each in every)
    compiled = Counter(program.kind for program in programs if program.is_compiled)
    return Totals(
        parts=len(left),
        units=sum(part.weight for part in left),
        programs=dict(compiled),
        tokens=sum(each.tokens for each in every),
        flops=sum(each.flops for each in every),
        disk=sum(workload.disk(part) for part in parts),
        seconds=seconds,
        device_seconds=_on_device(every, programs, workload, speeds, device),
    )


def _begin(program: Program, speeds: Mapping[Program, Speed]) -> float:
    speed = _speed(program, speeds)
    return 0.0 if speed is None else speed.first


def _seconds(work: Work, speeds: Mapping[Program, Speed]) -> float:
    speed = _speed(work.program, speeds)
    return 0.0 if speed is None else work.amount / speed.rate


def _on_device(
    work: Sequence[Work],
    programs: Iterable[Program],
    workload: Workload,
    speeds: Mapping[Program, Speed],
    device: str | None,
) -> float | None:
    """Seconds on a named device: operations at the assumed utilisation, the host's work as here."""
    if device is None:
        return None
    peak = PEAKS[device] * workload.num_devices
    seconds = sum(_begin(program, speeds) for program in programs)
    for each in work:
        share = each.program.utilisation
        seconds += _seconds(each, speeds) if share is None else each.flops / (share * peak)
    return seconds
