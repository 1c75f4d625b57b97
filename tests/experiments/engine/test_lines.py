"""Progress without a terminal: what a line says, when it comes, and that its thread ends."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from experiments.engine.lines import Lines, duration, rate
from experiments.engine.progress import ProgressBar, counting, progress_bar


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def console() -> Console:
    return Console(record=True, width=40, file=io.StringIO())


@pytest.fixture
def bar(console, clock) -> ProgressBar:
    return ProgressBar(console=console, get_time=clock)


@pytest.fixture
def lines(console, clock, bar):
    told = Lines(console, clock=clock)
    told.add(bar)
    yield told
    told.remove(bar)


def said(console: Console) -> list[str]:
    return console.export_text().splitlines()


def test_a_line_a_minute_says_what_is_done_how_fast_and_what_is_left(console, clock, bar, lines):
    task = bar.add_task("members", total=54, unit="members", begun=0)
    lines.tell()
    for done in range(1, 13):
        clock.now += 30
        bar.update(task, completed=done, description=f"{done} of 54: d = 5")
        lines.tell()
    assert said(console) == [
        "0 of 54 members",
        *(f"{done} of 54 members (2.0 a minute, {left} min left), {done} of 54: d = 5"
          for done, left in ((2, 26), (4, 25), (6, 24), (8, 23), (10, 22), (12, 21))),
    ]  # fmt: skip


def test_what_was_done_before_is_no_part_of_the_rate(console, clock, bar, lines):
    task = bar.add_task("members", total=54, unit="members")
    clock.now += 3600
    bar.begin_anew(task, completed=50)
    clock.now += 1800
    bar.advance(task)
    lines.tell()
    assert said(console) == ["51 of 54 members (2.0 an hour, 90 min left)"]


def test_bars_of_one_console_share_a_line(console, clock, bar, lines):
    bar.add_task("members", total=3, unit="members")
    steps = ProgressBar(console=console, get_time=clock)
    steps.add_task("loss 0.3", total=1200, unit="steps")
    lines.add(steps)
    lines.tell()
    lines.remove(steps)
    clock.now += 60
    lines.tell()
    assert said(console) == ["0 of 3 members; 0 of 1,200 steps, loss 0.3", "0 of 3 members"]


def test_a_thread_tells_while_one_part_runs_for_long(console):
    lines, bar = Lines(console, every=0.01), progress_bar(console)
    bar.add_task("members", total=3, unit="members")
    before = threading.active_count()
    lines.add(bar)
    told = threading.Event()
    print_line, console.print = console.print, lambda *words, **how: told.set()  # type: ignore[method-assign]
    assert told.wait(10)
    lines.remove(bar)
    console.print = print_line  # type: ignore[method-assign]
    assert threading.active_count() == before


def test_the_thread_ends_with_an_exception(console):
    before = threading.active_count()

    def interrupted() -> None:
        with counting("asking", 3, "responses", on=console):
            assert threading.active_count() == before + 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert threading.active_count() == before


def test_a_terminal_has_a_bar_and_no_lines():
    console = Console(record=True, width=80, force_terminal=True, file=io.StringIO())
    with counting("asking", 3, "responses", on=console) as advance:
        names = {thread.name for thread in threading.enumerate()}
        advance(3)
    assert "progress in lines" not in names
    assert "of 3 responses" not in console.export_text()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(7, "7 s"), (99, "99 s"), (100, "2 min"), (5400, "90 min"), (9000, "2.5 h"),
     (300_000, "3.5 days")],
)  # fmt: skip
def test_times_in_words(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("per_second", "words"),
    [(12.3, "12.3 a second"), (0.5, "30.0 a minute"), (1 / 360, "10.0 an hour"),
     (1e-4, "0.4 an hour")],
)  # fmt: skip
def test_rates_in_words(per_second, words):
    assert rate(per_second) == words
