"""A slow, obvious reader of LLaMA-Factory's dataset_info.json, by its published rules.

The rules are those of data/README.md of https://github.com/hiyouga/LLaMA-Factory: names and
defaults of columns and tags, and for ``sharegpt`` an optional system turn, then turns of user and
assistant in alternation.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets

KEYS = {
    *("file_name", "formatting", "ranking", "subset", "split", "folder", "num_samples"),
    *("columns", "tags"),
}
COLUMNS = {
    "alpaca": {"prompt": "instruction", "query": "input", "response": "output"},
    "sharegpt": {"messages": "conversations"},
}
OPTIONAL = {"history", "system", "tools"}
TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
READERS = {".json": "json", ".jsonl": "json", ".parquet": "parquet"}


def read(folder: Path, name: str, cache: Path) -> list[dict[str, Any]]:
    """Read a described data set: for each row system, prompt (turns) and response."""
    entry = json.loads((folder / "dataset_info.json").read_text())[name]
    assert set(entry) <= KEYS
    form = entry.get("formatting", "alpaca")
    # Where columns are stated, those left out are none: the defaults count without any.
    columns = entry.get("columns", COLUMNS[form])
    assert set(columns) <= {*COLUMNS[form], *OPTIONAL}
    tags = entry.get("tags", TAGS)
    assert set(tags) <= set(TAGS)
    file = folder / entry["file_name"]
    rows: Any = datasets.load_dataset(
        READERS[file.suffix], data_files=[str(file)], split="train", cache_dir=str(cache)
    )
    convert = _alpaca if form == "alpaca" else _sharegpt
    return [convert(row, columns, tags) for row in rows]


def _alpaca(row: dict[str, Any], columns: dict[str, str], tags: dict[str, str]) -> dict[str, Any]:
    parts = [row[columns[part]] for part in ("prompt", "query") if part in columns]
    response = row[columns["response"]]
    assert isinstance(response, str)
    system = row[columns["system"]] if "system" in columns else ""
    return {"system": system, "prompt": ["\n".join(filter(None, parts))], "response": response}


def _sharegpt(row: dict[str, Any], columns: dict[str, str], tags: dict[str, str]) -> dict[str, Any]:
    turns, system = row[columns["messages"]], ""
    role, content = tags["role_tag"], tags["content_tag"]
    if turns[0][role] == tags["system_tag"]:
        system, turns = turns[0][content], turns[1:]
    assert len(turns) % 2 == 0
    for number, turn in enumerate(turns):
        assert turn[role] == tags["assistant_tag" if number % 2 else "user_tag"]
    *prompt, response = (turn[content] for turn in turns)
    return {"system": system, "prompt": prompt, "response": response}
