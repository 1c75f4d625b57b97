"""Evaluation of a model on problems: ask, grade the responses, compute the pass rate by slice.

A response is decoded from the chat template's opening of the assistant's turn up to a stop token,
see `experiments.llm.answering.decoding`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from experiments.llm.answering.config import DecodingConfig
from experiments.llm.answering.decoding import continuations, ignore
from experiments.llm.answering.kept import Continuation, Kept
from experiments.llm.answering.model import Model
from experiments.llm.answering.pass_rates import summarise
from experiments.llm.problems.config import GraderConfig
from experiments.llm.problems.data import Message
from experiments.llm.problems.grade import grade, references
from experiments.llm.text.tokenizer import decode_tokens, prompt_tokens

if TYPE_CHECKING:
    from experiments.llm.problems.data import Problems


@dataclass(frozen=True)
class Responses:
    """Responses of a model to problems.

    Attributes:
      texts: for each problem its samples, without special tokens.
      num_tokens: tokens of each, without the stop token.
      truncated: true for those that did not end within `DecodingConfig.max_new_tokens`.
    """

    texts: list[list[str]]
    num_tokens: Int[np.ndarray, "problems samples"]
    truncated: Bool[np.ndarray, "problems samples"]


def decode(
    model: Model,
    prompts: Sequence[Sequence[Message]],
    config: DecodingConfig,
    *,
    kept: Kept | None = None,
    advance: Callable[[int], object] = ignore,
) -> Responses:
    """Let a model answer chats.

    Args:
      model: the model that answers.
      prompts: chats that end with a user's turn.
      config: of the decoding.
      kept: see `continuations`.
      advance: called with the number of responses that are done since the last call.

    Raises:
      ValueError: before any decoding; see `continuations` and `prompt_tokens`.
    """
    tokens = [
        prompt_tokens(model.tokenizer, prompt, thinking=config.thinking) for prompt in prompts
    ]
    decoded = continuations(model, tokens, config, kept=kept, advance=advance)
    shape = (len(decoded), config.samples)
    every = [continuation for samples in decoded for continuation in samples]
    return Responses(
        [[text_of(model, continuation) for continuation in samples] for samples in decoded],
        np.array([len(continuation.tokens) for continuation in every], int).reshape(shape),
        np.array([continuation.truncated for continuation in every], bool).reshape(shape),
    )


def text_of(model: Model, continuation: Continuation) -> str:
    """Text of a continuation, without special tokens."""
    return decode_tokens(model.tokenizer, continuation.tokens.tolist())


@dataclass(frozen=True)
class Evaluation:
    """Graded responses of a model, and its pass rates.

    Attributes:
      table: one row a slice, see `experiments.llm.answering.pass_rates.summarise`.
      responses: one row a response: row (of the problem, from 0), slice, sample, response, correct,
        truncated, num_tokens.
    """

    table: pd.DataFrame
    responses: pd.DataFrame


def evaluate(
    model: Model,
    problems: Problems,
    *,
    decoding: DecodingConfig = DecodingConfig(),  # noqa: B008 (frozen)
    grader: GraderConfig = GraderConfig(),  # noqa: B008 (frozen)
    slices: Sequence[int] | Int[np.ndarray, " problems"] | None = None,
    kept: Kept | None = None,
    advance: Callable[[int], object] = ignore,
) -> Evaluation:
    """Ask every problem and grade the responses.

    Args:
      model: the model that answers.
      problems: must have what the grader needs.
      decoding: settings of the responses.
      grader: settings of the grading.
      slices: difficulty of each problem; None for a single slice, whose number is missing.
      kept: see `continuations`.
      advance: called with the number of responses that are done since the last call.

    Raises:
      ImportError, ValueError: before any decoding, if there are no problems, if slices do not fit
        them, if one lacks what the grader needs (see `experiments.llm.problems.grade.references`),
        or if it cannot be decoded (see `continuations`).
    """
    if not len(problems):
        raise ValueError(f"problems must have at least one row, got none in {problems.name!r}")
    if slices is not None and len(slices) != len(problems):
        raise ValueError(
            f"slices must be one for each of {len(problems)} problems, got {len(slices)}"
        )
    # Problems that the grader cannot use are refused before the first of them is asked.
    references(problems, grader)
    answers = decode(model, problems.prompts, decoding, kept=kept, advance=advance)
    correct = grade(problems, answers.texts, grader)
    # One row a response, and the pass rates of each slice.
    rows, samples = np.indices(correct.shape)
    levels = pd.array([pd.NA] * len(problems) if slices is None else list(slices), dtype="Int64")
    responses = pd.DataFrame(
        {
            "row": rows.ravel(),
            "slice": levels.take(rows.ravel()),
            "sample": samples.ravel(),
            "response": [text for texts in answers.texts for text in texts],
            "correct": correct.ravel(),
            "truncated": answers.truncated.ravel(),
            "num_tokens": answers.num_tokens.ravel(),
        }
    )
    return Evaluation(summarise(responses), responses)
