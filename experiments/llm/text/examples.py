"""Problems as examples for one checkpoint: all that fit it, or those of one fine-tuning."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from experiments.engine.progress import console
from experiments.llm.problems.config import Source
from experiments.llm.problems.data import Problems
from experiments.llm.problems.table import write_problems
from experiments.llm.text.config import OnLong
from experiments.llm.text.encoding import Encoded, encode_within
from experiments.llm.text.loader import nested
from experiments.llm.text.tokenizer import load_tokenizer
from experiments.storage import checkpoint
from experiments.storage.results import write_json


def encode_for(
    model: checkpoint.PathLike,
    problems: Problems,
    rows: Sequence[int] | Int[np.ndarray, " rows"] | None = None,
    *,
    max_length: int,
    on_long: OnLong,
) -> Encoded:
    """Encode problems with a checkpoint's tokenizer, within its context.

    Args:
      model: the checkpoint.
      problems: what `Encoded.rows` numbers.
      rows: which of them are encoded; default all.
      max_length, on_long: see `experiments.llm.text.encoding.encode_within`.

    Raises:
      FileNotFoundError, ImportError, ValueError: if the checkpoint or a problem cannot be used.
    """
    chosen = np.arange(len(problems)) if rows is None else np.asarray(rows, int)
    encoded = encode_within(
        problems.take(chosen),
        load_tokenizer(model),
        context=checkpoint.read_config(model).max_positions,
        max_length=max_length,
        on_long=on_long,
        console=console,
    )
    return dataclasses.replace(encoded, rows=chosen[encoded.rows])


def training_examples(
    model: checkpoint.PathLike,
    problems: Problems,
    *,
    difficulty: int | None,
    data_size: int | None,
    seed: int,
    max_length: int,
    on_long: OnLong,
) -> Encoded:
    """Encode the problems of a fine-tuning.

    Args:
      model: the checkpoint.
      problems: what to choose from.
      difficulty: stated level of those that are trained on; None for all.
      data_size: how many, the first of an order that `seed` shuffles; None for all.
      seed: of that order.
      max_length, on_long: see `experiments.llm.text.encoding.encode_within`.

    Raises:
      ValueError: if no problem states that difficulty, or there are fewer than `data_size`; and
        see `encode_for`.
    """
    rows = None
    if difficulty is not None:
        rows = [row for row, op in enumerate(problems.ops) if op == difficulty]
        if not rows:
            stated = sorted({op for op in problems.ops if op is not None})
            raise ValueError(f"difficulty must be one of those stated, {stated}, got {difficulty}")
    encoded = encode_for(model, problems, rows, max_length=max_length, on_long=on_long)
    if data_size is None:
        return encoded
    numbers = np.arange(len(encoded))
    return encoded.take(nested(numbers, data_size, seed=seed, stream=f"exact {difficulty}"))


def prepare(
    model: str,
    source: Source,
    out: Path,
    *,
    max_length: int,
    on_long: OnLong,
) -> dict[str, Any]:
    """Check a data set against a checkpoint's tokenizer, and write it anew with its lengths.

    Writes OUT/problems.parquet, with the columns cot_tokens and prompt_tokens, and OUT/report.json.

    Args:
      model: the checkpoint.
      source: where the problems are.
      out: directory of the result.
      max_length, on_long: see `experiments.llm.text.encoding.encode_within`.

    Returns:
      The report: model, data, counts of examples read, dropped and truncated, how many problems
      state each difficulty, and tokens in all, of solutions and of prompts.

    Raises:
      FileNotFoundError, ImportError, ValueError: if the checkpoint or the data cannot be used.
    """
    problems = source.read()
    encoded = encode_for(model, problems, max_length=max_length, on_long=on_long)
    kept = problems.take(encoded.rows)
    lengths = {"cot_tokens": encoded.solution_lengths, "prompt_tokens": encoded.prompt_lengths}
    write_problems(
        kept, out / "problems.parquet", {name: each.tolist() for name, each in lengths.items()}
    )
    levels = Counter(op for op in kept.ops if op is not None)
    report = {
        "model": model,
        "data": dataclasses.asdict(source),
        **dataclasses.asdict(encoded.report),
        "difficulties": {str(level): levels[level] for level in sorted(levels)},
        "tokens": int(encoded.lengths.sum()),
        "solution_tokens": _spread(encoded.solution_lengths),
        "prompt_tokens": _spread(encoded.prompt_lengths),
    }
    write_json(out / "report.json", report)
    return report


def _spread(values: Int[np.ndarray, " examples"]) -> dict[str, float]:
    """Least, median, mean and greatest of some lengths."""
    return {
        "least": float(values.min()),
        "median": float(np.median(values)),
        "mean": round(float(values.mean()), 1),
        "most": float(values.max()),
    }
