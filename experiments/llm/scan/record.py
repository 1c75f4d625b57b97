"""Keep a finished scan as a recorded result: tables, manifest, and a sample of the answers.

What is kept is small and holds no weights, and all figures and words of the documents are made of
it. The sample has the answers of the base, and of every cell of the first seed at the largest data
size, to the first problems of each test level.

Command::

    python -m experiments.llm.scan.record runs/smollm2-igsm-cpu experiments/results/smollm2-igsm
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import tyro

from experiments.llm.scan.answers import ANSWERS
from experiments.storage.results import MANIFEST, read_finished, read_parquet
from experiments.storage.writing import write_atomically

RESPONSES = "responses.jsonl"


def record(
    run: tyro.conf.Positional[Path], out: tyro.conf.Positional[Path], problems: int = 3
) -> None:
    """Copy what is kept of a scan.

    Args:
      run: directory of a finished scan.
      out: folder of the record; files of an earlier record are replaced.
      problems: problems of each test level whose answers are kept.

    Raises:
      ResultsError: if the scan is not finished.
    """
    manifest = read_finished(run)
    out.mkdir(parents=True, exist_ok=True)
    for name in (MANIFEST, "table.parquet", ANSWERS):
        shutil.copy(run / name, out / name)
    lines = [
        json.dumps(row)
        for model in _shown(manifest)
        if (path := run / "responses" / f"{model}.parquet").is_file()
        for row in _sample(read_parquet(path), model, problems)
    ]
    text = "".join(f"{line}\n" for line in lines)
    write_atomically(out / RESPONSES, lambda path: path.write_text(text, encoding="utf-8"))


def _shown(manifest: Mapping[str, Any]) -> list[str]:
    """Names of the base and of the members whose answers are kept."""
    names = [chunk["name"] for chunk in manifest["chunks"]]
    largest = str(manifest["config"]["data_sizes"][-1])
    # A name is seed, selection, difficulty, data size, loss and rate.
    fields = {name: name.split("_") for name in names}
    return [
        "base",
        *(name for name in names if fields[name][0] == "0" and fields[name][3] == largest),
    ]


def _sample(responses: pd.DataFrame, model: str, problems: int) -> list[dict[str, Any]]:
    """Rows of the first problems of each level."""
    first = responses.groupby("slice").head(problems)
    return [
        {
            "model": model,
            "problem": int(row["row"]),
            "slice": int(row["slice"]),
            "response": row["response"],
            "correct": bool(row["correct"]),
        }
        for row in first.to_dict("records")
    ]


if __name__ == "__main__":
    tyro.cli(record)
