"""The pool: problems with their lengths, levels and hardness, measured as the scan's were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from experiments.engine.progress import console
from experiments.llm.difficulty.buckets import Buckets, Missing, levels
from experiments.llm.difficulty.columns import known_values, with_values
from experiments.llm.difficulty.measures import OF_MODEL, measure
from experiments.llm.difficulty.scales import Measure, needed_columns
from experiments.llm.problems.config import Source
from experiments.llm.problems.data import Problems, read_with_rows
from experiments.llm.problems.sources import Rows
from experiments.llm.selecting.config import SelectConfig
from experiments.llm.selecting.scanned import Scanned
from experiments.llm.text.encoding import encode_within
from experiments.llm.text.tokenizer import load_tokenizer
from experiments.storage import checkpoint
from experiments.storage.results import read_parquet


@dataclass(frozen=True)
class Pool:
    """Problems that rows are chosen from. Arrays are over those that are used, `rows`.

    Attributes:
      source: where the problems are read from.
      problems: all of them.
      table: their data set with every column, a row a problem.
      rows: number of each problem that is used: not too long, and with a value of the measure.
      lengths: tokens of each, prompt included; None if nothing needed them.
      levels: difficulty of each.
      hardness: what orders them from easy to hard: the measure, its sign changed where lower
        values are harder.
      measure: measure behind the levels.
      buckets: buckets that it was cut into; None for stated levels.
      model: checkpoint whose tokenizer counted; None if nothing needed one.
      max_length: tokens of an example at most; None if none were counted.
    """

    source: Source
    problems: Problems
    table: Rows
    rows: Int[np.ndarray, " kept"]
    lengths: Int[np.ndarray, " kept"] | None
    levels: Int[np.ndarray, " kept"]
    hardness: Float[np.ndarray, " kept"]
    measure: Measure
    buckets: Buckets | None
    model: str | None
    max_length: int | None

    @property
    def stated(self) -> list[int]:
        """Levels that have problems."""
        return np.unique(self.levels).tolist()


def read_pool(config: SelectConfig, source: Source, scan: Scanned | None) -> Pool:
    """Read a pool, leave out what a scan would leave out, and give every problem its level.

    Args:
      config: of the choice.
      source: of the pool; an empty one is the scan's training data.
      scan: the scan whose measure and edges count; None takes those of `config`.

    Raises:
      FileNotFoundError, ImportError, ValueError: if pool, checkpoint or measures cannot be used, or
        the scan's data have changed since it ran.
      ResultsError: if a table of measures cannot be read.
    """
    own = scan is not None and source in (Source(""), scan.train)
    source = scan.train if scan is not None and own else source
    if not source.source:
        raise ValueError("source must name a data set (--source), got ''")
    reader = _reader(config, scan, own=own)
    found = reader.read(source)
    if scan is not None and own and found.digest != scan.digest:
        raise ValueError(
            f"{found.problems.name} has changed since the scan {scan.directory} read it (there "
            f"{scan.digest}, here {found.digest}): name a pool with --source"
        )
    # Levels from the measure, cut anew where no scan has cut it.
    if config.measures is not None:
        measured = _from_table(config.measures, reader.measure, found)
    elif scan is not None and own and reader.measure in OF_MODEL:
        measured = _from_scan(scan, found)
    else:
        measured = reader.measured(found, fitted_to=None if own or scan is None else scan.train)
    name, buckets = reader.measure, None if scan is None else scan.buckets
    if buckets is None and name != "op":
        values = measured[name]
        buckets = Buckets.cut(name, values, config.buckets, config.edges, config.harder)
    return Pool(
        source=source,
        problems=found.problems,
        table=found.table,
        rows=found.rows,
        lengths=found.lengths,
        levels=levels(measured, buckets, least=0),
        hardness=_hardness(measured[name].to_numpy(np.float64), buckets),
        measure=name,
        buckets=buckets,
        model=reader.model,
        max_length=reader.max_length,
    )


@dataclass(frozen=True)
class _Found:
    """Problems as they were read: all of them, and which of them are used.

    Attributes:
      problems, table: see `Pool`.
      digest: of the problems that state a value of the measure, as a scan notes it.
      rows, lengths: see `Pool`.
    """

    problems: Problems
    table: Rows
    digest: str
    rows: Int[np.ndarray, " kept"]
    lengths: Int[np.ndarray, " kept"] | None

    @property
    def used(self) -> Problems:
        """Those that are used."""
        return self.problems.take(self.rows)


@dataclass(frozen=True)
class _Reader:
    """Reads and measures problems as a scan does.

    Attributes:
      measure: of their difficulty.
      columns: further columns that it is made of.
      missing: what becomes of problems without a value; None for an error.
      model: checkpoint whose tokenizer counts; None if nothing needs one.
      max_length: tokens of an example at most; None without a model.
    """

    measure: Measure
    columns: Sequence[str]
    missing: Missing | None
    model: str | None
    max_length: int | None

    def read(self, source: Source) -> _Found:
        """Read problems, and leave out those without a value or with too many tokens."""
        problems, table = read_with_rows(source, numbers=self.columns)
        kept, rows, lengths = problems, np.arange(len(problems)), None
        if self.columns or (self.measure == "op" and any(op is not None for op in problems.ops)):
            kept = with_values(self.measure, problems, self.missing)
            values = known_values(self.measure, problems)
            assert values is not None  # it is stated by the data
            rows = rows[np.isfinite(values)]
        if self.model is not None and self.max_length is not None:
            encoded = encode_within(
                kept,
                load_tokenizer(self.model),
                context=self.max_length,
                max_length=self.max_length,
                on_long="drop",
                console=console,
            )
            rows, lengths = rows[encoded.rows], encoded.lengths
        return _Found(problems, table, kept.digest(), rows, lengths)

    def measured(self, found: _Found, *, fitted_to: Source | None) -> pd.DataFrame:
        """Measure problems without asking a model.

        Args:
          found: the problems.
          fitted_to: problems that counts of passes are compared with, where not these.

        Raises:
          ValueError: if the measure needs a model.
        """
        if self.measure in OF_MODEL:
            raise ValueError(
                f"measure {self.measure!r} of this pool needs a model: run `sweetspot llm "
                f"difficulty --model MODEL --source {found.problems.name} --measures "
                f"{self.measure} --out DIRECTORY`, then give --measures DIRECTORY/measures.parquet"
            )
        others = self.read(fitted_to).used if fitted_to is not None and self.columns else None
        tokenizer: Any = None if self.model is None else load_tokenizer(self.model)
        return measure(
            tokenizer, found.used, measures=(self.measure,), fitted_to=others, console=console
        )


def _reader(config: SelectConfig, scan: Scanned | None, *, own: bool) -> _Reader:
    """How a pool is read: measure and limits are the scan's, or else stated."""
    name: Measure = scan.config.measure if scan is not None else config.measure or "op"
    model = config.model or (scan.tokenizer_of if scan is not None else None)
    reason = _needs_tokens(config, name, scan)
    if reason and model is None:
        raise ValueError(f"model must name a checkpoint for {reason} (--model), got None")
    # A scan's digest counts the columns.
    columns = needed_columns(name) if own or config.measures is None else []
    missing = config.missing if scan is None else scan.config.missing
    if not reason or model is None:
        return _Reader(name, columns, missing, None, None)
    # No example may be longer than the checkpoint's context.
    most = config.max_length or (scan.config.max_length if scan is not None else None)
    context = checkpoint.read_config(model).max_positions
    length = context if most is None else min(most, context)
    return _Reader(name, columns, missing, model, length)


def _hardness(
    values: Float[np.ndarray, " kept"], buckets: Buckets | None
) -> Float[np.ndarray, " kept"]:
    """Values of a measure, their sign changed if a lower one lies in a harder bucket."""
    if buckets is None:
        return values
    edge = buckets.edges[0]
    below, above = buckets.assign([edge - 1, edge + 1], least=0)
    return values if above > below else -values


def _needs_tokens(config: SelectConfig, name: Measure, scan: Scanned | None) -> str:
    """Say what needs the tokens of every problem; empty if nothing does."""
    if config.budget_unit != "examples":
        return f"a budget in {config.budget_unit}"
    if config.max_length is not None:
        return "max_length"
    if name == "cot_tokens" and config.measures is None:
        return "the measure cot_tokens"
    return "" if scan is None else "the problems of a scan"


def _from_table(path: Path, name: Measure, found: _Found) -> pd.DataFrame:
    """Measures from a table with a row for each problem of the pool."""
    table = read_parquet(path)
    if len(table) != len(found.problems) or name not in table:
        raise ValueError(
            f"measures must have a column {name!r} and a row for each of the pool's "
            f"{len(found.problems)} problems, got {len(table)} rows with {list(table)}"
        )
    return table.iloc[found.rows].reset_index(drop=True)


def _from_scan(scan: Scanned, found: _Found) -> pd.DataFrame:
    """Measures that a scan kept of its training problems."""
    table = scan.measured()
    if len(table) != len(found.rows):
        raise ValueError(
            f"{scan.directory} has measures of {len(table)} problems, but {len(found.rows)} are "
            f"not too long here: leave model and max_length as the scan's, or give --measures"
        )
    return table.reset_index(drop=True)
