"""What a scan trains and tests on: problems, their levels, and the rows of every member.

All that a wrong data set, grader or grid could spoil is told here, before anything is trained.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
from jax.sharding import Mesh
from jaxtyping import Int
from rich.console import Console

from experiments.igsm.config import Stream
from experiments.llm.answering.decoding import check_prompts, kept_of
from experiments.llm.answering.model import Model
from experiments.llm.difficulty.buckets import Buckets, levels
from experiments.llm.difficulty.measures import OF_MODEL, measure
from experiments.llm.difficulty.selection import selected
from experiments.llm.problems.data import Problems, read
from experiments.llm.problems.grade import check_solutions, references
from experiments.llm.scan.grid import Member, ScanConfig
from experiments.llm.text.encoding import Encoded, encode_within
from experiments.llm.text.loader import nested
from experiments.llm.text.tokenizer import load_tokenizer, prompt_tokens
from experiments.llm.training.finetune import check_tokens
from experiments.storage import checkpoint
from experiments.storage.results import Run, write_atomically

MEASURES = "measures.parquet"


def read_part(config: ScanConfig, directory: Path, part: Stream) -> Problems:
    """The problems of one part of a scan: exported into its directory, or those that are named."""
    if config.export is not None:
        return read(directory / "data" / part / f"*.{config.export.format}")
    return {"train": config.train, "test": config.test, "base": config.base_data}[part].read()


def digest(problems: Problems) -> str:
    """Fingerprint of problems with all that is stated of them."""
    found = hashlib.sha256()
    for row in zip(
        problems.prompts, problems.solutions, problems.answers, problems.ops, strict=True
    ):
        found.update(json.dumps(row).encode())
    return found.hexdigest()[:16]


class ScanData:
    """Problems of a scan, encoded and checked; `cut` gives them their levels.

    Attributes:
      tokenizer: of the checkpoint.
      problems, encoded: what members are trained on, without what is too long.
      base: what the base is trained on; None where it is not.
      test: what is asked in the end.
      levels, test_levels: difficulty of each problem of both.
      tests: numbers of the test problems in use.
      digests: fingerprints of all problems.

    Args:
      config: the scan.
      run: its directory.
      start: the checkpoint that base or members start from.
      base_problems: what the base is trained on; None where it is not.
      mesh: of the scan.
      console: where it is told what was read.

    Raises:
      FileNotFoundError, ImportError, ValueError: if problems or checkpoint cannot be used.
    """

    levels: Int[np.ndarray, " problems"]
    test_levels: Int[np.ndarray, " tests"]
    tests: Int[np.ndarray, " used"]

    def __init__(
        self,
        config: ScanConfig,
        run: Run,
        start: checkpoint.PathLike,
        base_problems: Problems | None,
        *,
        mesh: Mesh | None,
        console: Console,
    ):
        self.config, self.run, self._mesh, self._console = config, run, mesh, console
        self._decoder = checkpoint.read_config(start)
        self.tokenizer = load_tokenizer(start)
        self.test = read_part(config, run.directory, "test")
        problems = read_part(config, run.directory, "train")
        self.digests = {"train": digest(problems), "test": digest(self.test)}
        if base_problems is not None:
            self.digests["base"] = digest(base_problems)
        self.encoded = self._encoded(problems)
        self.problems = problems.take(self.encoded.rows)
        self.base = None if base_problems is None else self._encoded(base_problems)
        references(self.test, config.grader)
        references(self.problems, config.grader)
        check_solutions(self.problems, config.grader)

    @property
    def needs_model(self) -> bool:
        """Whether levels depend on what the base answers."""
        return self.config.measure in OF_MODEL

    def _encoded(self, problems: Problems) -> Encoded:
        encoded = encode_within(
            problems,
            self.tokenizer,
            context=self._decoder.max_positions,
            max_length=self.config.max_length,
            on_long="drop",
            console=self._console,
        )
        check_tokens(encoded, self._decoder)
        return encoded

    def cut(self, model: Model | None = None) -> None:
        """Give every problem its level, and see that the grid can be run.

        Args:
          model: the base, where `needs_model`.

        Raises:
          ValueError: if a level has too few problems, a problem cannot be asked, or the test lacks
            a level that the base has to know.
        """
        config = self.config
        train, test = self._measured(model)
        buckets = None
        if config.measure != "op":
            values = train[config.measure]
            buckets = Buckets.cut(config.measure, values, config.buckets, config.edges)
            self.run.update_manifest(
                buckets=dataclasses.asdict(buckets), buckets_in_words=buckets.describe()
            )
        self.levels = levels(train, buckets)
        # A benchmark need not have problems of every level.
        self.test_levels = levels(test, buckets, least=0)
        self.tests = self._tests()
        if missing := sorted(set(config.base.levels) - set(self.test_levels.tolist())):
            raise ValueError(
                f"base.levels must be levels of the test, {np.unique(self.test_levels).tolist()}, "
                f"got {missing}"
            )
        self._check_members()

    def _measured(self, model: Model | None) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Measures of training and test problems; what a model was asked for is kept."""
        path = self.run.directory / MEASURES
        if self.needs_model and path.exists():
            kept = pd.read_parquet(path)
            return kept.loc[kept["part"] == "train"], kept.loc[kept["part"] == "test"]
        decoding = self.config.sampled
        with contextlib.ExitStack() as stack:
            kept = None
            if model is not None and self.config.measure == "pass_rate":
                kept = stack.enter_context(kept_of(self.run.directory, model, decoding))
            train, test = (
                measure(
                    model or self.tokenizer,
                    problems,
                    measures=(self.config.measure,),
                    grader=self.config.grader,
                    decoding=decoding,
                    kept=kept,
                    console=self._console,
                ).assign(part=part)
                for part, problems in (("train", self.problems), ("test", self.test))
            )
        if self.needs_model:
            both = pd.concat([train, test], ignore_index=True)
            write_atomically(path, lambda temporary: both.to_parquet(temporary, index=False))
        return train, test

    def _tests(self) -> Int[np.ndarray, " used"]:
        """Test problems in use: the first of each level."""
        most, found = self.config.test_examples, []
        for level in np.unique(self.test_levels):
            rows = np.flatnonzero(self.test_levels == level)
            found.append(rows[:most] if most else rows)
        return np.concatenate(found)

    def _check_members(self) -> None:
        """Refuse levels with too few problems, and prompts too long to ask; say what there is."""
        config = self.config
        asked: set[int] = set()
        for member in config.members:
            rows, fresh = self.rows(member)
            asked.update(rows[: config.risk_examples].tolist(), fresh.tolist())
        thinking = config.decoding.thinking
        tests = [
            prompt_tokens(self.tokenizer, self.test.prompts[row], thinking=thinking)
            for row in self.tests
        ]
        self._check_prompts(self.test, tests)
        encoded = self.encoded.take(sorted(asked))
        parts = zip(encoded.tokens, encoded.prompt_lengths, strict=True)
        self._check_prompts(self.problems, [tokens[:length].tolist() for tokens, length in parts])
        counts = {
            name: dict(zip(map(str, values.tolist()), number.tolist(), strict=True))
            for name, found in (("train", self.levels), ("test", self.test_levels[self.tests]))
            for values, number in [np.unique(found, return_counts=True)]
        }
        report = dataclasses.asdict(self.encoded.report)
        self.run.update_manifest(levels=counts, report=report)

    def _check_prompts(self, problems: Problems, prompts: list[list[int]]) -> None:
        try:
            check_prompts(self._decoder, prompts, self.config.decoding, mesh=self._mesh)
        except ValueError as error:
            raise ValueError(f"{problems.name}: {error}") from error

    def _order(self, member: Member) -> Int[np.ndarray, " cell"]:
        """Problems of a cell in its order: trained on from the front, held out at the end."""
        chosen = selected(member.selection, member.difficulty, np.unique(self.levels).tolist())
        rows = np.flatnonzero(np.isin(self.levels, chosen))
        if not len(rows):
            raise ValueError(
                f"level {member.difficulty} ({member.selection}) has no training problems; levels "
                f"are {np.unique(self.levels).tolist()}"
            )
        stream = f"{member.selection} {member.difficulty}"
        return nested(rows, len(rows), seed=member.seed, stream=stream)

    def rows(
        self, member: Member
    ) -> tuple[Int[np.ndarray, " trained_on"], Int[np.ndarray, " held_out"]]:
        """Problems that a member trains on, and those held out from its cell.

        Raises:
          ValueError: if there are too few.
        """
        held_out = self.config.risk_examples
        order, unit = self._order(member), self.config.data_unit
        pool, fresh = order[: max(0, len(order) - held_out)], order[-held_out:]
        amounts = np.ones(len(pool), int) if unit == "examples" else self.encoded.lengths[pool]
        if amounts.sum() < member.data_size:
            raise ValueError(
                f"level {member.difficulty} ({member.selection}) must have {member.data_size} "
                f"{unit} to train on (data_sizes) and {held_out} problems to hold out "
                f"(risk_examples), got {len(order)} problems in all, with {amounts.sum()} {unit} "
                f"beside those held out"
            )
        affordable = int(np.searchsorted(amounts.cumsum(), member.data_size, side="right"))
        return pool[: max(1, affordable)], fresh
