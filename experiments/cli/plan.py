"""The flags ``--plan`` and ``--plan-on`` of commands that run a study, and what they print."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from experiments.cli.terminal import print_rows
from experiments.engine.lines import duration
from experiments.engine.progress import console

if TYPE_CHECKING:
    from experiments.engine.forecast import Forecast, Totals
    from experiments.engine.study import Study


@dataclass(frozen=True)
class Plan:
    """Whether to print what the command takes instead of running it.

    Attributes:
      plan: print what the command takes (parts, tokens, memory, hours …), and run nothing; some of
        its programs are timed for 20 seconds.
      plan_on: print also the hours on such a device, for example h200; implies plan.
    """

    plan: bool = False
    plan_on: str | None = None

    @property
    def is_asked(self) -> bool:
        """Return whether a plan is asked for."""
        return self.plan or self.plan_on is not None

    def show(self, study: Study) -> None:
        """Print the plan of a study.

        Raises:
          ResultsError, ValueError: see `experiments.engine.forecast.forecast`.
        """
        from experiments.engine.forecast import forecast

        with console.status("timing a little of the work …"):
            told = forecast(study, device=self.plan_on)
        rows, columns = [*_rows(told)], ("", "in all", "left")
        shown = 2 if told.left == told.whole else 3
        print_rows(columns[:shown], [row[:shown] for row in rows])
        if not told.left.parts:
            console.print(f"{study.directory} is complete: nothing is left to run.")
        seconds = duration(told.calibration)
        console.print(f"Hours here are told from {_timed(told)}, timed in {seconds}.")
        for sentence in told.assumptions:
            console.print(sentence)


Planning = Annotated[Plan, tyro.conf.arg(name="")]
NO_PLAN = Plan()


def _rows(told: Forecast) -> Iterator[tuple[str, str, str]]:
    """Rows of the table."""

    def row(name: str, words) -> tuple[str, str, str]:
        return name, words(told.whole), words(told.left)

    yield row("parts", lambda totals: f"{totals.parts:,}")
    if told.unit != "parts":
        yield row(told.unit, lambda totals: f"{totals.units:,}")
    for name, count in told.counts.items():
        yield name, f"{count:,}", ""
    yield row("compiled programs", _programs)
    yield row("tokens", lambda totals: _short(totals.tokens))
    yield row("FLOPs", lambda totals: f"{totals.flops:.2g}")
    yield row("disk", lambda totals: _bytes(totals.disk))
    if told.memory is not None:
        yield "peak memory here", _bytes(told.memory), ""
    yield row("hours here", lambda totals: _hours(totals.seconds))
    if told.device is not None:
        number = "one" if told.num_devices == 1 else str(told.num_devices)
        yield row(f"hours on {number} {told.device}", lambda totals: _hours(totals.device_seconds))


def _programs(totals: Totals) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in totals.programs.items())
    number = sum(totals.programs.values())
    return f"{number} ({kinds})" if number else "0"


def _timed(told: Forecast) -> str:
    names = dict.fromkeys(program.kind for program in told.timed)
    return (
        " and ".join((", ".join([*names][:-1]), [*names][-1]))
        if len(names) > 1
        else ("".join(names) or "nothing")
    )


def _hours(seconds: float | None) -> str:
    return f"{(seconds or 0.0) / 3600:.2g} ({duration(seconds or 0.0)})"


def _short(number: float) -> str:
    """A number with the letter of its thousands."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}"


def _bytes(number: float) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e3:.3g} kB"
