"""Examples for one checkpoint: all problems that fit it, or those of one fine-tuning."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from experiments.engine.progress import console
from experiments.llm.problems.config import Source
from experiments.llm.problems.data import Problems, read_source, write_problems
from experiments.llm.text.config import LossOn, OnLong
from experiments.llm.text.encoding import Encoded, encode_within
from experiments.llm.text.loader import nested
from experiments.llm.text.tokenizer import load_tokenizer
from experiments.storage import checkpoint
from experiments.storage.writing import write_json


def encode_for(
    model: str,
    problems: Problems,
    rows: Sequence[int] | Int[np.ndarray, " rows"],
    *,
    max_length: int,
    on_long: OnLong,
    loss_on: LossOn = "last",
) -> Encoded:
    """Encode rows of problems for a checkpoint, see `encode_within`; keeps their numbers."""
    encoded = encode_within(
        problems.take(rows),
        load_tokenizer(model),
        context=checkpoint.read_config(model).max_positions,
        max_length=max_length,
        on_long=on_long,
        console=console,
        loss_on=loss_on,
    )
    return dataclasses.replace(encoded, rows=np.asarray(rows)[encoded.rows])


def training_examples(
    model: str,
    problems: Problems,
    *,
    difficulty: int | None,
    data_size: int | None,
    seed: int,
    max_length: int,
    on_long: OnLong,
    loss_on: LossOn = "last",
) -> Encoded:
    """Encode the problems that a checkpoint is fine-tuned on.

    Args:
      model: folder or hub id of the checkpoint.
      problems: problems to choose from.
      difficulty: stated level of the chosen problems; None for all levels.
      data_size: number of examples, the first in an order that `seed` shuffles; None for all.
      seed: of that order.
      max_length, on_long, loss_on: see `experiments.llm.text.encoding.encode`.

    Raises:
      ValueError: if no problem states that difficulty, or there are fewer than `data_size`.
    """
    rows = [row for row, op in enumerate(problems.ops) if difficulty in (None, op)]
    if difficulty is not None and not rows:
        stated = sorted({op for op in problems.ops if op is not None})
        raise ValueError(f"difficulty must be one of those stated, {stated}, got {difficulty}")
    encoded = encode_for(
        model, problems, rows, max_length=max_length, on_long=on_long, loss_on=loss_on
    )
    if data_size is None:
        return encoded
    numbers = np.arange(len(encoded))
    return encoded.take(nested(numbers, data_size, seed=seed, stream=f"exact {difficulty}"))


def held_out(encoded: Encoded, share: float, *, seed: int) -> tuple[Encoded, Encoded]:
    """Split examples into those to train on and those of a validation loss, both in their order.

    Args:
      encoded: the examples.
      share: of the examples that is held out, in (0, 1); at least one is.
      seed: of the choice.

    Raises:
      ValueError: if none would be left to train on.
    """
    number = max(1, round(share * len(encoded)))
    if number >= len(encoded):
        raise ValueError(
            f"validation_share must leave examples to train on, got {share:g} of {len(encoded)}"
        )
    is_out = np.zeros(len(encoded), bool)
    is_out[nested(np.arange(len(encoded)), number, seed=seed, stream="validation")] = True
    return encoded.take(np.flatnonzero(~is_out)), encoded.take(np.flatnonzero(is_out))


def num_shared(first: Encoded, second: Encoded) -> int:
    """Number of examples of the first that the second has too, token for token."""
    known = {tokens.tobytes() for tokens in second.tokens}
    return sum(tokens.tobytes() in known for tokens in first.tokens)


def prepare(
    model: str,
    source: Source,
    out: Path,
    *,
    max_length: int,
    on_long: OnLong,
    keep: Collection[str] = (),
) -> dict[str, Any]:
    """Check a data set against a checkpoint's tokenizer, and write it anew with its lengths.

    Writes OUT/problems.parquet, with the columns cot_tokens, prompt_tokens and those of numbers in
    `keep`, and OUT/report.json.

    Returns:
      The report: model, data, counts of examples read, dropped and truncated, number of problems
      of each stated difficulty, and tokens in all, of solutions and of prompts.
    """
    problems = read_source(source, numbers=keep)
    encoded = encode_for(
        model, problems, range(len(problems)), max_length=max_length, on_long=on_long
    )
    kept = problems.take(encoded.rows)
    solutions, prompts = encoded.solution_lengths, encoded.prompt_lengths
    columns = {"cot_tokens": solutions.tolist(), "prompt_tokens": prompts.tolist()}
    write_problems(kept, out / "problems.parquet", columns)
    levels = Counter(op for op in kept.ops if op is not None)
    report = {
        "model": model,
        "data": dataclasses.asdict(source),
        **dataclasses.asdict(encoded.report),
        "difficulties": {str(level): levels[level] for level in sorted(levels)},
        "tokens": int(encoded.lengths.sum()),
        "solution_tokens": _spread(solutions),
        "prompt_tokens": _spread(prompts),
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
