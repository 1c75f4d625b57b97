"""Problems as tokens: first the prompt, as the model will see it, then the solution.

The loss counts on the solution and its end marker, or on all turns of the assistant and theirs.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np
from jaxtyping import Bool, Int
from rich.console import Console

from experiments.llm.problems.data import Problems
from experiments.llm.text.config import LossOn, OnLong
from experiments.llm.text.tokenizer import Closing, closing, encode_texts, has_thoughts, render
from experiments.llm.text.turns import assistant_turns
from synth.config import DecoderConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BLOCK = 1024
"""Number of examples that are tokenized at once."""


@dataclass(frozen=True)
class Report:
    """Numbers of examples that were kept, dropped and truncated.

    Attributes:
      read: number of examples that were encoded.
      dropped: numbers of those left out, by reason.
      truncated: number of those kept without the end of their solution.
      max_length: the most tokens that an example may have.
      longest: tokens of the longest example.
    """

    read: int
    dropped: Mapping[str, int]
    truncated: int
    max_length: int
    longest: int

    @property
    def kept(self) -> int:
        """Number of examples that are left."""
        return self.read - sum(self.dropped.values())

    def __str__(self) -> str:
        parts = [f"{self.kept:,} of {self.read:,} examples kept"]
        parts += [f"{number:,} dropped ({reason})" for reason, number in self.dropped.items()]
        if self.truncated:
            parts.append(f"{self.truncated:,} cut to {self.max_length:,} tokens")
        return f"{', '.join(parts)}; the longest has {self.longest:,} tokens"


@dataclass(frozen=True)
class Encoded:
    """Examples as tokens: prompt, solution, end marker.

    Attributes:
      tokens: token ids of each example.
      prompt_lengths: number of tokens before the solution of each example.
      rows: number of each example in the `Problems` that it comes from.
      report: on the examples that were dropped or truncated.
      tokens_cut: number of tokens that each example lost at its end; None for none.
      masks: which tokens of each example the loss counts; None for all after the prompt.
    """

    tokens: Sequence[Int[np.ndarray, " tokens"]]
    prompt_lengths: Int[np.ndarray, " examples"]
    rows: Int[np.ndarray, " examples"]
    report: Report
    tokens_cut: Int[np.ndarray, " examples"] | None = None
    masks: Sequence[Bool[np.ndarray, " tokens"]] | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> Int[np.ndarray, " examples"]:
        """Number of tokens of each example."""
        return np.array([len(tokens) for tokens in self.tokens], np.int64)

    def loss_mask(self, number: int) -> Bool[np.ndarray, " tokens"]:
        """Which tokens of an example the loss counts."""
        if self.masks is not None:
            return self.masks[number]
        return np.arange(len(self.tokens[number])) >= self.prompt_lengths[number]

    @property
    def solution_lengths(self) -> Int[np.ndarray, " examples"]:
        """Tokens of each solution before truncation, without end marker: the paper's CoT length."""
        cut = 0 if self.tokens_cut is None else self.tokens_cut
        return self.lengths + cut - self.prompt_lengths - 1

    def take(self, indices: Iterable[int]) -> Encoded:
        """Select examples by their numbers, in this order."""
        chosen = np.array([int(index) for index in indices], np.int64)
        return Encoded(
            tuple(self.tokens[index] for index in chosen),
            self.prompt_lengths[chosen],
            self.rows[chosen],
            self.report,
            None if self.tokens_cut is None else self.tokens_cut[chosen],
            None if self.masks is None else tuple(self.masks[index] for index in chosen),
        )


def encode(
    problems: Problems,
    tokenizer: PreTrainedTokenizerFast,
    *,
    max_length: int,
    on_long: OnLong = "error",
    loss_on: LossOn = "last",
) -> Encoded:
    """Tokenize problems and solutions for training.

    The prompt is tokenized by itself, as when a model is asked. The text that the chat template
    writes after it, up to the end marker, is tokenized as the solution. (A tokenizer that puts a
    space before every text, such as Llama 2's, also puts one before the solution.)

    Args:
      problems: the problems to encode.
      tokenizer: see `experiments.llm.text.tokenizer.load_tokenizer`.
      max_length: the most tokens of an example.
      on_long: treatment of longer examples: ``error``; ``drop``; or ``truncate``, which cuts the
        end of the solution with its end marker, and drops examples whose prompt leaves no room.
      loss_on: turns of the assistant that the loss counts, each with its end marker. With ``all``
        an earlier turn is tokenized by itself, as the solution is.

    Raises:
      ValueError: if an argument is out of range, if examples are too long and `on_long` is
        ``error``, if none is left, if a solution contains the end marker, or if the chat template
        refuses a problem or changes it or its solution (problems are counted from 0).

    Warns:
      UserWarning: with the report, if an example was dropped or truncated.
    """
    if max_length < 2:
        raise ValueError(f"max_length must be at least 2, got {max_length}")
    for name, value, kind in (("on_long", on_long, OnLong), ("loss_on", loss_on, LossOn)):
        if value not in get_args(kind):
            raise ValueError(f"{name} must be one of {get_args(kind)}, got {value!r}")
    # Tokenize all examples, and see which are too long.
    whole, prompt_lengths, masks = _tokens(problems, tokenizer, loss_on)
    lengths = np.array([len(tokens) for tokens in whole], np.int64)
    is_long = lengths > max_length
    if on_long == "error" and is_long.any():
        first = int(is_long.argmax())
        raise ValueError(
            f"examples must have at most max_length {max_length} tokens, but {is_long.sum()} of "
            f"{len(whole)} have more (the first, problem {first}, has {lengths[first]}); on_long "
            f"'drop' leaves them out, 'truncate' cuts their solutions"
        )
    # Decide which of them to drop; the others are truncated.
    reason = f"more than {max_length:,} tokens"
    is_dropped = is_long
    if on_long == "truncate":
        reason = f"{max_length:,} or more tokens of the prompt alone"
        is_dropped = np.array([not mask[:max_length].any() for mask in masks], bool)
    # Report, and keep the rest.
    kept = np.flatnonzero(~is_dropped)
    report = Report(
        read=len(whole),
        dropped={reason: int(is_dropped.sum())} if is_dropped.any() else {},
        truncated=int((is_long & ~is_dropped).sum()),
        max_length=max_length,
        longest=int(lengths.max(initial=0)),
    )
    if not len(kept):
        raise ValueError(f"no example is left to train on: {report}")
    if report.dropped or report.truncated:
        warnings.warn(f"{problems.name or 'problems'}: {report}", stacklevel=2)
    return Encoded(
        tuple(whole[number][:max_length] for number in kept),
        prompt_lengths[kept],
        kept,
        report,
        np.maximum(lengths[kept] - max_length, 0),
        tuple(masks[number][:max_length] for number in kept) if loss_on == "all" else None,
    )


def encode_within(
    problems: Problems,
    tokenizer: PreTrainedTokenizerFast,
    *,
    context: int,
    max_length: int,
    on_long: OnLong,
    console: Console,
    loss_on: LossOn = "last",
) -> Encoded:
    """`encode` for a model with a context of `context` tokens; the report goes to the console."""
    with warnings.catch_warnings():
        # The warning would repeat the report, which is printed in any case.
        warnings.simplefilter("ignore", UserWarning)
        most = min(max_length, context)
        encoded = encode(problems, tokenizer, max_length=most, on_long=on_long, loss_on=loss_on)
    console.print(f"{problems.name}: {encoded.report}", highlight=False)
    return encoded


def check_examples(encoded: Encoded, decoder: DecoderConfig) -> None:
    """Refuse examples that a decoder cannot read, before any work.

    Raises:
      ValueError: if there are no examples, or one is longer than the decoder's context or has a
        token beyond its vocabulary.
    """
    if not len(encoded):
        raise ValueError("encoded must hold examples, got none")
    lengths, context = encoded.lengths, decoder.max_positions
    if (long := lengths > context).any():
        raise ValueError(
            f"examples must fit into the context of the checkpoint, {context} tokens, but "
            f"{long.sum()} of {len(lengths)} are longer, the longest {lengths.max()}; the first is "
            f"row {encoded.rows[long.argmax()]}"
        )
    unknown = [
        row
        for row, tokens in zip(encoded.rows, encoded.tokens, strict=True)
        if tokens.max() >= decoder.vocab_size
    ]
    if unknown:
        raise ValueError(
            f"examples have tokens beyond the {decoder.vocab_size} of the checkpoint, the first in "
            f"row {unknown[0]}: does the tokenizer belong to it?"
        )


def _tokens(
    problems: Problems, tokenizer: PreTrainedTokenizerFast, loss_on: LossOn
) -> tuple[
    list[Int[np.ndarray, " tokens"]],
    Int[np.ndarray, " examples"],
    list[Bool[np.ndarray, " tokens"]],
]:
    """Tokens of every example, before any is truncated, its prompt's length, and its mask."""
    end = closing(tokenizer)
    whole, prompt_lengths, masks = [], [], []
    for start in range(0, len(problems), BLOCK):
        numbers = range(start, min(start + BLOCK, len(problems)))
        parts = [_parts(problems, number, tokenizer, end, loss_on) for number in numbers]
        # Prompts and solutions in turn, in one call: the tokenizer works in parallel.
        flat = iter(encode_texts(tokenizer, [text for each in parts for text, _ in each]))
        for number, each in zip(numbers, parts, strict=True):
            tokens = [next(flat) for _ in each]
            solution = tokens[-1]
            if (solution[:-1] == solution[-1]).any():
                raise ValueError(
                    f"the solution of problem {number} contains {end.marker!r}, its end"
                )
            whole.append(np.concatenate(tokens))
            prompt_lengths.append(len(whole[-1]) - len(solution))
            counts = [counts for _, counts in each]
            masks.append(np.repeat(counts, [len(part) for part in tokens]))
    return whole, np.array(prompt_lengths, np.int64), masks


def _parts(
    problems: Problems,
    number: int,
    tokenizer: PreTrainedTokenizerFast,
    end: Closing,
    loss_on: LossOn,
) -> list[tuple[str, bool]]:
    """Parts of an example's text in order, the solution last, and whether the loss counts each."""
    asked, solution = _rendered(problems, number, tokenizer, end)
    before = [(asked, False)]
    if loss_on == "all":
        try:
            turns = assistant_turns(asked, problems.prompts[number], tokenizer, end)
        except ValueError as error:
            raise ValueError(f"problem {number}: {error}") from error
        before = [(text, counts) for text, counts in turns if text]
    return [*before, (solution, True)]


def _rendered(
    problems: Problems, number: int, tokenizer: PreTrainedTokenizerFast, end: Closing
) -> tuple[str, str]:
    """Text of an example in two parts: the prompt, and the solution up to its end marker."""
    prompt, solution = problems.prompts[number], problems.solutions[number]
    chat, thinking = [*prompt, {"role": "assistant", "content": solution}], has_thoughts(solution)
    try:
        asked = render(tokenizer, prompt, generation=True, thinking=thinking)
        whole = render(tokenizer, chat, generation=False, thinking=thinking)
    except ValueError as error:
        raise ValueError(f"problem {number}: {error}") from error
    # The training text must continue the very prompt that is used in evaluation.
    if not whole.startswith(asked):
        raise ValueError(
            f"the chat template changes the prompt of problem {number} when the solution follows: "
            f"{asked[-40:]!r} is not in {whole[max(len(asked) - 60, 0) : len(asked) + 20]!r}"
        )
    # Take off the template's end, and see that the solution itself is unchanged.
    after = end.marker + end.tail if end.written else end.tail
    solved = whole[len(asked) : len(whole) - len(after)]
    if not whole.endswith(after) or solution.strip() not in solved:
        raise ValueError(
            f"the chat template changes the solution of problem {number} or what ends it: "
            f"{solution[:40]!r} became {whole[len(asked) :][:60]!r}"
        )
    return asked, solved + end.marker
