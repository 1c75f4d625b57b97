"""Configurations of problems: where they are read from, and how answers are graded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import tyro

from experiments.igsm.config import SYSTEM_PROMPT
from synth.arguments import check_least, check_positive, closest
from synth.tasks.igsm.verify import Mode

Grader = Literal["boxed", "math-verify", "gsm8k", "igsm", "multiple-choice", "reasoning-gym"]


@dataclass(frozen=True)
class Columns:
    """Names of a data set's columns; None looks for those in `experiments.llm.problems.data.USUAL`.

    Attributes:
      messages: a chat whose last turn is the solution. Where there is one, it is taken before
        problem and solution, unless these are named.
      problem, solution: their text, or chats (the problem ends one, the solution is one turn). The
        answer stands in for a solution where there is none.
      answer: the final answer. Where it stands in for the solution, what follows its last ``####``
        (as in GSM8K), or all of it.
      difficulty: stated level, a whole number. A column with something else is an error where it is
        named, and is left out with a warning where it is not.
      choices: of a multiple-choice question, written below it with letters: a list, or lists
        ``text`` and ``label``. An answer is a label, or else a number that counts them from 0.
      system: system prompt before problems that are no chat; ``""`` for none.
    """

    messages: str | None = None
    problem: str | None = None
    solution: str | None = None
    answer: str | None = None
    difficulty: str | None = None
    choices: str | None = None
    system: str = SYSTEM_PROMPT


DEFAULT_COLUMNS = Columns()


@dataclass(frozen=True)
class Source:
    """Place of a data set, as one argument.

    Attributes:
      source: a file of rows, a folder, a hub id, or ``reasoning-gym:TASK?KNOB=2..6``.
      split: part of it, where it has several.
      configuration: of a data set on the hub, where it has several.
      columns: names of the columns, where they are not the usual ones.
    """

    source: Annotated[str, tyro.conf.arg(metavar="DATA")]
    split: str | None = None
    configuration: str | None = None
    columns: Columns = DEFAULT_COLUMNS


@dataclass(frozen=True)
class GraderConfig:
    """Settings of a grader.

    Attributes:
      name: a rule of `experiments.llm.problems.grade`.
      modulus: of the arithmetic, for ``igsm``; None for the paper's 23.
      mode: how ``igsm`` judges, see `synth.tasks.igsm.verify`.
      timeout: seconds that ``math-verify``, or a scorer of ``reasoning-gym``, may take for one
        answer; one that takes longer is wrong.
      processes: how many these two take at most; None for one a processor.

    Raises:
      ValueError: if a field is out of range.
    """

    name: Annotated[Grader, tyro.conf.arg(aliases=("--grader",))] = "boxed"
    modulus: int | None = None
    mode: Mode = "strict"
    timeout: float = 10.0
    processes: int | None = None

    def __post_init__(self) -> None:
        if self.name not in (known := get_args(Grader)):
            hint = closest(self.name, known)
            raise ValueError(f"grader must be one of {known}, got {self.name!r}{hint}")
        check_positive(self, "timeout")
        if self.modulus is not None:
            check_least(self, 2, "modulus")
        if self.processes is not None:
            check_least(self, 1, "processes")
