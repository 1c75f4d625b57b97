"""Plans of a study of made-up work: sums, what is left, what is timed; nothing is written."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from experiments.engine.cost import PEAKS
from experiments.engine.forecast import forecast
from experiments.engine.run import run_study
from experiments.engine.study import Output, Part, Study
from experiments.engine.workload import Program, Speed, Work, Workload
from experiments.storage.results import ResultsError

HOST = Program("reading", is_compiled=False)
SHORT, MIDDLE, LONG = (Program("training", f"{size}", size, 0.5) for size in (10, 20, 30))
SECONDS = {HOST: 1, SHORT: 2, MIDDLE: 4, LONG: 6}
"""Seconds that the timing of each takes; its speed is as many units a second."""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class MadeUp(Workload):
    """Each part trains with a program of its own and reads a little."""

    clock: Clock
    timed: list[Program] = field(default_factory=list)
    num_devices = 2

    def work(self, part: Part) -> Sequence[Work]:
        if part.name == "read":
            return [Work(HOST, 5)]
        program = {"a": SHORT, "b": MIDDLE, "c": LONG}[part.name]
        return [Work(program, 60 * program.size, flops=1e15 * program.size, tokens=7)]

    def disk(self, part: Part) -> float:
        return 100

    def measure(self, program: Program) -> Speed:
        self.timed.append(program)
        self.clock.now += SECONDS[program]
        return Speed(1.0, SECONDS[program], memory=1e15)

    def counts(self) -> dict[str, int]:
        return {"problems": 3}


@dataclass
class Trainings(Study):
    directory: Path
    work: MadeUp
    config: int = 0
    unit = "trainings"

    @property
    def identity(self) -> dict[str, Any]:
        return {"config": (self.config, 1)}

    def stages(self) -> list[list[Part]]:
        return [[Part("read")], [Part(name, tables=("t",), weight=2) for name in "abc"]]

    def make(self, part: Part) -> Output:
        return Output({"t": pd.DataFrame({"x": [1]})} if part.tables else {})

    def workload(self) -> Workload:
        return self.work


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def study(tmp_path, clock) -> Trainings:
    return Trainings(tmp_path / "run", MadeUp(clock))


def test_a_plan_adds_up_the_work_and_writes_nothing(study, clock, tmp_path):
    told = forecast(study, clock=clock)
    assert (told.whole.parts, told.whole.units, told.unit) == (3, 6, "trainings")
    assert (told.whole.tokens, told.whole.flops, told.whole.disk) == (21, 60e15, 400)
    assert told.whole.programs == {"training": 3}
    assert told.counts == {"problems": 3}
    assert told.left == told.whole
    assert list(tmp_path.iterdir()) == []


def test_the_kind_with_the_most_operations_is_timed_first_and_the_middle_is_told_from_the_ends(
    study, clock
):
    told = forecast(study, clock=clock)
    assert study.work.timed == [LONG, HOST, SHORT]
    # A second for each program to begin; 1, 2 and 6 a second were timed, 4 lies between.
    assert told.whole.seconds == pytest.approx(4 + 5 / 1 + 600 / 2 + 1200 / 4 + 1800 / 6)
    assert told.calibration == 9


def test_timing_ends_with_its_budget(study, clock):
    told = forecast(study, clock=clock, budget=7)
    assert study.work.timed == [LONG]
    # What the host does alone is not told then.
    assert told.whole.seconds == pytest.approx(3 + 3600 / 6)


def test_peak_memory_is_what_a_program_states_if_that_is_more_than_was_held(study, clock):
    assert forecast(study, clock=clock).memory == 1e15


def test_hours_on_a_named_device(study, clock):
    told = forecast(study, device="h-100 pcie", clock=clock)
    assert told.device == "H100 PCIe"
    # Two devices at half their peak; programs begin, and the host reads, as here.
    expected = 4 + 5 + 60e15 / (0.5 * 2 * PEAKS["H100 PCIe"])
    assert told.whole.device_seconds == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"device must be one of \['A100', .*, got 'abacus'"):
        forecast(study, device="abacus")


def test_finished_parts_are_not_left(study, clock):
    run_study(study, max_parts=2, on=Console(file=io.StringIO()))
    told = forecast(study, clock=clock)
    assert (told.whole.parts, told.left.parts) == (3, 1)
    assert told.left.programs == {"training": 1}
    assert told.left.seconds == pytest.approx(2 + 5 + 1800 / 6)
    run_study(study, on=Console(file=io.StringIO()))
    told = forecast(study, clock=clock)
    assert (told.left.parts, told.left.seconds, told.left.disk) == (0, 0, 0)


def test_a_directory_of_another_study_is_refused(study, clock):
    run_study(study, on=Console(file=io.StringIO()))
    other = Trainings(study.directory, study.work, config=1)
    with pytest.raises(ResultsError, match="holds another run; it differs in config"):
        forecast(other, clock=clock)


def test_a_study_without_a_workload_has_no_plan(tmp_path):
    class Nothing(Study):
        directory = tmp_path

    with pytest.raises(ValueError, match="plan must be of a study that tells its work, got Nothin"):
        forecast(Nothing())
