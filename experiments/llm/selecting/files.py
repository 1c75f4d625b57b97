"""Files of the chosen rows: as they were, as chats, and their description for LLaMA-Factory.

`write_rows` writes, in one folder::

    train.parquet, train.jsonl   the pool's own columns, with sweetspot_row and sweetspot_level
    chats.parquet                the same rows as the chats that are trained on
    dataset_info.json            these chats in LLaMA-Factory's schema (data/README.md of
                                 https://github.com/hiyouga/LLaMA-Factory)

TRL trains on the whole of a chat in `messages`, and on `completion` alone after a `prompt`: the
chats have all three columns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int
from pyarrow import parquet

from experiments.llm.problems.config import Source
from experiments.llm.problems.data import Problems, found_columns
from experiments.llm.problems.sources import Rows
from experiments.llm.selecting.commands import CHATS, DATASET
from experiments.llm.selecting.pool import Pool

ROW, LEVEL = "sweetspot_row", "sweetspot_level"
"""Columns that are added: number of the row in the pool, from 0, and its level."""

TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}
"""LLaMA-Factory's names for the parts of a chat in the form of OpenAI."""


def write_rows(folder: Path, pool: Pool, chosen: Int[np.ndarray, " chosen"]) -> None:
    """Write chosen rows of a pool in every form.

    Args:
      folder: an existing folder.
      pool: the problems.
      chosen: places of the chosen ones in its arrays, in the order of the files.

    Raises:
      ValueError: if the pool has a column that cannot be written or has the name of an added one.
    """
    table = pool.table
    if taken := sorted({ROW, LEVEL} & {*table.column_names}):
        raise ValueError(
            f"source must have no columns {taken}, which are added: name the data that it was "
            f"chosen from"
        )
    added = {ROW: pool.rows[chosen].tolist(), LEVEL: pool.levels[chosen].tolist()}
    columns = {name: [table[name][row] for row in added[ROW]] for name in table.column_names}
    parquet.write_table(_table(columns | added), folder / "train.parquet")
    _write_jsonl(folder / "train.jsonl", columns | added)
    chats = _chats(pool.problems, added[ROW]) | added
    parquet.write_table(_table(chats), folder / f"{CHATS}.parquet")
    described = json.dumps(_described(pool.source, table), indent=1, ensure_ascii=False)
    (folder / "dataset_info.json").write_text(described + "\n", encoding="utf-8")


def _table(columns: dict[str, list[Any]]) -> pa.Table:
    """A table of Arrow; errors name the column."""
    arrays = {}
    for name, cells in columns.items():
        try:
            arrays[name] = pa.array(cells)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise ValueError(f"column {name!r} cannot be written as Parquet: {error}") from error
    return pa.table(arrays)


def _write_jsonl(path: Path, columns: dict[str, list[Any]]) -> None:
    """Write an object a line."""
    with path.open("w", encoding="utf-8") as file:
        for cells in zip(*columns.values(), strict=True):
            row = {name: _json(name, cell) for name, cell in zip(columns, cells, strict=True)}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _json(name: str, cell: Any) -> Any:
    """A cell as JSON: missing numbers are null, dates and decimal numbers are text."""
    match cell:
        case dict():
            return {key: _json(name, value) for key, value in cell.items()}
        case list():
            return [_json(name, value) for value in cell]
        case float() if not math.isfinite(cell):
            return None
        case str() | int() | float() | None:
            return cell
        case date() | time() | Decimal():
            return str(cell)
    raise ValueError(f"column {name!r} cannot be written as JSON: it holds {type(cell).__name__}")


def _chats(problems: Problems, rows: Sequence[int]) -> dict[str, list[Any]]:
    """The chats that are trained on: whole, and split where the loss begins."""
    prompts = [[dict(turn) for turn in problems.prompts[row]] for row in rows]
    completions = [[{"role": "assistant", "content": problems.solutions[row]}] for row in rows]
    messages = [
        prompt + completion for prompt, completion in zip(prompts, completions, strict=True)
    ]
    return {"messages": messages, "prompt": prompts, "completion": completions}


def _described(source: Source, table: Rows) -> dict[str, Any]:
    """LLaMA-Factory's description: the chats, and the pool's own columns where they are texts."""
    described: dict[str, Any] = {
        DATASET: {
            "file_name": f"{CHATS}.parquet",
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": TAGS,
        }
    }
    found = found_columns(table, source.columns)
    response = found.get("solution", found.get("answer"))
    if "messages" in found or "choices" in found or response is None:
        return described
    if all(isinstance(cell, str) for name in (found["problem"], response) for cell in table[name]):
        # Without the system prompt, which is no column.
        described[f"{DATASET}_columns"] = {
            "file_name": "train.parquet",
            "formatting": "alpaca",
            "columns": {"prompt": found["problem"], "response": response},
        }
    return described
