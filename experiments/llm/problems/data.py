"""Problems with worked solutions, read from data sets.

A data set becomes `Problems`: for each problem the chat that asks it, the solution, and if they are
stated the final answer and the difficulty.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import parquet

from experiments.llm.problems.answers import LETTERS
from experiments.llm.problems.config import DEFAULT_COLUMNS, Columns, Source
from experiments.llm.problems.gym.drawing import ORIGINS
from experiments.llm.problems.sources import Rows, load_rows
from experiments.storage.checkpoint import PathLike
from experiments.storage.writing import write_atomically
from synth.arguments import closest

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
"""Names that data sets use for the fields of `Columns`."""


@dataclass(frozen=True)
class Problems:
    """Problems with solutions, all in memory.

    Attributes:
      prompts: for each problem the chat that ends with it.
      solutions: for each the assistant's turn after it.
      answers: for each the final answer; ``""`` if none is stated.
      ops: for each the stated difficulty; None if none is stated.
      name: of the data set, for tables and errors.
      origins: for each where reasoning-gym drew it, which its scorer needs; none if it did not. No
        part of the digest, as problems of one origin are the same.
      columns: further columns of numbers that were asked for, by name; None where one is missing.

    Raises:
      ValueError: if the fields have different lengths.
    """

    prompts: Sequence[Sequence[Message]]
    solutions: Sequence[str]
    answers: Sequence[str]
    ops: Sequence[int | None]
    name: str = ""
    origins: Sequence[str] = ()
    columns: Mapping[str, Sequence[float | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        columns = ["prompts", "solutions", "answers", "ops", *(["origins"] if self.origins else [])]
        lengths = {column: len(getattr(self, column)) for column in columns}
        lengths |= {column: len(cells) for column, cells in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"fields of problems must have one length, got {lengths}")

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def problems(self) -> list[str]:
        """Text of each problem: the turn before its solution."""
        return [prompt[-1]["content"] for prompt in self.prompts]

    def digest(self) -> str:
        """Fingerprint of the problems with everything that is stated of them."""
        total = hashlib.sha256()
        columns = (self.prompts, self.solutions, self.answers, self.ops)
        for row in zip(*columns, strict=True):
            total.update(json.dumps(row).encode())
        for column, cells in sorted(self.columns.items()):
            total.update(json.dumps([column, list(cells)]).encode())
        return total.hexdigest()[:16]

    def take(self, rows: Iterable[int]) -> Problems:
        """Select problems by their numbers, in this order."""
        chosen = [int(row) for row in rows]
        return Problems(
            [self.prompts[row] for row in chosen],
            [self.solutions[row] for row in chosen],
            [self.answers[row] for row in chosen],
            [self.ops[row] for row in chosen],
            self.name,
            [self.origins[row] for row in chosen] if self.origins else (),
            {column: [cells[row] for row in chosen] for column, cells in self.columns.items()},
        )


class NoColumnError(ValueError):
    """A data set lacks a column that was asked for."""


def read(
    source: PathLike,
    *,
    split: str | None = None,
    configuration: str | None = None,
    columns: Columns = DEFAULT_COLUMNS,
    numbers: Collection[str] = (),
) -> Problems:
    """Read a data set of problems with solutions.

    Args:
      source, split, configuration: see `experiments.llm.problems.sources.load_rows`. A folder made
        by ``sweetspot tasks export`` has the configurations ``base``, ``train-op6`` and so on, and
        ``test``. The column `experiments.llm.problems.gym.drawing.ORIGINS` is kept.
      columns: names of the columns.
      numbers: further columns to keep, of numbers.

    Raises:
      FileNotFoundError, ImportError, ValueError: see `load_rows`.
      NoColumnError: if a column of `numbers` is missing.
      ValueError: if a named or needed column is missing, if several columns may be meant, if a row
        has no problem or an empty solution, or if a cell does not hold what its column should (rows
        are counted from 0).
    """
    named = (getattr(columns, part) for part in USUAL)
    usual = sum(USUAL.values(), ())
    wanted = {each for each in (ORIGINS, *named, *usual, *numbers) if each is not None}
    rows = load_rows(source, split=split, configuration=configuration, wanted=wanted)
    return _named(rows, columns, (str(source), configuration, split), numbers)


def read_source(source: Source, *, numbers: Collection[str] = ()) -> Problems:
    """Read the problems that an argument names; `numbers` and errors as `read`."""
    return read(
        source.source,
        split=source.split,
        configuration=source.configuration,
        columns=source.columns,
        numbers=numbers,
    )


def read_with_rows(source: Source, *, numbers: Collection[str] = ()) -> tuple[Problems, Rows]:
    """Read problems, and the rows of their data set with every column; else as `read_source`."""
    place = (source.source, source.configuration, source.split)
    rows = load_rows(source.source, split=source.split, configuration=source.configuration)
    return _named(rows, source.columns, place, numbers), rows


def _named(
    rows: Rows, columns: Columns, place: Sequence[str | None], numbers: Collection[str]
) -> Problems:
    """Problems of rows that are named by their place; errors begin with it."""
    name = ":".join(part for part in place if part)
    if missing := [each for each in numbers if each not in rows.column_names]:
        hint = closest(missing[0], rows.column_names)
        raise NoColumnError(
            f"{name}: a column must be one of {rows.column_names}, got {missing[0]!r}{hint}"
        )
    try:
        return _problems(rows, columns, name, numbers)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


@dataclass(frozen=True)
class _Field:
    """The cells of one column."""

    column: str
    cells: Sequence[Any]

    def each(self, function: Callable[..., T], *beside: Sequence[Any]) -> list[T]:
        """Apply a function to every cell and its row in `beside`; errors name column and row."""
        values: list[T] = []
        for row, cells in enumerate(zip(self.cells, *beside, strict=True)):
            try:
                values.append(function(*cells))
            except ValueError as error:
                raise ValueError(f"column {self.column!r}, row {row}: {error}") from error
        return values


def _problems(rows: Rows, columns: Columns, name: str, numbers: Collection[str]) -> Problems:
    """Turn rows of a data set into problems."""
    # Read prompts, solutions and answers, from chats or from columns of their own.
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
    # Refuse empty texts, and read the stated difficulties.
    for row, (prompt, solution) in enumerate(zip(prompts, solutions, strict=True)):
        if not prompt[-1]["content"].strip():
            raise ValueError(f"row {row} has an empty problem")
        if not solution.strip():
            raise ValueError(f"row {row} has an empty solution")
    origins = [_text(cell) for cell in rows[ORIGINS]] if ORIGINS in rows.columns else ()
    stated, levels = fields.get("difficulty"), None
    if stated is not None:
        is_number = stated.column in numbers
        levels = _levels(stated, columns.difficulty is not None, is_number=is_number)
    levels = levels or [None] * len(rows)
    others = {column: _Field(column, rows[column]).each(_number) for column in numbers}
    return Problems(prompts, solutions, answers, levels, name, origins, others)


def _fields(rows: Rows, columns: Columns) -> dict[str, _Field]:
    """Columns of a data set, by the names of fields in `USUAL`."""
    is_pair = columns.problem is not None or columns.solution is not None
    fields: dict[str, _Field] = {}
    for part in USUAL:
        if is_pair and part == "messages":
            continue
        if (column := _find(rows.column_names, part, getattr(columns, part))) is not None:
            fields[part] = _Field(column, rows[column])
    return fields


def found_columns(rows: Rows, columns: Columns) -> dict[str, str]:
    """Name of the column of each field in `USUAL` that a data set has; errors as `read`."""
    return {part: field.column for part, field in _fields(rows, columns).items()}


def _find(names: Sequence[str], part: str, named: str | None) -> str | None:
    """Column of a field: the one that is named, else the one with a usual name, else None."""
    if named is not None:
        if named not in names:
            raise ValueError(f"columns.{part} must be one of {list(names)}, got {named!r}")
        return named
    usual = [name for name in USUAL[part] if name in names]
    if len(usual) > 1:
        raise ValueError(f"columns.{part} must say which of {usual} is meant, got None")
    return usual[0] if usual else None


def _columns(
    fields: Mapping[str, _Field], system: str
) -> tuple[list[list[Message]], list[str], list[str]]:
    """Prompts, solutions and answers of a data set with a column for each."""
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
    # The answers are worked solutions, as in GSM8K: the final answer follows the last ####.
    return prompts, answers, [answer.rpartition("####")[2].strip() for answer in answers]


# Cells: text, chats, choices, levels.


def _scalar(cell: Any) -> Any:
    """Value of a cell, or of a list of one in it; None if it is missing."""
    if isinstance(cell, list):
        if len(cell) != 1:
            raise ValueError(f"must be text or a number, got a list of {len(cell)}")
        (cell,) = cell
    if isinstance(cell, float) and math.isnan(cell):
        return None
    if isinstance(cell, float) and cell.is_integer():
        # A column with missing cells is read as floating-point numbers.
        if abs(cell) >= 2**53:
            raise ValueError(f"whole numbers this large lose digits, write them as text: {cell}")
        return int(cell)
    if not isinstance(cell, str | int | float | Decimal | date | None):
        raise ValueError(f"must be text or a number, got {type(cell).__name__}")
    return cell


def _text(cell: Any) -> str:
    """Text of a cell; empty if the cell is missing."""
    value = _scalar(cell)
    return "" if value is None else str(value)


def _is_chat(cell: Any) -> bool:
    if not isinstance(cell, list) or not cell:
        return False
    return all(isinstance(turn, dict) and "role" in turn for turn in cell)


def _turns(chat: Any) -> tuple[list[Message], list[str]]:
    """Turns of a chat, and their roles."""
    if not _is_chat(chat):
        raise ValueError(f"must be a list of turns with a role, got {type(chat).__name__}")
    turns: list[Message] = [{part: turn.get(part) for part in ("role", "content")} for turn in chat]
    if others := [turn["content"] for turn in turns if not isinstance(turn["content"], str)]:
        raise ValueError(f"contents of messages must be text, got {others[0]!r:.100}")
    return turns, [turn["role"] for turn in turns]


def _parts(chat: Any) -> tuple[list[Message], str]:
    """Split a chat into prompt and solution."""
    turns, roles = _turns(chat)
    if roles[-2:] != ["user", "assistant"]:
        raise ValueError(f"messages must end with user and assistant, got roles {roles}")
    return turns[:-1], turns[-1]["content"]


def _prompt(cell: Any, system: str) -> list[Message]:
    """Chat of a cell: the cell itself, or one that consists of its problem."""
    if not _is_chat(cell):
        before = [{"role": "system", "content": system}] if system else []
        return [*before, {"role": "user", "content": _text(cell)}]
    turns, roles = _turns(cell)
    if roles[-1] != "user":
        raise ValueError(f"a prompt must end with user, got roles {roles}")
    return turns


def _solution(cell: Any) -> str:
    """Solution in a cell, as text or as a single turn of a chat."""
    if not _is_chat(cell):
        return _text(cell)
    turns, roles = _turns(cell)
    if roles != ["assistant"]:
        raise ValueError(f"a solution must be one turn of assistant, got roles {roles}")
    return turns[0]["content"]


def _choices(cell: Any) -> list[tuple[str, str]]:
    """Label and text of each choice; without stated labels, `LETTERS` are the labels."""
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
    """Write the choices below the problem of a prompt."""
    *before, last = prompt
    lettered = [f"{letter}. {text}" for letter, (_, text) in zip(LETTERS, choices, strict=False)]
    return [*before, {**last, "content": "\n".join([last["content"], *lettered])}]


def _letter(answer: Any, choices: Sequence[tuple[str, str]]) -> str:
    """Letter of a choice that is given by its label, its number from 0, or its letter."""
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
    """Stated difficulty, a number or digits; None if it is missing."""
    value = _scalar(cell)
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 100:
        value = int(value)
    if isinstance(value, int) and abs(value) >= 2**31:
        raise ValueError(f"levels must be below 2^31, got {value}")
    if not isinstance(value, int | None):
        raise ValueError(f"levels are whole numbers, got {value!r:.100}")
    return value


def _levels(field: _Field, is_named: bool, *, is_number: bool) -> list[int | None] | None:
    """Stated difficulties; None if an unnamed column holds something else.

    Warns:
      UserWarning: in that case, unless the column was asked for as one of numbers.
    """
    advice = f"--measure column:{field.column} takes any numbers"
    try:
        return field.each(_level)
    except ValueError as error:
        if is_named:
            message = f"columns.difficulty must name whole numbers: {error}; {advice}"
            raise ValueError(message) from error
        if not is_number:
            warnings.warn(f"no difficulties are read: {error}; {advice}", stacklevel=4)
        return None


def _number(cell: Any) -> float | None:
    """Number in a cell, also as text or as true or false; None if it is missing."""
    value = cell if isinstance(cell, float) and not math.isnan(cell) else _scalar(cell)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"must be a number, got {value!r:.100}") from None
    return None if math.isnan(number) else number


def write_problems(problems: Problems, path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write problems as a Parquet file of chats that `read` reads back, with more columns.

    The problems' own further columns are written too, where their names are free.
    """
    chats = [
        [*prompt, {"role": "assistant", "content": solution}]
        for prompt, solution in zip(problems.prompts, problems.solutions, strict=True)
    ]
    table: dict[str, Sequence[Any]] = {"messages": chats, "answer": list(problems.answers)}
    taken = {name for names in USUAL.values() for name in names} - {"op", "difficulty"}
    if any(op is not None for op in problems.ops):
        table["difficulty"] = list(problems.ops)
        taken |= {"op", "difficulty"}
    if problems.origins:
        table[ORIGINS] = list(problems.origins)
    others = {name: cells for name, cells in problems.columns.items() if name not in taken}
    written = pa.table({**others, **table, **columns})
    write_atomically(path, lambda temporary: parquet.write_table(written, temporary))
