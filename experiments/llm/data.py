"""Problems with worked solutions, as data sets have them.

A data set is read into `Problems`: for each, the chat that asks it, the solution, and where they
are stated the final answer and the difficulty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.checkpoint import PathLike
from experiments.export import SYSTEM_PROMPT
from experiments.llm.answers import LETTERS
from experiments.llm.sources import load_rows
from experiments.llm.tokenizer import Message

USUAL = {
    "messages": ("messages",),
    "problem": ("problem", "question", "query", "prompt", "instruction", "input"),
    "solution": ("solution", "generated_solution", "response", "output", "completion"),
    "answer": ("answer", "final_answer", "expected_answer"),
    "difficulty": ("op", "difficulty"),
    "choices": ("choices", "options"),
}
"""Names under which data sets have the fields of `Columns`."""


@dataclass(frozen=True)
class Columns:
    """Names of a data set's columns; None looks for those in `USUAL`.

    Attributes:
      messages: a chat whose last turn is the solution. Where there is one, it is taken before
        problem and solution, unless these are named.
      problem, solution: their text. The answer stands in for a solution where there is none.
      answer: the final answer. Where it stands in for the solution, what follows its last ``####``
        (as in GSM8K), or all of it.
      difficulty: stated level, a whole number.
      choices: of a multiple-choice question, written below it with letters; an answer that is a
        number counts them from 0.
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
class Problems:
    """Problems with solutions, all in memory.

    Attributes:
      prompts: for each the chat that ends with the problem.
      solutions: for each what the assistant answers.
      answers: for each the final answer; ``""`` where none is stated.
      ops: for each the stated difficulty; None where none is stated.
      name: of the data set, for tables and errors.

    Raises:
      ValueError: if the fields have different lengths.
    """

    prompts: Sequence[Sequence[Message]]
    solutions: Sequence[str]
    answers: Sequence[str]
    ops: Sequence[int | None]
    name: str = ""

    def __post_init__(self) -> None:
        columns = ("prompts", "solutions", "answers", "ops")
        lengths = {column: len(getattr(self, column)) for column in columns}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"fields of problems must have one length, got {lengths}")

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def problems(self) -> list[str]:
        """For each the text of the turn before the solution."""
        return [prompt[-1]["content"] for prompt in self.prompts]

    def take(self, rows: Iterable[int]) -> Problems:
        """Those with these numbers, in this order."""
        chosen = [int(row) for row in rows]
        return Problems(
            [self.prompts[row] for row in chosen],
            [self.solutions[row] for row in chosen],
            [self.answers[row] for row in chosen],
            [self.ops[row] for row in chosen],
            self.name,
        )


def read(
    source: PathLike,
    *,
    split: str | None = None,
    configuration: str | None = None,
    columns: Columns = DEFAULT_COLUMNS,
) -> Problems:
    """Read a data set of problems with solutions.

    Args:
      source, split, configuration: see `experiments.llm.sources.load_rows`. A folder made by
        ``sweetspot tasks export`` has the configurations ``base``, ``train-op6`` and so on, and
        ``test``.
      columns: names of the columns.

    Raises:
      FileNotFoundError, ImportError, ValueError: see `load_rows`.
      ValueError: if a column that is named or needed is not there, if several may be meant, or if
        a row has no problem or an empty solution (rows are counted from 0).
    """
    rows = load_rows(source, split=split, configuration=configuration)
    name = ":".join(part for part in (str(source), configuration, split) if part)
    try:
        return _problems(rows, columns, name)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


@dataclass(frozen=True)
class Source:
    """Where problems are, as one argument.

    Attributes:
      source, split, configuration: see `experiments.llm.sources.load_rows`.
      columns: names of the columns, where they are not the usual ones.
    """

    source: str
    split: str | None = None
    configuration: str | None = None
    columns: Columns = DEFAULT_COLUMNS

    def read(self) -> Problems:
        """The problems; errors as `read`."""
        return read(
            self.source, split=self.split, configuration=self.configuration, columns=self.columns
        )


def _problems(rows: Any, columns: Columns, name: str) -> Problems:
    """Rows of a data set as problems."""
    is_pair = columns.problem is not None or columns.solution is not None
    values: dict[str, list[Any]] = {}
    for part in USUAL:
        if is_pair and part == "messages":
            continue
        if (column := _find(rows.column_names, part, getattr(columns, part))) is not None:
            values[part] = rows[column][:]
    if "messages" in values:
        pairs = [_parts(chat, row) for row, chat in enumerate(values["messages"])]
        prompts, solutions = [prompt for prompt, _ in pairs], [solution for _, solution in pairs]
        answers = _texts(values.get("answer", [None] * len(rows)))
    else:
        if "problem" not in values:
            raise ValueError(f"there is no column of problems among {rows.column_names}")
        if "solution" not in values and "answer" not in values:
            raise ValueError(f"there is no column of solutions among {rows.column_names}")
        texts, solutions, answers = _columns(values)
        system = [{"role": "system", "content": columns.system}] if columns.system else []
        prompts = [[*system, {"role": "user", "content": text}] for text in texts]
    for row, (prompt, solution) in enumerate(zip(prompts, solutions, strict=True)):
        if not prompt[-1]["content"].strip():
            raise ValueError(f"row {row} has an empty problem")
        if not solution.strip():
            raise ValueError(f"row {row} has an empty solution")
    return Problems(prompts, solutions, answers, _levels(values, columns, len(rows)), name)


def _columns(values: Mapping[str, list[Any]]) -> tuple[list[str], list[str], list[str]]:
    """Problems, solutions and answers of a data set that has them in columns."""
    problems = _texts(values["problem"])
    answers = values.get("answer", [None] * len(problems))
    if "choices" in values:
        problems = [*map(_with_choices, problems, values["choices"])]
        answers = [*map(_letter, answers)]
    answers = _texts(answers)
    if "solution" in values:
        return problems, _texts(values["solution"]), answers
    return problems, answers, [answer.rpartition("####")[2].strip() for answer in answers]


def _find(names: Sequence[str], part: str, named: str | None) -> str | None:
    """The column of a field: the one that is named, or the usual one that is there."""
    if named is not None:
        if named not in names:
            raise ValueError(f"columns.{part} must be one of {list(names)}, got {named!r}")
        return named
    found = [name for name in USUAL[part] if name in names]
    if len(found) > 1:
        raise ValueError(f"columns.{part} must say which of {found} is meant, got None")
    return found[0] if found else None


def _text(value: Any) -> str:
    """A cell as text; a missing one is empty."""
    if isinstance(value, float) and value.is_integer():
        # Whole numbers become floating-point beside missing ones.
        value = int(value)
    return "" if value is None else str(value)


def _texts(column: Iterable[Any]) -> list[str]:
    return [_text(value) for value in column]


def _parts(chat: Any, row: int) -> tuple[list[Message], str]:
    """A chat as prompt and solution."""
    turns: list[Message] = [
        {"role": turn.get("role"), "content": turn.get("content")} for turn in chat or []
    ]
    if [turn["role"] for turn in turns[-2:]] != ["user", "assistant"]:
        roles = [turn["role"] for turn in turns]
        raise ValueError(f"row {row}: messages must end with user and assistant, got roles {roles}")
    if others := [turn["content"] for turn in turns if not isinstance(turn["content"], str)]:
        raise ValueError(f"row {row}: contents of messages must be text, got {others[0]!r}")
    return turns[:-1], turns[-1]["content"]


def _with_choices(problem: str, choices: Sequence[Any]) -> str:
    if len(choices) > len(LETTERS):
        raise ValueError(f"choices must be at most {len(LETTERS)}, got {len(choices)}")
    lettered = zip(LETTERS, choices, strict=False)
    return "\n".join([problem, *(f"{letter}. {_text(choice)}" for letter, choice in lettered)])


def _letter(answer: Any) -> str:
    """The letter of a choice that is given by its number or its letter."""
    if not isinstance(answer, int):
        return _text(answer)
    if not 0 <= answer < len(LETTERS):
        raise ValueError(f"answers that number choices must be 0 to {len(LETTERS) - 1}: {answer}")
    return LETTERS[answer]


def _levels(values: Mapping[str, Any], columns: Columns, number: int) -> list[int | None]:
    """Stated difficulties; none if the usual column holds something else than levels."""
    levels = values.get("difficulty", [None] * number)
    others = [level for level in levels if not isinstance(level, int | None)]
    if others and columns.difficulty is not None:
        raise ValueError(
            f"columns.difficulty must name whole numbers, got {columns.difficulty!r} with "
            f"{others[0]!r}"
        )
    return [None] * number if others else list(levels)
