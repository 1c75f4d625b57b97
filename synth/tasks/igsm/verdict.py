"""The outcome of a verification, and how a check says that it failed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from synth.tasks.igsm.parse import Place

MOST_TRIALS = 2000
"""Most comparisons of nameless definitions with parameters in a solution, and most meanings of one
chain of numbers; a solution that needs more is `Reason.UNVERIFIABLE`."""
MOST_WORK = 1_000_000
"""Most operations of one verification, about a second's; a solution that needs more is
`Reason.UNVERIFIABLE`. Our own solutions need some hundred, without names some ten thousand."""


class Reason(StrEnum):
    """The reason why a solution is not accepted, or `RIGHT`."""

    RIGHT = "right"
    UNREADABLE = "a sentence is outside the grammar"
    INCONSISTENT = "the problem has no consistent structure"
    UNKNOWN = "the problem has no such parameter"
    TWICE = "a parameter or a symbol is defined twice"
    TARGET = "the last step is not the one for the parameter defined"
    UNDEFINED = "something is used before it is defined"
    DEPENDENCIES = "uses other parameters than the problem says"
    EXPRESSION = "constants or operators are not those of the problem"
    NUMBER = "a number is not the value of what it stands for"
    UNREDUCED = "a number is not reduced"
    ARITHMETIC = "two sides of an equation differ"
    VALUE = "the value is wrong"
    UNIDENTIFIED = "the definition fits no parameter of the problem"
    QUERY = "the last definition is not the one asked for"
    ANSWER = "the answer is wrong"
    UNVERIFIABLE = "the text leaves too much out to be verified"


@dataclass(frozen=True)
class Verdict:
    """Outcome of a verification; its truth value is `ok`.

    Attributes:
      ok: whether the solution was accepted.
      reason: one of `Reason`, as text.
      sentence: the first wrong sentence; None if there is none or no single one is to blame.
      place: the text that `sentence`, or the missing sentence, belongs to: problem or solution.
      index: number of `sentence` in its text, from 0.
      detail: an explanation with the names and numbers involved.
    """

    ok: bool
    reason: str
    sentence: str | None = None
    place: Place | None = None
    index: int | None = None
    detail: str = ""

    def __bool__(self) -> bool:
        return self.ok


class Failure(NamedTuple):
    """A verdict with the number of the definition that caused it."""

    position: int
    verdict: Verdict


class MistakeError(Exception):
    """Raised where a check fails; the judge turns it into a verdict."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class ExhaustedError(Exception):
    """Raised where a verification has taken more than `MOST_WORK`."""


@dataclass
class Work:
    """Operations that a verification has taken in all worlds."""

    done: int = 0

    def add(self, number: int) -> None:
        self.done += number
        if self.done > MOST_WORK:
            raise ExhaustedError(f"more than {MOST_WORK} operations")
