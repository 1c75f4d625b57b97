"""Problems as a Parquet table, which `experiments.llm.problems.data.read` reads back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from experiments.llm.problems.data import Problems
from experiments.storage.results import write_atomically


def write_problems(problems: Problems, path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write problems as chats with answers and stated levels.

    Args:
      problems: what to write.
      path: the file.
      columns: more columns by name, one value a problem.
    """
    chats = [
        [*prompt, {"role": "assistant", "content": solution}]
        for prompt, solution in zip(problems.prompts, problems.solutions, strict=True)
    ]
    table = {"messages": chats, "answer": list(problems.answers)}
    if any(op is not None for op in problems.ops):
        table["difficulty"] = list(problems.ops)
    written = pa.table(table | dict(columns))
    write_atomically(path, lambda temporary: parquet.write_table(written, temporary))
