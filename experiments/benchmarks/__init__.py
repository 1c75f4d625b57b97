"""Benchmarks: against peers and against the machine's limit, side by side in one run.

Each benchmark is one file: ``python -m experiments.benchmarks.NAME [--quick] [--record]``. Its
`measure` returns a tidy table and a manifest, which ``--record`` keeps in
``experiments/results/benchmarks``; its `markdown` makes from both the text that is published.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro

from experiments.devices import configure_host_devices, num_cores
from experiments.storage import provenance
from experiments.storage.results import read_parquet, write_record

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"
QUICK_FLAGS = "--xla_backend_optimization_level=0"
"""XLA's flags where numbers mean nothing, in a quick plan: compile fast, run slowly."""
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")


@dataclass(frozen=True)
class Verdict:
    """A bar of the project and the values measured against it.

    Attributes:
      name: what is measured, in words, unit included.
      bar: the least value that passes.
      value: median over repeats.
      lowest, highest: over repeats.
    """

    name: str
    bar: float
    value: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, name: str, bar: float, values: Sequence[float]) -> Verdict:
        """Verdict on the values of all repeats."""
        return cls(name, bar, float(np.median(values)), float(min(values)), float(max(values)))

    @property
    def passed(self) -> bool:
        """True if the median reaches the bar."""
        return self.value >= self.bar


def describe(verdicts: Sequence[Verdict], **facts: Any) -> dict[str, Any]:
    """Manifest of a benchmark: machine, versions, time, its own facts and the verdicts.

    Starts JAX if it has not started.
    """
    return {
        "device": provenance.device_name(),
        "cores": num_cores(),
        "python": platform.python_version(),
        "versions": provenance.versions(PACKAGES),
        "commit": provenance.commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        **facts,
        "verdicts": [dataclasses.asdict(verdict) for verdict in verdicts],
    }


def read_record(name: str, directory: Path = RESULTS) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Table and manifest of a recorded benchmark."""
    manifest = json.loads((directory / f"{name}.json").read_text(encoding="utf-8"))
    return read_parquet(directory / f"{name}.parquet"), manifest


# ------------------------------------------------------------------------------------ Markdown


def spread(values: Iterable[float], digits: int) -> str:
    """``median (lowest–highest)``, with thousands separated."""
    values = list(values)
    median, low, high = (
        f"{value:,.{digits}f}" for value in (np.median(values), min(values), max(values))
    )
    return f"{median} ({low}–{high})"


def page(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    manifest: Mapping[str, Any],
    *,
    digits: int,
    note: str = "",
) -> str:
    """Markdown of a benchmark: its table, the bars, and where it was measured.

    Args:
      header, rows: of the table.
      manifest: as `describe` makes it, with the number of ``repeats``.
      digits: decimals in the table of bars.
      note: sentences behind those about machine and versions.
    """
    lines = _table_lines(header, rows)
    if verdicts := [Verdict(**fields) for fields in manifest["verdicts"]]:
        bars = [
            (
                verdict.name,
                f"{verdict.bar:,.{digits}f}",
                spread((verdict.lowest, verdict.value, verdict.highest), digits),
                "pass" if verdict.passed else "**fail**",
            )
            for verdict in verdicts
        ]
        lines += ["", *_table_lines(("bar", "at least", "measured", ""), bars)]
    return "\n".join([*lines, "", f"{_caption(manifest)} {note}".rstrip()]) + "\n"


def _table_lines(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; every column but the first is aligned to the right."""
    ruler = ["---", *["--:"] * (len(header) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in [header, ruler, *rows]]


def _caption(manifest: Mapping[str, Any]) -> str:
    """Sentences on machine, versions, commit, date and repeats."""
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    return (
        f"{manifest['device']}, {manifest['cores']} cores; Python {manifest['python']}, "
        f"{versions}; commit `{manifest['commit']}`, {manifest['date']}. "
        f"Median (lowest–highest) of {manifest['repeats']} interleaved repeats."
    )


# ---------------------------------------------------------------------------- the command line


def command(
    name: str,
    measure: Callable[[bool], tuple[pd.DataFrame, dict[str, Any]]],
    markdown: Callable[[pd.DataFrame, Mapping[str, Any]], str],
) -> Callable[..., None]:
    """The command of a benchmark, for `main`.

    Args:
      name: of the record.
      measure: returns table and manifest, given whether the quick plan is asked for.
      markdown: makes text of them.
    """

    def run(quick: bool = False, record: bool = False) -> None:
        """Measure, and print the tables and bars.

        Args:
          quick: only check that everything works; the numbers mean nothing.
          record: keep table and manifest under experiments/results/benchmarks.

        Raises:
          ValueError: if a quick run is to be recorded, before anything is measured.
        """
        if quick and record:
            raise ValueError("record needs the full plan, got quick as well")
        table, manifest = measure(quick)
        print(markdown(table, manifest))
        if record:
            for path in write_record(RESULTS, name, table, manifest):
                print(path)

    return run


def main(run: Callable[..., None]) -> None:
    """Entry point of every ``python -m experiments.benchmarks.NAME``."""
    configure_host_devices()
    tyro.cli(run)
