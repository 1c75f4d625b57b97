"""Levels of a scan's problems, and the problems of every cell."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jax.sharding import Mesh
from jaxtyping import Int

from experiments.engine.progress import console
from experiments.llm.answering.decoding import check_prompts, kept_of
from experiments.llm.answering.model import Model
from experiments.llm.difficulty.buckets import Buckets, levels
from experiments.llm.difficulty.measures import measure
from experiments.llm.difficulty.scales import needed_columns
from experiments.llm.difficulty.selection import selected
from experiments.llm.problems.data import Problems
from experiments.llm.scan.data import ScanProblems
from experiments.llm.scan.grid import Member
from experiments.llm.text.loader import nested
from experiments.llm.text.tokenizer import prompt_tokens
from experiments.storage.results import read_parquet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MEASURES_FILE = "measures.parquet"
Measures = dict[str, pd.DataFrame]
"""The scan's measure of its training and test problems: ``train`` and ``test``, a row a problem. A
test whose data set lacks the measure's columns has no column for it."""

ONE_SLICE = 0
"""Level of all problems of a test whose data set lacks the measure: none of the buckets."""


def measure_problems(
    problems: ScanProblems, model: Model | PreTrainedTokenizerFast, *, keep: Path | None = None
) -> Measures:
    """Measure training and test problems.

    Args:
      problems: the scan's.
      model: the base; its tokenizer is enough if the measure needs no answers.
      keep: directory in which each answer of the base is kept once it is complete.
    """
    config = problems.config
    streams = {"train": problems.train, "test": problems.test}
    unmeasured = {}
    if set(needed_columns(config.measure)) - set(problems.test.columns):
        unmeasured = {"test": pd.DataFrame({"row": np.arange(len(streams.pop("test")))})}
    with contextlib.ExitStack() as stack:
        kept = None
        if keep is not None and isinstance(model, Model) and config.measure == "pass_rate":
            kept = stack.enter_context(kept_of(keep, model, config.sampled))
        found = {
            stream: measure(
                model,
                measured,
                measures=(config.measure,),
                grader=config.grader,
                decoding=config.sampled,
                kept=kept,
                fitted_to=problems.train,
                console=console,
            )
            for stream, measured in streams.items()
        }
    return found | unmeasured


def read_measures(directory: Path) -> Measures:
    """Read the measures from a scan's directory."""
    kept = read_parquet(directory / MEASURES_FILE)
    return {stream: kept.loc[kept["part"] == stream] for stream in ("train", "test")}


@dataclass(frozen=True)
class Levels:
    """Levels of a scan's problems.

    Attributes:
      problems: the scan's.
      train_levels, test_levels: difficulty of each training and each test problem.
      test_rows: rows of the test problems in use: the first of each level.
      buckets: buckets that the measures were cut into; None if levels are stated.
    """

    problems: ScanProblems
    train_levels: Int[np.ndarray, " problems"]
    test_levels: Int[np.ndarray, " tests"]
    test_rows: Int[np.ndarray, " used"]
    buckets: Buckets | None

    @classmethod
    def cut(cls, problems: ScanProblems, measures: Measures) -> Levels:
        """Give every problem its level.

        Raises:
          ValueError: if there are too few problems for the buckets, or the test lacks a level that
            the base has to know.
        """
        config, buckets = problems.config, None
        if config.measure != "op":
            values = measures["train"][config.measure]
            number, edges = config.buckets, config.edges
            buckets = Buckets.cut(config.measure, values, number, edges, config.harder)
        # A benchmark need not have problems of every level, nor the measure.
        test = np.full(len(measures["test"]), ONE_SLICE)
        if config.measure in measures["test"]:
            test = levels(measures["test"], buckets, least=0)
        stated = np.unique(test)
        if missing := sorted(set(config.base.levels) - set(stated.tolist())):
            raise ValueError(
                f"base.levels must be levels of the test, {stated.tolist()}, got {missing}"
            )
        most = config.test_examples or len(test)
        rows = np.concatenate([np.flatnonzero(test == level)[:most] for level in stated])
        return cls(problems, levels(measures["train"], buckets), test, rows, buckets)

    def record(self) -> dict[str, Any]:
        """Fields of the manifest: problems of each level, report of the encoding, and buckets."""
        counts = {
            stream: dict(zip(map(str, values.tolist()), number.tolist(), strict=True))
            for stream, each in (
                ("train", self.train_levels),
                ("test", self.test_levels[self.test_rows]),
            )
            for values, number in [np.unique(each, return_counts=True)]
        }
        fields = {"levels": counts, "report": dataclasses.asdict(self.problems.encoded.report)}
        if self.buckets is not None:
            words = self.buckets.describe()
            fields |= {"buckets": dataclasses.asdict(self.buckets), "buckets_in_words": words}
        return fields

    def check_members(self, mesh: Mesh | None) -> None:
        """Check that every cell has enough problems, and that every prompt can be asked.

        Raises:
          ValueError: if a cell has too few, or a prompt leaves no room for an answer.
        """
        problems, config = self.problems, self.problems.config
        asked: set[int] = set()
        for member in config.members:
            trained_on, fresh = self.rows(member)
            asked.update(trained_on[: config.risk_examples].tolist(), fresh.tolist())
        thinking = config.decoding.thinking
        # Prompts of the test, then of the training problems whose risk is measured.
        prompts = [
            prompt_tokens(problems.tokenizer, problems.test.prompts[row], thinking=thinking)
            for row in self.test_rows
        ]
        self._check_prompts(problems.test, prompts, mesh)
        encoded = problems.encoded.take(sorted(asked))
        parts = zip(encoded.tokens, encoded.prompt_lengths, strict=True)
        prompts = [tokens[:length].tolist() for tokens, length in parts]
        self._check_prompts(problems.train, prompts, mesh)

    def _check_prompts(self, asked: Problems, prompts: list[list[int]], mesh: Mesh | None) -> None:
        problems = self.problems
        try:
            check_prompts(problems.decoder, prompts, problems.config.decoding, mesh=mesh)
        except ValueError as error:
            raise ValueError(f"{asked.name}: {error}") from error

    def rows(
        self, member: Member
    ) -> tuple[Int[np.ndarray, " trained_on"], Int[np.ndarray, " held_out"]]:
        """Problems that a member trains on, and those held out from its cell.

        Raises:
          ValueError: if there are too few.
        """
        config, unit = self.problems.config, self.problems.config.data_unit
        order, held_out = self._order(member), config.risk_examples
        pool, fresh = order[: max(0, len(order) - held_out)], order[-held_out:]
        lengths = self.problems.encoded.lengths
        amounts = np.ones(len(pool), int) if unit == "examples" else lengths[pool]
        if amounts.sum() < member.data_size:
            raise ValueError(
                f"level {member.difficulty} ({member.selection}) must have {member.data_size} "
                f"{unit} to train on (data_sizes) and {held_out} problems to hold out "
                f"(risk_examples), got {len(order)} problems in all, with {amounts.sum()} {unit} "
                f"beside those held out"
            )
        affordable = int(np.searchsorted(amounts.cumsum(), member.data_size, side="right"))
        return pool[: max(1, affordable)], fresh

    def _order(self, member: Member) -> Int[np.ndarray, " cell"]:
        """Problems of a cell in its order: trained on from the front, held out at the end."""
        stated = np.unique(self.train_levels).tolist()
        chosen = selected(member.selection, member.difficulty, stated)
        rows = np.flatnonzero(np.isin(self.train_levels, chosen))
        if not len(rows):
            raise ValueError(
                f"level {member.difficulty} ({member.selection}) has no training problems; levels "
                f"are {stated}"
            )
        stream = f"{member.selection} {member.difficulty}"
        return nested(rows, len(rows), seed=member.seed, stream=stream)
