"""Problems with worked solutions, as data sets have them.

A data set is read into `Problems`: for each, the chat that asks it, the solution, and where they
are stated the final answer and the difficulty.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import parquet

from experiments.llm.problems.answers import LETTERS
from experiments.llm.problems.config import DEFAULT_COLUMNS, Columns
from experiments.llm.problems.sources import load_rows
from experiments.storage.checkpoint import PathLike
from experiments.storage.results import write_atomically

T = TypeVar("T")

Message = Mapping[str, str]
"""One turn of a chat: ``role`` (system, user or assistant) and ``content``."""

USUAL = {
    "messages": ("messages",),
    "problem": ("problem", "question", "query", "prompt", "instruction", "input"),
    "solution": ("solution", "generated_solution", "response", "output", "completion"),
    "answer": ("answer", "final_answer", "expected_answer", "answerKey"),
    "difficulty": ("op", "difficulty"),
    "choices": ("choices", "options"),
}
"""Names under which data sets have the fields of `Columns`."""


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

    def digest(self) -> str:
        """Fingerprint of the problems with everything that is stated of them."""
        total = hashlib.sha256()
        columns = (self.prompts, self.solutions, self.answers, self.ops)
        for row in zip(*columns, strict=True):
            total.update(json.dumps(row).encode())
        return total.hexdigest()[:16]

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
      source, split, configuration: see `experiments.llm.problems.sources.load_rows`. A folder made
        by ``sweetspot tasks export`` has the configurations ``base``, ``train-op6`` and so on, and
        ``test``.
      columns: names of the columns.

    Raises:
      FileNotFoundError, ImportError, ValueError: see `load_rows`.
      ValueError: if a column that is named or needed is not there, if several may be meant, or if
        a row has no problem or an empty solution, or a cell is not what its column holds (rows are
        counted from 0).
    """
    rows = load_rows(source, split=split, configuration=configuration)
    name = ":".join(part for part in (str(source), configuration, split) if part)
    try:
        return _problems(rows, columns, name)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


@dataclass(frozen=True)
class _Field:
    """The cells of one column."""

    column: str
    cells: Sequence[Any]

    def each(self, function: Callable[..., T], *beside: Sequence[Any]) -> list[T]:
        """The function of every cell and what is beside it; errors say where."""
        found: list[T] = []
        for row, cells in enumerate(zip(self.cells, *beside, strict=True)):
            try:
                found.append(function(*cells))
            except ValueError as error:
                raise ValueError(f"column {self.column!r}, row {row}: {error}") from error
        return found


def _problems(rows: Any, columns: Columns, name: str) -> Problems:
    """Rows of a data set as problems."""
    fields = _fields(rows, columns)
    if "messages" in fields:
        pairs = fields["messages"].each(_parts)
        prompts, solutions = [prompt for prompt, _ in pairs], [solution for _, solution in pairs]
        answers = fields["answer"].each(_text) if "answer" in fields else [""] * len(rows)
    else:
        if "problem" not in fields:
            raise ValueError(f"there is no column of problems among {rows.column_names}")
        if "solution" not in fields and "answer" not in fields:
            raise ValueError(f"there is no column of solutions among {rows.column_names}")
        prompts, solutions, answers = _columns(fields, columns.system)
    for row, (prompt, solution) in enumerate(zip(prompts, solutions, strict=True)):
        if not prompt[-1]["content"].strip():
            raise ValueError(f"row {row} has an empty problem")
        if not solution.strip():
            raise ValueError(f"row {row} has an empty solution")
    is_named = columns.difficulty is not None
    levels = _levels(fields["difficulty"], is_named) if "difficulty" in fields else None
    return Problems(prompts, solutions, answers, levels or [None] * len(rows), name)


def _fields(rows: Any, columns: Columns) -> dict[str, _Field]:
    """The columns that are there, under the names of `USUAL`."""
    is_pair = columns.problem is not None or columns.solution is not None
    fields: dict[str, _Field] = {}
    for part in USUAL:
        if is_pair and part == "messages":
            continue
        if (column := _find(rows.column_names, part, getattr(columns, part))) is not None:
            fields[part] = _Field(column, rows[column][:])
    return fields


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


def _columns(
    fields: Mapping[str, _Field], system: str
) -> tuple[list[list[Message]], list[str], list[str]]:
    """Prompts, solutions and answers of a data set that has them in columns."""
    prompts = fields["problem"].each(partial(_prompt, system=system))
    answers = [""] * len(prompts)
    if "choices" in fields:
        choices = fields["choices"].each(_choices)
        prompts = [*map(_with_choices, prompts, choices)]
        if "answer" in fields:
            answers = fields["answer"].each(_letter, choices)
    elif "answer" in fields:
        answers = fields["answer"].each(_text)
    if "solution" in fields:
        return prompts, fields["solution"].each(_solution), answers
    return prompts, answers, [answer.rpartition("####")[2].strip() for answer in answers]


# Cells: text, chats, choices, levels.


def _scalar(cell: Any) -> Any:
    """What a cell holds, or the list of one in it; None if it is missing."""
    if isinstance(cell, list):
        if len(cell) != 1:
            raise ValueError(f"must be text or a number, got a list of {len(cell)}")
        (cell,) = cell
    if isinstance(cell, float) and math.isnan(cell):
        return None
    if isinstance(cell, float) and cell.is_integer():
        # Whole numbers become floating-point beside missing ones.
        if abs(cell) >= 2**53:
            raise ValueError(f"whole numbers this large lose digits, write them as text: {cell}")
        return int(cell)
    if not isinstance(cell, str | int | float | Decimal | date | None):
        raise ValueError(f"must be text or a number, got {type(cell).__name__}")
    return cell


def _text(cell: Any) -> str:
    """A cell as text; a missing one is empty."""
    value = _scalar(cell)
    return "" if value is None else str(value)


def _is_chat(cell: Any) -> bool:
    if not isinstance(cell, list) or not cell:
        return False
    return all(isinstance(turn, dict) and "role" in turn for turn in cell)


def _turns(chat: Any) -> tuple[list[Message], list[str]]:
    """A chat, and the roles in it."""
    if not _is_chat(chat):
        raise ValueError(f"must be a list of turns with a role, got {type(chat).__name__}")
    turns: list[Message] = [{part: turn.get(part) for part in ("role", "content")} for turn in chat]
    if others := [turn["content"] for turn in turns if not isinstance(turn["content"], str)]:
        raise ValueError(f"contents of messages must be text, got {others[0]!r}")
    return turns, [turn["role"] for turn in turns]


def _parts(chat: Any) -> tuple[list[Message], str]:
    """A chat as prompt and solution."""
    turns, roles = _turns(chat)
    if roles[-2:] != ["user", "assistant"]:
        raise ValueError(f"messages must end with user and assistant, got roles {roles}")
    return turns[:-1], turns[-1]["content"]


def _prompt(cell: Any, system: str) -> list[Message]:
    """A problem, or a chat that ends with one, as a chat."""
    if not _is_chat(cell):
        before = [{"role": "system", "content": system}] if system else []
        return [*before, {"role": "user", "content": _text(cell)}]
    turns, roles = _turns(cell)
    if roles[-1] != "user":
        raise ValueError(f"a prompt must end with user, got roles {roles}")
    return turns


def _solution(cell: Any) -> str:
    """A solution, or the one turn that holds it."""
    if not _is_chat(cell):
        return _text(cell)
    turns, roles = _turns(cell)
    if roles != ["assistant"]:
        raise ValueError(f"a solution must be one turn of assistant, got roles {roles}")
    return turns[0]["content"]


def _choices(cell: Any) -> list[tuple[str, str]]:
    """Label and text of each choice; the labels are our letters where none are stated."""
    texts, labels = cell, None
    if isinstance(cell, dict) and {"text", "label"} <= cell.keys():
        texts, labels = cell["text"], cell["label"]
    if not isinstance(texts, list):
        raise ValueError(f"must be a list, or lists text and label, got {type(cell).__name__}")
    if len(texts) > len(LETTERS):
        raise ValueError(f"choices must be at most {len(LETTERS)}, got {len(texts)}")
    labels = LETTERS[: len(texts)] if labels is None else labels
    return [*zip(map(_text, labels), map(_text, texts), strict=True)]


def _with_choices(prompt: Sequence[Message], choices: Sequence[tuple[str, str]]) -> list[Message]:
    """A prompt with the choices below the problem."""
    *before, last = prompt
    lettered = [f"{letter}. {text}" for letter, (_, text) in zip(LETTERS, choices, strict=False)]
    return [*before, {**last, "content": "\n".join([last["content"], *lettered])}]


def _letter(answer: Any, choices: Sequence[tuple[str, str]]) -> str:
    """The letter of a choice that is given by its label, its number or its letter."""
    value, labels = _scalar(answer), [label for label, _ in choices]
    if str(value) in labels:
        return LETTERS[labels.index(str(value))]
    if not isinstance(value, int):
        text = _text(value)
        if len(text) == 1 and text in LETTERS[len(choices) :]:
            raise ValueError(f"answers must be one of {len(choices)} choices, got {text!r}")
        return text
    if not 0 <= value < len(choices):
        raise ValueError(f"answers that number choices must be 0 to {len(choices) - 1}: {value}")
    return LETTERS[value]


def _level(cell: Any) -> int | None:
    """A stated difficulty, also one in digits; None if it is missing."""
    value = _scalar(cell)
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if not isinstance(value, int | None):
        raise ValueError(f"levels are whole numbers, got {value!r}")
    return value


def _levels(field: _Field, is_named: bool) -> list[int | None] | None:
    """Stated difficulties; none, and a warning, if the usual column holds something else."""
    try:
        return field.each(_level)
    except ValueError as error:
        if is_named:
            raise ValueError(f"columns.difficulty must name whole numbers: {error}") from error
        warnings.warn(f"no difficulties are read: {error}", stacklevel=4)
        return None


def write_problems(problems: Problems, path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write problems as a Parquet file of chats that `read` reads back, with more columns."""
    chats = [
        [*prompt, {"role": "assistant", "content": solution}]
        for prompt, solution in zip(problems.prompts, problems.solutions, strict=True)
    ]
    table = {"messages": chats, "answer": list(problems.answers)}
    if any(op is not None for op in problems.ops):
        table["difficulty"] = list(problems.ops)
    written = pa.table(table | dict(columns))
    write_atomically(path, lambda temporary: parquet.write_table(written, temporary))
