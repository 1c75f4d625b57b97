"""Measures of the difficulty of problems, as a table with one row a problem.

``op`` is the level that the data set states. ``cot_tokens`` is the paper's measure: the length of
the reference solution in tokens of the model's tokenizer. ``pass_rate`` is the share of the base's
samples that the grader accepts, and ``perplexity`` is how unlikely the reference solution is under
the base. These two are relative to the base, and only they need the model's weights. Other measures
are made of columns of the data set, see `experiments.llm.difficulty.scales`.

The table is used by `experiments.llm.difficulty.buckets` and
`experiments.llm.difficulty.agreement`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich.console import Console

from experiments.engine.progress import console as default_console
from experiments.engine.progress import counting
from experiments.llm.answering.config import SAMPLED, DecodingConfig
from experiments.llm.answering.evaluate import evaluate
from experiments.llm.answering.kept import Kept
from experiments.llm.answering.model import Model
from experiments.llm.answering.perplexity import perplexities
from experiments.llm.difficulty.columns import column_values
from experiments.llm.difficulty.scales import ACCEPTED, Measure, is_measure, of_columns
from experiments.llm.problems.config import GraderConfig
from experiments.llm.problems.data import Problems
from experiments.llm.text.encoding import check_examples, encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

OF_MODEL: tuple[Measure, ...] = ("pass_rate", "perplexity")
"""Measures that need the model's weights."""

MANY_CUT = 0.05
"""Share of truncated samples above which a message warns of them."""


def measure(
    model: Model | PreTrainedTokenizerFast,
    problems: Problems,
    *,
    measures: Sequence[Measure],
    grader: GraderConfig = GraderConfig(),  # noqa: B008 (frozen)
    decoding: DecodingConfig = SAMPLED,
    kept: Kept | None = None,
    fitted_to: Problems | None = None,
    batch_tokens: int = 16_384,
    console: Console = default_console,
) -> pd.DataFrame:
    """Measure how difficult problems are.

    Args:
      model: the base; its tokenizer alone is enough for ``op`` and ``cot_tokens``.
      problems: must have what the grader needs, if the pass rate is measured, and the columns that
        measures are made of.
      measures: measures of the table; ``op`` is always in it if the data set states it.
      grader: grading of the samples of a pass rate.
      decoding: decoding of these samples.
      kept: file that keeps the samples as they end, see `experiments.llm.answering.decoding`.
      fitted_to: see `experiments.llm.difficulty.columns.column_values`.
      batch_tokens: tokens of a batch for the perplexity.
      console: shows the progress.

    Returns:
      One row a problem: row (from 0), each measure, and with the pass rate also samples (their
      number) and share_truncated (the share of them that were cut off).

    Raises:
      ImportError, ValueError: before any decoding, if there are no problems, a measure is unknown,
        needs a model where there is only a tokenizer, or is ``op`` and never stated; and see
        `encode`, `experiments.llm.text.encoding.check_examples` and
        `experiments.llm.answering.evaluate.evaluate`.
    """
    _check(model, problems, measures)
    # Measures that need no model.
    samples = decoding.samples
    table = pd.DataFrame({"row": np.arange(len(problems))})
    if any(op is not None for op in problems.ops):
        table["op"] = pd.array(list(problems.ops), dtype="Int64")
    for name in (each for each in measures if of_columns(each)):
        table[name] = column_values(name, problems, fitted_to=fitted_to)
    encoded = None
    if {"cot_tokens", "perplexity"} & set(measures):
        tokenizer = model.tokenizer if isinstance(model, Model) else model
        encoded = encode(problems, tokenizer, max_length=sys.maxsize)
    if encoded is not None and "cot_tokens" in measures:
        table["cot_tokens"] = encoded.solution_lengths
    if not isinstance(model, Model):
        return table
    if encoded is not None and "perplexity" in measures:
        check_examples(encoded, model.decoder)
    # Measures by the model.
    if "pass_rate" in measures:
        with counting("pass rate", len(problems) * samples, "responses", on=console) as advance:
            evaluation = evaluate(
                model,
                problems,
                decoding=decoding,
                grader=grader,
                kept=kept,
                advance=advance,
            )
        responses = evaluation.responses.sort_values(["row", "sample"])
        for name, column in (("pass_rate", "correct"), ("share_truncated", "truncated")):
            each = responses[column].to_numpy(bool).reshape(len(problems), samples)
            table[name] = each.mean(axis=1)
        table["samples"] = samples
    if encoded is not None and "perplexity" in measures:
        with counting("perplexity", len(problems), "solutions", on=console) as advance:
            table["perplexity"] = perplexities(
                model.decoder,
                model.parameters,
                encoded,
                mesh=model.mesh,
                batch_tokens=batch_tokens,
                advance=advance,
            )
    _tell_cut(table, decoding, console)
    return table


def _check(model: Any, problems: Problems, measures: Sequence[Measure]) -> None:
    if not measures or not all(map(is_measure, measures)):
        raise ValueError(f"measures must be some of {ACCEPTED}, got {list(measures)}")
    if not len(problems):
        raise ValueError(f"problems must have at least one row, got none in {problems.name!r}")
    if "op" in measures and not any(op is not None for op in problems.ops):
        raise ValueError(
            f"measure 'op' must be stated by the data set, but {problems.name!r} has no column of "
            f"whole numbers op or difficulty (column:NAME takes any column of numbers)"
        )
    needing = [name for name in measures if name in OF_MODEL]
    if needing and not isinstance(model, Model):
        raise ValueError(f"measures {needing} need a model, got {type(model).__name__}")


def _tell_cut(table: pd.DataFrame, decoding: DecodingConfig, console: Console) -> None:
    """Warn if many samples were cut off: the pass rate then measures length, not difficulty."""
    if "share_truncated" not in table:
        return
    cut = float(table["share_truncated"].to_numpy().mean())
    if cut > MANY_CUT:
        console.print(
            f"{cut:.0%} of the samples reached max_new_tokens {decoding.max_new_tokens} "
            f"and were cut: the pass rate calls long solutions hard for that alone.",
            style="yellow",
        )
