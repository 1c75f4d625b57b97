"""Read a data set, and leave out the problems that a checkpoint was trained on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from experiments.engine.progress import console
from experiments.llm.problems.config import Source
from experiments.llm.problems.data import Problems
from experiments.llm.text.encoding import Encoded
from experiments.llm.text.examples import encode_for
from experiments.storage.results import read_manifest, stated


def unseen_samples(
    model: str, source: Source, problems: Problems, *, trained_by: Path | None, max_length: int
) -> tuple[dict[int, Encoded], list[int]]:
    """Encode the problems that a checkpoint was not trained on.

    Args:
      model: folder or hub id of the checkpoint.
      source, problems: the data set, and its problems.
      trained_by: directory of the fine-tuning that made the checkpoint. By default the folder that
        the checkpoint is in, if that is a fine-tuning on the same problems.
      max_length: tokens of an example at most; longer ones are left out.

    Returns:
      A sample for each stated difficulty (0 for problems that state none), whose `rows` are those
      of `problems`, and the rows that the checkpoint was trained on.

    Raises:
      ResultsError: if `trained_by` is not a run.
      ValueError: if it is not a fine-tuning on these problems, or no problem is left; and see
        `experiments.llm.text.examples.encode_for`.
    """
    run = trained_by or Path(model).parent
    rows_trained_on = _rows_trained_on(run, source, is_named=trained_by is not None)
    if rows_trained_on is not None:
        console.print(f"{len(rows_trained_on)} problems that it was trained on are left out.")
    rows = np.setdiff1d(np.arange(len(problems)), rows_trained_on or [])
    if not len(rows):
        raise ValueError(f"source must hold problems beside those that {run} trained on")
    encoded = encode_for(model, problems, rows, max_length=max_length, on_long="drop")
    levels = np.array([problems.ops[row] or 0 for row in encoded.rows])
    samples = {
        int(level): encoded.take(np.flatnonzero(levels == level)) for level in np.unique(levels)
    }
    return samples, rows_trained_on or []


def _rows_trained_on(run: Path, source: Source, *, is_named: bool) -> list[int] | None:
    """Return the rows that a fine-tuning trained on, or looked at to choose the state it kept.

    None if `run` was only guessed and is no fine-tuning on these problems.
    """
    if not is_named and not (run / "manifest.json").is_file():
        return None
    manifest = read_manifest(run)
    asked = json.loads(json.dumps(dataclasses.asdict(source)))
    if manifest.get("source") == asked:
        watched = manifest.get("validation") or {}
        return stated(manifest, run, "rows") + (
            watched["rows"] if watched.get("source") == asked else []
        )
    if not is_named:
        return None
    raise ValueError(
        f"trained_by must be a fine-tuning on the same problems, {source}, got one on "
        f"{manifest.get('source')}"
    )
