"""Files of an export: chats with their parts beside them, as JSON lines or Parquet."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from experiments.igsm.config import SYSTEM_PROMPT, Format, ProblemFile
from experiments.storage.results import ResultsError
from experiments.storage.writing import write_atomically
from synth.tasks import igsm

Row = dict[str, Any]
TEXT = pa.string()
SCHEMA = pa.schema(
    {
        "messages": pa.list_(pa.struct({"role": TEXT, "content": TEXT})),
        "problem": TEXT,
        "solution": TEXT,
        "answer": pa.int64(),
        "difficulty": pa.int64(),
        "index": pa.int64(),
    }
)


def chat(problem: str, solution: str, answer: int) -> list[dict[str, str]]:
    """The messages of one row: system prompt, problem, and solution with the boxed answer."""
    return [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": problem},
        {"role": "assistant", "content": f"{solution} So the final answer is \\boxed{{{answer}}}."},
    ]


def chat_row(problem: igsm.Problem, index: int) -> Row:
    """One problem as a row, with its position in its stream."""
    return {
        "messages": chat(problem.problem, problem.solution, problem.answer),
        "problem": problem.problem,
        "solution": problem.solution,
        "answer": int(problem.answer),
        "difficulty": int(problem.difficulty),
        "index": index,
    }


def fingerprint(problem: str) -> bytes:
    """Digest of a problem's sentences in any order."""
    sentences = sorted(sentence.strip() for sentence in re.split(r"(?<=[.?])\s+", problem.strip()))
    return hashlib.sha256("\n".join(sentences).encode()).digest()


def write_rows(path: Path, rows: Iterable[Row], form: Format) -> None:
    """Write a file of rows in one step: it is there whole or not at all."""

    def write_lines(temporary: Path) -> None:
        with open(temporary, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    def write_table(temporary: Path) -> None:
        parquet.write_table(pa.Table.from_pylist(list(rows), SCHEMA), temporary)

    write_atomically(path, write_lines if form == "jsonl" else write_table)


def read_rows(path: Path) -> list[Row]:
    """Rows of a file of either format.

    Raises:
      ResultsError: if it cannot be read.
    """
    try:
        if path.suffix == ".parquet":
            return parquet.read_table(path).to_pylist()
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise ResultsError(
            f"{path} cannot be read ({error}); delete it and repeat the command to make it anew"
        ) from error


def training_fingerprints(out: Path, files: Iterable[ProblemFile]) -> set[bytes]:
    """Fingerprints of every problem in the files for bases and fine-tuning."""
    return {
        fingerprint(row["problem"])
        for file in files
        if file.stream != "test"
        for row in read_rows(out / file.path)
    }
