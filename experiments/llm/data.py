"""Problems with worked solutions, and their tokens.

A data set is read into `Problems`: for each, the chat that asks it, the solution, and where they
are stated the final answer and the difficulty. `encode` makes tokens of them: the prompt as the
model will see it, then the solution and what ends it, which alone bear the loss.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from jaxtyping import Int

from experiments.checkpoint import PathLike
from experiments.export import SYSTEM_PROMPT
from experiments.llm.answers import LETTERS
from experiments.llm.sources import load_rows
from experiments.llm.tokenizer import Closing, Message, closing, encode_texts, render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

OnLong = Literal["error", "drop", "truncate"]

USUAL = {
    "messages": ("messages",),
    "problem": ("problem", "question", "query", "prompt", "instruction", "input"),
    "solution": ("solution", "generated_solution", "response", "output", "completion"),
    "answer": ("answer", "final_answer", "expected_answer"),
    "difficulty": ("op", "difficulty"),
    "choices": ("choices", "options"),
}
"""Names under which data sets have the fields of `Columns`."""

BLOCK = 1024
"""Examples that are tokenized at once."""


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


@dataclass(frozen=True)
class Report:
    """What became of the examples.

    Attributes:
      read: how many there were.
      dropped: how many were left out, by reason.
      truncated: how many were kept without the end of their solution.
      max_length: the most tokens that an example may have.
      longest: the most tokens that one had.
    """

    read: int
    dropped: Mapping[str, int]
    truncated: int
    max_length: int
    longest: int

    @property
    def kept(self) -> int:
        """How many are left."""
        return self.read - sum(self.dropped.values())

    def __str__(self) -> str:
        parts = [f"{self.kept:,} of {self.read:,} examples kept"]
        parts += [f"{number:,} dropped ({reason})" for reason, number in self.dropped.items()]
        if self.truncated:
            parts.append(f"{self.truncated:,} cut to {self.max_length:,} tokens")
        return f"{', '.join(parts)}; the longest has {self.longest:,} tokens"


@dataclass(frozen=True)
class Encoded:
    """Examples as tokens: prompt, solution, end marker.

    Attributes:
      tokens: those of each example.
      prompt_lengths: how many of them bear no loss.
      rows: number of each example in the `Problems` that it comes from.
      report: what became of the others.
      tokens_cut: how many each example lost at its end; None for none.
    """

    tokens: Sequence[Int[np.ndarray, " tokens"]]
    prompt_lengths: Int[np.ndarray, " examples"]
    rows: Int[np.ndarray, " examples"]
    report: Report
    tokens_cut: Int[np.ndarray, " examples"] | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> Int[np.ndarray, " examples"]:
        """Tokens of each example."""
        return np.array([len(tokens) for tokens in self.tokens], np.int64)

    @property
    def solution_lengths(self) -> Int[np.ndarray, " examples"]:
        """Tokens of each whole solution without its end marker: the paper's length of a CoT."""
        lost = 0 if self.tokens_cut is None else self.tokens_cut
        return self.lengths + lost - self.prompt_lengths - 1

    def take(self, indices: Iterable[int]) -> Encoded:
        """Those with these numbers, in this order."""
        chosen = np.array([int(index) for index in indices], np.int64)
        return Encoded(
            tuple(self.tokens[index] for index in chosen),
            self.prompt_lengths[chosen],
            self.rows[chosen],
            self.report,
            None if self.tokens_cut is None else self.tokens_cut[chosen],
        )


def encode(
    problems: Problems,
    tokenizer: PreTrainedTokenizerFast,
    *,
    max_length: int,
    on_long: OnLong = "error",
) -> Encoded:
    """Tokens of problems and solutions, for training.

    The prompt is tokenized by itself, as it is when a model is asked; what the chat template writes
    after it, up to the end marker, is the solution's part. (A tokenizer that puts a space before
    every text, as Llama 2's, puts one before that part too.)

    Args:
      problems: what to encode.
      tokenizer: see `experiments.llm.tokenizer.load_tokenizer`.
      max_length: the most tokens of an example.
      on_long: what becomes of longer ones: an ``error``, ``drop``, or ``truncate``, which cuts the
        end of the solution with its end marker, and drops examples whose prompt leaves no room.

    Raises:
      ValueError: if an argument is out of range, if examples are too long and `on_long` is
        ``error``, if none is left, if a solution contains the end marker, or if the chat template
        refuses a problem or changes it or its solution (problems are counted from 0).

    Warns:
      UserWarning: with the report, if an example was dropped or truncated.
    """
    if max_length < 2:
        raise ValueError(f"max_length must be at least 2, got {max_length}")
    if on_long not in get_args(OnLong):
        raise ValueError(f"on_long must be one of {get_args(OnLong)}, got {on_long!r}")
    whole, prompt_lengths = _tokens(problems, tokenizer)
    lengths = np.array([len(tokens) for tokens in whole], np.int64)
    is_long = lengths > max_length
    if on_long == "error" and is_long.any():
        first = int(is_long.argmax())
        raise ValueError(
            f"examples must have at most max_length {max_length} tokens, but {is_long.sum()} of "
            f"{len(whole)} have more (the first, problem {first}, has {lengths[first]}); on_long "
            f"'drop' leaves them out, 'truncate' cuts their solutions"
        )
    reason = f"more than {max_length:,} tokens"
    is_dropped = is_long
    if on_long == "truncate":
        reason = f"{max_length:,} or more tokens of the prompt alone"
        is_dropped = prompt_lengths >= max_length
    kept = np.flatnonzero(~is_dropped)
    report = Report(
        read=len(whole),
        dropped={reason: int(is_dropped.sum())} if is_dropped.any() else {},
        truncated=int((is_long & ~is_dropped).sum()),
        max_length=max_length,
        longest=int(lengths.max(initial=0)),
    )
    if not len(kept):
        raise ValueError(f"no example is left to train on: {report}")
    if report.dropped or report.truncated:
        warnings.warn(f"{problems.name or 'problems'}: {report}", stacklevel=2)
    return Encoded(
        tuple(whole[number][:max_length] for number in kept),
        prompt_lengths[kept],
        kept,
        report,
        np.maximum(lengths[kept] - max_length, 0),
    )


def _tokens(
    problems: Problems, tokenizer: PreTrainedTokenizerFast
) -> tuple[list[Int[np.ndarray, " tokens"]], Int[np.ndarray, " examples"]]:
    """Tokens of every whole example, and how many of them are the prompt's."""
    end = closing(tokenizer)
    found, prompt_lengths = [], []
    for start in range(0, len(problems), BLOCK):
        numbers = range(start, min(start + BLOCK, len(problems)))
        texts = [_rendered(problems, number, tokenizer, end) for number in numbers]
        flat = encode_texts(tokenizer, [text for pair in texts for text in pair])
        for number, prompt, solution in zip(numbers, flat[::2], flat[1::2], strict=True):
            if (solution[:-1] == solution[-1]).any():
                raise ValueError(
                    f"the solution of problem {number} contains {end.marker!r}, its end"
                )
            found.append(np.concatenate([prompt, solution]))
            prompt_lengths.append(len(prompt))
    return found, np.array(prompt_lengths, np.int64)


def _rendered(
    problems: Problems, number: int, tokenizer: PreTrainedTokenizerFast, end: Closing
) -> tuple[str, str]:
    """An example as text: prompt, and what follows it up to the end marker."""
    prompt, solution = problems.prompts[number], problems.solutions[number]
    try:
        asked = render(tokenizer, prompt, generation=True)
        whole = render(
            tokenizer, [*prompt, {"role": "assistant", "content": solution}], generation=False
        )
    except ValueError as error:
        raise ValueError(f"problem {number}: {error}") from error
    if not whole.startswith(asked):
        raise ValueError(
            f"the chat template changes the prompt of problem {number} when the solution follows: "
            f"{asked[-40:]!r} is not in {whole[max(len(asked) - 60, 0) : len(asked) + 20]!r}"
        )
    after = end.marker + end.tail if end.written else end.tail
    said = whole[len(asked) : len(whole) - len(after)]
    if not whole.endswith(after) or solution.strip() not in said:
        raise ValueError(
            f"the chat template changes the solution of problem {number} or what ends it: "
            f"{solution[:40]!r} became {whole[len(asked) :][:60]!r}"
        )
    return asked, said + end.marker
